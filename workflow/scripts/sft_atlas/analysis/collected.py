"""The results of a study as its tables are gathered from them: whatever is there and has not failed, cell by cell."""

from collections.abc import Iterator
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from typing import Any

from pydantic import ConfigDict

from sft_atlas import failures
from sft_atlas.files import read_json
from sft_atlas.spec import Part

Rows = list[dict[str, Any]]


class Results(Part):
    """Paths of results below the results folder, by what they are called; null where one is absent."""

    model_config = ConfigDict(extra="allow")

    def path(self, result: str) -> str | None:
        """The path of a result, if there is one."""
        found = (self.model_extra or {}).get(result)
        return found if isinstance(found, str) else None

    def asked(self) -> list[str]:
        """The results that the study asks for."""
        return list(self.model_extra or {})


class RunResults(Results):
    """A run: its names, its kept epochs with the blocks that ask for each, what describes it, and its results."""

    base: str
    sample: str
    recipe: str
    seed: int
    epochs: dict[str, str]
    dataset: str
    held_out: str | None
    method: str
    schedule: str
    run: str
    tokens: str


class Identity(Part):
    """Every cell with its results; results of samples and texts beside them, by what they are called."""

    model_config = ConfigDict(extra="allow")

    runs: list[RunResults]
    bases: dict[str, Results]
    tokens: dict[str, dict[str, str | None]]
    samples: dict[str, str]
    benchmarks: dict[str, str]
    matches: dict[str, list[str]]
    missing: list[dict[str, Any]]

    def of(self, result: str) -> dict[str, Any]:
        """Results of samples, or of samples and benchmarks, by name; empty where no stage makes them."""
        return dict((self.model_extra or {}).get(result) or {})


@dataclass(frozen=True)
class Cell:
    """A base or a run with one of its results.

    `key` has the columns base, sample, recipe and seed, as far as it has them; `about` the descriptive columns;
    `blocks` the block of each kept epoch.
    """

    key: dict[str, Any]
    about: dict[str, Any]
    blocks: dict[int, str]
    path: Path

    def row(self, epoch: int) -> dict[str, Any]:
        """What describes this cell at an epoch."""
        return {**self.about, "block": self.blocks[epoch]} if self.blocks else {}


@dataclass
class Found:
    """The results of a study, and what is not there."""

    identity: Identity
    root: Path
    missing: Rows = field(default_factory=list)

    def cells(self, result: str) -> Iterator[Cell]:
        """Bases, then runs, that have a result."""
        yield from self.of_bases(result)
        yield from self.of_runs(result)

    def of_bases(self, result: str) -> Iterator[Cell]:
        """Bases that have a result."""
        for base, results in self.identity.bases.items():
            if path := self.present(results, result):
                yield Cell({"base": base}, {}, {}, path)

    def of_runs(self, result: str) -> Iterator[Cell]:
        """Runs that have a result."""
        for run in self.identity.runs:
            if path := self.present(run, result):
                blocks = {int(epoch): names for epoch, names in run.epochs.items()}
                yield Cell(key_of(run), self.described(run), blocks, path)

    def present(self, results: Results, result: str) -> Path | None:
        """The file of a result that is there and has not failed."""
        path = results.path(result)
        return self.root / path if path and self.reason(path) is None else None

    def described(self, run: RunResults) -> dict[str, Any]:
        """The descriptive columns of a run; how many rows it was really trained on is known once it was."""
        about = {name: getattr(run, name) for name in ("dataset", "held_out", "method", "schedule")}
        if not self.present(run, "train"):
            return about
        return about | {"size": self._rows_of(run.tokens)}

    def sample(self, result: str, name: str) -> Path | None:
        """The file of a sample's result, if it is there."""
        path = self.identity.of(result).get(name)
        return self.root / path if path else None

    def reason(self, path: str) -> str | None:
        """Why a result has failed, if it has; each file is asked once."""
        if path not in self._reasons:
            self._reasons[path] = failures.reason_of(self.root / path)
        return self._reasons[path]

    def _rows_of(self, tokens: str) -> int:
        if tokens not in self._rows:
            self._rows[tokens] = int(read_json(self.root / tokens)["rows"])
        return self._rows[tokens]

    @cached_property
    def _reasons(self) -> dict[str, str | None]:
        return {}

    @cached_property
    def _rows(self) -> dict[str, int]:
        return {}


def key_of(run: RunResults) -> dict[str, Any]:
    """The columns that name a run."""
    return {name: getattr(run, name) for name in ("base", "sample", "recipe", "seed")}
