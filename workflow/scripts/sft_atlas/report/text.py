"""Numbers and findings in words."""

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    import polars as pl

PREDICTORS = {
    "log_perplexity": "perplexity of the completions",
    "log_perplexity_full": "perplexity of prompts and completions",
    "mean_tokens": "length in tokens",
    "similarity": "similarity to the benchmark",
    "embedding_similarity": "similarity to the benchmark in meaning",
}
SCOPES = {
    "pooled": "over all cells",
    "within_base": "between datasets, on one base and benchmark",
    "within_dataset": "between bases, on one dataset and benchmark",
    "within_run": "between benchmarks, in one run",
}
TARGETS = {"mean_gain": "gain over all benchmarks", "matched_gain": "gain on matched benchmarks"}
LAYER_SCOPES = {"pooled": "all runs", "within_base": "runs of one base, size and recipe"}
CLEAR_Q = 0.05
"""A relation counts as clear when its interval excludes zero and its q is below this."""
MINUS = "−"
JUDGED = ("judge_1_10",)
"""Metrics that are not fractions."""


def number(value: float | None, digits: int = 2) -> str:
    """A number with a real minus sign; a dash where unknown."""
    if value is None:
        return "–"
    text = f"{value:.{digits}f}"
    return (text[1:] if float(text) == 0 else text.replace("-", MINUS)) if text.startswith("-") else text


def points(gain: float | None, digits: int = 1) -> str:
    """A gain in percentage points, with its sign; a dash where unknown."""
    if gain is None:
        return "–"
    text = number(100 * gain, digits)
    return text if text.startswith(MINUS) or float(text) == 0 else f"+{text}"


def interval(low: float | None, high: float | None, form: Any = number) -> str:
    """`[low, high]`, or that there is none."""
    return "[no interval: too few]" if low is None or high is None else f"[{form(low)}, {form(high)}]"


def spans_zero(row: Mapping[str, Any]) -> bool:
    """Whether an estimate's sign is open: its interval holds zero, or there is none."""
    return row["ci_low"] is None or row["ci_high"] is None or row["ci_low"] <= 0 <= row["ci_high"]


def is_clear(row: Mapping[str, Any]) -> bool:
    """Whether a correlation is clear: interval without zero and q below CLEAR_Q."""
    return not spans_zero(row) and row["q"] is not None and row["q"] < CLEAR_Q


def probability(value: float | None) -> str:
    """A probability, small ones as a bound."""
    if value is None:
        return "unknown"
    return "< 0.001" if value < 0.001 else f"= {value:.3f}" if value < 0.1 else f"= {value:.2f}"


def correlation(row: Mapping[str, Any]) -> str:
    """Coefficient, interval, q and n of a correlation."""
    return (
        f"ρ = {number(row['coefficient'])} {interval(row['ci_low'], row['ci_high'])}, q {probability(row['q'])}, "
        f"n = {count(row['n_cells'], 'cell')} from {count(row['n_runs'], 'run')}"
    )


NEARLY = 0.05
"""An end of a correlation's interval so near zero decides nothing: the relation is borderline."""


def is_borderline(row: Mapping[str, Any]) -> bool:
    """Whether a correlation is on the border of clear: interval and q disagree, or an end lies near zero."""
    if row["ci_low"] is None or row["ci_high"] is None or is_clear(row):
        return False
    nearest = row["ci_high"] if row["coefficient"] < 0 else row["ci_low"]
    return not spans_zero(row) or (row["q"] is not None and row["q"] < CLEAR_Q) or abs(nearest) < NEARLY


def relation(row: Mapping[str, Any], what: str) -> str:
    """What a correlation says, in words: it rises, falls, is borderline, or is not clear."""
    direction = "rises" if row["coefficient"] > 0 else "falls"
    if is_clear(row):
        return f"gain {direction} with {what}"
    if is_borderline(row):
        return f"borderline, no more than a hint that gain {direction} with {what}"
    return f"no clear relation of gain with {what}"


def count(number_of: int, noun: str) -> str:
    """`1 run`, `2 runs`, `1,000 runs`."""
    return f"{number_of:,} {noun}{'' if number_of == 1 else 's'}"


def sentence(text: str) -> str:
    """The text with a capital first letter and a full stop."""
    return f"{text[:1].upper()}{text[1:].rstrip('.')}."


def mean(values: "pl.Series") -> float | None:
    """The mean of a column of numbers; None without any."""
    known = values.drop_nulls()
    return float(known.to_numpy().mean()) if len(known) else None
