"""What is collected."""

from typing import Any

from pydantic import ConfigDict

from sft_atlas.spec import JobSpec, Nothing, Part


class Results(Part):
    """Paths of results below the results folder, by what they are called; null where one is absent."""

    model_config = ConfigDict(extra="allow")

    def path(self, result: str) -> str | None:
        """The path of a result, if there is one."""
        found = (self.model_extra or {}).get(result)
        return found if isinstance(found, str) else None

    def asked(self) -> list[str]:
        """The results that the study asks for."""
        return list(self.model_extra or {})


class RunResults(Results):
    """A run: its names, its kept epochs with the blocks that ask for each, what describes it, and its results."""

    base: str
    sample: str
    recipe: str
    seed: int
    epochs: dict[str, str]
    dataset: str
    held_out: str | None
    method: str
    schedule: str
    run: str
    tokens: str


class Identity(Part):
    """Every cell with its results; results of samples and texts beside them, by what they are called."""

    model_config = ConfigDict(extra="allow")

    runs: list[RunResults]
    bases: dict[str, Results]
    tokens: dict[str, dict[str, str | None]]
    samples: dict[str, str]
    benchmarks: dict[str, str]
    matches: dict[str, list[str]]
    missing: list[dict[str, Any]]

    def of(self, result: str) -> dict[str, Any]:
        """Results of samples, or of samples and benchmarks, by name; empty where no stage makes them."""
        return dict((self.model_extra or {}).get(result) or {})


class Inputs(Part):
    """Every result that is present."""

    results: list[str]


class Spec(JobSpec):
    """The specification of a collecting job."""

    identity: Identity
    inputs: Inputs
    labels: Nothing
