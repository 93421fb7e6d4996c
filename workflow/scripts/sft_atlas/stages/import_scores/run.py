"""Stage *import*: the tables of a study from a table of scores, in place of the results of its own runs."""

import shutil
import urllib.error
import urllib.request
from pathlib import Path
from typing import Any

import polars as pl

from sft_atlas.analysis import tables
from sft_atlas.analysis.columns import CELL
from sft_atlas.files import whole
from sft_atlas.hashing import sha256
from sft_atlas.stages.import_scores import long, released
from sft_atlas.stages.import_scores.released import JUDGE, TableFormatError
from sft_atlas.stages.import_scores.spec import Source, Spec
from sft_atlas.study.load import unknown

MEASURE = ["benchmark", "shots", "metric"]
DESCRIPTION = ["dataset", "held_out", "method", "schedule", "block"]


def run(spec: Spec, root: Path) -> None:
    """Write every input table of the analysis; those that a table of scores cannot fill have no rows."""
    output, identity = root / spec.output, spec.identity
    path = fetch(identity.source, output.parent)
    frames = import_table(path, identity.source.format, identity.labels, identity.declared, identity.named)
    folder = output.with_name("tables")
    for name in tables.INPUTS:
        tables.write(frames.get(name, tables.empty(name)), folder, name)
    counts = {name: frame.height for name, frame in frames.items()}
    tables.write_manifest(output, spec.hash, sorted(tables.INPUTS), rows=counts, sha256=sha256(path))


def fetch(source: Source, folder: Path) -> Path:
    """The table's file; one at a URL is kept in `folder` and fetched again only if it is not the one declared.

    Raises:
        TableFormatError: it cannot be fetched, or is not the one declared; says which was found.
    """
    url, expected = source.url, source.sha256
    path = Path(source.path) if source.path else folder / f"source{Path(url or '').suffix}"
    if url and not (expected and path.exists() and sha256(path) == expected):
        try:
            with (
                whole(path) as temporary,
                urllib.request.urlopen(url, timeout=60) as answer,
                temporary.open("wb") as file,
            ):
                shutil.copyfileobj(answer, file)
        except (urllib.error.URLError, TimeoutError) as error:
            raise TableFormatError(f"{url} cannot be fetched ({error}); give the `path` of a copy instead") from None
    if not path.is_file():
        raise TableFormatError(f"{path} is not there; paths start at the working folder, {Path.cwd()}")
    if expected and (found := sha256(path)) != expected:
        raise TableFormatError(f"{path}: found SHA-256 {found}, the study declares {expected}")
    return path


def import_table(
    path: Path,
    layout: str,
    labels: dict[str, Any],
    declared: list[dict[str, Any]],
    named: dict[str, dict[str, str]] | None = None,
) -> dict[str, pl.DataFrame]:
    """Tables `scores`, `gains`, `missing` and `imported` from a file.

    `named` has, by column, the names that the study says something about, each under its key in the study.

    Raises:
        TableFormatError: the file is not what its format says, names a cell twice, or lacks a name that the study has.
    """
    found: list[dict[str, Any]] = []
    if layout == "released":
        frame, found = released.read(path)
    else:
        frame = long.read(path)
    frame = _described(frame, declared).with_columns(dataset=pl.coalesce("dataset", "sample"))
    _refuse_unknown(frame, named or {}, path)
    key = [*CELL, *MEASURE]
    if (twice := frame.filter(frame.select(key).is_duplicated())).height:
        first = ", ".join(f"{name}={value}" for name, value in twice.select(key).row(0, named=True).items())
        raise TableFormatError(
            f"{path}: {twice.height} rows are not unique, such as {first}; one row per cell is expected"
        )
    scores = _with_errors(frame.filter(pl.col("score").is_not_null()), labels)
    return {
        "scores": tables.build("scores", scores.select(list(tables.schema("scores"))).to_dicts()),
        "gains": gains_of(scores, {name: label.get("matches", []) for name, label in labels.items()}),
        "missing": _missing(frame, declared),
        "imported": tables.build("imported", found),
    }


def gains_of(scores: pl.DataFrame, matches: dict[str, list[str]]) -> pl.DataFrame:
    """Table `gains` from scores alone: score minus the base's score.

    Without items their pairing is unknown: the standard error is that of two independent scores, which is too large
    where the same items are answered alike.
    """
    known = scores.filter(pl.col("score").is_not_null())
    before = known.filter(pl.col("sample").is_null()).select(
        "base", *MEASURE, base_score="score", base_stderr="stderr", base_n="n"
    )
    after = known.filter(pl.col("sample").is_not_null()).join(before, on=["base", *MEASURE], how="inner")
    matched = [row[0] in matches.get(row[1], []) for row in after.select("dataset", "benchmark").iter_rows()]
    after = after.with_columns(
        gain=pl.col("score") - pl.col("base_score"),
        stderr=(pl.col("stderr") ** 2 + pl.col("base_stderr") ** 2).sqrt(),
        n=pl.min_horizontal("n", "base_n"),
        matched=pl.Series(matched, dtype=pl.Boolean),
    )
    return tables.arrange(tables.check(after.select(list(tables.schema("gains"))), "gains"), "gains")


def _refuse_unknown(frame: pl.DataFrame, named: dict[str, dict[str, str]], path: Path) -> None:
    """Refuse names that the table does not have: what the study says about them would silently count for nothing."""
    for column, names in named.items():
        there = frame[column].drop_nulls().unique().to_list()
        for key, name in names.items():
            if name not in there:
                raise TableFormatError(f"{path}: the study's {key}: {unknown(column, name, there)}")


def _described(frame: pl.DataFrame, declared: list[dict[str, Any]]) -> pl.DataFrame:
    """The rows with descriptive columns, from the declared cells where the table has none."""
    for name, dtype in tables.schema("scores").items():
        if name not in frame.columns:
            frame = frame.with_columns(pl.lit(None, dtype).alias(name))
    if not declared:
        return frame
    known = pl.DataFrame(
        [{name: cell.get(name) for name in [*CELL, *DESCRIPTION]} for cell in declared if cell.get("sample")],
        schema={name: tables.schema("scores")[name] for name in [*CELL, *DESCRIPTION]},
    )
    joined = frame.join(known, on=list(CELL), how="left", suffix="_declared")
    return joined.with_columns(pl.coalesce(name, f"{name}_declared").alias(name) for name in DESCRIPTION).select(
        frame.columns
    )


def _with_errors(frame: pl.DataFrame, labels: dict[str, Any]) -> pl.DataFrame:
    """Item counts from the labels, and the binomial standard error sqrt(p (1 - p) / n) of 0-or-1 items."""
    items = {name: label["items"] for name, label in labels.items() if label.get("items")}
    graded = [name for name, label in labels.items() if not label.get("whole", True) or label.get("groups")]
    count = pl.coalesce("n", pl.col("benchmark").replace_strict(items, default=None, return_dtype=pl.Int64))
    binomial = (pl.col("score") * (1 - pl.col("score")) / count).sqrt()
    applies = (pl.col("metric") != JUDGE) & pl.col("score").is_between(0, 1) & ~pl.col("benchmark").is_in(graded)
    return frame.with_columns(n=count, stderr=pl.coalesce("stderr", pl.when(applies).then(binomial)))


def _missing(frame: pl.DataFrame, declared: list[dict[str, Any]]) -> pl.DataFrame:
    """Declared cells without any score, and single benchmarks that a cell lacks though nearly all others have them."""
    known = frame.filter(pl.col("score").is_not_null())
    there = set(known.select(CELL).unique().iter_rows())
    rows = []
    for cell in declared:
        key = {name: cell.get(name) for name in CELL}
        if tuple(key.values()) not in there:
            rows.append(key | {"reason": cell.get("reason") or "declared, but not in the table"})
    cells = len(there)
    for (benchmark, shots, metric), part in known.group_by(MEASURE, maintain_order=True):
        if part.height * 2 < cells:
            continue
        having = set(part.select(CELL).iter_rows())
        for lost in there - having:
            reason = f"no {metric} with {shots} shots in the table"
            rows.append({**dict(zip(CELL, lost, strict=True)), "benchmark": benchmark, "reason": reason})
    return tables.build("missing", rows)
