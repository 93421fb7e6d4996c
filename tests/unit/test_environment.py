"""What is installed three ways, by pip, by conda and from pyproject.toml, is the same."""

import hashlib
import re
import tomllib
from pathlib import Path

import pytest
import yaml

ROOT = Path(__file__).resolve().parents[2]


def pinned() -> dict[str, str]:
    lines = (ROOT / "requirements.txt").read_text().splitlines()
    pins = [line.split("==") for line in lines if line and not line.startswith("#")]
    assert all(len(pin) == 2 for pin in pins)
    return {re.sub(r"[-_.]+", "-", name).lower(): version for name, version in pins}


def test_what_the_project_asks_for_is_pinned_to_the_same_version() -> None:
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
    for requirement in [*project["dependencies"], *project["optional-dependencies"]["dev"]]:
        name, _, version = requirement.partition("==")
        found = pinned()[re.sub(r"[-_.]+", "-", name).lower()]
        assert version in ("", found), f"{requirement}: requirements.txt has {found}"


@pytest.mark.parametrize("path", sorted((ROOT / "envs").glob("*.yaml")), ids=lambda path: path.name)
def test_a_conda_environment_installs_the_pinned_requirements(path: Path) -> None:
    environment = yaml.safe_load(path.read_text())
    packages = [entry for entry in environment["dependencies"] if isinstance(entry, str)]
    (pip,) = [entry["pip"] for entry in environment["dependencies"] if isinstance(entry, dict)]
    # the file itself and no copy of its lines, so that they cannot drift apart
    assert "-r ${SFT_ATLAS_ROOT}/requirements.txt" in pip
    digest = hashlib.sha256((ROOT / "requirements.txt").read_bytes()).hexdigest()
    assert f"# sha256 of requirements.txt: {digest}\n" in path.read_text(), "say in the file that packages have changed"
    python = next(package.partition("=")[2] for package in packages if package.startswith("python="))
    assert f"PYTHON ?= python{python}" in (ROOT / "Makefile").read_text()
    # whatever conda installs beside Python must not be another version than pip's
    for name, _, version in (package.partition("=") for package in packages):
        assert name in ("python", "pip") or pinned().get(name) == version


def test_the_guard_mends_the_pinned_plugin() -> None:
    from sft_atlas.cluster import guard

    assert pinned()[guard.PLUGIN] == guard.VERSION
    guard.check()
