"""What the study's tables gain from likelihoods."""

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import polars as pl

from sft_atlas.analysis.collected import Found, Rows
from sft_atlas.analysis.columns import CELL, COUNT, DESCRIPTION, REAL, TEXT, Column, Table, cell

TABLES: dict[str, Table] = {
    "likelihoods": Table(
        "one text under one model",
        (
            *cell(null=True),
            Column("benchmark", TEXT, "", "benchmark the text is a question of"),
            Column("item", TEXT, "", "item of that benchmark"),
            Column("log_likelihood", REAL, "nats", "sum over the text's tokens, the first left out"),
            Column("tokens", COUNT, "tokens", "tokens summed over, by the model's own tokenizer"),
        ),
        (*CELL, "benchmark", "item"),
        csv=False,
    ),
    "dimensions": Table(
        "one layer of one model as a cloud of texts",
        (
            *cell(null=True),
            Column("layer", COUNT, "", "index of the layer, 0 nearest to the input"),
            Column("depth", REAL, "fraction", "layer / (layers - 1)"),
            Column("dimension", REAL, "", "intrinsic dimension (Gride); null where texts coincide", True),
            Column("stderr", REAL, "", "its standard error, as if texts were independent", True),
            Column("texts", COUNT, "texts", "texts in the cloud"),
            *DESCRIPTION,
        ),
        (*CELL, "layer"),
    ),
}


def gather(found: Found) -> dict[str, Rows | pl.DataFrame]:
    """Tables `dimensions` and `likelihoods`; the latter as a frame, since it may have millions of rows."""
    dimensions: Rows = []
    parts = [pl.DataFrame(schema=_schema())]
    for model in found.cells("likelihoods"):
        dimensions += [{**model.key, **row, **model.row(row["epoch"])} for row in _layers(model.path)]
        for epoch, vector in pl.read_parquet(model.path).select("epoch", "vector").iter_rows():
            key = {name: model.key.get(name) for name in ("base", "sample", "recipe", "seed")} | {"epoch": epoch}
            named = pl.read_parquet(model.path.parent / vector).with_columns(
                pl.col("benchmark").replace_strict(found.identity.benchmarks, return_dtype=pl.String),
                *(pl.lit(value, _schema()[name]).alias(name) for name, value in key.items()),
            )
            parts.append(named.select(list(_schema())))
    return {"dimensions": dimensions, "likelihoods": pl.concat(parts)}


def _schema() -> dict[str, pl.DataType]:
    return {column.name: column.dtype for column in TABLES["likelihoods"].columns}


def _layers(path: Path) -> Iterator[dict[str, Any]]:
    """Intrinsic dimensions by epoch and layer from a table of stage likelihoods."""
    for epoch, layers in pl.read_parquet(path).select("epoch", "layers").iter_rows():
        for row in pl.read_parquet(path.parent / layers).iter_rows(named=True):
            yield {"epoch": epoch, **row}
