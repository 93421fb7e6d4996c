"""A tiny random model with a tiny trained tokenizer, made once for all unit tests."""

import logging
import shutil
from collections.abc import Callable, Iterator
from functools import partial
from pathlib import Path

import pytest
import torch
from transformers import LlamaConfig, LlamaForCausalLM, PreTrainedTokenizerBase

from sft_atlas.data.prompt import prompt
from sft_atlas.files import write_record
from sft_atlas.micro.byte_pairs import train_tokenizer
from sft_atlas.models.tokenizer import open_tokenizer
from sft_atlas.study.model import Template


@pytest.fixture(autouse=True)
def messages() -> Iterator[None]:
    """How a test sets up what jobs say, in this process, ends with the test."""
    logger = logging.getLogger("sft_atlas")
    before = logger.handlers, logger.level, logger.propagate
    yield
    logger.handlers, logger.propagate = before[0], before[2]
    logger.setLevel(before[1])


BASE = "bases/tiny-00000000/manifest.json"


@pytest.fixture(scope="session")
def vocabulary(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The folder of a tokenizer with 400 tokens."""
    folder = tmp_path_factory.mktemp("vocabulary")
    train_tokenizer(folder, 400, 200, partial(prompt, Template()))
    return folder


@pytest.fixture(scope="session")
def tokenizer(vocabulary: Path) -> PreTrainedTokenizerBase:
    """The tiny tokenizer."""
    return open_tokenizer(vocabulary)


@pytest.fixture(scope="session")
def place_base(vocabulary: Path, tokenizer: PreTrainedTokenizerBase) -> Callable[[Path], str]:
    """Puts a random model of two layers into a results folder, with its manifest; returns the manifest's place."""

    def place(root: Path, seed: int = 0, tied: bool = False) -> str:
        folder = (root / BASE).with_name("model")
        config = LlamaConfig(
            vocab_size=len(tokenizer),
            hidden_size=32,
            intermediate_size=64,
            num_hidden_layers=2,
            num_attention_heads=4,
            num_key_value_heads=2,
            max_position_embeddings=512,
            initializer_range=0.2,
            tie_word_embeddings=tied,
            bos_token_id=None,
            eos_token_id=tokenizer.eos_token_id,
            pad_token_id=tokenizer.pad_token_id,
        )
        torch.manual_seed(seed)
        LlamaForCausalLM(config).save_pretrained(folder)
        for file in vocabulary.iterdir():
            shutil.copy(file, folder)
        write_record(root / BASE, {"spec": f"{seed}{tied}"}, [folder])
        return BASE

    return place
