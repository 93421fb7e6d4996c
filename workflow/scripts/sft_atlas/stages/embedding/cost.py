"""What embedding texts costs."""

from pathlib import Path

from sft_atlas.cost.estimates import Estimates
from sft_atlas.cost.formulas import MB, Cost, host_memory, rate_of
from sft_atlas.cost.sizes import ModelSize, embedder_size, throughput
from sft_atlas.nodes import Benchmark, Sample
from sft_atlas.study.plan import Spec


def cost(estimates: Estimates, spec: Spec) -> Cost:
    """The drawn rows of a sample or of a benchmark."""
    key = spec.key
    assert isinstance(key, Sample | Benchmark)
    rows = estimates.rows(key.sample).rows if isinstance(key, Sample) else estimates.benchmarks[key.benchmark][1].items
    model = embedder_size(Path(spec.sources[0]).parent)
    return embedding_cost(model, min(rows, spec.identity["rows"]), spec.identity["max_length"])


def embedding_cost(model: ModelSize, rows: float, longest: int) -> Cost:
    """The mean embedding of some rows, on the CPU: start + rows · tokens · 2 N / C, rows taken as half the longest."""
    seconds = rows * longest / 2 * 2 * model.parameters / rate_of("cpu", "forward_share")
    memory = host_memory("cpu") + (4 * model.parameters + 64 * longest * model.hidden * 4 * model.layers) / MB
    return Cost(throughput()["cpu"]["start_seconds"] + seconds, mem_mb=memory, disk=16 * model.hidden)
