"""Reads rows from where they lie: a local file, a pinned hub repository, or the generated micro world."""

import csv
import json
import sys
from collections.abc import Iterable, Iterator
from itertools import chain
from pathlib import Path
from typing import Any

import polars as pl

from sft_atlas.data.kinds import READABLE
from sft_atlas.errors import DataError
from sft_atlas.study.model import Hub

Row = dict[str, Any]


def source_files(hub: Hub | None, paths: Iterable[str]) -> list[Path]:
    """The files of a declared source, fetched if it is on the hub.

    Raises:
        DataError: the hub cannot be reached, the revision is unknown, or no file is readable.
    """
    if hub is None:
        return [Path(path) for path in paths]
    from huggingface_hub.utils import filter_repo_objects

    from sft_atlas.data.hub import fetch

    patterns = hub.files or [f"*{suffix}" for suffix in READABLE]
    folder = fetch(hub.id, hub.revision, "dataset", patterns)
    # the cache may hold more of the repository than this source asks for
    found = sorted(file for file in folder.rglob("*") if file.suffix in READABLE)
    files = list(filter_repo_objects(found, allow_patterns=patterns, key=lambda file: str(file.relative_to(folder))))
    if not files:
        raise DataError(f"hub {hub.id}@{hub.revision}: no file matches {patterns}; see `files` of the source")
    return files


def read_rows(files: Iterable[Path]) -> Iterator[tuple[str, Row]]:
    """Every row with its id, `FILE:NUMBER` (counted from 1), in the files' order.

    Raises:
        DataError: a file that is missing, of an unknown kind or broken; names file and row.
    """
    return chain.from_iterable(_read(file) for file in files)


def _read(file: Path) -> Iterator[tuple[str, Row]]:
    readers = {".jsonl": _json_lines, ".json": _json, ".csv": _csv, ".parquet": _parquet}
    if file.suffix not in readers:
        raise DataError(f"{file}: unknown kind of file '{file.suffix}'; expected one of {', '.join(READABLE)}")
    if not file.is_file():
        raise DataError(f"{file}: there is no such file; correct `path` in the study file")
    number = 0
    try:
        for number, row in enumerate(readers[file.suffix](file), 1):
            if not isinstance(row, dict):
                raise DataError(f"{file}, row {number}: found {type(row).__name__}, expected an object with columns")
            yield f"{file.name}:{number}", row
    except DataError:
        raise
    except UnicodeDecodeError as error:
        raise DataError(f"{file}, row {number + 1}: not UTF-8 ({error.reason}); convert the file to UTF-8") from None
    except (ValueError, RecursionError, csv.Error, pl.exceptions.PolarsError) as error:
        raise DataError(f"{file}, row {number + 1}: cannot be read: {error}; correct or drop the row") from None


def _lines(file: Path) -> Iterator[str]:
    # decoded one by one, so that an error belongs to its row; some programs put a mark before UTF-8
    with file.open("rb") as lines:
        for number, line in enumerate(lines):
            yield line.decode("utf-8" if number else "utf-8-sig")


def _json_lines(file: Path) -> Iterator[Any]:
    for line in _lines(file):
        if line.strip():
            yield json.loads(line)


def _json(file: Path) -> Iterator[Any]:
    content = json.loads(file.read_text(encoding="utf-8-sig"))
    if not isinstance(content, list):
        raise DataError(f"{file}: found {type(content).__name__}, expected a list of rows")
    yield from content


def _csv(file: Path) -> Iterator[Row]:
    csv.field_size_limit(min(sys.maxsize, 1 << 30))
    reader = csv.DictReader(_lines(file), strict=True)
    for row in reader:
        if None in row or None in row.values():
            raise csv.Error(f"it has another number of fields than the header ({len(reader.fieldnames or [])})")
        yield row


def _parquet(file: Path) -> Iterator[Row]:
    # in slices, so that memory holds a part of a large file
    table = pl.scan_parquet(file)
    height = table.select(pl.len()).collect().item()
    for start in range(0, height, 50_000):
        yield from table.slice(start, 50_000).collect().iter_rows(named=True)
