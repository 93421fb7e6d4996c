"""What a dataset is prepared from."""

from typing import Any, Literal

from sft_atlas.fields import MAX_CHARACTERS
from sft_atlas.micro.declared import MicroDataset
from sft_atlas.spec import JobSpec, Nothing, Part
from sft_atlas.study.model import Hub


class Source(Part):
    """Exactly one of: a pinned repository, the content and name of a local file, the micro world."""

    hub: Hub | None = None
    content: str | None = None
    file: str | None = None
    micro: MicroDataset | None = None


class Identity(Part):
    """The source and how its rows are read."""

    source: Source
    format: str
    columns: dict[str, str]
    keep: dict[str, list[Any]]
    drop: dict[str, list[Any]]
    turns: Literal["first", "single"]
    max_characters: int = MAX_CHARACTERS


class Spec(JobSpec):
    """The specification of a dataset job."""

    identity: Identity
    inputs: Nothing
    labels: Nothing
