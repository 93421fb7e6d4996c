"""What a stage is, and which there are: every folder of `sft_atlas.stages` that declares one.

A stage is a folder with fixed file names, so that adding one touches no other module, and taking one out is deleting
its folder, its rule file and the line of the Snakefile that includes it:

    __init__.py   STAGE: its name, version, and which jobs a plan has of it (imports nothing heavy)
    spec.py       Spec: the typed specification that its jobs read
    run.py        run(spec, root): does the job
    cost.py       cost(estimates, spec): what the job takes
    tables.py     where the study's tables gain from it: TABLES, their schemas, and gather(…)
"""

import importlib
import pkgutil
from collections.abc import Callable, Iterable
from dataclasses import dataclass, field
from functools import cache, cached_property
from pathlib import Path
from types import ModuleType
from typing import Any, Literal

from sft_atlas.nodes import Key

PACKAGE = "sft_atlas.stages"
Scope = Literal["dataset", "sample", "benchmark", "text", "tokenizer", "tokens", "base", "run", "model", "study"]


@dataclass(frozen=True)
class Job:
    """One job of a stage: for what (`key`), where its output lies, and what its specification says.

    `place` is put into the stage's `output`. Sources are local files from outside of the results; labels are what the
    job is told that changes no result. `under` gives the job under another version of the stage, where more than the
    hash of its identity depends on that.
    """

    key: Key
    place: str
    identity: dict[str, Any]
    inputs: dict[str, Any] = field(default_factory=dict)
    sources: tuple[str, ...] = ()
    labels: dict[str, Any] = field(default_factory=dict)
    under: "Callable[[int], Job] | None" = None


@dataclass(frozen=True)
class Stage:
    """One declaration of all that the plan, the estimates, the rules and the commands know of a stage.

    Attributes:
        package: Its own, `__name__`.
        name: In specifications, records and paths.
        scope: What one job is for; `text` is a sample or a benchmark, `model` a base or all kept epochs of a run.
        output: Path below the results folder, of `{place}` and `{hash}`.
        jobs: The jobs of a `Plan`, in any order; of a study's own stage, of a `View` of it.
        version: Part of its identities, raised by hand when its results change; 0 for a stage whose jobs run again when
            their code does.
        after: Stages whose jobs those of this one read.
        target: The name to type for all its jobs, where that is not `name`.
        known_as: What other specifications and the tables call its results, where that is not `name`.
        absent: Why a cell has no result, as table `missing` says, where this stage's is not there; empty for stages
            that the study's tables are not collected from, `-` where nothing is said.
        priority: Of jobs that could run, those of the highest priority do first. Training has 0: what is cheap and may
            show a fault goes before it, and what measures a checkpoint before further training, so that few
            checkpoints wait on the disk.
        numeric: Its sums depend on the number of threads, which is the study's.
        imports: Heavy modules beside its own that a process shared by many jobs imports once.
        reads_weights: It reads checkpoints, so it comes before their release and after their restoring.
        fails: Its jobs may end as failed cells: with a result that says why there is none.
        prepares: It is no part of a narrowed plan's choice: what it makes is shared by all cells.
        after_readers: It comes after every stage that reads weights.
        folders: Folders of the results that are its own.
        gathers: Files of other stages' folders that its jobs run, where there are any.
        data: What its jobs read of the package beside code, as patterns.
    """

    package: str
    name: str
    scope: Scope
    output: str
    jobs: Callable[[Any], Iterable[Job]]
    version: int = 0
    after: tuple[str, ...] = ()
    target: str = ""
    known_as: str = ""
    absent: str = ""
    priority: int = 0
    numeric: bool = False
    imports: tuple[str, ...] = ()
    reads_weights: bool = False
    fails: bool = False
    prepares: bool = False
    after_readers: bool = False
    folders: tuple[str, ...] = ()
    gathers: tuple[str, ...] = ()
    data: tuple[str, ...] = ()

    @property
    def result(self) -> str:
        """What others call its results."""
        return self.known_as or self.name

    def module(self, name: str) -> ModuleType:
        """A file of the stage's folder, imported when it is asked for."""
        return importlib.import_module(f"{self.package}.{name}")

    def has(self, name: str) -> bool:
        """Whether the folder has such a file."""
        return (self.folder / f"{name}.py").is_file()

    @cached_property
    def folder(self) -> Path:
        """Where the stage lies."""
        file = importlib.import_module(self.package).__file__
        assert file is not None
        return Path(file).parent


@cache
def stages() -> dict[str, Stage]:
    """Every stage by name, each after those that it reads from."""
    package = importlib.import_module(PACKAGE)
    found: dict[str, Stage] = {}
    for module in pkgutil.iter_modules(package.__path__):
        declared: Stage | None = getattr(importlib.import_module(f"{PACKAGE}.{module.name}"), "STAGE", None)
        if declared is not None:
            found[declared.name] = declared
    ordered: dict[str, Stage] = {}

    def place(stage: Stage) -> None:
        readers = [other.name for other in found.values() if other.reads_weights] if stage.after_readers else []
        for before in (*stage.after, *readers):
            if before in found and before not in ordered:
                place(found[before])
        ordered[stage.name] = stage

    for name in sorted(found):
        if name not in ordered:
            place(found[name])
    return ordered


def with_cells() -> list[Stage]:
    """The stages whose results a study's tables are collected from."""
    return [stage for stage in stages().values() if stage.absent]


def shared_folders() -> list[str]:
    """Folders of the results that belong to all studies."""
    return sorted({folder for stage in stages().values() for folder in stage.folders})
