"""Reads rows from where they lie: a local file, a pinned hub repository, or the generated micro world."""

import csv
import io
import json
import logging
import re
import sys
from collections import Counter
from collections.abc import Iterable, Iterator
from fnmatch import fnmatchcase
from itertools import chain
from pathlib import Path
from typing import IO, Any, NamedTuple
from zipfile import BadZipFile, ZipFile

import polars as pl

from sft_atlas.data.kinds import READABLE
from sft_atlas.errors import DataError
from sft_atlas.study.model import Hub

LOG = logging.getLogger(__name__)

ARCHIVE = ".zip"
CHUNK = 1 << 20
# a row of a list that has not ended after so many characters is broken
LONGEST = 1 << 26
Row = dict[str, Any]


class SourceFile(NamedTuple):
    """A file of a source, or a member of an archive: where it lies, and what it is called within the source."""

    path: Path
    name: str
    member: str | None = None

    @property
    def suffix(self) -> str:
        """The kind of file."""
        return Path(self.name).suffix

    @property
    def where(self) -> str:
        """The file as an error names it."""
        return f"{self.path}/{self.member}" if self.member else str(self.path)

    def open(self) -> IO[bytes]:
        """The file's bytes, one after another."""
        return ZipFile(self.path).open(self.member) if self.member else self.path.open("rb")


def local_files(paths: Iterable[str | Path]) -> list[SourceFile]:
    """Local files, each a source of its own."""
    return [SourceFile(Path(path), Path(path).name) for path in paths]


def source_files(hub: Hub | None, paths: Iterable[str]) -> list[SourceFile]:
    """The files of a declared source, fetched if it is on the hub; of its second source, where the first is not there.

    Raises:
        DataError: the hub cannot be reached, the revision is unknown, or no file is readable.
    """
    if hub is None:
        return local_files(paths)
    try:
        return _fetched(hub)
    except DataError as error:
        if not (second := hub.otherwise):
            raise
        LOG.warning(f"{error}; reading its second source, {second.id}@{second.revision}")
        try:
            return _fetched(second)
        except DataError as other:
            raise DataError(f"{error}; nor its second source: {other}") from None


def _fetched(hub: Hub) -> list[SourceFile]:
    from huggingface_hub.utils import filter_repo_objects

    from sft_atlas.data.hub import fetch

    patterns = hub.files or [f"*{suffix}" for suffix in READABLE]
    # `data.zip/test/*.csv` are members of an archive, which is fetched whole
    archives = {pattern.partition(f"{ARCHIVE}/")[0] + ARCHIVE for pattern in patterns if f"{ARCHIVE}/" in pattern}
    plain = [pattern for pattern in patterns if f"{ARCHIVE}/" not in pattern]
    folder = fetch(hub.id, hub.revision, "dataset", [*plain, *sorted(archives)])
    # the cache may hold more of the repository than this source asks for
    names = sorted(file.relative_to(folder).as_posix() for file in folder.rglob("*") if file.suffix in READABLE)
    files = [SourceFile(folder / name, name) for name in filter_repo_objects(names, allow_patterns=plain or ["-"])]
    for archive in sorted(archives):
        wanted = [pattern for pattern in patterns if pattern.startswith(f"{archive}/")]
        files += [file for file in _members(folder, archive) if any(fnmatchcase(file.name, p) for p in wanted)]
    if not files:
        raise DataError(f"hub {hub.id}@{hub.revision}: no file matches {patterns}; see `files` of the source")
    return files


def _members(folder: Path, archive: str) -> list[SourceFile]:
    path = folder / archive
    if not path.is_file():
        return []
    try:
        members = sorted(ZipFile(path).namelist())
    except BadZipFile as error:
        raise DataError(f"{path}: cannot be read as a zip archive ({error}); fetch it again") from None
    return [SourceFile(path, f"{archive}/{name}", name) for name in members if Path(name).suffix in READABLE]


def folders(row_id: str) -> tuple[str, ...]:
    """Folders and file, without its suffix, of the path in a row's id: `law/test/0.csv:3` gives law, test, 0."""
    return Path(row_id.rpartition(":")[0]).with_suffix("").parts


def read_rows(files: Iterable[SourceFile]) -> Iterator[tuple[str, Row]]:
    """Every row with its id, `PATH WITHIN THE SOURCE:NUMBER` (counted from 1), in the files' order.

    Raises:
        DataError: a file that is missing, of an unknown kind or broken; names file and row.
    """
    return chain.from_iterable(_read(file) for file in files)


def refuse_twice(ids: Iterable[str], where: str, what: str = "row") -> None:
    """Raise DataError if an id stands twice, since everything that joins by ids would pair each with each."""
    twice = [id_ for id_, count in Counter(ids).items() if count > 1]
    if twice:
        raise DataError(
            f"{where}: {what} id {twice[0]!r} stands more than once ({len(twice)} such ids); ids are the path within "
            "the source and the row's number: name each file once in `files`"
        )


def _read(file: SourceFile) -> Iterator[tuple[str, Row]]:
    readers = {".jsonl": _json_lines, ".json": _json, ".csv": _csv, ".parquet": _parquet}
    if file.suffix not in readers:
        raise DataError(f"{file.where}: unknown kind of file '{file.suffix}'; expected one of {', '.join(READABLE)}")
    if not file.path.is_file():
        raise DataError(f"{file.where}: there is no such file; correct `path` in the study file")
    number = 0
    try:
        for number, row in enumerate(readers[file.suffix](file), 1):
            if not isinstance(row, dict):
                found = type(row).__name__
                raise DataError(f"{file.where}, row {number}: found {found}, expected an object with columns")
            yield f"{file.name}:{number}", row
    except DataError:
        raise
    except UnicodeDecodeError as error:
        said = f"{file.where}, row {number + 1}: not UTF-8 ({error.reason}); convert the file to UTF-8"
        raise DataError(said) from None
    except (ValueError, RecursionError, csv.Error, pl.exceptions.PolarsError) as error:
        raise DataError(f"{file.where}, row {number + 1}: cannot be read: {error}; correct or drop the row") from None


def _lines(file: SourceFile) -> Iterator[str]:
    # decoded one by one, so that an error belongs to its row; some programs put a mark before UTF-8
    with file.open() as lines:
        for number, line in enumerate(lines):
            yield line.decode("utf-8" if number else "utf-8-sig")


def _json_lines(file: SourceFile) -> Iterator[Any]:
    for line in _lines(file):
        if line.strip():
            yield json.loads(line, object_pairs_hook=_object)


def _object(pairs: list[tuple[str, Any]]) -> Row:
    found = dict(pairs)
    if len(found) < len(pairs):
        twice = next(key for key, count in Counter(key for key, _ in pairs).items() if count > 1)
        raise ValueError(f"key {twice!r} stands twice in one object")
    return found


def _json(file: SourceFile) -> Iterator[Any]:
    """The rows of a list, read piece by piece: a list of 12 GB takes no more memory than one of its rows."""
    with file.open() as opened:
        yield from _Array(io.TextIOWrapper(opened, encoding="utf-8-sig"), file.where).rows()


class _Array:
    """A list in JSON, of which no more is held than is being read."""

    SPACE = re.compile(r"[ \t\n\r]*")

    def __init__(self, stream: io.TextIOBase, where: str) -> None:
        self.stream, self.where, self.buffer, self.at = stream, where, "", 0
        self.decoder = json.JSONDecoder(object_pairs_hook=_object)

    def rows(self) -> Iterator[Any]:
        """Each value of the list."""
        if (first := self._next()) != "[":
            found = type(self._value()).__name__ if first else "nothing"
            raise DataError(f"{self.where}: found {found}, expected a list of rows; is it .jsonl, a row in each line?")
        self.at += 1
        if self._next() != "]":
            yield self._value()
            while self._next() == ",":
                self.at += 1
                yield self._value()
        if self._next() != "]":
            raise ValueError("the list is not closed, or a comma is missing")
        self.at += 1
        if self._next():
            raise ValueError("something follows the list; is it .jsonl, a row in each line?")

    def _more(self, size: int = CHUNK) -> bool:
        piece = self.stream.read(size)
        self.buffer, self.at = self.buffer[self.at :] + piece, 0
        return bool(piece)

    def _next(self) -> str:
        """The next character that is no white space, not taken; empty at the end."""
        while True:
            match = self.SPACE.match(self.buffer, self.at)
            self.at = match.end() if match else self.at
            if self.at < len(self.buffer) or not self._more():
                return self.buffer[self.at : self.at + 1]

    def _value(self) -> Any:
        """The next value, whole: a piece is added, twice as large each time, for as long as it breaks off."""
        self._next()
        size = CHUNK
        while True:
            try:
                value, end = self.decoder.raw_decode(self.buffer, self.at)
            except json.JSONDecodeError:
                if len(self.buffer) - self.at > LONGEST or not self._more(size):
                    raise
            else:
                # a number may go on in the next piece
                if end < len(self.buffer) or not self._more(size):
                    self.at = end
                    return value
            size *= 2


def _csv(file: SourceFile) -> Iterator[Row]:
    csv.field_size_limit(min(sys.maxsize, 1 << 30))
    reader = csv.DictReader(_lines(file), strict=True)
    for row in reader:
        if None in row or None in row.values():
            raise csv.Error(f"it has another number of fields than the header ({len(reader.fieldnames or [])})")
        yield row


def _parquet(file: SourceFile) -> Iterator[Row]:
    if file.member:
        raise DataError(f"{file.where}: Parquet within an archive is not read; unpack it")
    # in slices, so that memory holds a part of a large file
    table = pl.scan_parquet(file.path)
    height = table.select(pl.len()).collect().item()
    for start in range(0, height, 50_000):
        yield from table.slice(start, 50_000).collect().iter_rows(named=True)
