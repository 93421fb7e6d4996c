"""From cells to jobs: which file each stage makes, from which files, under which frozen specification.

A specification (*spec*) says all that a job needs to know. Its hash covers stage, stage version and identity, and
stands in the path of what the job makes, so that another specification is another file and nothing is overwritten.
"""

from collections.abc import Callable, Collection, Iterator
from dataclasses import dataclass, field, replace
from fnmatch import fnmatchcase
from functools import cached_property
from pathlib import Path
from typing import Any

from sft_atlas import nodes
from sft_atlas.errors import StudyError
from sft_atlas.nodes import Key, Node, RunKey
from sft_atlas.stage import Job, Stage, stages
from sft_atlas.study.grid import search_facts
from sft_atlas.study.identity import identity_of, spec_file, spec_hash
from sft_atlas.study.matrix import Matrix, Run
from sft_atlas.study.model import Study
from sft_atlas.study.only import patterns


@dataclass(frozen=True)
class Spec:
    """What one job makes (`output`, below the results folder), from what, and under which identity."""

    stage: str
    output: str
    identity: dict[str, Any]
    inputs: dict[str, Any] = field(default_factory=dict)
    sources: tuple[str, ...] = ()
    labels: dict[str, Any] = field(default_factory=dict)
    version: int = 0
    key: Key | None = field(default=None, compare=False)

    @cached_property
    def hash(self) -> str:
        """Eight hex digits over stage, version and identity."""
        return spec_hash(self.stage, self.version, self.identity)

    @property
    def folder(self) -> str:
        """Where the output lies."""
        return self.output.rpartition("/")[0]

    def content(self) -> dict[str, Any]:
        """What the frozen file holds."""
        return {
            "stage": self.stage,
            "version": self.version,
            "hash": self.hash,
            "output": self.output,
            "identity": self.identity,
            "inputs": self.inputs,
            "sources": list(self.sources),
            "labels": self.labels,
        }

    @property
    def file(self) -> str:
        """Path of the frozen file, beside the output, below the results folder."""
        return spec_file(self.output, self.hash)

    def input_files(self) -> list[str]:
        """Every input below the results folder, in order, each once."""
        return leaves(self.inputs)


@dataclass
class Plan:
    """Every job of a study, by stage and by what it is for; and by output.

    A job that measures several models, all kept epochs of a run, is found under the run and under each of its nodes.
    """

    study: Study
    matrix: Matrix
    name: str
    results: Path | None = None
    """Where results lie, for what depends on those that are there; None: nothing is there."""
    specs: dict[tuple[str, Key], Spec] = field(default_factory=dict)
    by_output: dict[str, Spec] = field(default_factory=dict)
    part: dict[str, Any] | None = None
    """Of a narrowed plan: by which filter (`only`), and how many of the study's cells it leaves out."""
    accepted: dict[str, dict[int, int]] = field(default_factory=dict)
    """How many results of an earlier version of a stage the study accepts, by stage and version."""

    @property
    def imported(self) -> tuple[dict[str, Any], tuple[str, ...]] | None:
        """Of a study whose scores come from a table: the identity of that, and its file; else None."""
        return None

    def add(self, stage: Stage, job: Job) -> Spec:
        """Register a job.

        Raises:
            StudyError: another job with the same path, hence a collision of hashes.
        """
        spec = self._accepted(stage, job) or spec_of(stage, job, stage.version)
        known = self.by_output.setdefault(spec.output, spec)
        if known.identity != spec.identity:
            raise StudyError(f"two identities share the path {spec.output}: rename one of them")
        self.specs[stage.name, job.key] = known
        return known

    def _accepted(self, stage: Stage, job: Job) -> Spec | None:
        """The specification under an earlier version of the stage, if the study accepts its result and it is there."""
        version = self.study.accept.get(stage.name) if self.study.accept else None
        if version is None or self.results is None or version >= stage.version:
            return None
        spec = spec_of(stage, job.under(version) if job.under else job, version)
        if not (self.results / spec.output).exists():
            return None
        counts = self.accepted.setdefault(stage.name, {})
        counts[version] = counts.get(version, 0) + 1
        return spec

    def job(self, stage: str, key: Key | Node) -> Spec:
        """The job of a stage for a key, or for a model.

        Raises:
            KeyError: there is none.
        """
        return self.specs[stage, key.run if isinstance(key, nodes.Epoch) else key]

    def get(self, stage: str, key: Key | Node) -> Spec | None:
        """The job of a stage for a key, or None."""
        return self.specs.get((stage, key.run if isinstance(key, nodes.Epoch) else key))

    def select(self, *wanted: str, **patterns: str) -> list[Spec]:
        """The jobs of stages (none named: of all), each once, whose keys have names like the patterns."""
        found = {
            spec.output: spec
            for (stage, key), spec in self.specs.items()
            if (not wanted or stage in wanted) and (not patterns or _matches(nodes.names(key), patterns))
        }
        return list(found.values())

    @property
    def bases(self) -> list[str]:
        """Bases that have a run, in order."""
        return sorted({key.base for key in self.matrix.runs})

    @property
    def template(self) -> dict[str, Any]:
        """The prompt, as identities hold it."""
        return identity_of(self.study.template)

    @cached_property
    def lengths(self) -> dict[tuple[str, str], int]:
        """By base and sample, the longest length in tokens that any recipe cuts it at: where it is measured."""
        longest: dict[tuple[str, str], int] = {}
        for key in self.matrix.runs:
            length = self.study.recipes[key.recipe].max_length
            longest[key.base, key.sample] = max(length, longest.get((key.base, key.sample), 0))
        return dict(sorted(longest.items()))

    @property
    def singles(self) -> list[str]:
        """Samples that are drawn: those of runs, and those that mixtures of runs are made of."""
        used = {key.sample for key in self.matrix.runs}
        return sorted({part for sample in used for part in (self.matrix.samples[sample].parts or (sample,))})

    def compared(self) -> Iterator[tuple[nodes.Sample, str, dict[str, Any], dict[str, Any]]]:
        """Every sample that a run is trained on beside every benchmark: key, folder, identity and inputs."""
        prepared = {name: self.job("benchmark", nodes.Benchmark(name)) for name in sorted(self.study.benchmarks)}
        hashes = {name: spec.hash for name, spec in prepared.items()}
        items = {name: spec.output for name, spec in prepared.items()}
        for name in sorted({key.sample for key in self.matrix.runs}):
            drawn = self.job("sample", nodes.Sample(name))
            inputs = {"sample": drawn.output, "benchmarks": items}
            yield nodes.Sample(name), drawn.folder, {"sample": drawn.hash, "benchmarks": hashes}, inputs

    def tokens_of(self, key: RunKey) -> nodes.Tokens:
        """What a run is trained on."""
        return nodes.Tokens(key.base, key.sample, self.study.recipes[key.recipe].max_length)

    def models(self) -> Iterator[tuple[nodes.Base | RunKey, list[int], Spec, Spec]]:
        """Whatever is measured: its key, its epochs (a base has 0), the job that makes it, and that of its base."""
        for base in self.bases:
            made = self.job("base", nodes.Base(base))
            yield nodes.Base(base), [0], made, made
        for key, run in self.matrix.runs.items():
            yield key, list(run.epochs), self.job("train", key), self.job("base", nodes.Base(key.base))

    def of_run(self, key: RunKey) -> list[str]:
        """Everything a run leads to: its training and every measurement of its checkpoints."""
        found = (self.get(stage.name, key) for stage in stages().values() if stage.absent and stage.name != "tokens")
        return [spec.output for spec in found if spec]

    def released(self) -> list[str]:
        """Proofs that the weights of measured checkpoints were released, if the study does not keep them all."""
        return [spec.output for key in self.matrix.runs if (spec := self.get("release", key))]

    def of_base(self, base: str) -> list[str]:
        """Everything about a base: itself, every measurement of it, and all its runs."""
        own = [self.get(stage.name, nodes.Base(base)) for stage in stages().values()]
        runs = [path for key in self.matrix.runs if key.base == base for path in self.of_run(key)]
        return [spec.output for spec in own if spec] + runs

    def of_block(self, block: str) -> list[str]:
        """Everything a block's runs lead to, with the scores of their bases."""
        keys = [key for key, run in self.matrix.runs.items() if any(block in names for names in run.epochs.values())]
        bases = [self.get("evaluate", nodes.Base(base)) for base in dict.fromkeys(key.base for key in keys)]
        return [spec.output for spec in bases if spec] + [path for key in keys for path in self.of_run(key)]

    def collected(self) -> list[str]:
        """What the tables of the study are collected from."""
        wanted = [stage.name for stage in stages().values() if stage.absent]
        return sorted(spec.output for spec in self.select(*wanted))

    def needed(self) -> list[Spec]:
        """The jobs that lead to the study's results, in the order of the plan."""
        wanted: set[str] = set()
        waiting = [*self.collected(), *self.released()]
        while waiting:
            output = waiting.pop()
            if output not in wanted:
                wanted.add(output)
                waiting += self.by_output[output].input_files()
        return [spec for output, spec in self.by_output.items() if output in wanted]

    def narrowed(self, only: str) -> "Plan":
        """The same jobs under the same identities, of those cells only that `base=a,block=b` (patterns) leaves.

        Raises:
            StudyError: a key that is none of base, sample, recipe, seed, block; or no cell is left.
        """
        if not only:
            return self
        own = {
            key: [str(getattr(run, key)) for run in self.matrix.runs] for key in ("base", "sample", "recipe", "seed")
        }
        wanted = patterns(only, own | {"block": self.study.blocks, "subset": self.matrix.subsets})

        def meant(run: Run, *unknown: str) -> bool:
            known: dict[str, list[str]] = {name: [value] for name, value in nodes.names(run.key).items()}
            known["block"] = [block for blocks in run.epochs.values() for block in blocks]
            cells = {(run.key, epoch) for epoch in run.epochs}
            known["subset"] = [name for name, subset in self.matrix.subsets.items() if cells & subset]
            return all(
                any(fnmatchcase(name, pattern) for name in known[key] for pattern in patterns)
                for key, patterns in wanted.items()
                if key not in unknown
            )

        runs = {key: run for key, run in self.matrix.runs.items() if meant(run)}
        # which block expects a cell to be missing is not kept
        missing = {
            cell: why for cell, why in self.matrix.missing.items() if meant(Run(cell[0], {cell[1]: []}), "block")
        }
        if not runs:
            raise StudyError(
                f"config.yaml: only: {only!r} leaves no cell of the study: each part is in it, but not all in one "
                "cell; drop one of them (`sft-atlas cells` lists what goes together)"
            )
        matrix = replace(self.matrix, runs=runs, missing=missing)
        cells = self.matrix.checkpoints
        part = {"only": only, "cells": cells, "left_out": cells - matrix.checkpoints}
        bases, samples = {key.base for key in runs}, {key.sample for key in runs}
        kept = {
            (stage, key): spec
            for (stage, key), spec in self.specs.items()
            if stages()[stage].prepares or _is_part(key, runs, bases, samples)
        }
        return replace(self, part=part, matrix=matrix, specs=kept)

    def labels(self) -> dict[str, Any]:
        """What the analysis knows beside the tables: families and languages of bases, facts about benchmarks, and
        which mixture a dataset was left out of."""
        bases = {name: {"family": base.family, "language": base.language} for name, base in self.study.bases.items()}
        facts = {"chance", "translation_of", "matches"}
        search = search_facts(self.study)
        wholes = {name: sample.whole for name, sample in self.matrix.samples.items() if sample.held_out}
        return {
            "bases": bases,
            "benchmarks": {n: b.model_dump(include=facts) for n, b in self.study.benchmarks.items()},
            **({"selection": search} if search else {}),
            **({"left_out_of": wholes} if wholes else {}),
        }

    def summary(self) -> str:
        """One line for the start of a run."""
        return (
            f"study {self.name}: {self.matrix.checkpoints:,} fine-tuned models from {len(self.matrix.runs):,} runs of "
            f"{len(self.bases)} bases, {len(self.study.benchmarks)} benchmarks"
        )

    def study_specs(self, present: Callable[[str], bool] = lambda path: True, place: str = "") -> dict[str, Spec]:
        """The study's own jobs, from tables to report, over the results that are present, by what is made of them."""
        whole = View(self, f"{self.name}{place}", present)
        for stage in stages().values():
            if stage.scope == "study":
                for job in stage.jobs(whole):
                    whole.specs[stage.result] = spec_of(stage, job, stage.version)
        return whole.specs


@dataclass
class View:
    """A plan as the study's own jobs see it: into which folder they write, and which results there are."""

    plan: Plan
    folder: str
    present: Callable[[str], bool]
    specs: dict[str, Spec] = field(default_factory=dict)

    @property
    def key(self) -> nodes.Whole:
        """The key of the study's own jobs."""
        return nodes.Whole(self.folder)

    def found(self, spec: Spec | None) -> str | None:
        """The output of a job if it is present."""
        return spec.output if spec and self.present(spec.output) else None


def spec_of(stage: Stage, job: Job, version: int) -> Spec:
    """The specification of a job under a version of its stage."""
    hash8 = spec_hash(stage.name, version, job.identity)
    output = stage.output.format(place=job.place, hash=hash8)
    return Spec(stage.name, output, job.identity, job.inputs, job.sources, job.labels, version, job.key)


def leaves(value: Any) -> list[str]:
    """Every text in nested lists and mappings, in order, each once."""
    found: dict[str, None] = {}

    def walk(part: Any) -> None:
        if isinstance(part, str):
            found[part] = None
        else:
            for inner in part.values() if isinstance(part, dict) else part:
                walk(inner)

    walk(value)
    return list(found)


def _matches(found: dict[str, str], patterns: dict[str, str]) -> bool:
    return all(name in found and fnmatchcase(found[name], pattern) for name, pattern in patterns.items())


def _is_part(key: Key, runs: Collection[RunKey], bases: set[str], samples: set[str]) -> bool:
    """Whether a key belongs to some runs; what is of no base and of no sample does."""
    if isinstance(key, RunKey):
        return key in runs
    found = nodes.names(key)
    return found.get("base") in (None, *bases) and found.get("sample") in (None, *samples)
