"""`sft-atlas prune`: what no study refers to goes, everything else stays, and nothing outside is touched."""

import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from sft_atlas.commands.prune import delete
from tests.conftest import ENVIRONMENT, Repository
from tests.unit.helpers import snapshot

STUDY = "tests/studies/trimmed.yaml"


def prune(repository: Repository, *arguments: str) -> subprocess.CompletedProcess[str]:
    """Prune in a project whose only study files are those a test has put into studies/."""
    command = [sys.executable, "-m", "sft_atlas.commands.cli", "prune", *arguments]
    return subprocess.run(command, cwd=repository.folder, env=ENVIRONMENT, capture_output=True, text=True, check=False)


@pytest.fixture
def alone(finished: Repository) -> Repository:
    """The finished study in a project that has no other, and config.yaml names one that trains nothing."""
    for path in (finished.folder / "studies").glob("*.yaml"):
        path.unlink()
    finished.edit("config.yaml", "study: massive-sft", "study: table")
    (finished.folder / "scores.csv").touch()
    (finished.folder / "studies/table.yaml").write_text("table: {path: scores.csv}\n")
    return finished


def listed(done: subprocess.CompletedProcess[str]) -> list[str]:
    assert done.returncode == 0, done.stderr
    return [line.split("\t")[2] for line in done.stdout.splitlines()[:-1]]


def test_what_a_study_refers_to_stays(alone: Repository) -> None:
    before = snapshot(alone.folder / "results")
    assert listed(prune(alone, STUDY)) == []
    assert listed(prune(alone, STUDY, "--yes")) == []
    assert snapshot(alone.folder / "results") == before
    # a study in studies/ needs not be named
    shutil.copy(alone.folder / STUDY, alone.folder / "studies/trimmed.yaml")
    assert listed(prune(alone)) == []


def test_without_yes_nothing_is_deleted(alone: Repository) -> None:
    before = snapshot(alone.folder)
    done = prune(alone)
    folders = listed(done)
    assert "results/trimmed" in folders
    assert any(path.startswith("results/runs/calculator/math-40/full-") for path in folders)
    assert {path.split("/")[1] for path in folders} == {
        "trimmed",
        "runs",
        "bases",
        "tokenizers",
        "tokens",
        "samples",
        "datasets",
        "benchmarks",
    }
    assert "delete them with --yes" in done.stdout.splitlines()[-1]
    assert snapshot(alone.folder) == before


def test_all_goes_when_no_study_refers_to_it_and_nothing_else(alone: Repository) -> None:
    outside = alone.folder / "precious"
    outside.mkdir()
    (outside / "manifest-00000000.spec.json").write_text("{}")
    results = alone.folder / "results"
    # a user's own file, a user's own folder, and links to what is not the project's
    (results / "notes.txt").touch()
    (results / "runs/mine").mkdir()
    (results / "runs/mine/notes.txt").touch()
    (results / "linked").symlink_to(outside)
    (results / "runs/linked").symlink_to(outside)
    run = next((results / "runs/reader/math-40").glob("full-*"))
    (run / "link").symlink_to(outside)
    prune(alone, "--yes")
    left = sorted(path.relative_to(results).as_posix() for path in results.rglob("*"))
    assert left == ["linked", "notes.txt", "runs", "runs/linked", "runs/mine", "runs/mine/notes.txt"]
    assert [path.name for path in outside.iterdir()] == ["manifest-00000000.spec.json"]


def test_a_changed_recipe_leaves_the_old_runs_to_prune(alone: Repository) -> None:
    results = alone.folder / "results"
    alone.edit(STUDY, "learning_rate: 5e-3, schedule: constant", "learning_rate: 6e-3, schedule: constant")
    found = listed(prune(alone, STUDY, "--yes"))
    assert len(found) == 1 and found[0].startswith("results/runs/calculator/math-40/lora-")
    assert not list((results / "runs/calculator/math-40").glob("lora-*"))
    assert list((results / "runs/calculator/math-40").glob("full-*"))
    # what is left serves the study as it is now
    assert alone.plan("train").jobs == {"train_run": 1, "train": 1}


def test_an_epoch_that_nobody_keeps_goes_with_its_tables(alone: Repository) -> None:
    results = alone.folder / "results"
    alone.edit(STUDY, "epochs: 2, keep: [1, 2]", "epochs: 2, keep: [2]")
    found = listed(prune(alone, STUDY, "--yes"))
    run = next((results / "runs/reader/math-40").glob("full-*"))
    assert not (run / "epoch-01").exists() and (run / "epoch-02/model/model.safetensors").exists()
    # four runs kept epoch 1, each with four outputs under their old specifications
    assert sum(path.endswith("/epoch-01") for path in found) == 4
    assert len(found) == 20
    assert not list(run.glob("train-*"))
    kept = snapshot(run / "epoch-02")
    alone.snakemake("train")
    assert list(run.glob("train-*.json"))
    assert snapshot(run / "epoch-02") == kept


def test_links_are_never_followed(tmp_path: Path) -> None:
    results, outside = tmp_path / "results", tmp_path / "outside"
    for folder in (results / "runs", outside):
        folder.mkdir(parents=True)
        (folder / "file").touch()
    (results / "runs/link").symlink_to(outside)
    for path in (results / "runs/link", results / "runs/link/file", outside / "file", results, tmp_path):
        with pytest.raises(ValueError, match="nothing is deleted there"):
            delete(path, results)
    assert (outside / "file").exists()
    delete(results / "runs/file", results)
    assert sorted(path.name for path in (results / "runs").iterdir()) == ["link"]


def test_a_study_that_cannot_be_planned_stops_it(alone: Repository) -> None:
    (alone.folder / "studies/broken.yaml").write_text("title: no more than this\n")
    before = snapshot(alone.folder)
    done = prune(alone, STUDY, "--yes")
    assert done.returncode == 1
    assert "studies/broken.yaml: cannot be planned" in done.stderr
    assert snapshot(alone.folder) == before


def test_a_running_workflow_stops_it(alone: Repository) -> None:
    (alone.folder / ".snakemake/locks").mkdir(exist_ok=True)
    (alone.folder / ".snakemake/locks/0.input.lock").touch()
    assert prune(alone).returncode == 0
    done = prune(alone, "--yes")
    assert done.returncode == 1 and "a workflow is running here" in done.stderr
