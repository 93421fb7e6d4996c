"""The whole pipeline on real rows, with micro bases: scores are at chance, what counts is that every layout passes."""

from collections.abc import Callable
from pathlib import Path

import polars as pl
import pytest

from tests.conftest import Repository, fresh


@pytest.fixture(scope="module")
def real_rows(tmp_path_factory: pytest.TempPathFactory, shared: Path) -> Repository:
    repository = fresh(tmp_path_factory.mktemp("real") / "project", "tests/studies/real-rows.yaml")
    # the study says ../shared, as seen from the repository's root
    (repository.folder.parent / "shared").symlink_to(shared)
    repository.snakemake()
    return repository


def test_every_benchmark_scores_every_run(real_rows: Repository) -> None:
    scores = pl.read_parquet(real_rows.folder / "results/real-rows/tables/scores.parquet")
    # seven runs and the base; gsm8k and mmlu with two numbers of shots, the other four with one
    assert scores.height == 8 * 8
    unscored = scores.filter(pl.col("score").is_null())
    assert unscored["benchmark"].unique().to_list() == ["mbpp"]
    assert (unscored["n"] == 0).all()


def test_code_is_generated_and_kept_but_not_run(real_rows: Repository) -> None:
    base = next((real_rows.folder / "results/bases").glob("small-llama-*"))
    table = pl.read_parquet(next(base.glob("scores-*.parquet"))).filter(benchmark="mbpp")
    items = pl.read_parquet(base / table["items"][0])
    assert items.height == 6
    assert items["score"].null_count() == 6
    assert items["response"].null_count() == 0


def test_cards_say_what_was_used(real_rows: Repository) -> None:
    cards = {path.parent.name: path.read_text() for path in (real_rows.folder / "results/tokens").rglob("card.md")}
    assert len(cards) == 7
    ultrachat = next(card for name, card in cards.items() if name.startswith("ultrachat"))
    assert "rows: 4 (asked for 30 of each dataset)" in ultrachat


def test_the_report_is_made(real_rows: Repository) -> None:
    assert "mbpp" in (real_rows.folder / "results/real-rows/report.html").read_text()


def test_a_broken_row_stops_before_training(project: Callable[[str], Repository], shared: Path) -> None:
    repository = project("tests/studies/real-rows.yaml")
    rows = (shared / "data/alpaca_cleaned.jsonl").read_text().splitlines()
    rows[4] = '{"instruction": "What is this?", "input": ""}'
    (repository.folder / "broken.jsonl").write_text("\n".join(rows))
    (repository.folder.parent / "shared").symlink_to(shared)
    repository.edit("tests/studies/real-rows.yaml", "../shared/data/alpaca_cleaned.jsonl", "broken.jsonl")
    done = repository.snakemake("prepare", check=False)
    assert done.returncode != 0
    assert "broken.jsonl:5: column 'output' is missing; found input, instruction (format alpaca)" in done.stderr
    assert not (repository.folder / "results/runs").exists()
