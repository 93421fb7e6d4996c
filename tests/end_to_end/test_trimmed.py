"""The finished trimmed study: every stage left what it promises, and the whole is reproducible to the byte."""

import json
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import polars as pl
import pytest

from sft_atlas.analysis import tables
from tests.conftest import ENVIRONMENT, Repository


@pytest.fixture(scope="module")
def results(finished_run: Repository) -> Path:
    return finished_run.folder / "results"


def scientific(folder: Path) -> dict[str, bytes]:
    """Every file that science reads: all but records of time and host, by path."""
    return {
        path.relative_to(folder).as_posix(): path.read_bytes()
        for path in sorted(folder.rglob("*"))
        if path.is_file() and not path.name.endswith(".record.json")
    }


def test_every_table_is_there_with_its_schema(results: Path) -> None:
    for name in tables.TABLES:
        path = results / "trimmed/tables" / f"{name}.parquet"
        tables.check(pl.read_parquet(path), name)
        assert path.with_suffix(".csv").exists() == tables.TABLES[name].csv


def test_every_cell_has_a_score_on_every_benchmark(results: Path) -> None:
    scores = pl.read_parquet(results / "trimmed/tables/scores.parquet")
    # ten checkpoints and two bases, on two benchmarks
    assert scores.height == 24
    assert scores["score"].null_count() == 0
    assert scores.filter(pl.col("epoch") == 0)["base"].to_list() == ["calculator", "calculator", "reader", "reader"]
    assert (scores["n"] == 20).all()
    gains = pl.read_parquet(results / "trimmed/tables/gains.parquet")
    assert gains.height == 20
    joined = gains.join(scores.filter(pl.col("epoch") == 0), on=["base", "benchmark"], suffix="_of_base")
    assert (joined["score"] - joined["score_of_base"] - joined["gain"]).abs().max() < 1e-12


def test_gains_are_paired_over_items(results: Path) -> None:
    gain = pl.read_parquet(results / "trimmed/tables/gains.parquet").row(0, named=True)
    base = next((results / "bases").glob(f"{gain['base']}-*"))
    run = next((results / "runs" / gain["base"] / gain["sample"]).glob(f"{gain['recipe']}-*"))

    def items(folder: Path, epoch: int) -> pl.DataFrame:
        table = pl.read_parquet(next(path for path in folder.glob("scores-*.parquet")))
        row = table.filter(benchmark=gain["benchmark"], epoch=epoch).row(0, named=True)
        return pl.read_parquet(folder / row["items"]).sort("item")

    before, after = items(base, 0), items(run, gain["epoch"])
    assert before["item"].to_list() == after["item"].to_list()
    difference = after["score"] - before["score"]
    assert difference.mean() == pytest.approx(gain["gain"], abs=1e-12)
    assert difference.std() / len(difference) ** 0.5 == pytest.approx(gain["stderr"], abs=1e-12)


def test_what_was_trained_is_recorded(results: Path) -> None:
    run = next((results / "runs/calculator/math-40").glob("full-*"))
    spec = json.loads(next(run.glob("train-*.spec.json")).read_text())
    assert spec["identity"]["settings"]["recipe"]["learning_rate"] == 1e-3
    assert f"full-{spec['identity']['run']}" == run.name
    log = pl.read_parquet(run / "log.parquet")
    assert log["step"].to_list() == list(range(1, 7))  # 40 rows in batches of 16, two epochs
    assert log["loss"].is_finite().all()
    assert log["learning_rate"].is_sorted(descending=True)
    record = json.loads(next(run.glob("train-*.record.json")).read_text())
    assert record["libraries"]["trl"] and record["wall_seconds"] > 0


def test_training_moved_every_layer_and_lora_only_its_targets(results: Path) -> None:
    layers = pl.read_parquet(results / "trimmed/tables/layers.parquet")
    assert layers.filter(pl.col("method") == "full")["norm"].min() > 0
    lora = layers.filter(pl.col("method") == "lora")
    assert lora.filter(pl.col("module") == "norm")["norm"].max() == 0
    assert lora.filter(pl.col("module") == "attention")["norm"].min() > 0


def test_every_model_has_its_likelihoods_and_its_place_on_the_map(results: Path) -> None:
    table = pl.read_parquet(results / "trimmed/tables/likelihoods.parquet")
    # ten checkpoints and two bases, twelve questions of each of two benchmarks
    assert table.height == 12 * 24
    assert (table["log_likelihood"] < 0).all()
    placed = pl.read_parquet(results / "trimmed/tables/map.parquet").filter(kind="t-SNE of log-likelihoods")
    assert placed.height == 12
    assert placed["nearest"].null_count() == 0
    layers = pl.read_parquet(results / "trimmed/tables/dimensions.parquet")
    assert layers.height == 12 * 2


def test_every_job_has_its_cost(results: Path) -> None:
    cost = pl.read_parquet(results / "trimmed/tables/cost.parquet")
    jobs = dict(cost["stage"].value_counts().iter_rows())
    assert jobs["train"] == 6 and jobs["evaluate"] == jobs["likelihoods"] == 8 and jobs["base"] == 2
    assert cost["wall_seconds"].min() > 0
    assert cost.filter(stage="train")["seed"].to_list() == [0] * 6


def test_losses_are_those_of_the_log(results: Path) -> None:
    curves = pl.read_parquet(results / "trimmed/tables/curves.parquet")
    run = next((results / "runs/calculator/math-40").glob("full-*"))
    log = pl.read_parquet(run / "log.parquet")
    mine = curves.filter(base="calculator", sample="math-40", recipe="full").sort("step")
    assert mine.select("step", "loss", "learning_rate").equals(log.select("step", "loss", "learning_rate"))


def test_the_report_opens_offline(results: Path) -> None:
    page = (results / "trimmed/report.html").read_text()
    assert "trimmed micro study" in page
    for loading in ('src="http', "src='http", 'href="http', "@import", "url(http"):
        assert loading not in page
    assert 'data-figure="gains_mean"' in page


def test_the_same_study_gives_the_same_bytes(
    finished_run: Repository, project: Callable[[str], Repository], results: Path
) -> None:
    """A second run, in another folder, without the worker that shares imports."""
    again = project(finished_run.study)
    again.edit("config.yaml", "device: auto", "device: cpu\nshare_imports: false\nonly: base=*r,sample=math-40")
    again.snakemake("train", "evaluate", "weights", "likelihoods", "perplexity")
    first, second = scientific(results), scientific(again.folder / "results")
    made = {path for path in second if path in first}
    assert any(path.endswith("model.safetensors") for path in made)
    assert {path for path in made if first[path] != second[path]} == set()
    # the narrowed run asks for fewer pieces of the same things, and for nothing else
    assert {path for path in second if path not in first} == set()


def test_results_of_two_sites_merge_by_copying(finished_run: Repository, project: Callable[[str], Repository]) -> None:
    other = project(finished_run.study)
    # Snakemake's records hold the checksums by which it tells a copy from a change; without them only times are left
    (other.folder / ".snakemake").mkdir()
    for path in ("results", ".snakemake/metadata"):
        subprocess.run(["cp", "-r", finished_run.folder / path, other.folder / path], check=True)
    assert not other.plan().jobs


def test_a_partial_report_tells_what_is_missing(finished: Repository) -> None:
    run = next((finished.folder / "results/runs/reader/math-40").glob("full-*"))
    for path in run.glob("scores-*.parquet"):
        path.unlink()
    finished.snakemake("report_partial")
    missing = pl.read_parquet(finished.folder / "results/trimmed-partial/tables/missing.parquet")
    assert missing.select("base", "sample", "epoch", "reason").rows() == [
        ("reader", "math-40", 1, "not evaluated"),
        ("reader", "math-40", 2, "not evaluated"),
    ]
    assert "not evaluated" in (finished.folder / "results/trimmed-partial/report.html").read_text()


def test_a_model_without_likelihoods_is_listed_and_not_on_the_map(finished: Repository) -> None:
    run = next((finished.folder / "results/runs/reader/math-40").glob("full-*"))
    for path in run.glob("likelihoods-*.parquet"):
        path.unlink()
    finished.snakemake("report_partial")
    folder = finished.folder / "results/trimmed-partial/tables"
    missing = pl.read_parquet(folder / "missing.parquet")
    assert missing.select("base", "sample", "epoch", "reason").rows() == [
        ("reader", "math-40", epoch, "likelihoods not measured") for epoch in (1, 2)
    ]
    placed = pl.read_parquet(folder / "map.parquet")
    assert placed.filter(kind="t-SNE of log-likelihoods").height == 10
    assert placed.filter(kind="PCA of scores").height == 12


def test_cells_are_listed(finished_run: Repository) -> None:
    command = [sys.executable, "-m", "sft_atlas.commands.cli", "cells", "--study", finished_run.study]
    done = subprocess.run(command, cwd=finished_run.folder, env=ENVIRONMENT, capture_output=True, text=True, check=True)
    header, *rows = [line.split("\t") for line in done.stdout.splitlines()]
    cells = [dict(zip(header, row, strict=True)) for row in rows]
    assert len(cells) == 12
    assert {cell["scores"] for cell in cells} == {"yes"}
    assert all((finished_run.folder / cell["target"]).exists() for cell in cells)


def test_the_plan_says_how_many_files_there_are(finished: Repository) -> None:
    """Within a tenth: quotas of inodes are checked against it (`max_files` in config.yaml)."""
    there = sum(path.is_file() for path in (finished.folder / "results").rglob("*"))
    finished.snakemake("plan")
    planned = pl.read_parquet(finished.folder / "results/trimmed/plan.parquet")["files"].sum()
    assert abs(planned - there) <= 0.1 * there, (planned, there)
