"""Results that an earlier version finished stay valid: real metadata of Snakemake's, real dry runs.

tests/fixtures/yesterday.tar.gz holds the results of tests/studies/yesterday.yaml, whole, as version 0.2.0 made them
(a run of 25 seconds; identities moved then, see the changelog), with Snakemake's records of them.
"""

import tarfile
from pathlib import Path

import pytest

from tests.conftest import ROOT, Repository, fresh

# what a change of the analysis' code may make again: seconds, and nothing is trained or measured
CHEAP = {"collect_results", "audit_scores", "analyse_tables", "write_report"}


def unpacked(folder: Path) -> Repository:
    """A fresh copy of the project with yesterday's results."""
    repository = fresh(folder, "tests/studies/yesterday.yaml")
    with tarfile.open(ROOT / "tests/fixtures/yesterday.tar.gz") as archive:
        archive.extractall(repository.folder, filter="tar")
    return repository


@pytest.fixture(scope="module")
def yesterday(tmp_path_factory: pytest.TempPathFactory) -> Repository:
    """Today's code in the folder of yesterday's results."""
    return unpacked(tmp_path_factory.mktemp("yesterday") / "project")


@pytest.mark.parametrize("arguments", [(), ("--profile", "local"), ("--profile", "slurm", "--executor", "local")])
def test_what_was_finished_yesterday_is_finished_today(yesterday: Repository, arguments: tuple[str, ...]) -> None:
    assert yesterday.plan(*arguments).jobs.keys() <= CHEAP


def test_the_fixture_is_small_and_whole() -> None:
    archive = ROOT / "tests/fixtures/yesterday.tar.gz"
    assert archive.stat().st_size < 2_000_000
    with tarfile.open(archive) as opened:
        names = opened.getnames()
    assert sum(Path(name).name.startswith("release-") and "." not in Path(name).stem for name in names) == 6
    assert sum(name.startswith(".snakemake/metadata/") for name in names) == 62
