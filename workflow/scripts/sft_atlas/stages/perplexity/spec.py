"""Which samples are measured under a base."""

from sft_atlas.spec import JobSpec, Nothing, Part
from sft_atlas.study.measures import Precision


class Identity(Part):
    """Hashes of the base and of tokenised samples, and how they are computed."""

    base: str
    samples: list[str]
    precision: Precision
    threads: int


class Inputs(Part):
    """Manifests; those of tokens by hash."""

    base: str
    tokens: dict[str, str]


class Spec(JobSpec):
    """The specification of a perplexity job."""

    identity: Identity
    inputs: Inputs
    labels: Nothing
