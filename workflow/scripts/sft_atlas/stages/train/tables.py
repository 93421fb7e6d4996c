"""What the study's tables gain from training."""

import polars as pl

from sft_atlas.analysis.collected import Found, Rows, key_of
from sft_atlas.analysis.columns import COUNT, DESCRIPTION, REAL, TEXT, Column, Table
from sft_atlas.files import read_json

CURVE_ROWS = 40
"""Rows of table `curves` for one run, at most: what a figure can show, whatever the number of steps."""
TABLES: dict[str, Table] = {
    "training": Table(
        "one training run",
        (
            Column("base", TEXT, "", "base model"),
            Column("sample", TEXT, "", "training sample"),
            Column("recipe", TEXT, "", "training recipe"),
            Column("seed", COUNT, "", "training seed"),
            Column("run", TEXT, "", "identity of the run"),
            Column("epochs", COUNT, "epochs", "epochs trained"),
            Column("steps", COUNT, "steps", "optimiser steps"),
            Column("tokens", COUNT, "tokens", "tokens that carried loss, over all epochs"),
            Column("final_loss", REAL, "nats per token", "loss at the end", True),
            Column("method", TEXT, "", "full or lora"),
        ),
        ("base", "sample", "recipe", "seed"),
    ),
    "curves": Table(
        "one training run over some consecutive steps, at most 40 rows a run",
        (
            Column("base", TEXT, "", "base model"),
            Column("sample", TEXT, "", "training sample"),
            Column("recipe", TEXT, "", "training recipe"),
            Column("seed", COUNT, "", "training seed"),
            Column("step", COUNT, "steps", "optimiser steps done at the end of the row's steps"),
            Column("epoch", REAL, "epochs", "passes over the sample done then"),
            Column("loss", REAL, "nats per token", "mean over the row's steps", True),
            Column("learning_rate", REAL, "", "of the row's last step", True),
            Column("grad_norm", REAL, "", "norm of the gradient before clipping, mean over the row's steps", True),
            *DESCRIPTION,
        ),
        ("base", "sample", "recipe", "seed", "step"),
    ),
}


def gather(found: Found) -> dict[str, Rows]:
    """Tables `training` and `curves`."""
    training: Rows = []
    curves: Rows = []
    for run in found.identity.runs:
        path = found.present(run, "train")
        if path is None:
            continue
        train, key = read_json(path), key_of(run)
        facts = {name: train[name] for name in ("steps", "final_loss")}
        facts |= {"epochs": max(map(int, train["epochs"])), "tokens": train["trained_tokens"]}
        training.append({**key, "run": run.run, "method": run.method, **facts})
        log, last = path.with_name("log.parquet"), max(map(int, run.epochs))
        if log.exists():
            about = {**key, **found.described(run), "block": run.epochs[str(last)]}
            curves += [about | row for row in curve(pl.read_parquet(log), last)]
    return {"training": training, "curves": curves}


def curve(log: pl.DataFrame, epochs: int, rows: int = CURVE_ROWS) -> Rows:
    """A run's log up to an epoch in at most so many rows: means over consecutive steps, as even in number as can be."""
    # a run that was once trained further has more steps than the study asks for
    steps = log.filter(pl.col("epoch") <= epochs + 1e-6).sort("step").fill_nan(None)
    part = pl.int_range(pl.len()) * min(rows, steps.height) // pl.len()
    summed = (
        steps.with_columns(part=part)
        .group_by("part")
        .agg(pl.col("step", "epoch", "learning_rate").last(), pl.col("loss", "grad_norm").mean())
    )
    return summed.sort("part").drop("part").to_dicts()
