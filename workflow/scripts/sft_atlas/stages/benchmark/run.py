"""Stage *prepare* for benchmarks: whatever the layout of the source, items of one schema.

An item is an instruction with either choices and the index of the right one (multiple choice), or the answers that
count as right (generation); an item without either is generated for and not scored.
"""

import re
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import polars as pl

from sft_atlas.data.examples import fewest_examples
from sft_atlas.data.formats import text
from sft_atlas.data.sources import Row, read_rows, source_files
from sft_atlas.errors import DataError
from sft_atlas.files import write_record, write_table
from sft_atlas.micro.config import MicroBenchmark
from sft_atlas.stages.benchmark.spec import Spec

SCHEMA: dict[str, Any] = {
    "item": pl.String,
    "instruction": pl.String,
    "choices": pl.List(pl.String),
    "gold": pl.Int64,
    "answers": pl.List(pl.String),
    "example": pl.String,
    "group": pl.String,
}
LETTERS = "ABCDEFGHIJ"


@dataclass(frozen=True)
class Item:
    """One question of a benchmark.

    `example` is the completion shown when it serves as a worked example for questions of the same `group` (subject).
    """

    instruction: str
    choices: list[str] | None = None
    gold: int | None = None
    answers: list[str] | None = None
    example: str = ""
    group: str = ""


@dataclass(frozen=True)
class Layout:
    """How a format is read and how answers to it are compared."""

    read: Callable[[Row], Item]
    # the last match in a generation is the answer; none: the whole generation, stripped
    pattern: str | None = None
    compare: str = "equal"


def run(spec: Spec, root: Path) -> None:
    """Write `items.parquet` and, if declared, `examples.parquet` (schema `SCHEMA`), and a manifest.

    Raises:
        DataError: an item cannot be read, there is none, multiple choice and generation are mixed, or there are fewer
            worked examples than the study asks for.
    """
    output, identity = root / spec.output, spec.identity
    sources = list(spec.sources)
    examples = [sources.pop()] if identity.examples and identity.examples.content else []
    if identity.source.micro:
        items = list(_generated(identity.source.micro))
    else:
        items = list(_items(source_files(identity.source.hub, sources), identity.format))
    items = items[: identity.limit]
    kinds = {"multiple_choice" if item.choices else "generation" for _, item in items}
    if len(kinds) != 1:
        raise DataError(f"{spec.output}: expected items of one kind, found {', '.join(sorted(kinds)) or 'no item'}")
    paths = [_write(output.with_name("items.parquet"), items)]
    facts = {}
    if identity.examples:
        shown = list(_items(source_files(identity.examples.hub, examples), identity.format))
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
        scored=all(item.choices or item.answers for _, item in items),
        pattern=layout.pattern,
        compare=layout.compare,
        **facts,
    )


def _items(files: list[Path], format_name: str) -> Iterator[tuple[str, Item]]:
    for row_id, row in read_rows(files):
        try:
            yield row_id, LAYOUTS[format_name].read(row)
        except DataError as error:
            raise DataError(f"{row_id}: {error} (format {format_name})") from None


def _write(path: Path, items: list[tuple[str, Item]]) -> Path:
    rows = [(row_id, i.instruction, i.choices, i.gold, i.answers, i.example, i.group) for row_id, i in items]
    write_table(path, pl.DataFrame(rows, schema=SCHEMA, orient="row"))
    return path


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
    if not isinstance(choices, list) or not all(isinstance(choice, str) for choice in choices):
        raise DataError(f"column 'choices': found {str(choices)[:60]!r}, expected a list of texts")
    if answer not in choices:
        raise DataError(f"column 'answer': found {answer!r}, expected one of the choices {choices}")
    return Item(text(row, "instruction"), list(choices), choices.index(answer), example=answer)


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
    choices, answer = row.get("choices"), row.get("answer")
    if not isinstance(choices, list) or not isinstance(answer, int) or isinstance(answer, bool):
        raise DataError("expected 'choices' as a list and 'answer' as its index")
    return _choice(text(row, "question"), [str(choice) for choice in choices], answer, str(row.get("subject", "")))


def _cmmlu(row: Row) -> Item:
    letter = text(row, "Answer").strip()
    if letter not in ("A", "B", "C", "D"):
        raise DataError(f"column 'Answer': found {letter!r}, expected A, B, C or D")
    subject = str(row.get("_config", row.get("Subject", "")))
    return _choice(text(row, "Question"), [text(row, name) for name in "ABCD"], "ABCD".index(letter), subject)


def _hellaswag(row: Row) -> Item:
    endings, label = row.get("endings"), str(row.get("label", ""))
    if not isinstance(endings, list) or not label.isdigit():
        raise DataError("expected 'endings' as a list and 'label' as the number of the right one")
    return _choice(text(row, "ctx"), [str(ending) for ending in endings], int(label))


def _boolq(row: Row) -> Item:
    answer = row.get("answer")
    if not isinstance(answer, bool):
        raise DataError(f"column 'answer': found {answer!r}, expected true or false")
    words = ["yes", "no"]
    return Item(
        f"{text(row, 'passage')}\n{text(row, 'question')}?", words, 0 if answer else 1, example=words[not answer]
    )


def _mbpp(row: Row) -> Item:
    """Tests are shown, as the benchmark does; the code is generated and kept, and not run here."""
    tests = row.get("test_list")
    if not isinstance(tests, list):
        raise DataError(f"column 'test_list': found {type(tests).__name__}, expected a list of assertions")
    problem = row.get("text", row.get("prompt"))
    shown = "\n".join(map(str, tests))
    return Item(f"{text({'text': problem}, 'text')}\n{shown}", example=text(row, "code"))


def _humaneval(row: Row) -> Item:
    """The head of a function is to be completed; the code is generated and kept, and not run here."""
    return Item(text(row, "prompt"), example=text(row, "canonical_solution"))


def _truthfulqa(row: Row) -> Item:
    answers = row.get("correct_answers")
    if not isinstance(answers, list) or not answers:
        raise DataError("column 'correct_answers': expected a list of answers")
    return Item(text(row, "question"), answers=[str(a) for a in answers], example=text(row, "best_answer"))


def _mt_bench(row: Row) -> Item:
    """The first turn only; a judge is needed to score it."""
    turns = row.get("turns", row.get("prompt"))
    if not isinstance(turns, list) or not turns:
        raise DataError("column 'turns': expected a list of user turns")
    return Item(str(turns[0]), group=str(row.get("category", "")))


def _alpaca_eval(row: Row) -> Item:
    """A judge is needed to score it."""
    return Item(text(row, "instruction"), example=str(row.get("output", "")))


def _nq(row: Row) -> Item:
    answers = row.get("answer")
    if not isinstance(answers, list) or not answers:
        raise DataError("column 'answer': expected a list of accepted answers")
    return Item(f"{text(row, 'question')}?", answers=[str(a) for a in answers], example=str(answers[0]))


def _generated(declared: MicroBenchmark) -> Iterator[tuple[str, Item]]:
    from sft_atlas.micro.questions import items

    for number, item in enumerate(items(declared.topic, declared.items, declared.seed), 1):
        gold = item.choices.index(item.answer) if item.choices else None
        answers = None if item.choices else [item.answer]
        yield f"{declared.topic}:{number}", Item(item.instruction, item.choices, gold, answers, item.answer)


NUMBER = r"-?[0-9][0-9,]*(?:\.[0-9]+)?"
LAYOUTS = {
    "items": Layout(_items_format),
    "gsm8k": Layout(_gsm8k, pattern=NUMBER, compare="number"),
    "math": Layout(_math, compare="boxed"),
    "mmlu": Layout(_mmlu),
    "cmmlu": Layout(_cmmlu),
    "boolq": Layout(_boolq),
    "mbpp": Layout(_mbpp),
    "nq": Layout(_nq, compare="contains"),
    "hellaswag": Layout(_hellaswag),
    "truthfulqa": Layout(_truthfulqa, compare="bleu"),
    "humaneval": Layout(_humaneval),
    "mt_bench": Layout(_mt_bench),
    "alpaca_eval": Layout(_alpaca_eval),
}
