"""Opens the tokenizer of a base or of a checkpoint."""

from pathlib import Path

from transformers import AutoTokenizer, PreTrainedTokenizerBase

from sft_atlas.errors import DataError

IGNORED = -100
"""The label of a token that is not trained."""


def load_tokenizer(manifest: Path) -> PreTrainedTokenizerBase:
    """The tokenizer that a base's or tokenizer's manifest stands for, from local files only.

    Raises:
        DataError: it has no EOS token, so no model could learn to stop.
    """
    tokenizer = AutoTokenizer.from_pretrained(manifest.with_name("model"), local_files_only=True)
    if tokenizer.eos_token_id is None:
        raise DataError(f"{manifest.parent}: the tokenizer has no EOS token; completions could not be ended")
    return tokenizer
