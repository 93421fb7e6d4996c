"""A cell that fails for good is a result that says why; the report is made of what is there."""

import json
import re
import subprocess
import sys
from pathlib import Path

import polars as pl
import pytest

from tests.conftest import ENVIRONMENT, Repository

STUDY = "tests/studies/trimmed.yaml"
WILD = (
    "  wild: {method: full, learning_rate: 9.0, max_gradient_norm: 1e9, schedule: constant, batch_size: 8, epochs: 2, "
    "max_length: 128, precision: fp32}\n"
)


def add_a_run_that_diverges(repository: Repository) -> None:
    repository.edit(
        STUDY, "blocks:\n", f"{WILD}blocks:\n  wild: {{bases: calculator, samples: math-40, recipes: wild}}\n"
    )


def run_folder(repository: Repository) -> Path:
    return next((repository.folder / "results/runs/calculator/math-40").glob("wild-*"))


def command(repository: Repository, *arguments: str) -> subprocess.CompletedProcess[str]:
    line = [sys.executable, "-m", "sft_atlas.commands.cli", *arguments, "--study", repository.study]
    return subprocess.run(line, cwd=repository.folder, env=ENVIRONMENT, capture_output=True, text=True, check=False)


def outputs(folder: Path) -> list[Path]:
    found = [path for path in sorted(folder.glob("*-????????.*")) if path.name.count(".") == 1]
    return [path for path in found if not path.name.startswith("progress-")]


def test_a_run_that_diverges_leaves_a_report_that_says_so(finished: Repository) -> None:
    add_a_run_that_diverges(finished)
    done = finished.snakemake()
    folder = run_folder(finished)
    manifest = json.loads(next(path for path in outputs(folder) if path.name.startswith("train-")).read_text())
    assert manifest["status"] == "failed" and manifest["stage"] == "train"
    assert re.match(r"step \d+ of \d+: the loss is", manifest["reason"])
    assert "failed for good" in done.stderr
    # what reads the run ends with the same reason, in files of their own kinds
    kinds = {path.name.partition("-")[0]: path for path in outputs(folder)}
    assert kinds.keys() == {"train", "scores", "weights", "likelihoods"}
    assert pl.read_parquet(kinds["scores"]).is_empty()
    missing = pl.read_parquet(finished.folder / "results/trimmed/tables/missing.parquet")
    assert missing.select("base", "sample", "recipe", "epoch").rows() == [("calculator", "math-40", "wild", 2)]
    assert missing["reason"][0] == f"failed: {manifest['reason']}"
    assert "failed: step" in (finished.folder / "results/trimmed/report.html").read_text()
    scores = pl.read_parquet(finished.folder / "results/trimmed/tables/scores.parquet")
    assert scores.height == 24 and "wild" not in scores["recipe"].to_list()

    # a failure is a result: it is not tried again by itself, and nothing else is
    assert "Nothing to be done" in finished.plan().text

    complete = finished.snakemake("report_complete", check=False)
    assert complete.returncode != 0
    assert "1 cells or benchmarks have no result: calculator math-40 wild 2: failed: step" in complete.stderr

    status = command(finished, "status").stdout
    # the run, and its scores, weight differences and likelihoods
    assert status.count(f": for good: {manifest['reason']}") == 4

    cleared = command(finished, "retry", "base=calculator,recipe=wild")
    assert cleared.returncode == 0, cleared.stderr
    assert len(cleared.stdout.splitlines()) == 4
    assert finished.plan("train").jobs == {"train_run": 1, "train": 1}
    finished.snakemake("train")
    assert json.loads(kinds["train"].read_text()) == manifest

    other = next((finished.folder / "results/runs/calculator/math-40").glob("full-*"))
    refused = command(finished, "retry", str(other.relative_to(finished.folder)))
    assert refused.returncode == 1
    assert "none of its 4 results has failed" in refused.stderr


def test_a_model_that_evaluation_refuses_is_a_failed_cell(finished: Repository) -> None:
    """Prompts that leave no room for an answer: lm-eval refuses them, and everything else is reported."""
    finished.edit(STUDY, "evaluation: {max_length: 256}", "evaluation: {max_length: 24}")
    finished.snakemake()
    missing = pl.read_parquet(finished.folder / "results/trimmed/tables/missing.parquet")
    assert missing.height == 12
    assert set(missing["reason"].str.slice(0, 38)) <= {
        "failed: epoch 0: refused by evaluation",
        "failed: epoch 1: refused by evaluation",
        "failed: epoch 2: refused by evaluation",
    }


@pytest.mark.parametrize("target", ["report", "collect", "analyse", "audit", "tables", "plan"])
def test_stages_of_the_study_are_names_to_type(finished: Repository, target: str) -> None:
    finished.snakemake("--dry-run", target)
