"""Specifications of micro base models, datasets and benchmarks (typed, closed to unknown keys)."""

from typing import Annotated, Literal

from pydantic import Field, model_validator

from sft_atlas.fields import Strict

# Not Qwen2: transformers replaces its tokenizer by its own rules when a folder is loaded.
Architecture = Literal["llama", "mistral", "qwen3", "olmo2", "gemma2"]
Domain = Literal["web", "facts", "math", "code", "stories", "logic", "japanese", "chinese"]
Topic = Literal["general", "code", "math", "knowledge", "comprehension", "reasoning", "instructions", "translation"]
BenchmarkTopic = Literal["instructions", "translation", "code", "math", "facts", "facts_choice", "reading", "logic"]
Weight = Annotated[float, Field(gt=0, le=1e6)]


class MicroBase(Strict):
    """A base model that is pre-trained from scratch on a mixture of domains."""

    HASHED = (
        *("architecture", "mixture", "seed", "steps", "batch_size", "learning_rate", "weight_decay", "warmup", "decay"),
        *("vocab_size", "hidden_size", "layers", "heads", "kv_heads", "intermediate_size", "positions"),
    )

    architecture: Architecture = Field("llama", description="Model family, as named by transformers.")
    mixture: dict[Domain, Weight] = Field(
        {"web": 1.0, "facts": 1.0, "stories": 1.0},
        min_length=1,
        description="Relative weight of each domain in the pre-training text.",
    )
    seed: int = Field(0, ge=0, le=2**31 - 1, description="Seed of the initial weights and of the pre-training text.")
    steps: int = Field(1200, gt=0, le=10**7, description="Optimiser steps of pre-training.")
    batch_size: int = Field(16, gt=0, le=65536, description="Documents per step.")
    learning_rate: float = Field(4e-3, gt=0, le=10, description="Peak learning rate of AdamW.")
    weight_decay: float = Field(0.01, ge=0, le=10, description="Weight decay of AdamW.")
    warmup: float = Field(0.02, ge=0, le=1, description="Share of the steps in which the learning rate rises.")
    decay: float = Field(0.4, ge=0, le=1, description="Share of the steps, at the end, in which it falls to zero.")
    vocab_size: int = Field(768, ge=300, le=10**6, description="Tokens in the vocabulary of the shared tokenizer.")
    hidden_size: int = Field(64, gt=0, le=65536, description="Width of the residual stream.")
    layers: int = Field(6, gt=0, le=1000, description="Transformer layers.")
    heads: int = Field(4, gt=0, le=1024, description="Attention heads.")
    kv_heads: int = Field(2, gt=0, le=1024, description="Key/value heads (grouped-query attention).")
    intermediate_size: int = Field(192, gt=0, le=10**6, description="Width of the gated feed-forward layer.")
    positions: int = Field(256, ge=32, description="Longest text in tokens; it changes no weight.")

    @model_validator(mode="after")
    def _divisible(self) -> "MicroBase":
        if self.hidden_size % (2 * self.heads) or self.heads % self.kv_heads:
            raise ValueError(
                f"hidden_size ({self.hidden_size}) must be a multiple of 2 x heads ({self.heads}), "
                f"and heads a multiple of kv_heads ({self.kv_heads})"
            )
        return self


class MicroDataset(Strict):
    """A supervised fine-tuning dataset of generated questions that are not held out."""

    HASHED = ("topic", "rows", "seed")

    topic: Topic = Field("general", description="Kind of the questions.")
    rows: int = Field(1000, gt=0, le=10**7, description="Distinct rows to generate.")
    seed: int = Field(1, ge=0, le=2**31 - 1, description="Seed of the draw.")


class MicroBenchmark(Strict):
    """A benchmark of generated questions that are held out of all datasets and of pre-training questions."""

    HASHED = ("topic", "items", "seed")

    topic: BenchmarkTopic = Field("instructions", description="Kind of the questions.")
    items: int = Field(200, gt=0, le=10**7, description="Distinct items to generate.")
    seed: int = Field(99, ge=0, le=2**31 - 1, description="Seed of the draw.")
