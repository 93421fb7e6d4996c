"""What the tokenizer is trained from."""

from sft_atlas.spec import JobSpec, Nothing, Part
from sft_atlas.study.model import Template


class Identity(Part):
    """Tokens in its vocabulary, and the prompt that it should split alike wherever it stands."""

    vocab_size: int
    template: Template


class Spec(JobSpec):
    """The specification of a tokenizer job."""

    identity: Identity
    inputs: Nothing
    labels: Nothing
