"""Resolves identities, from sources up to runs, and lays out every job of a study as a plan."""

from collections.abc import Iterable
from dataclasses import replace
from pathlib import Path, PurePosixPath
from typing import Any

from pydantic import BaseModel

from sft_atlas.data.text import MAX_CHARACTERS
from sft_atlas.files import read_json
from sft_atlas.study.identity import STAGE_VERSIONS, fingerprint, spec_hash
from sft_atlas.study.load import StudyError
from sft_atlas.study.matrix import ExpandedSample, Matrix, RunKey, select
from sft_atlas.study.model import Base, Benchmark, Dataset, Recipe, Study
from sft_atlas.study.plan import Plan, Spec


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
        _plan_embedding(plan, "sample", sample, plan.samples[sample])
    for benchmark in plan.benchmarks:
        _plan_embedding(plan, "benchmark", benchmark, plan.benchmarks[benchmark])
    for base in sorted({key.base for key in matrix.runs}):
        _plan_base(plan, base, study.bases[base])
    for key in matrix.runs:
        _plan_run(plan, key)
    return plan


def _dataset_spec(name: str, declared: Dataset) -> Spec:
    identity: dict[str, Any] = {
        "source": _source_identity(f"datasets.{name}", declared),
        "format": declared.format,
        "columns": declared.columns,
        "keep": declared.keep,
        "drop": declared.drop,
        "turns": declared.turns,
    }
    if declared.max_characters != MAX_CHARACTERS:
        identity["max_characters"] = declared.max_characters
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
            "size": known_rows(plan.study, sample),
            "seed": declared.seed,
            "template": plan.study.template.model_dump(),
        }
    # in the order of the hashes, so that a mixture does not depend on names
    ordered = sorted(parts, key=lambda part: part.hash)
    spec = _manifest("sample", f"samples/{sample.name}", identity, {"parts": [part.output for part in ordered]})
    # what is to be done where rows are too few changes no row
    return spec if sample.parts else replace(spec, labels={"asked": declared.size, "shortfall": declared.shortfall})


def known_rows(study: Study, sample: ExpandedSample) -> int | None:
    """Rows to draw of each dataset: those asked for, or all where it is known at planning that there are no more.

    Only a micro dataset is known to have its rows: what cleaning leaves of a file is known when it has been read whole,
    and planning does not.

    Raises:
        StudyError: more rows are asked for than are known to be there, and `shortfall: error`.
    """
    asked = sample.declared.size
    known = {name: made.rows for name in sample.datasets if (made := study.datasets[name].micro)}
    short = [name for name, rows in known.items() if asked and rows < asked]
    if short and sample.declared.shortfall == "error":
        raise StudyError(
            f"samples.{sample.name}: {asked} rows of {short[0]} are asked for, it has {known[short[0]]}; lower `size`, "
            "raise `rows` of the dataset, or set `shortfall: take_all`"
        )
    most = max(known.values(), default=0)
    return asked if len(known) < len(sample.datasets) else min(asked or most, most)


def _benchmark_spec(name: str, declared: Benchmark) -> Spec:
    identity: dict[str, Any] = {
        "source": _source_identity(f"benchmarks.{name}", declared),
        "format": declared.format,
        "limit": declared.limit,
        "examples": None,
    }
    if declared.shots_path:
        identity["examples"] = _file_identity(f"benchmarks.{name}.shots_path", declared.shots_path)
    elif declared.shots_hub:
        identity["examples"] = {"hub": declared.shots_hub.model_dump()}
    sources = (*_sources(declared), *([declared.shots_path] if declared.shots_path else []))
    spec = _manifest("benchmark", f"benchmarks/{name}", identity, sources=sources)
    # no part of what is prepared, but the job can tell whether there are as many worked examples, and items
    labels = {"shots": max(declared.shots)} if any(declared.shots) else {}
    if declared.expected_items:
        labels["expected_items"] = declared.expected_items
    return replace(spec, labels=labels)


def _plan_base(plan: Plan, name: str, declared: Base) -> None:
    study = plan.study
    identity: dict[str, Any] = {"source": _source_identity(f"bases.{name}", declared)}
    identity |= {"cast": declared.cast} if declared.cast else {}
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
    if study.likelihoods:
        plan.likelihoods[name] = plan.add(_likelihood_spec(plan, folder, base, [0]))


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
        "options": options.model_dump(include={"ngram", "threshold"}),
    }
    inputs = {"sample": drawn.output, "benchmarks": {name: spec.output for name, spec in plan.benchmarks.items()}}
    return _table(stage, str(PurePosixPath(drawn.output).parent), identity, inputs)


def _plan_embedding(plan: Plan, kind: str, name: str, source: Spec) -> None:
    """Where a sample or benchmark lies in the space of the study's embedding model, if it has one."""
    declared, threads = plan.study.similarity.embedding, plan.study.threads
    if declared is None:
        return
    identity = {
        "kind": kind,
        "source": source.hash,
        "model": _fingerprint("similarity.embedding.path", declared.path),
        **declared.model_dump(exclude={"path"}),
        "template": plan.study.template.model_dump(),
        "threads": threads,
    }
    folder = str(PurePosixPath(source.output).parent)
    spec = _table("embedding", folder, identity, {"source": source.output})
    plan.embeddings[kind, name] = plan.add(replace(spec, sources=_files(declared.path)))


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
    readers = {"scores": plan.scores[key], "weights": plan.weights[key]}
    if study.likelihoods:
        plan.likelihoods[key] = plan.add(_likelihood_spec(plan, folder, train, epochs, base))
        readers["likelihoods"] = plan.likelihoods[key]
    if study.keep_weights != "all":
        identity = {"run": run_id, "epochs": epochs, "keep": study.keep_weights}
        identity |= {stage: spec.hash for stage, spec in readers.items()}
        inputs = {"base": base.output, "train": train.output, **{stage: spec.output for stage, spec in readers.items()}}
        plan.release[key] = plan.add(_table("release", folder, identity, inputs, "json"))


def check_examples(plan: Plan, results: Path) -> None:
    """Refuse what a benchmark or sample that is prepared already does not have, before anything is trained.

    More worked examples, another number of items, more rows than there are (with `shortfall: error`).

    Raises:
        StudyError: names the benchmark or sample and how many there are.
    """
    for name, spec in plan.samples.items():
        _check_rows(plan.name, name, spec, results)
    for name, spec in plan.benchmarks.items():
        asked, manifest = max(plan.study.benchmarks[name].shots), results / spec.output
        expected = plan.study.benchmarks[name].expected_items
        if expected and manifest.is_file() and (found := read_json(manifest).get("in_source", expected)) != expected:
            raise StudyError(
                f"{plan.name}: benchmarks.{name}.expected_items: found {expected}, but the benchmark's source holds "
                f"{found} items; correct `files`, the revision, or the number"
            )
        if asked and manifest.is_file():
            # manifests of earlier versions do not say
            found = read_json(manifest).get("worked_examples", asked)
            if asked > found:
                raise StudyError(
                    f"{plan.name}: benchmarks.{name}.shots: found {asked}, but the benchmark has {found} worked "
                    "examples that fit every item; lower it, or add examples to `shots_path` or `shots_hub`"
                )


def _check_rows(study: str, sample: str, spec: Spec, results: Path) -> None:
    manifest, asked = results / spec.output, spec.labels.get("asked")
    if asked is None or spec.labels["shortfall"] != "error" or not manifest.is_file():
        return
    for dataset, facts in read_json(manifest)["sources"].items():
        if facts["available"] < asked:
            raise StudyError(
                f"{study}: samples.{sample}: {asked} rows of {dataset} are asked for, {facts['available']} are there "
                "after cleaning; lower `size`, or set `shortfall: take_all`"
            )


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


def _likelihood_spec(plan: Plan, folder: str, model: Spec, epochs: list[int], base: Spec | None = None) -> Spec:
    study = plan.study
    assert study.likelihoods is not None
    names = select(study.likelihoods.benchmarks or ["*"], plan.benchmarks, "benchmark", "likelihoods.benchmarks")
    chosen = {plan.benchmarks[name].hash: plan.benchmarks[name].output for name in names}
    options = study.likelihoods.model_dump(exclude={"benchmarks"})
    identity = {
        "model": model.identity.get("run", model.hash),
        "epochs": epochs,
        "benchmarks": sorted(chosen),
        "options": options | {"precision": options["precision"] or study.evaluation.precision},
        "template": study.template.model_dump(),
        "threads": study.threads,
    }
    inputs = {"model": model.output, "base": (base or model).output, "benchmarks": chosen}
    return _table("likelihoods", folder, identity, inputs)


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
    path, where = declared.path or "", f"{where}.path"
    return {"content": _fingerprint(where, path)} if isinstance(declared, Base) else _file_identity(where, path)


def _file_identity(where: str, path: str) -> dict[str, Any]:
    # rows are known as FILE:NUMBER and drawn by that: a renamed file gives other samples, so it is another source
    return {"content": _fingerprint(where, path), "file": Path(path).name}


def _fingerprint(where: str, path: str) -> str:
    try:
        return fingerprint(Path(path))
    except OSError as error:
        # of a folder, the file in it that cannot be read
        file = str(error.filename or path)
        raise StudyError(
            f"{where}: {file!r} cannot be read ({error.strerror}); paths start at the working folder, {Path.cwd()}"
        ) from None


def _sources(declared: Base | Dataset | Benchmark) -> tuple[str, ...]:
    return _files(declared.path) if declared.path else ()


def _files(place: str) -> tuple[str, ...]:
    path = Path(place)
    if path.is_dir():
        return tuple(str(file) for file in sorted(path.iterdir()) if file.is_file())
    return (place,)
