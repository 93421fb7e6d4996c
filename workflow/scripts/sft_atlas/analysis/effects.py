"""Question 1: how much does each dataset move each benchmark, per base model and over all of them?"""

from typing import Any

import numpy as np
import polars as pl
from scipy.special import ndtri

from sft_atlas.analysis import tables
from sft_atlas.analysis.cells import MEASURE, final_gains, groups, known, over_seeds, row_codes, select
from sft_atlas.analysis.intervals import Jackknife
from sft_atlas.analysis.statistics import Array, Interval, benjamini_hochberg

SETTING = ["base", "dataset", "method", "size"]
Row = dict[str, Any]


def effects(gains: pl.DataFrame, intervals: Jackknife) -> pl.DataFrame:
    """Table `effects` from table `gains`.

    Scope `cell`: mean over runs of base x dataset x method x size x benchmark, interval from the items' standard error.
    Scope `mean`: mean of the cells over bases, which are the clusters; q over the means of one method and size. Scopes
    `matched` and `unmatched`: mean over cells whose dataset trains what the benchmark tests, or does not. Scope
    `difference`: each matched cell minus the mean of the unmatched ones on its base and benchmark, of its method and
    size. The latter three have base and dataset as clusters.
    """
    cells = _cells(over_seeds(final_gains(gains)))
    rows = _single(cells, intervals.confidence) + _means(cells, intervals)
    for group in groups(cells, "method", "size"):
        rows += _matched(select(cells, group), intervals, group)
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


def _means(cells: pl.DataFrame, intervals: Jackknife) -> list[Row]:
    """Rows of scope `mean`: one per dataset x method x size x measure."""
    key = ["dataset", "method", "size", *MEASURE]
    counts = {"n_cells": pl.len(), "n_bases": pl.col("base").n_unique(), "n_runs": pl.col("n_runs").sum()}
    means = cells.group_by(key, maintain_order=True).agg(
        pl.col("matched").any(), "gain", **counts, of=pl.col("base").rank("dense"), n_datasets=pl.lit(1)
    )
    rows: list[Row] = []
    for row in means.to_dicts():
        mean = intervals.mean(np.array(row.pop("gain")), np.array(row.pop("of"), dtype=np.int64))
        rows.append({"scope": "mean", **row, **_estimate(mean)})
    for setting in dict.fromkeys((row["method"], row["size"]) for row in rows):
        member = [row for row in rows if (row["method"], row["size"]) == setting]
        p = [np.nan if row["p"] is None else row["p"] for row in member]
        for row, q in zip(member, benjamini_hochberg(p), strict=True):
            row["q"] = known(q)
    return rows


def _matched(cells: pl.DataFrame, intervals: Jackknife, group: Row) -> list[Row]:
    """Rows of scopes matched, unmatched and difference, over all cells of a group."""
    rows = []
    for scope, flag in (("matched", True), ("unmatched", False)):
        part = cells.filter(pl.col("matched") == flag)
        mean = intervals.mean(part["gain"].to_numpy(), row_codes(part, ["base"]), row_codes(part, ["dataset"]))
        rows.append({"scope": scope, **group, "matched": flag, **_estimate(mean), **_evidence(part)})
    strata = ["base", "method", "size", *MEASURE]
    kinds = pl.col("matched").any() & ~pl.col("matched").all()
    cells = cells.filter(kinds.over(strata))
    gain, matched = cells["gain"].to_numpy(), cells["matched"].to_numpy()
    totals = np.stack([gain * matched, matched, gain * ~matched, ~matched], axis=-1).astype(float)
    factors = (row_codes(cells, ["base"]), row_codes(cells, ["dataset"]))
    # a dataset that matches nothing is compared with, and tells little: degrees of freedom are those of the others
    counts = [cells["base"].n_unique(), cells["dataset"].n_unique()]
    matching = cells.filter("matched")["dataset"].n_unique()
    given = min(counts) - min(*counts, matching)
    place = row_codes(cells, strata)
    difference = intervals.interval(totals, difference_within, *factors, strata=place, given=given)
    rows.append({"scope": "difference", **group, **_estimate(difference), **_evidence(cells)})
    return [row for row in rows if row["gain"] is not None]


def difference_within(totals: Array) -> Array:
    """Mean over matched cells of their gain minus the mean unmatched gain of their stratum.

    From totals of matched gain and count, unmatched gain and count, shape (..., strata, 4); strata that lack a side do
    not count.
    """
    matched, count, other, others = np.moveaxis(totals, -1, 0)
    both = (count > 0) & (others > 0)
    with np.errstate(invalid="ignore", divide="ignore"):
        beyond = np.where(both, matched - count * other / others, 0.0).sum(axis=-1)
        return np.asarray(beyond / np.where(both, count, 0.0).sum(axis=-1))


def _estimate(interval: Interval) -> Row:
    """Columns of an estimate of gain; null where undefined."""
    ends = {"ci_low": known(interval.low), "ci_high": known(interval.high), "p": known(interval.p)}
    return {"gain": known(interval.estimate)} | ends


def _evidence(part: pl.DataFrame) -> Row:
    """How much is behind an estimate; a run counts once, however many benchmarks it has."""
    runs = part.group_by(SETTING).agg(pl.col("n_runs").max())["n_runs"].sum()
    counts = {"n_bases": part["base"].n_unique(), "n_datasets": part["dataset"].n_unique(), "n_runs": int(runs)}
    return {"n_cells": part.height} | counts
