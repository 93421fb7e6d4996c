"""Which scores are imported."""

from typing import Any, Literal

from sft_atlas.spec import JobSpec, Nothing, Part


class Source(Part):
    """A file or an address, its format, and the hash that the content must have."""

    sha256: str | None
    url: str | None
    path: str | None
    format: Literal["long", "released"]


class Identity(Part):
    """The table, what is known about its benchmarks, the cells it should hold, and names that it has to have."""

    source: Source
    labels: dict[str, Any]
    declared: list[dict[str, Any]]
    named: dict[str, dict[str, str]]


class Spec(JobSpec):
    """The specification of an importing job."""

    identity: Identity
    inputs: Nothing
    labels: Nothing
