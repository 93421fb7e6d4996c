"""What every analysis starts from: gains at the last epoch, on one scale, averaged over seeds."""

import math
from collections.abc import Iterable
from typing import Any

import numpy as np
import polars as pl

from sft_atlas.analysis.statistics import Labels

RUN = ["base", "sample", "recipe", "seed"]
MEASURE = ["benchmark", "shots", "metric"]

METRIC_RANGE = {"judge_1_10": 9.0}
"""Width of the scale of metrics that are not fractions; gains are divided by it, so that they can be averaged."""
_NEAR = 0.2
"""Sizes that differ by less are one nominal size: a sample may have fewer rows than the study asked for."""


def final_gains(gains: pl.DataFrame) -> pl.DataFrame:
    """Rows of table `gains` at the last epoch of each run, gain and stderr as fractions of the metric's range.

    `size` becomes nominal (see nominal_sizes). Leave-one-out mixtures are left out: they share nine tenths of their
    rows, so they are no independent evidence about the properties of data.
    """
    last = pl.col("epoch") == pl.col("epoch").max().over(RUN)
    width = pl.col("metric").replace_strict(METRIC_RANGE, default=1.0, return_dtype=pl.Float64)
    sizes = nominal_sizes(gains["size"])
    return gains.filter(last & pl.col("held_out").is_null()).with_columns(
        pl.col("gain", "stderr") / width,
        pl.col("size").replace_strict(sizes, default=None, return_dtype=pl.Int64),
    )


def whole_benchmarks(scores: pl.DataFrame) -> pl.DataFrame:
    """Measures that may be averaged and compared, one row each.

    `A/B` is a part of A, shown alone but never beside A. Benchmarks that fewer than half of the cells have are left out
    too: an average with them would be that of other cells.
    """
    kept = scores.filter(~pl.col("benchmark").str.contains("/") & pl.col("score").is_not_null())
    cells = kept.select(*RUN, "epoch").unique().height
    return kept.group_by(MEASURE).len().filter(pl.col("len") * 2 >= cells).select(MEASURE)


def last_scores(scores: pl.DataFrame) -> pl.DataFrame:
    """The last score of each base x sample x recipe x measure, averaged over seeds, on the scale of final_gains.

    Sizes are nominal; leave-one-out mixtures are left out.
    """
    last = pl.col("epoch") == pl.col("epoch").max().over(RUN)
    width = pl.col("metric").replace_strict(METRIC_RANGE, default=1.0, return_dtype=pl.Float64)
    tuned = scores.filter(pl.col("sample").is_not_null() & pl.col("held_out").is_null() & pl.col("score").is_not_null())
    sizes = nominal_sizes(tuned["size"])
    return (
        tuned.filter(last)
        .with_columns(
            pl.col("score", "stderr") / width,
            pl.col("size").replace_strict(sizes, default=None, return_dtype=pl.Int64),
        )
        .group_by("base", "sample", "recipe", *MEASURE, "dataset", "size", "method", "schedule")
        .agg(pl.col("score", "stderr").mean(), pl.col("epoch").max(), pl.col("seed").n_unique().alias("n_runs"))
        .sort("base", "sample", "recipe", *MEASURE)
    )


def free_effects(scores: pl.DataFrame) -> pl.DataFrame:
    """Base-free effects: a run's last score minus the mean over datasets of its base, recipe and size.

    They need no score of the base itself, so what is wrong with that does not touch them. Rows are those of last_scores
    that stand for single datasets, where two at least are known.
    """
    runs = last_scores(scores).filter(pl.col("dataset") != pl.col("sample"))
    group = ["base", "recipe", "size", *MEASURE]
    several = pl.col("dataset").n_unique().over(group) > 1
    return runs.filter(several).with_columns((pl.col("score") - pl.col("score").mean().over(group)).alias("effect"))


def nominal_sizes(sizes: pl.Series) -> dict[int, int]:
    """Each size and the nominal one it stands for: the commonest size within 20 % of it."""
    nominal: dict[int, int] = {}
    counts = sizes.drop_nulls().value_counts().sort(["count", sizes.name], descending=[True, False])
    for size in counts[sizes.name].to_list():
        near = [chosen for chosen in dict.fromkeys(nominal.values()) if abs(size - chosen) <= _NEAR * chosen]
        nominal[size] = near[0] if near else size
    return nominal


def over_seeds(gains: pl.DataFrame) -> pl.DataFrame:
    """One row per base x sample x recipe x measure: the mean over seeds, the mean stderr, and the number of runs.

    The standard error is averaged, not divided by the number of seeds: all seeds answer the same items, so they share
    most of that error.
    """
    kept = ["dataset", "size", "method", "schedule", "matched"]
    return (
        gains.group_by("base", "sample", "recipe", *MEASURE, *kept)
        .agg(
            pl.col("gain").mean(),
            pl.col("stderr").mean(),
            pl.col("epoch").max(),
            pl.col("seed").n_unique().alias("n_runs"),
        )
        .sort("base", "sample", "recipe", *MEASURE)
    )


def groups(frame: pl.DataFrame, *columns: str) -> list[dict[str, Any]]:
    """Ways to look at a frame: everything together (all null), and each value of each column with several values.

    With several varying columns also each combination of their values that occurs. What only one dataset has, such as
    the size of a mixture, is no group of its own.
    """
    varying = [column for column in columns if frame[column].n_unique() > 1]
    found: list[dict[str, Any]] = [dict.fromkeys(columns)]
    for column in varying:
        values = frame[column].drop_nulls().unique().sort().to_list()
        found += [dict.fromkeys(columns) | {column: value} for value in values]
    if len(varying) > 1:
        rows = frame.select(varying).drop_nulls().unique().sort(varying)
        found += [dict.fromkeys(columns) | row for row in rows.to_dicts()]
    return [found[0]] + [group for group in found[1:] if select(frame, group)["dataset"].n_unique() > 1]


def select(frame: pl.DataFrame, group: dict[str, Any]) -> pl.DataFrame:
    """Rows that have the group's values; null in the group admits every row."""
    return frame.filter(pl.lit(True), **{column: value for column, value in group.items() if value is not None})


def row_codes(frame: pl.DataFrame, columns: Iterable[str]) -> Labels:
    """Number the distinct rows of some columns by size; all 0 without columns."""
    columns = list(columns)
    if not columns or frame.is_empty():
        return np.zeros(frame.height, dtype=np.int64)
    return frame.select(pl.struct(columns).rank("dense")).to_series().to_numpy().astype(np.int64) - 1


def known(value: float) -> float | None:
    """The value, or None for NaN: tables hold null where a number is unknown."""
    return float(value) if math.isfinite(value) else None
