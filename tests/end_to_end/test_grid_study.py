"""A real hyper-parameter search in small: trained, scored, and ranked as an independent computation ranks it."""

import json
import math
import re
from pathlib import Path
from statistics import NormalDist, mean, stdev

import polars as pl
import pytest

from tests.conftest import Repository, fresh

JUDGES = ("facts", "facts_choice")


@pytest.fixture(scope="module")
def results(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Half of the search: eight runs, without weight decay."""
    repository = fresh(tmp_path_factory.mktemp("grid") / "project", "grid-micro")
    repository.snakemake(only="recipe=*-wd0")
    return repository.folder / "results"


def differences(results: Path, run: Path, epoch: int, benchmark: str) -> list[float]:
    """Score after minus score before of every item, read from the items' own tables."""
    base = next((results / "bases").glob("searched-*"))

    def items(folder: Path, at: int) -> dict[str, float]:
        table = pl.read_parquet(next(folder.glob("scores-*.parquet")))
        rows = [row for row in table.to_dicts() if (row["epoch"], row["benchmark"]) == (at, benchmark)]
        return dict(pl.read_parquet(folder / rows[0]["items"]).select("item", "score").iter_rows())

    before, after = items(base, 0), items(run, epoch)
    return [after[item] - before[item] for item in before]


def test_the_ranking_is_what_the_items_say(results: Path) -> None:
    table = pl.read_parquet(results / "grid-micro-partial/tables/selection.parquet")
    expected = {}
    for run in sorted((results / "runs/searched/knowledge-160").iterdir()):
        recipe = json.loads(next(run.glob("train-*.spec.json")).read_text())["identity"]["settings"]["recipe"]
        for epoch in (1, 2):
            paired = [differences(results, run, epoch, name) for name in JUDGES]
            gain = mean(map(mean, paired))
            error = math.sqrt(sum(stdev(values) ** 2 / len(values) for values in paired)) / len(paired)
            expected[run.name.rpartition("-")[0], epoch] = (recipe, gain, error, min(map(mean, paired)))
    assert len(expected) == table.height == 16
    for row in table.iter_rows(named=True):
        recipe, gain, error, worst = expected[row["recipe"], row["epoch"]]
        for field in ("method", "learning_rate", "batch_size", "weight_decay", "schedule"):
            assert row[field] == recipe[field]
        assert (row["value"], row["stderr"], row["worst_gain"]) == pytest.approx((gain, error, worst), abs=1e-12)
        assert row["ci_low"] == pytest.approx(gain - NormalDist().inv_cdf(0.975) * error, abs=1e-9)
        group = [other for other in expected.values() if other[0]["method"] == recipe["method"]]
        assert row["rank"] == 1 + sum(other[1] > gain + 1e-12 for other in group)
        _, top, of_top, _ = max(group, key=lambda other: other[1])
        assert row["tied"] == (gain >= top - of_top - 1e-12)


def test_one_is_chosen_for_each_method_and_it_is_the_cheapest_of_the_tied(results: Path) -> None:
    table = pl.read_parquet(results / "grid-micro-partial/tables/selection.parquet")
    chosen = table.filter("chosen")
    assert sorted(chosen["method"]) == ["full", "lora"]
    for row in chosen.iter_rows(named=True):
        tied = table.filter("tied", method=row["method"]).sort("epoch", "learning_rate", "weight_decay", "batch_size")
        assert tied["recipe"][0] == row["recipe"] and tied["epoch"][0] == row["epoch"]
    # training teaches this base something, and only at the higher rate
    best = table.filter(rank=1)
    assert best["learning_rate"].unique().to_list() == [5e-3]
    assert best["value"].min() > 0.05


def test_the_report_shows_the_search(results: Path) -> None:
    page = (results / "grid-micro-partial/report.html").read_text()
    assert "n = 8 candidates" in page
    assert "<code>only: recipe=*-wd0</code> leaves out 16 of its" in page
    assert (results / "grid-micro-partial/figures/selection.svg").exists()


def test_a_change_of_what_is_preferred_ranks_again_and_trains_nothing(results: Path) -> None:
    repository = Repository(results.parent, "grid-micro")
    repository.edit("studies/grid-micro.yaml", "ties: 1}", "ties: 0}")
    text = repository.snakemake("--dry-run", only="recipe=*-wd0").stdout
    assert set(re.findall(r"^(?:local)?rule (\w+):", text, flags=re.MULTILINE)) == {
        "analyse_tables",
        "write_report",
        "all",
    }
