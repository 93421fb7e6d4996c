"""What measuring weights costs."""

from sft_atlas.cost.estimates import Estimates
from sft_atlas.cost.formulas import OF_A_JOB, Cost, host_memory, read_seconds
from sft_atlas.cost.sizes import ModelSize, throughput
from sft_atlas.nodes import RunKey
from sft_atlas.study.plan import Spec


def cost(estimates: Estimates, spec: Spec) -> Cost:
    """The checkpoints of a run beside their base."""
    assert isinstance(spec.key, RunKey)
    checkpoints = len(spec.identity["epochs"])
    saved = estimates.predicted(estimates.plan.job("train", spec.key)).weights / checkpoints
    return weights_cost(estimates.model(spec.key.base), checkpoints, saved)


def weights_cost(model: ModelSize, checkpoints: int, saved: float) -> Cost:
    """Base and each checkpoint read once, from disk: the arithmetic keeps up with it (two files at 2.4 GB/s a core)."""
    seconds = throughput()["cpu"]["start_seconds"] + checkpoints * read_seconds(2 * model.parameters + saved)
    return Cost(
        seconds,
        mem_mb=host_memory("cpu") + 1000,
        disk=checkpoints * 5e4,
        exact=model.exact,
        files=OF_A_JOB + 2 * checkpoints,
    )
