"""What is collected."""

from sft_atlas.analysis.collected import Identity
from sft_atlas.spec import JobSpec, Nothing, Part


class Inputs(Part):
    """Every result that is present."""

    results: list[str]


class Spec(JobSpec):
    """The specification of a collecting job."""

    identity: Identity
    inputs: Inputs
    labels: Nothing
