"""What Snakemake says of a mistyped target, from another folder, and in a checkout that cannot be written to."""

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
    "report": "unknown target 'report'; did you mean 'report_complete'?",
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
