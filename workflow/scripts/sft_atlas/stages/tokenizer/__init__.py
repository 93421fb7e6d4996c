"""Stage *bases*, beside it: the tokenizer that micro bases of one vocabulary share, trained on the micro world."""

from collections.abc import Iterator

from sft_atlas.nodes import Tokenizer
from sft_atlas.stage import Job, Stage
from sft_atlas.study.plan import Plan


def jobs(plan: Plan) -> Iterator[Job]:
    """A job for each size of vocabulary."""
    bases = [plan.study.bases[base] for base in plan.bases]
    for size in sorted({base.micro.vocab_size for base in bases if base.micro}):
        yield Job(Tokenizer(size), f"tokenizers/micro{size}", {"vocab_size": size, "template": plan.template})


STAGE = Stage(
    __name__,
    name="tokenizer",
    scope="tokenizer",
    output="{place}-{hash}/manifest.json",
    jobs=jobs,
    priority=60,
    version=1,
    target="bases",
    prepares=True,
    folders=("tokenizers",),
)
