"""The project, its studies and config.yaml are found from any folder, as Snakemake finds them."""

import os
import subprocess
import sys
from pathlib import Path

import pytest

from sft_atlas.commands.places import declared_config, enter, project_root
from sft_atlas.errors import StudyError
from tests.conftest import ENVIRONMENT, ROOT


def command(folder: Path, *arguments: str, **environment: str) -> subprocess.CompletedProcess[str]:
    """`sft-atlas` in a folder."""
    return subprocess.run(
        [sys.executable, "-m", "sft_atlas.commands.cli", *arguments],
        cwd=folder,
        env=ENVIRONMENT | environment,
        capture_output=True,
        text=True,
        check=False,
    )


def test_a_folder_without_anything_is_a_place_to_ask_from(tmp_path: Path) -> None:
    there = command(tmp_path, "why", "report", "--study", "micro", SFT_ATLAS_ROOT=str(ROOT))
    assert there.stdout.startswith("micro/report.html: would be made"), there.stderr
    # asked from the checkout, of the same folder
    assert command(ROOT, "why", "report", "--study", "micro", "--directory", str(tmp_path)).stdout == there.stdout
    assert list(tmp_path.iterdir()) == []


def test_the_working_folders_config_comes_first_and_places_start_there(tmp_path: Path) -> None:
    (tmp_path / "config.yaml").write_text("study: trimmed.yaml\nresults: mine\n")
    (tmp_path / "trimmed.yaml").write_text((ROOT / "tests/studies/trimmed.yaml").read_text())
    listed = command(ROOT, "cells", "-d", str(tmp_path))
    assert listed.stdout.splitlines()[1].endswith(".parquet"), listed.stderr
    assert listed.stdout.splitlines()[1].split("\t")[-1].startswith("mine/bases/")


def test_the_project_is_found(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("SFT_ATLAS_ROOT", raising=False)
    monkeypatch.chdir(ROOT)
    assert project_root() == ROOT
    monkeypatch.chdir(tmp_path)
    assert (project_root() / "workflow/scripts/sft_atlas").is_dir()
    (tmp_path / "workflow/scripts/sft_atlas").mkdir(parents=True)
    # a checkout of its own goes before what is installed, and what is told before both
    assert project_root() == tmp_path
    monkeypatch.setenv("SFT_ATLAS_ROOT", str(ROOT))
    assert project_root() == ROOT
    assert declared_config()["study"] == "massive-sft"
    monkeypatch.setenv("SFT_ATLAS_ROOT", str(tmp_path / "none"))
    with pytest.raises(StudyError, match="SFT_ATLAS_ROOT: there is no workflow/scripts/sft_atlas in"):
        project_root()


def test_a_folder_that_is_none_is_one_line(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(os, "environ", dict(os.environ))
    with pytest.raises(StudyError, match=r"--directory: .* No such file or directory; name the folder of a run"):
        enter(str(tmp_path / "none"))
    (tmp_path / "config.yaml").write_text("- a\n")
    monkeypatch.chdir(tmp_path)
    with pytest.raises(StudyError, match=r"config\.yaml: expected a mapping of keys; found \['a'\]"):
        declared_config()
