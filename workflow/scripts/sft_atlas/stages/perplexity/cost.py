"""What measuring perplexity costs."""

from collections.abc import Iterable

from sft_atlas.cost.estimates import Estimates
from sft_atlas.cost.formulas import BYTES, OF_A_JOB, Cost, Device, placed, rate_of, read_seconds
from sft_atlas.cost.sizes import ModelSize, SampleSize, throughput
from sft_atlas.nodes import Base, Tokens
from sft_atlas.study.plan import Spec


def cost(estimates: Estimates, spec: Spec) -> Cost:
    """Every sample of a base."""
    assert isinstance(spec.key, Base)
    plan, model = estimates.plan, estimates.model(spec.key.base)
    read = [Tokens(*pair, length) for pair, length in plan.lengths.items() if pair[0] == spec.key.base]
    sizes = [estimates.sample(key.sample, found) for key in read if (found := plan.get("tokens", key))]
    return perplexity_cost(model, sizes, plan.study.evaluation.precision, estimates.on(model))


def perplexity_cost(model: ModelSize, samples: Iterable[SampleSize], precision: str, on: Device) -> Cost:
    """One forward pass over every sample: start + read + T · 2 N / C. Memory: weights, and logits of 4,096 tokens."""
    counted = list(samples)
    tokens = sum(sample.tokens for sample in counted)
    seconds = throughput()[on]["start_seconds"] + read_seconds(2 * model.parameters)
    seconds += tokens * 2 * model.parameters / rate_of(on, "forward_share")
    weights = model.parameters * BYTES[precision]
    # logits in fp32 and their logarithm over a vocabulary that is taken as 40 h, as in 7B models
    logits = 4096 * min(40 * model.hidden, 150_000) * 8
    exact = model.exact and all(sample.exact for sample in counted)
    return placed(
        on,
        seconds,
        weights + logits,
        loading=weights,
        disk=24 * sum(sample.rows for sample in counted),
        exact=exact,
        files=OF_A_JOB + 2 * len(counted),
    )
