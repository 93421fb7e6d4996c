"""What drawing a sample costs."""

from sft_atlas.cost.estimates import Estimates
from sft_atlas.cost.formulas import Cost, rows_cost
from sft_atlas.nodes import Sample
from sft_atlas.study.plan import Spec


def cost(estimates: Estimates, spec: Spec) -> Cost:
    """The rows of a sample; its disk is counted once it is there."""
    assert isinstance(spec.key, Sample)
    return estimates.as_written(spec, rows_cost(estimates.rows(spec.key.sample)))
