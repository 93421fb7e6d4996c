"""Which weights are restored."""

from sft_atlas.spec import JobSpec, Part


class Identity(Part):
    """The run's ID, its epochs, and the hashes of the measurements that need them."""

    run: str
    epochs: list[int]
    readers: list[str]


class Inputs(Part):
    """Manifests of what the run was made from, and its own."""

    base: str
    tokens: str
    train: str


class Labels(Part):
    """The frozen specification that the run was trained from, below the results folder."""

    spec: str


class Spec(JobSpec):
    """The specification of a restoring job."""

    identity: Identity
    inputs: Inputs
    labels: Labels
