"""Interactive figures of question 4, training factors, and of the checks; see interactive.py."""

import polars as pl

from sft_atlas.report.interactive import ENDS, POINTS, Spec, _figure, labelled
from sft_atlas.report.results import Results


def contrasts(results: Results) -> Spec | None:
    """Paired differences of score between methods, sizes and schedules: together, by base, by benchmark."""
    table = labelled(results, results["contrasts"]).with_columns(
        pl.format("{}: {} minus {}", "factor", "second", "first").alias("pair"),
        pl.when("matched")
        .then(pl.lit("all bases, matched cells"))
        .when(~pl.col("matched"))
        .then(pl.lit("all bases, other cells"))
        .otherwise(pl.coalesce("base", "measure", pl.lit("all bases")))
        .alias("of"),
    )
    return _figure(
        "dots",
        table.select(
            *("pair", "family", "of", "difference", "ci_low", "ci_high", "q", "first_score", "second_score", "n_pairs")
        ),
        **{"label": ["of"], "x": "difference", "low": "ci_low", "high": "ci_high", "format_x": "points"},
        x_title="difference of score (points)",
        choices=[{"name": "pair", "label": "comparison"}, {"name": "family", "label": "over", "start": "all together"}],
        hover=[["difference", "difference", "points"], *ENDS, ["q", "q"], ["n_pairs", "pairs", "count"]],
    )


def seeds(results: Results) -> Spec | None:
    """Spread over seeds by benchmark."""
    rows = labelled(results, results["seeds"].filter(pl.col("scope") == "benchmark"))
    return _figure(
        "dots",
        rows.select("measure", "sd", "ci_low", "ci_high", "size_of_gain", "n_cells"),
        **{"label": ["measure"], "x": "sd", "low": "ci_low", "high": "ci_high", "format_x": "points"},
        x_title="standard deviation over seeds (points)",
        hover=[["sd", "spread", "points"], *ENDS, ["size_of_gain", "mean size of gain", "points"]],
    )


def epochs(results: Results) -> Spec | None:
    """Gain by epoch."""
    rows = labelled(results, results["epochs"]).with_columns(
        pl.col("measure").fill_null("all benchmarks"),
        pl.format("{} {} {} rows", "method", "schedule", pl.col("size").fill_null(0)).alias("setting"),
    )
    rows = rows.with_columns(of=pl.col("base").fill_null("mean"))
    return _figure(
        "lines",
        rows.select(
            "setting", "of", "base", "method", "measure", "epoch", "gain", "ci_low", "ci_high", "to_last", "n_runs"
        ),
        **{"x": "epoch", "y": "gain", "low": "ci_low", "high": "ci_high", "series": ["of"], "colour": "of", **POINTS},
        **{"x_title": "epoch", "y_title": "mean gain (points)", "format_x": "count"},
        choices=[
            {"name": "setting", "label": "training"},
            {"name": "measure", "label": "benchmark", "start": "all benchmarks"},
        ],
        hover=[
            *(["epoch", "epoch", "count"], ["gain", "gain", "points"], *ENDS),
            *(["to_last", "ρ with the last epoch"], ["n_runs", "runs", "count"]),
        ],
    )


def leave_one_out(results: Results) -> Spec | None:
    """What each dataset adds to the mixture."""
    rows = labelled(results, results["leave_one_out"].filter(pl.col("benchmark").is_not_null()))
    return _figure(
        "heat",
        rows.select(
            *("base", "mixture", "held_out", "recipe", "method", "seed", "epoch", "measure", "contribution", "stderr")
        ),
        **{
            "x": "measure",
            "y": "held_out",
            "value": "contribution",
            "value_title": "with it − without it (points)",
            **POINTS,
        },
        choices=[
            {"name": "mixture", "label": "mixture"},
            {"name": "recipe", "label": "recipe", "all": True},
            {"name": "epoch", "label": "epoch", "all": True},
        ],
        hover=[["base", "base"], ["recipe", "recipe"], ["seed", "seed"], ["stderr", "± over items", "points"]],
    )


def crosslingual(results: Results) -> Spec | None:
    """Correlations between counterparts in different languages."""
    rows = results["crosslingual"].with_columns(
        pl.format("{} and {}, {} shots", "benchmark", "other", "shots").alias("pair"),
        pl.coalesce(pl.format("bases of {}", "language"), "scope").alias("compared"),
    )
    return _figure(
        "dots",
        rows.select("pair", "compared", "coefficient", "ci_low", "ci_high", "n_runs", "n_bases"),
        **{"label": ["pair", "compared"], "x": "coefficient", "low": "ci_low", "high": "ci_high"},
        x_title="rank correlation of gains",
        hover=[
            ["coefficient", "ρ"],
            ["ci_low", "from"],
            ["ci_high", "to"],
            ["n_runs", "runs", "count"],
            ["n_bases", "bases", "count"],
        ],
    )


def sensitivity(results: Results) -> Spec | None:
    """Mean effects whose verdict the suspect cells change."""
    rows = labelled(results, results["sensitivity"])
    rows = rows.filter(pl.col("measure").is_in([results.labels[measure] for measure in results.measures]))
    return _figure(
        "dots",
        rows.sort("dataset", "measure").select(
            "dataset",
            "method",
            "size",
            "measure",
            "gain_all",
            "ci_low_all",
            "ci_high_all",
            "verdict",
            "verdict_all",
            "gain",
        ),
        **{
            "label": ["measure", "method", "size"],
            "x": "gain_all",
            "low": "ci_low_all",
            "high": "ci_high_all",
            "format_x": "points",
        },
        x_title="mean gain with all cells (points)",
        choices=[{"name": "dataset", "label": "dataset"}],
        hover=[
            ["verdict_all", "with all cells"],
            ["verdict", "without suspects"],
            ["gain_all", "with", "points"],
            ["gain", "without", "points"],
        ],
    )
