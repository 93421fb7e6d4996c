"""Stage *compared*: nothing is trained on a sample before it was compared with every benchmark.

Its output has no hash in its path, and training looks at whether it is there, not at when it was made: a new benchmark
is compared, and no run is made again for that.
"""

from collections.abc import Iterator

from sft_atlas.nodes import Sample
from sft_atlas.stage import Job, Stage
from sft_atlas.study.plan import Plan


def jobs(plan: Plan) -> Iterator[Job]:
    """A job for each sample that a run is trained on, also where there is nothing to compare it with.

    So what training asks for is the same with and without benchmarks: the first one retrains nothing.
    """
    for name in sorted({key.sample for key in plan.matrix.runs}):
        found, drawn = plan.get("contamination", Sample(name)), plan.job("sample", Sample(name))
        inputs = {"sample": drawn.output, **({"contamination": found.output} if found else {})}
        yield Job(Sample(name), drawn.folder, {"sample": drawn.hash}, inputs)


STAGE = Stage(
    __name__,
    name="compared",
    scope="sample",
    output="{place}/compared.json",
    jobs=jobs,
    priority=56,
    after=("sample", "contamination"),
    target="contamination",
)
