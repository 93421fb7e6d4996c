"""What comparing a sample with the benchmarks costs."""

from sft_atlas.cost.estimates import Estimates
from sft_atlas.cost.formulas import Cost, rows_cost
from sft_atlas.nodes import Sample
from sft_atlas.study.plan import Spec


def cost(estimates: Estimates, spec: Spec) -> Cost:
    """The rows of a sample against every benchmark."""
    assert isinstance(spec.key, Sample)
    return rows_cost(estimates.rows(spec.key.sample), compared=len(estimates.benchmarks))
