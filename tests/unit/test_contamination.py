"""Rows that hold a benchmark's items are found, whatever stands around the item; others are not."""

from pathlib import Path

import polars as pl
import pytest

from sft_atlas.data.formats import Options, normalise
from sft_atlas.data.sources import local_files, read_rows
from sft_atlas.stages.benchmark.run import LAYOUTS
from sft_atlas.stages.contamination.run import overlaps

QUESTION = "A farmer has twelve red hens and sells five of them to a neighbour. How many hens does the farmer keep?"


def rows(*prompts: str) -> pl.DataFrame:
    return pl.DataFrame(
        [(str(i), "set", f"###Question: {prompt}\n###Answer:", " some answer") for i, prompt in enumerate(prompts)],
        schema=["row", "dataset", "prompt", "completion"],
        orient="row",
    )


def items(*texts: str) -> dict[str, pl.DataFrame]:
    return {"bench": pl.DataFrame({"item": [f"item{i}" for i in range(len(texts))], "instruction": list(texts)})}


@pytest.mark.parametrize(
    ("row", "share"),
    [
        (QUESTION, 1.0),
        (QUESTION.upper().replace(".", " !"), 1.0),
        (f"Please solve: {QUESTION} Think first.", 1.0),
        # 21 words make 14 runs of eight; a changed last word spoils one
        (QUESTION.replace("keep?", "hold?"), 13 / 14),
    ],
)
def test_an_item_is_found_in_a_row(row: str, share: float) -> None:
    found = overlaps(rows("something else entirely, of many other words than those", row), items(QUESTION), 8, 0.7)
    assert found.select("row", "benchmark", "item").rows() == [("1", "bench", "item0")]
    assert found["overlap"][0] == pytest.approx(share)


def test_the_threshold_decides() -> None:
    half = rows(QUESTION[: len(QUESTION) // 2])
    assert overlaps(half, items(QUESTION), 8, 0.7).height == 0
    assert overlaps(half, items(QUESTION), 8, 0.1).height == 1


def test_short_items_count_whole_and_the_shortest_not_at_all() -> None:
    table = items("capital of France today", "two words")
    found = overlaps(rows("What is the capital of France today? In two words."), table, 8, 0.7)
    assert found["item"].to_list() == ["item0"]


def test_scripts_without_spaces_are_compared_by_character() -> None:
    found = overlaps(
        rows("次の問題：在农业生产中被当作极其重要的劳动对象"), items("在农业生产中被当作极其重要的劳动对象"), 8, 0.7
    )
    assert found.height == 1


def test_real_rows_that_share_a_passage_are_found(shared: Path) -> None:
    options = Options({}, "first")
    data = shared / "data"

    def drawn(path: Path, format_name: str) -> pl.DataFrame:
        table = []
        for row_id, row in read_rows(local_files([path])):
            example = normalise(format_name, row, options)
            if example:
                table.append((row_id, path.stem, example.instruction, " " + example.completion))
        return pl.DataFrame(table, schema=["row", "dataset", "prompt", "completion"], orient="row")

    def benchmark(name: str, format_name: str) -> pl.DataFrame:
        read = LAYOUTS[format_name].read
        table = [(row_id, read(row).instruction) for row_id, row in read_rows(local_files([data / f"{name}.jsonl"]))]
        return pl.DataFrame(table, schema=["item", "instruction"], orient="row")

    benchmarks = {"boolq": benchmark("boolq_validation", "boolq"), "gsm8k": benchmark("gsm8k_main_test", "gsm8k")}
    found = overlaps(drawn(data / "standin/flan_knowledge.jsonl", "flan"), benchmarks, 8, 0.7)
    assert found["benchmark"].unique().to_list() == ["boolq"]
    solutions = drawn(data / "standin/openmathinstruct1.jsonl", "openmath")
    assert overlaps(solutions, benchmarks, 8, 0.7).height == 0
