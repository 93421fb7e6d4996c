"""Identities of sources: a pinned repository, a local file or folder by its content, or the micro world."""

from pathlib import Path
from typing import Any

from sft_atlas.errors import StudyError
from sft_atlas.hashing import fingerprint
from sft_atlas.study.identity import identity_of
from sft_atlas.study.model import Base, Benchmark, Dataset


def source_identity(where: str, declared: Base | Dataset | Benchmark) -> dict[str, Any]:
    """What of a declared source is hashed.

    Raises:
        StudyError: a local one cannot be read; names its place in the study.
    """
    if declared.micro:
        return {"micro": identity_of(declared.micro)}
    if declared.hub:
        return {"hub": identity_of(declared.hub)}
    path, where = declared.path or "", f"{where}.path"
    return {"content": local_fingerprint(where, path)} if isinstance(declared, Base) else file_identity(where, path)


def file_identity(where: str, path: str) -> dict[str, Any]:
    """What of a local data file is hashed; raises StudyError as `source_identity`."""
    # rows are known as FILE:NUMBER and drawn by that: a renamed file gives other samples, so it is another source
    return {"content": local_fingerprint(where, path), "file": Path(path).name}


def local_fingerprint(where: str, path: str) -> str:
    """The content of a local file or model folder; raises StudyError as `source_identity`."""
    try:
        return fingerprint(Path(path))
    except OSError as error:
        # of a folder, the file in it that cannot be read
        file = str(error.filename or path)
        raise StudyError(
            f"{where}: {file!r} cannot be read ({error.strerror}); paths start at the working folder, {Path.cwd()}"
        ) from None


def files_of(path: str | None) -> tuple[str, ...]:
    """The files that a job reads of a local source: itself, or all that lie in the folder."""
    if not path:
        return ()
    place = Path(path)
    return tuple(str(file) for file in sorted(place.iterdir()) if file.is_file()) if place.is_dir() else (path,)
