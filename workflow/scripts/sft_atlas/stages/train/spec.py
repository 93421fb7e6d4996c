"""What a run is trained from."""

from sft_atlas.spec import JobSpec, Nothing, Part
from sft_atlas.training.run_settings import Settings


class Identity(Part):
    """The run's ID and settings, and the epochs that are kept of it."""

    run: str
    settings: Settings
    epochs: list[int]


class Inputs(Part):
    """Manifests; and the note that the sample was compared with the benchmarks."""

    base: str
    tokens: str
    compared: str | None = None


class Spec(JobSpec):
    """The specification of a training job."""

    identity: Identity
    inputs: Inputs
    labels: Nothing
