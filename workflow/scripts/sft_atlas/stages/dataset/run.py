"""Stage *prepare*, first half: a declared source becomes normalised rows, cleaned, each with its source row's id."""

import re
from collections import Counter
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import polars as pl

from sft_atlas.data.formats import Example, Options, normalise
from sft_atlas.data.prompt import MARKERS
from sft_atlas.data.sources import Row, read_rows, source_files
from sft_atlas.errors import DataError
from sft_atlas.files import write_record, write_table
from sft_atlas.micro.config import MicroDataset
from sft_atlas.stages.dataset.spec import Spec

SCHEMA = {"row": pl.String, "instruction": pl.String, "input": pl.String, "completion": pl.String}
# Longer than any context; such a row is a broken file, not an example.
MAX_CHARACTERS = 200_000


def run(spec: Spec, root: Path) -> None:
    """Write `rows.parquet` (schema `SCHEMA`) and a manifest with the count of rows kept, and dropped by reason.

    Raises:
        DataError: the source or one of its rows cannot be used, or no row is left.
    """
    output = root / spec.output
    dropped: Counter[str] = Counter()
    kept = list(clean(declared_rows(spec), dropped))
    if not kept:
        raise DataError(f"{spec.output}: no row is left; dropped: {dict(dropped) or 'none, the source is empty'}")
    rows = output.with_name("rows.parquet")
    write_table(rows, pl.DataFrame(kept, schema=SCHEMA, orient="row"))
    write_record(output, {"spec": spec.hash}, [rows], rows=len(kept), dropped=dict(sorted(dropped.items())))


def declared_rows(spec: Spec) -> Iterator[tuple[str, Example | str]]:
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
    for row_id, row in read_rows(source_files(source.hub, spec.sources)):
        try:
            if not _selected(row, identity.keep, identity.drop):
                yield row_id, "filtered"
            else:
                yield row_id, normalise(identity.format, row, options) or "format"
        except DataError as error:
            raise DataError(f"{row_id}: {error} (format {identity.format})") from None


def clean(rows: Iterator[tuple[str, Example | str]], dropped: Counter[str]) -> Iterator[tuple[str, str, str, str]]:
    """The rows worth training on: text stripped; empty, over-long, marker-bearing and repeated rows counted out.

    A row is a duplicate if an earlier one has the same instruction, input and completion.
    """
    seen = set()
    for row_id, example in rows:
        if isinstance(example, str):
            dropped[example] += 1
            continue
        parts = (example.instruction.strip(), example.extra.strip(), example.completion.strip())
        if not parts[0] or not parts[2]:
            dropped["empty"] += 1
        elif sum(map(len, parts)) > MAX_CHARACTERS:
            dropped["too_long"] += 1
        elif any(marker in part for marker in MARKERS for part in parts):
            dropped["template_marker"] += 1
        elif parts in seen:
            dropped["duplicate"] += 1
        else:
            seen.add(parts)
            yield row_id, *parts


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
