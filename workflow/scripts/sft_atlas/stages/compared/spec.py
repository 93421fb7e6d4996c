"""Which sample was compared."""

from sft_atlas.spec import JobSpec, Nothing, Part


class Identity(Part):
    """The hash of the sample."""

    sample: str


class Inputs(Part):
    """The sample's manifest, and the table of rows that hold a benchmark's items, if it was compared with any."""

    sample: str
    contamination: str | None = None


class Spec(JobSpec):
    """The specification of a job that notes a comparison."""

    identity: Identity
    inputs: Inputs
    labels: Nothing
