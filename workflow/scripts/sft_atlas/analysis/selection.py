"""A hyper-parameter search: every recipe at every kept epoch is a candidate, ranked by its gains on chosen benchmarks.

The standard error of a mean gain over B benchmarks, whose items are independent, is sqrt(sum of squares) / B. Cells of
one benchmark (numbers of shots, samples, seeds, bases) answer the same items and share most of their error, so theirs
is averaged, not divided by their number. Candidates within so many standard errors of the best are equal to it: with
one, the rule of Hastie, Tibshirani and Friedman, The Elements of Statistical Learning (2009), section 7.10.
"""

from collections.abc import Mapping, Sequence
from typing import Any

import polars as pl
from scipy.special import ndtri

from sft_atlas.analysis import tables
from sft_atlas.analysis.cells import MEASURE, METRIC_RANGE
from sft_atlas.study.analyses import Selection

CANDIDATE = ["recipe", "epoch"]
Row = dict[str, Any]


def selection(gains: pl.DataFrame, declared: Mapping[str, Any] | None, confidence: float) -> pl.DataFrame:
    """Table `selection` from table `gains`; without rows unless the study declares a search.

    `declared` holds the study's `options` (with the names of the benchmarks, no patterns) and the values of its
    `recipes`. A candidate that lacks a gain which others of its group have is listed without a rank: a mean over fewer
    benchmarks is another quantity.
    """
    if declared is None:
        return tables.empty("selection")
    options = Selection.model_validate(declared["options"])
    width = pl.col("metric").replace_strict(METRIC_RANGE, default=1.0, return_dtype=pl.Float64)
    judged = gains.filter(pl.col("benchmark").is_in(options.benchmarks)).with_columns(pl.col("gain", "stderr") / width)
    places = [column for column in ("base", "sample") if column in options.by]
    rows: list[Row] = []
    for values, part in _groups(judged, [*places, *(["method"] if "method" in options.by else [])]):
        place = {column: values.get(column) for column in ("base", "sample")}
        candidates = _ranked(_candidates(part), options, confidence, declared["recipes"])
        rows += [place | candidate for candidate in candidates]
    return tables.build("selection", rows)


def _groups(frame: pl.DataFrame, columns: list[str]) -> list[tuple[Row, pl.DataFrame]]:
    if not columns:
        return [({}, frame)] if frame.height else []
    parts = frame.sort(columns).group_by(columns, maintain_order=True)
    return [(dict(zip(columns, values, strict=True)), part) for values, part in parts]


def _candidates(group: pl.DataFrame) -> list[Row]:
    """Every candidate of a group with its gain on each benchmark, or with `complete` false."""
    cells = ["base", "sample", *MEASURE]
    expected = group.select(cells).n_unique()
    judges = ",".join(group["benchmark"].unique().sort())
    found = []
    for (recipe, epoch), part in group.sort(*CANDIDATE).group_by(CANDIDATE, maintain_order=True):
        single = part.group_by(cells).agg(pl.col("gain", "stderr").mean())
        each = single.group_by("benchmark").agg(pl.col("gain").mean(), _all_mean("stderr")).sort("benchmark")
        found.append(
            {
                "recipe": recipe,
                "epoch": epoch,
                "method": part["method"][0],
                "complete": single.height == expected,
                "gains": each["gain"].to_list(),
                "errors": each["stderr"].to_list(),
                "judges": judges,
                "n_benchmarks": each.height,
                "n_cells": single.height,
                "n_runs": part.select("base", "sample", "seed").n_unique(),
            }
        )
    return found


def _all_mean(column: str) -> pl.Expr:
    """The mean, unknown as soon as one value is."""
    return pl.when(pl.col(column).is_null().any()).then(None).otherwise(pl.col(column).mean()).alias(column)


def _ranked(
    candidates: list[Row], options: Selection, confidence: float, recipes: Mapping[str, Mapping[str, Any]]
) -> list[Row]:
    """Rows of one group: value, interval, rank; which are equal to the best, and which one is chosen."""
    complete = [row for row in candidates if row["complete"]]
    places = _mean_ranks([row["gains"] for row in complete])
    for row, place in zip(complete, places, strict=True):
        row["value"], row["stderr"] = _value(row["gains"], row["errors"], place, options.statistic)
    sign = 1 if options.statistic == "mean_rank" else -1
    half = float(ndtri((1 + confidence) / 2))
    best = min(complete, key=lambda row: sign * row["value"], default=None)
    margin = options.ties * (best["stderr"] or 0.0) if best else 0.0
    for row in complete:
        row["rank"] = 1 + sum(sign * other["value"] < sign * row["value"] for other in complete)
        row["tied"] = best is not None and sign * (row["value"] - best["value"]) <= margin
        if row["stderr"] is not None:
            row["ci_low"], row["ci_high"] = row["value"] - half * row["stderr"], row["value"] + half * row["stderr"]
    equal = [row for row in complete if row["tied"]]
    chosen = min(equal, key=lambda row: _preference(row, options.prefer, recipes[row["recipe"]]), default=None)
    return [
        {
            **{name: row.get(name) for name in ("rank", "value", "stderr", "ci_low", "ci_high")},
            **{
                name: row[name] for name in ("recipe", "epoch", "method", "judges", "n_benchmarks", "n_cells", "n_runs")
            },
            **recipes[row["recipe"]],
            "tied": row.get("tied", False),
            "chosen": row is chosen,
            "statistic": options.statistic,
            "gain": sum(row["gains"]) / len(row["gains"]) if row["complete"] else None,
            "worst_gain": min(row["gains"]) if row["complete"] else None,
        }
        for row in candidates
    ]


def _preference(row: Row, prefer: Sequence[str], recipe: Mapping[str, Any]) -> tuple[Any, ...]:
    """What orders equal candidates: the preferred fields, then rank and name, so that one choice is left."""
    values = [row["epoch"] if field == "epoch" else recipe[field] for field in prefer]
    return (*values, row["rank"], row["recipe"], row["epoch"])


def _value(
    gains: list[float], errors: list[float | None], mean_rank: float, statistic: str
) -> tuple[float, float | None]:
    """A candidate's statistic and its standard error, null where one is unknown."""
    if statistic == "mean_rank":
        return mean_rank, None
    if statistic == "worst_gain":
        return min(zip(gains, errors, strict=True), key=lambda pair: pair[0])
    known = [error for error in errors if error is not None]
    error = sum(error**2 for error in known) ** 0.5 / len(errors) if len(known) == len(errors) else None
    return sum(gains) / len(gains), error


def _mean_ranks(gains: list[list[float]]) -> list[float]:
    """Mean over benchmarks of each candidate's rank, 1 for the greatest gain; equal gains share the mean rank."""
    if not gains:
        return []
    frame = pl.DataFrame(gains, schema=[str(i) for i in range(len(gains[0]))], orient="row")
    return list(frame.select(pl.mean_horizontal(pl.all().rank("average", descending=True))).to_series())
