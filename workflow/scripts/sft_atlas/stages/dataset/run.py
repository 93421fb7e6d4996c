"""Stage *prepare*, first half: a declared source becomes normalised rows, cleaned, each with its source row's id."""

import hashlib
import re
from collections import Counter
from collections.abc import Iterator
from itertools import islice
from pathlib import Path
from typing import Any

import polars as pl

from sft_atlas.data.cleaning import block, same
from sft_atlas.data.formats import Example, Options, normalise
from sft_atlas.data.sources import Row, read_rows, refuse_twice, source_files
from sft_atlas.errors import DataError
from sft_atlas.fields import MAX_CHARACTERS
from sft_atlas.files import write_record, write_table
from sft_atlas.micro.declared import MicroDataset
from sft_atlas.stages.dataset.shared import shared_rows
from sft_atlas.stages.dataset.spec import Identity, Spec

SCHEMA = {"row": pl.String, "instruction": pl.String, "input": pl.String, "completion": pl.String}
BATCH = 50_000


def run(spec: Spec, root: Path) -> None:
    """Write `rows.parquet` (schema `SCHEMA`) and a manifest: rows kept, dropped by reason, and kept without a part.

    Raises:
        DataError: the source or one of its rows cannot be used, two rows have one id, or no row is left.
    """
    output = root / spec.output
    dropped: Counter[str] = Counter()
    shortened: Counter[str] = Counter()
    # as tables, since texts of a million rows take several times the room as Python's own
    kept = clean(declared_rows(spec, root), dropped, shortened, spec.identity.max_characters)
    parts = [pl.DataFrame(rows, schema=SCHEMA, orient="row") for rows in iter(lambda: list(islice(kept, BATCH)), [])]
    if not parts:
        raise DataError(f"{spec.output}: no row is left; dropped: {dict(dropped) or 'none, the source is empty'}")
    table = pl.concat(parts)
    refuse_twice(table["row"], spec.output)
    rows = output.with_name("rows.parquet")
    write_table(rows, table)
    counts = {"dropped": dict(sorted(dropped.items())), "shortened": dict(sorted(shortened.items()))}
    write_record(output, {"spec": spec.hash}, [rows], rows=table.height, **counts)


def declared_rows(spec: Spec, root: Path) -> Iterator[tuple[str, Example | str]]:
    """Each source row's id with its example, or the reason why the declaration drops it.

    Raises:
        DataError: names the file, the row and the column.
    """
    identity = spec.identity
    source = identity.source
    if source.micro:
        yield from _generated(source.micro)
        return
    options = Options(identity.columns, identity.turns)
    for row_id, row in shared_rows(spec, root, lambda: read_rows(source_files(source.hub, spec.sources)), selected):
        try:
            if row is None or not selected(row, identity):
                yield row_id, "filtered"
            else:
                yield row_id, normalise(identity.format, row, options) or "format"
        except DataError as error:
            raise DataError(f"{row_id}: {error} (format {identity.format})") from None


def clean(
    rows: Iterator[tuple[str, Example | str]],
    dropped: Counter[str],
    shortened: Counter[str],
    limit: int = MAX_CHARACTERS,
) -> Iterator[tuple[str, str, str, str]]:
    """The rows worth training on, in the words of data/cleaning.py; empty, over-long and repeated rows are counted out.

    A row is a duplicate if an earlier one has the same instruction, input and completion but for their Unicode form. If
    the two differ in what is not trained on, a system prompt or later turns, it is counted under that reason. Kept rows
    that lost such a part are counted in `shortened`.
    """
    seen: dict[bytes, tuple[bytes, bytes]] = {}
    for row_id, example in rows:
        if isinstance(example, str):
            dropped[example] += 1
            continue
        parts = (example.instruction.strip(), block(example.extra), block(example.completion))
        key, rest = _digest(*parts), (_digest(example.system), _digest(*example.later))
        if not parts[0] or not parts[2]:
            dropped["empty"] += 1
        elif sum(map(len, parts)) > limit:
            dropped["too_long"] += 1
        elif key in seen:
            dropped[_why_twice(seen[key], rest)] += 1
        else:
            seen[key] = rest
            shortened.update({"system_prompt": 1} if example.system else {})
            shortened.update({"later_turns": 1} if example.later else {})
            yield row_id, *parts


def _why_twice(earlier: tuple[bytes, bytes], later: tuple[bytes, bytes]) -> str:
    if earlier[0] != later[0]:
        return "differs_in_system_prompt_only"
    return "duplicate" if earlier == later else "differs_in_later_turns_only"


def _digest(*texts: str) -> bytes:
    """What stands for texts in a comparison; the texts themselves would fill the memory."""
    return hashlib.sha256("\0".join(map(same, texts)).encode()).digest()[:16]


def selected(row: Row, identity: Identity) -> bool:
    """Whether a declaration's `keep` and `drop` leave a row in.

    Raises:
        DataError: the row lacks a column of theirs.
    """
    return _selected(row, identity.keep, identity.drop)


def _selected(row: Row, keep: dict[str, list[Any]], drop: dict[str, list[Any]]) -> bool:
    for column in (*keep, *drop):
        if column not in row:
            raise DataError(f"column '{column}' of keep/drop is missing; found {', '.join(sorted(map(str, row)))}")
    kept = all(_is_one_of(row[column], values) for column, values in keep.items())
    return kept and not any(_is_one_of(row[column], values) for column, values in drop.items())


def _is_one_of(value: Any, values: list[Any]) -> bool:
    if isinstance(value, str):
        return any(isinstance(pattern, str) and _matches(value, pattern) for pattern in values)
    # 1 == True in Python, and not in a data file
    return any(type(value) is type(other) and value == other for other in values)


def _matches(value: str, pattern: str) -> bool:
    return re.fullmatch(".*".join(map(re.escape, pattern.split("*"))), value, flags=re.DOTALL) is not None


def _generated(declared: MicroDataset) -> Iterator[tuple[str, Example | str]]:
    from sft_atlas.micro.questions import examples

    for number, example in enumerate(examples(declared.topic, declared.rows, declared.seed), 1):
        yield f"{declared.topic}:{number}", Example(example.instruction, example.completion)
