"""What the study's tables gain from scores."""

from typing import Any

import polars as pl

from sft_atlas.analysis.collected import Found, Rows
from sft_atlas.analysis.columns import COUNT, DESCRIPTION, FLAG, MEASURE, REAL, SCORE, Column, Table, cell
from sft_atlas.errors import TableError

TABLES: dict[str, Table] = {
    "scores": Table(
        "one cell on one benchmark",
        (
            *cell(null=True),
            *MEASURE,
            Column("score", REAL, "fraction", "mean over items; points 1..10 for judge_1_10", True),
            Column("stderr", REAL, "fraction", "standard error over items", True),
            Column("n", COUNT, "items", "items scored; null where an imported table does not say", True),
            *DESCRIPTION,
        ),
        SCORE,
    ),
    "gains": Table(
        "one fine-tuned cell on one benchmark, against its base model on the same items",
        (
            *cell(null=False),
            *MEASURE,
            Column("gain", REAL, "fraction", "score minus the base model's score"),
            Column("stderr", REAL, "fraction", "standard error of the gain, paired over items", True),
            Column("n", COUNT, "items", "items scored for both; null where unknown", True),
            Column("score", REAL, "fraction", "score of the cell on these items"),
            Column("base_score", REAL, "fraction", "score of the base model on these items"),
            Column("matched", FLAG, "", "the study says that this dataset trains what this benchmark tests"),
            *DESCRIPTION,
        ),
        SCORE,
    ),
}


def gather(found: Found) -> dict[str, Rows]:
    """Tables `scores` and `gains`; benchmarks whose answers are kept and not scored are listed as missing."""
    items: dict[tuple[str, str, int], pl.DataFrame] = {}
    scores: Rows = []
    gains: Rows = []
    for model in found.cells("scores"):
        table, base = pl.read_parquet(model.path), model.key["base"]
        found.missing += not_scored(table, model.key)
        for row in table.iter_rows(named=True):
            own = pl.read_parquet(model.path.parent / row.pop("items"))
            row |= model.row(row["epoch"])
            scores.append({**model.key, **row})
            place = (base, row["benchmark"], row["shots"])
            if "sample" not in model.key:
                items[place] = own
            elif place in items and (gain := paired_gain(items[place], own)):
                # `A/B` is a part of A
                matched = model.about["dataset"] in found.identity.matches[row["benchmark"].partition("/")[0]]
                gains.append({**model.key, **row, **gain, "matched": matched})
    return {"scores": scores, "gains": gains}


def paired_gain(before: pl.DataFrame, after: pl.DataFrame) -> dict[str, Any] | None:
    """Mean over shared items of score after minus before, with its standard error sd(d) / sqrt(n); None without any.

    Raises:
        TableError: an item stands twice on one side, so that it could not be told which belongs to which.
    """
    for side, items in (("before", before), ("after", after)):
        twice = items.filter(pl.col("item").is_duplicated())["item"]
        if len(twice):
            raise TableError(
                f"scores {side} training: item {twice[0]!r} stands {(twice == twice[0]).sum()} times, so items cannot "
                "be paired; prepare the benchmark and score it again"
            )
    pairs = before.join(after, on="item", suffix="_after").drop_nulls(["score", "score_after"])
    if not pairs.height:
        return None
    difference = pairs["score_after"] - pairs["score"]
    n = pairs.height
    return {
        "gain": difference.mean(),
        "stderr": float(difference.std()) / n**0.5 if n > 1 else None,  # type: ignore[arg-type]
        "n": n,
        "score": pairs["score_after"].mean(),
        "base_score": pairs["score"].mean(),
    }


def not_scored(scores: pl.DataFrame, key: dict[str, Any]) -> Rows:
    """Benchmarks whose answers are kept, but would need a judge, or to be run, for a score."""
    unknown = scores.filter(pl.col("score").is_null()).select("epoch", "benchmark").unique(maintain_order=True)
    return [{**key, **row, "reason": "generated, not scored"} for row in unknown.iter_rows(named=True)]
