"""Which benchmarks a model is evaluated on."""

from typing import Literal

from sft_atlas.spec import JobSpec, Nothing, Part
from sft_atlas.study.measures import Evaluation
from sft_atlas.study.model import Template


class Asked(Part):
    """A benchmark by the hash of its items, and how it is asked."""

    items: str
    shots: list[int]
    max_tokens: int
    stop: list[str]
    own_example: Literal["exclude", "keep"] = "exclude"


class Identity(Part):
    """The model by its base's hash or its run's ID, its epochs, and how every benchmark is run."""

    model: str
    epochs: list[int]
    template: Template
    settings: Evaluation
    threads: int
    benchmarks: dict[str, Asked]


class Inputs(Part):
    """Manifests: of the model, its base and the benchmarks; and of a run whose weights are restored first, of that."""

    model: str
    base: str
    benchmarks: dict[str, str]
    restored: str | None = None


class Spec(JobSpec):
    """The specification of an evaluating job."""

    identity: Identity
    inputs: Inputs
    labels: Nothing
