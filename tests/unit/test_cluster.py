"""Running on a cluster, as far as files tell: sessions, the journal, states, asked against used."""

import asyncio
import errno
import json
import os
import threading
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from types import SimpleNamespace

import pytest

from sft_atlas.cluster import guard, journal, session
from sft_atlas.cluster.efficiency import efficiency_lines
from sft_atlas.cluster.guard import NEVER, Guard, gres
from sft_atlas.cluster.journal import Attempt
from sft_atlas.cluster.queue import Job, name_of, seconds
from sft_atlas.cluster.status import status_lines
from sft_atlas.cost.estimates import Estimates
from sft_atlas.study.plan import Plan, Spec
from sft_atlas.study.table import plan_study

ROOT = Path(__file__).resolve().parents[2]


@pytest.fixture
def plan() -> Plan:
    return plan_study(ROOT / "tests/studies/trimmed.yaml", ROOT)


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A project's folder, on a machine without SLURM."""
    monkeypatch.setenv("PATH", str(tmp_path))
    monkeypatch.chdir(tmp_path)
    return tmp_path


def lines(plan: Plan, folder: Path) -> str:
    return "\n".join(status_lines(plan, Estimates(plan, Path("results")), folder))


def row(text: str, stage: str) -> list[str]:
    return next(line.split() for line in text.splitlines() if line.startswith(stage))[1:]


def make(folder: Path, spec: Spec, **record: object) -> None:
    output = folder / "results" / spec.output
    output.parent.mkdir(parents=True, exist_ok=True)
    output.write_text("{}")
    usual = {
        "wall_seconds": 90.0,
        "peak_memory_mb": 700.0,
        "cpu_seconds": 60.0,
        "import_cpu_seconds": 6.0,
        "device": "cpu",
    }
    frozen = folder / "results" / spec.file
    frozen.with_name(frozen.name.replace(".spec.json", ".record.json")).write_text(json.dumps(usual | record))


def entered(folder: Path, **changes: object) -> Path:
    place = folder / session.FOLDER
    place.mkdir(parents=True, exist_ok=True)
    path = place / "run-test.json"
    own = {
        "host": session.platform.node(),
        "process": os.getpid(),
        "began": session.began(os.getpid()),
        "time": time.time(),
    }
    path.write_text(json.dumps(own | changes))
    return path


def test_jobs_are_named_after_the_folder_however_it_is_spelt(tmp_path: Path) -> None:
    (tmp_path / "project").mkdir()
    (tmp_path / "link").symlink_to("project")
    assert name_of(tmp_path / "project") == name_of(tmp_path / "link")
    assert name_of(tmp_path / "project") != name_of(tmp_path)


def test_elapsed_time() -> None:
    assert [seconds(text) for text in ("1-02:03:04", "02:03:04", "03:04", "UNLIMITED", "")] == [93784, 7384, 184, 0, 0]


def test_a_run_on_this_host_lives_as_long_as_its_process(folder: Path) -> None:
    path = entered(folder)
    assert session.found(folder) == ([path], [])
    # the number was given to another process since
    path = entered(folder, began="boot/1")
    assert session.found(folder) == ([], [path])


def test_a_run_on_another_host_lives_as_long_as_its_file_is_touched(folder: Path) -> None:
    path = entered(folder, host="login2", process=1)
    assert session.found(folder) == ([path], [])
    old = time.time() - session.SILENT_SECONDS - 10
    os.utime(path, (old, old))
    assert session.found(folder) == ([], [path])


def test_the_lock_of_a_dead_run_is_removed_and_that_of_a_living_one_stays(folder: Path) -> None:
    said: list[str] = []
    lock = folder / session.LOCKS / "0.output.lock"
    lock.parent.mkdir(parents=True)
    lock.touch()
    # nobody knows whose lock this is
    session.begin(said.append)
    assert lock.exists() and not said
    for path in (folder / session.FOLDER).glob("run-*"):
        path.unlink()
    entered(folder)
    session.begin(said.append)
    assert lock.exists() and "another run is at work" in said[0]
    for path in (folder / session.FOLDER).glob("run-*"):
        path.unlink()
    entered(folder, began="boot/1")
    session.begin(said.append)
    assert not lock.exists() and "is removed" in said[-1]


def test_the_lock_of_a_dead_run_is_removed_once_nobody_else_lives(folder: Path) -> None:
    said: list[str] = []
    lock = folder / session.LOCKS / "0.output.lock"
    lock.parent.mkdir(parents=True)
    lock.touch()
    dead = entered(folder, began="boot/1").rename(folder / session.FOLDER / "run-dead.json")
    living = entered(folder)
    session.begin(said.append)
    assert lock.exists() and dead.exists()
    for path in (folder / session.FOLDER).glob("run-*"):
        if path != dead:
            path.unlink()
    assert not living.exists()
    session.begin(said.append)
    assert not lock.exists() and not dead.exists()


def test_the_file_of_a_run_that_a_power_cut_left_empty_is_of_a_dead_one(folder: Path) -> None:
    path = entered(folder)
    for text in ("", "[]", '{"time": 1}'):
        path.write_text(text)
        assert session.found(folder) == ([], [path])
        assert session.describe(path) == "run-test"
    assert session.entered(path) == 1


def test_a_run_lives_on_where_the_file_system_does_not_answer_for_a_moment(
    folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path, beats = entered(folder), []

    def touch(place: Path) -> None:
        beats.append(place)
        if len(beats) == 2:
            raise OSError(errno.ESTALE, "Stale file handle")
        if len(beats) == 4:
            raise FileNotFoundError

    monkeypatch.setattr(session, "BEAT_SECONDS", 0)
    monkeypatch.setattr(session.os, "utime", touch)
    session._beat(path)
    assert beats == [path] * 4


def test_a_journal_that_cannot_be_written_ends_nothing_and_is_told_once(
    folder: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (folder / journal.FILE).mkdir(parents=True)
    for number in "12":
        journal.write([Attempt("a", "train_run", number, "TIMEOUT")], folder)
    said = capsys.readouterr().err
    assert said.startswith("warning: ") and len(said.splitlines()) == 1 and "attempts.jsonl: Is a directory" in said


def test_a_cut_line_of_the_journal_is_left_out(folder: Path) -> None:
    journal.write([Attempt("a", "train_run", "1", "TIMEOUT")], folder)
    with (folder / journal.FILE).open("a") as file:
        file.write('{"output": "b", "ru')
    assert [attempt.output for attempt in journal.read(folder)] == ["a"]


def test_status_without_slurm_tells_what_files_say(plan: Plan, folder: Path) -> None:
    first, second, third, *rest = plan.select("train")
    make(folder, first)
    journal.write(
        [Attempt(f"results/{second.output}", "train_run", "17", "OUT_OF_MEMORY", node="n3", gpu=1, elapsed=7200)]
    )
    log = folder / "logs/train/x/y/z" / f"{third.hash}.log"
    log.parent.mkdir(parents=True)
    log.write_text("step 1\nerror: no such base\n")
    text = lines(plan, folder)
    assert "no Snakemake is at work in this folder" in text and "without SLURM: squeue" in text
    # done, running, pending, failed, waiting, GPU-hours
    assert row(text, "train")[:6] == ["1", "0", "0", "2", str(len(rest)), "2.0"]
    assert f"results/{second.output}: OOM (SLURM job 17 on n3)" in text
    assert f"results/{third.output}: error: no such base" in text and str(log) in text


def test_status_tells_how_far_a_local_run_is(plan: Plan, folder: Path) -> None:
    spec = next(iter(plan.select("train")))
    entered(folder)
    log = folder / "logs/train/x/y/z" / f"{spec.hash}.log"
    log.parent.mkdir(parents=True)
    log.write_text("step 1\n")
    progress = folder / "results" / spec.output.replace("train-", "progress-")
    progress.parent.mkdir(parents=True)
    told = {
        "step": 120,
        "max_steps": 900,
        "tokens_per_second": 3400.4,
        "loss": 1.2345,
        "seconds_left": 720,
        "written": time.time(),
    }
    progress.write_text(json.dumps(told))
    text = lines(plan, folder)
    assert row(text, "train")[1] == "1"
    assert f"{spec.output}  step 120 of 900, loss 1.234, 3,400 tokens/s, 12 minutes left" in text
    progress.write_text('{"step": ')
    assert row(lines(plan, folder), "train")[1] == "1"


def test_a_log_of_an_earlier_run_is_not_one_of_the_run_at_work(plan: Plan, folder: Path) -> None:
    spec = next(iter(plan.select("train")))
    log = folder / "logs/train/x/y/z" / f"{spec.hash}.log"
    log.parent.mkdir(parents=True)
    log.write_text("step 1\nasked to stop after step 1: state saved at step 1; the same job goes on from there\n")
    entered(folder, time=log.stat().st_mtime + 1)
    assert row(lines(plan, folder), "train")[:5] == ["0", "0", "0", "0", str(len(plan.select("train")))]
    entered(folder, time=log.stat().st_mtime - 1)
    assert row(lines(plan, folder), "train")[1] == "1"


def test_efficiency_compares_what_was_asked_with_what_was_used(plan: Plan, folder: Path) -> None:
    prices = Estimates(plan, Path("results"))
    assert efficiency_lines(plan, prices, folder) == ["no job of this study has finished here yet"]
    first, second, *_ = plan.select("train")
    make(folder, first, wall_seconds=600.0, peak_memory_mb=3000.0, cpu_seconds=1100.0, import_cpu_seconds=100.0)
    make(folder, second, wall_seconds=1200.0, peak_memory_mb=2000.0, cpu_seconds=2300.0, import_cpu_seconds=100.0)
    asked = {"threads": 4, "mem_mb": 6000, "runtime": 60, "gpu": 1, "elapsed": 1800.0}
    outputs = [f"results/{spec.output}" for spec in (first, second)]
    journal.write([Attempt(outputs[0], "train_run", "1", "TIMEOUT", **asked)])  # type: ignore[arg-type]
    journal.write([Attempt(output, "train_run", "2", "COMPLETED", **asked) for output in outputs])  # type: ignore[arg-type]
    found = row("\n".join(efficiency_lines(plan, Estimates(plan, Path("results")), folder)), "train")
    assert found == ["2", "60", "15.0", "25%", "6000", "3000", "50%", "4", "2.0", "1.5", "3"]


@pytest.mark.parametrize(
    ("message", "never"),
    [
        ("sbatch: error: invalid partition specified: none", True),
        ("Batch job submission failed: Requested node configuration is not available", True),
        ("Batch job submission failed: Invalid account or account/partition combination specified", True),
        ("Batch job submission failed: User's group not permitted to use this partition", True),
        ("Batch job submission failed: Access/permission denied", True),
        ("Batch job submission failed: Required partition not available (inactive or drain)", False),
        ("Batch job submission failed: Socket timed out on send/recv operation", False),
        ("Batch job submission failed: Job violates accounting/QOS policy (job submit limit)", False),
        ("Unable to contact slurm controller (connect failure)", False),
    ],
)
def test_what_sbatch_will_never_take_is_told_from_what_may_pass(message: str, never: bool) -> None:
    assert bool(NEVER.search(message)) is never


def test_gpus_take_the_name_that_a_site_gives_them() -> None:
    assert [gres(name, 2) for name in ("gpu:1", "gpu", "gpu:a100:1", "gpu:a100")] == [
        "gpu:2",
        "gpu:2",
        *["gpu:a100:2"] * 2,
    ]
    assert gres("gpu:1", 0) == ""


REFUSAL = "SLURM sbatch failed. The error message was 'Job violates accounting/QOS policy'.\n    sbatch call:\n sbatch"


class Resources(dict[str, object]):
    """Resources as Snakemake has them: `resources.gpu` and `resources.get("gpu")`."""

    __setattr__ = dict.__setitem__


class Executor:
    """As much of the plugin's executor as the guard mends; `refuses` says of which jobs sbatch does not take any."""

    def __init__(self, refuses: Callable[[str], bool]) -> None:
        settings = SimpleNamespace(init_seconds_before_status_checks=0.01)
        self.workflow = SimpleNamespace(executor_settings=settings, resource_settings=SimpleNamespace(nodes=200))
        self._job_submission_executor = ThreadPoolExecutor(2)
        self.refuses, self.lock, self.active_jobs = refuses, threading.Lock(), list[object]()
        self.submitted: list[str] = []
        self.at_a_time, self.most_at_a_time = 0, 0
        self.next_seconds_between_status_checks = 0

    def run_job(self, job: SimpleNamespace) -> None:
        with self.lock:
            self.at_a_time += 1
            self.most_at_a_time = max(self.most_at_a_time, self.at_a_time)
        time.sleep(0.01)
        with self.lock:
            self.at_a_time -= 1
        if self.refuses(job.name):
            self._report_job_error_threadsafe(SimpleNamespace(job=job), REFUSAL)
        else:
            self.submitted.append(job.name)

    def check_active_jobs(self, active: list[object]) -> None: ...

    def _report_job_error_threadsafe(self, info: object, message: str) -> None: ...

    def cancel_jobs(self, jobs: list[object]) -> None: ...

    def submit(self, *names: str) -> None:
        """As the plugin does with jobs that are ready."""
        for name in names:
            job = SimpleNamespace(name=name, output=[name], resources=Resources())
            self._job_submission_executor.submit(self.run_job, job)


PLUGIN = SimpleNamespace(query_job_status=None, get_job_wildcards=lambda job: "")


@pytest.fixture
def queued(monkeypatch: pytest.MonkeyPatch) -> Iterator[list[Job]]:
    """What squeue shows; the plugin's module is left as it was."""
    jobs: list[Job] = []
    monkeypatch.setattr(guard, "jobs_of", lambda name: jobs)
    monkeypatch.setattr(PLUGIN, "query_job_status", None)
    yield jobs


def in_queue(number: str, comment: str, state: str = "RUNNING", node: str = "n1") -> Job:
    return Job(number, state, "1:00", "10:00", "cpu", node, "None", "/project", comment)


def test_a_refused_job_keeps_its_like_waiting_and_nobody_else(queued: list[Job]) -> None:
    refused = threading.Event()
    executor = Executor(lambda name: name == "train_run" and not refused.is_set())
    Guard(executor, PLUGIN, "project", lambda text: None)
    executor.submit(*["train_run"] * 6, *["evaluate_model"] * 20)
    give_up = time.monotonic() + 30
    while len(executor.submitted) < 20 and time.monotonic() < give_up:
        time.sleep(0.01)
    assert executor.submitted == ["evaluate_model"] * 20
    refused.set()
    executor._job_submission_executor.shutdown(wait=True)
    assert executor.submitted[20:] == ["train_run"] * 6
    assert executor.most_at_a_time <= guard.AT_A_TIME


def test_after_an_interrupt_jobs_that_wait_are_not_submitted(queued: list[Job]) -> None:
    executor = Executor(lambda name: True)
    own = Guard(executor, PLUGIN, "project", lambda text: None)
    executor.submit(*["train_run"] * 6)
    time.sleep(0.1)
    executor.refuses = lambda name: False
    with own.submitting, own.submitting:
        executor.cancel_jobs([])
    executor._job_submission_executor.shutdown(wait=True)
    assert len(executor.submitted) <= guard.AT_A_TIME


def test_a_job_of_several_runs_is_not_taken_over(queued: list[Job], monkeypatch: pytest.MonkeyPatch) -> None:
    cancelled: list[Job] = []
    monkeypatch.setattr(guard, "cancel", cancelled.extend)
    single = "rule_train_run_wildcards_base_sample_abc"
    # groups of one rule, and two jobs that make the same
    queued += [in_queue("1", "rule_runs_train_run"), in_queue("2", "rule_runs_train_run", "PENDING")]
    queued += [in_queue("3", single, "PENDING"), in_queue("4", single), in_queue("5", "rule_old", "FAILED")]
    said: list[str] = []
    own = Guard(Executor(lambda name: False), PLUGIN, "project", said.append)
    assert [job.number for job in cancelled] == ["1", "2", "3"]
    assert [job.number for job in own.left.values()] == ["4"]
    assert any(text.startswith("2 jobs") and "go on from their saved states" in text for text in said)


@pytest.mark.parametrize(("ending", "avoided"), [("asked to stop after step 3: state saved", False), ("error", True)])
def test_a_node_is_not_avoided_for_a_job_that_was_asked_to_stop(
    ending: str, avoided: bool, folder: Path, queued: list[Job]
) -> None:
    assert guard.STOPPED in (ROOT / "workflow/scripts/sft_atlas/stages/train/run.py").read_text()
    own = Guard(Executor(lambda name: False), PLUGIN, "project", lambda text: None)
    queued.append(in_queue("7", "rule_train_run_wildcards_x", "FAILED"))
    log = folder / "train.log"
    log.write_text(f"step 3\n{ending}\n")
    job = SimpleNamespace(
        name="train_run", output=["a"], log=["gone.log", str(log)], threads=1, attempt=1, resources=Resources()
    )
    info = SimpleNamespace(job=job, external_jobid="7", aux={"slurm_logfile": folder / "7.log"})
    asyncio.run(own._note([(info, "FAILED")]))
    assert own.avoided == ({str(job.output): ["n1"]} if avoided else {})
    assert [attempt.state for attempt in journal.read(folder)] == ["FAILED"]
