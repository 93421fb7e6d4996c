"""Stage *perplexity*: how surprising every sample is to its base, before any training."""

from collections.abc import Iterator

from sft_atlas.nodes import Base, Tokens
from sft_atlas.stage import Job, Stage
from sft_atlas.study.plan import Plan


def jobs(plan: Plan) -> Iterator[Job]:
    """A job for each base, over every sample that it is trained on."""
    for name in plan.bases:
        base = plan.job("base", Base(name))
        lengths = {pair: length for pair, length in plan.lengths.items() if pair[0] == name}
        tokens = [plan.job("tokens", Tokens(*pair, length)) for pair, length in lengths.items()]
        identity = {
            "base": base.hash,
            "samples": sorted(spec.hash for spec in tokens),
            "precision": plan.study.evaluation.precision,
            "threads": plan.study.threads,
        }
        inputs = {"base": base.output, "tokens": {spec.hash: spec.output for spec in tokens}}
        yield Job(Base(name), base.folder, identity, inputs)


STAGE = Stage(
    __name__,
    name="perplexity",
    scope="base",
    output="{place}/perplexity-{hash}.parquet",
    jobs=jobs,
    priority=54,
    version=1,
    after=("base", "tokens"),
    absent="-",
    numeric=True,
)
