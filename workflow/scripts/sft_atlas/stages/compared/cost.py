"""What noting a comparison costs."""

from sft_atlas.cost.estimates import Estimates
from sft_atlas.cost.formulas import Cost, table_cost
from sft_atlas.study.plan import Spec


def cost(estimates: Estimates, spec: Spec) -> Cost:
    """Next to nothing."""
    return Cost(table_cost(0).seconds)
