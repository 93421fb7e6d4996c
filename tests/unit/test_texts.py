"""What happens to a text on its way into a prompt: indentation, line ends, Unicode forms, markers, place of input."""

import ast
import json
from collections import Counter
from pathlib import Path
from typing import Any

import polars as pl
import pytest
from pydantic import ValidationError

from sft_atlas.data.cleaning import block
from sft_atlas.data.examples import WorkedExamples
from sft_atlas.data.formats import Example, Options, normalise
from sft_atlas.data.prompt import completion, holds_marker, markers, prompt
from sft_atlas.stages.dataset.run import clean
from sft_atlas.study.model import Template
from tests.unit.test_benchmarks import make as make_benchmark
from tests.unit.test_data import make_dataset, make_sample, write_rows

TEMPLATE = Template()
CHATML = Template(prompt="<|im_start|>user\n{instruction}<|im_end|>\n<|im_start|>assistant\n", completion_prefix="")
SHORT = Template(prompt="Q: {instruction}\nA:")


@pytest.mark.parametrize(
    ("text", "kept"),
    [
        ("  return x\n", "  return x"),
        ("\n\n    y = x + 1\n    return y\n\n", "    y = x + 1\n    return y"),
        ("\treturn x", "\treturn x"),
        # a space in front is how many files write a completion
        (" yes", "yes"),
        (" yes\n    no", "yes\n    no"),
        ("a\n\n  b  ", "a\n\n  b"),
        (" \n\t ", ""),
        ("", ""),
        ("\u3000全角", "全角"),
    ],
)
def test_a_block_keeps_its_indentation_and_nothing_around_it(text: str, kept: str) -> None:
    assert block(text) == kept


@pytest.mark.parametrize(
    ("template", "text", "written"),
    [
        (TEMPLATE, "yes", " yes"),
        (TEMPLATE, "    return 1", "\n    return 1"),
        (TEMPLATE, "\treturn 1", "\n\treturn 1"),
        (CHATML, "    return 1", "    return 1"),
        (Template(completion_prefix=""), "    return 1", "\n    return 1"),
        (Template(completion_prefix="\n"), "    return 1", "\n    return 1"),
        (Template(completion_prefix=" So: "), "    return 1", " So:\n    return 1"),
    ],
)
def test_an_indented_completion_begins_on_a_line_of_its_own(template: Any, text: str, written: str) -> None:
    assert completion(template, text) == written


def human_eval(shared: Path) -> list[dict[str, str]]:
    return [json.loads(line) for line in (shared / "data/humaneval_test.jsonl").read_text().splitlines()]


def parses(code: str) -> bool:
    try:
        ast.parse(code)
    except SyntaxError:
        return False
    return True


def test_every_real_body_still_parses_behind_its_head(shared: Path, tmp_path: Path) -> None:
    """HumanEval as training rows: head and completion of the sample, joined, are Python."""
    rows = human_eval(shared)
    source = write_rows(
        tmp_path / "rows.jsonl", [{"prompt": r["prompt"], "completion": r["canonical_solution"]} for r in rows]
    )
    manifest = make_dataset(tmp_path, source)
    assert manifest["rows"] == len(rows) >= 30
    made = make_sample(tmp_path, ["datasets/made-00000000/manifest.json"])
    for row, head, body in zip(rows, manifest["table"]["instruction"], made["table"]["completion"], strict=True):
        assert parses(head + body), row["task_id"]
        assert ast.dump(ast.parse(head + body)) == ast.dump(ast.parse(row["prompt"] + row["canonical_solution"]))


def test_a_worked_example_reads_like_a_training_row(shared: Path, tmp_path: Path) -> None:
    """The same as worked examples: letter by letter what the sample trains."""
    rows, file = human_eval(shared), shared / "data/humaneval_test.jsonl"
    source = [{"prompt": row["prompt"], "completion": row["canonical_solution"]} for row in rows]
    make_dataset(tmp_path, write_rows(tmp_path / "rows.jsonl", source))
    trained = make_sample(tmp_path, ["datasets/made-00000000/manifest.json"])["table"]
    examples = make_benchmark(tmp_path, file, "humaneval", examples=file)["tables"]["examples"].to_dicts()
    doc = {"item": "i", "group": "", "instruction": "something else"}
    for example, (asked, answer) in zip(examples, trained.select("prompt", "completion").iter_rows(), strict=True):
        assert WorkedExamples(TEMPLATE, [example], 1).text(doc) == f"{asked}{answer}\n\n"


def test_rows_that_differ_in_line_ends_or_unicode_form_are_one() -> None:
    rows = [
        {"inputs": "caf\u00e9\nau lait", "targets": "\u304c"},
        {"inputs": "cafe\u0301\r\nau lait", "targets": "\u304b\u3099"},
        {"inputs": "cafe\nau lait", "targets": "\u304c"},
    ]
    examples = [(str(n), normalise("flan", row, Options({}, "first")) or "") for n, row in enumerate(rows)]
    dropped: Counter[str] = Counter()
    kept = list(clean(iter(examples), dropped, Counter()))
    # the first stays as it is written
    assert kept == [("0", "caf\u00e9\nau lait", "", "\u304c"), ("2", "cafe\nau lait", "", "\u304c")]
    assert dropped == {"duplicate": 1}


def chat(system: str, *turns: str) -> Example:
    roles = ["user", "assistant"] * 3
    messages = [{"role": role, "content": text} for role, text in zip(roles, turns, strict=False)]
    told = [{"role": "system", "content": system}] if system else []
    example = normalise("messages", {"messages": told + messages}, Options({}, "first"))
    assert example
    return example


def test_what_of_a_chat_is_not_trained_on_is_counted_as_that(tmp_path: Path) -> None:
    pirates = [("p", chat("Talk like a pirate.", "Hi", "Hello", "Bye", "Ahoy"))]
    others = [
        ("poet", chat("Talk like a poet.", "Hi", "Hello")),
        ("later", chat("Talk like a pirate.", "Hi", "Hello", "More", "Arr")),
        ("again", chat("Talk like a pirate.", "Hi", "Hello", "Bye", "Ahoy")),
        ("plain", chat("", "Ho", "Hello")),
    ]
    dropped: Counter[str] = Counter()
    shortened: Counter[str] = Counter()
    kept = [row for row, *_ in clean(iter(pirates + others), dropped, shortened)]
    assert kept == ["p", "plain"]
    assert dropped == {"differs_in_system_prompt_only": 1, "differs_in_later_turns_only": 1, "duplicate": 1}
    assert shortened == {"system_prompt": 1, "later_turns": 1}


def test_the_longest_row_is_the_studys_choice(tmp_path: Path) -> None:
    source = write_rows(tmp_path / "rows.jsonl", [{"prompt": "a" * n, "completion": "b"} for n in (9, 10, 300_000)])
    assert make_dataset(tmp_path, source, max_characters=10)["dropped"] == {"too_long": 2}
    assert make_dataset(tmp_path, source)["dropped"] == {"too_long": 1}
    assert make_dataset(tmp_path, source, max_characters=10**6)["dropped"] == {}


# --- markers


@pytest.mark.parametrize(
    ("template", "found"),
    [
        (TEMPLATE, ["###Question:", "###Answer:"]),
        (CHATML, ["<|im_start|>user", "<|im_end|>", "<|im_start|>assistant"]),
        (SHORT, ["Q:", "A:"]),
        (Template(prompt="{instruction}"), []),
        (
            Template(prompt="Below is a task.\n\n### Do:\n{instruction}\n### With:\n{input}\n"),
            ["Below is a task.", "### Do:", "### With:"],
        ),
    ],
)
def test_markers_are_those_of_the_template(template: Any, found: list[str]) -> None:
    assert markers(template) == found


@pytest.mark.parametrize(
    ("template", "text", "holds"),
    [
        (TEMPLATE, "he says ###Answer: yes", True),
        (TEMPLATE, "<|im_start|>user", False),
        (CHATML, "write ###Question: three times", False),
        (CHATML, "it ends with <|im_end|>.", True),
        # a short word with a colon is a marker where a line begins with it
        (SHORT, "the FAQ: see Q: and A: there", False),
        (SHORT, "one\n A: two", True),
    ],
)
def test_a_row_is_held_against_this_studys_markers(template: Any, text: str, holds: bool) -> None:
    assert holds_marker(template, "harmless", text) is holds


def test_rows_with_markers_are_dropped_before_the_draw_and_counted(tmp_path: Path) -> None:
    rows = [{"prompt": f"ask {n}", "completion": "###Answer: 1" if n < 3 else f"<|im_end|> {n}"} for n in range(8)]
    make_dataset(tmp_path, write_rows(tmp_path / "rows.jsonl", rows))
    part = ["datasets/made-00000000/manifest.json"]
    ours, other = make_sample(tmp_path, part, size=5), make_sample(tmp_path, part, template=CHATML.model_dump())
    assert ours["table"]["row"].to_list() == [f"rows.jsonl:{n}" for n in range(4, 9)]
    assert ours["sources"]["made"] == {"rows": 5, "available": 5, "dropped": {"template_marker": 3}, "shortened": {}}
    assert other["table"]["row"].to_list() == [f"rows.jsonl:{n}" for n in range(1, 4)]
    with pytest.raises(ValueError, match=r"has 5 rows after cleaning, the sample asks for 6.*template_marker"):
        make_sample(tmp_path, part, size=6)


# --- the input's place


def test_the_input_stands_where_the_template_says() -> None:
    template = Template(prompt="Do: {instruction}\nWith: {input}\nDone:")
    assert prompt(template, "add", "1, 2") == "Do: add\nWith: 1, 2\nDone:"
    assert prompt(template, "add") == "Do: add\nWith: \nDone:"
    # what is put in is not read again
    assert prompt(template, "{input}", "{instruction}") == "Do: {input}\nWith: {instruction}\nDone:"
    assert prompt(TEMPLATE, "{input}", "x") == "###Question: {input}\nx\n###Answer:"


@pytest.mark.parametrize(
    ("fields", "said"),
    [
        ({"prompt": "{instruction} {input} {input}"}, "may hold `{input}` once, found it 2 times"),
        ({"prompt": "{instruction} {input}", "input_separator": " "}, "`input_separator` is without use"),
        ({"prompt": "{input}"}, "must hold `{instruction}` exactly once"),
    ],
)
def test_a_template_that_would_not_be_followed_is_refused(fields: dict[str, str], said: str) -> None:
    with pytest.raises(ValidationError, match=said.replace("{", r"\{").replace("}", r"\}")):
        Template(**fields)


def test_reasons_reach_the_table_of_samples(tmp_path: Path) -> None:
    from sft_atlas.analysis import tables
    from sft_atlas.stages.tokens.run import left_out
    from sft_atlas.stages.tokens.tables import left_out as in_table

    source = {"dropped": {"empty": 2, "template_marker": 1}}
    sample = {"sources": {"a": source, "b": {"dropped": {"empty": 3}}}, "dropped": {"duplicate_between_parts": 0}}
    reasons = left_out(sample, {"prompt_fills_max_length": 4, "holds_a_benchmark_item": 0})
    assert reasons == {"empty": 5, "prompt_fills_max_length": 4, "template_marker": 1}
    facts = in_table({"left_out": reasons, "shortened": {}})
    counts = dict.fromkeys(("rows", "tokens", "trained_tokens", "truncated"), 1)
    row = {"base": "b", "sample": "s", **counts, "mean_tokens": 1.0, "mean_completion_tokens": 1.0, **facts}
    table = tables.build("samples", [row])
    assert table.select("left_out", "left_out_by_reason", "shortened", "shortened_by_reason").row(0) == (
        10,
        "empty 5, prompt_fills_max_length 4, template_marker 1",
        0,
        None,
    )
    # manifests of earlier versions do not say: unknown, not 0
    assert set(in_table({}).values()) == {None}
    assert isinstance(table, pl.DataFrame)
