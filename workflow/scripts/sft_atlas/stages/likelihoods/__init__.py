"""Stage *likelihoods*: how likely every model of the study finds the same texts, and how it represents them."""

from collections.abc import Iterator

from sft_atlas.nodes import Benchmark
from sft_atlas.stage import Job, Stage
from sft_atlas.study.identity import identity_of
from sft_atlas.study.patterns import select
from sft_atlas.study.plan import Plan


def jobs(plan: Plan) -> Iterator[Job]:
    """A job for each base, and one for all kept epochs of each run, if the study asks for them."""
    declared, benchmarks = plan.study.likelihoods, sorted(plan.study.benchmarks)
    if declared is None:
        return
    names = select(declared.benchmarks or ["*"], benchmarks, "benchmark", "likelihoods.benchmarks")
    prepared = [plan.job("benchmark", Benchmark(name)) for name in names]
    chosen = {spec.hash: spec.output for spec in prepared}
    options = identity_of(declared) | {"precision": declared.precision or plan.study.evaluation.precision}
    settings = {"options": options, "template": plan.template, "threads": plan.study.threads}
    for key, epochs, model, base in plan.models():
        made = {"model": model.identity.get("run", model.hash), "epochs": epochs, "benchmarks": sorted(chosen)}
        inputs = {"model": model.output, "base": base.output, "benchmarks": chosen}
        yield Job(key, model.folder, made | settings, inputs)


STAGE = Stage(
    __name__,
    name="likelihoods",
    scope="model",
    output="{place}/likelihoods-{hash}.parquet",
    jobs=jobs,
    priority=20,
    version=2,
    after=("benchmark", "base", "train"),
    absent="likelihoods not measured",
    numeric=True,
    reads_weights=True,
    fails=True,
)
