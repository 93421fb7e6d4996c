"""Interactive figures of question 2, data; see interactive.py."""

import polars as pl

from sft_atlas.report import say
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
        pl.col("predictor").replace(say.PREDICTORS),
        pl.col("scope").replace(say.SCOPES),
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
