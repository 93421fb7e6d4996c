"""A cluster for the session, and projects in which everything but the training runs is done."""

import os
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path

import pytest

from tests.conftest import ENVIRONMENT, fresh
from tests.slurm.cluster import Cluster, missing

HERE = Path(__file__).parent
STUDY, LONG = "tests/slurm/study.yaml", "tests/slurm/long.yaml"
RUNS = 2
LIVING = ("PENDING", "CONFIGURING", "RUNNING", "COMPLETING", "SUSPENDED", "REQUEUED")


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Everything in this folder is for `make test-slurm`."""
    for item in items:
        if item.path.is_relative_to(HERE):
            item.add_marker("slurm")


@pytest.fixture(scope="session")
def cluster(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Cluster]:
    """A running cluster; skipped where its programs are missing."""
    if missing():
        pytest.skip(f"not installed: {', '.join(missing())}; make test-slurm installs them where it may")
    cluster = Cluster(tmp_path_factory.mktemp("slurm"))
    cluster.start()
    yield cluster
    cluster.stop()


@pytest.fixture
def whole_cluster(cluster: Cluster) -> Iterator[Cluster]:
    """The cluster, put together again after the test."""
    yield cluster
    cluster.start()
    cluster.run("scancel", f"--user={os.getuid()}", check=False)
    cluster.run("scontrol", "update", "PartitionName=cpu", "State=UP", check=False)


@pytest.fixture(scope="session")
def undisturbed(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The project after a local run of its training; `project` makes its copies of it."""
    repository = fresh(tmp_path_factory.mktemp("undisturbed") / "project", STUDY)
    repository.snakemake("train", "tokenise")
    return repository.folder


class Project:
    """A project on the cluster: the runs are still to be trained."""

    def __init__(self, folder: Path, undisturbed: Path, cluster: Cluster, notes: Path, study: str, runs: int) -> None:
        self.folder, self.undisturbed, self.cluster, self.notes = folder, undisturbed, cluster, notes
        self.study, self.runs = study, runs
        self.calls: list[subprocess.Popen[bytes]] = []

    def hold(self) -> None:
        """Let jobs wait before they work."""
        (self.notes / "hold").touch()

    def release(self) -> None:
        """Let them work."""
        (self.notes / "hold").unlink(missing_ok=True)

    def snakemake(self, *arguments: str, target: str = "train", config: Sequence[str] = ()) -> subprocess.Popen[bytes]:
        """Start `snakemake --profile slurm TARGET`, with shorter waits than on a real cluster."""
        waits = ("--slurm-init-seconds-before-status-checks", "3", "--latency-wait", "10")
        command = [sys.executable, "-m", "snakemake", target, "--profile", "slurm", *waits, *arguments]
        environment = self.environment()
        with (self.folder / "snakemake.out").open("ab") as log:
            call = subprocess.Popen(
                [*command, "--config", f"study={self.study}", *config],
                cwd=self.folder,
                env=environment,
                stdout=log,
                stderr=log,
            )
        self.calls.append(call)
        return call

    def environment(self) -> dict[str, str]:
        """What calls and their jobs see."""
        path = os.pathsep.join([str(HERE / "hooks"), *filter(None, [os.environ.get("PYTHONPATH")])])
        return {
            **ENVIRONMENT,
            "PATH": self.cluster.environment["PATH"],
            "PYTHONPATH": path,
            "ATLAS_NOTES": str(self.notes),
        }

    def command(self, *arguments: str) -> str:
        """What an `sft-atlas` subcommand prints, with its errors."""
        command = [sys.executable, "-m", "sft_atlas.commands.cli", *arguments, "--study", self.study]
        environment = self.environment()
        done = subprocess.run(command, cwd=self.folder, env=environment, capture_output=True, text=True, check=False)
        return done.stdout + done.stderr

    def finish(self, call: subprocess.Popen[bytes], seconds: float = 120) -> int:
        """Wait for the end of a call; its exit status."""
        try:
            return call.wait(seconds)
        except subprocess.TimeoutExpired:
            pytest.fail(f"still at work after {seconds:.0f} s\n{self.said()[-4000:]}\n{self.cluster.ask('squeue')}")

    def until(self, holds: Callable[[], object], what: str, seconds: float = 60) -> None:
        """Wait for something."""
        if not self.soon(holds, seconds):
            pytest.fail(f"waited {seconds:.0f} s for {what}\n{self.said()[-4000:]}\n{self.cluster.ask('squeue')}")

    def soon(self, holds: Callable[[], object], seconds: float) -> bool:
        """Whether something comes true within a time."""
        deadline = time.monotonic() + seconds
        while not holds():
            if time.monotonic() > deadline:
                return False
            time.sleep(0.2)
        return True

    def started(self) -> list[str]:
        """SLURM's numbers of the training jobs that have begun, in order."""
        return [number for what, number, spec in self._notes() if what == "start" and "/train-" in spec]

    def visible(self) -> list[str]:
        """The GPUs that each training job which has begun sees, as `NUMBER=GPUS`."""
        return (self.notes / "gpus").read_text().split()

    def running(self, count: int = RUNS) -> Callable[[], object]:
        """A condition: so many training jobs have begun."""
        return lambda: len(self.started()) >= count

    def trained(self) -> list[str]:
        """The specifications of training jobs that came to their end, in order."""
        return [spec for what, _, spec in self._notes() if what == "end" and "/train-" in spec]

    def said(self) -> str:
        """What all calls have printed."""
        return (self.folder / "snakemake.out").read_text(errors="replace")

    def assert_whole(self) -> None:
        """The same bytes as without the fault, no run trained twice, nothing in the queue, no lock."""
        self.assert_same()
        assert len(self.trained()) == len(set(self.trained())) == self.runs, self._notes()
        assert self.living() == {}
        assert not list((self.folder / ".snakemake/locks").glob("*"))

    def assert_same(self) -> None:
        """The same bytes as without the fault."""
        ours, theirs = scientific(self.folder / "results/runs"), scientific(self.undisturbed / "results/runs")
        assert sorted(ours) == sorted(theirs)
        assert [path for path in ours if ours[path] != theirs[path]] == []

    def living(self) -> dict[str, tuple[str, str]]:
        """Jobs that still run, or wait."""
        return self.cluster.jobs(*LIVING)

    def end(self) -> None:
        """End what is left of a failed test."""
        for call in self.calls:
            if call.poll() is None:
                call.send_signal(signal.SIGKILL)
                call.wait()

    def _notes(self) -> list[list[str]]:
        notes = self.notes / "notes"
        return [line.split(" ", 2) for line in notes.read_text().splitlines()] if notes.exists() else []


def scientific(folder: Path) -> dict[str, bytes]:
    """Every file but records of time and host and who trained, by path."""
    files = [path for path in sorted(folder.rglob("*")) if path.is_file() and "lease" not in path.parts]
    return {path.relative_to(folder).as_posix(): path.read_bytes() for path in files if ".record." not in path.name}


@pytest.fixture
def project(undisturbed: Path, whole_cluster: Cluster, tmp_path: Path) -> Iterator[Project]:
    """A copy of the project without its runs."""
    project = copied(undisturbed, whole_cluster, tmp_path, STUDY, RUNS)
    yield project
    project.end()


@pytest.fixture(scope="session")
def undisturbed_long(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The project after a local run of training that takes a while."""
    repository = fresh(tmp_path_factory.mktemp("long") / "project", LONG)
    repository.snakemake("train")
    return repository.folder


@pytest.fixture
def long_project(undisturbed_long: Path, whole_cluster: Cluster, tmp_path: Path) -> Iterator[Project]:
    """A copy of that project without its run."""
    project = copied(undisturbed_long, whole_cluster, tmp_path, LONG, 1)
    yield project
    project.end()


def copied(undisturbed: Path, cluster: Cluster, place: Path, study: str, runs: int) -> Project:
    """A copy of a project in which everything but its runs is done."""
    folder, notes = place / "project", place / "notes"
    notes.mkdir()
    shutil.copytree(
        undisturbed, folder, symlinks=True, ignore=shutil.ignore_patterns("runs", "logs", "log", "sft-atlas")
    )
    return Project(folder, undisturbed, cluster, notes, study, runs)
