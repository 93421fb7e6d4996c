"""Benchmark items of every layout, on real items, and the comparison of answers with them."""

import json
from pathlib import Path
from typing import Any

import polars as pl
import pytest

from sft_atlas.errors import DataError
from sft_atlas.files import read_json
from sft_atlas.stages.benchmark import run as benchmarks
from sft_atlas.stages.benchmark.run import LAYOUTS, Item, boxed
from sft_atlas.stages.evaluate.run import COMPARISONS, extract
from tests.unit.helpers import content, do

HELLASWAG = {"ctx": "He sits", "endings": ["down.", "up."], "label": "1"}
TRUTHFULQA = {"question": "Why?", "best_answer": "So.", "correct_answers": ["So.", "Because."]}
MMLU = {"question": "Which?", "choices": ["one", "two", "three"], "answer": 2}
CMMLU = {"Question": "哪个", "A": "一", "B": "二", "C": "三", "D": "四", "Answer": "B"}
MBPP = {"text": "Add.", "code": "def f(a):\r\n  return a", "test_list": ["assert f(1) == 1", "assert f(2) == 2"]}

ITEMS: dict[str, tuple[str, dict[str, Any], Item]] = {
    "items with choices": (
        "items",
        {"instruction": "Which?", "choices": ["a", "b"], "answer": "b"},
        Item("Which?", ["a", "b"], 1, example="b"),
    ),
    "items without choices": ("items", {"instruction": "1+1?", "answer": "2"}, Item("1+1?", None, None, ["2"], "2")),
    "items with null choices": (
        "items",
        {"instruction": "1+1?", "answer": "2", "choices": None},
        Item("1+1?", None, None, ["2"], "2"),
    ),
    "gsm8k": (
        "gsm8k",
        {"question": "How much?", "answer": "500*2=<<500*2=1000>>1000\n#### 1,000"},
        Item("How much?", None, None, ["1000"], "500*2=<<500*2=1000>>1000\n#### 1,000"),
    ),
    "math": (
        "math",
        {"problem": "$x$?", "solution": "So \\boxed{3}."},
        Item("$x$?", None, None, ["3"], "So \\boxed{3}."),
    ),
    "mmlu": ("mmlu", MMLU, Item("Which?\nA. one\nB. two\nC. three", ["A", "B", "C"], 2, example="C")),
    "cmmlu": ("cmmlu", CMMLU, Item("哪个\nA. 一\nB. 二\nC. 三\nD. 四", ["A", "B", "C", "D"], 1, example="B")),
    "boolq, yes": (
        "boolq",
        {"passage": "It is.", "question": "is it", "answer": True},
        Item("It is.\nis it?", ["yes", "no"], 0, example="yes"),
    ),
    "boolq, no": (
        "boolq",
        {"passage": "It is.", "question": "is it not", "answer": False},
        Item("It is.\nis it not?", ["yes", "no"], 1, example="no"),
    ),
    "mbpp": (
        "mbpp",
        {**MBPP, "test_setup_code": "import re\r\n"},
        Item(
            "Add.\nassert f(1) == 1\nassert f(2) == 2",
            example="def f(a):\n  return a",
            details={"test_list": MBPP["test_list"], "test_imports": ["import re\n"]},
        ),
    ),
    "mbpp, sanitized": (
        "mbpp",
        {"prompt": "Add.", "code": "x", "test_list": ["assert 1"], "test_imports": ["import math"]},
        Item("Add.\nassert 1", example="x", details={"test_list": ["assert 1"], "test_imports": ["import math"]}),
    ),
    "mmlu of a subject": (
        "mmlu",
        {**MMLU, "subject": "law"},
        Item("Which?\nA. one\nB. two\nC. three", ["A", "B", "C"], 2, example="C", group="law"),
    ),
    "cmmlu of a subject": (
        "cmmlu",
        {**CMMLU, "Subject": "law"},
        Item("哪个\nA. 一\nB. 二\nC. 三\nD. 四", ["A", "B", "C", "D"], 1, example="B", group="law"),
    ),
    "hellaswag": ("hellaswag", HELLASWAG, Item("He sits\nA. down.\nB. up.", ["A", "B"], 1, example="B")),
    "truthfulqa": ("truthfulqa", TRUTHFULQA, Item("Why?", answers=["So.", "Because."], example="So.")),
    "truthfulqa with wrong answers": (
        "truthfulqa",
        {**TRUTHFULQA, "incorrect_answers": ["No."]},
        Item("Why?", answers=["So.", "Because."], example="So.", details={"incorrect_answers": ["No."]}),
    ),
    "nq with its mark": ("nq", {"question": "who? ", "answer": ["He"]}, Item("who?", None, None, ["He"], "He")),
    "humaneval": (
        "humaneval",
        {"prompt": "def f():\n", "canonical_solution": "    return 1\n", "test": "t", "entry_point": "f"},
        Item(
            "def f():\n",
            example="    return 1\n",
            details={"prompt": "def f():\n", "test": "t", "entry_point": "f"},
        ),
    ),
    "mt_bench": (
        "mt_bench",
        {"turns": ["Write.", "Again."], "category": "writing", "reference": []},
        Item("Write.", group="writing", details={"turns": ["Write.", "Again."], "reference": []}),
    ),
    "alpaca_eval": ("alpaca_eval", {"instruction": "Do.", "output": "Done."}, Item("Do.", example="Done.")),
    "nq": ("nq", {"question": "who", "answer": ["He", "Him"]}, Item("who?", None, None, ["He", "Him"], "He")),
}


@pytest.mark.parametrize(("layout", "row", "item"), ITEMS.values(), ids=ITEMS)
def test_an_item_is_read_in_its_layout(layout: str, row: dict[str, Any], item: Item) -> None:
    assert LAYOUTS[layout].read(row) == item


BROKEN: dict[str, tuple[str, dict[str, Any], list[str]]] = {
    "items without answer": ("items", {"instruction": "a"}, ["'answer' is missing"]),
    "items whose answer is no choice": ("items", {"instruction": "a", "answer": "c", "choices": ["a", "b"]}, ["'c'"]),
    "items with choices in one text": ("items", {"instruction": "a", "answer": "a", "choices": "abc"}, ["'choices'"]),
    "items with choices as numbers": (
        "items",
        {"instruction": "a", "answer": "1", "choices": [1, 2]},
        ["'choices[0]'", "found int"],
    ),
    "items with a null choice": (
        "items",
        {"instruction": "a", "answer": "b", "choices": ["b", None]},
        ["'choices[1]'"],
    ),
    "items whose answer stands twice": (
        "items",
        {"instruction": "a", "answer": "b", "choices": ["b", "c", "b"]},
        ["'b'", "standing there once"],
    ),
    "mmlu with a null choice": ("mmlu", {**MMLU, "choices": ["a", None, "b"]}, ["'choices[1]'", "found NoneType"]),
    "hellaswag with a null ending": ("hellaswag", {**HELLASWAG, "endings": ["a", None]}, ["'endings[1]'"]),
    "cmmlu with a null choice": ("cmmlu", {**CMMLU, "C": None}, ["'C'", "found NoneType"]),
    "nq with a null answer": ("nq", {"question": "a", "answer": [None]}, ["'answer[0]'"]),
    "truthfulqa with a null answer": ("truthfulqa", {**TRUTHFULQA, "correct_answers": ["a", None]}, ["[1]'"]),
    "gsm8k without mark": ("gsm8k", {"question": "a", "answer": "72"}, ["'answer'", "#### NUMBER"]),
    "math without box": ("math", {"problem": "a", "solution": "So 3."}, ["'solution'", "\\boxed{…}"]),
    "math with an open box": ("math", {"problem": "a", "solution": "\\boxed{3"}, ["'solution'"]),
    "mmlu with a letter": ("mmlu", {**MMLU, "answer": "C"}, ["'answer' as its index"]),
    "mmlu with a truth": ("mmlu", {**MMLU, "answer": True}, ["'answer' as its index"]),
    "mmlu beyond its choices": ("mmlu", {**MMLU, "answer": 3}, ["option 3, but there are 3"]),
    "mmlu before its choices": ("mmlu", {**MMLU, "answer": -1}, ["option -1"]),
    "mmlu with eleven choices": ("mmlu", {**MMLU, "choices": list("abcdefghijk")}, ["11 options", "at most 10"]),
    "cmmlu with a fifth letter": ("cmmlu", {**CMMLU, "Answer": "E"}, ["'Answer'", "'E'"]),
    "cmmlu without a choice": ("cmmlu", {k: v for k, v in CMMLU.items() if k != "C"}, ["'C' is missing"]),
    "boolq with text": ("boolq", {"passage": "a", "question": "b", "answer": "yes"}, ["'answer'", "'yes'"]),
    "mbpp without tests": ("mbpp", {"text": "a", "code": "b"}, ["'test_list'"]),
    "mbpp without a problem": ("mbpp", {"code": "b", "test_list": ["assert 1"]}, ["'text'"]),
    "hellaswag without its label": ("hellaswag", {**HELLASWAG, "label": ""}, ["'label'"]),
    "hellaswag beyond its endings": ("hellaswag", {**HELLASWAG, "label": 2}, ["option 2, but there are 2"]),
    "truthfulqa without answers": ("truthfulqa", {**TRUTHFULQA, "correct_answers": []}, ["'correct_answers'"]),
    "humaneval without a solution": ("humaneval", {"prompt": "a"}, ["'canonical_solution' is missing"]),
    "mt_bench in one text": ("mt_bench", {"turns": "Write."}, ["'turns'", "list"]),
    "alpaca_eval in another layout": ("alpaca_eval", {"prompt": "a"}, ["'instruction' is missing"]),
    "nq with one text": ("nq", {"question": "a", "answer": "b"}, ["'answer'", "list"]),
    "nq without answers": ("nq", {"question": "a", "answer": []}, ["'answer'", "list"]),
}


@pytest.mark.parametrize(("layout", "row", "said"), BROKEN.values(), ids=BROKEN)
def test_an_item_of_another_layout_is_refused(layout: str, row: dict[str, Any], said: list[str]) -> None:
    with pytest.raises(DataError) as raised:
        LAYOUTS[layout].read(row)
    assert all(fragment in str(raised.value) for fragment in said), str(raised.value)


def test_every_layout_is_tested() -> None:
    assert {layout for layout, *_ in ITEMS.values()} == {layout for layout, *_ in BROKEN.values()} == set(LAYOUTS)


@pytest.mark.parametrize(
    ("solution", "answer"),
    [
        ("\\boxed{3}", "3"),
        ("first \\boxed{1}, then \\boxed{2}", "2"),
        ("\\boxed{\\frac{1}{\\sqrt{2}}} and more {braces}", "\\frac{1}{\\sqrt{2}}"),
        ("\\fbox{7}", "7"),
        ("So $\\boxed 5$.", "5"),
        ("\\boxed{}", ""),
        ("no box", None),
        ("\\boxed{open", None),
    ],
)
def test_the_last_box_is_the_answer(solution: str, answer: str | None) -> None:
    assert boxed(solution) == answer


@pytest.mark.parametrize(
    ("compare", "answer", "accepted", "right"),
    [
        ("equal", "42", ["42"], True),
        ("equal", "42.", ["42"], False),
        ("number", "1,000", ["1000"], True),
        ("number", "42.0", ["42"], True),
        ("number", "-3", ["3"], False),
        ("number", "", ["3"], False),
        ("number", "1,2,", ["12"], True),
        ("boxed", "so \\boxed{\\dfrac12}.", ["\\frac12"], True),
        ("boxed", "\\boxed{\\left( 1, 2 \\right)}", ["(1,2)"], True),
        ("boxed", "$12$", ["12"], True),
        ("boxed", "\\boxed{13}", ["12"], False),
        ("boxed", "12 \\boxed{13}", ["12"], False),
        ("contains", "It was The Beatles, in 1968", ["the beatles", "Fab Four"], True),
        ("contains", "It was the Stones", ["the beatles"], False),
        ("bleu", "the cat sat on the mat", ["a dog", "the cat sat on the mat"], pytest.approx(1.0)),
        ("bleu", "wholly other words here", ["the cat sat on the mat"], pytest.approx(0.0, abs=0.05)),
    ],
)
def test_answers_are_compared(compare: str, answer: str, accepted: list[str], right: float) -> None:
    assert COMPARISONS[compare](answer, accepted) == right


@pytest.mark.parametrize(
    ("response", "pattern", "answer"),
    [
        ("  the answer \n", None, "the answer"),
        ("1 and then 2,500.", LAYOUTS["gsm8k"].pattern, "2,500"),
        ("-7.25 degrees", LAYOUTS["gsm8k"].pattern, "-7.25"),
        ("it is -3", LAYOUTS["gsm8k"].pattern, "-3"),
        ("5 * (-3", LAYOUTS["gsm8k"].pattern, "-3"),
        ("= $-1,200.50.", LAYOUTS["gsm8k"].pattern, "-1,200.50"),
        # a difference, not a negative number
        ("10-3", LAYOUTS["gsm8k"].pattern, "3"),
        ("(2+8)-3", LAYOUTS["gsm8k"].pattern, "3"),
        ("x-3", LAYOUTS["gsm8k"].pattern, "3"),
        ("none", LAYOUTS["gsm8k"].pattern, ""),
    ],
)
def test_an_answer_is_found_in_a_generation(response: str, pattern: str | None, answer: str) -> None:
    assert extract(response, pattern) == answer


# --- the stage


def make(
    root: Path,
    source: Path,
    layout: str,
    limit: int | None = None,
    examples: Path | None = None,
    shots: int = 0,
    **labels: str,
) -> dict[str, Any]:
    """Run the stage; the manifest, with the tables beside it."""
    shown = {"content": "y"} if examples else None
    identity = {"source": {"content": "x"}, "format": layout, "limit": limit, "examples": shown}
    sources = [source, *([examples] if examples else [])]
    told = {"shots": shots, **labels}
    spec = content("benchmark", "benchmarks/made-00000000/manifest.json", identity, None, sources, told)
    do(spec, root)
    manifest = root / spec["output"]
    tables = {
        name: pl.read_parquet(manifest.with_name(f"{name}.parquet")) for name in ["items", "examples"][: len(sources)]
    }
    return read_json(manifest) | {"tables": tables}


def lines(path: Path, rows: list[dict[str, Any]]) -> Path:
    path.write_text("".join(f"{json.dumps(row)}\n" for row in rows))
    return path


REAL = {
    "gsm8k_main_test": ("gsm8k", 400, "generation", True),
    "mmlu_test": ("mmlu", 399, "multiple_choice", True),
    "cmmlu_test": ("cmmlu", 335, "multiple_choice", True),
    "boolq_validation": ("boolq", 400, "multiple_choice", True),
    "mbpp_full_test": ("mbpp", 390, "generation", False),
    "math_test": ("math", 399, "generation", True),
    "nq_open_validation": ("nq", 400, "generation", True),
    "mt_bench_question": ("mt_bench", 80, "generation", False),
    "alpaca_eval": ("alpaca_eval", 400, "generation", False),
}


@pytest.mark.parametrize("name", REAL)
def test_real_items(name: str, shared: Path, tmp_path: Path) -> None:
    layout, count, kind, scored = REAL[name]
    source = shared / f"data/{name}.jsonl"
    made = make(tmp_path, source, layout)
    assert (made["items"], made["kind"], made["scored"]) == (count, kind, scored)
    items = made["tables"]["items"]
    assert dict(items.schema) == benchmarks.SCHEMA
    assert items["item"].to_list() == [f"{name}.jsonl:{number}" for number in range(1, count + 1)]
    assert items["instruction"].str.strip_chars().str.len_chars().min() > 0
    assert layout == "mt_bench" or items["example"].str.len_chars().min() > 0
    if kind == "multiple_choice":
        assert (items["gold"] < items["choices"].list.len()).all()
        assert (
            items.select(pl.col("choices").list.get(pl.col("gold")))
            .to_series()
            .equals(items["example"].rename("choices"))
        )
        assert items["gold"].n_unique() == items["choices"].list.len().max()
    # a reference answer that is compared with itself is right, on every real item
    right = COMPARISONS[LAYOUTS[layout].compare]
    if kind == "generation" and scored:
        answers = items.select("example", "answers").iter_rows()
        wrong = [shown for shown, accepted in answers if not right(extract(shown, LAYOUTS[layout].pattern), accepted)]
        assert wrong == []


def test_every_real_box_is_read(shared: Path) -> None:
    rows = [json.loads(line) for line in (shared / "data/math_test.jsonl").read_text().splitlines()]
    for row in rows:
        answer = boxed(row["solution"])
        assert answer, row["solution"]
        assert answer.count("{") == answer.count("}")
        assert any(f"{box}{answer}" in row["solution"] for box in ("boxed{", "fbox{", "boxed ")), row["solution"]


def test_worked_examples_stand_beside_the_items(shared: Path, tmp_path: Path) -> None:
    data = shared / "data"
    made = make(tmp_path, data / "gsm8k_main_test.jsonl", "gsm8k", 10, data / "gsm8k_main_train.jsonl")
    assert (made["items"], made["tables"]["items"].height, made["tables"]["examples"].height) == (10, 10, 100)
    assert made["tables"]["examples"]["example"][0].endswith("#### 72")
    assert {file["name"] for file in made["files"]} == {"items.parquet", "examples.parquet"}


def test_too_few_worked_examples_are_told_before_anything_is_trained(tmp_path: Path) -> None:
    def subject(name: str, count: int, first: int = 10) -> list[dict[str, Any]]:
        numbers = range(first, first + count)
        return [{"question": f"{name} {n}?", "choices": ["a", "b"], "answer": 0, "subject": name} for n in numbers]

    items = lines(tmp_path / "items.jsonl", subject("law", 1) + subject("art", 1) + subject("none", 1))
    shown = lines(tmp_path / "shown.jsonl", subject("law", 2, 20) + subject("art", 3, 20))
    # none of its own subject, so all five
    assert make(tmp_path, items, "mmlu", examples=shown, shots=2)["worked_examples"] == 2
    with pytest.raises(DataError, match=r"benchmarks/made-.*asks for 3 worked examples, found 2 .*lower `shots`"):
        make(tmp_path / "more", items, "mmlu", examples=shown, shots=3)
    assert not list(tmp_path.glob("more/**/manifest.json"))
    # the item itself does not count, unless the study keeps it
    same = lines(tmp_path / "same.jsonl", subject("law", 2, 9) + subject("art", 3))
    assert make(tmp_path / "same", items, "mmlu", examples=same)["worked_examples"] == 1
    assert make(tmp_path / "kept", items, "mmlu", examples=same, own_example="keep")["worked_examples"] == 2


def test_an_answer_without_choices_is_not_scored_only_if_there_is_none(tmp_path: Path) -> None:
    made = make(tmp_path, lines(tmp_path / "items.jsonl", [{"instruction": "a", "answer": "b"}]), "items")
    assert (made["kind"], made["scored"], made["compare"], made["pattern"]) == ("generation", True, "equal", None)


def test_kinds_are_not_mixed(tmp_path: Path) -> None:
    rows = [{"instruction": "a", "answer": "b"}, {"instruction": "a", "answer": "b", "choices": ["b", "c"]}]
    with pytest.raises(DataError, match="of one kind, found generation, multiple_choice"):
        make(tmp_path, lines(tmp_path / "items.jsonl", rows), "items")
    with pytest.raises(DataError, match="found no item"):
        make(tmp_path, lines(tmp_path / "none.jsonl", []), "items")


def test_a_broken_item_is_named_with_its_row(tmp_path: Path) -> None:
    source = lines(tmp_path / "items.jsonl", [{"instruction": "a", "answer": "b"}, {"instruction": "a"}])
    with pytest.raises(
        DataError, match=r"items\.jsonl:2: column 'answer' is missing; found instruction \(format items\)"
    ):
        make(tmp_path, source, "items")


def test_the_same_items_give_the_same_bytes(shared: Path, tmp_path: Path) -> None:
    source = shared / "data/mmlu_test.jsonl"
    assert make(tmp_path / "a", source, "mmlu")["files"] == make(tmp_path / "b", source, "mmlu")["files"]
