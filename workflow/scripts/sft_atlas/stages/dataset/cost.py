"""What preparing a dataset costs."""

from sft_atlas.cost.estimates import Estimates
from sft_atlas.cost.formulas import Cost, rows_cost
from sft_atlas.cost.sizes import SampleSize, throughput
from sft_atlas.nodes import Dataset
from sft_atlas.study.plan import Spec


def cost(estimates: Estimates, spec: Spec) -> Cost:
    """The rows of a dataset; its disk is counted once it is there."""
    assert isinstance(spec.key, Dataset)
    assumed, declared = throughput()["assumed"], estimates.plan.study.datasets[spec.key.dataset]
    rows = assumed["dataset_rows"]
    guess = SampleSize(rows, rows * (declared.expected_tokens or assumed["tokens_per_row"]), 0, False)
    size = estimates.known.get(spec.key.dataset) or guess
    return estimates.as_written(spec, rows_cost(size, fetched=declared.hub is not None))
