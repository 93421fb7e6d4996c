"""What is tokenised."""

from typing import Any

from sft_atlas.spec import JobSpec, Nothing, Part


class Identity(Part):
    """Hashes of tokenizer and sample, the longest row in tokens, and what rows are left out for."""

    tokenizer: str
    sample: str
    max_length: int
    without: dict[str, Any] | None = None


class Inputs(Part):
    """Manifests, and the table of rows that hold a benchmark's items where they are dropped."""

    tokenizer: str
    sample: str
    contamination: str | None = None


class Spec(JobSpec):
    """The specification of a tokenising job."""

    identity: Identity
    inputs: Inputs
    labels: Nothing
