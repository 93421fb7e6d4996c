"""Gives back the disk that measured checkpoints take, as the study says, and makes their weights again on demand.

A checkpoint's record, its scores and its table of tensors stay. Training is reproducible to the byte, so that released
weights are made again by the run's own frozen specification, when a later benchmark needs them.
"""

from pathlib import Path
from typing import Any, Literal

from sft_atlas.deltas import SUFFIX, decode, encode
from sft_atlas.files import epoch_folder, intact, read_json, write_json

Keep = Literal["all", "deltas", "adapters", "none"]


def run(spec: dict[str, Any], root: Path) -> None:
    """Release the weights of a run's epochs, and write how many bytes each kept and gave back."""
    train, base = root / spec["inputs"]["train"], root / spec["inputs"]["base"]
    freed = {
        str(epoch): release(epoch_folder(train, epoch) / "model", base.with_name("model"), spec["identity"]["keep"])
        for epoch in spec["identity"]["epochs"]
    }
    write_json(root / spec["output"], {"keep": spec["identity"]["keep"], "freed_bytes": freed})


def release(model: Path, base: Path, keep: Keep) -> int:
    """Delete or encode the weights in a checkpoint's folder; returns the bytes given back."""
    is_adapter = (model / "adapter_config.json").exists()
    if keep == "all" or (is_adapter and keep in ("adapters", "deltas")):
        return 0
    freed = 0
    for file in sorted(model.glob("*.safetensors")):
        size = file.stat().st_size
        kept = encode(file, base).stat().st_size if keep == "deltas" else 0
        file.unlink()
        freed += size - kept
    return freed


def ensure_weights(train: Path, epoch: int, base: Path, root: Path) -> Path:
    """The folder of an epoch's weights, put back first if they were released: from deltas, or by training again.

    Raises:
        FileNotFoundError: the run's frozen specification is gone, so that it cannot be trained again.
    """
    folder = epoch_folder(train, epoch)
    files = read_json(folder / "checkpoint.json")["files"]
    if intact(folder, files):
        return folder / "model"
    for delta in sorted((folder / "model").glob(f"*{SUFFIX}")):
        decode(delta, base.with_name("model"), delta.with_name(delta.name.removesuffix(SUFFIX)))
    if not intact(folder, files):
        print(f"epoch {epoch}: its weights were released; training again", flush=True)
        from sft_atlas.training.run import run as train_again

        train_again(read_json(train.with_name(f"{train.stem}.spec.json")), root)
    return folder / "model"
