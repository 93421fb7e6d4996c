"""A raised version of a stage: what it made before is made again, unless the study accepts it; limits of a run."""

from pathlib import Path

import pytest

from tests.conftest import Repository
from tests.rerun.test_yesterday import CHEAP, unpacked

STUDY = "tests/studies/yesterday.yaml"
TRIMMED = "tests/studies/trimmed.yaml"  # which the other extends
TRAIN = "workflow/scripts/sft_atlas/stages/train/__init__.py"


@pytest.fixture
def raised(tmp_path: Path) -> Repository:
    """Yesterday's results under code whose training gives other results."""
    repository = unpacked(tmp_path / "project")
    repository.edit(TRAIN, "    version=2,\n", "    version=3,\n")
    return repository


def test_a_raised_version_trains_anew_what_the_study_does_not_accept(raised: Repository) -> None:
    before = raised.plan().jobs
    assert before["train_run"] > 0
    assert before["evaluate_model"] == before["train_run"]
    raised.edit(STUDY, "keep_weights: none\n", "keep_weights: none\naccept: {train: 2}\n")
    assert raised.plan().jobs.keys() <= CHEAP

    # what is not there yet is made under the present version, and the accepted ones stay
    raised.edit(TRIMMED, "  full: {method: full, learning_rate: 1e-3,", "  full: {method: full, learning_rate: 2e-3,")
    changed = raised.plan().jobs
    assert 0 < changed["train_run"] < before["train_run"]
    raised.edit(TRIMMED, "  full: {method: full, learning_rate: 2e-3,", "  full: {method: full, learning_rate: 1e-3,")

    raised.snakemake()
    page = (raised.folder / "results/yesterday/report.html").read_text()
    assert f"{before['train_run']} of stage <code>train</code> are of version 2" in page
    assert "Nothing to be done" in raised.snakemake("--dry-run").stdout


@pytest.mark.parametrize(
    ("accepted", "said"),
    [
        ("training: 2", "accept.training: unknown stage 'training'; expected one of: base, "),
        ("evaluate: 7", "accept.evaluate: found 7, but this code is of version 2; give an earlier one"),
    ],
)
def test_an_accepted_version_is_one_that_was(tmp_path: Path, accepted: str, said: str) -> None:
    repository = unpacked(tmp_path / "project")
    repository.edit(STUDY, "keep_weights: none\n", f"keep_weights: none\naccept: {{{accepted}}}\n")
    refused = repository.snakemake("--dry-run", check=False)
    assert refused.returncode
    assert said in refused.stdout + refused.stderr


def test_a_run_that_would_leave_too_many_files_does_not_start(tmp_path: Path) -> None:
    repository = unpacked(tmp_path / "project")
    results = repository.folder / "results"
    repository.edit(TRIMMED, "learning_rate: 1e-3", "learning_rate: 2e-3")
    there = {path for path in results.rglob("*") if path.is_file()}
    with (repository.folder / "config.yaml").open("a") as file:
        file.write("max_files: 20\n")
    refused = repository.snakemake(check=False)
    assert refused.returncode
    assert "config.yaml: max_files: the jobs of this run will leave about" in refused.stderr
    assert "and 20 are allowed" in refused.stderr
    # specifications are written while planning; nothing else is
    made = {path for path in results.rglob("*") if path.is_file()} - there
    assert {path.name.rpartition(".spec.")[2] for path in made} <= {"json"}
    assert all(".spec." in path.name for path in made)
