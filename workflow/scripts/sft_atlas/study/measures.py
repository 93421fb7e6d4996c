"""The typed model of what a study measures beside training: benchmarks, texts and their likeness."""

from typing import Literal

from pydantic import Field

from sft_atlas.fields import ModelFolder, Seed, Selector, Strict

Precision = Literal["fp32", "bf16"]


class Evaluation(Strict):
    """How every benchmark is run."""

    HASHED = ("batch_size", "max_length", "precision")

    batch_size: int = Field(default=32, ge=1, description="Sequences in one forward pass; it moves last digits.")
    max_length: int = Field(
        default=2048,
        ge=8,
        description="Tokens of context and continuation; longer is cut left, as is what a base has no positions for.",
    )
    precision: Precision = Field(default="fp32", description="Weights of the model under evaluation.")


class Embedding(Strict):
    """A local model that turns texts into vectors."""

    HASHED = ("rows", "max_length")
    LABELS = ("path",)

    path: ModelFolder = Field(description="Folder with config, tokenizer and safetensors, as transformers loads them.")
    rows: int = Field(
        default=1000, ge=1, le=10**7, description="Rows drawn of each sample and benchmark; their mean is compared."
    )
    max_length: int = Field(default=256, ge=8, description="Tokens of a text; longer ones are cut.")


class Similarity(Strict):
    """Likeness of a sample's text and a benchmark's: by shared wording, and by meaning if there is a model for it."""

    HASHED = ("ngram",)
    LABELS = ("embedding",)

    ngram: int = Field(default=3, ge=1, le=20, description="Words in an n-gram (characters in scripts without spaces).")
    embedding: Embedding | None = Field(
        default=None, description="Model behind the similarity of meaning; none: that of wording only."
    )


class Likelihoods(Strict):
    """Log-likelihoods and representations of fixed texts, questions of the benchmarks, under every model."""

    HASHED = ("texts", "seed", "max_length", "precision", "representation", "neighbour")
    LABELS = ("benchmarks",)

    texts: int = Field(
        default=150, ge=1, le=10**6, description="Questions drawn of each benchmark; all of a smaller one."
    )
    benchmarks: Selector | None = Field(default=None, description="Names or patterns; none: every benchmark.")
    seed: Seed = Field(default=0, description="Seed of the draw.")
    max_length: int = Field(default=2048, ge=8, description="Tokens of a text; longer ones are cut.")
    precision: Precision | None = Field(
        default=None, description="Weights of the model while measuring; none: as in evaluation."
    )
    representation: Literal["last", "mean"] = Field(
        default="last", description="A text in a layer: the state of its last token, or the mean over its tokens."
    )
    neighbour: int = Field(
        default=2,
        ge=1,
        le=1000,
        description="Intrinsic dimension rests on distances to neighbours k and 2 k; this is k.",
    )


class Decontamination(Strict):
    """What happens to training rows that hold a benchmark's items."""

    HASHED = ("ngram", "threshold")
    LABELS = ("action",)

    ngram: int = Field(default=8, ge=1, le=50, description="Words in an n-gram.")
    threshold: float = Field(
        default=0.7, gt=0, le=1, description="A row holds an item if it has at least this share of the item's n-grams."
    )
    action: Literal["report", "drop"] = Field(
        default="report",
        description="List such rows, or leave them out of training; with `drop`, a new benchmark makes new samples.",
    )
