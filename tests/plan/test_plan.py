"""What dry runs say before anything is done."""

import subprocess
import sys
from collections.abc import Callable

import pytest

from tests.conftest import ENVIRONMENT, ROOT, SHARED, Repository

Project = Callable[[str], Repository]
TRIMMED = "tests/studies/trimmed.yaml"


def test_the_trimmed_study_plans_every_stage(project: Project) -> None:
    repository = project(TRIMMED)
    planned = repository.plan()
    assert planned.jobs == {
        "make_tokenizer": 1,
        "make_base": 2,
        "prepare_dataset": 2,
        "prepare_sample": 3,
        "prepare_benchmark": 2,
        "tokenise_sample": 3,
        "measure_perplexity": 2,
        "measure_similarity": 3,
        "measure_contamination": 3,
        "note_comparison": 3,
        "train_run": 6,
        "evaluate_model": 8,
        "measure_weights": 6,
        "measure_likelihoods": 8,
        "collect_results": 1,
        "audit_scores": 1,
        "analyse_tables": 1,
        "write_report": 1,
    }


def test_a_dry_run_writes_nothing(project: Project) -> None:
    repository = project(TRIMMED)
    before = {path for path in repository.folder.rglob("*") if ".snakemake" not in path.parts}
    repository.plan()
    after = {path for path in repository.folder.rglob("*") if ".snakemake" not in path.parts}
    assert {path for path in after - before if "__pycache__" not in path.parts} == set()


@pytest.mark.parametrize(
    ("target", "expected"),
    [
        ("tokenise", {"make_tokenizer": 1, "prepare_dataset": 2, "prepare_sample": 3, "tokenise_sample": 3}),
        ("block_adapters", {"make_base": 1, "train_run": 1, "evaluate_model": 2, "measure_weights": 1}),
        ("base_reader", {"make_base": 1, "train_run": 3, "evaluate_model": 4, "measure_weights": 3}),
        ("train", {"make_base": 2, "train_run": 6}),
        ("likelihoods", {"make_base": 2, "train_run": 6, "measure_likelihoods": 8}),
    ],
)
def test_stages_bases_and_blocks_are_targets(project: Project, target: str, expected: dict[str, int]) -> None:
    jobs = project(TRIMMED).plan(target).jobs
    assert jobs.pop(target) == 1
    assert {rule: n for rule, n in jobs.items() if rule in expected} == expected
    assert not {"collect_results", "analyse_tables", "write_report"} & set(jobs)


def test_only_narrows_without_changing_identities(project: Project) -> None:
    repository = project(TRIMMED)
    whole = repository.snakemake("--dry-run", "--printshellcmds", "train").stdout
    narrow = repository.snakemake("--dry-run", "--printshellcmds", "train", only="base=reader").stdout

    def paths(text: str) -> set[str]:
        return {word for line in text.splitlines() for word in line.split() if "/train-" in word and ".spec." in word}

    assert len(paths(whole)) == 6
    assert len(paths(narrow)) == 3
    assert paths(narrow) < paths(whole)


@pytest.mark.parametrize("study", sorted(path.stem for path in (ROOT / "studies").glob("*.yaml")))
def test_every_study_plans(study: str) -> None:
    imported = study == "published-table"
    if imported and not (SHARED / "published").is_dir():
        pytest.skip("the released table is not here: ../shared/published is absent")
    command = [sys.executable, "-m", "snakemake", "--dry-run", "--quiet", "rules", "--config", f"study={study}"]
    done = subprocess.run(
        [*command, "results=nowhere"], cwd=ROOT, env=ENVIRONMENT, capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stderr
    assert ("train_run" in done.stdout) != imported


def test_planning_imports_nothing_heavy() -> None:
    code = (
        "import sys, sft_atlas.study.load, sft_atlas.study.matrix, sft_atlas.study.plan, sft_atlas.study.table\n"
        "import sft_atlas.files, sft_atlas.runtime.progress, sft_atlas.stages.estimate.facts\n"
        "heavy = {'torch', 'polars', 'transformers', 'datasets', 'trl', 'peft', 'lm_eval', 'pandas', 'matplotlib'}\n"
        "print(sorted(heavy & set(sys.modules)))"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"


def test_a_bad_study_stops_before_any_job(project: Project) -> None:
    repository = project(TRIMMED)
    repository.edit(TRIMMED, "recipes: lora}", "recipes: lore}")
    done = repository.snakemake(check=False)
    assert done.returncode != 0
    assert "trimmed.yaml: blocks.adapters.recipes: unknown recipe 'lore'" in done.stderr
    assert "did you mean 'lora'?" in done.stderr
    assert not (repository.folder / "results").exists()


def test_the_text_of_costly_jobs_is_not_edited_lightly() -> None:
    """Snakemake re-runs a job when its rule's shell text changes: an edit here would retrain every model ever made."""
    text = (ROOT / "rules/common.smk").read_text()
    assert 'JOB = "python -m sft_atlas.job {params.spec} > {log} 2>&1"' in text


def test_a_reader_that_has_read_enough_is_no_error() -> None:
    """`sft-atlas cells | head -1`, of a study whose cells fill more than a pipe."""
    command = [sys.executable, "-m", "sft_atlas.commands.cli", "cells", "--study", "massive-sft"]
    with subprocess.Popen(command, cwd=ROOT, stdout=subprocess.PIPE, stderr=subprocess.PIPE) as cells:
        assert cells.stdout and cells.stderr
        assert cells.stdout.readline().startswith(b"base\t")
        cells.stdout.close()
        assert (cells.stderr.read(), cells.wait()) == (b"", 0)
