"""Question 4: what do training method and sample size do, and how large is the noise of the training seed?"""

from itertools import combinations
from typing import Any

import numpy as np
import polars as pl

from sft_atlas.analysis import tables
from sft_atlas.analysis.cells import MEASURE, final_gains, known, over_seeds
from sft_atlas.analysis.statistics import Array, Bootstrap, codes

Row = dict[str, Any]

PAIRING = {"method": ["size", "schedule"], "size": ["method", "schedule"], "schedule": ["size", "method"]}
"""Beside base, dataset and benchmark: what both levels of a comparison must have in common."""


def methods(gains: pl.DataFrame, bootstrap: Bootstrap) -> pl.DataFrame:
    """Table `methods` from table `gains`: two methods, or two sizes, on the same base, dataset and benchmark.

    Over all bases and for each; over all benchmarks, matched and unmatched ones. Clusters of the bootstrap are
    base x dataset.
    """
    runs = over_seeds(final_gains(gains))
    rows: list[Row] = []
    for comparison, shared in PAIRING.items():
        key = ["base", "dataset", *MEASURE, *shared]
        cells = runs.group_by(*key, comparison).agg(pl.col("gain").mean(), pl.col("matched").any())
        levels = cells[comparison].drop_nulls().unique().sort().to_list()
        for first, second in combinations(levels, 2):
            sides = [cells.filter(pl.col(comparison) == level).drop(comparison) for level in (first, second)]
            pairs = sides[0].join(sides[1].drop("matched"), on=key, suffix="_second", nulls_equal=True).sort(key)
            level = {"comparison": comparison, "first": str(first), "second": str(second)}
            rows += [level | row for row in _differences(pairs, bootstrap)]
    return tables.build("methods", rows)


def _differences(pairs: pl.DataFrame, bootstrap: Bootstrap) -> list[Row]:
    """One row over all bases and one per base, each for all, matched and unmatched cells."""
    rows = []
    for base in [None, *pairs["base"].unique().sort()]:
        for matched in (None, True, False):
            part = pairs if base is None else pairs.filter(pl.col("base") == base)
            part = part if matched is None else part.filter(pl.col("matched") == matched)
            if part.is_empty():
                continue
            cluster = codes(part["base"], part["dataset"])
            interval = bootstrap.paired_difference(part["gain"], part["gain_second"], cluster)
            rows.append(
                {
                    "base": base,
                    "matched": matched,
                    "first_gain": part["gain"].mean(),
                    "second_gain": part["gain_second"].mean(),
                    "difference": interval.estimate,
                    "ci_low": known(interval.low),
                    "ci_high": known(interval.high),
                    "n_pairs": part.height,
                    "n_clusters": int(cluster.max()) + 1,
                }
            )
    return rows


def seeds(gains: pl.DataFrame, bootstrap: Bootstrap) -> pl.DataFrame:
    """Table `seeds` from table `gains`: the standard deviation of gain over training seeds.

    Pooled over cells, sd = sqrt(sum of squared deviations from the cells' means / sum of (seeds - 1)); clusters of the
    bootstrap are base x sample x recipe.
    """
    key = ["base", "sample", "recipe", *MEASURE]
    cells = (
        final_gains(gains)
        .group_by(*key, "matched")
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
        for row in cells.to_dicts()
    ]
    for measure, part in cells.group_by(MEASURE, maintain_order=True):
        rows.append({"scope": "benchmark", **dict(zip(MEASURE, measure, strict=True)), **_pooled(part, bootstrap)})
    for matched in (None, True, False):
        part = cells if matched is None else cells.filter(pl.col("matched") == matched)
        if not part.is_empty():
            rows.append({"scope": "all", "matched": matched, **_pooled(part, bootstrap)})
    return tables.build("seeds", rows)


def _pooled(cells: pl.DataFrame, bootstrap: Bootstrap) -> Row:
    """Spread over seeds, pooled over cells."""
    totals = np.stack([cells["squares"].to_numpy(), cells["n_runs"].to_numpy() - 1.0], axis=-1)
    interval = bootstrap.interval(totals, _deviation, codes(cells["base"], cells["sample"], cells["recipe"]))
    runs = cells.group_by("base", "sample", "recipe").agg(pl.col("n_runs").max())["n_runs"].sum()
    return {
        "gain": cells["gain"].mean(),
        "size_of_gain": cells["gain"].abs().mean(),
        "sd": interval.estimate,
        "ci_low": None if not np.isfinite(interval.low) else max(0.0, interval.low),
        "ci_high": known(interval.high),
        "n_cells": cells.height,
        "n_runs": int(runs),
    }


def _deviation(totals: Array) -> Array:
    """Standard deviation from totals of squared deviations and degrees of freedom."""
    with np.errstate(invalid="ignore", divide="ignore"):
        return np.sqrt(totals[..., 0] / totals[..., 1])
