"""What a sample is compared with."""

from sft_atlas.spec import JobSpec, Nothing, Part


class Options(Part):
    """Words in an n-gram."""

    ngram: int


class Identity(Part):
    """Hashes of the sample and, by name, of the benchmarks."""

    sample: str
    benchmarks: dict[str, str]
    options: Options


class Inputs(Part):
    """Their manifests."""

    sample: str
    benchmarks: dict[str, str]


class Spec(JobSpec):
    """The specification of a comparing job."""

    identity: Identity
    inputs: Inputs
    labels: Nothing
