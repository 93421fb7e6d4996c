"""A wheel of the package holds all that its jobs read beside code: the page is made from one, without the checkout."""

import subprocess
import sys
from pathlib import Path

from tests.conftest import ENVIRONMENT, ROOT, Repository, copy_project


def run(*command: str | Path, **environment: str) -> str:
    settings = ENVIRONMENT | {"PIP_DISABLE_PIP_VERSION_CHECK": "1"} | environment
    done = subprocess.run([sys.executable, *command], env=settings, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    return done.stdout


def test_a_wheel_makes_the_same_page(finished: Repository, tmp_path: Path) -> None:
    source, installed = tmp_path / "source", tmp_path / "installed"
    source.mkdir()
    copy_project(source)
    (source / "README.md").write_text((ROOT / "README.md").read_text())
    run("-m", "pip", "wheel", "--quiet", "--no-deps", "--no-build-isolation", "--wheel-dir", tmp_path, source)
    wheel = next(tmp_path.glob("sft_atlas-*.whl"))
    run("-m", "pip", "install", "--quiet", "--no-deps", "--target", installed, wheel)

    place = run("-c", "import sft_atlas; print(sft_atlas.__file__)", PYTHONPATH=str(installed)).strip()
    assert Path(place).is_relative_to(installed)

    page = finished.folder / "results/trimmed/report.html"
    before = page.read_bytes()
    page.unlink()
    spec = next(page.parent.glob("report*.spec.json"))
    run("-m", "sft_atlas.job", spec, PYTHONPATH=str(installed))
    assert page.read_bytes() == before
