"""What restoring weights costs."""

from dataclasses import replace

from sft_atlas.cost.estimates import Estimates
from sft_atlas.cost.formulas import Cost, host_memory
from sft_atlas.cost.sizes import throughput
from sft_atlas.nodes import RunKey
from sft_atlas.study.plan import Spec


def cost(estimates: Estimates, spec: Spec) -> Cost:
    """The training of the run once more; or, from deltas, reading and writing its checkpoints at delta_rate."""
    assert isinstance(spec.key, RunKey)
    training = estimates.predicted(estimates.plan.job("train", spec.key))
    if estimates.plan.study.keep_weights == "deltas":
        rate, start = throughput()["disk"]["delta_rate"], throughput()["cpu"]["start_seconds"]
        return Cost(start + training.weights / rate, mem_mb=host_memory("cpu") + 2000, exact=training.exact)
    return replace(training, disk=training.disk, weights=0.0, merged=0.0)
