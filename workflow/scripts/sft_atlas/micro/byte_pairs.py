"""The tokenizer that all micro models share: byte-level BPE with individual digits."""

from collections.abc import Callable
from pathlib import Path

from tokenizers import Tokenizer, decoders, models, pre_tokenizers, trainers
from transformers import PreTrainedTokenizerFast

from sft_atlas.micro.documents import DOMAINS
from sft_atlas.micro.documents import documents as corpus

END, PAD = "<|end|>", "<|pad|>"
MAX_LENGTH = 256


def train_tokenizer(out: Path, vocab_size: int, documents: int, prompt: Callable[[str], str]) -> None:
    """Train on text of all domains in equal parts and save a transformers tokenizer folder.

    No begin mark is added to texts, and the padding token differs from the end token, so that masking the
    padding never hides the end of a completion.
    """
    tokenizer = Tokenizer(models.BPE())
    tokenizer.pre_tokenizer = pre_tokenizers.Sequence(
        [pre_tokenizers.Digits(individual_digits=True), pre_tokenizers.ByteLevel(add_prefix_space=False)]
    )
    tokenizer.decoder = decoders.ByteLevel()
    trainer = trainers.BpeTrainer(
        vocab_size=vocab_size,
        special_tokens=[END, PAD],
        initial_alphabet=pre_tokenizers.ByteLevel.alphabet(),
        show_progress=False,
    )
    texts = corpus(dict.fromkeys(DOMAINS, 1.0), documents, seed=0, prompt=prompt, question_share=0.3)
    tokenizer.train_from_iterator(texts, trainer)
    PreTrainedTokenizerFast(
        tokenizer_object=tokenizer,
        eos_token=END,
        pad_token=PAD,
        model_max_length=MAX_LENGTH,
        clean_up_tokenization_spaces=False,
    ).save_pretrained(out)
