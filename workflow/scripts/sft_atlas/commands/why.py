"""Why a result would be made again: what is missing or has changed, down to the field of the study.

What is planned now is compared with the specifications that earlier runs froze beside their results, and with what
Snakemake recorded of the inputs. A field that is the identity of something further up is followed there.
"""

import json
import os
import re
from base64 import urlsafe_b64encode
from collections.abc import Iterator
from pathlib import Path, PurePosixPath
from typing import Any

from sft_atlas.commands.places import project_root
from sft_atlas.errors import StudyError
from sft_atlas.files import read_json
from sft_atlas.hashing import sha256
from sft_atlas.stage import stages
from sft_atlas.study.plan import Plan, Spec

METADATA = Path(".snakemake/metadata")
ABSENT = "(absent)"
CODE = "workflow"
MOST_INPUTS = 8


class Reasons:
    """The reasons of a study's results, each worked out once."""

    def __init__(self, plan: Plan, results: Path) -> None:
        own = plan.study_specs().values()
        self.results = results
        self.specs = plan.by_output | {spec.output: spec for spec in own}
        self.names = {"all": plan.study_specs()["report"].output} | {spec.stage: spec.output for spec in own}
        # identities as other specifications name them: of a job, or of a run
        self.by_identity = {spec.hash: spec for spec in plan.by_output.values()}
        self.by_identity |= {spec.identity["run"]: spec for spec in plan.select("train")}
        self._own: dict[str, list[str]] = {}
        self._due: dict[str, bool] = {}

    def explain(self, target: str) -> list[str]:
        """Lines for a path (below the results folder or with it) or one of all, collect, analyse, report.

        Raises:
            StudyError: the study does not make the target.
        """
        output = self.names.get(target) or next((name for name in self._spellings(target) if name in self.specs), None)
        if output is None:
            raise StudyError(f"{target}: belongs to no cell of the study; `sft-atlas cells` lists them")
        if not self.is_due(output):
            return [f"{output}: up to date"]
        return [f"{output}: would be made", *(f"  {line}" for line in self._lines(output, {output}))]

    def is_due(self, output: str) -> bool:
        """Whether an output, or anything that it is made from, would be made."""
        if output not in self._due:
            spec = self.specs[output]
            self._own[output] = self._changed(spec) if (self.results / output).exists() else self._missing(spec)
            # of all inputs, so that the reasons of each are known
            inputs = [self.is_due(path) for path in spec.input_files() if path in self.specs]
            self._due[output] = bool(self._own[output]) or any(inputs)
        return self._due[output]

    def _lines(self, output: str, said: set[str]) -> Iterator[str]:
        """The reasons of an output, and indented below those of its inputs, each where it comes first."""
        yield from self._own[output]
        due = [path for path in self.specs[output].input_files() if path in self.specs and self.is_due(path)]
        fresh = [path for path in due if path not in said]
        said |= set(due)
        for path in fresh[:MOST_INPUTS]:
            yield f"its input {path} would be made:"
            yield from (f"  {line}" for line in self._lines(path, said))
        if len(fresh) > MOST_INPUTS:
            yield f"and {len(fresh) - MOST_INPUTS} more inputs would be made"

    def _spellings(self, target: str) -> Iterator[str]:
        path = Path(target)
        yield path.as_posix()
        for folder, inner in ((self.results, path), (self.results.resolve(), path.resolve())):
            if inner.is_relative_to(folder):
                yield inner.relative_to(folder).as_posix()

    def _missing(self, spec: Spec) -> list[str]:
        if (self.results / spec.file).exists():
            return ["the output is missing; it was planned before, with just this specification"]
        nearest = self._nearest(spec)
        if nearest is None:
            return ["the output is missing: it is new, nothing of this name was planned before"]
        place = nearest["output"]
        known = "another cell is" if place in self.specs and place != spec.output else "it was planned before as"
        differences = list(self._differences(nearest["identity"], spec))
        return [f"the output is missing; {known} {place}, with other values:", *differences]

    def _changed(self, spec: Spec) -> list[str]:
        record = self._record(spec.output)
        if record is None:
            return []
        reasons = []
        if stages()[spec.stage].scope == "study" and repr(spec.hash) not in record.get("params", []):
            old = next((value.strip("'") for value in record.get("params", [])), "")
            frozen = self.results / spec.file.replace(spec.hash, old)
            if frozen.exists():
                reasons += ["its specification has changed:", *self._differences(read_json(frozen)["identity"], spec)]
            else:
                reasons.append(f"its specification has changed: {old} -> {spec.hash}")
        for name, checksum in sorted((record.get("input_checksums") or {}).items()):
            code = CODE in Path(name).parts
            path = _here(Path(name)) if code else Path(name)
            kind = "code file" if code else "input"
            if not path.exists():
                reasons += [f"{kind} {path} is gone"] if code else []
            elif (now := f"sha256:{sha256(path)}") != checksum:
                reasons.append(f"{kind} {path} has changed: {checksum[7:15]} -> {now[7:15]}")
        before = set(record.get("input", []))
        planned = {str(self.results / path) for path in spec.input_files()} | set(spec.sources)
        gone = {name for name in before - planned if Path(name).is_relative_to(self.results)}
        reasons += [f"{name} is a new input" for name in sorted(planned - before)[:MOST_INPUTS]]
        reasons += [f"{name} is no longer an input" for name in sorted(gone)[:MOST_INPUTS]]
        return reasons

    def _nearest(self, spec: Spec) -> dict[str, Any] | None:
        """The frozen specification of the same stage and names that differs least: of the same place first."""
        parts = PurePosixPath(spec.output).parts
        file = f"{PurePosixPath(parts[-1]).stem.removesuffix(f'-{spec.hash}')}-*.spec.json"
        for depth in range(len(parts) - 1):
            folders = [*parts[: len(parts) - 1 - depth], *["*"] * depth]
            found = [read_json(path) for path in sorted(self.results.glob("/".join([*folders, file])))]
            found = [frozen for frozen in found if frozen["stage"] == spec.stage and frozen["hash"] != spec.hash]
            # what bears other names is another cell, and says nothing about this one
            found = [frozen for frozen in found if _name(frozen["output"]) == _name(spec.output)]
            if found:
                return min(found, key=lambda frozen: self._distance(frozen, spec))
        return None

    def _distance(self, frozen: dict[str, Any], spec: Spec) -> tuple[bool, int]:
        """Closest is what is no longer planned, and differs in the fewest fields."""
        return frozen["output"] in self.specs, len(list(_compare(frozen["identity"], spec.identity)))

    def _differences(self, old: Any, spec: Spec, prefix: str = "") -> Iterator[str]:
        """`recipe.learning_rate: 0.001 -> 0.002` for every field; identities are followed to what they stand for."""
        for place, before, now in _compare(old, spec.identity):
            followed = self.by_identity.get(now) if isinstance(now, str) else None
            name = prefix + place.removeprefix("settings.")
            if followed is spec:
                continue
            frozen = self._frozen(before) if followed else None
            if followed and frozen:
                yield from self._differences(frozen["identity"], followed, f"{name}.")
            else:
                yield f"{name}: {_shown(before)} -> {_shown(now)}"

    def _frozen(self, identity: Any) -> dict[str, Any] | None:
        """The specification that an identity stands for, of a job or of a run."""
        if not isinstance(identity, str):
            return None
        places = (f"*/*-{identity}/*-{identity}.spec.json", f"*/*/*-{identity}/*-{identity}.spec.json")
        found = [path for place in (*places, f"runs/*/*/*-{identity}/train-*.spec.json") for path in self._glob(place)]
        return read_json(found[0]) if found else None

    def _glob(self, pattern: str) -> list[Path]:
        return sorted(self.results.glob(pattern))

    def _record(self, output: str) -> dict[str, Any] | None:
        """What Snakemake recorded when it made the output: a file named after the path in base 64, cut into folders."""
        name = urlsafe_b64encode(str(self.results / output).encode()).decode()
        longest = os.pathconf(METADATA, "PC_NAME_MAX") - 1 if METADATA.is_dir() else 254
        pieces = [name[start : start + longest] for start in range(0, len(name), longest)]
        path = METADATA.joinpath(*(f"@{piece}" for piece in pieces[:-1]), pieces[-1])
        return read_json(path) if path.is_file() else None


def _here(path: Path) -> Path:
    """A source file by its place in this project, also where the project lay elsewhere when it ran."""
    place = Path(*path.parts[len(path.parts) - 1 - path.parts[::-1].index(CODE) :])
    return place if place.exists() else project_root() / place


def _compare(old: Any, new: Any, place: str = "") -> Iterator[tuple[str, Any, Any]]:
    """Every field that differs between two nested values: where, old and new."""
    if isinstance(old, dict) and isinstance(new, dict):
        for key in sorted({*old, *new}):
            yield from _compare(old.get(key, ABSENT), new.get(key, ABSENT), f"{place}.{key}" if place else key)
    elif isinstance(old, list) and isinstance(new, list) and old != new:
        gone, come = [value for value in old if value not in new], [value for value in new if value not in old]
        if len(gone) == len(come) == 1:
            yield from _compare(gone[0], come[0], place)
        else:
            yield place, old, new
    elif old != new:
        yield place, old, new


def _name(output: str) -> str:
    """The folder of an output without the identities in it: `runs/base/sample/recipe`."""
    return "/".join(re.sub("-[0-9a-f]{8}$", "", part) for part in PurePosixPath(output).parts[:-1])


def _shown(value: Any) -> str:
    text = value if value == ABSENT else json.dumps(value, ensure_ascii=False)
    return text if len(text) <= 120 else f"{text[:117]}…"
