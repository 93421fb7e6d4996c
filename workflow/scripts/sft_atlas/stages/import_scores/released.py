"""Adapter for the released table of the published study (llm-jp/massive-sft, `evaluation_result.csv`): wide to long.

A row is a model, a column a benchmark with its shots. Names become those of `studies/massive-sft.yaml`. The unit of
each column is read off its values: percent unless all lie within 0..1 and some between.
"""

import csv
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import polars as pl

JUDGE = "judge_1_10"
MT_BENCH = ("writing", "roleplay", "reasoning", "math", "coding", "extraction", "stem", "humanities")


@dataclass(frozen=True)
class Measure:
    """What a column of the released table measures."""

    benchmark: str
    shots: int
    metric: str = "exact_match"


COLUMNS: dict[str, Measure] = {
    "math-0shot": Measure("math", 0),
    "gsm8k-0shot": Measure("gsm8k", 0),
    "gsm8k-4shot": Measure("gsm8k", 4),
    "humaneval-0shot": Measure("humaneval", 0, "pass_at_1"),
    "mbpp-0shot": Measure("mbpp", 0, "pass_at_1"),
    "mbpp_4shot": Measure("mbpp", 4, "pass_at_1"),
    "BoolQ-0shot": Measure("boolq", 0),
    "BoolQ-5shot": Measure("boolq", 5),
    **{f"nq-{shots}shot": Measure("nq", shots, "answer_contained") for shots in (0, 1, 5, 25)},
    "Truthful_QA-0shot": Measure("truthfulqa", 0, "bleu_accuracy"),
    "mmlu-0shot": Measure("mmlu", 0),
    "mmlu-5shot": Measure("mmlu", 5),
    "cmmlu-0shot": Measure("cmmlu", 0),
    "jmmlu-0shot": Measure("jmmlu", 0),
    "hellaswag-0shot": Measure("hellaswag", 0),
    "hellaswag-10shot": Measure("hellaswag", 10),
    "LongBench-v2-0shot": Measure("longbench_v2", 0),
    "alpaca_eval_v2-total": Measure("alpaca_eval", 0, "win_rate"),
    "mtbench-total": Measure("mt_bench", 0, JUDGE),
    **{f"mtbench-{part}": Measure(f"mt_bench/{part}", 0, JUDGE) for part in MT_BENCH},
}
KEY = ("model_name", "data_name", "lora", "epoch", "data_size", "lr_strategy")


class TableFormatError(ValueError):
    """A table that is not what its declared format says."""


def opened(path: Path, null_values: list[str] | None = None) -> pl.DataFrame:
    """A file's rows; those of a CSV as text.

    Raises:
        TableFormatError: it is no table, or one without rows; names the line of a CSV that is too long.
    """
    try:
        if path.suffix == ".parquet":
            frame = pl.read_parquet(path)
        else:
            frame = pl.read_csv(path, infer_schema=False, null_values=null_values)
    except pl.exceptions.PolarsError as error:
        raise TableFormatError(f"{path}: {_too_long(path) or str(error).splitlines()[0]}") from None
    if frame.is_empty():
        raise TableFormatError(f"{path}: found a header and no row; expected a row for each cell")
    return frame


def _too_long(path: Path) -> str:
    """The first line of a CSV that has more values than its header, or nothing."""
    with path.open(newline="", encoding="utf-8", errors="replace") as file:
        rows = csv.reader(file)
        header = next(rows, [])
        for row in rows:
            if len(row) > len(header):
                return (
                    f"line {rows.line_num}: found {len(row)} values, expected {len(header)} as in the header; "
                    "put a value that holds a comma in quotes"
                )
    return ""


def read(path: Path) -> tuple[pl.DataFrame, list[dict[str, Any]]]:
    """Long rows of the released table, and what was found in each of its columns.

    Raises:
        TableFormatError: a column is missing or unknown, or a value is no number; names it.
    """
    wide = opened(path, null_values=["", "None", "nan", "NaN"])
    wide = wide.rename({wide.columns[0]: "row"}) if wide.columns[0] in ("", "_duplicated_0") else wide
    expected = {*KEY, *COLUMNS}
    if missing := sorted(expected - set(wide.columns)):
        raise TableFormatError(f"{path}: column {', '.join(missing)} is missing; is it the released table?")
    if unknown := sorted(set(wide.columns) - expected - {"row"}):
        raise TableFormatError(
            f"{path}: column {', '.join(unknown)} is unknown; expected {', '.join(sorted(expected))}"
        )
    cells = pl.DataFrame([_cell(row, path) for row in wide.select(KEY).iter_rows(named=True)], schema=CELL_SCHEMA)
    parts, found = [], []
    for name, measure in COLUMNS.items():
        try:
            values = wide[name].cast(pl.Float64)
        except pl.exceptions.InvalidOperationError:
            raise TableFormatError(f"{path}: column {name} holds what is no number; expected a score") from None
        unit, factor = _unit(values, measure)
        parts.append(
            cells.with_columns(
                benchmark=pl.lit(measure.benchmark),
                shots=pl.lit(measure.shots, pl.Int64),
                metric=pl.lit(measure.metric),
                # division keeps 7.39 / 100 the double nearest to 0.0739
                score=values / factor,
            )
        )
        known = values.drop_nulls()
        found.append(
            {
                **{"column": name, "benchmark": measure.benchmark, "shots": measure.shots, "metric": measure.metric},
                **{"unit": unit, "factor": 1 / factor, "values": len(known)},
                **{"least": known.min(), "greatest": known.max()},
            }
        )
    return pl.concat(parts), found


CELL_SCHEMA = {
    "base": pl.String,
    "sample": pl.String,
    "recipe": pl.String,
    "seed": pl.Int64,
    "epoch": pl.Int64,
    "dataset": pl.String,
    "held_out": pl.String,
    "size": pl.Int64,
    "method": pl.String,
    "schedule": pl.String,
}


def _unit(values: pl.Series, measure: Measure) -> tuple[str, float]:
    """The unit of a column, and what its values are divided by."""
    if measure.metric == JUDGE:
        return "points 1..10", 1.0
    known = values.drop_nulls()
    fraction = len(known) > 0 and bool((known <= 1).all()) and bool(((known > 0) & (known < 1)).any())
    return ("fraction", 1.0) if fraction else ("percent", 100.0)


def _cell(row: dict[str, str | None], path: Path) -> dict[str, Any]:
    """The cell of a row, under the names of the declared matrix."""
    data, base = row["data_name"], row["model_name"]
    if data == "pretrain":
        return {"base": base, "epoch": 0}
    try:
        size, epoch = int(float(row["data_size"] or "")), int(row["epoch"] or "")
        method = {"true": "lora", "false": "full"}[(row["lora"] or "").lower()]
    except (ValueError, KeyError):
        raise TableFormatError(f"{path}: the row {dict(row)} lacks a size, an epoch or a method") from None
    held_out = data.removeprefix("w/o-") if data and data.startswith("w/o-") else None
    if held_out:
        sample = dataset = f"without-{held_out}"
    elif data == "all":
        sample = dataset = "all"
    else:
        sample, dataset = f"{data}-{size // 1000}k", str(data)
    return {
        **{"base": base, "sample": sample, "recipe": f"{method}-{row['lr_strategy']}", "seed": 0, "epoch": epoch},
        **{"dataset": dataset, "held_out": held_out, "size": size, "method": method, "schedule": row["lr_strategy"]},
    }
