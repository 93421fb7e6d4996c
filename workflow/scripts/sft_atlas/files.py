"""Files that are either whole or absent, and records that say what a file was made from."""

import json
import os
import resource
import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

from sft_atlas.hashing import sha256

if TYPE_CHECKING:
    # files.py is read while a workflow is planned, where nothing heavy may be imported
    import polars as pl


@contextmanager
def whole(path: Path) -> Iterator[Path]:
    """A temporary name beside `path` that takes its place only if the block ends well; works for folders too.

    The content reaches the disk before the name does, so that a crash leaves the old content or the new, never a part.
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    temporary = path.with_name(f".{path.name}.{os.getpid()}.tmp")
    _remove(temporary)
    try:
        yield temporary
        for file in temporary.rglob("*") if temporary.is_dir() else [temporary]:
            if file.is_file() and not file.is_symlink():
                # safetensors makes files that only their owner can read, and results are shared
                file.chmod(0o644)
                with file.open("rb") as handle:
                    os.fsync(handle.fileno())
        if path.is_dir():
            _remove(path)
        temporary.replace(path)
    finally:
        _remove(temporary)


def write_json(path: Path, content: Any) -> None:
    """Write readable JSON, whole, with sorted keys; NaN is refused."""
    with whole(path) as temporary:
        text = json.dumps(content, indent=1, sort_keys=True, ensure_ascii=False, allow_nan=False)
        temporary.write_text(text + "\n", encoding="utf-8")


def read_json(path: Path) -> Any:
    """Read JSON.

    Raises:
        FileNotFoundError: there is no such file.
        ValueError: it is not JSON; names the file.
    """
    try:
        return json.loads(path.read_text(encoding="utf-8"))
    except ValueError as error:
        raise ValueError(f"{path}: not valid JSON ({error}); delete it to have it made again") from None


def write_table(path: Path, table: "pl.DataFrame") -> None:
    """Write Parquet, whole; the same rows give the same bytes."""
    with whole(path) as temporary:
        table.write_parquet(temporary, compression="zstd", statistics=False)


def describe(folder: Path) -> list[dict[str, Any]]:
    """Name, size in bytes and SHA-256 of every file below a folder, by name."""
    files = sorted(file for file in folder.rglob("*") if file.is_file())
    return [
        {"name": file.relative_to(folder).as_posix(), "size": file.stat().st_size, "sha256": sha256(file)}
        for file in files
    ]


def intact(folder: Path, files: list[dict[str, Any]]) -> bool:
    """Whether every described file is there with its size (contents are compared by `verify`, not at every use)."""
    return all(
        (folder / file["name"]).is_file() and (folder / file["name"]).stat().st_size == file["size"] for file in files
    )


def recorded(record: Path, made_from: dict[str, Any]) -> dict[str, Any] | None:
    """The record of a finished piece if it was made from just this and its files are intact, else None.

    A piece is a file or folder that a job keeps beside its declared output, so that a later job with a wider request
    computes what is missing only. Its record is written last: a piece without one is not finished.
    """
    try:
        content = read_json(record)
    except (FileNotFoundError, ValueError):
        return None
    if content.get("made_from") != made_from or not intact(record.parent, content.get("files", [])):
        return None
    return dict(content)


def write_record(record: Path, made_from: dict[str, Any], pieces: list[Path], **facts: Any) -> dict[str, Any]:
    """Record finished pieces (files or folders beside the record): from what they were made, their files, and facts."""
    files = []
    for piece in pieces:
        if piece.is_dir():
            files += [{**file, "name": f"{piece.name}/{file['name']}"} for file in describe(piece)]
        else:
            files.append({"name": piece.name, "size": piece.stat().st_size, "sha256": sha256(piece)})
    content = {"made_from": made_from, "files": files, **facts}
    write_json(record, content)
    return content


def content_hash(manifest: Path) -> str:
    """SHA-256 of a manifest, which names the hash of every file it stands for."""
    return sha256(manifest)


def cpu_seconds() -> float:
    """CPU seconds of this process and of its ended children, user and system."""
    own, children = resource.getrusage(resource.RUSAGE_SELF), resource.getrusage(resource.RUSAGE_CHILDREN)
    return own.ru_utime + own.ru_stime + children.ru_utime + children.ru_stime


def free_bytes(folder: Path) -> int:
    """Bytes that can still be written where a folder is, or where it will be made."""
    existing = next(place for place in (folder.resolve(), *folder.resolve().parents) if place.exists())
    return shutil.disk_usage(existing).free


def results_root(path: Path, output: str) -> Path:
    """The results folder, found from where the specification of an output stands in it."""
    return path.resolve().parents[len(Path(output).parts) - 1]


def epoch_folder(output: Path, epoch: int) -> Path:
    """Where all that belongs to one checkpoint of a run lies, beside the run's manifest and tables."""
    return output.with_name(f"epoch-{epoch:02d}")


def _remove(path: Path) -> None:
    if path.is_dir() and not path.is_symlink():
        shutil.rmtree(path)
    else:
        path.unlink(missing_ok=True)
