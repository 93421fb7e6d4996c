"""Stage *weights*: how far training moved every tensor and every layer of a run's checkpoints."""

from collections.abc import Iterator

from sft_atlas.nodes import Base
from sft_atlas.stage import Job, Stage
from sft_atlas.study.plan import Plan


def jobs(plan: Plan) -> Iterator[Job]:
    """A job for all kept epochs of each run."""
    for key, run in plan.matrix.runs.items():
        train, base = plan.job("train", key), plan.job("base", Base(key.base))
        identity = {"run": train.identity["run"], "base": base.hash, "epochs": list(run.epochs)}
        yield Job(key, train.folder, identity, {"base": base.output, "train": train.output})


STAGE = Stage(
    __name__,
    name="weights",
    scope="run",
    output="{place}/weights-{hash}.parquet",
    jobs=jobs,
    priority=30,
    version=1,
    after=("base", "train"),
    absent="not measured",
    numeric=True,
    reads_weights=True,
    fails=True,
)
