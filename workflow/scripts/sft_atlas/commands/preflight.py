"""The command `sft-atlas preflight`: is all that the study names to be had, and the site what config.yaml says?

Nothing is fetched, nothing is started. A line for each source and each part of the site; status 1 if one has a fault.
"""

import os
import shutil
import subprocess
from argparse import Namespace
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from sft_atlas.commands.places import configured, project_root
from sft_atlas.errors import StudyError
from sft_atlas.study.config import Config
from sft_atlas.study.load import read_yaml, unknown
from sft_atlas.study.model import Benchmark, Dataset
from sft_atlas.study.moving import hub_sources, moving
from sft_atlas.study.plan import Plan
from sft_atlas.units import size

if TYPE_CHECKING:
    from sft_atlas.data.hub_probe import Asked, Found

AT_A_TIME = 16
SECONDS = 20
OK, NOTE, FAULT = "ok", "note", "FAULT"


@dataclass(frozen=True)
class Line:
    """What was found of a source or a part of the site."""

    state: str
    what: str
    text: str

    def __str__(self) -> str:
        return f"{self.state:<6}{self.what}: {self.text}"


def command(options: Namespace) -> int:
    """`sft-atlas preflight`.

    Raises:
        StudyError: config.yaml, the study or the profile cannot be read.
    """
    config, plan = configured(options.study)
    faults = 0
    for line in (*source_lines(plan), *site_lines(config, plan, profile_of(options.profile))):
        print(line, flush=True)
        faults += line.state == FAULT
    print(_counted(faults, "fault") if faults else "everything that was asked for is there")
    return 1 if faults else 0


def source_lines(plan: Plan) -> Iterator[Line]:
    """A line for each hub source of the plan, then those about all of them."""
    sources = list(asked_of(plan))
    if not sources:
        yield Line(OK, "hub", "the study takes nothing from it")
        return
    from sft_atlas.data.hub_probe import ProbeError, probe

    def ask(source: "Asked") -> "Found | str":
        try:
            return probe(source)
        except ProbeError as error:
            return str(error)

    with ThreadPoolExecutor(AT_A_TIME) as pool:
        answers = list(pool.map(ask, sources))
    missing: dict[tuple[str, str, str], int] = {}
    for source, answer in zip(sources, answers, strict=True):
        where = f"{source.repository}@{source.revision}"
        if isinstance(answer, str):
            yield Line(FAULT, source.key, f"{where}: {answer}")
            continue
        missing |= {(source.repository, answer.commit, name): found for name, found in answer.missing.items()}
        gate = f", gated ({answer.gated}) and open to this token" if answer.gated else ""
        licence = answer.licence or "not stated"
        told = f"{_counted(len(answer.files), 'file')}, {size(sum(answer.files.values()))}, licence {licence}{gate}"
        yield Line(OK, source.key, f"{where} (commit {answer.commit[:12]}): {told}")
        yield from (Line(NOTE, source.key, f"{where}: {note}") for note in answer.notes)
    if not plan.study.allow_moving and (said := moving(plan)):
        yield Line(FAULT, "revisions", said)
    yield _room(sum(missing.values()))


def _counted(number: int, thing: str) -> str:
    return f"{number} {thing}{'' if number == 1 else 's'}"


def asked_of(plan: Plan) -> Iterator["Asked"]:
    """Every hub source of the plan, with the columns that its rows must have."""
    from sft_atlas.data.hub_probe import COLUMNS, Asked, Kind

    for section, name, key, hub in hub_sources(plan):
        declared = getattr(plan.study, section)[name]
        columns: list[str] = []
        if isinstance(declared, Dataset | Benchmark):
            columns += COLUMNS[declared.format]
        if isinstance(declared, Dataset):
            columns += [*declared.columns.values(), *declared.keep, *declared.drop]
        kind: Kind = "model" if section == "bases" else "dataset"
        unique = tuple(dict.fromkeys(columns))
        yield Asked(f"{section}.{name}.{key}", kind, hub.id, hub.revision, tuple(hub.files), unique)


def _room(wanted: int) -> Line:
    """Whether the disk of the hub's cache holds what is to be fetched."""
    from huggingface_hub import constants

    cache = Path(constants.HF_HUB_CACHE)
    free = shutil.disk_usage(next(place for place in (cache, *cache.parents) if place.exists())).free
    told = f"{size(wanted)} are to be fetched into {cache}, where {size(free)} are free"
    return Line(OK, "disk", told) if wanted <= free else Line(FAULT, "disk", f"{told}; make room, or set HF_HOME")


def site_lines(config: Config, plan: Plan, profile: tuple[Path, dict[str, Any]] | None) -> Iterator[Line]:
    """What the site has of what config.yaml and the profile name: GPU, scratch, containers and sandbox, SLURM."""
    yield _gpu(config)
    if config.scratch:
        yield _scratch(config.scratch)
    if config.container and not (shutil.which("apptainer") or shutil.which("singularity")):
        yield Line(FAULT, "container", "config.yaml names one, and there is no apptainer here; load its module")
    if any(benchmark.format in ("humaneval", "mbpp") for benchmark in plan.study.benchmarks.values()):
        there = shutil.which("bwrap")
        told = f"{there}" if there else "no bwrap here, so code that models write can be kept, and not be run"
        yield Line(OK if there else NOTE, "sandbox", told)
    if profile:
        yield from _slurm(*profile)


def _gpu(config: Config) -> Line:
    if config.device == "cpu":
        return Line(OK, "gpu", "config.yaml says device: cpu")
    if here := _said("nvidia-smi", "--list-gpus"):
        return Line(OK, "gpu", f"{len(here)} here, the first {here[0].partition(' (UUID')[0]}")
    queued = [word for word in _said("sinfo", "--noheader", "--format=%G") or [] if "gpu" in word]
    if queued:
        return Line(OK, "gpu", f"none here; nodes of the cluster have {', '.join(dict.fromkeys(queued))}")
    if config.device == "cuda":
        return Line(FAULT, "gpu", "config.yaml says device: cuda, but neither this machine nor SLURM has one")
    return Line(NOTE, "gpu", "neither this machine nor SLURM has one: models run on the CPU")


def _scratch(scratch: str) -> Line:
    place = os.path.expandvars(scratch)
    if "$" in place or not Path(place).exists():
        return Line(NOTE, "scratch", f"{scratch} is not on this machine; on a compute node it has to be")
    if not os.access(place, os.W_OK):
        return Line(FAULT, "scratch", f"{place} cannot be written to; set `scratch` in config.yaml to another place")
    return Line(OK, "scratch", f"{place}, {size(shutil.disk_usage(place).free)} free here")


def profile_of(name: str | None) -> tuple[Path, dict[str, Any]] | None:
    """The profile that names partitions and accounts: as given, else profiles/default, which Snakemake always reads.

    Raises:
        StudyError: there is no such profile, or it cannot be read.
    """
    profiles = project_root() / "profiles"
    places = [Path(name), profiles / name] if name else [profiles / "default"]
    files = [place if place.is_file() else place / "config.yaml" for place in places]
    found = next((file for file in files if file.is_file()), None)
    if found is None:
        if name:
            known = [file.parent.name for file in profiles.glob("*/config.yaml")]
            raise StudyError(f"--profile: {unknown('profile', name, known)}")
        return None
    content = read_yaml(found)
    return found, content if isinstance(content, dict) else {}


def _slurm(file: Path, profile: dict[str, Any]) -> Iterator[Line]:
    """Whether the partitions and accounts of a profile are there."""
    asked = {
        "slurm_partition": _said("sinfo", "--noheader", "--format=%R"),
        "slurm_account": _said(
            *("sacctmgr", "--noheader", "--parsable2", "show", "associations"),
            *(f"user={os.environ.get('USER') or os.getuid()}", "format=account"),
        ),
    }
    for key, known in asked.items():
        named = _named(profile, key)
        if known is None:
            yield from (Line(NOTE, key, f"{value}: SLURM cannot be asked here") for value in named)
            continue
        for value in named:
            # a list of partitions is the first that is free
            wrong = [part for part in value.split(",") if part not in known]
            text = f"{file}: {unknown(key, wrong[0], known)}" if wrong else value
            yield Line(FAULT if wrong else OK, key, text)


def _named(profile: dict[str, Any], key: str) -> list[str]:
    """The values of a resource in a profile, of all rules; quotes around them are Snakemake's."""
    groups = [profile.get("default-resources"), *(profile.get("set-resources") or {}).values()]
    values = [group[key] for group in groups if isinstance(group, dict) and key in group]
    return list(dict.fromkeys(str(value).strip("'\"") for value in values))


def _said(*program: str) -> list[str] | None:
    """Lines that a program prints; None if it is not here or fails."""
    if shutil.which(program[0]) is None:
        return None
    try:
        done = subprocess.run(program, capture_output=True, text=True, check=False, timeout=SECONDS)
    except (OSError, subprocess.TimeoutExpired):
        return None
    return [line.strip() for line in done.stdout.splitlines() if line.strip()] if done.returncode == 0 else None
