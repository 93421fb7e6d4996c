"""Stage *benchmark*: every benchmark on every kept epoch of a model, in one process, with lm-eval."""

from collections.abc import Iterator

from sft_atlas.nodes import Benchmark
from sft_atlas.stage import Job, Stage
from sft_atlas.study.identity import identity_of
from sft_atlas.study.plan import Plan


def jobs(plan: Plan) -> Iterator[Job]:
    """A job for each base, and one for all kept epochs of each run."""
    study = plan.study
    prepared = {name: plan.job("benchmark", Benchmark(name)) for name in sorted(study.benchmarks)}
    settings = {
        "template": plan.template,
        "settings": identity_of(study.evaluation),
        "threads": study.threads,
        "benchmarks": {
            name: {"items": spec.hash, **identity_of(study.benchmarks[name])} for name, spec in prepared.items()
        },
    }
    items = {name: spec.output for name, spec in prepared.items()}
    for key, epochs, model, base in plan.models():
        identity = {"model": model.identity.get("run", model.hash), "epochs": epochs, **settings}
        inputs = {"model": model.output, "base": base.output, "benchmarks": items}
        yield Job(key, model.folder, identity, inputs)


STAGE = Stage(
    __name__,
    name="evaluate",
    scope="model",
    output="{place}/scores-{hash}.parquet",
    jobs=jobs,
    priority=20,
    version=2,
    after=("benchmark", "base", "train"),
    known_as="scores",
    absent="not evaluated",
    numeric=True,
    reads_weights=True,
    fails=True,
)
