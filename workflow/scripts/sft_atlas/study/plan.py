"""From cells to jobs: which file each stage makes, from which files, under which frozen specification.

A specification (*spec*) says all that a job needs to know. Its hash covers stage, stage version and identity, and
stands in the path of what the job makes, so that another specification is another file and nothing is overwritten.
"""

from collections.abc import Callable
from dataclasses import dataclass, field, replace
from fnmatch import fnmatchcase
from functools import cached_property
from typing import Any

from sft_atlas.study.grid import search_facts
from sft_atlas.study.identity import STAGE_VERSIONS, spec_file, spec_hash
from sft_atlas.study.load import StudyError
from sft_atlas.study.matrix import Matrix, Run, RunKey
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

    @property
    def version(self) -> int:
        """The stage's version; stages without one re-run when their code changes."""
        return STAGE_VERSIONS.get(self.stage, 0)

    @cached_property
    def hash(self) -> str:
        """Eight hex digits over stage, version and identity."""
        return spec_hash(self.stage, self.version, self.identity)

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
    """Every job of a study, by output; and what belongs to whom, by name."""

    study: Study
    matrix: Matrix
    name: str
    specs: dict[str, Spec] = field(default_factory=dict)
    datasets: dict[str, Spec] = field(default_factory=dict)
    samples: dict[str, Spec] = field(default_factory=dict)
    benchmarks: dict[str, Spec] = field(default_factory=dict)
    bases: dict[str, Spec] = field(default_factory=dict)
    tokenizers: dict[str, Spec] = field(default_factory=dict)
    tokens: dict[tuple[str, str], Spec] = field(default_factory=dict)
    perplexity: dict[str, Spec] = field(default_factory=dict)
    similarity: dict[str, Spec] = field(default_factory=dict)
    contamination: dict[str, Spec] = field(default_factory=dict)
    train: dict[RunKey, Spec] = field(default_factory=dict)
    run_tokens: dict[RunKey, Spec] = field(default_factory=dict)
    scores: dict[RunKey | str, Spec] = field(default_factory=dict)
    weights: dict[RunKey, Spec] = field(default_factory=dict)
    likelihoods: dict[RunKey | str, Spec] = field(default_factory=dict)
    embeddings: dict[tuple[str, str], Spec] = field(default_factory=dict)
    release: dict[RunKey, Spec] = field(default_factory=dict)
    part: dict[str, Any] | None = None
    """Of a narrowed plan: by which filter (`only`), and how many of the study's cells it leaves out."""

    def add(self, spec: Spec) -> Spec:
        """Register a job.

        Raises:
            StudyError: another job with the same path, hence a collision of hashes.
        """
        known = self.specs.setdefault(spec.output, spec)
        if known.identity != spec.identity:
            raise StudyError(f"two identities share the path {spec.output}: rename one of them")
        return known

    def stage(self, *stages: str) -> list[str]:
        """Outputs of the stages."""
        return [spec.output for spec in self.specs.values() if spec.stage in stages]

    def of_run(self, key: RunKey) -> list[str]:
        """Everything a run leads to: its training and every measurement of its checkpoints."""
        tables: tuple[dict[Any, Spec], ...] = (self.train, self.scores, self.weights, self.likelihoods)
        return [table[key].output for table in tables if key in table]

    def released(self) -> list[str]:
        """Proofs that the weights of measured checkpoints are given back, if the study does not keep them all."""
        return [self.release[key].output for key in self.matrix.runs if key in self.release]

    def of_base(self, base: str) -> list[str]:
        """Everything about a base: itself, every measurement of it, and all its runs."""
        tables: tuple[dict[Any, Spec], ...] = (self.bases, self.scores, self.perplexity, self.likelihoods)
        own = [table[base].output for table in tables if base in table]
        return own + [path for key in self.matrix.runs if key.base == base for path in self.of_run(key)]

    def of_block(self, block: str) -> list[str]:
        """Everything a block's runs lead to, with the scores of their bases."""
        keys = [key for key, run in self.matrix.runs.items() if any(block in names for names in run.epochs.values())]
        bases = dict.fromkeys(self.scores[key.base].output for key in keys)
        return [*bases, *(path for key in keys for path in self.of_run(key))]

    def results(self) -> list[str]:
        """What the tables of the study are collected from."""
        specs = [*self.tokens.values(), *self.similarity.values(), *self.contamination.values()]
        specs += self.embeddings.values()
        of_bases: tuple[dict[Any, Spec], ...] = (self.perplexity, self.scores, self.likelihoods)
        specs += [table[base] for base in self.bases for table in of_bases if base in table]
        specs += [self.run_tokens[key] for key in self.matrix.runs]
        paths = [spec.output for spec in specs] + [path for key in self.matrix.runs for path in self.of_run(key)]
        return list(dict.fromkeys(paths))

    def needed(self) -> list[Spec]:
        """The jobs that lead to the study's results, in the order of the plan."""
        wanted: set[str] = set()
        waiting = [*self.results(), *self.released()]
        while waiting:
            output = waiting.pop()
            if output not in wanted:
                wanted.add(output)
                waiting += self.specs[output].input_files()
        return [spec for output, spec in self.specs.items() if output in wanted]

    def narrowed(self, only: str) -> "Plan":
        """The same jobs under the same identities, of those cells only that `base=a,block=b` (patterns) leaves.

        Raises:
            StudyError: a key that is none of base, sample, recipe, seed, block; or no cell is left.
        """
        if not only:
            return self
        keys = ("base", "sample", "recipe", "seed", "block", "subset")
        own = {key: [str(getattr(run, key)) for run in self.matrix.runs] for key in keys[:4]}
        wanted = patterns(only, own | {"block": self.study.blocks, "subset": self.matrix.subsets})

        def meant(run: Run, *unknown: str) -> bool:
            names = {key: [str(getattr(run.key, key))] for key in keys[:4]}
            names["block"] = [block for blocks in run.epochs.values() for block in blocks]
            cells = {(run.key, epoch) for epoch in run.epochs}
            names["subset"] = [name for name, subset in self.matrix.subsets.items() if cells & subset]
            return all(
                any(fnmatchcase(name, pattern) for name in names[key] for pattern in patterns)
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
        bases, samples = {key.base for key in runs}, {key.sample for key in runs}
        matrix = replace(self.matrix, runs=runs, missing=missing)
        cells = self.matrix.checkpoints
        return replace(
            self,
            part={"only": only, "cells": cells, "left_out": cells - matrix.checkpoints},
            matrix=matrix,
            bases={base: spec for base, spec in self.bases.items() if base in bases},
            tokens={pair: spec for pair, spec in self.tokens.items() if pair[0] in bases and pair[1] in samples},
            similarity={sample: spec for sample, spec in self.similarity.items() if sample in samples},
            contamination={sample: spec for sample, spec in self.contamination.items() if sample in samples},
            embeddings={
                (kind, name): spec
                for (kind, name), spec in self.embeddings.items()
                if kind == "benchmark" or name in samples
            },
        )

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
        """The study's own jobs, collect, audit, analyse and report, over the results that are present."""
        folder = self.name + place
        shown = {"bases": list(self.study.bases), "datasets": list(self.study.datasets)}
        options, labels = self.study.analyses.model_dump(), self.labels()
        study = {"name": self.name, "title": self.study.title, "analyses": options, **labels, **shown}
        collect = collect_spec(self, folder, present)
        facts = {"labels": {"benchmarks": labels["benchmarks"]}}
        audit = Spec("audit", f"{folder}/audit.json", facts, {"collect": collect.output})
        identity = {"options": options, "labels": labels}
        inputs = {"collect": collect.output, "audit": audit.output}
        analyse = Spec("analyse", f"{folder}/analyse.json", identity, inputs)
        inputs = inputs | {"analyse": analyse.output}
        # in the identity: two filters may leave the same cells, and the page names one
        identity = {"study": self.name, **({"part": self.part} if self.part else {})}
        report = Spec(
            "report", f"{folder}/report.html", identity, inputs, labels=study | {"labels": labels, "part": self.part}
        )
        return {spec.stage: spec for spec in (collect, audit, analyse, report)}


def collect_spec(plan: Plan, folder: str, present: Callable[[str], bool]) -> Spec:
    """The job that gathers every result of the study into its tables; what is not present is listed as missing."""
    study, matrix = plan.study, plan.matrix

    def found(spec: Spec | None) -> str | None:
        return spec.output if spec and present(spec.output) else None

    runs = [
        {
            "base": key.base,
            "sample": key.sample,
            "recipe": key.recipe,
            "seed": key.seed,
            "epochs": {str(epoch): ",".join(sorted(set(blocks))) for epoch, blocks in run.epochs.items()},
            "dataset": matrix.samples[key.sample].dataset,
            "held_out": matrix.samples[key.sample].held_out,
            "method": study.recipes[key.recipe].method,
            "schedule": study.recipes[key.recipe].schedule,
            "run": plan.train[key].identity["run"],
            "tokens": plan.run_tokens[key].output,
            "train": found(plan.train[key]),
            "scores": found(plan.scores[key]),
            "weights": found(plan.weights[key]),
            "likelihoods": found(plan.likelihoods.get(key)),
        }
        for key, run in matrix.runs.items()
    ]
    bases = {
        base: {
            "scores": found(plan.scores[base]),
            "perplexity": found(plan.perplexity[base]),
            "likelihoods": found(plan.likelihoods.get(base)),
        }
        for base in plan.bases
    }
    tokens = {
        base: {sample: found(spec) for (owner, sample), spec in sorted(plan.tokens.items()) if owner == base}
        for base in plan.bases
    }
    identity = {
        "runs": runs,
        "bases": bases,
        "tokens": tokens,
        "samples": {sample: matrix.samples[sample].dataset for sample in plan.similarity},
        "similarity": {sample: found(spec) for sample, spec in plan.similarity.items()},
        "contamination": {sample: found(spec) for sample, spec in plan.contamination.items()},
        "embeddings": {
            kind: {name: found(spec) for (own, name), spec in sorted(plan.embeddings.items()) if own == kind}
            for kind in ("sample", "benchmark")
        },
        "likelihoods": bool(plan.likelihoods),
        "benchmarks": {spec.hash: name for name, spec in sorted(plan.benchmarks.items())},
        "matches": {name: sorted(benchmark.matches) for name, benchmark in sorted(study.benchmarks.items())},
        "missing": [
            {
                "base": key.base,
                "sample": key.sample,
                "recipe": key.recipe,
                "seed": key.seed,
                "epoch": epoch,
                "reason": why,
            }
            for (key, epoch), why in sorted(matrix.missing.items())
        ],
    }
    inputs = {"results": [path for path in plan.results() if present(path)]}
    return Spec("collect", f"{folder}/collect.json", identity, inputs)


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
