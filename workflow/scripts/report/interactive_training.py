"""Interactive figures of training itself; see interactive.py."""

import polars as pl

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
        **{"x_title": "epoch", "y_title": "loss (nats per token)", "zero": False},
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
        f"under {method}, mean loss falls from {text.number(part['first'].mean())} at the start to "
        f"{text.number(part['last'].mean())} at the end, n = {text.count(part.height, 'run')}"
        for (method,), part in ends.group_by("method", maintain_order=True)
    ]
    rose = ends.filter(pl.col("lost") | (pl.col("last") > pl.col("first")))
    parts += [f"{text.count(rose.height, 'run')} ended above their start or without a number"] if rose.height else []
    return text.sentence("; ".join(parts))
