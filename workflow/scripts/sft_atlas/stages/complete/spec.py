"""What has to be complete."""

from sft_atlas.spec import JobSpec, Nothing, Part


class Inputs(Part):
    """The manifest of the tables."""

    collect: str


class Spec(JobSpec):
    """The specification of a checking job."""

    identity: Nothing
    inputs: Inputs
    labels: Nothing
