"""Which checkpoints are compared with their base."""

from sft_atlas.spec import JobSpec, Nothing, Part


class Identity(Part):
    """The run's ID, its base's hash, and the epochs."""

    run: str
    base: str
    epochs: list[int]


class Inputs(Part):
    """Manifests; and of restored weights, where they were gone."""

    base: str
    train: str
    restored: str | None = None


class Spec(JobSpec):
    """The specification of a job that measures weights."""

    identity: Identity
    inputs: Inputs
    labels: Nothing
