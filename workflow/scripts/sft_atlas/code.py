"""The code behind a stage, computed from imports: what a change of it can change.

Stages without a version run again when one of these files changes; for the others, a test asks for a decision.
"""

import re
from collections.abc import Collection, Iterator
from functools import cache
from pathlib import Path

from sft_atlas.stage import Stage, stages

NAME = "sft_atlas"
PACKAGE = Path(__file__).parent
# `from sft_atlas.a import b, c`, over several lines too, and `import sft_atlas.a`; wherever in a module they stand
IMPORT = re.compile(rf"^\s*(?:from ({NAME}[\w.]*) import (\([^)]*\)|[^\n]*)|import ({NAME}[\w.]*))", re.MULTILINE)


def code_of(stage: Stage, package: Path = PACKAGE, without: Collection[str] = ()) -> list[Path]:
    """Every file of the package that a stage's jobs run, and what they read of it beside; sorted.

    `package` is where the files are looked up: a copy of this package may have other imports. Files `without`, by their
    place in it, are left out with all that only they import.
    """
    start = [f"{stage.package}.run", f"{stage.package}.spec"]
    start += [f"{other.package}.{name}" for name in stage.gathers for other in stages().values() if other.has(name)]
    found: set[str] = set()
    waiting = [file_of(module) for module in start]
    while waiting:
        file = waiting.pop()
        if file not in found and file not in without and (package / file).is_file():
            found.add(file)
            waiting += imports(package / file)
    data = [path for pattern in stage.data for path in package.glob(pattern)]
    return sorted([*(package / file for file in found), *data])


def imports(file: Path) -> list[str]:
    """The files of the package that a module may import, by their place in it; some may not be there."""
    return list(_imports(file, file.stat().st_mtime_ns))


@cache
def _imports(file: Path, _changed: int) -> tuple[str, ...]:
    return tuple(_named(file.read_text(encoding="utf-8")))


def _named(source: str) -> Iterator[str]:
    for package, names, module in IMPORT.findall(source):
        if module:
            yield file_of(module)
            continue
        yield file_of(package)
        for name in re.findall(r"\w+", re.sub(r" as \w+", "", names)):
            yield file_of(f"{package}.{name}")


def file_of(module: str) -> str:
    """`sft_atlas.data.draw` → `data/draw.py`."""
    return "/".join(module.split(".")[1:]) + ".py"
