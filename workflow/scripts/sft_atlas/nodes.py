"""Whose job a job is: the keys of a plan. Those that are models are nodes: a base, or a run at an epoch."""

from dataclasses import dataclass


@dataclass(frozen=True, order=True)
class Dataset:
    """A source of examples."""

    dataset: str


@dataclass(frozen=True, order=True)
class Sample:
    """A fixed subset of datasets, or a mixture."""

    sample: str


@dataclass(frozen=True, order=True)
class Benchmark:
    """A benchmark, prepared."""

    benchmark: str


@dataclass(frozen=True, order=True)
class Tokenizer:
    """The tokenizer that micro bases of one vocabulary share."""

    vocabulary: int


@dataclass(frozen=True, order=True)
class Tokens:
    """A sample as a base's tokenizer reads it, cut at a length in tokens."""

    base: str
    sample: str
    length: int


@dataclass(frozen=True, order=True)
class Base:
    """A pre-trained model."""

    base: str


@dataclass(frozen=True, order=True)
class RunKey:
    """One training job, by names."""

    base: str
    sample: str
    recipe: str
    seed: int


@dataclass(frozen=True, order=True)
class Epoch:
    """A fine-tuned model: a run at the end of an epoch."""

    run: RunKey
    n: int


@dataclass(frozen=True, order=True)
class Whole:
    """The study itself, or the part of it that is there."""

    study: str


Node = Base | Epoch
Key = Dataset | Sample | Benchmark | Tokenizer | Tokens | Base | RunKey | Whole


def names(key: Key) -> dict[str, str]:
    """What a key is called, by what it is: `{"base": …, "sample": …, "recipe": …, "seed": …}`."""
    return {name: str(value) for name, value in vars(key).items()}
