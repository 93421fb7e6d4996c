"""What goes wrong on a cluster, on a real one: each ends with the bytes of an undisturbed run, and nothing doubled."""

import signal

from tests.slurm.conftest import RUNS, Project

# a job of the same size in a better partition takes the whole node
INTRUDER = ("sbatch", "--partition=cpu", "--exclusive", "--time=1", "--wrap=sleep 6")


def test_an_undisturbed_run(project: Project) -> None:
    assert project.finish(project.snakemake()) == 0
    project.assert_whole()


def test_a_cancelled_job_is_tried_again(project: Project) -> None:
    project.hold()
    call = project.snakemake()
    project.until(project.running(), "both runs")
    project.cluster.run("scancel", project.started()[0])
    project.release()
    assert project.finish(call) == 0
    assert len(project.started()) == RUNS + 1
    project.assert_whole()


def test_a_killed_snakemake_typed_again_takes_its_jobs_over(project: Project) -> None:
    project.hold()
    first = project.snakemake()
    project.until(project.running(), "both runs")
    first.send_signal(signal.SIGKILL)
    first.wait()
    again = project.snakemake()
    project.until(lambda: project.said().count("is taken over") == RUNS, "the old jobs to be found")
    project.release()
    assert project.finish(again) == 0
    assert len(project.started()) == RUNS
    assert "the lock of a run that was killed is removed" in project.said()
    project.assert_whole()


def test_a_killed_snakemake_whose_jobs_have_ended_has_nothing_to_do(project: Project) -> None:
    first = project.snakemake()
    project.until(project.running(), "both runs")
    first.send_signal(signal.SIGKILL)
    first.wait()
    project.until(lambda: not project.living(), "the jobs to end")
    assert project.finish(project.snakemake()) == 0
    assert len(project.started()) == RUNS
    project.assert_whole()


def test_a_second_snakemake_beside_a_living_one_is_refused(project: Project) -> None:
    project.hold()
    first = project.snakemake()
    project.until(project.running(), "both runs")
    assert project.finish(project.snakemake()) == 1
    assert "another run is at work in this folder: process" in project.said()
    project.release()
    assert project.finish(first) == 0
    assert len(project.started()) == RUNS
    project.assert_whole()


def test_an_interrupted_snakemake_leaves_nothing_and_goes_on_when_typed_again(project: Project) -> None:
    project.hold()
    first = project.snakemake()
    project.until(project.running(), "both runs")
    first.send_signal(signal.SIGINT)
    assert project.finish(first) == 1
    project.until(lambda: not project.living(), "the jobs to end")
    project.release()
    assert project.finish(project.snakemake()) == 0
    project.assert_whole()
