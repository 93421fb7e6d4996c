"""The tables of a study: the one place that says which columns each has, of what type and in which unit.

Tables lie in `results/<study>/tables/`, each as `NAME.parquet` (what programs read) and `NAME.csv` (what people open).
`INPUTS` are written by the collecting stage, `OUTPUTS` by the analysis. Rules that hold for all of them:

- a cell is base x sample x recipe x seed x epoch; a base model has null sample, recipe and seed, and epoch 0;
- scores are fractions 0..1, except those of metric `judge_1_10`;
- unknown is null, never 0 and never NaN.
"""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import polars as pl

TEXT, COUNT, REAL, FLAG = pl.String(), pl.Int64(), pl.Float64(), pl.Boolean()


class TableError(ValueError):
    """A table does not have the columns, types or keys that its schema declares."""


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
    """One table: what a row is, its columns in order, and the columns that together name a row."""

    row: str
    columns: tuple[Column, ...]
    key: tuple[str, ...]


def _cell(null: bool) -> tuple[Column, ...]:
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

INPUTS: dict[str, Table] = {
    "scores": Table(
        "one cell on one benchmark",
        (
            *_cell(null=True),
            *MEASURE,
            Column("score", REAL, "fraction", "mean over items; points 1..10 for judge_1_10", True),
            Column("stderr", REAL, "fraction", "standard error over items", True),
            Column("n", COUNT, "items", "items scored"),
            *DESCRIPTION,
        ),
        SCORE,
    ),
    "gains": Table(
        "one fine-tuned cell on one benchmark, against its base model on the same items",
        (
            *_cell(null=False),
            *MEASURE,
            Column("gain", REAL, "fraction", "score minus the base model's score"),
            Column("stderr", REAL, "fraction", "standard error of the gain, paired over items", True),
            Column("n", COUNT, "items", "items scored for both"),
            Column("score", REAL, "fraction", "score of the cell on these items"),
            Column("base_score", REAL, "fraction", "score of the base model on these items"),
            Column("matched", FLAG, "", "the study says that this dataset trains what this benchmark tests"),
            *DESCRIPTION,
        ),
        SCORE,
    ),
    "samples": Table(
        "one training sample as one base model's tokenizer reads it",
        (
            Column("base", TEXT, "", "base model"),
            Column("sample", TEXT, "", "training sample"),
            Column("rows", COUNT, "rows", "rows in the sample"),
            Column("tokens", COUNT, "tokens", "tokens in one epoch, prompt and completion"),
            Column("trained_tokens", COUNT, "tokens", "tokens in one epoch that carry loss"),
            Column("mean_tokens", REAL, "tokens per row", "mean length, prompt and completion"),
            Column("mean_completion_tokens", REAL, "tokens per row", "mean length of the completion"),
            Column("truncated", COUNT, "rows", "rows cut at the maximum length"),
        ),
        ("base", "sample"),
    ),
    "predictors": Table(
        "one training sample under one base model, beside one benchmark",
        (
            Column("base", TEXT, "", "base model"),
            Column("sample", TEXT, "", "training sample"),
            Column("benchmark", TEXT, "", "benchmark"),
            Column("perplexity", REAL, "perplexity", "of completions under the base model, given prompts", True),
            Column("perplexity_stderr", REAL, "perplexity", "its standard error over rows", True),
            Column("perplexity_full", REAL, "perplexity", "of prompts and completions under the base model", True),
            Column("perplexity_full_stderr", REAL, "perplexity", "its standard error over rows", True),
            Column("mean_tokens", REAL, "tokens per row", "mean length, prompt and completion", True),
            Column("mean_completion_tokens", REAL, "tokens per row", "mean length of the completion", True),
            Column("similarity", REAL, "fraction", "n-gram overlap of sample and benchmark", True),
            Column("dataset", TEXT, "", "dataset of the sample, or a mixture's name", True),
            Column("size", COUNT, "rows", "rows in the sample", True),
        ),
        ("base", "sample", "benchmark"),
    ),
    "layers": Table(
        "the change of one layer's weights in one fine-tuned cell",
        (
            *_cell(null=False),
            Column("layer", COUNT, "", "index of the layer, 0 nearest to the input"),
            Column("depth", REAL, "fraction", "layer / (layers - 1)"),
            Column("module", TEXT, "", "all, attention, mlp or norm"),
            Column("norm", REAL, "weight", "Frobenius norm of the change"),
            Column("base_norm", REAL, "weight", "Frobenius norm of the base model's weights"),
            Column("relative", REAL, "fraction", "norm / base_norm", True),
            Column("cosine_distance", REAL, "fraction", "1 - cosine of the weights before and after", True),
            *DESCRIPTION,
        ),
        (*CELL, "layer", "module"),
    ),
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
            Column("seconds", REAL, "s", "time of training", True),
        ),
        ("base", "sample", "recipe", "seed"),
    ),
    "missing": Table(
        "one declared cell, or one benchmark of it, that has no result",
        (
            *_cell(null=True),
            Column("benchmark", TEXT, "", "benchmark; null where the whole cell is missing", True),
            Column("reason", TEXT, "", "why there is no result"),
        ),
        (),
    ),
}

_GROUP = (
    Column("method", TEXT, "", "full or lora; null for all together", True),
    Column("size", COUNT, "rows", "training rows, near sizes taken together; null for all together", True),
)
_ANY_MEASURE = (
    Column("benchmark", TEXT, "", "benchmark; null for all together", True),
    Column("shots", COUNT, "examples", "worked examples in the prompt; null for all together", True),
    Column("metric", TEXT, "", "metric; null for all together", True),
)
_INTERVAL = (
    Column("ci_low", REAL, "as the estimate", "lower end of the interval", True),
    Column("ci_high", REAL, "as the estimate", "upper end of the interval", True),
)
_TEST = (
    Column("coefficient", REAL, "-1..1", "Spearman's correlation, ranks taken within strata", True),
    *_INTERVAL,
    Column("pearson", REAL, "-1..1", "Pearson's correlation, means taken out within strata", True),
    Column("p", REAL, "probability", "two-sided, by permutation within strata", True),
    Column("q", REAL, "probability", "p adjusted over its family by Benjamini and Hochberg", True),
    Column("family", TEXT, "", "the tests that q accounts for together"),
)

OUTPUTS: dict[str, Table] = {
    "effects": Table(
        "a mean gain at the last epoch of runs: over seeds (scope cell), bases (mean) or cells (the other scopes)",
        (
            Column("scope", TEXT, "", "cell, mean, matched, unmatched, or difference (matched minus unmatched)"),
            Column("base", TEXT, "", "base model; null over all bases", True),
            Column("dataset", TEXT, "", "dataset; null over all datasets", True),
            *_GROUP,
            *_ANY_MEASURE,
            Column("matched", FLAG, "", "matched cells only, unmatched only; null for both", True),
            Column("gain", REAL, "fraction of the metric's range", "mean gain"),
            *_INTERVAL,
            Column("n_cells", COUNT, "cells", "base x dataset x benchmark cells behind the mean"),
            Column("n_bases", COUNT, "bases", "base models behind the mean"),
            Column("n_runs", COUNT, "runs", "training runs behind the mean"),
        ),
        ("scope", "base", "dataset", "method", "size", "benchmark", "shots", "metric"),
    ),
    "correlations": Table(
        "the rank correlation of one property of the training data with gain",
        (
            Column("scope", TEXT, "", "pooled, within_dataset, within_base or within_run"),
            Column("predictor", TEXT, "", "property of the training data"),
            *_ANY_MEASURE,
            *_GROUP,
            Column("epoch", COUNT, "epochs", "epoch of the gains; null where runs end at different epochs", True),
            Column("n_cells", COUNT, "cells", "base x dataset x benchmark cells"),
            Column("n_runs", COUNT, "runs", "training runs behind them"),
            Column("n_clusters", COUNT, "clusters", "units drawn and moved: datasets, runs or benchmarks"),
            *_TEST,
        ),
        ("scope", "predictor", "benchmark", "shots", "metric", "method", "size"),
    ),
    "layer_correlations": Table(
        "the rank correlation of the relative change of layers at one depth with a run's gain",
        (
            Column("scope", TEXT, "", "pooled or within_base"),
            Column("target", TEXT, "", "mean_gain (all benchmarks of the run) or matched_gain (matched ones only)"),
            Column("module", TEXT, "", "all, attention, mlp or norm"),
            Column("method", TEXT, "", "full or lora"),
            Column("depth", REAL, "fraction", "relative depth; changes are interpolated between layers"),
            Column("n_runs", COUNT, "runs", "training runs"),
            Column("n_clusters", COUNT, "clusters", "datasets, drawn by the bootstrap and moved by the permutation"),
            *_TEST,
        ),
        ("scope", "target", "module", "method", "depth"),
    ),
    "methods": Table(
        "the paired difference of gain between two training methods or two sample sizes",
        (
            Column("comparison", TEXT, "", "method or size"),
            Column("first", TEXT, "", "the level subtracted"),
            Column("second", TEXT, "", "the level it is subtracted from"),
            Column("base", TEXT, "", "base model; null over all bases", True),
            Column("matched", FLAG, "", "matched cells only, unmatched only; null for both", True),
            Column("first_gain", REAL, "fraction of the metric's range", "mean gain of the first level"),
            Column("second_gain", REAL, "fraction of the metric's range", "mean gain of the second level"),
            Column("difference", REAL, "fraction of the metric's range", "second minus first, mean over pairs"),
            *_INTERVAL,
            Column("n_pairs", COUNT, "pairs", "cells that have both levels"),
            Column("n_clusters", COUNT, "clusters", "base x dataset pairs, drawn by the bootstrap"),
        ),
        ("comparison", "first", "second", "base", "matched"),
    ),
    "seeds": Table(
        "the spread of gain over training seeds, for one cell or pooled over cells",
        (
            Column("scope", TEXT, "", "cell, benchmark or all"),
            Column("base", TEXT, "", "base model; null where pooled", True),
            Column("sample", TEXT, "", "training sample; null where pooled", True),
            Column("recipe", TEXT, "", "training recipe; null where pooled", True),
            *_ANY_MEASURE,
            Column("matched", FLAG, "", "matched cells only, unmatched only; null for both", True),
            Column("gain", REAL, "fraction of the metric's range", "mean gain"),
            Column("size_of_gain", REAL, "fraction of the metric's range", "mean absolute gain of the cells"),
            Column("sd", REAL, "fraction of the metric's range", "standard deviation over seeds, pooled over cells"),
            *_INTERVAL,
            Column("n_cells", COUNT, "cells", "cells with two seeds or more"),
            Column("n_runs", COUNT, "runs", "training runs behind them"),
        ),
        ("scope", "base", "sample", "recipe", "benchmark", "shots", "metric", "matched"),
    ),
}
TABLES: dict[str, Table] = INPUTS | OUTPUTS


def schema(name: str) -> dict[str, pl.DataType]:
    """Columns and types of table `name`, in order. Raises TableError for an unknown name."""
    if name not in TABLES:
        raise TableError(f"unknown table {name!r}; expected one of {', '.join(TABLES)}")
    return {column.name: column.dtype for column in TABLES[name].columns}


def empty(name: str) -> pl.DataFrame:
    """Table `name` without rows."""
    return pl.DataFrame(schema=schema(name))


def build(name: str, rows: Iterable[Mapping[str, Any]]) -> pl.DataFrame:
    """Table `name` from rows; columns that a row lacks are null, and the result is checked and sorted by key."""
    rows, expected = list(rows), schema(name)
    unknown = sorted({column for row in rows for column in row if column not in expected})
    _refuse(name, unknown, "is unknown", f"columns {', '.join(expected)}")
    frame = pl.DataFrame(rows, schema=expected, orient="row")
    return arrange(check(frame, name), name)


def arrange(frame: pl.DataFrame, name: str) -> pl.DataFrame:
    """The same rows in the order of the table's key, nulls first, so that equal content gives equal bytes."""
    columns = list(schema(name))
    key = TABLES[name].key
    order = [*key, *(column for column in columns if column not in key)]
    return frame.select(columns).sort(order, nulls_last=False, maintain_order=True)


def check(frame: pl.DataFrame, name: str) -> pl.DataFrame:
    """Return `frame` if it is a table `name`; raise TableError that names table, column, found and expected.

    Columns may come in any order, but none may lack, be unknown, have another type, hold NaN, or hold null where the
    schema allows none; no two rows may share a key.
    """
    expected = schema(name)
    _refuse(name, [c for c in expected if c not in frame.columns], "is missing", f"columns {', '.join(expected)}")
    _refuse(name, [c for c in frame.columns if c not in expected], "is unknown", f"columns {', '.join(expected)}")
    for column in TABLES[name].columns:
        values = frame[column.name]
        if values.dtype != column.dtype:
            _refuse(name, [column.name], f"has type {values.dtype}", str(column.dtype))
        if values.null_count() and not column.null:
            _refuse(name, [column.name], f"has {values.null_count()} null of {len(values)} values", "no null")
        if column.dtype == REAL and (unreal := len(values) - int((values.is_finite() | values.is_null()).sum())):
            _refuse(name, [column.name], f"has {unreal} values that are NaN or infinite", "null where unknown")
    if (key := list(TABLES[name].key)) and (twice := frame.filter(frame.select(key).is_duplicated())).height:
        found = ", ".join(f"{k}={v}" for k, v in twice.select(key).row(0, named=True).items())
        _refuse(name, key, f"names {twice.height} rows that are not unique, such as {found}", "one row per key")
    return frame


def _refuse(name: str, columns: list[str], found: str, expected: str) -> None:
    """Raise TableError about `columns`, if there are any."""
    if columns:
        raise TableError(f"table {name!r}: column {', '.join(columns)} {found}; expected {expected}")


def read(folder: Path, name: str) -> pl.DataFrame:
    """Table `name` from `folder`, checked; without rows when its file is absent."""
    path = folder / f"{name}.parquet"
    return check(pl.read_parquet(path), name) if path.exists() else empty(name)


def write(frame: pl.DataFrame, folder: Path, name: str) -> None:
    """Check `frame`, sort it by key, and write `folder/NAME.parquet` and `folder/NAME.csv`."""
    folder.mkdir(parents=True, exist_ok=True)
    frame = arrange(check(frame, name), name)
    frame.write_parquet(folder / f"{name}.parquet")
    frame.write_csv(folder / f"{name}.csv")
