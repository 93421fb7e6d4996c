"""Interactive figures of question 3, layers; see interactive.py."""

import polars as pl

from sft_atlas.report import text
from sft_atlas.report.interactive import Spec, _figure
from sft_atlas.report.results import Results

CHANGES = {"relative": "relative: ‖change‖ / ‖base‖", "raw": "raw: ‖change‖"}
"""The two ways to measure change, as the figures name them."""


def layers(results: Results) -> Spec | None:
    """Change by depth, relative to the base's weights and raw."""
    last = results["layers"].filter(
        pl.col("epoch") == pl.col("epoch").max().over("base", "sample", "recipe", "seed")
    )
    key = ["base", "method", "module", "depth"]
    parts = []
    for change, column in {"relative": "relative", "raw": "norm"}.items():
        known = last.filter(pl.col(column).is_not_null()).with_columns(
            pl.lit(CHANGES[change]).alias("change"), pl.col(column).alias("size")
        )
        runs = known.group_by("change", *key, "dataset").agg(pl.col("size").mean())
        parts.append(runs.group_by("change", *key).agg(pl.col("size").mean(), pl.len().cast(pl.Int64).alias("n")))
    return _figure(
        "lines",
        pl.concat(parts).sort("change", *key),
        **{"x": "depth", "y": "size", "series": ["base", "method"], "colour": "base", "dash": "method"},
        **{"x_title": "relative depth", "y_title": "change of weights"},
        choices=[
            {"name": "change", "label": "change", "start": CHANGES["relative"]},
            {"name": "module", "label": "weights", "start": "all"},
        ],
        hover=[["depth", "depth"], ["size", "change", "small"], ["n", "datasets", "count"]],
    )


def layer_correlations(results: Results) -> Spec | None:
    """Correlation of change with gain by depth."""
    rows = results["layer_correlations"].with_columns(
        pl.col("target").replace(text.TARGETS),
        pl.col("scope").replace(text.LAYER_SCOPES),
        pl.col("change").replace(CHANGES),
    )
    return _figure(
        "lines",
        rows.select("change", "target", "scope", "module", "method", "depth", "coefficient", "ci_low", "ci_high", "q", "n_runs"),
        **{
            "x": "depth",
            "y": "coefficient",
            "low": "ci_low",
            "high": "ci_high",
            "series": ["method"],
            "colour": "method",
        },
        **{"x_title": "relative depth", "y_title": "rank correlation with gain"},
        choices=[
            {"name": "change", "label": "change", "start": CHANGES["relative"]},
            {"name": "target", "label": "gain", "start": text.TARGETS["mean_gain"]},
            {"name": "scope", "label": "compared", "start": text.LAYER_SCOPES["within_base"]},
            {"name": "module", "label": "weights", "start": "all"},
        ],
        hover=[["depth", "depth"], ["coefficient", "ρ"], ["ci_low", "from"], ["ci_high", "to"], ["q", "q"]],
    )


def layer_peaks(results: Results) -> Spec | None:
    """Where the correlation peaks, with interval."""
    rows = results["layer_peaks"].with_columns(
        pl.col("target").replace(text.TARGETS), pl.col("change").replace(CHANGES)
    )
    return _figure(
        "dots",
        rows.select(
            *("change", "target", "method", "module", "depth", "ci_low", "ci_high", "coefficient", "flat", "n_runs")
        ),
        **{"label": ["target", "method", "module"], "x": "depth", "low": "ci_low", "high": "ci_high"},
        x_title="relative depth of the peak",
        choices=[{"name": "change", "label": "change", "start": CHANGES["relative"]}],
        hover=[
            ["depth", "depth"],
            ["ci_low", "from"],
            ["ci_high", "to"],
            ["coefficient", "ρ there"],
            ["flat", "draws that peak at an end"],
        ],
    )


def layer_agreement(results: Results) -> Spec | None:
    """Agreement of bases by depth."""
    return _figure(
        "lines",
        results["layer_agreement"],
        **{"x": "depth", "y": "coefficient", "series": ["module"], "colour": "module"},
        **{"x_title": "relative depth", "y_title": "mean rank correlation between bases"},
        hover=[["depth", "depth"], ["coefficient", "ρ"], ["n_pairs", "pairs of bases", "count"]],
    )
