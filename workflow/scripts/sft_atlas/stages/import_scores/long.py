"""The documented long format: one row per cell and benchmark, as CSV or Parquet.

Needed columns: `base, sample, recipe, seed, epoch, benchmark, shots, metric, score`. A base model has empty sample,
recipe and seed, and epoch 0. Optional: `stderr, n, dataset, held_out, size, method, schedule, block`. Scores are
fractions 0..1, those of metric `judge_1_10` points 1..10; an empty score is unknown.
"""

from pathlib import Path

import polars as pl

from sft_atlas.analysis.inputs import INPUTS
from sft_atlas.stages.import_scores.released import TableFormatError, opened

NEEDED = ("base", "sample", "recipe", "seed", "epoch", "benchmark", "shots", "metric", "score")


def read(path: Path) -> pl.DataFrame:
    """The table with the columns of table `scores`, those that it lacks being null.

    Raises:
        TableFormatError: a column is missing, unknown, or of another type, or a row lacks a value; names it.
    """
    frame = opened(path)
    columns = {column.name: column for column in INPUTS["scores"].columns}
    if missing := [name for name in NEEDED if name not in frame.columns]:
        raise TableFormatError(
            f"{path}: column {', '.join(missing)} is missing; a long table needs {', '.join(NEEDED)}"
        )
    if unknown := [name for name in frame.columns if name not in columns]:
        raise TableFormatError(f"{path}: column {', '.join(unknown)} is unknown; expected {', '.join(columns)}")
    for name, column in columns.items():
        if name not in frame.columns:
            frame = frame.with_columns(pl.lit(None, column.dtype).alias(name))
            continue
        try:
            if frame.schema[name] == pl.String() and column.dtype != pl.String():
                # a CSV writes whole numbers of a column with gaps as 3.0
                frame = frame.with_columns(pl.col(name).replace("", None).cast(pl.Float64))
            if frame.schema[name] == pl.Float64() and column.dtype == pl.Int64() and (frame[name] % 1 != 0).any():
                raise TableFormatError(f"{path}: column {name} holds a broken number; expected whole ones")
            frame = frame.with_columns(pl.col(name).cast(column.dtype))
        except pl.exceptions.InvalidOperationError:
            raise TableFormatError(f"{path}: column {name} holds what is no {column.dtype}") from None
        if column.dtype == pl.String():
            frame = frame.with_columns(pl.col(name).replace("", None))
    _refuse_gaps(frame, path)
    return frame.select(list(columns)).with_columns(pl.col("score").fill_nan(None))


def _refuse_gaps(frame: pl.DataFrame, path: Path) -> None:
    """Refuse a row that does not name its cell and measure; a base model has no sample, recipe and seed at all."""
    of_runs = ("sample", "recipe", "seed")
    tuned = pl.any_horizontal(pl.col(of_runs).is_not_null())
    for name in NEEDED[:-1]:
        gap = pl.col(name).is_null() & (tuned if name in of_runs else True)
        rows = frame.with_row_index("row", offset=1).filter(gap)
        if rows.height:
            expected = "sample, recipe and seed of a fine-tuned model, none of a base" if name in of_runs else "a value"
            raise TableFormatError(
                f"{path}: row {rows['row'][0]} below the header: {name} is empty; expected {expected}"
            )
