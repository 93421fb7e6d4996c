"""What releasing weights costs."""

from sft_atlas.cost.estimates import Estimates
from sft_atlas.cost.formulas import Cost, host_memory
from sft_atlas.cost.sizes import throughput
from sft_atlas.nodes import RunKey
from sft_atlas.study.plan import Spec


def cost(estimates: Estimates, spec: Spec) -> Cost:
    """The checkpoints of a run."""
    assert isinstance(spec.key, RunKey)
    return release_cost(estimates.predicted(estimates.plan.job("train", spec.key)), estimates.plan.study.keep_weights)


def release_cost(training: Cost, kept: str) -> Cost:
    """Giving back a run's weights: deleting takes no time; encoding deltas reads and writes them at delta_rate."""
    rate = throughput()["disk"]["delta_rate"]
    encoded = training.weights if kept == "deltas" and training.remains(kept) != training.weights else 0.0
    seconds = throughput()["cpu"]["start_seconds"] + encoded / rate
    return Cost(seconds, mem_mb=host_memory("cpu") + 2000, exact=training.exact)
