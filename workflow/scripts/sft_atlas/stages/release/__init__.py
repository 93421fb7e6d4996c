"""Stage *release*: gives back the disk that measured checkpoints take, as the study says."""

from collections.abc import Iterator
from typing import Any

from sft_atlas.nodes import Base
from sft_atlas.stage import Job, Stage, stages
from sft_atlas.study.plan import Plan


def jobs(plan: Plan) -> Iterator[Job]:
    """A job for each run, after all that reads its weights, unless the study keeps them all."""
    keep = plan.study.keep_weights
    if keep == "all":
        return
    readers = [stage for stage in stages().values() if stage.reads_weights]
    for key, run in plan.matrix.runs.items():
        train, base = plan.job("train", key), plan.job("base", Base(key.base))
        read = {stage.result: spec for stage in readers if (spec := plan.get(stage.name, key))}
        identity: dict[str, Any] = {"run": train.identity["run"], "epochs": list(run.epochs), "keep": keep}
        identity |= {name: spec.hash for name, spec in read.items()}
        inputs = {"base": base.output, "train": train.output, **{name: spec.output for name, spec in read.items()}}
        yield Job(key, train.folder, identity, inputs)


STAGE = Stage(
    __name__,
    name="release",
    scope="run",
    output="{place}/release-{hash}.json",
    jobs=jobs,
    priority=50,
    after=("base", "train"),
    after_readers=True,
)
