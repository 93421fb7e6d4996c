"""Training itself: TRL on one process's share of a run, from the start or from the last saved state."""

import logging
import os
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import polars as pl
import torch
from peft import PeftModel
from torch.distributed.tensor import DTensor
from transformers import PreTrainedTokenizerBase, PrinterCallback, set_seed

from sft_atlas.files import read_json
from sft_atlas.models.device import load_model, prepare
from sft_atlas.models.origin import name_of
from sft_atlas.models.tokenizer import load_tokenizer
from sft_atlas.runtime.settings import current
from sft_atlas.runtime.stopping import StopRequest
from sft_atlas.study.model import Recipe
from sft_atlas.training.batches import dataset, sequences
from sft_atlas.training.callbacks import EpochKeeper, Reporter, StateKeeper
from sft_atlas.training.lease import Lease
from sft_atlas.training.memory import micro_batch_tokens
from sft_atlas.training.run_settings import Settings
from sft_atlas.training.sampler import StepSampler, splits_for
from sft_atlas.training.trainer import Trainer, adapter_config, check_optimizer, shard_on_cpu, trainer_arguments

LOG = logging.getLogger(__name__)

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

    settings: Settings
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
    recipe, last = request.settings.recipe, max(request.records)
    processes, rank = int(os.environ.get("WORLD_SIZE") or 1), int(os.environ.get("RANK") or 0)
    tokenizer, model, rows = load(request.settings, request.base, request.tokens)
    splits = min(splits or micro_batches(rows, model, recipe, processes), max(1, recipe.batch_size // processes))
    trainer = make_trainer(request.settings, model, tokenizer, rows, last, request.states, splits)
    reporter = Reporter(trainer, request.progress, last)
    for callback in (
        EpochKeeper(trainer, request.records, request.made_from, tokenizer, recipe.precision, lease),
        StateKeeper(trainer, state_made_from(request, processes), lease, stop, save_seconds(), last, keeps_state()),
        reporter,
    ):
        trainer.add_callback(callback)
    if isinstance(trainer.model, PeftModel):
        # the path that peft puts here differs from site to site
        adapter = trainer.model.peft_config["default"]
        adapter.base_model_name_or_path, adapter.revision = name_of(request.base)
    if rank == 0:
        _announce(read_json(request.tokens), rows.height, recipe, splits, state)
    if state:
        trainer.continue_from(state)
    try:
        trainer.train(resume_from_checkpoint=str(state) if state else None)
    except torch.OutOfMemoryError as error:
        error.splits = splits  # type: ignore[attr-defined]
        raise
    step = trainer.state.global_step
    return Trained(
        log_of(trainer),
        step,
        step >= last * trainer.steps_per_epoch,
        {
            "tokens_per_second": reporter.tokens_per_second,
            "micro_batches_per_step": splits,
            "processes": processes,
            "sharded": any(isinstance(weight, DTensor) for weight in trainer.weights.parameters()),
            "went_on_from_step": int(state.name.rpartition("-")[2]) if state else None,
            "trained_in": str(next(trainer.weights.parameters()).dtype).removeprefix("torch."),
            "optimizer": recipe.optimizer,
            "gpu": torch.cuda.get_device_name() if trainer.weights.device.type == "cuda" else None,
            "cuda": torch.version.cuda,
        },
    )


def load(settings: Settings, base: Path, tokens: Path) -> tuple[PreTrainedTokenizerBase, Any, pl.DataFrame]:
    """Tokenizer with a token to pad with, model on its device, and what is trained (see `sequences`)."""
    recipe = settings.recipe
    device = prepare(settings.threads)
    check_optimizer(recipe.optimizer, device)
    tokenizer = load_tokenizer(base)
    if tokenizer.pad_token is None:
        tokenizer.pad_token = tokenizer.eos_token
    set_seed(settings.seed)
    model = load_model(base.with_name("model"), "bf16" if recipe.precision == "pure_bf16" else "fp32", device)
    return tokenizer, model, sequences(pl.read_parquet(tokens.with_name("tokens.parquet")), recipe)


def make_trainer(
    settings: Settings,
    model: Any,
    tokenizer: PreTrainedTokenizerBase,
    rows: pl.DataFrame,
    last: int,
    states: Path,
    splits: int,
) -> Trainer:
    """A trainer for a recipe and a seed that trains to the end of epoch `last` and writes nothing by itself."""
    recipe, seed = settings.recipe, settings.seed
    processes, rank = int(os.environ.get("WORLD_SIZE") or 1), int(os.environ.get("RANK") or 0)
    arguments = trainer_arguments(recipe, seed, last, model.device, states, splits, processes)
    shard_on_cpu(arguments)
    lengths = rows["input_ids"].list.len().to_list()
    trainer = Trainer(
        StepSampler(lengths, recipe.batch_size, splits, seed, processes, rank, recipe.batching == "by_length"),
        rows["row"].to_list(),
        model=model,
        args=arguments,
        train_dataset=dataset(rows, tokenizer.eos_token_id, processes),
        processing_class=tokenizer,
        peft_config=adapter_config(recipe.adapter),
    )
    trainer.remove_callback(PrinterCallback)
    return trainer


def log_of(trainer: Trainer) -> pl.DataFrame:
    """What was logged at every step (schema `LOG_SCHEMA`)."""
    history = [entry for entry in trainer.state.log_history if "loss" in entry]
    steps = [{name: entry.get(name) for name in LOG_SCHEMA} for entry in history]
    return pl.DataFrame(steps, schema=LOG_SCHEMA, strict=False)


def state_made_from(request: Request, processes: int) -> dict[str, Any]:
    """What a resumable state is made from: random numbers are saved for each process, so their number counts."""
    return request.made_from | {"processes": processes}


def save_seconds() -> float:
    """How often the state is saved (config.yaml: save_minutes), 0 for every step."""
    return 60 * current().save_minutes


def keeps_state() -> bool:
    """Whether a finished run's state stays, for a longer run of a constant schedule to go on from (config.yaml)."""
    return current().keep_state


def micro_batches(rows: pl.DataFrame, model: Any, recipe: Recipe, processes: int) -> int:
    """Micro-batches in a step: what config.yaml's micro_batch_size says, or by the memory and the rows."""
    batch, asked = recipe.batch_size, current().micro_batch_size
    if asked:
        return max(1, -(-batch // (asked * processes)))
    longest = int(rows["input_ids"].list.len().max())  # type: ignore[arg-type]
    return splits_for(batch, longest, micro_batch_tokens(model, recipe), processes)


def _announce(counted: dict[str, Any], count: int, recipe: Recipe, splits: int, state: Path | None) -> None:
    packed = f" packed into {count} sequences" if recipe.batching == "packed" else ""
    LOG.info(
        f"{counted['rows']} rows{packed}, {counted['truncated']} of them cut at {recipe.max_length} tokens; "
        f"steps of {recipe.batch_size} in {splits} micro-batch{'es' if splits > 1 else ''}"
        + (f"; goes on from {state.name}" if state else "")
    )
    if recipe.precision == "pure_bf16":
        LOG.warning(
            "weights and optimiser are in bf16 alone; its 8 bits drop updates below 1/256 of a weight, so at "
            "small learning rates most weights do not move, and changes of layers mean less"
        )
