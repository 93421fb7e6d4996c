"""What preparing a benchmark costs."""

from sft_atlas.cost.estimates import Estimates
from sft_atlas.cost.formulas import Cost, rows_cost
from sft_atlas.cost.sizes import SampleSize
from sft_atlas.nodes import Benchmark
from sft_atlas.study.plan import Spec


def cost(estimates: Estimates, spec: Spec) -> Cost:
    """The items of a benchmark."""
    assert isinstance(spec.key, Benchmark)
    declared, size = estimates.benchmarks[spec.key.benchmark]
    rows = SampleSize(size.items, size.items * size.tokens, 0, size.exact)
    return rows_cost(rows, fetched=declared.hub is not None)
