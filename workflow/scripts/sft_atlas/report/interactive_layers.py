"""Interactive figures of question 3, layers; see interactive.py."""

import polars as pl

from sft_atlas.report import say
from sft_atlas.report.interactive import Spec, _figure
from sft_atlas.report.results import Results

CHANGES = {"relative": "relative: ‖change‖ / ‖base‖", "raw": "raw: ‖change‖"}
"""The two ways to measure change, as the figures name them."""


def layers(results: Results) -> Spec | None:
    """Change by depth, relative to the base's weights and raw."""
    last = results["layers"].filter(pl.col("epoch") == pl.col("epoch").max().over("base", "sample", "recipe", "seed"))
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
        pl.col("target").replace(say.TARGETS),
        pl.col("scope").replace(say.LAYER_SCOPES),
        pl.col("change").replace(CHANGES),
    )
    return _figure(
        "lines",
        rows.select(
            "change", "target", "scope", "module", "method", "depth", "coefficient", "ci_low", "ci_high", "q", "n_runs"
        ),
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
            {"name": "target", "label": "gain", "start": say.TARGETS["mean_gain"]},
            {"name": "scope", "label": "compared", "start": say.LAYER_SCOPES["within_base"]},
            {"name": "module", "label": "weights", "start": "all"},
        ],
        hover=[["depth", "depth"], ["coefficient", "ρ"], ["ci_low", "from"], ["ci_high", "to"], ["q", "q"]],
    )


def layer_peaks(results: Results) -> Spec | None:
    """Where the correlation peaks, with interval."""
    rows = results["layer_peaks"].with_columns(pl.col("target").replace(say.TARGETS), pl.col("change").replace(CHANGES))
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


def dimensions(results: Results) -> Spec | None:
    """Intrinsic dimension by depth: of each base, and mean over its models after training."""
    known = results["dimensions"].filter(pl.col("dimension").is_not_null())
    last = known.filter(pl.col("epoch") == pl.col("epoch").max().over("base", "sample", "recipe", "seed"))
    of = last.with_columns(of=pl.when(pl.col("sample").is_null()).then(pl.lit("base model")).otherwise("method"))
    key = ["base", "of", "depth"]
    mean = of.group_by(key).agg(pl.col("dimension").mean(), pl.len().cast(pl.Int64).alias("n"))
    return _figure(
        "lines",
        mean.sort(key),
        **{"x": "depth", "y": "dimension", "series": ["base", "of"], "colour": "base", "dash": "of"},
        **{"x_title": "relative depth", "y_title": "intrinsic dimension", "zero": False},
        hover=[["depth", "depth"], ["dimension", "dimension"], ["n", "models", "count"]],
    )


def dimension_changes(results: Results) -> Spec | None:
    """What training does to intrinsic dimension, by depth."""
    rows = results["dimension_changes"].with_columns(of=pl.col("base").fill_null("all bases"))
    return _figure(
        "lines",
        rows.select("of", "method", "depth", "difference", "ci_low", "ci_high", "before", "after", "n_runs"),
        **{"x": "depth", "y": "difference", "low": "ci_low", "high": "ci_high", "series": ["method"]},
        **{"colour": "method", "x_title": "relative depth", "y_title": "change of intrinsic dimension"},
        choices=[{"name": "of", "label": "base", "start": "all bases"}],
        hover=[
            *(["depth", "depth"], ["difference", "change"], ["ci_low", "from"], ["ci_high", "to"]),
            *(["before", "before"], ["after", "after"], ["n_runs", "runs", "count"]),
        ],
    )


def explain_dimensions(results: Results) -> str:
    """Where bases have their greatest dimension."""
    bases = results["dimensions"].filter(pl.col("sample").is_null() & pl.col("dimension").is_not_null())
    tops = bases.sort("base", "dimension", "depth").group_by("base", maintain_order=True).last()
    parts = [
        f"{row['base']} {say.number(row['dimension'], 1)} at depth {say.number(row['depth'])}"
        for row in tops.iter_rows(named=True)
    ]
    counts = bases["texts"].unique().to_list()
    return say.sentence(
        f"greatest dimension of the base models: {', '.join(parts) or 'unknown'}; "
        f"n = {say.count(max(counts, default=0), 'text')}"
    )


def explain_dimension_changes(results: Results) -> str:
    """From which depth on the dimension parts from the base's."""
    rows = results["dimension_changes"].filter(pl.col("base").is_null()).sort("method", "depth")
    parts = []
    for (method,), part in rows.group_by("method", maintain_order=True):
        clear = [not say.spans_zero(row) for row in part.iter_rows(named=True)]
        depths = part["depth"].to_list()
        since = next((depth for i, depth in enumerate(depths) if all(clear[i:])), None)
        said = (
            f"differs from the base's at every depth from {say.number(since)} on"
            if since is not None
            else f"does not differ clearly in the last layer, and does at {sum(clear)} of {len(clear)} depths"
        )
        last = part.row(-1, named=True)
        ends = say.interval(last["ci_low"], last["ci_high"])
        parts.append(
            f"under {method}, dimension {said} (in the last layer by {say.number(last['difference'])} {ends}, "
            f"n = {say.count(last['n_runs'], 'run')})"
        )
    return say.sentence("; ".join(parts))
