"""What is reported."""

from typing import Any

from pydantic import Field

from sft_atlas.spec import JobSpec, Part


class Identity(Part):
    """The study's name; which part of it; results of earlier versions of stages that it accepts, by stage."""

    study: str
    part: dict[str, Any] | None = None
    accepted: dict[str, dict[str, int]] = Field(default={})


class Inputs(Part):
    """Manifests of all tables."""

    collect: str
    audit: str
    analyse: str


class Spec(JobSpec):
    """The specification of a reporting job; its labels are what the page says of the study."""

    identity: Identity
    inputs: Inputs
    labels: dict[str, Any]
