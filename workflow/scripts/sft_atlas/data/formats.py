"""The layouts of training rows: each format turns a row into instruction, input and completion.

A format is a function `(row) -> Example | None`; None drops the row for a reason the format documents. What a row lacks
or has in the wrong type raises, because a silently dropped row changes the study.
"""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from sft_atlas.data.cleaning import plain_lines
from sft_atlas.data.sources import Row
from sft_atlas.errors import DataError


@dataclass(frozen=True)
class Example:
    """One training example in the study's own terms; `system` and `later` turns of its row are no part of it."""

    instruction: str
    completion: str
    extra: str = ""
    system: str = ""
    later: tuple[str, ...] = ()


@dataclass(frozen=True)
class Options:
    """What a dataset declares about its format."""

    columns: dict[str, str]
    turns: str


def normalise(format_name: str, row: Row, options: Options) -> Example | None:
    """One row as an example, or None if the format leaves such rows out (counted as `format`).

    Raises:
        DataError: a column is missing or holds another type than the format says.
    """
    return FORMATS[format_name](row, options)


def text(row: Row, column: str) -> str:
    """A column's text, its line ends plain (see `plain_lines`).

    Raises:
        DataError: the column is missing, or is no text.
    """
    if column not in row:
        raise DataError(f"column '{column}' is missing; found {', '.join(sorted(map(str, row))) or 'no columns'}")
    return _checked(row[column], column)


def texts(row: Row, column: str) -> list[str]:
    """A column's list of texts, at least one.

    Raises:
        DataError: the column is missing, is no list, or one of the list is no text: a null is no choice, nor an answer.
    """
    values = row.get(column)
    if not isinstance(values, list) or not values:
        raise DataError(f"column '{column}': found {str(values)[:60]!r}, expected a list of texts")
    return [_checked(value, f"{column}[{number}]") for number, value in enumerate(values)]


def _checked(value: Any, column: str) -> str:
    if not isinstance(value, str):
        raise DataError(f"column '{column}': found {type(value).__name__} ({str(value)[:60]!r}), expected text")
    try:
        value.encode()
    except UnicodeEncodeError as error:
        raise DataError(f"column '{column}': character {error.start} is half of a surrogate pair, not text") from None
    return plain_lines(value)


def _alpaca(row: Row, _: Options) -> Example:
    extra = text(row, "input") if row.get("input") is not None else ""
    return Example(text(row, "instruction"), text(row, "output"), extra)


def _prompt_completion(row: Row, _: Options) -> Example:
    return Example(text(row, "prompt"), text(row, "completion"))


def _columns(row: Row, options: Options) -> Example:
    column = options.columns.get("input")
    extra = "" if column is None or row.get(column, "") is None else text(row, column)
    return Example(text(row, options.columns["instruction"]), text(row, options.columns["completion"]), extra)


def _flan(row: Row, _: Options) -> Example:
    return Example(text(row, "inputs"), text(row, "targets"))


def _openmath(row: Row, _: Options) -> Example | None:
    """Wrong solutions are left out: the set holds 1.8 million correct and 4 million wrong ones, correct ones first."""
    correct = row.get("is_correct")
    if not isinstance(correct, bool):
        raise DataError(f"column 'is_correct': found {correct!r}, expected true or false")
    return Example(text(row, "question"), text(row, "generated_solution")) if correct else None


def _messages(row: Row, options: Options) -> Example | None:
    messages = _list(row, "messages")
    system = "\n".join(text(message, "content") for message in messages if _role(message) == "system")
    turns = [message for message in messages if _role(message) != "system"]
    for expected, message in zip(("user", "assistant"), turns, strict=False):
        if _role(message) != expected:
            raise DataError(f"column 'messages': found a turn of '{_role(message)}', expected one of '{expected}'")
    return _dialogue([text(message, "content") for message in turns], options, system)


def _conversations(row: Row, options: Options) -> Example | None:
    turns = _list(row, "conversations")
    return _dialogue([text({"conversations": turn}, "conversations") for turn in turns], options)


def _dialogue(turns: list[str], options: Options, system: str = "") -> Example | None:
    if len(turns) < 2:
        raise DataError(f"a dialogue of {len(turns)} turns; expected a question and an answer at least")
    if options.turns == "single" and len(turns) > 2:
        return None
    return Example(turns[0], turns[1], system=system, later=tuple(turns[2:]))


def _list(row: Row, column: str) -> list[Any]:
    value = row.get(column)
    if not isinstance(value, list):
        raise DataError(f"column '{column}': found {type(value).__name__}, expected a list of turns")
    return value


def _role(message: Any) -> str:
    if not isinstance(message, dict):
        raise DataError(f"column 'messages': found a {type(message).__name__}, expected objects with role and content")
    return text(message, "role")


FORMATS: dict[str, Callable[[Row, Options], Example | None]] = {
    "alpaca": _alpaca,
    "prompt_completion": _prompt_completion,
    "columns": _columns,
    "flan": _flan,
    "openmath": _openmath,
    "messages": _messages,
    "conversations": _conversations,
}
