"""The published study's declaration against the released results table, cell by cell."""

import csv
from collections import Counter
from pathlib import Path

import pytest

from sft_atlas.nodes import RunKey
from sft_atlas.study.build import build_plan
from sft_atlas.study.load import load_study
from sft_atlas.study.matrix import Matrix, expand
from sft_atlas.study.plan import Plan
from tests.conftest import ROOT

PATH = ROOT / "studies/massive-sft.yaml"
Cell = tuple[str, str, bool, int, str]


@pytest.fixture(scope="module")
def plan() -> Plan:
    study = load_study(PATH)
    return build_plan(study, expand(study, PATH), PATH.stem)


@pytest.fixture(scope="module")
def matrix(plan: Plan) -> Matrix:
    return plan.matrix


def test_counts(plan: Plan, matrix: Matrix) -> None:
    assert matrix.checkpoints == 1070
    assert len(matrix.runs) == len(plan.select("train")) == 341
    assert len(plan.bases) == 12
    assert len(plan.select("benchmark")) == 13
    assert len(matrix.subsets["published"]) == 1016
    blocks = Counter(block for run in matrix.runs.values() for names in run.epochs.values() for block in names)
    assert blocks == {"single": 240, "all": 240, "leave-one-out": 20, "epochs-1k": 300, "epochs-20k": 270}


def test_the_published_subset_is_the_released_table(matrix: Matrix, shared: Path) -> None:
    with (shared / "published/evaluation_result.csv").open() as file:
        rows = list(csv.DictReader(file))
    tuned = [row for row in rows if row["data_name"] != "pretrain"]
    assert len(tuned) == 1016
    assert Counter(map(_row_cell, tuned)) == Counter(
        _cell(matrix, key, epoch) for key, epoch in matrix.subsets["published"]
    )
    bases = {row["model_name"] for row in rows if row["data_name"] == "pretrain"}
    assert bases == {key.base for key, _ in matrix.subsets["published"]}
    assert len(bases) == 11


def _row_cell(row: dict[str, str]) -> Cell:
    size = {"1000.0": "-1k", "20000.0": "-20k"}.get(row["data_size"], "")
    name = row["data_name"].replace("w/o-", "without-") + size
    return row["model_name"], name, row["lora"] == "true", int(row["epoch"]), row["lr_strategy"]


def _cell(matrix: Matrix, key: RunKey, epoch: int) -> Cell:
    method, schedule = key.recipe.split("-")
    assert key.sample in matrix.samples
    return key.base, key.sample, method == "lora", epoch, schedule


def test_an_epoch_is_shared_only_where_it_is_a_shorter_run(plan: Plan) -> None:
    """Of a constant schedule, one run serves all epochs; a cosine run of another length is another run."""
    constant = plan.select("train", recipe="full-constant")
    assert len(constant) == 57
    assert all("epochs" not in spec.identity["settings"]["recipe"] for spec in constant)
    cosine = [spec for spec in plan.select("train") if spec not in constant]
    assert len(cosine) == 341 - 57
    assert all(spec.identity["settings"]["recipe"]["epochs"] == 10 for spec in cosine)


def test_nothing_is_trained_twice(plan: Plan) -> None:
    runs = [spec.identity["run"] for spec in plan.select("train")]
    assert len(set(runs)) == len(runs) == 341


def test_the_subset_can_be_run_alone(plan: Plan) -> None:
    published = plan.narrowed("subset=published")
    assert "Swallow-MS-7b-v0.1" not in published.bases
    # Gemma2 in full on magicoder and on the mixture are whole runs; LIMA loses an epoch only
    assert len(published.matrix.runs) == 341 - 22 - 2
    assert all(published.job("train", key) is plan.job("train", key) for key in published.matrix.runs)


def test_the_same_matrix_in_small(matrix: Matrix) -> None:
    path = ROOT / "studies/massive-micro.yaml"
    small = expand(load_study(path), path)
    assert small.runs.keys() == matrix.runs.keys()
    assert {key: run.epochs for key, run in small.runs.items()} == {key: run.epochs for key, run in matrix.runs.items()}
    assert small.subsets == matrix.subsets
