"""Question 2: which property of the training data goes with the gain?

Gains of base x dataset x benchmark are averaged over seeds, recipes and sizes first: those runs share what is
correlated. Then the interval leaves out, and the permutation moves, whole units. Where datasets are compared, the unit
is the dataset with all its runs: what is particular to a dataset shows on every base model, so runs of one dataset are
no independent evidence. Over all cells, of whatever base, intervals leave out the base too. Where bases are compared on
one dataset, the unit is the base, for the same reason; where the benchmarks of one run are, the benchmark.
"""

from dataclasses import dataclass
from typing import Any

import numpy as np
import polars as pl

from sft_atlas.analysis import tables
from sft_atlas.analysis.cells import MEASURE, final_gains, groups, known, over_seeds, row_codes, select
from sft_atlas.analysis.intervals import Jackknife
from sft_atlas.analysis.statistics import Array, Labels, benjamini_hochberg, pearson, permutation_p
from sft_atlas.study.analyses import AnalysisOptions

Row = dict[str, Any]

PREDICTORS = {
    "log_perplexity": pl.col("perplexity").log(),
    "log_perplexity_full": pl.col("perplexity_full").log(),
    "mean_tokens": pl.col("mean_tokens"),
    "similarity": pl.col("similarity"),
    "embedding_similarity": pl.col("embedding_similarity"),
}
"""Properties of the training data, as expressions over table `predictors`."""


@dataclass(frozen=True)
class Scope:
    """Which cells are compared: those of equal strata; levels of `unit` are left out, and trade their values."""

    strata: tuple[str, ...]
    unit: str
    other: str | None = None
    """What else varies between the cells compared, and is left out for the interval too."""


SCOPES = {
    "pooled": Scope((), "dataset", "base"),
    "within_base": Scope(("base", *MEASURE), "dataset"),
    "within_dataset": Scope(("dataset", *MEASURE), "base"),
    "within_run": Scope(("base", "dataset"), "benchmark"),
}
_DATASETS = ("pooled", "within_base")
DEFINED = {
    "log_perplexity": (*_DATASETS, "within_dataset"),
    "log_perplexity_full": (*_DATASETS, "within_dataset"),
    "mean_tokens": _DATASETS,
    "similarity": (*_DATASETS, "within_run"),
    "embedding_similarity": (*_DATASETS, "within_run"),
}
"""Scopes in which a predictor varies: of length and similarity, the base model changes (almost) nothing."""


def correlations(gains: pl.DataFrame, predictors: pl.DataFrame, options: AnalysisOptions) -> pl.DataFrame:
    """Table `correlations` from tables `gains` and `predictors`.

    Over all benchmarks for all runs together and each method and size; per benchmark for all runs together. Each of the
    two sets is one family for q.
    """
    runs = with_predictors(gains, predictors)
    if runs.is_empty():
        return tables.empty("correlations")
    rows = []
    for group in groups(runs, "method", "size"):
        rows += _predictor_rows(select(runs, group), group | dict.fromkeys(MEASURE), options)
    overall = dict.fromkeys(["method", "size"])
    for measure in runs.select(MEASURE).unique().sort(MEASURE).to_dicts():
        rows += _predictor_rows(select(runs, measure), overall | measure, options)
    return tables.build("correlations", with_q(rows))


def with_predictors(gains: pl.DataFrame, predictors: pl.DataFrame) -> pl.DataFrame:
    """Last gains, averaged over seeds, beside the properties of their data."""
    values = predictors.select("base", "sample", "benchmark", *[e.alias(name) for name, e in PREDICTORS.items()])
    runs = over_seeds(final_gains(gains))
    return runs.join(values, on=["base", "sample", "benchmark"], how="inner", nulls_equal=True)


def known_cells(runs: pl.DataFrame, predictor: str) -> pl.DataFrame:
    """Base x dataset x measure with gain and a predictor that is known, averaged over recipes and sizes."""
    key = ["base", "dataset", *MEASURE]
    known_runs = runs.filter(pl.col(predictor).is_not_null())
    return known_runs.group_by(key).agg(pl.col("gain", predictor).mean()).sort(key)


def _predictor_rows(runs: pl.DataFrame, key: Row, options: AnalysisOptions) -> list[Row]:
    """One row per predictor and scope, over the runs of one group."""
    epochs = runs["epoch"].unique().to_list()
    key = key | {"epoch": epochs[0] if len(epochs) == 1 else None}
    key["family"] = "over all benchmarks" if key["benchmark"] is None else "per benchmark"
    rows = []
    for predictor in PREDICTORS:
        known_runs = runs.filter(pl.col(predictor).is_not_null())
        if known_runs.is_empty():
            continue
        cells = known_cells(runs, predictor)
        n_runs = int(known_runs.group_by("base", "sample", "recipe").agg(pl.col("n_runs").max())["n_runs"].sum())
        for scope in DEFINED[predictor]:
            if scope == "within_run" and key["benchmark"] is not None:
                continue
            varies = "benchmark" if predictor.endswith("similarity") else "base"
            column = [varies if SCOPES[scope].unit == "dataset" else "dataset"]
            test = test_columns(cells, predictor, SCOPES[scope], column, options)
            counts = {"n_cells": cells.height, "n_runs": n_runs}
            rows.append({"scope": scope, "predictor": predictor, **key, **test, **counts})
    return rows


def test_columns(cells: pl.DataFrame, x: str, scope: Scope, column: list[str], options: AnalysisOptions) -> Row:
    """The columns that all correlations share: coefficient, interval, p and the number of units.

    `cells` has column `gain`, column `x`, and those that `scope` names; `column` are the columns that, beside the unit,
    determine x.
    """
    unit, strata, columns = (row_codes(cells, names) for names in ([scope.unit], scope.strata, column))
    values, gain = cells[x].to_numpy(), cells["gain"].to_numpy()
    p = permutation_p(
        gain,
        _lookup(values, unit, columns),
        unit,
        columns,
        strata,
        options.permutations,
        options.seed,
    )
    factors = [unit] if scope.other is None else [unit, row_codes(cells, [scope.other])]
    interval = Jackknife(options.confidence).correlation(values, gain, *factors, strata=strata)
    return {
        "coefficient": known(interval.estimate),
        "ci_low": known(interval.low),
        "ci_high": known(interval.high),
        "pearson": known(pearson(values, gain, strata)),
        "p": known(p),
        "n_clusters": int(unit.max()) + 1,
    }


def _lookup(x: Array, unit: Labels, column: Labels) -> Array:
    """The value of each unit and column, shape (units, columns).

    Where no cell has a value, it is row mean + column mean - mean: a unit that lacks a column can still trade.
    """
    shape = (int(unit.max()) + 1, int(column.max()) + 1)
    flat = unit * shape[1] + column
    count = np.bincount(flat, minlength=shape[0] * shape[1]).reshape(shape)
    total = np.bincount(flat, weights=x, minlength=count.size).reshape(shape)
    rows = total.sum(axis=1, keepdims=True) / count.sum(axis=1, keepdims=True)
    columns = total.sum(axis=0, keepdims=True) / count.sum(axis=0, keepdims=True)
    return np.where(count > 0, total / np.maximum(count, 1), rows + columns - x.mean())


def with_q(rows: list[Row]) -> list[Row]:
    """Add q, adjusted within each family."""
    q: dict[int, float] = {}
    for family in dict.fromkeys(row["family"] for row in rows):
        member = [i for i, row in enumerate(rows) if row["family"] == family]
        p = [np.nan if rows[i]["p"] is None else rows[i]["p"] for i in member]
        q |= dict(zip(member, benjamini_hochberg(p), strict=True))
    return [row | {"q": known(q[i])} for i, row in enumerate(rows)]
