"""Question 4: what does each factor of training do by itself, and how large is the noise of the training seed?"""

from itertools import combinations
from typing import Any

import numpy as np
import polars as pl

from sft_atlas.analysis import tables
from sft_atlas.analysis.cells import MEASURE, final_gains, known, last_scores, row_codes
from sft_atlas.analysis.intervals import LOG, Jackknife
from sft_atlas.analysis.statistics import Array, benjamini_hochberg

Row = dict[str, Any]

FACTORS = ("method", "size", "schedule")
"""Columns of table `scores` that say how a cell was trained; cells of a contrast differ in exactly one of them."""


def contrasts(scores: pl.DataFrame, gains: pl.DataFrame, intervals: Jackknife) -> pl.DataFrame:
    """Table `contrasts` from table `scores`: cells that differ in one factor, at equal base, dataset and benchmark.

    Scores are paired, not gains: what the base itself scores cancels, and need not be known. Runs are taken at their
    last epoch and averaged over seeds. Each pair of levels is compared over all benchmarks (all bases and each; matched
    cells, which table `gains` knows, and others) and on each benchmark. Clusters are bases and datasets.
    """
    runs = last_scores(scores)
    trained = gains.group_by("dataset", "benchmark").agg(pl.col("matched").any())
    runs = runs.join(trained, on=["dataset", "benchmark"], how="left").with_columns(pl.col("matched").fill_null(False))
    rows: list[Row] = []
    for factor in FACTORS:
        key = ["base", "dataset", "matched", *MEASURE, *(other for other in FACTORS if other != factor)]
        cells = runs.group_by(*key, factor).agg(pl.col("score").mean())
        for first, second in combinations(cells[factor].drop_nulls().unique().sort().to_list(), 2):
            sides = [cells.filter(pl.col(factor) == level).drop(factor) for level in (first, second)]
            pairs = sides[0].join(sides[1], on=key, suffix="_second", nulls_equal=True).sort(key)
            level = {"factor": factor, "first": str(first), "second": str(second)}
            rows += [level | row for row in _differences(pairs, intervals)]
    return tables.build("contrasts", _with_q(rows))


def _differences(pairs: pl.DataFrame, intervals: Jackknife) -> list[Row]:
    """One row over all pairs, and one for each kind of cell, each base and each benchmark."""
    views: list[Row] = [{}, {"matched": True}, {"matched": False}]
    views += [{"base": base} for base in pairs["base"].unique().sort()]
    views += pairs.select(MEASURE).unique().sort(MEASURE).to_dicts()
    rows = []
    for view in views:
        part = pairs.filter(pl.lit(True), **view)
        if part.is_empty():
            continue
        first, second = part["score"].to_numpy(), part["score_second"].to_numpy()
        found = intervals.paired_difference(first, second, row_codes(part, ["base"]), row_codes(part, ["dataset"]))
        family = "benchmark by benchmark" if "metric" in view else "base by base" if "base" in view else "all together"
        rows.append(
            {
                **view,
                **{"first_score": float(first.mean()), "second_score": float(second.mean())},
                **{"difference": found.estimate, "ci_low": known(found.low), "ci_high": known(found.high)},
                **{"p": known(found.p), "family": family, "n_pairs": part.height},
                **{"n_bases": part["base"].n_unique(), "n_datasets": part["dataset"].n_unique()},
            }
        )
    return rows


def _with_q(rows: list[Row]) -> list[Row]:
    """Add q: all contrasts over all benchmarks are one family; so are those of one pair by benchmark, or by base."""
    family = [
        row["family"]
        if row["family"] == "all together"
        else (row["family"], row["factor"], row["first"], row["second"])
        for row in rows
    ]
    for name in dict.fromkeys(family):
        member = [row for row, own in zip(rows, family, strict=True) if own == name]
        q = benjamini_hochberg([np.nan if row["p"] is None else row["p"] for row in member])
        for row, value in zip(member, q, strict=True):
            row["q"] = known(value)
    return rows


def seeds(gains: pl.DataFrame, intervals: Jackknife) -> pl.DataFrame:
    """Table `seeds` from table `gains`: the standard deviation of gain over training seeds.

    Pooled over cells, sd = sqrt(sum of squared deviations from the cells' means / sum of (seeds - 1)). Clusters are
    bases and datasets; where one base alone has several seeds, the interval speaks of that base.
    """
    key = ["base", "sample", "recipe", *MEASURE]
    cells = (
        final_gains(gains)
        .group_by(*key, "matched", "dataset")
        .agg(
            pl.col("gain").mean(),
            ((pl.col("gain") - pl.col("gain").mean()) ** 2).sum().alias("squares"),
            pl.len().cast(pl.Int64).alias("n_runs"),
        )
        .filter(pl.col("n_runs") > 1)
        .sort(key)
    )
    rows = [
        {**{name: row[name] for name in [*key, "matched", "gain", "n_runs"]}, "scope": "cell", "n_cells": 1}
        | {"size_of_gain": abs(row["gain"]), "sd": float(np.sqrt(row["squares"] / (row["n_runs"] - 1)))}
        | {"n_bases": 1}
        for row in cells.to_dicts()
    ]
    for measure, part in cells.group_by(MEASURE, maintain_order=True):
        rows.append({"scope": "benchmark", **dict(zip(MEASURE, measure, strict=True)), **_pooled(part, intervals)})
    for matched in (None, True, False):
        part = cells if matched is None else cells.filter(pl.col("matched") == matched)
        if not part.is_empty():
            rows.append({"scope": "all", "matched": matched, **_pooled(part, intervals)})
    return tables.build("seeds", rows)


def _pooled(cells: pl.DataFrame, intervals: Jackknife) -> Row:
    """Spread over seeds, pooled over cells."""
    totals = np.stack([cells["squares"].to_numpy(), cells["n_runs"].to_numpy() - 1.0], axis=-1)
    factors = (row_codes(cells, ["base"]), row_codes(cells, ["dataset"]))
    interval = intervals.interval(totals, _deviation, *factors, scale=LOG)
    runs = cells.group_by("base", "sample", "recipe").agg(pl.col("n_runs").max())["n_runs"].sum()
    return {
        "gain": cells["gain"].mean(),
        "size_of_gain": cells["gain"].abs().mean(),
        "sd": interval.estimate,
        "ci_low": known(interval.low),
        "ci_high": known(interval.high),
        "n_cells": cells.height,
        "n_runs": int(runs),
        "n_bases": cells["base"].n_unique(),
    }


def _deviation(totals: Array) -> Array:
    """Standard deviation from totals of squared deviations and degrees of freedom."""
    with np.errstate(invalid="ignore", divide="ignore"):
        return np.sqrt(totals[..., 0] / totals[..., 1])
