"""What training a tokenizer costs."""

from sft_atlas.cost.estimates import Estimates
from sft_atlas.cost.formulas import Cost, rows_cost
from sft_atlas.cost.sizes import SampleSize, throughput
from sft_atlas.study.plan import Spec


def cost(estimates: Estimates, spec: Spec) -> Cost:
    """The documents that it is trained on."""
    return rows_cost(SampleSize(6000, 6000 * throughput()["assumed"]["micro_document_tokens"], 0, True))
