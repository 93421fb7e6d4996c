"""Trains the tokenizer of the micro world, in the place of a base's."""

from functools import partial
from pathlib import Path

from sft_atlas.data.prompt import prompt
from sft_atlas.files import whole, write_record
from sft_atlas.micro.byte_pairs import train_tokenizer
from sft_atlas.stages.tokenizer.spec import Spec

DOCUMENTS = 6000


def run(spec: Spec, root: Path) -> None:
    """Make the `model/` folder of the tokenizer, and its manifest."""
    output = root / spec.output
    folder = output.with_name("model")
    with whole(folder) as temporary:
        temporary.mkdir()
        train_tokenizer(temporary, spec.identity.vocab_size, DOCUMENTS, partial(prompt, spec.identity.template))
    write_record(output, {"spec": spec.hash}, [folder])
