"""Stage *contamination*: which rows of a sample hold an item of a benchmark."""

from collections.abc import Iterator

from sft_atlas.stage import Job, Stage
from sft_atlas.study.identity import identity_of
from sft_atlas.study.plan import Plan


def jobs(plan: Plan) -> Iterator[Job]:
    """A job for each sample that a run is trained on, against every benchmark."""
    for key, folder, identity, inputs in plan.compared():
        yield Job(key, folder, identity | {"options": identity_of(plan.study.decontamination)}, inputs)


STAGE = Stage(
    __name__,
    name="contamination",
    scope="sample",
    output="{place}/contamination-{hash}.parquet",
    jobs=jobs,
    priority=57,
    version=2,
    after=("sample", "benchmark"),
    absent="-",
)
