"""The declared hyper-parameter search: its number of candidates, its winners, and that it is a study of its own."""

import pytest

from sft_atlas.study.build import build_plan
from sft_atlas.study.load import load_study
from sft_atlas.study.matrix import expand
from sft_atlas.study.plan import Plan
from tests.conftest import ROOT


def plan_of(name: str) -> Plan:
    path = ROOT / f"studies/{name}.yaml"
    study = load_study(path)
    return build_plan(study, expand(study, path), name)


@pytest.fixture(scope="module")
def grid() -> Plan:
    return plan_of("grid")


def test_the_search_has_as_many_candidates_as_the_published_one(grid: Plan) -> None:
    assert grid.matrix.checkpoints == 5760
    assert len(grid.matrix.runs) == len(grid.select("train")) == 576
    assert grid.bases == ["Meta-Llama-3-8B"]
    assert grid.labels()["selection"]["options"]["benchmarks"] == ["mmlu", "mt_bench"]
    stages = [spec.stage for spec in grid.needed()]
    assert {stage: stages.count(stage) for stage in ("train", "evaluate", "weights", "release")} == {
        "train": 576,
        "evaluate": 577,
        "weights": 576,
        "release": 576,
    }


def test_it_holds_the_values_that_were_chosen(grid: Plan) -> None:
    published = load_study(ROOT / "studies/massive-sft.yaml").recipes
    for winner, name in (("full-cosine", "full-lr1e-5-b32-wd0"), ("lora-cosine", "lora-lr2e-6-b128-wd0")):
        assert grid.study.recipes[name].model_copy(update={"keep": None}) == published[winner]


def test_its_models_are_not_among_the_published_ones_and_add_nothing_to_them(grid: Plan) -> None:
    published = plan_of("massive-sft")
    assert published.matrix.checkpoints == 1070
    assert not {spec.output for spec in grid.select("train")} & {spec.output for spec in published.select("train")}
    # a run is the same one only where every scientific field is: the two winners on this base and sample
    shared = {spec.identity["run"] for spec in grid.select("train")} & {
        spec.identity["run"] for spec in published.select("train")
    }
    assert len(shared) == 2


def test_the_micro_search_varies_all_that_the_published_one_did() -> None:
    small, large = plan_of("grid-micro"), plan_of("grid")
    for name in ("method", "learning_rate", "batch_size", "weight_decay"):
        for plan in (small, large):
            assert len({getattr(recipe, name) for recipe in plan.study.recipes.values()}) > 1
    assert len(small.matrix.runs) == 16
    assert small.matrix.checkpoints == 32
