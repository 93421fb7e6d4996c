"""A clean table of scores in the released table's shape, into which faults are planted."""

from dataclasses import dataclass
from typing import Any

import numpy as np
import polars as pl

from sft_atlas.analysis import tables
from sft_atlas.analysis.columns import CELL, MEASURE

KEY = [*CELL, *(column.name for column in MEASURE)]
ITEMS = {"gsm8k": 1319, "boolq": 3270, "nq": 3610, "hellaswag": 4000, "math": 5000, "drop": 2500, "code": 164}
GROUPS = {"mmlu": 57, "cmmlu": 67}
LABELS: dict[str, Any] = {
    **{name: {"items": items, "matches": []} for name, items in ITEMS.items()},
    **{name: {"items": 12000, "groups": groups} for name, groups in GROUPS.items()},
    "boolq": {"items": 3270, "chance": 0.5},
    "mt_bench": {"items": 20},
    "mt_bench/writing": {"items": 10},
    "mt_bench/maths": {"items": 10},
}


@dataclass(frozen=True)
class Table:
    """How large the clean table is."""

    bases: int = 5
    datasets: int = 6
    epochs: int = 4
    seed: int = 0


def clean(table: Table) -> pl.DataFrame:
    """Table `scores`, percent rounded to two decimals, subjects' means unrounded, judge scores to tenths."""
    rng = np.random.default_rng(table.seed)
    rows: list[dict[str, Any]] = []
    for b in range(table.bases):
        level = rng.uniform(0.3, 0.7)
        rows += [{"base": f"base{b}", "epoch": 0, **score} for score in _scores(rng, level)]
        for d in range(table.datasets):
            shift = rng.normal(0, 0.08)
            for recipe in ("full-constant", "lora-constant"):
                about = {"dataset": f"data{d}", "size": 1000, "method": recipe.split("-")[0], "schedule": "constant"}
                for epoch in range(1, table.epochs + 1):
                    key = {"base": f"base{b}", "sample": f"data{d}-1k", "recipe": recipe, "seed": 0, "epoch": epoch}
                    drift = shift + 0.01 * epoch + rng.normal(0, 0.01)
                    rows += [{**key, **about, **score} for score in _scores(rng, level + drift)]
    return tables.build("scores", rows)


def _scores(rng: np.random.Generator, level: float) -> list[dict[str, Any]]:
    level = float(np.clip(level, 0.1, 0.9))
    found: list[dict[str, Any]] = []
    for name, n in ITEMS.items():
        for shots in (0, 5) if name in ("boolq", "nq") else (0,):
            share = rng.binomial(n, np.clip(level + rng.normal(0, 0.02), 0.02, 0.98)) / n
            found.append({"benchmark": name, "shots": shots, "metric": "exact_match", "score": round(share, 4), "n": n})
    for name, groups in GROUPS.items():
        subjects = np.round(rng.binomial(200, level, groups) / 200, 4)
        found.append({"benchmark": name, "shots": 0, "metric": "exact_match", "score": float(subjects.mean())})
        found[-1]["n"] = 12000
    parts = {part: rng.integers(2, 9, 10) for part in ("writing", "maths")}
    found += [
        {"benchmark": f"mt_bench/{part}", "shots": 0, "metric": "judge_1_10", "score": float(points.mean()), "n": 10}
        for part, points in parts.items()
    ]
    total = round(float(np.concatenate(list(parts.values())).mean()), 2)
    return [*found, {"benchmark": "mt_bench", "shots": 0, "metric": "judge_1_10", "score": total, "n": 20}]


def plant(scores: pl.DataFrame, where: pl.Expr, values: Any) -> pl.DataFrame:
    """The table with other scores where a condition holds."""
    return scores.with_columns(pl.when(where).then(values).otherwise("score").alias("score"))


def copied(scores: pl.DataFrame, source: pl.Expr, target: pl.Expr, benchmarks: list[str] | None = None) -> pl.DataFrame:
    """The table in which the rows of `target` hold the scores of the rows of `source`, in some benchmarks or all."""
    chosen = pl.col("benchmark").is_in(benchmarks) if benchmarks else pl.lit(True)
    measure = [column.name for column in MEASURE]
    given = scores.filter(source & chosen).select(*measure, pl.col("score").alias("given"))
    return (
        scores.join(given, on=measure, how="left")
        .with_columns(pl.when(target & chosen).then(pl.coalesce("given", "score")).otherwise("score").alias("score"))
        .drop("given")
    )
