"""What Snakemake says of a mistyped target, from another folder, and in a checkout that cannot be written to."""

import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from tests.conftest import ENVIRONMENT, ROOT

DRY = [sys.executable, "-m", "snakemake", "--quiet", "rules", "--dry-run"]
CONFIG = ["--config", "study=tests/studies/trimmed.yaml"]


def dry_run(folder: Path, *arguments: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run([*DRY, *arguments], cwd=folder, env=ENVIRONMENT, capture_output=True, text=True, check=False)


MISTAKES = {
    "trian": "unknown target 'trian'; expected one of: ",
    "block_method": "unknown target 'block_method'; expected one of: ",
    "repo": "unknown target 'repo'; did you mean 'report'?",
    "results/trimmed/reprot.html": "did you mean 'results/trimmed/report.html'?",
    "results/runs/reader/math-40/full-00000000/train-00000000.json": "'results/runs/reader/math-40/full-",
}


@pytest.mark.parametrize(("target", "said"), MISTAKES.items(), ids=MISTAKES)
def test_a_mistyped_target_is_one_line_without_a_traceback(target: str, said: str) -> None:
    done = dry_run(ROOT, target, *CONFIG)
    assert done.returncode == 1
    assert done.stderr.splitlines()[-1].startswith("error: ") and said in done.stderr.splitlines()[-1]
    assert "did you mean" in done.stderr.splitlines()[-1]
    for sign in ("Traceback", "Exception", "Error", "line "):
        assert sign not in done.stderr, done.stderr


HUB = """\
title: from the hub
bases: {away: {hub: {id: owner/model, revision: REVISION}}}
datasets: {math: {micro: {topic: math, rows: 60}}}
samples: {math-40: {datasets: math, size: 40}}
recipes: {full: {method: full, learning_rate: 1e-3, max_length: 128}}
blocks: {main: {bases: "*", samples: "*", recipes: full}}
benchmarks: {math: {micro: {topic: math, items: 10}}}
"""


@pytest.mark.parametrize("revision", ["main", "v1.0", "0123abc"])
def test_a_real_run_on_a_revision_that_can_move_is_refused_and_a_dry_run_warns(revision: str, tmp_path: Path) -> None:
    (tmp_path / "own.yaml").write_text(HUB.replace("REVISION", revision))
    here = ["--directory", str(tmp_path), "prepare", "--config", "study=own.yaml", "device=cpu"]
    said = (
        "own: revisions that can move, so that the same study may mean other data tomorrow: "
        f"bases.away.hub.revision: {revision}."
    )
    dry = dry_run(ROOT, *here)
    assert dry.returncode == 0
    assert [line for line in dry.stderr.splitlines() if line.startswith(f"warning: {said}")]
    real = subprocess.run(
        [*DRY[:-1], "--cores", "1", *here], cwd=ROOT, env=ENVIRONMENT, capture_output=True, text=True, check=False
    )
    assert real.returncode == 1
    assert f"{said} Let `sft-atlas pin --study own` write the commits behind them" in real.stderr
    assert not list(tmp_path.glob("results/**/manifest.json"))


@pytest.mark.parametrize(
    "text",
    [HUB.replace("REVISION", "0123456789" * 4), HUB.replace("REVISION", "main") + "allow_moving: true\n"],
    ids=["a commit", "allowed"],
)
def test_a_commit_or_leave_to_move_is_no_reason_to_stop(text: str, tmp_path: Path) -> None:
    (tmp_path / "own.yaml").write_text(text.replace("0123456789" * 4, "a123456789" * 4))
    here = ["--directory", str(tmp_path), "prepare", "--config", "study=own.yaml", "device=cpu"]
    assert "warning" not in dry_run(ROOT, *here).stderr
    environment = ENVIRONMENT | {"PYTHONPATH": os.environ.get("PYTHONPATH", "")}
    real = subprocess.run(
        [*DRY[:-1], "--cores", "1", *here], cwd=ROOT, env=environment, capture_output=True, text=True, check=False
    )
    assert real.returncode == 0, real.stderr
    assert len(list(tmp_path.glob("results/*/*/manifest.json"))) == 3


def test_another_folder_without_a_config_takes_the_projects(tmp_path: Path) -> None:
    done = dry_run(ROOT, "--directory", str(tmp_path), "train", "--config", "study=micro", "only=")
    assert done.returncode == 0, done.stderr
    assert "train_run" in done.stdout
    (tmp_path / "config.yaml").write_text("study: micro\nresults: elsewhere\n")
    done = dry_run(tmp_path, "--snakefile", str(ROOT / "Snakefile"), "elsewhere/micro/report.html")
    assert done.returncode == 0, done.stderr


def test_a_checkout_that_is_read_only_names_the_way_out(tmp_path: Path) -> None:
    script = (
        'mount --bind "$1" "$1" && mount -o remount,ro,bind "$1" && cd "$1" && '
        f"{' '.join(DRY)} --config study=micro; {' '.join(DRY)} --directory {tmp_path} plan --config study=micro"
    )
    if not shutil.which("unshare") or subprocess.run(["unshare", "--mount", "true"], check=False).returncode:
        pytest.skip("no mounts may be made here")
    done = subprocess.run(
        ["unshare", "--mount", "bash", "-c", script, "_", str(ROOT)],
        env=ENVIRONMENT,
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    (line,) = (line for line in done.stderr.splitlines() if line.startswith("error: "))
    assert (
        line == f"error: nothing can be written to {ROOT}; run in a folder of your own: snakemake --directory FOLDER …"
    )
    assert "Traceback" not in done.stderr
