"""Question 1: how much does each dataset move each benchmark, per base model and over all of them?"""

from typing import Any

import numpy as np
import polars as pl
from scipy.special import ndtri

from sft_atlas.analysis import tables
from sft_atlas.analysis.cells import MEASURE, final_gains, groups, known, over_seeds, select
from sft_atlas.analysis.statistics import Array, Bootstrap, Interval, codes

SETTING = ["base", "dataset", "method", "size"]
Row = dict[str, Any]


def effects(gains: pl.DataFrame, bootstrap: Bootstrap) -> pl.DataFrame:
    """Table `effects` from table `gains`.

    Scope `cell`: mean over runs of base x dataset x method x size x benchmark, interval from the items' standard error.
    Scope `mean`: mean of the cells over bases; clusters of the bootstrap are bases. Scopes `matched`, `unmatched` and
    `difference`: mean over cells whose dataset trains what the benchmark tests, or does not; clusters are base x
    dataset.
    """
    cells = _cells(over_seeds(final_gains(gains)))
    rows = _single(cells, bootstrap.confidence) + _means(cells, bootstrap)
    for group in groups(cells, "method", "size"):
        rows += _matched(select(cells, group), bootstrap, group)
    return tables.build("effects", rows)


def _cells(runs: pl.DataFrame) -> pl.DataFrame:
    """One row per base x dataset x method x size x measure, over samples, recipes and seeds."""
    key = [*SETTING, *MEASURE]
    columns = pl.col("matched").any(), pl.col("gain", "stderr").mean(), pl.col("n_runs").sum()
    return runs.group_by(key).agg(*columns).sort(key)


def _single(cells: pl.DataFrame, confidence: float) -> list[Row]:
    """Rows of scope `cell`; the interval is the normal one over items."""
    half = pl.col("stderr") * float(ndtri((1 + confidence) / 2))
    rows = cells.with_columns((pl.col("gain") - half).alias("ci_low"), (pl.col("gain") + half).alias("ci_high"))
    return [{"scope": "cell", **row, "n_cells": 1, "n_bases": 1} for row in rows.drop("stderr").to_dicts()]


def _means(cells: pl.DataFrame, bootstrap: Bootstrap) -> list[Row]:
    """Rows of scope `mean`: one per dataset x method x size x measure."""
    key = ["dataset", "method", "size", *MEASURE]
    return [
        {
            "scope": "mean",
            **dict(zip(key, values, strict=True)),
            "matched": bool(part["matched"].any()),
            **_estimate(bootstrap.mean(part["gain"], part["base"])),
            **_evidence(part),
        }
        for values, part in cells.group_by(key, maintain_order=True)
    ]


def _matched(cells: pl.DataFrame, bootstrap: Bootstrap, group: Row) -> list[Row]:
    """Rows of scopes matched, unmatched and difference, over all cells of a group."""
    rows = []
    for scope, flag in (("matched", True), ("unmatched", False)):
        part = cells.filter(pl.col("matched") == flag)
        mean = bootstrap.mean(part["gain"], codes(part["base"], part["dataset"]))
        rows.append({"scope": scope, **group, "matched": flag, **_estimate(mean), **_evidence(part)})
    gain, matched = cells["gain"].to_numpy(), cells["matched"].to_numpy()
    totals = np.stack([gain * matched, matched, gain * ~matched, ~matched], axis=-1).astype(float)
    difference = bootstrap.interval(totals, _difference, codes(cells["base"], cells["dataset"]))
    rows.append({"scope": "difference", **group, **_estimate(difference), **_evidence(cells)})
    return [row for row in rows if row["gain"] is not None]


def _difference(totals: Array) -> Array:
    """Matched minus unmatched mean, from totals of matched gain and count, unmatched gain and count."""
    with np.errstate(invalid="ignore", divide="ignore"):
        return totals[..., 0] / totals[..., 1] - totals[..., 2] / totals[..., 3]


def _estimate(interval: Interval) -> Row:
    """Columns of an estimate of gain; null where undefined."""
    return {"gain": known(interval.estimate), "ci_low": known(interval.low), "ci_high": known(interval.high)}


def _evidence(part: pl.DataFrame) -> Row:
    """How much is behind an estimate; a run counts once, however many benchmarks it has."""
    runs = part.group_by(SETTING).agg(pl.col("n_runs").max())["n_runs"].sum()
    return {"n_cells": part.height, "n_bases": part["base"].n_unique(), "n_runs": int(runs)}
