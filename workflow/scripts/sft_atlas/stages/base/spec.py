"""What a base is made from."""

from typing import Literal

from sft_atlas.micro.declared import MicroBase
from sft_atlas.spec import JobSpec, Nothing, Part
from sft_atlas.study.model import Hub, Template


class Source(Part):
    """Exactly one of: a pinned repository, the content of a local folder, a micro model."""

    hub: Hub | None = None
    content: str | None = None
    micro: MicroBase | None = None


class Identity(Part):
    """The source, and what its weights are cast to; of a micro base also what it is pre-trained with."""

    source: Source
    tokenizer: str | None = None
    template: Template | None = None
    threads: int = 1
    cast: Literal["bf16"] | None = None


class Inputs(Part):
    """The manifest of a micro base's tokenizer."""

    tokenizer: str | None = None


class Spec(JobSpec):
    """The specification of a base job."""

    identity: Identity
    inputs: Inputs
    labels: Nothing
