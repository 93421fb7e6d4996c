"""What is analysed."""

from typing import Any

from sft_atlas.spec import JobSpec, Nothing, Part
from sft_atlas.study.analyses import AnalysisOptions


class Identity(Part):
    """Options of the analyses, and what is known beside the tables (`Plan.labels`)."""

    options: AnalysisOptions
    labels: dict[str, Any]


class Inputs(Part):
    """Manifests of the tables, and of their audit."""

    collect: str
    audit: str


class Spec(JobSpec):
    """The specification of an analysing job."""

    identity: Identity
    inputs: Inputs
    labels: Nothing
