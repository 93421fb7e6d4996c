"""Opens the model of a checkpoint, base or fine-tuned, for whatever measures it."""

from pathlib import Path
from typing import Any

import torch
from peft import PeftModel
from transformers import PreTrainedModel, PreTrainedTokenizerBase

from sft_atlas.files import content_hash, epoch_folder
from sft_atlas.models.device import TYPES, load_model
from sft_atlas.models.tokenizer import load_tokenizer
from sft_atlas.stages.release.run import ensure_weights


def open_model(
    inputs: dict[str, Any], epoch: int, root: Path, precision: str, device: torch.device
) -> tuple[PreTrainedModel, PreTrainedTokenizerBase]:
    """The model and tokenizer of an epoch of run `inputs["model"]`, or at epoch 0 of base `inputs["model"]`.

    Weights that were released are made again first.
    """
    manifest, base = root / inputs["model"], root / inputs["base"]
    if not epoch:
        return load_model(manifest.with_name("model"), precision, device), load_tokenizer(manifest)
    ensure_weights(manifest, epoch, base, root)
    tokenizer = load_tokenizer(epoch_folder(manifest, epoch) / "manifest.json")
    return load_checkpoint(manifest, epoch, base, precision, device), tokenizer


def load_checkpoint(manifest: Path, epoch: int, base: Path, precision: str, device: torch.device) -> PreTrainedModel:
    """A run's model at an epoch; an adapter is merged into its base in fp32, then cast."""
    folder = epoch_folder(manifest, epoch) / "model"
    if not (folder / "adapter_config.json").exists():
        return load_model(folder, precision, device)
    model = PeftModel.from_pretrained(
        load_model(base.with_name("model"), "fp32", device), folder, local_files_only=True
    )
    return model.merge_and_unload().to(TYPES[precision])


def weights_identity(manifest: Path, epoch: int) -> str:
    """What names the weights under a measurement: a base's manifest, or the record of a run's epoch."""
    return content_hash(epoch_folder(manifest, epoch) / "checkpoint.json" if epoch else manifest)


def place(output: Path, epoch: int, kind: str) -> Path:
    """The folder of one kind of measurement of a checkpoint, beside the table of all its epochs."""
    return (epoch_folder(output, epoch) if epoch else output.parent) / kind
