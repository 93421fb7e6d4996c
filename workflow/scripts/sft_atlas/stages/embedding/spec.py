"""Which texts are embedded."""

from typing import Literal

from sft_atlas.spec import JobSpec, Nothing, Part
from sft_atlas.study.model import Template


class Identity(Part):
    """The source and the model by their hashes, how many rows are drawn, and tokens of a text."""

    kind: Literal["sample", "benchmark"]
    source: str
    model: str
    rows: int
    max_length: int
    template: Template
    threads: int


class Inputs(Part):
    """The manifest of the sample or benchmark."""

    source: str


class Spec(JobSpec):
    """The specification of an embedding job; its sources are the files of the model."""

    identity: Identity
    inputs: Inputs
    labels: Nothing
