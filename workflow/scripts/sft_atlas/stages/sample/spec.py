"""What a sample is drawn from."""

from typing import Literal

from pydantic import Field

from sft_atlas.spec import JobSpec, Part
from sft_atlas.study.model import Template


class Identity(Part):
    """Hashes of the samples of a mixture; or of datasets, with the size of the draw from each, its seed, the prompt."""

    mix: list[str] | None = None
    datasets: list[str] = Field(default=[])
    size: int | None = None
    seed: int = 0
    template: Template = Template()


class Inputs(Part):
    """Manifests of what it is drawn from, by hash."""

    parts: list[str]


class Labels(Part):
    """Rows asked for of each dataset, and what to do where there are fewer; of a mixture neither."""

    asked: int | None = None
    shortfall: Literal["error", "take_all"] = "error"


class Spec(JobSpec):
    """The specification of a sample job."""

    identity: Identity
    inputs: Inputs
    labels: Labels
