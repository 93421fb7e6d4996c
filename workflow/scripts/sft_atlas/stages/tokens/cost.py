"""What tokenising costs."""

from sft_atlas.cost.estimates import Estimates
from sft_atlas.cost.formulas import MB, Cost, host_memory
from sft_atlas.cost.sizes import SampleSize, throughput
from sft_atlas.nodes import Tokens
from sft_atlas.study.plan import Spec


def cost(estimates: Estimates, spec: Spec) -> Cost:
    """A sample under one tokenizer."""
    assert isinstance(spec.key, Tokens)
    return tokens_cost(estimates.sample(spec.key.sample, spec))


def tokens_cost(sample: SampleSize) -> Cost:
    """Tokenising a sample: T / tokens_per_second. Ids and labels as lists of Python take about 200 bytes a token."""
    speed = throughput()["host"]["tokens_per_second"]
    seconds = throughput()["cpu"]["start_seconds"] + sample.tokens / speed
    return Cost(
        seconds, mem_mb=host_memory("cpu") + sample.tokens * 200 / MB, disk=4 * sample.tokens, exact=sample.exact
    )
