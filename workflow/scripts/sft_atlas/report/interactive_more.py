"""Interactive figures of questions 2 to 4; see interactive.py."""

import polars as pl

from sft_atlas.report import text
from sft_atlas.report.interactive import ENDS, POINTS, Spec, _figure, labelled
from sft_atlas.report.results import Results


def perplexity(results: Results) -> Spec | None:
    """Perplexity of the data against gain."""
    data = results["predictors"].select("base", "sample", "benchmark", "perplexity").drop_nulls()
    rows = labelled(results, results.runs.join(data, on=["base", "sample", "benchmark"], how="inner"))
    rows = rows.select("base", "dataset", "method", "size", "measure", "perplexity", "gain")
    return _figure(
        "scatter",
        rows,
        **{
            "x": "perplexity",
            "y": "gain",
            "log": True,
            "colour": "base",
            "label": ["base", "dataset", "measure"],
            **POINTS,
        },
        **{"x_title": "perplexity under the base model", "y_title": "gain (points)"},
        choices=[{"name": "measure", "label": "benchmark", "all": True}],
        hover=[
            ["perplexity", "perplexity"],
            ["gain", "gain", "points"],
            ["method", "method"],
            ["size", "rows", "count"],
        ],
    )


def predictors(results: Results) -> Spec | None:
    """Correlations of every property with gain."""
    everything = pl.all_horizontal(pl.col("method", "size").is_null()) & pl.col("coefficient").is_not_null()
    rows = labelled(results, results["correlations"].filter(everything))
    rows = rows.with_columns(
        pl.col("measure").fill_null("all benchmarks"),
        pl.col("predictor").replace(text.PREDICTORS),
        pl.col("scope").replace(text.SCOPES),
    )
    return _figure(
        "dots",
        rows.select("measure", "predictor", "scope", "coefficient", "ci_low", "ci_high", "q", "n_clusters"),
        **{"label": ["predictor", "scope"], "x": "coefficient", "low": "ci_low", "high": "ci_high"},
        x_title="rank correlation with gain",
        choices=[{"name": "measure", "label": "benchmark", "start": "all benchmarks"}],
        hover=[
            ["coefficient", "ρ"],
            ["ci_low", "from"],
            ["ci_high", "to"],
            ["q", "q"],
            ["n_clusters", "units", "count"],
        ],
    )


def similarity(results: Results) -> Spec | None:
    """Similarity of data and benchmark against gain."""
    columns = {"shared wording": "similarity", "meaning (embeddings)": "embedding_similarity"}
    key = ["base", "sample", "benchmark"]
    data = pl.concat(
        results["predictors"].select(*key, pl.col(column).alias("similarity"), pl.lit(name).alias("by"))
        for name, column in columns.items()
    ).drop_nulls()
    rows = labelled(results, results.runs.join(data, on=key, how="inner"))
    return _figure(
        "scatter",
        rows.select("by", "base", "dataset", "method", "measure", "similarity", "gain", "matched"),
        **{"x": "similarity", "y": "gain", "colour": "dataset", "label": ["base", "dataset", "measure"], **POINTS},
        **{"x_title": "similarity of data and benchmark", "y_title": "gain (points)"},
        choices=[
            {"name": "by", "label": "measured by", "order": list(columns)},
            {"name": "measure", "label": "benchmark", "all": True},
        ],
        hover=[["similarity", "similarity"], ["gain", "gain", "points"]],
    )


def prediction(results: Results) -> Spec | None:
    """Skill on each base left out."""
    rows = results["prediction"].with_columns(pl.col("base").fill_null("all bases left out in turn"))
    return _figure(
        "dots",
        rows.select("model", pl.col("base").alias("left_out"), "skill", "ci_low", "ci_high", "error", "error_of_mean"),
        **{"label": ["model", "left_out"], "x": "skill", "low": "ci_low", "high": "ci_high", "colour": "model"},
        x_title="skill: 1 − squared error / that of the mean",
        hover=[["skill", "skill"], ["error", "error", "points"], ["error_of_mean", "error of the mean", "points"]],
    )


def recommend(results: Results) -> Spec | None:
    """Predicted gains of datasets for a base, as if it had not been tuned."""
    rows = labelled(results, results["recommend"])
    return _figure(
        "dots",
        rows.sort("base", "measure", "rank").select(
            *("base", "measure", "rank", "dataset", "predicted", "ci_low", "ci_high", "best", "observed")
        ),
        **{"label": ["dataset"], "x": "predicted", "low": "ci_low", "high": "ci_high", "format_x": "points"},
        x_title="predicted gain (points)",
        choices=[{"name": "base", "label": "base"}, {"name": "measure", "label": "benchmark"}],
        hover=[
            ["predicted", "predicted", "points"],
            *ENDS,
            ["best", "probability of being best"],
            ["observed", "observed", "points"],
        ],
    )


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
