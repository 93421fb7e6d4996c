"""Tables of the report's page: which columns are shown, under which heading, and how numbers are written."""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import polars as pl

from sft_atlas.report import say
from sft_atlas.report.results import Results

MOST_ROWS = 300
"""Rows shown on the page; the rest is in the CSV file."""


@dataclass(frozen=True)
class HtmlTable:
    """A table ready to be shown: strings only, still to be escaped."""

    title: str
    source: str
    columns: list[str]
    numeric: list[bool]
    rows: list[list[str]]
    total: int
    note: str = ""


Format = Callable[[Any], str]


def _plain(value: Any) -> str:
    return "–" if value is None else f"{value:,}" if isinstance(value, int) else str(value)


def _two(value: float | None) -> str:
    return say.number(value, 2)


def _p(value: float | None) -> str:
    return "< 0.001" if value is not None and value < 0.001 else say.number(value, 3)


def _three(value: float | None) -> str:
    return say.number(value, 3)


def _one(value: float | None) -> str:
    return "–" if value is None else f"{value:,.1f}"


def _all(value: Any) -> str:
    return "all" if value is None else _plain(value)


def _seed(value: int | None) -> str:
    return "–" if value is None else str(value)


def _table(
    title: str, source: str, frame: pl.DataFrame, columns: dict[str, tuple[str, Format]], note: str = ""
) -> HtmlTable:
    """Rows of `frame` as text; `columns` maps a column to its heading and format."""
    shown = frame.select(list(columns)).head(MOST_ROWS)
    rows = [[form(row[name]) for name, (_, form) in columns.items()] for row in shown.iter_rows(named=True)]
    numeric = [frame.schema[name].is_numeric() for name in columns]
    return HtmlTable(title, source, [heading for heading, _ in columns.values()], numeric, rows, frame.height, note)


def gain_matrix(results: Results) -> HtmlTable:
    """Mean gains of datasets (rows) on benchmarks (columns), with interval and n."""
    rows = results.shown("mean")
    cells = {(r["dataset"], r["benchmark"], r["shots"], r["metric"]): r for r in rows.iter_rows(named=True)}
    body = []
    for dataset in results.datasets:
        line = [dataset]
        for measure in results.measures:
            row = cells.get((dataset, *measure))
            line.append("–" if row is None else _gain(row))
        body.append(line)
    headings = ["dataset", *(results.labels[m] for m in results.measures)]
    setting = f"training{results.setting.label or ' of any kind'}, another size where a dataset lacks this one"
    return HtmlTable(
        "Mean gain over bases, in points, with interval and number of bases",
        "effects",
        headings,
        [False] + [True] * len(results.measures),
        body if not rows.is_empty() else [],
        len(body) if not rows.is_empty() else 0,
        f"{setting}; * the data trains what is tested",
    )


def _gain(row: dict[str, Any]) -> str:
    """A cell of the gain matrix."""
    mark = "*" if row["matched"] else ""
    ends = "" if row["ci_low"] is None else f" {say.interval(row['ci_low'], row['ci_high'], say.points)}"
    return f"{say.points(row['gain'])}{mark}{ends} n={row['n_bases']}"


_TEST: dict[str, tuple[str, Format]] = {
    "coefficient": ("ρ", _two),
    "ci_low": ("from", _two),
    "ci_high": ("to", _two),
    "pearson": ("Pearson", _two),
    "p": ("p", _p),
    "q": ("q", _p),
}


def page_tables(results: Results) -> list[HtmlTable]:
    """All tables of the page, in order."""
    correlations = results["correlations"].with_columns(
        pl.col("predictor").replace(say.PREDICTORS), pl.col("scope").replace(say.SCOPES)
    )
    names: dict[str, tuple[str, Format]] = {
        "predictor": ("property", _plain),
        "scope": ("compared", _plain),
        "benchmark": ("benchmark", _all),
        "method": ("method", _all),
        "size": ("rows", _all),
    }
    counts: dict[str, tuple[str, Format]] = {
        "n_cells": ("cells", _plain),
        "n_runs": ("runs", _plain),
        "n_clusters": ("units", _plain),
    }
    order = ["benchmark", "method", "size", "predictor", "scope"]
    data = results["predictors"].drop("benchmark", "similarity", "embedding_similarity").unique(maintain_order=True)
    return [
        gain_matrix(results),
        _table(
            "Correlations of properties of the data with gain",
            "correlations",
            correlations.sort(order, nulls_last=False),
            names | _TEST | counts,
        ),
        _table(
            "Correlations of the change of layers with gain",
            "layer_correlations",
            results["layer_correlations"].with_columns(
                pl.col("target").replace(say.TARGETS), pl.col("scope").replace(say.LAYER_SCOPES)
            ),
            {
                "change": ("change", _plain),
                "target": ("gain", _plain),
                "scope": ("compared", _plain),
                "module": ("module", _plain),
                "method": ("method", _plain),
                "depth": ("depth", _two),
            }
            | _TEST
            | {name: counts[name] for name in ("n_runs", "n_clusters")},
        ),
        _table(
            "Properties of the training data",
            "predictors",
            data,
            {
                "base": ("base", _plain),
                "sample": ("sample", _plain),
                "size": ("rows", _plain),
                "perplexity": ("perplexity", _two),
                "perplexity_stderr": ("±", _two),
                "perplexity_full": ("with prompts", _two),
                "perplexity_full_stderr": ("± ", _two),
                "mean_tokens": ("mean tokens", _one),
                "mean_completion_tokens": ("in completion", _one),
            },
            "± is the standard error over rows; similarities are in the CSV file",
        ),
        _table(
            "Training samples",
            "samples",
            results["samples"],
            {
                "base": ("base (tokenizer)", _plain),
                "sample": ("sample", _plain),
                "rows": ("rows", _plain),
                "tokens": ("tokens", _plain),
                "trained_tokens": ("with loss", _plain),
                "mean_tokens": ("mean tokens", _one),
                "mean_completion_tokens": ("in completion", _one),
                "truncated": ("cut rows", _plain),
                "left_out_by_reason": ("left out before the draw and after, by reason", _plain),
                "shortened_by_reason": ("used without", _plain),
            },
        ),
        _table(
            "Training runs",
            "training",
            results["training"],
            {
                "base": ("base", _plain),
                "sample": ("sample", _plain),
                "recipe": ("recipe", _plain),
                "seed": ("seed", _seed),
                "run": ("run", _plain),
                "epochs": ("epochs", _plain),
                "steps": ("steps", _plain),
                "tokens": ("tokens with loss", _plain),
                "final_loss": ("final loss", _three),
            },
        ),
        _table(
            "Missing cells",
            "missing",
            results["missing"],
            {
                "base": ("base", _plain),
                "sample": ("sample", _plain),
                "recipe": ("recipe", _plain),
                "seed": ("seed", _seed),
                "epoch": ("epoch", _plain),
                "benchmark": ("benchmark", _all),
                "reason": ("reason", _plain),
            },
        ),
    ]
