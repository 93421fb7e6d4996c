"""A workflow that is stopped or killed while it trains goes on from the saved state when it is typed again."""

import os
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from tests.conftest import ENVIRONMENT, Repository

RUNS = Path("results/runs/calculator/math-40")
# long enough to be caught in the middle, and saved after every step
LONGER = ("epochs: 1, max_length: 128", "epochs: 40, max_length: 128")


def start(repository: Repository) -> subprocess.Popen[bytes]:
    """The workflow up to the run, in a process group of its own as in a terminal."""
    command = [sys.executable, "-m", "snakemake", "--cores", "2", "train", "--config", f"study={repository.study}"]
    return subprocess.Popen(
        [*command, "only=block=adapters"],
        cwd=repository.folder,
        env=ENVIRONMENT,
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
        start_new_session=True,
    )


def weights(repository: Repository) -> dict[str, bytes]:
    """Everything the run has made that is not a record of when and where."""
    (folder,) = (repository.folder / RUNS).glob("lora-*")
    return {
        str(file.relative_to(folder)): file.read_bytes()
        for file in sorted(folder.rglob("*"))
        if file.is_file() and "record" not in file.name and file.parent.name != "lease"
    }


@pytest.mark.parametrize("how", [signal.SIGINT, pytest.param(signal.SIGKILL, marks=pytest.mark.slow)])
def test_a_workflow_that_is_cut_off_goes_on(finished: Repository, tmp_path: Path, how: signal.Signals) -> None:
    """Ctrl-C reaches everything in the terminal, SIGKILL only Snakemake itself; the job may still be saving then."""
    finished.edit("tests/studies/trimmed.yaml", *LONGER)
    finished.edit("config.yaml", "device: auto", "save_minutes: 0\ndevice: auto")
    alone = Repository(tmp_path / "alone", finished.study)
    shutil.copytree(finished.folder, alone.folder, symlinks=True)
    alone.snakemake("train", only="block=adapters")

    workflow = start(finished)
    deadline = time.monotonic() + 120
    while not list((finished.folder / RUNS).glob("lora-*/state/checkpoint-*.json")) and time.monotonic() < deadline:
        time.sleep(0.01)
    if how == signal.SIGINT:
        os.killpg(workflow.pid, how)
    else:
        workflow.send_signal(how)
    workflow.wait(120)
    assert "epoch-40/checkpoint.json" not in weights(finished)
    if how == signal.SIGKILL:
        finished.snakemake("--unlock")
    finished.snakemake("--rerun-incomplete", "train", only="block=adapters")
    (log,) = (finished.folder / "logs/train/calculator/math-40").rglob("*.log")
    assert "goes on from checkpoint-" in log.read_text()
    assert weights(finished) == weights(alone)
