"""What goes wrong on a cluster, on a real one: each ends with the bytes of an undisturbed run, and nothing doubled."""

import re
import signal

import pytest

from sft_atlas.cluster import journal
from sft_atlas.files import read_json
from tests.slurm.conftest import RUNS, STUDY, Project

# a job of the same size in a better partition takes the whole node
INTRUDER = ("sbatch", "--output=/dev/null", "--partition=cpu", "--exclusive", "--time=1", "--wrap=sleep 6")


def test_an_undisturbed_run(project: Project) -> None:
    assert project.finish(project.snakemake()) == 0
    project.assert_whole()


@pytest.mark.parametrize("site", ["gpus", "gres"])
def test_a_job_gets_its_gpus_however_the_site_calls_them(project: Project, site: str) -> None:
    named = ["train_run:gres='gpu:fake:1'"] if site == "gres" else []
    project.hold()
    # the embedded models ask for none, so this test does; `plan` is no job of SLURM's
    call = project.snakemake("--set-resources", "train_run:gpu=1", "train_run:slurm_partition='gpu'", *named)
    project.until(project.running(), "both runs")
    for number in project.started():
        shown = project.cluster.ask("scontrol", "show", "job", number)
        assert ("TresPerNode=gres:gpu:fake:1" if site == "gres" else "TresPerJob=gres:gpu:1") in shown
    visible = [line.split("=")[1] for line in project.visible()]
    assert sorted(visible) == ["0", "1"]
    project.release()
    assert project.finish(call) == 0
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
    # an event loop of Snakemake's that is just ending can swallow the signal; a user presses the keys again
    for _ in range(5):
        first.send_signal(signal.SIGINT)
        if project.soon(lambda: "on user request" in project.said() or first.poll() is not None, 15):
            break
    assert project.finish(first) == 1
    project.until(lambda: not project.living(), "the jobs to end")
    project.release()
    assert project.finish(project.snakemake()) == 0
    project.assert_whole()


def test_a_killed_node_gives_its_job_back(project: Project) -> None:
    project.hold()
    call = project.snakemake()
    project.until(project.running(), "both runs")
    number = project.started()[0]
    project.cluster.kill_node(project.cluster.node_of(number))
    # SLURM gives the node up after SlurmdTimeout
    project.until(lambda: project.cluster.jobs()[number][0] in ("PENDING", "RUNNING"), "SLURM to notice")
    project.until(lambda: len(project.started()) > RUNS, "the job to start elsewhere", 90)
    project.release()
    assert project.finish(call) == 0
    project.assert_whole()


def test_a_drained_node_ends_its_work(project: Project) -> None:
    project.hold()
    call = project.snakemake()
    project.until(project.running(), "both runs")
    node = project.cluster.node_of(project.started()[0])
    project.cluster.run("scontrol", "update", f"NodeName={node}", "State=DRAIN", "Reason=test")
    project.release()
    assert project.finish(call) == 0
    assert len(project.started()) == RUNS
    project.assert_whole()


def preempted(project: Project, partition: str) -> int:
    """Run on a partition whose jobs have to yield, and let others take all of its nodes; exit status."""
    project.hold()
    call = project.snakemake("--default-resources", f"slurm_partition='{partition}'")
    project.until(project.running(), "both runs")
    for _ in range(3):
        project.cluster.run(*INTRUDER)
    numbers = project.started()
    project.until(lambda: all(project.cluster.jobs()[n][0] != "RUNNING" for n in numbers), "both to be preempted")
    project.release()
    return project.finish(call)


def test_a_preempted_job_is_requeued_by_slurm(project: Project) -> None:
    assert preempted(project, "low") == 0
    assert len(set(project.started())) == RUNS
    project.assert_whole()


def test_a_preempted_job_that_is_not_requeued_is_submitted_again(project: Project) -> None:
    assert preempted(project, "lowcancel") == 0
    assert "is preempted: given up" in project.said()
    project.assert_whole()


def test_a_controller_that_is_away_for_long_loses_nothing(project: Project) -> None:
    project.hold()
    call = project.snakemake("--slurm-status-attempts", "5")
    project.until(project.running(), "both runs")
    project.cluster.kill_controller()
    project.until(lambda: "SLURM has not answered for long" in project.said(), "the plugin to give up", 90)
    project.cluster.start_controller()
    project.until(lambda: set(project.started()) <= project.living().keys(), "the jobs to be known again")
    project.release()
    assert project.finish(call) == 0
    assert len(project.started()) == RUNS
    project.assert_whole()


def test_a_refused_submission_is_tried_again_without_costing_an_attempt(project: Project) -> None:
    project.cluster.run("scontrol", "update", "PartitionName=cpu", "State=INACTIVE")
    call = project.snakemake("--retries", "0")
    project.until(lambda: "It is tried again every" in project.said(), "the refusal")
    project.cluster.run("scontrol", "update", "PartitionName=cpu", "State=UP")
    assert project.finish(call) == 0
    project.assert_whole()


def test_a_submission_that_slurm_will_never_take_fails_at_once(project: Project) -> None:
    assert project.finish(project.snakemake("--retries", "0", "--default-resources", "slurm_partition='none'")) == 1
    assert "invalid partition specified" in project.said()
    assert "It is tried again every" not in project.said()


def test_a_full_disk_on_one_node_simulated_by_failing_writes_is_avoided(project: Project) -> None:
    project.hold()
    call = project.snakemake("--retries", "1")
    project.until(project.running(), "both runs")
    node = project.cluster.node_of(project.started()[0])
    (project.notes / "full").write_text(node)
    project.release()
    assert project.finish(call) == 0
    numbers = project.started()[RUNS:]
    assert numbers and all(
        project.cluster.ask("squeue", "-h", "-t", "all", "-j", n, "-o", "%N") != node for n in numbers
    )
    project.assert_same()


def test_an_output_that_appears_late_simulated_by_a_delayed_rename_is_waited_for(project: Project) -> None:
    (project.notes / "late").touch()
    assert project.finish(project.snakemake("--retries", "0")) == 0
    project.assert_whole()


def test_a_job_without_enough_memory_gets_more(project: Project) -> None:
    resources = "train_run:mem_mb=200 if attempt == 1 else 3000"
    assert project.finish(project.snakemake("--set-resources", resources)) == 0
    assert len(project.started()) > RUNS
    states = [attempt.state for attempt in journal.read(project.folder)]
    assert "OUT_OF_MEMORY" in states and states.count("COMPLETED") == RUNS
    project.assert_whole()


@pytest.mark.slow
def test_a_job_out_of_time_is_told_before_and_gets_more(project: Project) -> None:
    project.hold()
    call = project.snakemake(
        *("--set-resources", "train_run:runtime=attempt"),
        *("--default-resources", "slurm_extra='--signal=TERM@30'"),
    )
    project.until(project.running(), "both runs")
    project.until(lambda: "FAILED train_run" in project.said(), "the end of the first attempts", 120)
    project.release()
    assert project.finish(call) == 0
    project.assert_whole()


def test_a_run_that_its_retries_cannot_finish_is_refused_before_any_job(project: Project) -> None:
    study = project.folder / STUDY
    longer = {"epochs: 2, keep: [1, 2]": "epochs: 1000", "rows: 60": "rows: 6000", "size: 40": "size: 4000"}
    text = study.read_text()
    for old, new in longer.items():
        assert old in text
        text = text.replace(old, new)
    study.write_text(text)
    call = project.snakemake("--retries", "2", config=["max_runtime=30"])
    assert project.finish(call) == 1
    assert re.search(r"config.yaml: max_runtime: the longest job needs about \d+ times 30 minutes, and", project.said())
    assert "is tried 3 times; give --retries" in project.said()
    assert project.living() == {} and project.started() == []


def test_short_runs_share_a_job_of_the_cluster(project: Project) -> None:
    """Two runs in one SLURM job: separate targets, one import of the libraries, one loaded base."""
    assert project.finish(project.snakemake("--groups", "train_run=runs", "--group-components", "runs=2")) == 0
    assert len(set(project.started())) == 1
    records = [read_json(path) for path in (project.folder / "results/runs").rglob("train-*.record.json")]
    assert len(records) == RUNS
    # the job's own process has imported nothing: its parent had
    assert all(record["import_cpu_seconds"] < 0.5 for record in records)
    project.assert_whole()
