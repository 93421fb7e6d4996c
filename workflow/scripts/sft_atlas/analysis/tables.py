"""The tables of a study: the one place that says which columns each has, of what type and in which unit.

Tables lie in `results/<study>/tables/`, each as `NAME.parquet` (what programs read) and `NAME.csv` (what people open).
`INPUTS` are written by the collecting stage, `OUTPUTS` by the analysis, `RECORDS` by the report. The same study gives
the same bytes, on one kind of CPU, in all but the records. Rules that hold for all of them:

- a cell is base x sample x recipe x seed x epoch; a base model has null sample, recipe and seed, and epoch 0;
- scores are fractions 0..1, except those of metric `judge_1_10`;
- unknown is null, never 0 and never NaN.
"""

from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

import polars as pl

from sft_atlas.analysis.columns import REAL, Table
from sft_atlas.analysis.inputs import INPUTS, RECORDS
from sft_atlas.analysis.outputs import OUTPUTS as GENERAL
from sft_atlas.analysis.outputs_questions import QUESTIONS
from sft_atlas.analysis.outputs_selection import SELECTION
from sft_atlas.errors import TableError
from sft_atlas.files import write_json
from sft_atlas.hashing import sha256

AUDIT = ("audit", "suspects")
"""Tables of the audit, which the analysis reads."""
OUTPUTS: dict[str, Table] = GENERAL | QUESTIONS | SELECTION
TABLES: dict[str, Table] = INPUTS | OUTPUTS | RECORDS


def schema(name: str) -> dict[str, pl.DataType]:
    """Columns and types of table `name`, in order. Raises TableError for an unknown name."""
    if name not in TABLES:
        raise TableError(f"unknown table {name!r}; expected one of {', '.join(TABLES)}")
    return {column.name: column.dtype for column in TABLES[name].columns}


def empty(name: str) -> pl.DataFrame:
    """Table `name` without rows."""
    return pl.DataFrame(schema=schema(name))


def build(name: str, rows: Iterable[Mapping[str, Any]]) -> pl.DataFrame:
    """Table `name` from rows; columns that a row lacks are null, and the result is checked and sorted by key."""
    rows, expected = list(rows), schema(name)
    unknown = sorted({column for row in rows for column in row if column not in expected})
    _refuse(name, unknown, "is unknown", f"columns {', '.join(expected)}")
    frame = pl.DataFrame(rows, schema=expected, orient="row")
    return arrange(check(frame, name), name)


def arrange(frame: pl.DataFrame, name: str) -> pl.DataFrame:
    """The same rows in the order of the table's key, nulls first, so that equal content gives equal bytes."""
    columns = list(schema(name))
    key = TABLES[name].key
    order = [*key, *(column for column in columns if column not in key)]
    return frame.select(columns).sort(order, nulls_last=False, maintain_order=True)


def check(frame: pl.DataFrame, name: str) -> pl.DataFrame:
    """Return `frame` if it is a table `name`; raise TableError that names table, column, found and expected.

    Columns may come in any order, but none may lack, be unknown, have another type, hold NaN, or hold null where the
    schema allows none; no two rows may share a key.
    """
    expected = schema(name)
    _refuse(name, [c for c in expected if c not in frame.columns], "is missing", f"columns {', '.join(expected)}")
    _refuse(name, [c for c in frame.columns if c not in expected], "is unknown", f"columns {', '.join(expected)}")
    for column in TABLES[name].columns:
        values = frame[column.name]
        if values.dtype != column.dtype:
            _refuse(name, [column.name], f"has type {values.dtype}", str(column.dtype))
        if values.null_count() and not column.null:
            _refuse(name, [column.name], f"has {values.null_count()} null of {len(values)} values", "no null")
        if column.dtype == REAL and (unreal := len(values) - int((values.is_finite() | values.is_null()).sum())):
            _refuse(name, [column.name], f"has {unreal} values that are NaN or infinite", "null where unknown")
    if (key := list(TABLES[name].key)) and (twice := frame.filter(frame.select(key).is_duplicated())).height:
        found = ", ".join(f"{k}={v}" for k, v in twice.select(key).row(0, named=True).items())
        _refuse(name, key, f"names {twice.height} rows that are not unique, such as {found}", "one row per key")
    return frame


def _refuse(name: str, columns: list[str], found: str, expected: str) -> None:
    """Raise TableError about `columns`, if there are any."""
    if columns:
        raise TableError(f"table {name!r}: column {', '.join(columns)} {found}; expected {expected}")


def read(folder: Path, name: str) -> pl.DataFrame:
    """Table `name` from `folder`, checked; without rows when its file is absent."""
    path = folder / f"{name}.parquet"
    return check(pl.read_parquet(path), name) if path.exists() else empty(name)


def write(frame: pl.DataFrame, folder: Path, name: str) -> None:
    """Check `frame`, sort it by key, and write `folder/NAME.parquet` and, unless it has none, `folder/NAME.csv`."""
    folder.mkdir(parents=True, exist_ok=True)
    frame = arrange(check(frame, name), name)
    frame.write_parquet(folder / f"{name}.parquet")
    if TABLES[name].csv:
        frame.write_csv(folder / f"{name}.csv")


def write_manifest(output: Path, spec: str, names: Iterable[str], **facts: Any) -> None:
    """Write what a stage says of its tables beside it: each with its SHA-256, so that it changes whenever one does."""
    folder = output.with_name("tables")
    hashes = {name: sha256(folder / f"{name}.parquet") for name in names}
    write_json(output, {"spec": spec, "tables": hashes, **facts})


LONG_FORMAT = """\
## Importing scores

A study with `table: {path: …, format: long}` takes its scores from a table with the columns of `scores` below, as
CSV or Parquet: one row per cell and benchmark. Needed are `base, sample, recipe, seed, epoch, benchmark, shots, metric,
score`; a base model has empty sample, recipe and seed, and epoch 0. `stderr`, `n` and the descriptive columns are
optional. A row without `dataset` has its sample's name there; as that is how a mixture looks, what compares single
datasets (`free`, `similarity`, `pca` and more) leaves such rows out. Scores are fractions 0..1, those of metric
`judge_1_10` points 1..10; an empty score is unknown.

`format: released` reads the wide table of the published study (`studies/published-table.yaml`). Keys of a study with a
table: `workflow/schemas/table-study.schema.json`. A benchmark named `A/B` is a part of `A`: shown, never averaged
beside it.
"""

RECORDS_ARE = """\
Written when the report is made, from the record that each job leaves beside its output. They hold time and machine, so
they differ from run to run and are no part of the promise that the same study gives the same bytes; no analysis reads
them. A job without a record, such as one whose results were copied without it, has no row.
"""


def documentation() -> str:
    """All schemas as Markdown."""
    lines = ["# Tables", "", *(__doc__ or "").splitlines()[2:], "", LONG_FORMAT]
    parts = {"Inputs of the analysis": INPUTS, "Outputs of audit and analysis": OUTPUTS, "Records": RECORDS}
    for title, part in parts.items():
        lines += [f"## {title}", "", *([RECORDS_ARE] if part is RECORDS else [])]
        for name, table in part.items():
            key = f" Key: `{', '.join(table.key)}`." if table.key else ""
            only = "" if table.csv else " Parquet only."
            lines += [f"### {name}", "", f"A row is {table.row}.{key}{only}", "", "| column | type | unit | meaning |"]
            lines += ["| --- | --- | --- | --- |"]
            lines += [
                f"| `{c.name}` | {str(c.dtype).lower()}{', null' if c.null else ''} | {c.unit} | {c.meaning} |"
                for c in table.columns
            ]
            lines += [""]
    return "\n".join(lines)
