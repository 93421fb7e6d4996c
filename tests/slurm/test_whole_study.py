"""A whole study through the cluster, from nothing to its report, has the bytes of a local run."""

from pathlib import Path

import pytest

from tests.conftest import Repository, fresh
from tests.slurm.cluster import Cluster
from tests.slurm.conftest import Project, scientific


@pytest.mark.slow
def test_the_trimmed_study(finished_run: Repository, whole_cluster: Cluster, tmp_path: Path) -> None:
    repository = fresh(tmp_path / "project", finished_run.study)
    notes = tmp_path / "notes"
    notes.mkdir()
    project = Project(repository.folder, finished_run.folder, whole_cluster, notes, finished_run.study, 6)
    try:
        assert project.finish(project.snakemake(target="all"), 900) == 0
    finally:
        project.end()
    ours, theirs = scientific(project.folder / "results"), scientific(finished_run.folder / "results")
    # the page and its table of costs tell hours and memory of every job
    told = {"trimmed/report.html", "trimmed/tables/cost.csv", "trimmed/tables/cost.parquet"}
    assert {path for path in theirs if ours.get(path) != theirs[path]} <= told
    assert project.living() == {}
    last = project.command("status").splitlines()[-1].split()
    # done, running, pending, failed, waiting
    assert last[0] == "all" and last[2:6] == ["0", "0", "0", "0"]
