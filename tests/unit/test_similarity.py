"""Shared wording of a sample and a benchmark, on texts small enough to count by hand."""

from pathlib import Path

import polars as pl
import pytest

from sft_atlas.data.ngrams import ngrams
from sft_atlas.stages.similarity.run import containment
from tests.unit.helpers import content, do, stand_in


@pytest.mark.parametrize(
    ("text", "n", "grams"),
    [
        ("The cat sat.", 2, [("the", "cat"), ("cat", "sat")]),
        ("The cat", 3, [("the", "cat")]),
        ("The CAT_sat, 3.5!", 1, [("the",), ("cat",), ("sat",), ("3",), ("5",)]),
        ("don't", 2, [("don", "t")]),
        ("猫が座る", 3, [("猫", "が", "座"), ("が", "座", "る")]),
        ("GPU上で run", 2, [("gpu", "上"), ("上", "で"), ("で", "run")]),
        ("한국어 ok", 1, [("한",), ("국",), ("어",), ("ok",)]),
        ("Übung größer", 2, [("übung", "größer")]),
        ("!?", 1, []),
        ("", 3, []),
    ],
)
def test_words_are_counted_in_runs(text: str, n: int, grams: list[tuple[str, ...]]) -> None:
    assert list(ngrams(text, n)) == grams


def test_containment_is_the_mean_share_of_known_ngrams() -> None:
    known = {("the", "cat"), ("cat", "sat")}
    texts = ["The cat sat", "the cat ran", "a dog", "the cat, the cat"]
    # 2 of 2, 1 of 2, 0 of 1; and of the last one's distinct two (the cat, cat the) 1
    assert containment(texts, known, 2) == pytest.approx((1 + 0.5 + 0 + 0.5) / 4)


def test_texts_without_words_do_not_count() -> None:
    assert containment(["the cat", "!!", ""], {("the", "cat")}, 2) == 1.0
    assert containment(["!!", ""], {("the", "cat")}, 2) is None


def test_the_stage_compares_every_benchmark_with_the_whole_sample(tmp_path: Path) -> None:
    rows = pl.DataFrame({"prompt": ["Q: the cat\nA:", "Q: a dog\nA:"], "completion": [" sat down", " ran"]})
    sample = stand_in(tmp_path, "samples/s-00000000", rows, "rows.parquet")
    benchmarks = {
        name: stand_in(tmp_path, f"benchmarks/{name}-00000000", pl.DataFrame({"instruction": texts}), "items.parquet")
        for name, texts in {
            # the words of prompt and completion are joined: `a sat` and `sat down` are in, `the dog` is not
            "b": ["a sat down", "the dog"],
            "a": ["the cat", "a dog", "q the"],
            "c": ["?"],
        }.items()
    }
    inputs = {"sample": sample, "benchmarks": benchmarks}
    identity = {"sample": "0" * 8, "benchmarks": dict.fromkeys(benchmarks, "0" * 8), "options": {"ngram": 2}}
    spec = content("similarity", "samples/s-00000000/similarity-0.parquet", identity, inputs)
    do(spec, tmp_path)
    assert pl.read_parquet(tmp_path / spec["output"]).rows() == [("a", 1.0, 3), ("b", 0.5, 2), ("c", None, 1)]
