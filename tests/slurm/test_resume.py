"""Runs that are cut off in the middle of training, by SLURM: they go on, and end with the same bytes."""

from collections.abc import Callable

import pytest

from tests.slurm.conftest import Project

pytestmark = pytest.mark.slow


def training(project: Project) -> Callable[[], object]:
    """A condition: the job has told how far it is."""
    return lambda: list((project.folder / "results/runs").rglob("progress-*.json"))


def resumed(project: Project) -> bool:
    """Whether an attempt has begun where another one stopped."""
    return any(path.is_dir() for path in (project.folder / "results/runs").rglob("state/checkpoint-*"))


def test_a_job_longer_than_the_partition_grants_finishes_over_several(long_project: Project) -> None:
    """Two minutes each, and SIGTERM half a minute before, which SLURM sends up to a minute early."""
    (long_project.notes / "slow").touch()
    call = long_project.snakemake(
        *("--set-resources", "train_run:runtime=2", "--retries", "12"),
        *("--default-resources", "slurm_extra='--signal=TERM@30'"),
    )
    assert long_project.finish(call, 900) == 0
    print(f"{len(long_project.started())} attempts")
    assert len(long_project.started()) > 1
    long_project.assert_same()
    assert long_project.living() == {}


def test_a_cancelled_job_goes_on_where_it_saved(long_project: Project) -> None:
    call = long_project.snakemake()
    long_project.until(training(long_project), "training", 120)
    long_project.cluster.run("scancel", long_project.started()[0])
    long_project.until(lambda: resumed(long_project), "a saved state")
    assert long_project.finish(call, 400) == 0
    long_project.assert_same()
    assert "asked to stop: state saved" in long_project.said() or len(long_project.started()) == 2


def test_a_node_that_dies_in_training_costs_no_more_than_the_last_state(long_project: Project) -> None:
    call = long_project.snakemake()
    long_project.until(training(long_project), "training", 120)
    number = long_project.started()[0]
    long_project.cluster.kill_node(long_project.cluster.node_of(number))
    assert long_project.finish(call, 600) == 0
    long_project.assert_same()
    assert len(long_project.started()) == 2
