"""What a study may choose about its statistics."""

from typing import Literal

from pydantic import BaseModel, ConfigDict, Field

from sft_atlas.fields import Selector


class AnalysisOptions(BaseModel):
    """Draws, confidence and seed of every interval and every test; the same options give the same bytes."""

    model_config = ConfigDict(frozen=True, extra="forbid", strict=True)

    bootstrap_draws: int = Field(2000, ge=100, le=10**7, description="draws behind each bootstrap interval")
    permutations: int = Field(
        2000, ge=100, le=10**7, description="draws behind each permutation p; the least p is 1/(1+draws)"
    )
    confidence: float = Field(0.95, gt=0.5, lt=1, description="probability with which intervals should cover the truth")
    seed: int = Field(0, ge=0, le=2**31 - 1, description="seed of all random draws")


class Selection(BaseModel):
    """How the candidates of a hyper-parameter search, every recipe at every kept epoch, are ranked (table `selection`).

    The best of many noisy candidates is flattered by being chosen: its gain is no estimate of what it gains elsewhere.
    """

    model_config = ConfigDict(frozen=True, extra="forbid", strict=True)

    benchmarks: Selector = Field(description="Benchmarks (names or patterns) that judge.")
    statistic: Literal["mean_gain", "worst_gain", "mean_rank"] = Field(
        "mean_gain",
        description="What ranks: the mean gain over these benchmarks, the least of their gains, or the mean of the "
        "ranks that they give (which needs no common scale).",
    )
    by: list[Literal["base", "sample", "method"]] = Field(
        ["base", "method"],
        description="One choice for each of these; over bases and samples not named, gains are averaged.",
    )
    ties: float = Field(
        0.0,
        ge=0,
        le=10,
        description="Candidates within so many standard errors of the best one's value count as equal to it (1 is the "
        "one-standard-error rule); mean_rank has no standard error, so that only equal ranks do.",
    )
    prefer: list[Literal["epoch", "learning_rate", "batch_size", "weight_decay"]] = Field(
        ["epoch", "learning_rate", "weight_decay", "batch_size"],
        description="Of equal candidates the one with the lowest of these, in this order, is chosen.",
    )
