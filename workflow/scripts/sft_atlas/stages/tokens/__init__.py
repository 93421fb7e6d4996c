"""Stage *tokenise*: token ids and labels of a sample, once per tokenizer and length, and an audit of the labels."""

from collections.abc import Iterator
from pathlib import PurePosixPath
from typing import Any

from sft_atlas.nodes import Base, Benchmark, Sample, Tokenizer, Tokens
from sft_atlas.stage import Job, Stage
from sft_atlas.study.plan import Plan, Spec


def jobs(plan: Plan) -> Iterator[Job]:
    """A job for each sample and base, at the longest length that any recipe uses and at those of the runs."""
    measured = [Tokens(*pair, length) for pair, length in plan.lengths.items()]
    for key in dict.fromkeys([*measured, *map(plan.tokens_of, plan.matrix.runs)]):
        tokenizer, drawn = tokenizer_of(plan, key.base), plan.job("sample", Sample(key.sample))
        identity: dict[str, Any] = {"tokenizer": tokenizer.hash, "sample": drawn.hash, "max_length": key.length}
        inputs = {"tokenizer": tokenizer.output, "sample": drawn.output}
        if plan.study.decontamination.action == "drop":
            found = plan.job("contamination", Sample(key.sample))
            benchmarks = [plan.job("benchmark", Benchmark(name)).hash for name in plan.study.benchmarks]
            # not the hash of that job, which holds the benchmarks' names
            identity["without"] = found.identity | {"benchmarks": sorted(benchmarks)}
            inputs["contamination"] = found.output
        owner = PurePosixPath(tokenizer.folder).name
        yield Job(key, f"tokens/{owner}/{key.sample}", identity, inputs)


def tokenizer_of(plan: Plan, base: str) -> Spec:
    """The job that makes a base's tokenizer: its own, or the one that micro bases share."""
    micro = plan.study.bases[base].micro
    return plan.job("tokenizer", Tokenizer(micro.vocab_size)) if micro else plan.job("base", Base(base))


STAGE = Stage(
    __name__,
    name="tokens",
    scope="tokens",
    output="{place}-{hash}/manifest.json",
    jobs=jobs,
    priority=56,
    version=2,
    after=("sample", "base", "contamination"),
    target="tokenise",
    absent="-",
    numeric=True,
    folders=("tokens",),
)
