"""From source files to normalised rows, and from rows to samples: real rows, every format, every kind of broken row."""

import csv
import json
from collections import Counter
from collections.abc import Iterable
from pathlib import Path
from typing import Any

import polars as pl
import pytest

from sft_atlas.data.draw import draw_rows
from sft_atlas.data.formats import FORMATS, Example, Options, normalise
from sft_atlas.data.sources import local_files, read_rows
from sft_atlas.errors import DataError
from sft_atlas.files import read_json
from sft_atlas.stages.dataset.run import clean
from sft_atlas.study.model import Template
from tests.unit.helpers import content, do, stand_in

FIRST = Options({}, "first")
SINGLE = Options({}, "single")
NAMED = Options({"instruction": "q", "input": "context", "completion": "a"}, "first")
TEMPLATE = Template()


def turn(role: str, text: Any) -> dict[str, Any]:
    return {"role": role, "content": text}


LONG = [turn("user", "Hi"), turn("assistant", "Hello"), turn("user", "More"), turn("assistant", "Again")]
SOLVED = {"question": "1+1?", "generated_solution": "2"}

ROWS: dict[str, tuple[str, dict[str, Any], Options, Example | None]] = {
    "alpaca": ("alpaca", {"instruction": "Do", "input": "it", "output": "Done"}, FIRST, Example("Do", "Done", "it")),
    "alpaca without input": ("alpaca", {"instruction": "Do", "output": "Done"}, FIRST, Example("Do", "Done")),
    "alpaca, null input": ("alpaca", {"instruction": "Do", "input": None, "output": "D"}, FIRST, Example("Do", "D")),
    "prompt_completion": ("prompt_completion", {"prompt": "Do", "completion": "Done"}, FIRST, Example("Do", "Done")),
    "columns": ("columns", {"q": "Do", "a": "Done", "context": "it"}, NAMED, Example("Do", "Done", "it")),
    "columns, null input": ("columns", {"q": "Do", "a": "Done", "context": None}, NAMED, Example("Do", "Done")),
    "flan": ("flan", {"inputs": "Do", "targets": "Done", "task": "t"}, FIRST, Example("Do", "Done")),
    "openmath, right": ("openmath", {**SOLVED, "is_correct": True}, FIRST, Example("1+1?", "2")),
    "openmath, wrong": ("openmath", {**SOLVED, "is_correct": False}, FIRST, None),
    "messages": ("messages", {"messages": LONG[:2]}, SINGLE, Example("Hi", "Hello")),
    "messages, first turns": (
        "messages",
        {"messages": LONG},
        FIRST,
        Example("Hi", "Hello", later=("More", "Again")),
    ),
    "messages, single turns": ("messages", {"messages": LONG}, SINGLE, None),
    "messages after a system turn": (
        "messages",
        {"messages": [turn("system", "Be nice"), *LONG[:2]]},
        SINGLE,
        Example("Hi", "Hello", system="Be nice"),
    ),
    "messages around a system turn": (
        "messages",
        {"messages": [LONG[0], turn("system", "Be nice"), LONG[1]]},
        SINGLE,
        Example("Hi", "Hello", system="Be nice"),
    ),
    "conversations": ("conversations", {"conversations": ["Hi", "Hello"]}, SINGLE, Example("Hi", "Hello")),
    "conversations, first": (
        "conversations",
        {"conversations": ["Hi", "Hello", "?"]},
        FIRST,
        Example("Hi", "Hello", later=("?",)),
    ),
    "Windows and old Macintosh line ends": (
        "flan",
        {"inputs": "a\r\nb\rc\n", "targets": "\r\n"},
        FIRST,
        Example("a\nb\nc\n", "\n"),
    ),
    "conversations, single": ("conversations", {"conversations": ["Hi", "Hello", "?"]}, SINGLE, None),
}


@pytest.mark.parametrize(("layout", "row", "options", "example"), ROWS.values(), ids=ROWS)
def test_a_row_is_read_in_its_format(layout: str, row: Any, options: Options, example: Example | None) -> None:
    assert normalise(layout, row, options) == example


BROKEN: dict[str, tuple[str, dict[str, Any], Options, list[str]]] = {
    "alpaca without output": ("alpaca", {"instruction": "Do"}, FIRST, ["'output' is missing", "found instruction"]),
    "alpaca of a number": ("alpaca", {"instruction": 5, "output": "a"}, FIRST, ["'instruction'", "found int ('5')"]),
    "alpaca of a null": ("alpaca", {"instruction": "a", "output": None}, FIRST, ["'output'", "found NoneType"]),
    "alpaca with a list as input": ("alpaca", {"instruction": "a", "input": [1], "output": "a"}, FIRST, ["'input'"]),
    "columns without a column": ("columns", {"q": "Do", "a": "Done"}, NAMED, ["'context' is missing", "found a, q"]),
    "flan in another layout": ("flan", {"input": "a", "target": "b"}, FIRST, ["'inputs' is missing"]),
    "openmath without a mark": ("openmath", SOLVED, FIRST, ["'is_correct'", "found None"]),
    "openmath with a number as mark": ("openmath", {**SOLVED, "is_correct": 1}, FIRST, ["'is_correct'", "found 1"]),
    "messages that are text": ("messages", {"messages": "Hi"}, FIRST, ["'messages'", "found str"]),
    "messages of text": ("messages", {"messages": ["Hi", "Hello"]}, FIRST, ["'messages'", "found a str"]),
    "messages without a role": ("messages", {"messages": [{"content": "Hi"}]}, FIRST, ["'role' is missing"]),
    "messages the other way round": ("messages", {"messages": LONG[1:3]}, FIRST, ["'assistant'", "one of 'user'"]),
    "messages of one side": ("messages", {"messages": [LONG[0], LONG[2]]}, FIRST, ["'user'", "one of 'assistant'"]),
    "messages without an answer": ("messages", {"messages": LONG[:1]}, FIRST, ["dialogue of 1 turns"]),
    "messages of parts": (
        "messages",
        {"messages": [turn("user", [{"type": "text"}]), LONG[1]]},
        FIRST,
        ["'content'", "found list"],
    ),
    "no conversation": ("conversations", {"conversations": []}, FIRST, ["dialogue of 0 turns"]),
    "conversations of another layout": (
        "conversations",
        {"conversations": [{"from": "human", "value": "Hi"}]},
        FIRST,
        ["'conversations'", "found dict"],
    ),
    "half a surrogate pair": ("flan", {"inputs": "a\ud800", "targets": "b"}, FIRST, ["'inputs'", "character 1"]),
    "no columns": ("flan", {}, FIRST, ["found no columns"]),
}


@pytest.mark.parametrize(("layout", "row", "options", "said"), BROKEN.values(), ids=BROKEN)
def test_a_row_of_another_layout_is_refused(layout: str, row: Any, options: Options, said: list[str]) -> None:
    with pytest.raises(DataError) as raised:
        normalise(layout, row, options)
    assert all(fragment in str(raised.value) for fragment in said), str(raised.value)


def test_every_format_is_tested() -> None:
    assert {layout for layout, *_ in ROWS.values()} == set(FORMATS)
    assert {layout for layout, *_ in BROKEN.values()} == set(FORMATS) - {"prompt_completion"}


# --- files


PLAIN = [
    {"prompt": 'Übung ###, "quoted", with\nline break', "completion": " 日本語 "},
    {"prompt": "{instruction} {{ 7 * 7 }} \\n", "completion": "tab\there"},
    {"prompt": "1", "completion": "true"},
]


def write_rows(path: Path, rows: list[dict[str, Any]]) -> Path:
    """Rows as a file of the kind that the name says."""
    if path.suffix == ".jsonl":
        # blank lines and Windows line ends are no rows
        path.write_bytes("\r\n\n".join(json.dumps(row) for row in rows).encode())
    elif path.suffix == ".json":
        path.write_text(json.dumps(rows, ensure_ascii=False), encoding="utf-8")
    elif path.suffix == ".parquet":
        pl.DataFrame(rows).write_parquet(path)
    else:
        with path.open("w", encoding="utf-8", newline="") as file:
            writer = csv.DictWriter(file, list(rows[0]))
            writer.writeheader()
            writer.writerows(rows)
    return path


@pytest.mark.parametrize("suffix", ["jsonl", "json", "csv", "parquet"])
def test_every_kind_of_file_gives_the_same_rows(suffix: str, tmp_path: Path) -> None:
    path = write_rows(tmp_path / f"rows.{suffix}", PLAIN)
    assert list(read_rows(local_files([path]))) == [
        (f"rows.{suffix}:{number}", row) for number, row in enumerate(PLAIN, 1)
    ]


@pytest.mark.parametrize("suffix", ["jsonl", "json", "csv"])
def test_a_byte_order_mark_is_no_text(suffix: str, tmp_path: Path) -> None:
    path = write_rows(tmp_path / f"rows.{suffix}", PLAIN)
    path.write_bytes(b"\xef\xbb\xbf" + path.read_bytes())
    assert [row for _, row in read_rows(local_files([path]))] == PLAIN


def test_files_are_read_in_order(tmp_path: Path) -> None:
    second = write_rows(tmp_path / "a.jsonl", PLAIN[1:])
    first = write_rows(tmp_path / "b.parquet", PLAIN[:1])
    assert [row for _, row in read_rows(local_files([first, second]))] == PLAIN


GOOD = b'{"prompt": "a", "completion": "b"}\n'
UNREADABLE: dict[str, tuple[str, bytes | None, str]] = {
    "broken UTF-8": ("rows.jsonl", GOOD * 2 + b'{"prompt": "\xff"}\n' + GOOD, "row 3: not UTF-8"),
    "broken UTF-8 after much": ("rows.jsonl", GOOD * 999 + b'{"prompt": "\xff"}\n', "row 1000: not UTF-8"),
    "Latin-1": ("rows.csv", "prompt,completion\na,b\né,b\n".encode("latin-1"), "row 2: not UTF-8"),
    "UTF-16": ("rows.json", json.dumps(PLAIN).encode("utf-16"), "not UTF-8"),
    "cut JSON": ("rows.jsonl", GOOD + b'{"prompt": "a", "comp', "row 2: cannot be read"),
    "two rows in a line": ("rows.jsonl", GOOD + GOOD.strip() * 2, "row 2: cannot be read"),
    "a number as row": ("rows.jsonl", GOOD + b"5\n", "row 2: found int"),
    "a list as row": ("rows.json", b'[{"a": 1}, ["a"]]', "row 2: found list"),
    "a single object": ("rows.json", b'{"a": 1}', "found dict, expected a list of rows"),
    "JSON lines called JSON": ("rows.json", GOOD * 2, "found dict, expected a list of rows; is it .jsonl"),
    "cut list": ("rows.json", b'[{"a": 1}, {"a": 2}', "row 3: cannot be read: the list is not closed"),
    "cut row of a list": ("rows.json", b'[{"a": 1}, {"a": 2', "row 2: cannot be read"),
    "list without a comma": ("rows.json", b'[{"a": 1} {"a": 2}]', "row 2: cannot be read: the list is not closed"),
    "text behind a list": ("rows.json", b'[{"a": 1}]\n{"a": 2}', "row 2: cannot be read: something follows"),
    "an empty file": ("rows.json", b"", "found nothing, expected a list of rows"),
    "a key twice": ("rows.jsonl", GOOD + b'{"a": 1, "a": 2}', "row 2: cannot be read: key 'a' stands twice"),
    "a key twice in a list": ("rows.json", b'[{"a": 1, "a": 2}]', "row 1: cannot be read: key 'a' stands twice"),
    "nested too deeply": ("rows.jsonl", GOOD + b"[" * 100_000 + b"\n", "row 2: cannot be read"),
    "number of 5000 digits": ("rows.jsonl", b'{"a": ' + b"9" * 5000 + b"}\n", "row 1: cannot be read"),
    "too many fields": ("rows.csv", b"a,b\n1,2\n1,2,3\n", "row 2: cannot be read: it has another number of fields"),
    "too few fields": ("rows.csv", b"a,b\n1\n", "row 1: cannot be read: it has another number of fields"),
    "open quote": ("rows.csv", b'a,b\n1,"2\n', "row 1: cannot be read"),
    "no Parquet": ("rows.parquet", b"PAR1 but not really", "cannot be read"),
    "empty Parquet": ("rows.parquet", b"", "cannot be read"),
    "unknown kind": ("rows.txt", b"a", "unknown kind of file '.txt'"),
    "absent": ("rows.jsonl", None, "there is no such file"),
}


@pytest.mark.parametrize(("name", "written", "said"), UNREADABLE.values(), ids=UNREADABLE)
def test_an_unreadable_file_is_refused_at_its_row(name: str, written: bytes | None, said: str, tmp_path: Path) -> None:
    path = tmp_path / name
    if written is not None:
        path.write_bytes(written)
    with pytest.raises(DataError) as raised:
        list(read_rows(local_files([path])))
    assert str(raised.value).startswith(str(path))
    assert said in str(raised.value)
    assert len(str(raised.value).splitlines()) == 1


# --- the dataset stage


def make_dataset(root: Path, source: Path, layout: str = "prompt_completion", **declared: Any) -> dict[str, Any]:
    """Run the stage; the manifest, with the rows under `table`."""
    identity = {"source": {"content": "x"}, "format": layout, "columns": {}, "keep": {}, "drop": {}, "turns": "first"}
    spec = content("dataset", "datasets/made-00000000/manifest.json", identity | declared, sources=[source])
    do(spec, root)
    manifest = root / spec["output"]
    return read_json(manifest) | {"table": pl.read_parquet(manifest.with_name("rows.parquet"))}


def pairs(*texts: tuple[str, str]) -> list[dict[str, str]]:
    return [{"prompt": prompt, "completion": completion} for prompt, completion in texts]


def test_useless_rows_are_dropped_with_their_reasons(tmp_path: Path) -> None:
    rows = pairs(
        ("a", "1"),
        ("", "empty instruction"),
        ("empty completion", " \n\t"),
        (" a ", "1\n"),
        ("a", "2"),
        ("x" * 1_000_000, "a field of 1 MB"),
        ("says ###Answer: yes", "b"),
        ("b", "and ###Question: then"),
        ("Question: Answer:", "#Answer"),
        ("a", "2"),
    )
    made = make_dataset(tmp_path, write_rows(tmp_path / "rows.jsonl", rows))
    assert made["dropped"] == {"duplicate": 2, "empty": 2, "too_long": 1}
    assert made["table"].rows() == [
        ("rows.jsonl:1", "a", "", "1"),
        ("rows.jsonl:5", "a", "", "2"),
        ("rows.jsonl:7", "says ###Answer: yes", "", "b"),
        ("rows.jsonl:8", "b", "", "and ###Question: then"),
        ("rows.jsonl:9", "Question: Answer:", "", "#Answer"),
    ]
    assert made["rows"] == 5
    assert [file["name"] for file in made["files"]] == ["rows.parquet"]


def test_a_row_with_another_input_is_no_duplicate() -> None:
    dropped: Counter[str] = Counter()
    rows = [("1", Example("a", "b", "c")), ("2", Example("a", "b", "d")), ("3", Example("a", "b", "c "))]
    assert [row for row, *_ in clean(iter(rows), dropped, Counter())] == ["1", "2"]
    assert dropped == {"duplicate": 1}


def test_rows_are_kept_and_dropped_by_their_columns(tmp_path: Path) -> None:
    rows = [
        {"prompt": str(number), "completion": "x", "lang": lang, "score": score}
        for number, (lang, score) in enumerate(
            [("en", 1), ("en", True), ("de", 1), ("fr", 2), ("en", 1.0), ("en", None)]
        )
    ]
    source = write_rows(tmp_path / "rows.jsonl", rows)
    made = make_dataset(tmp_path, source, keep={"lang": ["en", "fr"]}, drop={"score": [1]})
    # 1, true and 1.0 are three things
    assert made["table"]["instruction"].to_list() == ["1", "3", "4", "5"]
    assert made["dropped"] == {"filtered": 2}
    with pytest.raises(DataError, match=r"rows\.jsonl:1: column 'language' of keep/drop is missing; found completion"):
        make_dataset(tmp_path, source, keep={"language": ["en"]})


def test_a_broken_row_stops_the_stage_and_is_named(tmp_path: Path) -> None:
    rows = [*pairs(("a", "b"), ("c", "d")), {"prompt": "e", "completion": 5}]
    source = write_rows(tmp_path / "rows.jsonl", rows)
    with pytest.raises(DataError, match=r"rows\.jsonl:3: column 'completion': found int \('5'\), expected text"):
        make_dataset(tmp_path, source)
    assert not (tmp_path / "datasets").exists()


def test_nothing_left_is_an_error_with_its_reasons(tmp_path: Path) -> None:
    with pytest.raises(DataError, match=r"no row is left; dropped: \{'empty': 1\}"):
        make_dataset(tmp_path, write_rows(tmp_path / "rows.jsonl", pairs(("", ""))))
    (tmp_path / "none.jsonl").touch()
    with pytest.raises(DataError, match="the source is empty"):
        make_dataset(tmp_path, tmp_path / "none.jsonl")


def test_the_same_source_gives_the_same_bytes(tmp_path: Path) -> None:
    source = write_rows(tmp_path / "rows.jsonl", PLAIN)
    first, second = make_dataset(tmp_path / "a", source), make_dataset(tmp_path / "b", source)
    assert first["files"] == second["files"]


# --- real rows


REAL = {
    "alpaca_cleaned.jsonl": ("alpaca", 999, ("instruction", "input", "output")),
    "code_alpaca.jsonl": ("alpaca", 1500, ("instruction", "input", "output")),
    "standin/flan_knowledge.jsonl": ("flan", 600, ("inputs", "targets")),
    "standin/flan_reasoning.jsonl": ("flan", 750, ("inputs", "targets")),
    "standin/flan_comprehension.jsonl": ("flan", 400, ("inputs", "targets")),
}


def as_json(path: Path) -> list[dict[str, Any]]:
    return [json.loads(line) for line in path.read_text(encoding="utf-8").splitlines()]


def distinct(texts: Iterable[tuple[str, ...]]) -> int:
    """How many stripped rows are complete and differ, counted without the code under test."""
    return len({tuple(t.strip() for t in row) for row in texts if row[0].strip() and row[-1].strip()})


@pytest.mark.parametrize("name", REAL)
def test_real_rows_of_plain_columns(name: str, shared: Path, tmp_path: Path) -> None:
    layout, count, columns = REAL[name]
    rows = as_json(shared / "data" / name)
    made = make_dataset(tmp_path, shared / "data" / name, layout)
    assert len(rows) == count == made["rows"] + sum(made["dropped"].values())
    assert made["rows"] == distinct(tuple(row[column] for column in columns) for row in rows)
    assert set(made["dropped"]) <= {"duplicate", "empty"}


def test_real_dialogues(shared: Path, tmp_path: Path) -> None:
    source = shared / "data/ultrachat_200k.jsonl"
    rows = as_json(source)
    first = make_dataset(tmp_path / "first", source, "messages")
    assert first["rows"] == len(rows) == 4
    assert first["table"]["instruction"].to_list() == [row["prompt"].strip() for row in rows]
    assert first["table"]["completion"].to_list() == [row["messages"][1]["content"].strip() for row in rows]
    longer = sum(len(row["messages"]) > 2 for row in rows)
    assert longer > 0
    if longer == len(rows):
        with pytest.raises(DataError, match="no row is left"):
            make_dataset(tmp_path / "single", source, "messages", turns="single")
    else:
        assert make_dataset(tmp_path / "single", source, "messages", turns="single")["dropped"] == {"format": longer}


def test_real_conversations(shared: Path, tmp_path: Path) -> None:
    source = shared / "data/standin/lima.jsonl"
    made = make_dataset(tmp_path, source, "conversations", turns="single")
    assert made["rows"] == distinct(tuple(row["conversations"]) for row in as_json(source))
    assert made["rows"] + sum(made["dropped"].values()) == 600


def test_real_solutions(shared: Path, tmp_path: Path) -> None:
    source = shared / "data/standin/openmathinstruct1.jsonl"
    rows = as_json(source)
    right = [(row["question"], row["generated_solution"]) for row in rows if row["is_correct"]]
    made = make_dataset(tmp_path, source, "openmath")
    assert made["rows"] == distinct(right)
    assert made["dropped"]["format"] == len(rows) - len(right)
    assert len(rows) == 500


# --- samples


def numbered(count: int, first: int = 1) -> pl.DataFrame:
    """Rows as the dataset stage leaves them."""
    numbers = range(first, first + count)
    return pl.DataFrame(
        {
            "row": [f"rows.jsonl:{number}" for number in numbers],
            "instruction": [f"question {number}" for number in numbers],
            "input": ["" if number % 2 else "given" for number in numbers],
            "completion": [f"answer {number}" for number in numbers],
        }
    )


def test_a_draw_is_the_same_every_time_and_part_of_a_larger_one() -> None:
    rows = numbered(200)
    small, large = draw_rows(rows, 20, 3), draw_rows(rows, 100, 3)
    assert small.equals(draw_rows(rows, 20, 3))
    assert set(small["row"]) < set(large["row"])
    assert (small.height, large.height) == (20, 100)
    assert set(draw_rows(rows, 20, 4)["row"]) != set(small["row"])


def test_a_draw_keeps_the_order_of_the_source() -> None:
    drawn = draw_rows(numbered(200), 50, 0)["row"].str.split(":").list.get(1).cast(pl.Int64)
    assert drawn.is_sorted()


def test_a_draw_goes_by_rows_and_not_by_their_order() -> None:
    rows = numbered(200)
    assert set(draw_rows(rows.reverse(), 50, 0)["row"]) == set(draw_rows(rows, 50, 0)["row"])
    more = draw_rows(numbered(300), 50, 0)
    old = set(more["row"]) & set(rows["row"])
    assert old < set(draw_rows(rows, 50, 0)["row"])
    # a filter that takes out rows that were not drawn anyway changes nothing
    drawn = draw_rows(rows, 50, 0)
    others = rows.join(drawn, on="row", how="anti")
    assert draw_rows(pl.concat([drawn, others.head(30)]), 50, 0).sort("row").equals(drawn.sort("row"))


def test_every_row_is_drawn_equally_often() -> None:
    counts = Counter(row for seed in range(2000) for row in draw_rows(numbered(10), 3, seed)["row"])
    # 600 expected of each; 5 standard deviations of a binomial are 102
    assert len(counts) == 10
    assert all(498 < count < 702 for count in counts.values())


def test_all_rows_are_taken_where_no_size_is_given_or_reached() -> None:
    rows = numbered(5)
    assert draw_rows(rows, None, 1).equals(rows)
    assert draw_rows(rows, 5, 1).equals(rows)
    assert draw_rows(rows, 6, 1).equals(rows)


def make_sample(root: Path, parts: list[str], name: str = "made", **identity: Any) -> dict[str, Any]:
    """Run the stage; the manifest, with the rows under `table`."""
    labels = {"asked": identity.get("size"), "shortfall": identity.pop("shortfall", "error")}
    if "mix" not in identity:
        identity = {"size": None, "seed": 0, "template": TEMPLATE.model_dump()} | identity
    spec = content("sample", f"samples/{name}-00000000/manifest.json", identity, {"parts": parts}, (), labels)
    do(spec, root)
    manifest = root / spec["output"]
    return read_json(manifest) | {"table": pl.read_parquet(manifest.with_name("rows.parquet")), "path": spec["output"]}


def place_dataset(root: Path, name: str, rows: pl.DataFrame) -> str:
    return stand_in(root, f"datasets/{name}-00000000", rows, "rows.parquet", rows=rows.height, dropped={"empty": 1})


def test_a_sample_holds_prompts_and_completions(tmp_path: Path) -> None:
    made = make_sample(tmp_path, [place_dataset(tmp_path, "math", numbered(2))])
    assert made["table"].rows() == [
        ("###Question: question 1\n###Answer:", " answer 1", "rows.jsonl:1", "math"),
        ("###Question: question 2\ngiven\n###Answer:", " answer 2", "rows.jsonl:2", "math"),
    ]
    assert made["sources"] == {"math": {"rows": 2, "available": 2, "dropped": {"empty": 1}, "shortened": {}}}


def test_another_template_is_followed_literally(tmp_path: Path) -> None:
    template = {"prompt": "Q {x} {instruction} %s\\1\n", "input_separator": " | ", "completion_prefix": ""}
    rows = numbered(2)[1:].with_columns(instruction=pl.lit("{instruction} {x} \\g<0>"))
    made = make_sample(tmp_path, [place_dataset(tmp_path, "math", rows)], template=template)
    assert made["table"].row(0)[:2] == ("Q {x} {instruction} {x} \\g<0> | given %s\\1\n", "answer 2")


def test_too_few_rows_are_an_error_or_all_are_taken(tmp_path: Path) -> None:
    part = place_dataset(tmp_path, "math", numbered(30))
    with pytest.raises(DataError, match=r"dataset math has 30 rows after cleaning, the sample asks for 31.*take_all"):
        make_sample(tmp_path, [part], size=31)
    made = make_sample(tmp_path, [part], size=31, shortfall="take_all")
    assert (made["rows"], made["asked"]) == (30, 31)
    assert make_sample(tmp_path, [part], size=30)["rows"] == 30


def test_a_sample_of_several_datasets_draws_from_each(tmp_path: Path) -> None:
    parts = [place_dataset(tmp_path, "math", numbered(30)), place_dataset(tmp_path, "code", numbered(30, 21))]
    made = make_sample(tmp_path, parts, size=None)
    # rows 21 to 30 are in both; the first dataset keeps them
    assert made["table"]["dataset"].value_counts().sort("dataset").rows() == [("code", 20), ("math", 30)]
    assert made["dropped"] == {"duplicate_between_parts": 10}
    assert made["rows"] == 50
    drawn = make_sample(tmp_path, parts, size=10)["table"]
    assert drawn.filter(dataset="math")["row"].to_list() == draw_rows(numbered(30), 10, 0)["row"].to_list()


def test_a_mixture_joins_samples_without_repeating_rows(tmp_path: Path) -> None:
    datasets_ = {name: place_dataset(tmp_path, name, numbered(30, first)) for name, first in (("a", 1), ("b", 26))}
    parts = [make_sample(tmp_path, [path], name, size=20)["path"] for name, path in datasets_.items()]
    tables = [pl.read_parquet((tmp_path / path).with_name("rows.parquet")) for path in parts]
    mixed = make_sample(tmp_path, parts, "mixed", mix=["x", "y"])
    both = set(tables[0]["prompt"]) & set(tables[1]["prompt"])
    assert mixed["rows"] == 40 - len(both)
    assert mixed["table"]["prompt"].n_unique() == mixed["rows"]
    assert mixed["dropped"] == {"duplicate_between_parts": len(both)}
    assert {name: source["rows"] for name, source in mixed["sources"].items()} == {"a": 20, "b": 20}
    assert mixed["table"].head(20).equals(tables[0])
