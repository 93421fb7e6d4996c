"""Jobs in a container or a conda environment, simulated by programs that do what Snakemake asks of the real ones.

No machine of ours has either program. The stand-in for conda hands the environment's packages to the real pip, from the
folder and the file that conda would hand over, and pip says whether all of them are at hand.
"""

import os
import shutil
import sys
from collections.abc import Callable
from pathlib import Path

import pytest

from tests.conftest import ENVIRONMENT, ROOT, Repository

APPTAINER = """#!/bin/sh
if [ "$1" = --version ]; then echo "apptainer version 1.3.4"; exit; fi
echo "$@" >> "$CALLS"
while [ "$#" -gt 1 ]; do [ "$1" = -c ] && exec bash -c "$2"; shift; done
"""

CONDA = """#!{python}
import json, os, subprocess, sys, yaml
from pathlib import Path
if "--version" in sys.argv:
    print("conda 25.1.0")
elif sys.argv[1] == "info":
    print(json.dumps({{"conda_prefix": str(Path(__file__).parents[1]), "platform": "linux-64"}}))
elif sys.argv[1] == "config":
    print(json.dumps({{"get": {{"channel_priority": "strict"}}}}))
elif sys.argv[1] == "env":
    given = Path(sys.argv[sys.argv.index("--file") + 1])
    *_, packages = yaml.safe_load(given.read_text())["dependencies"]
    (given.parent / "pip.txt").write_text("\\n".join(packages["pip"]))
    pip = [{python!r}, "-m", "pip", "install", "--dry-run", "--no-index", "--no-build-isolation", "-r", "pip.txt"]
    done = subprocess.run(pip, cwd=given.parent, text=True, capture_output=True)
    Path(os.environ["CALLS"]).write_text(done.stdout)
    if done.returncode:
        sys.exit(done.stderr)
    binaries = Path(sys.argv[sys.argv.index("--prefix") + 1]) / "bin"
    binaries.mkdir(parents=True)
    (binaries / "python").write_text('#!/bin/sh\\necho "$@" >> "$CALLS"\\nexec {python} "$@"\\n')
    (binaries / "python").chmod(0o755)
"""


@pytest.fixture
def programs(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The folder of the stand-ins; what they are called with goes to the file that $CALLS names."""
    folder = tmp_path / "conda" / "bin"
    folder.mkdir(parents=True)
    for name, text in {"apptainer": APPTAINER, "singularity": APPTAINER, "conda": CONDA}.items():
        (folder / name).write_text(text.format(python=sys.executable) if name == "conda" else text)
        (folder / name).chmod(0o755)
    (folder / "activate").write_text('PATH="$1/bin:$PATH"\n')
    monkeypatch.setitem(ENVIRONMENT, "PATH", f"{folder}:{os.environ['PATH']}")
    monkeypatch.setitem(ENVIRONMENT, "CALLS", str(tmp_path / "calls"))
    return folder


@pytest.fixture
def repository(project: Callable[[str], Repository]) -> Repository:
    """A copy of the project with what an installation reads."""
    made = project("tests/studies/trimmed.yaml")
    for name in ("requirements.txt", "README.md", "LICENSE"):
        shutil.copy(ROOT / name, made.folder)
    (made.folder / "image.sif").touch()
    with (made.folder / "config.yaml").open("a") as config:
        config.write("\ncontainer: image.sif\n")
    return made


def calls() -> list[str]:
    return Path(ENVIRONMENT["CALLS"]).read_text().splitlines()


@pytest.mark.parametrize("method", ["apptainer", "conda"])
def test_every_job_runs_where_it_is_told_to(method: str, repository: Repository, programs: Path) -> None:
    repository.snakemake("prepare", "--profile", "local", "--sdm", method)
    made = list((repository.folder / "results").rglob("manifest.json"))
    jobs = [line for line in calls() if "-m sft_atlas.job" in line]
    assert len(jobs) == len(made) > 0
    if method == "apptainer":
        assert all("image.sif" in job for job in jobs)
    # another way of installing the same packages makes no result stale
    other = {"apptainer": "conda", "conda": "apptainer"}[method]
    assert repository.plan("prepare", "--profile", "local").jobs == {}
    assert repository.plan("prepare", "--profile", "local", "--sdm", other).jobs == {}


def test_conda_is_given_the_pinned_packages_and_the_project(repository: Repository, programs: Path) -> None:
    repository.snakemake("prepare", "--profile", "local", "--sdm", "conda", "--conda-create-envs-only")
    at_hand = {line.split()[3] for line in calls() if line.startswith("Requirement already satisfied: ")}
    pinned = [line for line in (ROOT / "requirements.txt").read_text().splitlines() if not line.startswith("#")]
    assert set(pinned) <= at_hand
    assert any(line.startswith("Would install sft-atlas") for line in calls())
