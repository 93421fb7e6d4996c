"""What a base costs."""

from sft_atlas.cost.estimates import Estimates
from sft_atlas.cost.formulas import MB, OF_A_JOB, Cost, host_memory, model_files, rate_of
from sft_atlas.cost.sizes import ModelSize, throughput
from sft_atlas.nodes import Base
from sft_atlas.study.plan import Spec


def cost(estimates: Estimates, spec: Spec) -> Cost:
    """A base of the plan: fetched, linked or pre-trained."""
    assert isinstance(spec.key, Base)
    declared, model = estimates.plan.study.bases[spec.key.base], estimates.model(spec.key.base)
    if declared.micro:
        tokens = declared.micro.steps * declared.micro.batch_size * throughput()["assumed"]["micro_document_tokens"]
        return base_cost(model, tokens, declared.micro.steps, fetched=False)
    return base_cost(model, 0, 0, fetched=declared.hub is not None)


def base_cost(model: ModelSize, pretraining_tokens: float, steps: int, fetched: bool) -> Cost:
    """A base: 2 N bytes over the network, kept in bf16; or 6 N per token of pre-training from scratch, kept in fp32.

    Memory: all weights at once, as converting an old format takes; or weights, gradients and moments.
    """
    speed, disk = throughput()["cpu"], throughput()["disk"]
    width = 4 if pretraining_tokens else 2
    seconds = speed["start_seconds"] + width * model.parameters * (
        1 / disk["download"] if fetched else 1 / disk["write"]
    )
    seconds += steps * speed["step_seconds"] + pretraining_tokens * 6 * model.parameters / rate_of("cpu", "train_share")
    memory = host_memory("cpu") + (20 if pretraining_tokens else 2) * model.parameters / MB
    return Cost(
        seconds,
        mem_mb=memory,
        disk=width * model.parameters,
        exact=model.exact,
        files=OF_A_JOB + model_files(width * model.parameters),
    )
