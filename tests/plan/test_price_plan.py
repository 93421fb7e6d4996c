"""What planning says of the price: the summary line, resources of jobs, the plan's page, and the check of the disk."""

import re
from collections.abc import Callable

import polars as pl
import pytest

from sft_atlas.stages.estimate.run import SCHEMA
from tests.conftest import Repository

Project = Callable[[str], Repository]
TRIMMED = "tests/studies/trimmed.yaml"


def resources(text: str, rule: str) -> list[dict[str, int]]:
    """What each planned job of a rule asks for; a job that asks for one thread does not say so."""
    blocks = re.findall(rf"^(?:local)?rule {rule}:\n((?:    .*\n)+)", text, flags=re.MULTILINE)
    found = [dict(re.findall(r"(gpu|mem_mb|runtime)=(\d+)", block)) for block in blocks]
    assert found, f"{rule} is not planned"
    return [{name: int(value) for name, value in block.items()} for block in found]


def test_the_summary_line_gives_the_price(project: Project) -> None:
    done = project("massive-sft").snakemake("--dry-run", "--quiet", "rules")
    (line,) = [line for line in done.stderr.splitlines() if line.startswith("study ")]
    found = re.search(
        r"1,070 fine-tuned models from 341 runs of 12 bases, 13 benchmarks; about ([\d,]+) GPU-hours", line
    )
    assert found, line
    assert 1000 < int(found[1].replace(",", "")) < 10000
    assert re.search(r"[\d.]+ TB of disk at peak$", line)


def test_resources_follow_the_size_of_the_model(project: Project) -> None:
    repository = project("massive-sft")
    asked = resources(repository.plan("block_single").text, "train_run")
    assert len(asked) == 240
    # full fine-tuning of 9.2e9 weights takes two
    assert {job["gpu"] for job in asked} == {1, 2}
    assert min(job["mem_mb"] for job in asked) > 40_000
    assert len({job["mem_mb"] for job in asked}) >= 8
    assert len({job["runtime"] for job in asked}) > 20
    weights = resources(repository.plan("base_OLMo-7B-hf").text, "measure_weights")
    assert {job["gpu"] for job in weights} == {0}


def test_a_micro_study_asks_for_little(project: Project) -> None:
    text = project(TRIMMED).plan().text
    for rule in ("train_run", "evaluate_model", "make_base", "measure_weights", "write_report", "prepare_dataset"):
        for job in resources(text, rule):
            assert job == {"gpu": 0, "runtime": 10, "mem_mb": job["mem_mb"]}
            assert job["mem_mb"] <= 4000


def test_the_plan_is_a_text_a_table_and_a_page(project: Project) -> None:
    repository = project(TRIMMED)
    repository.snakemake("plan")
    folder = repository.folder / "results/trimmed"
    text = (folder / "plan.txt").read_text()
    assert text.startswith("10 fine-tuned models from 6 runs of 2 bases, 2 benchmarks: about 0 GPU-hours and ")
    for stage in ("dataset", "base", "train", "evaluate", "weights", "report", "all"):
        assert re.search(rf"^{stage} +\d+ +0 ", text, flags=re.MULTILINE), stage
    for phrase in ("Wall time of what is left", "Disk now", "(this study's keep_weights)", "rest on estimated sizes"):
        assert phrase in text
    table = pl.read_parquet(folder / "plan.parquet")
    assert table.schema == SCHEMA
    assert dict(table["stage"].value_counts().iter_rows())["train"] == 6
    page = (folder / "plan.html").read_text()
    assert page.count("<svg") == 1
    assert "http://" not in re.sub(r"http://(www\.w3\.org|purl\.org|creativecommons\.org)", "", page)
    # only what the plan needs was made, and asking again makes nothing
    assert {path.name for path in (repository.folder / "results").iterdir()} == {"trimmed"}
    assert "Nothing to be done" in repository.plan("plan").text
    repository.edit(TRIMMED, "  adapters: {bases: calculator", '  adapters: {bases: "*"')
    assert repository.plan("plan").jobs == {"estimate_cost": 1, "plan": 1}


def test_finished_jobs_are_counted_and_correct_the_prices(finished: Repository) -> None:
    finished.snakemake("plan")
    text = (finished.folder / "results/trimmed/plan.txt").read_text()
    assert re.search(r"^train +6 +6 ", text, flags=re.MULTILINE)
    assert "Seconds of train on cpu are corrected by" in text
    assert "the median of 6 finished jobs" in text
    table = pl.read_parquet(finished.folder / "results/trimmed/plan.parquet")
    assert table.filter(stage="train")["exact"].all()
    assert table.filter(stage="train")["done"].all()


@pytest.mark.parametrize("target", ["train", "block_single"])
def test_a_run_that_the_disk_cannot_hold_does_not_start(project: Project, target: str) -> None:
    repository = project("massive-sft")
    # more than any disk holds, so that nothing is fetched wherever this runs
    repository.edit("studies/massive-sft.yaml", "parameters: 6.9e9", "parameters: 6.9e12")
    done = repository.snakemake(target, check=False)
    assert done.returncode != 0
    assert re.search(r"will take about [\d.,]+ TB below results, where .* are free; make room", done.stderr)
    results = repository.folder / "results"
    assert not [path for path in results.rglob("*") if path.is_file() and not path.name.endswith(".spec.json")]
    # looking costs nothing
    assert repository.plan(target).jobs


def test_a_dry_run_ends_in_jobs_and_reasons_by_stage(finished: Repository) -> None:
    finished.edit(TRIMMED, "learning_rate: 5e-3", "learning_rate: 4e-3")
    done = finished.snakemake("--dry-run", "--quiet", "rules")
    assert re.search(r"^train_run +1 job +0.0 GPU-hours  output missing$", done.stderr, flags=re.MULTILINE), done.stderr
    assert re.search(
        r"^evaluate_model +1 job +0.0 GPU-hours  output missing, input made anew$", done.stderr, re.MULTILINE
    )
    assert "prepare_sample" not in done.stderr
    # no block for every job
    assert "wildcards:" not in done.stdout + done.stderr
