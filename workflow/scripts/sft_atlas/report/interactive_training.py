"""Interactive figures of training itself and of the map, with what they say; see interactive.py."""

import polars as pl

from sft_atlas.analysis.maps import LIKELIHOODS, best_map
from sft_atlas.report import text
from sft_atlas.report.interactive import Spec, _figure
from sft_atlas.report.results import Results


def curves(results: Results) -> Spec | None:
    """Loss by epoch, a line per training run."""
    rows = results["curves"].filter(pl.col("loss").is_not_null())
    rows = rows.with_columns(run=pl.format("{}, {}, seed {}", "sample", "recipe", "seed"))
    return _figure(
        "lines",
        rows.select(
            *("base", "dataset", "method", "size", "run", "step", "epoch", "loss", "learning_rate", "grad_norm")
        ),
        **{"x": "epoch", "y": "loss", "series": ["base", "run"], "colour": "dataset", "dash": "method", "fine": True},
        **{"x_title": "epoch", "y_title": "loss (nats per token, log scale)"},
        **{"log_y": True, "format_y": "plain"},
        choices=[
            {"name": "base", "label": "base", "all": True, "start": results.bases[0] if results.bases else None},
            {"name": "size", "label": "rows trained", "all": True},
        ],
        hover=[
            *(["epoch", "epoch"], ["step", "step", "count"], ["loss", "loss"]),
            *(["learning_rate", "learning rate", "small"], ["grad_norm", "norm of the gradient"]),
        ],
    )


def explain_curves(results: Results) -> str:
    """How far loss falls, and which runs diverged."""
    run = ["base", "sample", "recipe", "seed"]
    ends = (
        results["curves"]
        .sort(*run, "step")
        .group_by(*run, "method", maintain_order=True)
        .agg(
            pl.col("loss").drop_nulls().first().alias("first"),
            pl.col("loss").drop_nulls().last().alias("last"),
            pl.col("loss").is_null().any().alias("lost"),
        )
    )
    parts = [
        f"under {method}, mean loss falls from {text.number(text.mean(part['first']))} at the start to "
        f"{text.number(text.mean(part['last']))} at the end, n = {text.count(part.height, 'run')}"
        for (method,), part in ends.group_by("method", maintain_order=True)
    ]
    rose = ends.filter(pl.col("lost") | (pl.col("last") > pl.col("first")))
    parts += [f"{text.count(rose.height, 'run')} ended above their start or without a number"] if rose.height else []
    return text.sentence("; ".join(parts))


def model_map(results: Results) -> Spec | None:
    """Every model as a point."""
    rows = results["map"].select(
        *("kind", "base", "dataset", "recipe", "method", "size", "epoch", "sample", "x", "y", "from_base", "nearest")
    )
    best = best_map(rows)["kind"]
    return _figure(
        "scatter",
        rows,
        **{"x": "x", "y": "y", "colour": "base", "label": ["base", "sample", "recipe"], "ring": "sample"},
        **{"x_title": "first axis", "y_title": "second axis"},
        choices=[{"name": "kind", "label": "made of", "start": best[0] if len(best) else None}],
        colours=["base", "dataset", "method"],
        hover=[
            *(["epoch", "epoch", "count"], ["size", "rows", "count"]),
            *(["from_base", "squared distance from its base"], ["nearest", "nearest model is of"]),
        ],
    )


def explain_map(results: Results) -> str:
    """How far models stay with their base, and how much of the variance flat maps show."""
    frame = results["map"]
    kinds = frame.group_by("kind").agg(pl.col("x_share", "y_share").first(), pl.len()).sort("kind")
    parts = []
    placed = frame.filter((pl.col("kind") == LIKELIHOODS) & pl.col("nearest").is_not_null())
    if placed.height:
        own = placed.filter(pl.col("nearest") == pl.col("base")).height
        parts.append(
            f"by log-likelihoods, {own} of n = {text.count(placed.height, 'model')} have as their nearest neighbour, "
            "their own run left out, one of the same base"
        )
        far = placed.filter(pl.col("sample").is_not_null() & pl.col("from_base").is_not_null())
        mean = far.group_by("base").agg(pl.col("from_base").mean()).sort("from_base", "base")
        if mean.height > 1:
            least, most = mean.row(0), mean.row(-1)
            parts.append(
                f"models of {most[0]} move farthest from their base (mean squared distance {text.number(most[1])} "
                f"nats² a text), models of {least[0]} least ({text.number(least[1])})"
            )
    flat = kinds.filter(pl.col("x_share").is_not_null())
    parts += [
        f"{row['kind']}: two components of {row['x_share']:.0%} and {row['y_share']:.0%} of the variance, n = "
        f"{text.count(row['len'], 'model')}"
        for row in (flat.iter_rows(named=True) if placed.is_empty() else ())
    ]
    return text.sentence("; ".join(parts) + ". Ringed points are base models")
