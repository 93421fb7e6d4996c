"""Training itself: TRL on one process's share of a run, from the start or from the last saved state."""

import os
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import polars as pl
import torch
from datasets import Dataset
from peft import PeftModel
from torch.distributed.tensor import DTensor
from transformers import PrinterCallback, set_seed

from sft_atlas.device import load_model, prepare
from sft_atlas.stopping import StopRequest
from sft_atlas.tokenise import IGNORED, load_tokenizer
from sft_atlas.training.callbacks import EpochKeeper, Reporter, StateKeeper
from sft_atlas.training.lease import Lease
from sft_atlas.training.memory import micro_batch_tokens
from sft_atlas.training.sampler import StepSampler, splits_for
from sft_atlas.training.trainer import Trainer, adapter_config, check_optimizer, shard_on_cpu, trainer_arguments

LOG_SCHEMA = {
    "step": pl.Int64,
    "epoch": pl.Float64,
    "loss": pl.Float64,
    "learning_rate": pl.Float64,
    "grad_norm": pl.Float64,
    "num_tokens": pl.Int64,
}


@dataclass(frozen=True)
class Request:
    """What is to be trained, and where it goes.

    `records` are the epochs to keep, by number, with the file that says that one is complete; `made_from` the hashes
    that tell this run's files from another's; `lease` the file of the lease that is held.
    """

    settings: dict[str, Any]
    base: Path
    tokens: Path
    records: dict[int, Path]
    made_from: dict[str, Any]
    states: Path
    progress: Path
    lease: Path


@dataclass(frozen=True)
class Trained:
    """How far training came: its log (schema `LOG_SCHEMA`, a row per step), the last step, whether it is the end."""

    history: pl.DataFrame
    step: int
    finished: bool
    facts: dict[str, Any] = field(default_factory=dict)


def fit(
    request: Request, lease: Lease, stop: StopRequest, splits: int | None = None, state: Path | None = None
) -> Trained:
    """Train to the last of the epochs, keeping each, from a saved state or from the start.

    `splits` is the number of micro-batches in a step, or None for what suits the rows and the memory.

    Raises:
        torch.OutOfMemoryError: with the number of micro-batches as its attribute `splits`.
        DivergedError: see `Trainer`.
    """
    recipe, seed = request.settings["recipe"], request.settings["seed"]
    device = prepare(request.settings["threads"])
    check_optimizer(recipe["optimizer"], device)
    processes, rank = int(os.environ.get("WORLD_SIZE") or 1), int(os.environ.get("RANK") or 0)
    tokenizer = load_tokenizer(request.base)
    if tokenizer.pad_token is None:
        tokenizer.pad_token = tokenizer.eos_token
    set_seed(seed)
    model = load_model(
        request.base.with_name("model"), "bf16" if recipe["precision"] == "pure_bf16" else "fp32", device
    )
    rows = pl.read_parquet(request.tokens.with_name("tokens.parquet"))
    lengths = rows["input_ids"].list.len().to_list()
    batch, last = recipe["batch_size"], max(request.records)
    splits = splits or _splits(batch, max(lengths), model, recipe, processes)
    splits = min(splits, max(1, batch // processes))
    sampler = StepSampler(lengths, batch, splits, seed, processes, rank)
    keeper = EpochKeeper(request.records, request.made_from, tokenizer, recipe["precision"], lease)
    saver = StateKeeper(
        state_made_from(request, processes), lease, stop, save_seconds(), last if keeps_state() else None
    )
    reporter = Reporter(request.progress, last)
    arguments = trainer_arguments(recipe, seed, last, device, request.states, splits, processes)
    shard_on_cpu(arguments)
    trainer = Trainer(
        sampler,
        rows["row"].to_list(),
        model=model,
        args=arguments,
        train_dataset=_dataset(rows, tokenizer.eos_token_id, processes),
        processing_class=tokenizer,
        peft_config=adapter_config(recipe["lora"]),
        callbacks=[keeper, saver, reporter],
    )
    trainer.remove_callback(PrinterCallback)
    keeper.trainer = saver.trainer = reporter.trainer = trainer
    if isinstance(trainer.model, PeftModel):
        # its folder in the results holds the base's identity; the path that peft puts here differs from site to site
        adapter = trainer.model.peft_config["default"]
        adapter.base_model_name_or_path, _, adapter.revision = request.base.parent.name.rpartition("-")
    if rank == 0:
        _announce(rows, recipe, splits, state)
    if state:
        trainer.continue_from(state)
    try:
        trainer.train(resume_from_checkpoint=str(state) if state else None)
    except torch.OutOfMemoryError as error:
        error.splits = splits  # type: ignore[attr-defined]
        raise
    history = [entry for entry in trainer.state.log_history if "loss" in entry]
    step = trainer.state.global_step
    return Trained(
        pl.DataFrame(
            [{name: entry.get(name) for name in LOG_SCHEMA} for entry in history], schema=LOG_SCHEMA, strict=False
        ),
        step,
        step >= last * trainer.steps_per_epoch,
        {
            "tokens_per_second": reporter.tokens_per_second,
            "micro_batches_per_step": splits,
            "processes": processes,
            "sharded": any(isinstance(weight, DTensor) for weight in trainer.model.parameters()),
            "went_on_from_step": int(state.name.rpartition("-")[2]) if state else None,
            "trained_in": str(next(trainer.model.parameters()).dtype).removeprefix("torch."),
            "optimizer": recipe["optimizer"],
        },
    )


def state_made_from(request: Request, processes: int) -> dict[str, Any]:
    """What a resumable state is made from: random numbers are saved for each process, so their number counts."""
    return request.made_from | {"processes": processes}


def save_seconds() -> float:
    """How often the state is saved (config.yaml: save_minutes), 0 for every step."""
    return 60 * float(os.environ.get("SFT_ATLAS_SAVE_MINUTES") or 30)


def keeps_state() -> bool:
    """Whether a finished run's state stays, for a longer run of a constant schedule to go on from (config.yaml)."""
    return os.environ.get("SFT_ATLAS_KEEP_STATE") == "1"


def _splits(batch: int, longest: int, model: Any, recipe: dict[str, Any], processes: int) -> int:
    """Micro-batches in a step: what config.yaml's micro_batch_size says, or by the memory and the rows."""
    rows = os.environ.get("SFT_ATLAS_MICRO_BATCH")
    if rows:
        return max(1, -(-batch // (int(rows) * processes)))
    return splits_for(batch, longest, micro_batch_tokens(model, recipe), processes)


def _dataset(rows: pl.DataFrame, eos: int, processes: int) -> Dataset:
    """Token ids and labels as TRL takes them; several processes need a row that trains nothing (see `StepSampler`)."""
    columns = rows.select("input_ids", "labels")
    if processes > 1:
        blank = pl.DataFrame({"input_ids": [[eos, eos]], "labels": [[IGNORED, IGNORED]]}, schema=columns.schema)
        columns = columns.vstack(blank)
    return Dataset(columns.to_arrow())


def _announce(rows: pl.DataFrame, recipe: dict[str, Any], splits: int, state: Path | None) -> None:
    cut = int(rows["truncated"].sum())
    print(
        f"{rows.height} rows, {cut} of them cut at {recipe['max_length']} tokens; steps of {recipe['batch_size']} rows "
        f"in {splits} micro-batch{'es' if splits > 1 else ''}" + (f"; goes on from {state.name}" if state else ""),
        flush=True,
    )
    if recipe["precision"] == "pure_bf16":
        print(
            "warning: weights and optimiser are in bf16 alone; its 8 bits drop updates below 1/256 of a weight, so at "
            "small learning rates most weights do not move, and changes of layers mean less",
            flush=True,
        )
