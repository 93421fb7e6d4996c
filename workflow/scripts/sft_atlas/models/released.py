"""Weights that a study gave back once they were measured: what stays, what was released, what has to be restored.

A checkpoint's record, its scores and its table of tensors stay. Only files are looked at here, so a plan can do it.
"""

from pathlib import Path
from typing import Any, Literal

from sft_atlas.errors import DataError
from sft_atlas.files import epoch_folder, intact, read_json

Keep = Literal["all", "deltas", "adapters", "none"]
RELEASES = f"release-{'[0-9a-f]' * 8}.json"


def was_released(record: Path, made_from: dict[str, Any]) -> bool:
    """Whether a checkpoint with this record is whole but for weights that a study gave back."""
    try:
        content = read_json(record)
    except (FileNotFoundError, ValueError):
        return False
    absent = [Path(file["name"]) for file in content["files"] if not intact(record.parent, [file])]
    if content["made_from"] != made_from or any(name.suffix != ".safetensors" for name in absent):
        return False
    return record.parent in releases(record.parent.parent)


def releases(run: Path) -> set[Path]:
    """The folders of a run's epochs whose weights were released, as the records of releases in it say."""
    found = set()
    for path in run.glob(RELEASES):
        freed = read_json(path).get("freed_bytes", {})
        found |= {epoch_folder(path, int(epoch)) for epoch, count in freed.items() if count}
    return found


def has_weights(train: Path, epoch: int) -> bool:
    """Whether the weights of an epoch are there, whole by their sizes."""
    folder = epoch_folder(train, epoch)
    try:
        return intact(folder, read_json(folder / "checkpoint.json")["files"])
    except (FileNotFoundError, ValueError):
        return False


def check_weights(train: Path, epoch: int) -> Path:
    """The folder of an epoch's weights.

    Raises:
        DataError: they are not there; measuring never trains, so says what does.
    """
    folder = epoch_folder(train, epoch)
    if not has_weights(train, epoch):
        raise DataError(
            f"{folder / 'model'}: the weights of this epoch are not there, and no record says that they were released; "
            f"delete {train} and run `snakemake --profile local -- {train}`, which trains what is missing"
        )
    return folder / "model"
