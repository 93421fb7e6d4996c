"""Stage *collect*: gathers the results of every cell into the study's tables; analysis and report read nothing else."""

from collections.abc import Iterator
from typing import Any

from sft_atlas.nodes import Base, Benchmark, Key, Sample, Tokens
from sft_atlas.stage import Job, Stage, with_cells
from sft_atlas.study.plan import View


def jobs(view: View) -> Iterator[Job]:
    """One job, over the results that are present; what is not is listed as missing."""
    plan = view.plan
    if plan.imported:
        return
    study, matrix = plan.study, plan.matrix
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
            "run": plan.job("train", key).identity["run"],
            "tokens": plan.job("tokens", plan.tokens_of(key)).output,
            **_results(view, key, "run", "model"),
        }
        for key, run in matrix.runs.items()
    ]
    identity: dict[str, Any] = {
        "runs": runs,
        "bases": {base: _results(view, Base(base), "base", "model") for base in plan.bases},
        "tokens": {
            base: {
                sample: view.found(plan.get("tokens", Tokens(base, sample, length)))
                for (owner, sample), length in plan.lengths.items()
                if owner == base
            }
            for base in plan.bases
        },
        "samples": {name: matrix.samples[name].dataset for name in sorted({key.sample for key in matrix.runs})},
        "benchmarks": {plan.job("benchmark", Benchmark(name)).hash: name for name in sorted(study.benchmarks)},
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
    for stage in of("sample"):
        found = {name: view.found(plan.get(stage.name, Sample(name))) for name in identity["samples"]}
        identity[stage.result] = found
    for stage in of("text"):
        samples = {name: plan.get(stage.name, Sample(name)) for name in identity["samples"]}
        benchmarks = {name: plan.get(stage.name, Benchmark(name)) for name in sorted(study.benchmarks)}
        identity[stage.result] = {
            "sample": {name: view.found(spec) for name, spec in samples.items() if spec},
            "benchmark": {name: view.found(spec) for name, spec in benchmarks.items() if spec},
        }
    inputs = {"results": [path for path in plan.collected() if view.present(path)]}
    yield Job(view.key, view.folder, identity, inputs)


def _results(view: View, key: Key, *scopes: str) -> dict[str, str | None]:
    """Results of a base or run that the study asks for, by what they are called; None for one that is absent."""
    asked = [(stage.result, view.plan.get(stage.name, key)) for stage in of(*scopes)]
    return {result: view.found(spec) for result, spec in asked if spec}


def of(*scopes: str) -> list[Stage]:
    """The stages of some scopes that tables are collected from."""
    return [stage for stage in with_cells() if stage.scope in scopes]


STAGE = Stage(
    __name__,
    name="collect",
    scope="study",
    output="{place}/collect.json",
    jobs=jobs,
    gathers=("tables",),
    after=("evaluate", "likelihoods", "perplexity", "weights", "similarity", "contamination", "embedding"),
)
