"""What comparing a sample with the benchmarks costs."""

from dataclasses import replace

from sft_atlas.cost.estimates import Estimates
from sft_atlas.cost.formulas import OF_A_JOB, Cost, rows_cost
from sft_atlas.nodes import Sample
from sft_atlas.study.plan import Spec


def cost(estimates: Estimates, spec: Spec) -> Cost:
    """The rows of a sample against every benchmark."""
    assert isinstance(spec.key, Sample)
    compared = rows_cost(estimates.rows(spec.key.sample), compared=len(estimates.benchmarks))
    return replace(compared, files=OF_A_JOB)
