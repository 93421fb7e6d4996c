"""The embedded study, whole: what it promises of itself. Ten minutes on two cores: `make test-slow`."""

from pathlib import Path

import polars as pl
import pytest

from tests.conftest import fresh


@pytest.fixture(scope="module")
def tables(tmp_path_factory: pytest.TempPathFactory) -> Path:
    repository = fresh(tmp_path_factory.mktemp("micro") / "project", "micro")
    repository.snakemake()
    assert not repository.plan().jobs
    return repository.folder / "results/micro/tables"


@pytest.mark.slow
def test_matched_gains_stand_far_above_seed_noise(tables: Path) -> None:
    gains = pl.read_parquet(tables / "gains.parquet")
    seeds = pl.read_parquet(tables / "seeds.parquet").filter(scope="all", matched=True)
    matched, others = (gains.filter(matched=which)["gain"].mean() for which in (True, False))
    assert matched > 10 * seeds["sd"][0]
    assert matched > 0.2
    assert abs(others) < 0.05


@pytest.mark.slow
def test_no_benchmark_is_at_chance_or_at_the_ceiling_for_all(tables: Path) -> None:
    best = pl.read_parquet(tables / "scores.parquet").group_by("benchmark", "base").agg(pl.col("score").max())
    assert best["benchmark"].n_unique() == 8
    chance = {"facts_choice": 0.25, "reading": 0.25, "logic": 0.25}
    for (benchmark,), bases in best.group_by("benchmark"):
        assert bases["score"].max() > chance.get(str(benchmark), 0.0) + 0.2
    start = pl.read_parquet(tables / "scores.parquet").filter(epoch=0).group_by("benchmark").agg(pl.col("score").min())
    assert start["score"].max() < 0.9
