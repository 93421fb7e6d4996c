"""Asks for a decision when the source of a costly stage changes: do its results change with it?

A costly stage does not run again because its code was edited, only because its version was raised. So the source of
each stage is recorded in stage_sources.json, without comments, docstrings and layout. When it differs, decide:

- results change: raise `version` in the stage's declaration (workflow/scripts/sft_atlas/stages/NAME/__init__.py), which
  retrains or re-evaluates what follows in every study that does not accept the earlier version, and is an entry of the
  changelog;
- results stay as they are: leave the number.

Then record the decision, of the stages named (`all`: of every one) and with its reason:

    python tests/unit/test_stage_versions.py --accept STAGE [STAGE …] REASON
"""

import ast
import hashlib
import json
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from sft_atlas.code import PACKAGE, code_of
from sft_atlas.fields import Strict
from sft_atlas.micro import declared as micro_declared
from sft_atlas.stage import stages
from sft_atlas.study import measures, model

RECORD = Path(__file__).with_name("stage_sources.json")
# Where files lie, how they are fetched, hashed and recorded, how specifications are read and faults reported, and what
# a job was told of its site, changes no result. What a declaration means is in the identity: see `LATER`.
NEUTRAL = frozenset(
    {
        "errors.py",
        "failures.py",
        "fields.py",
        "files.py",
        "hashing.py",
        "nodes.py",
        "spec.py",
        "stage.py",
        "data/hub.py",
        "runtime/log.py",
        "runtime/scratch.py",
        "runtime/settings.py",
        *(f"study/{file.name}" for file in (PACKAGE / "study").glob("*.py")),
    }
)
# Fields that entered declarations after their identities were fixed, with their defaults: an identity that lacks such a
# field means this value, so a default may be added here, and never changed.
LATER: dict[str, dict[str, Any]] = {
    "sft_atlas.study.model.Hub": {"otherwise": None},
    "sft_atlas.study.model.Dataset": {"max_characters": 200_000},
    "sft_atlas.study.model.Benchmark": {"own_example": "exclude"},
}


def fingerprint(source: str) -> str:
    """SHA-256 of a module's code; comments, docstrings and layout do not count."""
    tree = ast.parse(source)
    for node in ast.walk(tree):
        documented = isinstance(node, ast.Module | ast.ClassDef | ast.FunctionDef | ast.AsyncFunctionDef)
        if documented and ast.get_docstring(node, clean=False) is not None:
            node.body = node.body[1:] or [ast.Pass()]
    return hashlib.sha256(ast.unparse(tree).encode()).hexdigest()


def sources(stage: str) -> list[str]:
    """The files behind a stage, by their place in the package."""
    return [file.relative_to(PACKAGE).as_posix() for file in code_of(stages()[stage], without=NEUTRAL)]


def current(stage: str) -> dict[str, Any]:
    """What would be recorded of a stage now, but for the reason."""
    files = {file: fingerprint((PACKAGE / file).read_text()) for file in sources(stage)}
    return {"version": stages()[stage].version, "files": files}


def costly() -> list[str]:
    """The stages that run again only when their version is raised."""
    return [name for name, stage in stages().items() if stage.version]


def accept(record: Path, chosen: list[str], reason: str) -> None:
    """Record the present source of some stages, and why their results are what their version says.

    Raises:
        ValueError: a stage that is none with a version, or no reason in words.
    """
    names = costly() if chosen == ["all"] else chosen
    if not names or set(names) - set(costly()):
        raise ValueError(f"found stages {chosen}; expected all, or some of: {', '.join(costly())}")
    if len(reason.split()) < 2 or reason in costly():
        raise ValueError(f"found reason {reason!r}; expected a few words on why results stay, or how they change")
    recorded = json.loads(record.read_text())
    kept = {name: recorded[name] for name in costly() if name in recorded}
    kept |= {name: {"reason": reason} | current(name) for name in names}
    record.write_text(json.dumps({name: kept[name] for name in costly() if name in kept}, indent=1) + "\n")


@pytest.mark.parametrize("stage", costly())
def test_a_change_of_a_stage_was_decided_upon(stage: str) -> None:
    recorded = json.loads(RECORD.read_text()).get(stage, {"version": None, "files": {}})
    now = current(stage)
    if {name: recorded[name] for name in now} != now:
        both = {**recorded["files"], **now["files"]}
        changed = [file for file in sorted(both) if recorded["files"].get(file) != now["files"].get(file)]
        versions = f"version {recorded['version']} was recorded, {now['version']} is declared"
        pytest.fail(f"stage {stage}: {versions}; changed: {', '.join(changed) or 'no file'}.\n{__doc__}", pytrace=False)


def test_nothing_else_is_recorded_and_every_decision_has_its_reason() -> None:
    recorded = json.loads(RECORD.read_text())
    assert list(recorded) == costly()
    assert all(len(entry["reason"].split()) > 1 for entry in recorded.values())


def test_every_stage_is_costly_or_follows_its_code() -> None:
    cheap = {
        "estimate",
        "compared",
        "restore",
        "release",
        "collect",
        "import",
        "audit",
        "analyse",
        "complete",
        "report",
    }
    assert set(stages()) - set(costly()) == cheap


def test_the_files_behind_a_stage_are_found() -> None:
    assert {"training/fit.py", "training/sampler.py", "training/memory.py", "models/tokenizer.py"} <= set(
        sources("train")
    )
    assert {"models/device.py", "training/run_settings.py", "stages/train/spec.py"} <= set(sources("train"))
    assert not {"micro/pretrain.py", "micro/declared.py"} & set(sources("train"))
    assert {"stages/base/run.py", "micro/pretrain.py", "micro/world.py", "data/prompt.py"} <= set(sources("base"))
    assert {"stages/evaluate/run.py", "data/prompt.py", "stages/benchmark/run.py"} <= set(sources("evaluate"))
    assert {"stages/sample/run.py", "data/draw.py"} <= set(sources("sample"))
    assert "stages/weights/run.py" in sources("weights")
    assert not {"data/prompt.py", "data/sources.py", "files.py"} & set(sources("weights"))


def declarations(kind: type[Strict] = Strict) -> Iterator[type[Strict]]:
    """Everything that a study declares."""
    for declared in kind.__subclasses__():
        yield declared
        yield from declarations(declared)


def test_no_default_can_change_behind_an_identity() -> None:
    """An identity says every value of a declaration that it is made from, but for those recorded here."""
    assert {model.Recipe, model.Template, measures.Evaluation, micro_declared.MicroBase} <= set(declarations())
    later = {
        f"{declared.__module__}.{declared.__name__}": {
            name: field.get_default(call_default_factory=True)
            for name, field in declared.model_fields.items()
            if name not in declared.hashed() and name not in declared.LABELS
        }
        for declared in declarations()
        if declared.HASHED
    }
    assert {name: fields for name, fields in later.items() if fields} == LATER


def test_a_decision_is_recorded_for_the_stages_named_and_with_its_reason(tmp_path: Path) -> None:
    record = tmp_path / "sources.json"
    old = {"version": 7, "reason": "as it was", "files": {"gone.py": "0"}}
    record.write_text(json.dumps({"train": old, "weights": old, "of another time": old}))
    accept(record, ["train"], "a comment more")
    found = json.loads(record.read_text())
    assert found == {"train": {"reason": "a comment more"} | current("train"), "weights": old}
    accept(record, ["all"], "moved, and no byte changed")
    found = json.loads(record.read_text())
    assert {entry["reason"] for entry in found.values()} == {"moved, and no byte changed"}
    assert list(found) == costly()


@pytest.mark.parametrize(
    ("chosen", "reason", "says"),
    [
        (["trian"], "a comment more", "expected all, or some of: .*train"),
        ([], "a comment more", "found stages"),
        (["report"], "a comment more", "expected all, or some of"),
        (["train"], "weights", "found reason 'weights'"),
        (["train"], "", "found reason ''"),
    ],
)
def test_a_decision_without_stage_or_reason_is_refused(
    chosen: list[str], reason: str, says: str, tmp_path: Path
) -> None:
    record = tmp_path / "sources.json"
    record.write_text("{}")
    with pytest.raises(ValueError, match=says):
        accept(record, chosen, reason)
    assert record.read_text() == "{}"


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
    if sys.argv[1:2] != ["--accept"]:
        sys.exit(__doc__)
    try:
        accept(RECORD, sys.argv[2:-1], sys.argv[-1])
    except ValueError as error:
        sys.exit(f"error: {error}")
    print(f"recorded in {RECORD}")
