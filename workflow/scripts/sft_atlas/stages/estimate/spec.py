"""What is estimated: all that the page shows (facts.py), since it is the plan's own."""

from typing import Any

from sft_atlas.spec import JobSpec, Nothing


class Spec(JobSpec):
    """The specification of an estimating job; its identity is what the page shows."""

    identity: dict[str, Any]
    inputs: Nothing
    labels: Nothing
