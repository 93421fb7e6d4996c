"""The ranking of a hyper-parameter search, against numbers worked out by hand."""

from pathlib import Path
from typing import Any

import polars as pl
import pytest

from sft_atlas.analysis import tables
from sft_atlas.analysis.findings import analyse
from sft_atlas.analysis.selection import selection
from sft_atlas.errors import StudyError
from sft_atlas.report.page import build
from sft_atlas.study.analyses import AnalysisOptions
from sft_atlas.study.grid import search_facts
from sft_atlas.study.load import load_study
from tests.unit.helpers import STUDY, matrix_of, write_study

RECIPE = {
    "schedule": "cosine",
    "warmup_steps": 0,
    "batch_size": 32,
    "weight_decay": 0.0,
    "max_gradient_norm": 1.0,
    "max_length": 128,
    "precision": "fp32",
    "optimizer": "adamw",
    "batching": "shuffled",
    "lora_rank": None,
    "lora_alpha": None,
}
RECIPES = {name: RECIPE | {"learning_rate": rate} for name, rate in (("slow", 1e-5), ("fast", 1e-3), ("mid", 1e-4))}


def gain(recipe: str, epoch: int, benchmark: str, value: float, stderr: float | None = 0.03, **other: Any) -> Any:
    return {
        "base": "b",
        "sample": "s",
        "recipe": recipe,
        "seed": 0,
        "epoch": epoch,
        "benchmark": benchmark,
        "shots": 0,
        "metric": "accuracy",
        "gain": value,
        "stderr": stderr,
        "n": 100,
        "score": 0.5,
        "base_score": 0.5 - value,
        "matched": False,
        "dataset": "d",
        "method": "full",
        "schedule": "cosine",
        **other,
    }


def ranked(rows: list[Any], **options: Any) -> dict[tuple[str, int], dict[str, Any]]:
    """Rows of the table by recipe and epoch; benchmarks x and y judge unless others are named."""
    declared = {"options": {"benchmarks": ["x", "y"], **options}, "recipes": RECIPES}
    table = selection(tables.build("gains", rows), declared, 0.95)
    return {(row["recipe"], row["epoch"]): row for row in table.iter_rows(named=True)}


PAIRS = [
    gain("slow", 1, "x", 0.10, 0.03),
    gain("slow", 1, "y", 0.02, 0.04),
    gain("mid", 1, "x", 0.20, 0.03),
    gain("mid", 1, "y", -0.04, 0.04),
    gain("fast", 1, "x", 0.08, 0.03),
    gain("fast", 1, "y", 0.08, 0.04),
    # not asked for
    gain("slow", 1, "z", 0.9, 0.01),
]


def test_the_mean_gain_ranks_and_its_error_combines_the_benchmarks() -> None:
    rows = ranked(PAIRS)
    assert {key[0]: row["rank"] for key, row in rows.items()} == {"slow": 3, "mid": 1, "fast": 1}
    assert rows["mid", 1]["value"] == pytest.approx(0.08)
    # sqrt(0.03² + 0.04²) / 2, and 1.959964 of it on either side
    assert rows["mid", 1]["stderr"] == pytest.approx(0.025)
    assert rows["mid", 1]["ci_high"] == pytest.approx(0.08 + 0.0489991, abs=1e-6)
    assert rows["mid", 1]["judges"] == "x,y"
    assert rows["slow", 1]["gain"] == pytest.approx(0.06)


def test_equal_values_are_decided_by_what_is_preferred() -> None:
    equal = [gain(recipe, epoch, "x", 0.1) for recipe in ("fast", "slow") for epoch in (1, 2)]
    assert ranked(equal)["slow", 1]["chosen"]
    rows = ranked([{**row, "gain": 0.1 + 0.001 * row["epoch"]} for row in equal], prefer=["epoch"])
    # rank comes before the name where nothing else is preferred
    assert [key for key, row in rows.items() if row["chosen"]] == [("fast", 2)]
    assert [row["rank"] for row in rows.values()].count(1) == 2


def test_ties_within_standard_errors_of_the_best_give_the_cheaper_one() -> None:
    rows = [gain("fast", 2, "x", 0.20, 0.04), gain("fast", 1, "x", 0.17, 0.01), gain("slow", 1, "x", 0.15, 0.01)]
    assert ranked(rows)["fast", 2]["chosen"]
    one = ranked(rows, ties=1.0)
    assert one["fast", 1]["chosen"] and one["fast", 1]["rank"] == 2
    assert [row["tied"] for row in one.values()] == [True, True, False]
    assert ranked(rows, ties=1.5)["slow", 1]["chosen"]


def test_the_worst_gain_and_the_mean_rank_choose_otherwise() -> None:
    worst = ranked(PAIRS, statistic="worst_gain")
    assert worst["fast", 1]["chosen"] and worst["fast", 1]["value"] == pytest.approx(0.08)
    assert worst["mid", 1]["rank"] == 3 and worst["mid", 1]["stderr"] == 0.04
    places = ranked([*PAIRS, gain("fast", 1, "w", 0.5), gain("slow", 1, "w", 0.5), gain("mid", 1, "w", 0)],
                    statistic="mean_rank", benchmarks=["x", "y", "w"])  # fmt: skip
    # x: mid, slow, fast; y: fast, slow, mid; w: fast and slow share 1.5
    assert places["fast", 1]["value"] == pytest.approx((3 + 1 + 1.5) / 3)
    assert places["slow", 1]["value"] == pytest.approx((2 + 2 + 1.5) / 3)
    assert places["mid", 1]["value"] == pytest.approx((1 + 3 + 3) / 3)
    assert places["fast", 1]["rank"] == places["slow", 1]["rank"] == 1
    assert places["fast", 1]["stderr"] is None


def test_a_candidate_that_lacks_a_judging_score_has_no_rank() -> None:
    rows = ranked([row for row in PAIRS if (row["recipe"], row["benchmark"]) != ("mid", "y")])
    assert rows["mid", 1]["rank"] is rows["mid", 1]["value"] is rows["mid", 1]["gain"] is None
    assert not rows["mid", 1]["tied"] and not rows["mid", 1]["chosen"]
    assert rows["fast", 1]["chosen"]


def test_a_benchmark_that_nobody_has_does_not_judge() -> None:
    rows = ranked([row for row in PAIRS if row["benchmark"] != "y"])
    assert rows["mid", 1]["judges"] == "x"
    assert rows["mid", 1]["value"] == pytest.approx(0.2)


def test_there_is_a_choice_for_each_group() -> None:
    rows = [gain("slow", 1, "x", 0.1), gain("fast", 1, "x", 0.3, method="lora"), gain("slow", 1, "x", 0.2, base="c")]

    def chosen(by: list[str]) -> list[tuple[Any, ...]]:
        declared = {"options": {"benchmarks": ["x"], "by": by}, "recipes": RECIPES}
        table = selection(tables.build("gains", rows), declared, 0.95).filter("chosen")
        return table.select("base", "sample", "method", "recipe").rows()

    assert chosen(["base", "method"]) == [
        ("b", None, "lora", "fast"),
        ("b", None, "full", "slow"),
        ("c", None, "full", "slow"),
    ]
    assert chosen(["base", "sample"]) == [("b", "s", "lora", "fast"), ("c", "s", "full", "slow")]
    # over both bases `fast` lacks a cell
    assert chosen([]) == [(None, None, "full", "slow")]


def test_seeds_and_shots_are_averaged_and_do_not_narrow_the_error() -> None:
    rows = [gain("slow", 1, "x", value, error, seed=seed, shots=shots)
            for value, error, seed, shots in ((0.1, 0.02, 0, 0), (0.2, 0.04, 1, 0), (0.3, 0.03, 0, 5))]  # fmt: skip
    row = ranked([*rows, gain("slow", 1, "y", 0.0, 0.0)])["slow", 1]
    assert row["value"] == pytest.approx(((0.15 + 0.3) / 2 + 0) / 2)
    assert row["stderr"] == pytest.approx(0.03 / 2)
    assert (row["n_runs"], row["n_cells"], row["n_benchmarks"]) == (2, 3, 2)


def test_judges_points_are_brought_to_the_scale_of_fractions() -> None:
    row = ranked([gain("slow", 1, "x", 0.9, 0.18, metric="judge_1_10")])["slow", 1]
    assert (row["value"], row["stderr"]) == (pytest.approx(0.1), pytest.approx(0.02))


def test_an_unknown_error_leaves_no_interval() -> None:
    row = ranked([gain("slow", 1, "x", 0.1, None), gain("slow", 1, "y", 0.1, 0.02)])["slow", 1]
    assert (row["value"], row["stderr"], row["ci_low"]) == (pytest.approx(0.1), None, None)


def test_without_a_search_the_table_has_no_rows() -> None:
    assert selection(tables.build("gains", PAIRS), None, 0.95).equals(tables.empty("selection"))


@pytest.mark.parametrize("statistic", ["mean_gain", "mean_rank"])
def test_the_report_shows_the_choice(statistic: str, tmp_path: Path) -> None:
    tables.write(tables.build("gains", PAIRS), tmp_path / "tables", "gains")
    search = {"options": {"benchmarks": ["x", "y"], "statistic": statistic}, "recipes": RECIPES}
    labels: dict[str, Any] = {"bases": {}, "benchmarks": {}, "selection": search}
    analyse(tmp_path / "tables", tmp_path / "tables", AnalysisOptions(bootstrap_draws=100, permutations=100), labels)
    build(tmp_path / "tables", {"name": "search"}, {}, tmp_path)
    page = (tmp_path / "report.html").read_text()
    assert (tmp_path / "figures/selection.svg").exists()
    said = {"mean_gain": "mean gain +8.0 points [+3.1, +12.9]", "mean_rank": "mean rank 2.00"}
    assert "learning rate 1e-4" in page or statistic == "mean_rank"
    assert said[statistic] in page
    assert "n = 3 candidates" in page
    assert "Candidates of the hyper-parameter search" in page


def test_a_study_names_its_judges(tmp_path: Path) -> None:
    declared = "selection: {benchmarks: 'su*', ties: 1}\nanalyses: {"
    path = write_study(tmp_path, ("analyses: {", declared))
    facts = search_facts(load_study(path))
    assert facts is not None
    assert facts["options"]["benchmarks"] == ["sums"]
    assert facts["recipes"]["lora"]["lora_rank"] == 4
    assert search_facts(load_study(write_study(tmp_path, text=STUDY))) is None
    path = write_study(tmp_path, ("analyses: {", declared.replace("su*", "sms")))
    with pytest.raises(StudyError, match=r"study\.yaml: selection\.benchmarks: unknown benchmark 'sms'.*'sums'\?"):
        matrix_of(path)


def test_ranks_of_many_are_those_of_sorting() -> None:
    rows = [gain("slow", epoch, "x", ((7 * epoch) % 11) / 100) for epoch in range(1, 11)]
    table = ranked(rows, benchmarks=["x"])
    order = sorted(table.values(), key=lambda row: -row["gain"])
    assert [row["rank"] for row in order] == list(range(1, 11))
    assert pl.Series([row["chosen"] for row in table.values()]).sum() == 1
