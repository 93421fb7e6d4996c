"""Opens the tokenizer of a base or of a checkpoint: one door for training, every measurement and evaluation.

Text is text: control tokens are written by this project, never read out of data.
"""

from pathlib import Path
from typing import Any

from transformers import AutoTokenizer, PreTrainedTokenizerBase, PreTrainedTokenizerFast

from sft_atlas.errors import DataError

IGNORED = -100
"""The label of a token that is not trained."""


def load_tokenizer(manifest: Path) -> PreTrainedTokenizerBase:
    """The tokenizer that a base's or tokenizer's manifest stands for, from local files only.

    Raises:
        DataError: it has no EOS token, so no model could learn to stop.
    """
    tokenizer = open_tokenizer(manifest.with_name("model"))
    if tokenizer.eos_token_id is None:
        raise DataError(f"{manifest.parent}: the tokenizer has no EOS token; completions could not be ended")
    return tokenizer


def open_tokenizer(folder: Path) -> PreTrainedTokenizerBase:
    """The tokenizer of a model's folder, from local files only, as `tokenizer.json` has it.

    Control tokens that stand written out in a text are read as text: else a row could train a begin or an end in the
    middle, or a benchmark's item could end its own prompt.
    """
    # AutoTokenizer would choose a class by the model's type, and that class rebuild what it reads
    reader: Any = PreTrainedTokenizerFast if (folder / "tokenizer.json").is_file() else AutoTokenizer
    tokenizer: PreTrainedTokenizerBase = reader.from_pretrained(folder, local_files_only=True)
    tokenizer.split_special_tokens = True
    tokenizer.init_kwargs.pop("split_special_tokens", None)
    return tokenizer


def control_ids(tokenizer: PreTrainedTokenizerBase) -> set[int]:
    """Ids of tokens that steer a model and stand for no text; the unknown token stands for some."""
    added = {number for number, token in tokenizer.added_tokens_decoder.items() if token.special}
    ends = {tokenizer.bos_token_id, tokenizer.eos_token_id}
    unknown = {tokenizer.unk_token_id} - ends
    return {number for number in added | ends if number is not None} - unknown
