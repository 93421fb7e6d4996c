"""Lines of progress: counts of jobs by stage, and why a job failed."""

import io
from pathlib import Path

import pytest

from sft_atlas.runtime import progress
from sft_atlas.runtime.progress import Outlook, Progress


@pytest.fixture
def clock(monkeypatch: pytest.MonkeyPatch) -> list[float]:
    """The time, to be set by the test."""
    now = [100.0]
    monkeypatch.setattr(progress.time, "monotonic", lambda: now[0])
    return now


@pytest.fixture
def out() -> io.StringIO:
    return io.StringIO()


@pytest.fixture
def shown(clock: list[float], out: io.StringIO) -> Progress:
    made = Progress(out, 10.0)
    made.plan({"train_run": 3, "evaluate": 2})
    return made


def line(stage: str, done: int, running: int, failed: int, planned: int) -> str:
    return f"{stage:<20} {done:>5} done {running:>4} running {failed:>4} failed  of {planned}\n"


def test_the_end_of_a_stage_is_shown_at_once(shown: Progress, out: io.StringIO) -> None:
    for _ in range(3):
        shown.started("train_run")
    shown.finished("train_run")
    shown.finished("train_run")
    assert out.getvalue() == ""
    shown.finished("train_run")
    assert out.getvalue() == line("train_run", 3, 0, 0, 3)


def test_in_between_every_running_stage_is_shown_now_and_then(
    shown: Progress, out: io.StringIO, clock: list[float]
) -> None:
    for stage in ("train_run", "train_run", "evaluate"):
        shown.started(stage)
    clock[0] += 9
    shown.finished("train_run")
    assert out.getvalue() == ""
    clock[0] += 1
    shown.started("train_run")
    shown.finished("train_run")
    both = line("train_run", 2, 1, 0, 3) + line("evaluate", 0, 1, 0, 2)
    assert out.getvalue() == both
    shown.started("evaluate")
    clock[0] += 9
    shown.finished("evaluate")
    assert out.getvalue() == both


def test_a_failure_is_shown_at_once_with_the_end_of_its_log(shown: Progress, out: io.StringIO, tmp_path: Path) -> None:
    log = tmp_path / "run.log"
    log.write_bytes(b"step 1\n\xff\nerror: rows.jsonl:3: column 'x' is missing\n\n")
    shown.started("train_run")
    shown.failed("train_run", [str(log)])
    assert out.getvalue() == (
        f"FAILED train_run: error: rows.jsonl:3: column 'x' is missing\n       see {log}\n"
        + line("train_run", 0, 0, 1, 3)
    )


BARS = "Running generate_until requests:   0%|          | 0/2 [00:00<?, ?it/s]"
LOGS = {
    "a bar after the error": f"Traceback (most recent call last):\nerror: AssertionError: too long\n{BARS}\r{BARS}\n",
    "a bar on the line before": f"step 1\n{BARS}\rerror: AssertionError: too long",
    "the last of several errors": "error: one\nstep 2\nerror: AssertionError: too long\n",
    "an exception without our word": f"x\nAssertionError: too long\n{BARS}\n",
    "another library's exception": "x\ntorch.AssertionError: too long\n100%|####| 2/2\n12it [00:01, 9.1it/s]\n",
    "no error": f"too long\n{BARS}\n\n",
}


@pytest.mark.parametrize("written", LOGS.values(), ids=LOGS)
def test_a_failure_shows_its_error_and_no_progress_bar(written: str, tmp_path: Path) -> None:
    log = tmp_path / "run.log"
    log.write_text(written)
    assert progress.last_words(log).endswith("too long")


def test_an_error_long_before_the_end_is_not_what_ended_a_job(tmp_path: Path) -> None:
    log = tmp_path / "run.log"
    log.write_text("error: mended since\n" + "step\n" * 50 + "Killed\n")
    assert progress.last_words(log) == "Killed"
    assert progress.last_words(tmp_path / "none.log") == ""


@pytest.mark.parametrize("written", [None, ""])
def test_a_failure_without_a_word_is_shown_too(
    written: str | None, shown: Progress, out: io.StringIO, tmp_path: Path
) -> None:
    log = tmp_path / "run.log"
    if written is not None:
        log.write_text(written)
    shown.started("evaluate")
    shown.failed("evaluate", [str(log)])
    assert out.getvalue().startswith("FAILED evaluate: nothing in its log\n")


def test_failed_jobs_count_towards_the_end_of_a_stage(shown: Progress, out: io.StringIO) -> None:
    for _ in range(2):
        shown.started("evaluate")
    shown.failed("evaluate")
    shown.finished("evaluate")
    assert out.getvalue() == line("evaluate", 0, 1, 1, 2) + line("evaluate", 1, 0, 1, 2)


def test_what_was_not_planned_is_not_counted(shown: Progress, out: io.StringIO) -> None:
    shown.finished("all")
    shown.finished(None)
    shown.failed(None)
    assert out.getvalue() == ""
    assert shown.done.total() == 0


def test_it_writes_to_stderr_by_default(capsys: pytest.CaptureFixture[str]) -> None:
    made = Progress()
    made.plan({"train_run": 1})
    made.started("train_run")
    made.finished("train_run")
    assert capsys.readouterr() == ("", line("train_run", 1, 0, 0, 1))


def test_a_dry_run_is_summed_up_by_stage_and_reason(capsys: pytest.CaptureFixture[str]) -> None:
    outlook = Outlook()
    outlook.show()
    assert capsys.readouterr().err == ""
    for name in ("a", "b"):
        outlook.add("train_run", f"Missing output files: {name}; Input files updated by another job: x, y", 1.5)
    outlook.add("train_run", "Params have changed since last execution: Union of exclusive params before and now", 1)
    outlook.add("report", "Updated input files: figures.py", 0)
    outlook.add("report", "something new", 0)
    outlook.show()
    assert capsys.readouterr().err.splitlines() == [
        "train_run                  2 jobs       3.0 GPU-hours  output missing, input made anew",
        "train_run                  1 job        1.0 GPU-hours  specification changed",
        "report                     1 job        0.0 GPU-hours  input changed",
        "report                     1 job        0.0 GPU-hours  something new",
        "why one of them: sft-atlas why PATH",
    ]
