"""Which weights are released."""

from pydantic import ConfigDict

from sft_atlas.models.released import Keep
from sft_atlas.spec import JobSpec, Nothing, Part


class Identity(Part):
    """The run's ID, its epochs, what is kept of them; and, by stage, the hashes of all that has read the weights."""

    model_config = ConfigDict(extra="allow")

    run: str
    epochs: list[int]
    keep: Keep


class Inputs(Part):
    """Manifests of base and run; and the results, by stage, of all that has read the weights."""

    model_config = ConfigDict(extra="allow")

    base: str
    train: str


class Spec(JobSpec):
    """The specification of a releasing job."""

    identity: Identity
    inputs: Inputs
    labels: Nothing
