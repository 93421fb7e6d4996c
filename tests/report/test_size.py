"""The page of the published study's whole matrix stays small enough to open on a phone."""

import subprocess
import sys

import pytest

from tests.conftest import ROOT


@pytest.mark.slow
def test_the_page_of_all_models_is_below_5_mb() -> None:
    done = subprocess.run(
        [sys.executable, "benchmarks/report.py"], cwd=ROOT, capture_output=True, text=True, check=False
    )
    print(done.stdout)
    assert done.returncode == 0, done.stderr
