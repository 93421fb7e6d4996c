"""What a table's schema is made of, and the columns that several tables share."""

from dataclasses import dataclass

import polars as pl

TEXT, COUNT, REAL, FLAG = pl.String(), pl.Int64(), pl.Float64(), pl.Boolean()


@dataclass(frozen=True)
class Column:
    """One column: its type, its unit ("" for names and flags), what it means, and whether it may be null."""

    name: str
    dtype: pl.DataType
    unit: str
    meaning: str
    null: bool = False


@dataclass(frozen=True)
class Table:
    """One table: what a row is, its columns in order, and the columns that together name a row.

    `csv` says whether it is also written as CSV; a table of millions of rows is Parquet only.
    """

    row: str
    columns: tuple[Column, ...]
    key: tuple[str, ...]
    csv: bool = True


def cell(null: bool) -> tuple[Column, ...]:
    """Columns that name a cell; `null` where the table also holds base models."""
    return (
        Column("base", TEXT, "", "base model"),
        Column("sample", TEXT, "", "training sample; null for a base model", null),
        Column("recipe", TEXT, "", "training recipe; null for a base model", null),
        Column("seed", COUNT, "", "training seed; null for a base model", null),
        Column("epoch", COUNT, "epochs", "epochs trained; 0 for a base model"),
    )


MEASURE = (
    Column("benchmark", TEXT, "", "benchmark"),
    Column("shots", COUNT, "examples", "worked examples in the prompt"),
    Column("metric", TEXT, "", "how an item is scored, such as exact_match or judge_1_10"),
)
DESCRIPTION = (
    Column("dataset", TEXT, "", "the dataset of the sample, or a mixture's name; null for a base model", True),
    Column("held_out", TEXT, "", "dataset left out of a leave-one-out mixture", True),
    Column("size", COUNT, "rows", "training rows really used", True),
    Column("method", TEXT, "", "full or lora", True),
    Column("schedule", TEXT, "", "learning-rate schedule", True),
    Column("block", TEXT, "", "block of the study that declares the cell; names joined by commas", True),
)
CELL = ("base", "sample", "recipe", "seed", "epoch")
SCORE = (*CELL, "benchmark", "shots", "metric")

GROUP = (
    Column("method", TEXT, "", "full or lora; null for all together", True),
    Column("size", COUNT, "rows", "training rows, near sizes taken together; null for all together", True),
)
ANY_MEASURE = (
    Column("benchmark", TEXT, "", "benchmark; null for all together", True),
    Column("shots", COUNT, "examples", "worked examples in the prompt; null for all together", True),
    Column("metric", TEXT, "", "metric; null for all together", True),
)
INTERVAL = (
    Column("ci_low", REAL, "as the estimate", "lower end of the interval", True),
    Column("ci_high", REAL, "as the estimate", "upper end of the interval", True),
)
TEST = (
    Column("coefficient", REAL, "-1..1", "Spearman's correlation, ranks taken within strata", True),
    *INTERVAL,
    Column("pearson", REAL, "-1..1", "Pearson's correlation, means taken out within strata", True),
    Column("p", REAL, "probability", "two-sided, by permutation within strata", True),
    Column("q", REAL, "probability", "p adjusted over its family by Benjamini and Hochberg", True),
    Column("family", TEXT, "", "the tests that q accounts for together"),
)
