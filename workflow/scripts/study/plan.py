"""From cells to jobs: which file each stage makes, from which files, under which frozen specification.

A specification (*spec*) says all that a job needs to know. Its hash covers stage, stage version and identity, and
stands in the path of what the job makes, so that another specification is another file and nothing is overwritten.
"""

from collections.abc import Callable, Iterable
from dataclasses import dataclass, field, replace
from fnmatch import fnmatchcase
from functools import cached_property
from pathlib import Path, PurePosixPath
from typing import Any

from pydantic import BaseModel

from sft_atlas.study.identity import STAGE_VERSIONS, fingerprint, spec_file, spec_hash
from sft_atlas.study.load import StudyError
from sft_atlas.study.matrix import ExpandedSample, Matrix, Run, RunKey
from sft_atlas.study.model import Base, Benchmark, Dataset, Recipe, Study


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
    release: dict[RunKey, Spec] = field(default_factory=dict)

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
        """Everything a run leads to: its training, scores and weights."""
        return [self.train[key].output, self.scores[key].output, self.weights[key].output]

    def released(self) -> list[str]:
        """Proofs that the weights of measured checkpoints are given back, if the study does not keep them all."""
        return [self.release[key].output for key in self.matrix.runs if key in self.release]

    def of_base(self, base: str) -> list[str]:
        """Everything about a base: itself, its scores and perplexities, and all its runs."""
        own = [self.bases[base].output, self.scores[base].output, self.perplexity[base].output]
        return own + [path for key in self.matrix.runs if key.base == base for path in self.of_run(key)]

    def of_block(self, block: str) -> list[str]:
        """Everything a block's runs lead to, with the scores of their bases."""
        keys = [key for key, run in self.matrix.runs.items() if any(block in names for names in run.epochs.values())]
        bases = dict.fromkeys(self.scores[key.base].output for key in keys)
        return [*bases, *(path for key in keys for path in self.of_run(key))]

    def results(self) -> list[str]:
        """What the tables of the study are collected from."""
        specs = [*self.tokens.values(), *self.similarity.values(), *self.contamination.values()]
        specs += [table[base] for base in self.bases for table in (self.perplexity, self.scores)]
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
        wanted: dict[str, list[str]] = {}
        for part in only.split(","):
            key, equals, pattern = part.strip().partition("=")
            if key not in keys or not equals or not pattern:
                raise StudyError(
                    f"config.yaml: only: found {part!r}; expected KEY=PATTERN, KEY one of {', '.join(keys)}"
                )
            wanted.setdefault(key, []).append(pattern)

        def meant(run: Run) -> bool:
            names = {key: [str(getattr(run.key, key))] for key in keys[:4]}
            names["block"] = [block for blocks in run.epochs.values() for block in blocks]
            cells = {(run.key, epoch) for epoch in run.epochs}
            names["subset"] = [name for name, subset in self.matrix.subsets.items() if cells & subset]
            return all(
                any(fnmatchcase(name, pattern) for name in names[key] for pattern in patterns)
                for key, patterns in wanted.items()
            )

        runs = {key: run for key, run in self.matrix.runs.items() if meant(run)}
        if not runs:
            raise StudyError(f"config.yaml: only: {only!r} leaves no cell of the study")
        bases, samples = {key.base for key in runs}, {key.sample for key in runs}
        return replace(
            self,
            matrix=replace(self.matrix, runs=runs),
            bases={base: spec for base, spec in self.bases.items() if base in bases},
            tokens={pair: spec for pair, spec in self.tokens.items() if pair[0] in bases and pair[1] in samples},
            similarity={sample: spec for sample, spec in self.similarity.items() if sample in samples},
            contamination={sample: spec for sample, spec in self.contamination.items() if sample in samples},
        )

    def labels(self) -> dict[str, Any]:
        """What the analysis knows beside the tables: families and languages of bases, facts about benchmarks."""
        bases = {name: {"family": base.family, "language": base.language} for name, base in self.study.bases.items()}
        facts = {"chance", "translation_of", "matches"}
        return {
            "bases": bases,
            "benchmarks": {n: b.model_dump(include=facts) for n, b in self.study.benchmarks.items()},
        }

    def summary(self) -> str:
        """One line for the start of a run."""
        return (
            f"study {self.name}: {self.matrix.checkpoints} fine-tuned models from {len(self.matrix.runs)} runs of "
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
        report = Spec(
            "report", f"{folder}/report.html", {"study": self.name}, inputs, labels=study | {"labels": labels}
        )
        return {spec.stage: spec for spec in (collect, audit, analyse, report)}


def build_plan(study: Study, matrix: Matrix, name: str) -> Plan:
    """Resolve identities, from sources up to runs, and lay out every job of the study.

    Raises:
        StudyError: a local source does not exist, or two identities collide.
    """
    plan = Plan(study, matrix, name)
    used = {key.sample for key in matrix.runs}
    singles = {part for sample in used for part in (matrix.samples[sample].parts or (sample,))}
    for dataset in dict.fromkeys(d for sample in sorted(singles) for d in matrix.samples[sample].datasets):
        plan.datasets[dataset] = plan.add(_dataset_spec(dataset, study.datasets[dataset]))
    for sample in [*sorted(singles), *sorted(used - singles)]:
        plan.samples[sample] = plan.add(_sample_spec(plan, matrix.samples[sample]))
    for benchmark, declared in sorted(study.benchmarks.items()):
        plan.benchmarks[benchmark] = plan.add(_benchmark_spec(benchmark, declared))
    for sample in sorted(used):
        plan.similarity[sample] = plan.add(_comparison_spec(plan, sample, "similarity", study.similarity))
        plan.contamination[sample] = plan.add(_comparison_spec(plan, sample, "contamination", study.decontamination))
    for base in sorted({key.base for key in matrix.runs}):
        _plan_base(plan, base, study.bases[base])
    for key in matrix.runs:
        _plan_run(plan, key)
    return plan


def _dataset_spec(name: str, declared: Dataset) -> Spec:
    identity = {
        "source": _source_identity(f"datasets.{name}", declared),
        "format": declared.format,
        "columns": declared.columns,
        "keep": declared.keep,
        "drop": declared.drop,
        "turns": declared.turns,
    }
    return _manifest("dataset", f"datasets/{name}", identity, sources=_sources(declared))


def _sample_spec(plan: Plan, sample: ExpandedSample) -> Spec:
    declared = sample.declared
    if sample.parts:
        parts = [plan.samples[part] for part in sample.parts]
        identity: dict[str, Any] = {"mix": sorted(part.hash for part in parts)}
    else:
        parts = [plan.datasets[dataset] for dataset in sample.datasets]
        identity = {
            "datasets": sorted(part.hash for part in parts),
            "size": declared.size,
            "seed": declared.seed,
            "shortfall": declared.shortfall,
            "template": plan.study.template.model_dump(),
        }
    # in the order of the hashes, so that a mixture does not depend on names
    ordered = sorted(parts, key=lambda part: part.hash)
    return _manifest("sample", f"samples/{sample.name}", identity, {"parts": [part.output for part in ordered]})


def _benchmark_spec(name: str, declared: Benchmark) -> Spec:
    identity: dict[str, Any] = {
        "source": _source_identity(f"benchmarks.{name}", declared),
        "format": declared.format,
        "limit": declared.limit,
        "examples": None,
    }
    if declared.shots_path:
        identity["examples"] = {"content": _fingerprint(f"benchmarks.{name}.shots_path", declared.shots_path)}
    elif declared.shots_hub:
        identity["examples"] = {"hub": declared.shots_hub.model_dump()}
    sources = (*_sources(declared), *([declared.shots_path] if declared.shots_path else []))
    return _manifest("benchmark", f"benchmarks/{name}", identity, sources=sources)


def _plan_base(plan: Plan, name: str, declared: Base) -> None:
    study = plan.study
    identity: dict[str, Any] = {"source": _source_identity(f"bases.{name}", declared)}
    inputs: dict[str, Any] = {}
    if declared.micro:
        vocabulary = {"vocab_size": declared.micro.vocab_size, "template": study.template.model_dump()}
        tokenizer = plan.add(_manifest("tokenizer", f"tokenizers/micro{declared.micro.vocab_size}", vocabulary))
        identity |= {"tokenizer": tokenizer.hash, "template": vocabulary["template"], "threads": study.threads}
        inputs["tokenizer"] = tokenizer.output
    base = plan.add(_manifest("base", f"bases/{name}", identity, inputs, _sources(declared)))
    plan.bases[name] = base
    plan.tokenizers[name] = tokenizer if declared.micro else base
    lengths: dict[str, int] = {}
    for key in plan.matrix.runs:
        if key.base == name:
            length = study.recipes[key.recipe].max_length
            lengths[key.sample] = max(length, lengths.get(key.sample, 0))
    # perplexity and the sample's table are measured at the longest length that any recipe uses
    measured = {sample: _plan_tokens(plan, name, sample, length) for sample, length in sorted(lengths.items())}
    plan.tokens |= {(name, sample): spec for sample, spec in measured.items()}
    folder = str(PurePosixPath(base.output).parent)
    plan.perplexity[name] = plan.add(
        _table(
            "perplexity",
            folder,
            {
                "base": base.hash,
                "samples": sorted(spec.hash for spec in measured.values()),
                "precision": study.evaluation.precision,
                "threads": study.threads,
            },
            {"base": base.output, "tokens": {spec.hash: spec.output for spec in measured.values()}},
        )
    )
    plan.scores[name] = plan.add(_score_spec(plan, folder, base, [0]))


def _plan_tokens(plan: Plan, base: str, sample: str, length: int) -> Spec:
    tokenizer, drawn = plan.tokenizers[base], plan.samples[sample]
    owner = PurePosixPath(tokenizer.output).parent.name
    identity = {"tokenizer": tokenizer.hash, "sample": drawn.hash, "max_length": length}
    inputs = {"tokenizer": tokenizer.output, "sample": drawn.output}
    if plan.study.decontamination.action == "drop":
        contamination = plan.contamination[sample]
        # not the hash of that job, which holds the benchmarks' names
        identity["without"] = contamination.identity | {"benchmarks": sorted(b.hash for b in plan.benchmarks.values())}
        inputs["contamination"] = contamination.output
    return plan.add(_manifest("tokens", f"tokens/{owner}/{sample}", identity, inputs))


def _comparison_spec(plan: Plan, sample: str, stage: str, options: BaseModel) -> Spec:
    """A sample against every benchmark."""
    drawn = plan.samples[sample]
    identity = {
        "sample": drawn.hash,
        "benchmarks": {name: spec.hash for name, spec in plan.benchmarks.items()},
        "options": options.model_dump(exclude={"action"}),
    }
    inputs = {"sample": drawn.output, "benchmarks": {name: spec.output for name, spec in plan.benchmarks.items()}}
    return _table(stage, str(PurePosixPath(drawn.output).parent), identity, inputs)


def _plan_run(plan: Plan, key: RunKey) -> None:
    study, base = plan.study, plan.bases[key.base]
    recipe = study.recipes[key.recipe]
    tokens = _plan_tokens(plan, key.base, key.sample, recipe.max_length)
    epochs = list(plan.matrix.runs[key].epochs)
    run = {
        "base": base.hash,
        "tokens": tokens.hash,
        "recipe": recipe_identity(recipe),
        "seed": key.seed,
        "threads": study.threads,
    }
    run_id = spec_hash("run", STAGE_VERSIONS["train"], run)
    folder = f"runs/{key.base}/{key.sample}/{key.recipe}-{run_id}"
    inputs = {"base": base.output, "tokens": tokens.output}
    train = plan.add(_table("train", folder, {"run": run_id, "settings": run, "epochs": epochs}, inputs, "json"))
    plan.train[key] = train
    plan.run_tokens[key] = tokens
    plan.scores[key] = plan.add(_score_spec(plan, folder, train, epochs, base))
    identity = {"run": run_id, "base": base.hash, "epochs": epochs}
    plan.weights[key] = plan.add(_table("weights", folder, identity, {"base": base.output, "train": train.output}))
    if study.keep_weights != "all":
        readers = {"scores": plan.scores[key], "weights": plan.weights[key]}
        identity = {"run": run_id, "epochs": epochs, "keep": study.keep_weights}
        identity |= {stage: spec.hash for stage, spec in readers.items()}
        inputs = {"base": base.output, "train": train.output, **{stage: spec.output for stage, spec in readers.items()}}
        plan.release[key] = plan.add(_table("release", folder, identity, inputs, "json"))


def recipe_identity(recipe: Recipe) -> dict[str, Any]:
    """A recipe's scientific fields.

    Which epochs are kept changes no weight. Under a constant schedule, neither does the number of epochs: epoch k of a
    longer run equals a run of k epochs, so both are the same run. Under any other schedule they are different runs.
    """
    fields = recipe.model_dump(exclude={"keep", "lora"} | ({"epochs"} if recipe.schedule == "constant" else set()))
    return fields | {"lora": recipe.adapter.model_dump() if recipe.adapter else None}


def _score_spec(plan: Plan, folder: str, model: Spec, epochs: list[int], base: Spec | None = None) -> Spec:
    study = plan.study
    identity = {
        "model": model.identity.get("run", model.hash),
        "epochs": epochs,
        "template": study.template.model_dump(),
        "settings": study.evaluation.model_dump(),
        "threads": study.threads,
        "benchmarks": {
            name: {
                "items": spec.hash,
                **study.benchmarks[name].model_dump(include={"shots", "max_tokens", "stop"}),
            }
            for name, spec in plan.benchmarks.items()
        },
    }
    inputs: dict[str, Any] = {
        "model": model.output,
        "base": (base or model).output,
        "benchmarks": {name: spec.output for name, spec in plan.benchmarks.items()},
    }
    return _table("evaluate", folder, identity, inputs)


def collect_spec(plan: Plan, folder: str, present: Callable[[str], bool]) -> Spec:
    """The job that gathers every result of the study into its tables; what is not present is listed as missing."""
    study, matrix = plan.study, plan.matrix

    def found(spec: Spec) -> str | None:
        return spec.output if present(spec.output) else None

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
        }
        for key, run in matrix.runs.items()
    ]
    bases = {
        base: {"scores": found(plan.scores[base]), "perplexity": found(plan.perplexity[base])} for base in plan.bases
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


_TABLE_NAMES = {"evaluate": "scores"}


def _manifest(
    stage: str, place: str, identity: dict[str, Any], inputs: dict[str, Any] | None = None, sources: Iterable[str] = ()
) -> Spec:
    hash8 = spec_hash(stage, STAGE_VERSIONS[stage], identity)
    return Spec(stage, f"{place}-{hash8}/manifest.json", identity, inputs or {}, tuple(sources))


def _table(stage: str, folder: str, identity: dict[str, Any], inputs: dict[str, Any], suffix: str = "parquet") -> Spec:
    hash8 = spec_hash(stage, STAGE_VERSIONS.get(stage, 0), identity)
    return Spec(stage, f"{folder}/{_TABLE_NAMES.get(stage, stage)}-{hash8}.{suffix}", identity, inputs)


def _source_identity(where: str, declared: Base | Dataset | Benchmark) -> dict[str, Any]:
    if declared.micro:
        return {"micro": declared.micro.model_dump()}
    if declared.hub:
        return {"hub": declared.hub.model_dump()}
    return {"content": _fingerprint(f"{where}.path", declared.path or "")}


def _fingerprint(where: str, path: str) -> str:
    try:
        return fingerprint(Path(path))
    except OSError as error:
        raise StudyError(
            f"{where}: {path!r} cannot be read ({error.strerror}); paths start at the working folder, {Path.cwd()}"
        ) from None


def _sources(declared: Base | Dataset | Benchmark) -> tuple[str, ...]:
    if not declared.path:
        return ()
    path = Path(declared.path)
    if path.is_dir():
        return tuple(str(file) for file in sorted(path.iterdir()) if file.is_file())
    return (str(path),)


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
