"""What is audited."""

from typing import Any

from sft_atlas.spec import JobSpec, Nothing, Part


class Identity(Part):
    """What is known about benchmarks beside the tables."""

    labels: dict[str, Any]


class Inputs(Part):
    """The manifest of the tables."""

    collect: str


class Spec(JobSpec):
    """The specification of an auditing job."""

    identity: Identity
    inputs: Inputs
    labels: Nothing
