"""Measuring never trains: weights that were released are restored by jobs of their own, once for all that need them."""

import json
import re
from pathlib import Path

import polars as pl
import pytest

from sft_atlas.hashing import sha256
from tests.conftest import Repository
from tests.rerun.test_yesterday import unpacked

ONE = "base=reader,sample=math-40"
STUDY = "tests/studies/yesterday.yaml"
READING = """\
benchmarks:
  math: {micro: {topic: math, items: 20}, matches: [math]}
  facts: {micro: {topic: facts_choice, items: 20}, matches: [knowledge]}
  reading: {micro: {topic: reading, items: 20}}
"""


@pytest.fixture(scope="module")
def measured(tmp_path_factory: pytest.TempPathFactory) -> Repository:
    """Yesterday's results, whose weights are released, after one more benchmark on one run."""
    repository = unpacked(tmp_path_factory.mktemp("restored") / "project")
    repository.edit(STUDY, "keep_weights: none\n", f"keep_weights: none\n{READING}")
    planned = repository.snakemake("--dry-run", only=ONE).stdout
    assert re.search(r"^restore_weights +1$", planned, flags=re.MULTILINE)
    repository.snakemake(only=ONE)
    return repository


def folder(repository: Repository) -> Path:
    return next((repository.folder / "results/runs/reader/math-40").glob("full-*"))


def test_a_new_benchmark_restores_the_weights_once_and_releases_them_again(measured: Repository) -> None:
    run = folder(measured)
    outputs = [path for path in run.glob("restore-*.json") if path.name.count(".") == 1]
    assert len(outputs) == 1
    # both epochs were trained again, in one job, for scores and likelihoods alike
    assert json.loads(outputs[0].read_text()) == {"decoded": [], "trained": [1, 2]}
    spec = json.loads(next(run.glob("restore-*.spec.json")).read_text())
    assert len(spec["identity"]["readers"]) == 2
    assert not list(run.glob("epoch-*/model/*.safetensors"))
    assert len([path for path in run.glob("release-*.json") if path.name.count(".") == 1]) == 2
    scores = [pl.read_parquet(path) for path in run.glob("scores-*.parquet")]
    assert sorted(table["benchmark"].n_unique() for table in scores) == [2, 3]


def test_what_was_restored_is_what_was_measured_before(measured: Repository) -> None:
    """Scores of the old benchmarks were not computed again, and those of the new one are of the same weights."""
    run = folder(measured)
    old, new = sorted((pl.read_parquet(path) for path in run.glob("scores-*.parquet")), key=lambda table: table.height)
    kept = new.filter(pl.col("benchmark") != "reading")
    assert kept["items"].sort().to_list() == old["items"].sort().to_list()
    for record in run.glob("epoch-*/scores/*.json"):
        made_from = json.loads(record.read_text())["made_from"]
        assert any(made_from["model"] == sha256(path) for path in run.glob("epoch-*/checkpoint.json"))


@pytest.mark.parametrize("arguments", [(), ("--profile", "local")], ids=["plain", "profile"])
def test_afterwards_nothing_is_left_to_do(measured: Repository, arguments: tuple[str, ...]) -> None:
    assert "Nothing to be done" in measured.snakemake("--dry-run", *arguments, only=ONE).stdout


def test_a_restoring_job_is_no_input_of_a_finished_one(measured: Repository) -> None:
    """Its output may go; what was made from it stays valid."""
    for path in folder(measured).glob("restore-*.json"):
        if path.name.count(".") == 1:
            path.rename(path.with_suffix(".gone"))
    assert "Nothing to be done" in measured.snakemake("--dry-run", only=ONE).stdout
