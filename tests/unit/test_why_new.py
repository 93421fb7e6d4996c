"""`sft-atlas why` of cells that were never planned: they are new, whatever other cells were planned before."""

import shutil
from pathlib import Path

import pytest

from sft_atlas.commands.why import Reasons
from sft_atlas.files import write_json
from sft_atlas.nodes import Base, RunKey
from sft_atlas.study.plan import Plan
from tests.unit.helpers import plan_of, write_study


@pytest.fixture
def results(tmp_path: Path) -> Path:
    """Every specification of the study is frozen, as after a run whose outputs were cleared away."""
    folder = tmp_path / "results"
    for spec in plan_of(write_study(tmp_path)).specs.values():
        write_json(folder / spec.file, spec.content())
    return folder


def said(plan: Plan, results: Path, base: str, sample: str, recipe: str, seed: int = 0) -> str:
    """The first reason that is given for training a cell."""
    spec = plan.job("train", RunKey(base, sample, recipe, seed))
    return Reasons(plan, results).explain(spec.output)[1].strip()


def test_a_cell_of_a_new_base_is_new(results: Path, tmp_path: Path) -> None:
    edit = ("  reader:\n", "  calculator-2:\n    micro: {seed: 9, positions: 2048}\n  reader:\n")
    plan = plan_of(write_study(tmp_path, edit))
    new = "the output is missing: it is new, nothing of this name was planned before"
    assert said(plan, results, "calculator-2", "math-40", "full") == new
    base = plan.job("base", Base("calculator-2")).output
    assert Reasons(plan, results).explain(base)[1].strip() == new


def test_a_cell_whose_names_differ_in_a_number_is_new(results: Path, tmp_path: Path) -> None:
    edit = ('"{dataset}-40": {datasets: "*", size: 40}', '"{dataset}-50": {datasets: "*", size: 50}')
    text = (tmp_path / "study.yaml").read_text()
    for old, new in (edit, ('"*-40"', '"*-50"'), ("math-40", "math-50")):
        text = text.replace(old, new)
    (tmp_path / "other.yaml").write_text(text)
    plan = plan_of(tmp_path / "other.yaml")
    assert said(plan, results, "calculator", "math-50", "full").endswith(
        "it is new, nothing of this name was planned before"
    )


def test_a_field_that_changed_and_a_new_seed_are_told_as_before(results: Path, tmp_path: Path) -> None:
    plan = plan_of(write_study(tmp_path, ("learning_rate: 5e-3", "learning_rate: 4e-3")))
    assert "it was planned before as runs/reader/all/lora-" in said(plan, results, "reader", "all", "lora")
    plan = plan_of(write_study(tmp_path, ("seeds: [0, 1]\n", "seeds: [0, 1, 2]\n")))
    assert "another cell is runs/calculator/math-40/full-" in said(plan, results, "calculator", "math-40", "full", 2)
    shutil.rmtree(results)
    assert "it is new" in said(plan, results, "calculator", "math-40", "full", 2)
