"""Jobs in a container: simulated by a program named apptainer that runs what it is given without one."""

import os
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

from tests.conftest import ENVIRONMENT, Repository

APPTAINER = """#!/bin/sh
if [ "$1" = --version ]; then echo "apptainer version 1.3.4"; exit; fi
echo "$@" >> "$APPTAINER_CALLS"
while [ "$#" -gt 1 ]; do [ "$1" = -c ] && exec bash -c "$2"; shift; done
"""


def test_every_job_runs_in_the_image(project: Callable[[str], Repository], tmp_path: Path) -> None:
    repository = project("tests/studies/trimmed.yaml")
    programs, calls = tmp_path / "programs", tmp_path / "calls"
    programs.mkdir()
    for name in ("apptainer", "singularity"):
        (programs / name).write_text(APPTAINER)
        (programs / name).chmod(0o755)
    (repository.folder / "image.sif").touch()
    done = subprocess.run(
        [
            sys.executable,
            "-m",
            "snakemake",
            "prepare",
            "--cores",
            "2",
            "--sdm",
            "apptainer",
            "--config",
            f"study={repository.study}",
            "container=image.sif",
        ],
        cwd=repository.folder,
        env=ENVIRONMENT | {"PATH": f"{programs}:{os.environ['PATH']}", "APPTAINER_CALLS": str(calls)},
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr[-3000:]
    made = list((repository.folder / "results").rglob("manifest.json"))
    jobs = [line for line in calls.read_text().splitlines() if "sft_atlas.job" in line]
    assert len(jobs) == len(made) > 0
    assert all("image.sif" in job for job in jobs)
