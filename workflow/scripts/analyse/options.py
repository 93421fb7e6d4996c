"""What a study may choose about its statistics."""

from pydantic import BaseModel, ConfigDict, Field


class AnalysisOptions(BaseModel):
    """Draws, confidence and seed of every interval and every test; the same options give the same bytes."""

    model_config = ConfigDict(frozen=True, extra="forbid", strict=True)

    bootstrap_draws: int = Field(2000, ge=100, le=10**7, description="draws behind each bootstrap interval")
    permutations: int = Field(
        2000, ge=100, le=10**7, description="draws behind each permutation p; the least p is 1/(1+draws)"
    )
    confidence: float = Field(0.95, gt=0.5, lt=1, description="probability with which intervals should cover the truth")
    seed: int = Field(0, ge=0, le=2**31 - 1, description="seed of all random draws")
