"""Stage *train*: one run of supervised fine-tuning with TRL, full or LoRA, keeping the epochs the study asks for."""

import os
from pathlib import Path
from typing import Any

import polars as pl
import torch
from datasets import Dataset
from peft import LoraConfig, PeftModel
from transformers import (
    PreTrainedTokenizerBase,
    PrinterCallback,
    TrainerCallback,
    TrainerControl,
    TrainerState,
    TrainingArguments,
    set_seed,
)
from trl import SFTConfig, SFTTrainer

from sft_atlas.device import load_model, prepare
from sft_atlas.files import (
    content_hash,
    epoch_folder,
    read_json,
    recorded,
    whole,
    write_json,
    write_record,
    write_table,
)
from sft_atlas.tokenise import load_tokenizer

LOG_SCHEMA = {
    "step": pl.Int64,
    "epoch": pl.Float64,
    "loss": pl.Float64,
    "learning_rate": pl.Float64,
    "grad_norm": pl.Float64,
    "num_tokens": pl.Int64,
}


def run(spec: dict[str, Any], root: Path) -> None:
    """Train a run and write its manifest: kept epochs with their files and hashes, steps, final loss.

    Kept epochs lie beside the manifest as `epoch-NN/model/`. Epochs that an earlier job made from the same base, tokens
    and settings are left as they are; if all are there, nothing is trained.
    """
    identity, output = spec["identity"], root / spec["output"]
    base, tokens = root / spec["inputs"]["base"], root / spec["inputs"]["tokens"]
    made_from = {"run": identity["run"], "base": content_hash(base), "tokens": content_hash(tokens)}
    records = {epoch: epoch_folder(output, epoch) / "checkpoint.json" for epoch in identity["epochs"]}
    log = output.with_name("log.parquet")
    log_record = log.with_suffix(".json")
    wanted = [epoch for epoch, record in records.items() if recorded(record, made_from) is None]
    if recorded(log_record, made_from | {"epochs": max(records)}) is None:
        wanted = wanted or [max(records)]
    if wanted:
        history = train(identity["settings"], base, tokens, {epoch: records[epoch] for epoch in wanted}, made_from)
        if max(wanted) == max(records):
            write_table(log, history)
            write_record(log_record, made_from | {"epochs": max(records)}, [log])
    facts = read_json(tokens)
    steps = pl.read_parquet(log).filter(pl.col("epoch") <= max(records) + 1e-6)
    manifest = {
        "made_from": made_from,
        "epochs": {str(epoch): read_json(record)["files"] for epoch, record in records.items()},
        "steps": steps.height,
        "trained_tokens": facts["trained_tokens"] * max(records),
        "final_loss": steps["loss"].tail(max(1, steps.height // max(records))).mean(),
    }
    write_json(output, manifest)


def train(
    settings: dict[str, Any], base: Path, tokens: Path, records: dict[int, Path], made_from: dict[str, Any]
) -> pl.DataFrame:
    """Train to the last of the epochs, saving each; returns the log (schema `LOG_SCHEMA`), one row per step."""
    recipe, seed = settings["recipe"], settings["seed"]
    device = prepare(settings["threads"])
    tokenizer = load_tokenizer(base)
    if tokenizer.pad_token is None:
        tokenizer.pad_token = tokenizer.eos_token
    set_seed(seed)
    model = load_model(base.with_name("model"), "fp32", device)
    rows = pl.read_parquet(tokens.with_name("tokens.parquet"), columns=["input_ids", "labels"])
    last = max(records)
    keeper = EpochKeeper(records, made_from, tokenizer, recipe["precision"])
    reporter = StepReporter()
    trainer = SFTTrainer(
        model=model,
        args=trainer_arguments(recipe, seed, last, device, base.parent),
        train_dataset=Dataset(rows.to_arrow()),
        processing_class=tokenizer,
        peft_config=adapter_config(recipe["lora"]),
        callbacks=[keeper, reporter],
    )
    trainer.remove_callback(PrinterCallback)
    keeper.model = trainer.model
    if isinstance(trainer.model, PeftModel):
        # its folder in the results holds the base's identity; the path that peft puts here differs from site to site
        adapter = trainer.model.peft_config["default"]
        adapter.base_model_name_or_path, _, adapter.revision = base.parent.name.rpartition("-")
    trainer.train()
    history = [entry for entry in trainer.state.log_history if "loss" in entry]
    return pl.DataFrame(
        [{name: entry.get(name) for name in LOG_SCHEMA} for entry in history], schema=LOG_SCHEMA, strict=False
    )


def trainer_arguments(recipe: dict[str, Any], seed: int, last: int, device: torch.device, folder: Path) -> SFTConfig:
    """TRL's arguments for a recipe, every default that matters written out.

    `last` is the last kept epoch; the schedule spans the recipe's epochs, which a constant schedule does not have.
    """
    batch = recipe["batch_size"]
    micro = min(batch, int(os.environ.get("SFT_ATLAS_MICRO_BATCH") or batch))
    if batch % micro:
        raise ValueError(f"config.yaml: micro_batch_size: {micro} does not divide the recipe's batch_size {batch}")
    schedule, warmup = recipe["schedule"], recipe["warmup_steps"]
    return SFTConfig(
        output_dir=str(folder),
        save_strategy="no",
        per_device_train_batch_size=micro,
        gradient_accumulation_steps=batch // micro,
        num_train_epochs=recipe.get("epochs", last),
        learning_rate=recipe["learning_rate"],
        lr_scheduler_type="constant_with_warmup" if schedule == "constant" and warmup else schedule,
        warmup_steps=warmup,
        weight_decay=recipe["weight_decay"],
        max_grad_norm=recipe["max_gradient_norm"],
        optim="adamw_torch_fused",
        max_length=recipe["max_length"],
        packing=False,
        dataset_kwargs={"skip_prepare_dataset": True},
        seed=seed,
        data_seed=seed,
        bf16=recipe["precision"] == "bf16",
        use_cpu=device.type == "cpu",
        activation_checkpointing=device.type != "cpu",
        dataloader_pin_memory=device.type != "cpu",
        logging_steps=1,
        logging_nan_inf_filter=False,
        report_to="none",
        disable_tqdm=True,
    )


def adapter_config(lora: dict[str, Any] | None) -> LoraConfig | None:
    """peft's configuration of an adapter, or None for full fine-tuning."""
    if lora is None:
        return None
    return LoraConfig(
        r=lora["rank"],
        lora_alpha=lora["alpha"],
        lora_dropout=lora["dropout"],
        target_modules=lora["targets"],
        task_type="CAUSAL_LM",
    )


class EpochKeeper(TrainerCallback):
    """Saves the model at the end of each kept epoch, and ends training after the last."""

    def __init__(
        self, records: dict[int, Path], made_from: dict[str, Any], tokenizer: PreTrainedTokenizerBase, precision: str
    ) -> None:
        self.records, self.made_from, self.tokenizer, self.precision = records, made_from, tokenizer, precision
        self.model: Any = None

    def on_epoch_end(
        self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **_: Any
    ) -> TrainerControl:
        """Write `epoch-NN/model/` and, when it is whole, its record."""
        epoch = round(state.epoch or 0)
        if epoch in self.records:
            record = self.records[epoch]
            folder = record.with_name("model")
            with whole(folder) as temporary:
                save(self.model, temporary, self.precision)
                self.tokenizer.save_pretrained(temporary)
            write_record(record, self.made_from, [folder], epoch=epoch, step=state.global_step)
        control.should_training_stop = epoch >= max(self.records)
        return control


class StepReporter(TrainerCallback):
    """Prints a line at every tenth of a run, so that the job's log shows how far it is."""

    def on_log(
        self, args: TrainingArguments, state: TrainerState, control: TrainerControl, logs: Any = None, **_: Any
    ) -> None:
        """Print step, loss and learning rate."""
        if logs and "loss" in logs and state.global_step % max(1, state.max_steps // 10) == 0:
            print(f"step {state.global_step}/{state.max_steps} loss {logs['loss']:.4f}", flush=True)


def save(model: Any, folder: Path, precision: str) -> None:
    """Save weights as safetensors: an adapter in fp32, a full model in fp32 or, of a bf16 recipe, in bf16."""
    if isinstance(model, PeftModel):
        # embeddings are never trained with an adapter; peft would ask the hub whether they have changed
        model.save_pretrained(str(folder), safe_serialization=True, save_embedding_layers=False)
        # peft writes its sets in the order of their hashes, which is another in every process
        config = read_json(folder / "adapter_config.json")
        ordered = {key: sorted(value) if isinstance(value, list) else value for key, value in config.items()}
        write_json(folder / "adapter_config.json", ordered)
        folder.joinpath("README.md").unlink(missing_ok=True)
    elif precision == "bf16":
        state = {name: tensor.to(torch.bfloat16) for name, tensor in model.state_dict().items()}
        model.save_pretrained(folder, state_dict=state)
        write_json(folder / "config.json", read_json(folder / "config.json") | {"dtype": "bfloat16"})
    else:
        model.save_pretrained(folder)
