"""Asks for a decision when the source of a costly stage changes: do its results change with it?

A costly stage does not run again because its code was edited, only because its version was raised. So the source of
each stage is recorded in stage_sources.json, without comments, docstrings and layout. When it differs, decide:

- results change: raise the stage's number in STAGE_VERSIONS (workflow/scripts/sft_atlas/study/identity.py), which retrains or
  re-evaluates what follows in every study, and is an entry of the changelog;
- results stay as they are: leave the number.

Then record the decision: python tests/unit/test_stage_versions.py --accept
"""

import ast
import hashlib
import json
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from sft_atlas.job import STAGES
from sft_atlas.study.identity import STAGE_VERSIONS

RECORD = Path(__file__).with_name("stage_sources.json")
PACKAGE = Path(__file__).resolve().parents[2] / "workflow/scripts/sft_atlas"
NAME = "sft_atlas"
# where files lie and how they are fetched and recorded changes no result
NEUTRAL = {"files.py", "hub.py", "study/identity.py"}


def fingerprint(source: str) -> str:
    """SHA-256 of a module's code; comments, docstrings and layout do not count."""
    tree = ast.parse(source)
    for node in ast.walk(tree):
        documented = isinstance(node, ast.Module | ast.ClassDef | ast.FunctionDef | ast.AsyncFunctionDef)
        if documented and ast.get_docstring(node, clean=False) is not None:
            node.body = node.body[1:] or [ast.Pass()]
    return hashlib.sha256(ast.unparse(tree).encode()).hexdigest()


def sources(stage: str) -> list[str]:
    """The files behind a stage: its module and what that imports, also within functions, and what those import."""
    found = {file_of(STAGES[stage])}
    waiting = [(file, True) for file in found]
    while waiting:
        file, inside_functions = waiting.pop()
        imported = {*imports((PACKAGE / file).read_text(), inside_functions)} - NEUTRAL - found
        found |= imported
        waiting += [(other, False) for other in imported]
    return sorted(found)


def imports(source: str, inside_functions: bool) -> Iterator[str]:
    """The files of this package that a module imports."""
    tree = ast.parse(source)
    for node in ast.walk(tree) if inside_functions else tree.body:
        if isinstance(node, ast.ImportFrom) and (node.module or "").split(".")[0] == NAME:
            if [alias.name for alias in node.names] == ["DataError"]:
                continue  # how a fault is reported changes no result
            modules = [str(node.module), *(f"{node.module}.{alias.name}" for alias in node.names)]
        elif isinstance(node, ast.Import):
            modules = [alias.name for alias in node.names if alias.name.split(".")[0] == NAME]
        else:
            continue
        yield from (file for file in map(file_of, modules) if (PACKAGE / file).is_file())


def file_of(module: str) -> str:
    """`sft_atlas.stages.sample.run` → `data/samples.py`."""
    return "/".join(module.split(".")[1:]) + ".py"


def current(stage: str) -> dict[str, Any]:
    """What would be recorded of a stage now."""
    files = {file: fingerprint((PACKAGE / file).read_text()) for file in sources(stage)}
    return {"version": STAGE_VERSIONS[stage], "files": files}


@pytest.mark.parametrize("stage", STAGE_VERSIONS)
def test_a_change_of_a_stage_was_decided_upon(stage: str) -> None:
    recorded = json.loads(RECORD.read_text()).get(stage, {"version": None, "files": {}})
    now = current(stage)
    if recorded != now:
        both = {**recorded["files"], **now["files"]}
        changed = [file for file in sorted(both) if recorded["files"].get(file) != now["files"].get(file)]
        versions = f"version {recorded['version']} was recorded, {now['version']} is declared"
        pytest.fail(f"stage {stage}: {versions}; changed: {', '.join(changed) or 'no file'}.\n{__doc__}", pytrace=False)


def test_nothing_else_is_recorded() -> None:
    assert json.loads(RECORD.read_text()).keys() == STAGE_VERSIONS.keys()


def test_every_stage_is_costly_or_follows_its_code() -> None:
    cheap = {"price", "collect", "import", "audit", "analyse", "report", "release"}
    assert set(STAGES) - set(STAGE_VERSIONS) == cheap
    assert set(STAGE_VERSIONS) <= set(STAGES)


def test_the_files_behind_a_stage_are_found() -> None:
    assert {"training/fit.py", "training/sampler.py", "training/sizes.py", "tokenise.py", "device.py"} <= set(
        sources("train")
    )
    assert "micro/pretrain.py" not in sources("train")
    assert {"bases.py", "micro/pretrain.py", "micro/world.py", "prompt.py"} <= set(sources("base"))
    assert {"evaluate.py", "prompt.py", "data/benchmarks.py"} <= set(sources("evaluate"))
    assert "weights.py" in sources("weights")
    assert not {"prompt.py", "data/sources.py", "files.py"} & set(sources("weights"))


CODE = 'def half(x):\n    """Half of it."""\n    return x / 2\n'


@pytest.mark.parametrize(
    "written",
    [
        "# how\ndef half(x):\n    return x/2  # of it\n",
        '"""A module."""\n\n\ndef half(\n    x,\n):\n    """Other words."""\n    return (x / 2)\n',
    ],
    ids=["comments", "docstrings and layout"],
)
def test_what_a_machine_does_not_read_does_not_count(written: str) -> None:
    assert fingerprint(written) == fingerprint(CODE)


@pytest.mark.parametrize("written", [CODE.replace("/ 2", "/ 3"), CODE.replace("half", "part"), CODE + "X = 1\n"])
def test_what_it_does_counts(written: str) -> None:
    assert fingerprint(written) != fingerprint(CODE)


if __name__ == "__main__":
    if sys.argv[1:] != ["--accept"]:
        sys.exit(__doc__)
    RECORD.write_text(json.dumps({stage: current(stage) for stage in STAGE_VERSIONS}, indent=1) + "\n")
    print(f"recorded in {RECORD}")
