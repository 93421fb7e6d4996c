"""One real run of a trimmed micro study, shared by every test that looks at results or at what a change redoes."""

import os
import re
import shutil
import signal
import subprocess
import sys
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[1]
SHARED = ROOT.parent / "shared"
COPIED = (
    "Snakefile",
    "config.yaml",
    "pyproject.toml",
    "rules",
    "workflow",
    "envs",
    "studies",
    "tests",
    "profiles",
    "local",
    "slurm",
)
# A shell has what it starts in the background ignore Ctrl-C, and so would everything that the tests start.
signal.signal(signal.SIGINT, signal.default_int_handler)
# Snakemake's own settings of whoever runs the tests must not change what is planned.
ENVIRONMENT = {name: value for name, value in os.environ.items() if not name.startswith(("SNAKEMAKE_", "SFT_ATLAS_"))}


@dataclass(frozen=True)
class Planned:
    """What a dry run says: jobs by rule, and the whole text."""

    jobs: dict[str, int]
    text: str


class Repository:
    """A copy of the project in which a test may edit, run and plan."""

    def __init__(self, folder: Path, study: str) -> None:
        self.folder, self.study = folder, study

    def snakemake(self, *arguments: str, only: str = "", check: bool = True) -> subprocess.CompletedProcess[str]:
        """Run Snakemake here; `check` fails the test with the whole output."""
        config = ["--config", f"study={self.study}", *([f"only={only}"] if only else [])]
        command = [sys.executable, "-m", "snakemake", "--cores", "2", *arguments, *config]
        # jobs run the code of this copy, which a test may have edited
        environment = ENVIRONMENT | {"PYTHONPATH": str(self.folder / "workflow/scripts")}
        done = subprocess.run(command, cwd=self.folder, env=environment, capture_output=True, text=True, check=False)
        if check and done.returncode:
            logs = [path for path in (self.folder / "logs").rglob("*.log") if path.stat().st_size]
            tails = [f"== {path}\n{path.read_text()[-2000:]}" for path in logs if "rror" in path.read_text()]
            pytest.fail("\n".join([done.stdout[-6000:], done.stderr[-6000:], *tails]))
        return done

    def python(self, *arguments: str) -> str:
        """Run Python with this copy's package; returns what it prints."""
        environment = ENVIRONMENT | {"PYTHONPATH": str(self.folder / "workflow/scripts")}
        command = [sys.executable, *arguments]
        done = subprocess.run(command, cwd=self.folder, env=environment, capture_output=True, text=True, check=True)
        return done.stdout

    def plan(self, *targets: str) -> Planned:
        """What a dry run would do."""
        text = self.snakemake("--dry-run", *targets).stdout
        table = text.rpartition("Job stats:")[2] if "Job stats:" in text else ""
        jobs = dict(re.findall(r"^(\S+)\s+(\d+)$", table, flags=re.MULTILINE))
        return Planned({rule: int(n) for rule, n in jobs.items() if rule not in ("total", "all")}, text)

    def edit(self, path: str, old: str, new: str) -> None:
        """Replace a text that must stand in the file exactly once."""
        file = self.folder / path
        content = file.read_text()
        assert content.count(old) == 1, f"{old!r} stands {content.count(old)} times in {path}"
        file.write_text(content.replace(old, new))


def copy_project(folder: Path) -> None:
    """Copy what Snakemake reads."""
    for name in COPIED:
        if (ROOT / name).is_dir():
            shutil.copytree(ROOT / name, folder / name, symlinks=True, ignore=shutil.ignore_patterns("__pycache__"))
        elif (ROOT / name).exists():
            shutil.copy(ROOT / name, folder / name)


def fresh(folder: Path, study: str) -> Repository:
    """A copy of the project without results, in a folder that does not exist yet."""
    folder.mkdir()
    copy_project(folder)
    return Repository(folder, study)


@pytest.fixture(scope="session")
def finished_run(tmp_path_factory: pytest.TempPathFactory) -> Repository:
    """The trimmed micro study, run whole, once per session; read it, do not edit it (see `finished`)."""
    repository = fresh(tmp_path_factory.mktemp("trimmed") / "project", "tests/studies/trimmed.yaml")
    repository.snakemake()
    return repository


@pytest.fixture
def finished(finished_run: Repository, tmp_path: Path) -> Iterator[Repository]:
    """A copy of the finished study of one's own, in which a test may change what it likes."""
    folder = tmp_path / "project"
    # times are kept: Snakemake compares them; logs are not, the run's worker may still be writing its own there
    shutil.copytree(finished_run.folder, folder, symlinks=True, ignore=shutil.ignore_patterns("logs"))
    yield Repository(folder, finished_run.study)
    # the worker of the last run may still be writing its record
    shutil.rmtree(folder, ignore_errors=True)


@pytest.fixture
def project(tmp_path: Path) -> Callable[[str], Repository]:
    """A fresh copy of the project without results, for a study of the test's choice."""

    def make(study: str) -> Repository:
        return fresh(tmp_path / "fresh", study)

    return make


@pytest.fixture(scope="session")
def shared() -> Path:
    """Real rows that are not part of the project."""
    if not (SHARED / "data").is_dir():
        pytest.skip("real rows are not here: ../shared/data is absent")
    return SHARED
