"""`sft-atlas status`, `recover` and `efficiency` beside a real cluster."""

import signal

from tests.slurm.conftest import RUNS, Project


def column(text: str, stage: str) -> list[str]:
    return next(line.split() for line in text.splitlines() if line.startswith(stage))[1:]


def test_from_a_killed_session_to_the_table_of_what_was_used(project: Project) -> None:
    project.hold()
    call = project.snakemake("--jobs", "1")
    project.until(project.running(1), "the first run")
    text = project.command("status")
    # done, running, pending, failed, waiting
    assert column(text, "train")[:5] == ["0", "1", "0", "0", "1"], text
    number = project.started()[0]
    assert "at work: process" in text and f"SLURM job {number} on c" in text
    assert "nothing to recover: the run that is at work has its jobs in hand" in project.command("recover")
    assert "error: a run is alive" in project.command("recover", "--cancel")
    assert len(project.living()) == 1

    call.send_signal(signal.SIGKILL)
    call.wait()
    text = project.command("status")
    assert "no Snakemake is at work in this folder (one was killed)" in text
    assert column(text, "train")[:5] == ["0", "1", "0", "0", "1"], text
    text = project.command("recover")
    assert f"SLURM job {number} RUNNING" in text and "which takes these jobs over; or end them with --cancel" in text
    text = project.command("recover", "--cancel")
    assert "nothing is left in the queue" in text and project.living() == {}

    project.release()
    assert project.finish(project.snakemake()) == 0
    project.assert_whole()
    assert column(project.command("status"), "train")[:5] == [str(RUNS), "0", "0", "0", "0"]
    jobs, minutes, *_ = column(project.command("efficiency"), "train")
    assert (jobs, minutes) == (str(RUNS), "10")


def test_a_failed_cell_is_told_with_slurms_reason(project: Project) -> None:
    project.hold()
    call = project.snakemake("--retries", "0")
    project.until(project.running(), "both runs")
    numbers = project.started()
    project.cluster.run("scancel", numbers[0])
    project.until(lambda: "FAILED train_run" in project.said(), "the end of one")
    project.release()
    assert project.finish(call) == 1
    text = project.command("status")
    assert column(text, "train")[:5] == ["1", "0", "0", "1", "0"], text
    assert f": CANCELLED (SLURM job {numbers[0]} on c" in text
    assert "see " in text and "logs/train/calculator/math-40" in text
