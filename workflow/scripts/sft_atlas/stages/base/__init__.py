"""Stage *bases*: every pre-trained model becomes a folder `model/` with safetensors, config and tokenizer."""

from collections.abc import Iterator
from typing import Any

from sft_atlas.nodes import Base, Tokenizer
from sft_atlas.stage import Job, Stage
from sft_atlas.study.plan import Plan
from sft_atlas.study.source_identities import files_of, source_identity


def jobs(plan: Plan) -> Iterator[Job]:
    """A job for each base that a run starts from."""
    for name in plan.bases:
        declared = plan.study.bases[name]
        identity: dict[str, Any] = {"source": source_identity(f"bases.{name}", declared)}
        identity |= {"cast": declared.cast} if declared.cast else {}
        inputs: dict[str, Any] = {}
        if declared.micro:
            tokenizer = plan.job("tokenizer", Tokenizer(declared.micro.vocab_size))
            identity |= {"tokenizer": tokenizer.hash, "template": plan.template, "threads": plan.study.threads}
            inputs["tokenizer"] = tokenizer.output
        yield Job(Base(name), f"bases/{name}", identity, inputs, files_of(declared.path))


STAGE = Stage(
    __name__,
    name="base",
    scope="base",
    output="{place}-{hash}/manifest.json",
    jobs=jobs,
    priority=58,
    version=2,
    after=("tokenizer",),
    target="bases",
    numeric=True,
    imports=("sft_atlas.micro.pretrain",),
    folders=("bases",),
)
