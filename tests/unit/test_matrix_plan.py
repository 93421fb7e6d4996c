"""From a study's declaration to its cells, and from cells to jobs."""

from pathlib import Path

import pytest

from sft_atlas.errors import StudyError
from sft_atlas.nodes import Base, Dataset, RunKey, Sample
from sft_atlas.study.patterns import select
from sft_atlas.study.plan import Plan
from tests.unit.helpers import STUDY, matrix_of, plan_of, write_study


@pytest.fixture(scope="module")
def plan(tmp_path_factory: pytest.TempPathFactory) -> Plan:
    return plan_of(write_study(tmp_path_factory.mktemp("study")))


def test_samples_are_expanded_in_the_order_of_the_file(plan: Plan) -> None:
    samples = plan.matrix.samples
    assert list(samples) == ["math-40", "knowledge-40", "chats-40", "all", "without-math", "without-chats"]
    assert samples["math-40"].datasets == ("math",)
    assert samples["all"].parts == ("math-40", "knowledge-40", "chats-40")
    assert samples["all"].datasets == ("math", "knowledge", "chats")
    assert samples["without-math"].parts == ("knowledge-40", "chats-40")
    assert [sample.held_out for sample in samples.values()] == [None] * 4 + ["math", "chats"]
    assert [sample.dataset for sample in samples.values()][:4] == ["math", "knowledge", "chats", "all"]


def test_a_narrowed_plan_tells_its_report_what_it_leaves_out(plan: Plan) -> None:
    narrow = plan.narrowed("base=reader,block=main").study_specs(place="-partial")["report"]
    assert narrow.labels["part"] == {"only": "base=reader,block=main", "cells": 60, "left_out": 42}
    same = plan.narrowed("block=main,base=read*").study_specs(place="-partial")["report"]
    assert same.hash != narrow.hash
    assert plan.study_specs()["report"].labels["part"] is None


def test_a_narrowed_plan_misses_no_cell_outside_of_it(plan: Plan) -> None:
    expected = {(RunKey("reader", "all", "lora", 1), 2): "out of memory"}
    assert plan.narrowed("base=reader,block=mixtures").matrix.missing == expected
    assert plan.narrowed("base=calculator").matrix.missing == {}
    assert plan.narrowed("seed=0").matrix.missing == {}


def test_a_mixture_without_a_dataset_knows_the_whole_it_is_of(plan: Plan, tmp_path: Path) -> None:
    assert plan.labels()["left_out_of"] == {"without-math": "all", "without-chats": "all"}
    other = "pair: {mix: [math-40, chats-40]}\n  less-{dataset}: {mix: [knowledge-40, chats-40], leave_out: chats}"
    more = plan_of(write_study(tmp_path, ("  all: {mix", f"  {other}\n  all: {{mix")))
    assert more.labels()["left_out_of"] == {"less-chats": None, "without-math": "all", "without-chats": "all"}


def test_cells_are_the_blocks_products_with_their_exceptions(plan: Plan) -> None:
    runs = plan.matrix.runs
    main = [key for key in runs if key.recipe == "full"]
    assert len(main) == 3 * 3 * 2
    assert {tuple(runs[key].epochs) for key in main} == {(1, 2, 4)}
    assert [key for key in runs if key.recipe == "decay"] == [RunKey("calculator", "math-40", "decay", 0)]
    adapters = {(key.base, key.sample, key.seed) for key in runs if key.recipe == "lora"}
    assert adapters == {
        ("reader", "all", 0),
        ("reader", "without-math", 0),
        ("reader", "without-chats", 0),
        ("reader", "without-chats", 1),
        ("calculator", "all", 0),
    }
    assert plan.matrix.missing == {(RunKey("reader", "all", "lora", 1), 2): "out of memory"}
    assert plan.matrix.checkpoints == 18 * 3 + 1 + 5


def test_epochs_remember_their_blocks(tmp_path: Path) -> None:
    further = "further: {bases: reader, samples: math-40, recipes: full, seeds: [0], epochs: [3, 1]}"
    matrix = matrix_of(write_study(tmp_path, ("  schedules:", f"  {further}\n  schedules:")))
    epochs = matrix.runs[RunKey("reader", "math-40", "full", 0)].epochs
    assert epochs == {1: ["main", "further"], 2: ["main"], 3: ["further"], 4: ["main"]}
    assert list(epochs) == [1, 2, 3, 4]


def test_a_cell_that_another_block_runs_is_not_missing(tmp_path: Path) -> None:
    rescue = "rescue: {bases: reader, samples: all, recipes: lora, seeds: [1]}"
    matrix = matrix_of(write_study(tmp_path, ("  schedules:", f"  {rescue}\n  schedules:")))
    assert matrix.missing == {}
    assert RunKey("reader", "all", "lora", 1) in matrix.runs


def test_a_sample_of_several_datasets_needs_no_placeholder(tmp_path: Path) -> None:
    pooled = '"pooled": {datasets: [math, "k*"], size: 10}\n  all:'
    matrix = matrix_of(write_study(tmp_path, ("all:", pooled)))
    assert matrix.samples["pooled"].datasets == ("math", "knowledge")
    assert matrix.samples["pooled"].dataset == "pooled"
    assert matrix.samples["all"].parts == ("math-40", "knowledge-40", "chats-40")


@pytest.mark.parametrize(
    ("patterns", "chosen"),
    [
        (["*"], ["b1", "a1", "B2"]),
        (["a1", "b1"], ["b1", "a1"]),
        (["?1", "B*"], ["b1", "a1", "B2"]),
        (["[ab]1"], ["b1", "a1"]),
    ],
)
def test_patterns_select_in_the_order_of_the_names(patterns: list[str], chosen: list[str]) -> None:
    assert select(patterns, ["b1", "a1", "B2"], "base", "here") == chosen


def test_every_input_is_the_output_of_another_job(plan: Plan) -> None:
    made = set(plan.by_output)
    assert len(made) == len({spec.file for spec in plan.by_output.values()})
    for output, spec in plan.by_output.items():
        assert set(spec.input_files()) <= made - {output}
        assert spec.hash in spec.file


def test_jobs_are_shared_and_counted(plan: Plan) -> None:
    counted = {stage: len(plan.select(stage)) for stage in {spec.stage for spec in plan.by_output.values()}}
    assert counted == {
        "dataset": 3,
        "sample": 6,
        "benchmark": 2,
        "tokenizer": 1,
        "base": 3,
        # 3 samples × 2 tokenizers, 3 mixtures × the micro tokenizer
        "tokens": 9,
        "perplexity": 3,
        "similarity": 6,
        "contamination": 6,
        "compared": 6,
        "train": 24,
        "weights": 24,
        "evaluate": 24 + 3,
    }


def test_only_what_is_used_is_planned(tmp_path: Path) -> None:
    others = STUDY[STUDY.index("  schedules:") : STUDY.index("benchmarks:")]
    main = ('{bases: "*", samples: "*-40", recipes: full}', "{bases: reader, samples: math-40, recipes: full}")
    plan = plan_of(write_study(tmp_path, (others, ""), main))
    assert plan.bases == ["reader"]
    assert [spec.key for spec in plan.select("dataset")] == [Dataset("math")]
    assert [spec.key for spec in plan.select("sample")] == [Sample("math-40")]


def test_a_run_leads_to_training_scores_and_weights(plan: Plan) -> None:
    key = RunKey("reader", "all", "lora", 0)
    folder = str(Path(plan.job("train", key).output).parent)
    assert folder == f"runs/reader/all/lora-{plan.job('train', key).identity['run']}"
    assert [Path(path).name.partition("-")[0] for path in plan.of_run(key)] == ["train", "scores", "weights"]
    assert all(path.startswith(folder) for path in plan.of_run(key))
    assert set(plan.of_run(key)) < set(plan.of_base("reader"))
    assert not set(plan.of_run(key)) & set(plan.of_base("calculator"))


def test_a_block_is_its_runs_and_the_scores_of_their_bases(plan: Plan) -> None:
    paths = plan.of_block("schedules")
    key = RunKey("calculator", "math-40", "decay", 0)
    assert paths == [plan.job("evaluate", Base("calculator")).output, *plan.of_run(key)]


def test_results_are_all_that_tables_are_collected_from(plan: Plan) -> None:
    collect = plan.study_specs()["collect"]
    assert collect.input_files() == plan.collected()
    stages = {plan.by_output[path].stage for path in plan.collected()}
    assert stages == {"tokens", "similarity", "contamination", "perplexity", "evaluate", "train", "weights"}


def test_what_is_not_there_is_collected_as_missing(plan: Plan) -> None:
    key = RunKey("reader", "all", "lora", 0)
    absent = {plan.job("weights", key).output, plan.job("evaluate", Base("reader")).output}
    spec = plan.study_specs(lambda path: path not in absent, "/partial")["collect"]
    assert spec.output == f"{plan.name}/partial/collect.json"
    (cell,) = (
        run
        for run in spec.identity["runs"]
        if RunKey(*(run[name] for name in ("base", "sample", "recipe", "seed"))) == key
    )
    assert (cell["weights"], cell["train"]) == (None, plan.job("train", key).output)
    assert spec.identity["bases"]["reader"]["scores"] is None
    assert not absent & set(spec.input_files())
    assert spec.hash != plan.study_specs()["collect"].hash


@pytest.mark.parametrize(
    ("only", "runs"),
    [
        ("base=reader", 6 + 4),
        ("base=reader,block=main", 6),
        ("sample=math-*,recipe=full", 6),
        ("seed=1,base=calculator,base=fetched", 6),
        ("block=mixtures,sample=all", 2),
        (" base=reader , seed=0 ", 3 + 3),
    ],
)
def test_a_run_can_be_narrowed(only: str, runs: int, plan: Plan) -> None:
    narrowed = plan.narrowed(only)
    assert len(narrowed.matrix.runs) == runs
    assert set(narrowed.bases) == {key.base for key in narrowed.matrix.runs}
    assert set(narrowed.collected()) < set(plan.collected())
    assert all(narrowed.job("train", key) == plan.job("train", key) for key in narrowed.matrix.runs)
    assert narrowed.by_output == plan.by_output


@pytest.mark.parametrize(
    "only", ["reader", "bases=reader", "base=", "base=none", "base=reader,,", "=reader", "epoch=1"]
)
def test_a_wrong_selection_is_refused(only: str, plan: Plan) -> None:
    with pytest.raises(StudyError, match=r"config\.yaml: only: "):
        plan.narrowed(only)


def test_no_selection_is_the_whole_study(plan: Plan) -> None:
    assert plan.narrowed("") is plan
