"""Which texts are measured under a model."""

from typing import Literal

from sft_atlas.spec import JobSpec, Nothing, Part
from sft_atlas.study.measures import Precision
from sft_atlas.study.model import Template


class Options(Part):
    """How many texts of each benchmark, and how they are read; see `study.measures.Likelihoods`."""

    texts: int
    seed: int
    max_length: int
    precision: Precision
    representation: Literal["last", "mean"]
    neighbour: int


class Identity(Part):
    """The model by its base's hash or its run's ID, its epochs, the benchmarks by hash, and how they are read."""

    model: str
    epochs: list[int]
    benchmarks: list[str]
    options: Options
    template: Template
    threads: int


class Inputs(Part):
    """Manifests: of the model, its base and, by hash, the benchmarks; and of restored weights, where they were gone."""

    model: str
    base: str
    benchmarks: dict[str, str]
    restored: str | None = None


class Spec(JobSpec):
    """The specification of a job that measures likelihoods."""

    identity: Identity
    inputs: Inputs
    labels: Nothing
