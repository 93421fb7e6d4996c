"""Gives back the disk that measured checkpoints take, as the study says, and makes their weights again on demand.

A checkpoint's record, its scores and its table of tensors stay. Released weights are made again by the run's own frozen
specification, when a later benchmark needs them: on a CPU to the same bytes.
"""

from pathlib import Path
from typing import Any, Literal

from sft_atlas.files import epoch_folder, intact, read_json, write_json
from sft_atlas.models.deltas import SUFFIX, decode, encode

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


def was_released(record: Path, made_from: dict[str, Any]) -> bool:
    """Whether a checkpoint with this record is whole but for weights that a study gave back."""
    try:
        content = read_json(record)
    except (FileNotFoundError, ValueError):
        return False
    absent = [Path(file["name"]) for file in content["files"] if not intact(record.parent, [file])]
    if content["made_from"] != made_from or any(name.suffix != ".safetensors" for name in absent):
        return False
    for path in record.parent.parent.glob(f"release-{'[0-9a-f]' * 8}.json"):
        freed = read_json(path)["freed_bytes"]
        if any(bytes_ and epoch_folder(path, int(epoch)) == record.parent for epoch, bytes_ in freed.items()):
            return True
    return False


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
        from sft_atlas.stages.train.run import train as train_again

        train_again(read_json(train.with_name(f"{train.stem}.spec.json")), root, released=True)
        if read_json(folder / "checkpoint.json")["files"] != files:
            print(
                f"warning: {folder}: trained again, and not to the same bytes (GPUs do not repeat themselves, nor do "
                "other numbers of them): what is measured now is not of the weights that were measured before. Delete "
                "the run's other tables to have all measured on these, or let keep_weights be `deltas`",
                flush=True,
            )
    return folder / "model"
