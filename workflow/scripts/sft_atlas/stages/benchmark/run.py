"""Stage *prepare* for benchmarks: whatever the layout of the source, items of one schema.

An item is an instruction with either choices and the index of the right one (multiple choice), or the answers that
count as right (generation); an item without either is generated for and not scored. Texts are treated as those of
training rows are (data/cleaning.py), so that a worked example is what a training row of the same text would be.
"""

import json
import re
from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import polars as pl

from sft_atlas.data.cleaning import block
from sft_atlas.data.examples import fewest_examples
from sft_atlas.data.formats import text, texts
from sft_atlas.data.sources import Row, SourceFile, folders, read_rows, refuse_twice, source_files
from sft_atlas.errors import DataError
from sft_atlas.files import write_record, write_table
from sft_atlas.micro.declared import MicroBenchmark
from sft_atlas.stages.benchmark.spec import Spec

SCHEMA: dict[str, Any] = {
    "item": pl.String,
    "instruction": pl.String,
    "choices": pl.List(pl.String),
    "gold": pl.Int64,
    "answers": pl.List(pl.String),
    "example": pl.String,
    "group": pl.String,
    "details": pl.String,
}
LETTERS = "ABCDEFGHIJ"


@dataclass(frozen=True)
class Item:
    """One question of a benchmark.

    `example` is the completion shown when it serves as a worked example for questions of the same `group` (subject).
    `details` are what a prompt does not show and a judge or a test run needs: tests, wrong answers, later turns.
    """

    instruction: str
    choices: list[str] | None = None
    gold: int | None = None
    answers: list[str] | None = None
    example: str = ""
    group: str = ""
    details: dict[str, Any] | None = None


@dataclass(frozen=True)
class Layout:
    """How a format is read and how answers to it are compared."""

    read: Callable[[Row], Item]
    # the last match in a generation is the answer; none: the whole generation, stripped
    pattern: str | None = None
    compare: str = "equal"
    # the subject of an item stands in its file's path where the row has none
    subject_in_path: bool = False


def run(spec: Spec, root: Path) -> None:
    """Write `items.parquet` and, if declared, `examples.parquet` (schema `SCHEMA`), and a manifest.

    Raises:
        DataError: an item cannot be read, there is none, two have one id, there are others than the study expects,
            multiple choice and generation are mixed, or there are fewer worked examples than the study asks for.
    """
    output, identity = root / spec.output, spec.identity
    sources = list(spec.sources)
    examples = [sources.pop()] if identity.examples and identity.examples.content else []
    if identity.source.micro:
        items = list(_generated(identity.source.micro))
    else:
        items = list(_items(source_files(identity.source.hub, sources), identity.format))
    refuse_twice((item for item, _ in items), spec.output, "item")
    found = len(items)
    expected = spec.labels.expected_items
    if expected is not None and found != expected:
        raise DataError(
            f"{spec.output}: the source holds {found} items, `expected_items` of the benchmark says {expected}; "
            "correct `files` (does a pattern match twice?) or the revision, or the number"
        )
    items = items[: identity.limit]
    kinds = {"multiple_choice" if item.choices else "generation" for _, item in items}
    if len(kinds) != 1:
        raise DataError(f"{spec.output}: expected items of one kind, found {', '.join(sorted(kinds)) or 'no item'}")
    paths = [_write(output.with_name("items.parquet"), items)]
    facts = {}
    if identity.examples:
        shown = list(_items(source_files(identity.examples.hub, examples), identity.format))
        refuse_twice((example for example, _ in shown), spec.output, "worked example")
        keep = spec.labels.own_example == "keep"
        asked_of, asked_in = ([(item.group, item.instruction) for _, item in rows] for rows in (items, shown))
        facts["worked_examples"] = fewest = fewest_examples(asked_of, asked_in, keep)
        asked = spec.labels.shots
        if asked > fewest:
            raise DataError(
                f"{spec.output}: `shots` asks for {asked} worked examples, found {fewest} that fit every item"
                f"{'' if keep else ', itself left out'}; "
                "lower `shots` of the benchmark, or add examples to its `shots_path` or `shots_hub`"
            )
        paths.append(_write(output.with_name("examples.parquet"), shown))
    layout = LAYOUTS[identity.format]
    write_record(
        output,
        {"spec": spec.hash},
        paths,
        kind=kinds.pop(),
        items=len(items),
        in_source=found,
        scored=all(item.choices or item.answers for _, item in items),
        pattern=layout.pattern,
        compare=layout.compare,
        **facts,
    )


def _items(files: list[SourceFile], format_name: str) -> Iterator[tuple[str, Item]]:
    layout = LAYOUTS[format_name]
    for row_id, row in read_rows(files):
        try:
            item = layout.read(row)
        except DataError as error:
            raise DataError(f"{row_id}: {error} (format {format_name})") from None
        subject = "" if item.group or not layout.subject_in_path else _subject(row_id)
        yield (
            row_id,
            replace(
                item,
                instruction=item.instruction.strip(),
                example=block(item.example),
                group=item.group or subject,
            ),
        )


# parts of a path that name a split or a shard
NO_SUBJECT = re.compile(r"(test|dev|val|validation|train)(-\d+-of-\d+)?|\d+|.*\.zip")


def _subject(row_id: str) -> str:
    """The subject that a path within a source names, as `law/test/0.csv` and `test/law.csv`; none without folders."""
    parts = folders(row_id)
    named = [part for part in parts if not NO_SUBJECT.fullmatch(part)]
    return named[-1] if named and len(parts) > 1 else ""


def _write(path: Path, items: list[tuple[str, Item]]) -> Path:
    rows = [
        (row_id, i.instruction, i.choices, i.gold, i.answers, i.example, i.group, _as_json(i.details))
        for row_id, i in items
    ]
    write_table(path, pl.DataFrame(rows, schema=SCHEMA, orient="row"))
    return path


def _as_json(details: dict[str, Any] | None) -> str | None:
    return None if details is None else json.dumps(details, sort_keys=True, ensure_ascii=False)


def _choice(instruction: str, options: list[str], gold: int, group: str = "") -> Item:
    """Options are shown with letters and the letter is the answer, as in the published study's prompts."""
    if not 0 <= gold < len(options):
        raise DataError(f"the answer is option {gold}, but there are {len(options)}")
    if len(options) > len(LETTERS):
        raise DataError(f"found {len(options)} options, expected at most {len(LETTERS)}")
    letters = list(LETTERS[: len(options)])
    shown = "\n".join(f"{letter}. {option}" for letter, option in zip(letters, options, strict=True))
    return Item(f"{instruction}\n{shown}", letters, gold, example=letters[gold], group=group)


def _items_format(row: Row) -> Item:
    answer, choices = text(row, "answer"), row.get("choices")
    if choices is None or choices == []:
        return Item(text(row, "instruction"), answers=[answer], example=answer)
    choices = texts(row, "choices")
    if choices.count(answer) != 1:
        raise DataError(
            f"column 'answer': found {answer!r}, expected one of the choices {choices}, standing there once"
        )
    return Item(text(row, "instruction"), choices, choices.index(answer), example=answer)


def _gsm8k(row: Row) -> Item:
    solution = text(row, "answer")
    if "####" not in solution:
        raise DataError("column 'answer': found no '#### NUMBER' at its end")
    return Item(
        text(row, "question"), answers=[solution.rpartition("####")[2].strip().replace(",", "")], example=solution
    )


def _math(row: Row) -> Item:
    solution = text(row, "solution")
    answer = boxed(solution)
    if answer is None:
        raise DataError("column 'solution': found no \\boxed{…}")
    return Item(text(row, "problem"), answers=[answer], example=solution)


def boxed(solution: str) -> str | None:
    """The content of the last `\\boxed{…}`, braces balanced; None if there is none."""
    start = max(solution.rfind("\\boxed{"), solution.rfind("\\fbox{"))
    if start < 0:
        plain = re.findall(r"\\boxed\s+(\S+?)[.$]*(?:\s|$)", solution)
        return plain[-1] if plain else None
    depth, begin = 0, solution.index("{", start)
    for position in range(begin, len(solution)):
        depth += {"{": 1, "}": -1}.get(solution[position], 0)
        if depth == 0:
            return solution[begin + 1 : position]
    return None


def _mmlu(row: Row) -> Item:
    answer = row.get("answer")
    if not isinstance(answer, int) or isinstance(answer, bool):
        raise DataError(f"column 'answer': found {answer!r}; expected 'choices' as a list and 'answer' as its index")
    return _choice(text(row, "question"), texts(row, "choices"), answer, str(row.get("subject") or ""))


def _cmmlu(row: Row) -> Item:
    letter = text(row, "Answer").strip()
    if letter not in ("A", "B", "C", "D"):
        raise DataError(f"column 'Answer': found {letter!r}, expected A, B, C or D")
    subject = str(row.get("Subject") or "")
    return _choice(text(row, "Question"), [text(row, name) for name in "ABCD"], "ABCD".index(letter), subject)


def _hellaswag(row: Row) -> Item:
    label = str(row.get("label", ""))
    if not label.isdigit():
        raise DataError(f"column 'label': found {label!r}, expected the number of the right one of 'endings'")
    return _choice(text(row, "ctx"), texts(row, "endings"), int(label))


def _boolq(row: Row) -> Item:
    answer = row.get("answer")
    if not isinstance(answer, bool):
        raise DataError(f"column 'answer': found {answer!r}, expected true or false")
    words = ["yes", "no"]
    asked = f"{text(row, 'passage')}\n{_question(row)}"
    return Item(asked, words, 0 if answer else 1, example=words[not answer])


def _question(row: Row) -> str:
    """These sets write questions without their mark; the few that have one keep it."""
    question = text(row, "question").rstrip()
    return question if question.endswith("?") else f"{question}?"


def _mbpp(row: Row) -> Item:
    """Tests are shown, as the benchmark does; the code is generated and kept, and not run here."""
    tests = texts(row, "test_list")
    problem = text({"text": row.get("text", row.get("prompt"))}, "text")
    imports = texts(row, "test_imports") if row.get("test_imports") else []
    # the full set has a text in their place
    imports += [text(row, "test_setup_code")] if row.get("test_setup_code") else []
    details = {"test_list": tests, "test_imports": imports}
    return Item("\n".join([problem, *tests]), example=text(row, "code"), details=details)


def _humaneval(row: Row) -> Item:
    """The head of a function is to be completed; the code is generated and kept, and not run here."""
    details: dict[str, Any] = {name: text(row, name) for name in ("prompt", "test", "entry_point") if name in row}
    return Item(text(row, "prompt"), example=text(row, "canonical_solution"), details=details)


def _truthfulqa(row: Row) -> Item:
    wrong = {"incorrect_answers": texts(row, "incorrect_answers")} if row.get("incorrect_answers") else None
    answers, best = texts(row, "correct_answers"), text(row, "best_answer")
    return Item(text(row, "question"), answers=answers, example=best, details=wrong)


def _mt_bench(row: Row) -> Item:
    """The first turn only; a judge is needed to score it."""
    turns = texts({"turns": row.get("turns", row.get("prompt"))}, "turns")
    reference = texts(row, "reference") if row.get("reference") else []
    return Item(turns[0], group=str(row.get("category") or ""), details={"turns": turns, "reference": reference})


def _alpaca_eval(row: Row) -> Item:
    """A judge is needed to score it."""
    return Item(text(row, "instruction"), example=text(row, "output") if row.get("output") is not None else "")


def _nq(row: Row) -> Item:
    answers = texts(row, "answer")
    return Item(_question(row), answers=answers, example=answers[0])


def _generated(declared: MicroBenchmark) -> Iterator[tuple[str, Item]]:
    from sft_atlas.micro.questions import items

    for number, item in enumerate(items(declared.topic, declared.items, declared.seed), 1):
        gold = item.choices.index(item.answer) if item.choices else None
        answers = None if item.choices else [item.answer]
        yield f"{declared.topic}:{number}", Item(item.instruction, item.choices, gold, answers, item.answer)


# a minus between two numbers takes one from the other: "10-3" ends in 3
NUMBER = r"(?:(?<![\w.)\]])-)?[0-9][0-9,]*(?:\.[0-9]+)?"
LAYOUTS = {
    "items": Layout(_items_format),
    "gsm8k": Layout(_gsm8k, pattern=NUMBER, compare="number"),
    "math": Layout(_math, compare="boxed"),
    "mmlu": Layout(_mmlu),
    "cmmlu": Layout(_cmmlu, subject_in_path=True),
    "boolq": Layout(_boolq),
    "mbpp": Layout(_mbpp),
    "nq": Layout(_nq, compare="contains"),
    "hellaswag": Layout(_hellaswag),
    "truthfulqa": Layout(_truthfulqa, compare="bleu"),
    "humaneval": Layout(_humaneval),
    "mt_bench": Layout(_mt_bench),
    "alpaca_eval": Layout(_alpaca_eval),
}
