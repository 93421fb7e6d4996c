"""Interactive figures: for each, the rows it shows and how; drawn in the page by workflow/report/atlas.js.

They are plain SVG drawn by a small script of our own. A plotting library would bring 1 to 4.5 MB of script into each
page; this brings 27 kB, takes its colours from the page (light and dark), and every mark is reached by keyboard.
"""

import math
from typing import Any

import polars as pl

from sft_atlas.analysis.cells import MEASURE
from sft_atlas.report.figures_gains import score_ranges
from sft_atlas.report.results import Results

Spec = dict[str, Any]
DIGITS = 5
"""Significant digits of embedded numbers; the tables beside the page have them all."""


def encode(frame: pl.DataFrame) -> dict[str, Any]:
    """Columns as JSON: text as levels and codes (-1 for null), numbers rounded."""
    columns: dict[str, Any] = {}
    for name in frame.columns:
        column = frame[name]
        if column.dtype == pl.String():
            levels = column.drop_nulls().unique().sort().to_list()
            place = {level: i for i, level in enumerate(levels)}
            columns[name] = {"levels": levels, "codes": [-1 if v is None else place[v] for v in column]}
        elif column.dtype == pl.Float64():
            columns[name] = [_rounded(value) for value in column]
        else:
            columns[name] = column.to_list()
    return columns


def _rounded(value: float | None) -> float | None:
    if value is None or not math.isfinite(value):
        return None
    return float(f"{value:.{DIGITS}g}")


def labelled(results: Results, frame: pl.DataFrame) -> pl.DataFrame:
    """The frame with column `measure`, the short name of benchmark and shots, instead of the three key columns."""
    names = pl.DataFrame(
        [(*measure, label) for measure, label in results.labels.items()],
        schema={**dict(zip(MEASURE, (pl.String, pl.Int64, pl.String), strict=True)), "measure": pl.String},
        orient="row",
    )
    return frame.join(names, on=MEASURE, how="left").drop(MEASURE)


def _whole(frame: pl.DataFrame) -> pl.DataFrame:
    return frame.filter(~pl.col("benchmark").str.contains("/"))


def _figure(kind: str, frame: pl.DataFrame, **spec: Any) -> Spec | None:
    """A specification with its data; None without rows."""
    return None if frame.is_empty() else {"type": kind, "data": encode(frame), **spec}


POINTS = {"format": "points"}
ENDS = [["ci_low", "from", "points"], ["ci_high", "to", "points"]]


def gains_mean(results: Results) -> Spec | None:
    """Datasets x benchmarks, mean gain over the bases and methods chosen."""
    rows = _whole(results["effects"].filter(pl.col("scope") == "cell"))
    rows = labelled(results, rows).select("base", "dataset", "method", "size", "measure", "gain", "matched", "n_runs")
    return _figure(
        "heat",
        rows,
        **{"x": "measure", "y": "dataset", "value": "gain", "value_title": "gain (points)", **POINTS},
        choices=[{"name": "size", "label": "rows trained", "all": True}],
        hover=[["base", "base"], ["method", "method"], ["size", "rows", "count"], ["n_runs", "runs", "count"]],
    )


def gains_bases(results: Results) -> Spec | None:
    """Bases x benchmarks, mean gain over the datasets and methods chosen."""
    rows = _whole(results["effects"].filter(pl.col("scope") == "cell"))
    rows = labelled(results, rows).select("base", "dataset", "method", "measure", "gain")
    return _figure(
        "heat", rows, **{"x": "measure", "y": "base", "value": "gain", "value_title": "gain (points)", **POINTS}
    )


def free(results: Results) -> Spec | None:
    """Datasets x benchmarks, mean base-free effect."""
    rows = labelled(results, _whole(results["free"]))
    rows = rows.select("base", "dataset", "method", "size", "measure", "effect")
    return _figure(
        "heat",
        rows,
        **{"x": "measure", "y": "dataset", "value": "effect", "value_title": "effect (points)", **POINTS},
        choices=[{"name": "size", "label": "rows trained", "all": True}],
    )


def scores(results: Results) -> Spec | None:
    """Score of the base against the best tuned score."""
    frame = score_ranges(results)
    if frame.is_empty():
        return None
    rows = labelled(results, frame).drop_nulls("base_score").select("base", "measure", "base_score", "worst", "best")
    return _figure(
        "scatter",
        rows,
        **{"x": "base_score", "y": "best", "colour": "base", "label": ["base", "measure"], "diagonal": True},
        **{"x_title": "score of the base model", "y_title": "best fine-tuned score"},
        hover=[["base_score", "base"], ["best", "best tuned"], ["worst", "worst tuned"]],
    )


def base_similarity(results: Results) -> Spec | None:
    """Bases x bases: correlation of their effects."""
    pairs = results["similarity"].filter(pl.col("scope") == "pair")
    pairs = pairs.select("base", "other", "coefficient", "n_cells")
    turned = pairs.select(base="other", other="base", coefficient="coefficient", n_cells="n_cells")
    return _figure(
        "heat",
        pl.concat([pairs, turned]),
        **{"x": "other", "y": "base", "value": "coefficient", "value_title": "correlation", "limit": 1, "square": True},
        hover=[["n_cells", "cells", "count"]],
    )


def agreement(results: Results) -> Spec | None:
    """Mean correlation between bases, per benchmark."""
    rows = results["agreement"].filter(pl.col("base").is_null())
    rows = (
        labelled(results, rows)
        .with_columns(pl.col("measure").fill_null("all benchmarks"))
        .sort("coefficient", descending=True)
    )
    return _figure(
        "dots",
        rows.select("measure", "coefficient", "ci_low", "ci_high", "n_bases", "n_cells"),
        **{"label": ["measure"], "x": "coefficient", "low": "ci_low", "high": "ci_high"},
        x_title="mean correlation between two bases",
        hover=[["coefficient", "correlation"], ["ci_low", "from"], ["ci_high", "to"], ["n_bases", "bases", "count"]],
    )


def pca(results: Results) -> Spec | None:
    """Cumulative share of variance by component."""
    rows = results["pca"].filter(pl.col("cumulative").is_not_null())
    rows = rows.select("layout", "scope", "component", "share", "cumulative", "ci_low", "ci_high", "chance")
    return _figure(
        "lines",
        rows,
        **{"x": "component", "y": "cumulative", "low": "ci_low", "high": "ci_high", "series": ["scope"]},
        **{"colour": "scope", "x_title": "components", "y_title": "share of variance", "format_x": "count"},
        choices=[{"name": "layout", "label": "benchmarks", "start": "all, scaled"}],
        hover=[
            *(["component", "components", "count"], ["cumulative", "share"], ["ci_low", "from"], ["ci_high", "to"]),
            ["chance", "share of shuffled columns"],
        ],
    )


def loadings(results: Results) -> Spec | None:
    """Loadings of benchmarks on the first components."""
    rows = results["pca"].filter((pl.col("scope") == "benchmarks") & pl.col("loading").is_not_null())
    rows = labelled(results, rows.filter(pl.col("component") <= 6))
    named = rows.select("measure", "loading", pl.format("component {}", "component").alias("component"))
    return _figure(
        "heat", named, **{"x": "component", "y": "measure", "value": "loading", "value_title": "loading", "limit": 0.6}
    )


def variance(results: Results) -> Spec | None:
    """Shares of variance, stacked."""
    rows = labelled(results, _whole(results["variance"]))
    return _figure(
        "stack",
        rows.select("measure", "factor", "share", "ci_low", "ci_high", "n_cells"),
        **{"y": "measure", "value": "share", "colour": "factor", "parts": ["base", "dataset", "shared", "rest"]},
        x_title="share of the variance of gains",
        hover=[["share", "share"], ["ci_low", "from"], ["ci_high", "to"], ["n_cells", "cells", "count"]],
    )


def benchmarks(results: Results) -> Spec | None:
    """Benchmarks x benchmarks: correlation of effects."""
    table = results["benchmarks"]
    other = table.select(
        *(pl.col(f"other_{name}").alias(name) for name in MEASURE),
        *(pl.col(name).alias(f"other_{name}") for name in MEASURE),
        *("coefficient", "corrected", "n_runs"),
    )
    both = pl.concat([table.select(other.columns), other])
    rows = labelled(results, both)
    names = {f"other_{name}": name for name in MEASURE}
    rows = labelled(results, rows.rename({"measure": "first"}).rename(names)).rename({"measure": "second"})
    return _figure(
        "heat",
        rows.select("first", "second", "coefficient", "corrected", "n_runs"),
        **{
            "x": "second",
            "y": "first",
            "value": "coefficient",
            "value_title": "correlation",
            "limit": 1,
            "square": True,
        },
        hover=[["corrected", "corrected for noise"], ["n_runs", "runs", "count"]],
    )


def order(results: Results) -> dict[str, list[str]]:
    """The order in which names are shown, and the values of the filters."""
    return {
        "base": results.bases,
        "dataset": results.datasets,
        "method": sorted(results["scores"]["method"].drop_nulls().unique().to_list()),
        "measure": list(results.labels.values()),
        "first": list(results.labels.values()),
        "second": list(results.labels.values()),
        "held_out": results.datasets,
        "factor": ["base", "dataset", "shared", "rest"],
    }
