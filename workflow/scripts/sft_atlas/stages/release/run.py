"""Gives back the disk that measured checkpoints take, as the study says."""

from pathlib import Path

from sft_atlas.files import epoch_folder, read_json, write_json
from sft_atlas.models.deltas import SUFFIX, encode
from sft_atlas.models.released import Keep
from sft_atlas.stages.release.spec import Spec


def run(spec: Spec, root: Path) -> None:
    """Release the weights of a run's epochs, and write how many bytes each kept and gave back."""
    train, base, keep = root / spec.inputs.train, root / spec.inputs.base, spec.identity.keep
    freed = {
        str(epoch): release(epoch_folder(train, epoch) / "model", base.with_name("model"), keep)
        for epoch in spec.identity.epochs
    }
    write_json(root / spec.output, {"keep": keep, "freed_bytes": freed})


def release(model: Path, base: Path, keep: Keep) -> int:
    """Delete or encode the weights in a checkpoint's folder; returns the bytes given back."""
    is_adapter = (model / "adapter_config.json").exists()
    if keep == "all" or (is_adapter and keep in ("adapters", "deltas")):
        return 0
    freed = 0
    for entry in read_json(model.with_name("checkpoint.json"))["files"]:
        file = model.parent / entry["name"]
        if file.suffix != ".safetensors":
            continue
        delta = file.with_name(file.name + SUFFIX)
        # what an earlier attempt has released counts, too
        if file.exists():
            if keep == "deltas":
                encode(file, base)
            file.unlink()
        freed += entry["size"] - (delta.stat().st_size if keep == "deltas" and delta.exists() else 0)
    return freed
