"""What a benchmark is prepared from."""

from typing import Literal

from sft_atlas.micro.declared import MicroBenchmark
from sft_atlas.spec import JobSpec, Nothing, Part
from sft_atlas.study.model import BenchmarkFormat, Hub


class Source(Part):
    """Exactly one of: a pinned repository, the content and name of a local file, the micro world."""

    hub: Hub | None = None
    content: str | None = None
    file: str | None = None
    micro: MicroBenchmark | None = None


class Identity(Part):
    """The source of the items and of the examples, and how they are read."""

    source: Source
    format: BenchmarkFormat
    limit: int | None
    examples: Source | None


class Labels(Part):
    """The most worked examples that the study asks for, whether an item may be one of its own, and how many items."""

    shots: int = 0
    own_example: Literal["exclude", "keep"] = "exclude"
    expected_items: int | None = None


class Spec(JobSpec):
    """The specification of a benchmark job."""

    identity: Identity
    inputs: Nothing
    labels: Labels
