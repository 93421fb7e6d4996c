"""Published tokenizers, converted: sentencepiece models of every kind, and what transformers makes of them alone."""

import io
import json
from pathlib import Path
from typing import Any

import pytest
from sentencepiece import SentencePieceProcessor, SentencePieceTrainer
from tokenizers import Tokenizer, models, normalizers, pre_tokenizers, processors, trainers
from transformers import AutoTokenizer, PreTrainedTokenizerFast

from sft_atlas.errors import DataError
from sft_atlas.models.tokenizer import control_ids, open_tokenizer
from sft_atlas.stages.base import tokenizers as converting
from sft_atlas.stages.base.audit_texts import CODE, SPEECH, texts
from sft_atlas.stages.base.tokenizers import check_ends, convert
from tests.unit.helpers import content, do

BARE = {"normalization_rule_name": "identity", "remove_extra_whitespaces": False}
WRITTEN = ["<|im_start|>", "<|im_end|>", "<mask>"]
KINDS: dict[str, dict[str, Any]] = {
    "bpe, as Llama's": {"model_type": "bpe", "byte_fallback": True, "split_digits": True, **BARE},
    "bpe without a mark in front": {"model_type": "bpe", "byte_fallback": True, "add_dummy_prefix": False, **BARE},
    "bpe without byte fallback": {"model_type": "bpe", **BARE},
    "bpe with pieces of its user": {
        "model_type": "bpe",
        "byte_fallback": True,
        "user_defined_symbols": WRITTEN,
        **BARE,
    },
    "bpe with runs of spaces": {
        "model_type": "bpe",
        "byte_fallback": True,
        "add_dummy_prefix": False,
        "user_defined_symbols": ["▁▁", "▁▁▁▁", "\n\n"],
        **BARE,
    },
    "unigram, as Sarashina's": {"model_type": "unigram", "byte_fallback": True, **BARE},
    "unigram without a mark in front": {
        "model_type": "unigram",
        "byte_fallback": True,
        "add_dummy_prefix": False,
        **BARE,
    },
    "unigram with pieces of its user": {
        "model_type": "unigram",
        "byte_fallback": True,
        "user_defined_symbols": WRITTEN,
        **BARE,
    },
    "unigram, sentencepiece's defaults": {"model_type": "unigram"},
    "unigram, NFKC": {"model_type": "unigram", "byte_fallback": True, "normalization_rule_name": "nfkc"},
}


def train(folder: Path, config: dict[str, Any] | None = None, **options: Any) -> Path:
    """A folder as a base ships it: `tokenizer.model`, `tokenizer_config.json` and the model's own config."""
    written = io.BytesIO()
    SentencePieceTrainer.train(
        sentence_iterator=iter((SPEECH + CODE) * 20),
        model_writer=written,
        vocab_size=700,
        hard_vocab_limit=False,
        minloglevel=2,
        **options,
    )
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "tokenizer.model").write_bytes(written.getvalue())
    (folder / "tokenizer_config.json").write_text(json.dumps({"tokenizer_class": "LlamaTokenizer"} | (config or {})))
    (folder / "config.json").write_text(json.dumps({"model_type": "llama"}))
    return folder


def converted(source: Path) -> Path:
    target = source.parent / f"{source.name}-converted"
    target.mkdir()
    convert(source, target)
    return target


def equally_likely(raw: SentencePieceProcessor, *cuts: list[int]) -> bool:
    """Two orders of the very same pieces: nothing tells them apart but rounding."""
    return sorted(cuts[0]) == sorted(cuts[1])


@pytest.mark.parametrize("options", KINDS.values(), ids=KINDS)
def test_ids_are_those_of_the_raw_file(options: dict[str, Any], tmp_path: Path) -> None:
    """Compared here without the code under test, on its 1,000 texts and on others."""
    source = train(tmp_path / "base", **options)
    tokenizer = open_tokenizer(converted(source))
    raw = SentencePieceProcessor(model_file=str(source / "tokenizer.model"))
    compared = [*texts(), *SPEECH, "x" * 300, "no end", "ends in a space ", "\ta\n\n\n  b", "<s>a</s><unk>b<0x41>"]
    assert len(compared) >= 1000
    for text in compared:
        found, expected = tokenizer(text)["input_ids"][1:], raw.encode(text)
        tied = "unigram" in options["model_type"] and equally_likely(raw, found, expected)
        assert found == expected or tied, text
    assert (tokenizer.bos_token_id, tokenizer.eos_token_id) == (raw.bos_id(), raw.eos_id())
    assert len(tokenizer) == raw.get_piece_size()


@pytest.mark.parametrize(
    "lengths", [[*range(2, 15), 16], [2, 4, 8, 16], [2, 3, 5, 8, 12]], ids=["Mistral's", "pairs", "odd"]
)
def test_runs_of_spaces_are_cut_as_sentencepiece_cuts_them(lengths: list[int], tmp_path: Path) -> None:
    """Mistral's vocabulary, and those made from it, holds runs of spaces that all have one score."""
    from sentencepiece import sentencepiece_model_pb2

    source = train(tmp_path / "base", **KINDS["bpe, as Llama's"])
    proto: Any = sentencepiece_model_pb2.ModelProto()  # type: ignore[attr-defined]
    proto.ParseFromString((source / "tokenizer.model").read_bytes())
    for length in lengths:
        proto.pieces.add(piece="▁" * length, score=-1e9)
    (source / "tokenizer.model").write_bytes(proto.SerializeToString())
    tokenizer = open_tokenizer(converted(source))
    raw = SentencePieceProcessor(model_file=str(source / "tokenizer.model"))
    for length in range(1, 130):
        for text in ("x" + " " * length + "|", " " * length, " " * length + "a" + " " * (length // 2)):
            assert tokenizer(text)["input_ids"][1:] == raw.encode(text), length


NAIVE = {
    "a unigram model read as BPE": ("llama", {"model_type": "unigram", "byte_fallback": True, **BARE}),
    "a mark lost": ("mistral", {"model_type": "bpe", "byte_fallback": True, **BARE}),
}


@pytest.mark.parametrize(("model_type", "options"), NAIVE.values(), ids=NAIVE)
def test_transformers_alone_gives_other_ids(model_type: str, options: dict[str, Any], tmp_path: Path) -> None:
    """Why bases are converted at all; where this fails, transformers has mended it."""
    source = train(tmp_path / "base", **options)
    (source / "config.json").write_text(json.dumps({"model_type": model_type}))
    naive = AutoTokenizer.from_pretrained(source, local_files_only=True)
    raw = SentencePieceProcessor(model_file=str(source / "tokenizer.model"))
    faithful = open_tokenizer(converted(source))
    wrong = [text for text in SPEECH if naive(text, add_special_tokens=False)["input_ids"] != raw.encode(text)]
    assert wrong
    assert all(faithful(text, add_special_tokens=False)["input_ids"] == raw.encode(text) for text in wrong)


@pytest.mark.parametrize(
    ("config", "adds"),
    [({}, ["<s>"]), ({"add_bos_token": True, "add_eos_token": True}, ["<s>"]), ({"add_bos_token": False}, [])],
)
def test_at_most_one_bos_and_no_eos_after_a_prompt(config: dict[str, Any], adds: list[str], tmp_path: Path) -> None:
    source = train(tmp_path / "base", config, **KINDS["bpe, as Llama's"])
    facts = convert(source, tmp_path)
    assert facts == {"made_from": "tokenizer.model", "adds": adds, "audited_texts": 1000, "equally_likely": 0}
    tokenizer = open_tokenizer(tmp_path)
    ids = tokenizer("a prompt")["input_ids"]
    assert tokenizer.convert_ids_to_tokens(ids)[: len(adds)] == adds
    assert not set(ids[len(adds) :]) & control_ids(tokenizer)


def test_tokens_that_a_base_declares_get_their_ids(tmp_path: Path) -> None:
    source = train(tmp_path / "base", **KINDS["bpe, as Llama's"])
    size = SentencePieceProcessor(model_file=str(source / "tokenizer.model")).get_piece_size()
    declared = {
        str(size): {"content": "<|call|>", "special": False},
        str(size + 1): {"content": "<pad>", "special": True},
    }
    config = {"added_tokens_decoder": declared, "pad_token": "<pad>", "chat_template": "{{ x }}"}
    (source / "tokenizer_config.json").write_text(json.dumps(config))
    raw = converting._read(source, config)
    assert raw is not None
    tokenizer = PreTrainedTokenizerFast(tokenizer_object=raw.backend)
    assert tokenizer.convert_tokens_to_ids(["<|call|>", "<pad>"]) == [size, size + 1]
    skipped = {str(size + 5): {"content": "<|call|>", "special": False}}
    (source / "tokenizer_config.json").write_text(json.dumps({"added_tokens_decoder": skipped}))
    with pytest.raises(DataError, match=rf"added token '<\|call\|>' gets id {size}, the base declares {size + 5}"):
        convert(source, tmp_path)


def test_a_mismatch_refuses_the_base_in_one_line(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    source = train(tmp_path / "base", **KINDS["unigram, as Sarashina's"])
    monkeypatch.setattr(converting, "_unigram", converting._bpe)
    with pytest.raises(DataError) as raised:
        convert(source, tmp_path)
    said = str(raised.value)
    assert said.startswith(f"{source / 'tokenizer.model'}: converted, it gives other ids for '")
    assert "found [" in said and "expected [" in said and "leave it out" in said
    assert len(said.splitlines()) == 1


def test_only_cuts_of_one_likelihood_pass_for_each_other(tmp_path: Path) -> None:
    source = train(tmp_path / "base", **KINDS["unigram, as Sarashina's"])
    raw = converting._read(source, {})
    assert raw is not None
    ids = raw.encode("the lighthouse keeper counts")
    assert raw.equally_likely(ids, ids)
    # the same pieces in another order make another text
    assert not raw.equally_likely(ids[::-1], ids)
    # the same text letter by letter is less likely
    letters = [raw.backend.token_to_id(letter) for letter in "▁the▁lighthouse▁keeper▁counts"]
    assert None not in letters
    assert not raw.equally_likely(letters, ids)  # type: ignore[arg-type]


def test_a_file_that_is_no_tokenizer_is_refused(tmp_path: Path) -> None:
    (tmp_path / "tokenizer.json").write_text("{}")
    with pytest.raises(DataError, match=r"tokenizer\.json: cannot be read as a tokenizer"):
        convert(tmp_path, tmp_path)
    (tmp_path / "tokenizer.json").unlink()
    (tmp_path / "qwen.model").write_bytes(b"IQ== 0\nIg== 1\n")
    # a table of another kind is left to transformers
    assert convert(tmp_path, tmp_path) is None


# --- bases that ship a tokenizer.json


def fast(folder: Path, config: dict[str, Any], **parts: Any) -> Path:
    """A byte-level BPE in `tokenizer.json`, as GPT-NeoX's, with what a test puts around it."""
    inner = Tokenizer(models.BPE())
    inner.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    alphabet = pre_tokenizers.ByteLevel.alphabet()
    trainer = trainers.BpeTrainer(
        vocab_size=500, special_tokens=["<|endoftext|>", "<s>"], initial_alphabet=alphabet, show_progress=False
    )
    inner.train_from_iterator(SPEECH + CODE, trainer)
    for name, part in parts.items():
        setattr(inner, name, part)
    folder.mkdir(parents=True)
    inner.save(str(folder / "tokenizer.json"))
    (folder / "tokenizer_config.json").write_text(json.dumps({"eos_token": "<|endoftext|>", **config}))
    (folder / "config.json").write_text(json.dumps({"model_type": config.get("model_type", "olmo")}))
    return folder


def test_an_eos_that_the_file_appends_is_not_appended_to_prompts(tmp_path: Path) -> None:
    """OLMo-7B-hf's file does that."""
    ending = processors.TemplateProcessing(single="$A <|endoftext|>", special_tokens=[("<|endoftext|>", 0)])
    source = fast(tmp_path / "base", {"tokenizer_class": "GPTNeoXTokenizerFast"}, post_processor=ending)
    raw = Tokenizer.from_file(str(source / "tokenizer.json"))
    assert raw.encode("a prompt").ids[-1] == 0
    tokenizer = open_tokenizer(converted(source))
    assert tokenizer("a prompt")["input_ids"] == raw.encode("a prompt").ids[:-1]


def test_a_bos_that_the_file_adds_is_kept(tmp_path: Path) -> None:
    """As the three bases of Llama-3's family have it."""
    begins = processors.TemplateProcessing(single="<s> $A", special_tokens=[("<s>", 1)])
    source = fast(tmp_path / "base", {"bos_token": "<s>"}, post_processor=begins)
    tokenizer = open_tokenizer(converted(source))
    assert tokenizer("a")["input_ids"][0] == tokenizer.bos_token_id == 1
    assert tokenizer("<s>a")["input_ids"].count(1) == 1


def test_a_class_that_would_rebuild_the_file_is_not_asked(tmp_path: Path) -> None:
    """As for Yi: class LlamaTokenizer beside a tokenizer.json with a normaliser and a pre-tokenizer of its own."""
    parts = {
        "normalizer": normalizers.Replace("o", "0"),
        "pre_tokenizer": pre_tokenizers.Sequence([pre_tokenizers.Digits(True), pre_tokenizers.ByteLevel(False)]),
    }
    source = fast(tmp_path / "base", {"tokenizer_class": "LlamaTokenizer", "add_bos_token": False}, **parts)
    raw = Tokenizer.from_file(str(source / "tokenizer.json"))
    tokenizer = open_tokenizer(converted(source))
    for text in ("no, 2024 boots", *SPEECH):
        assert tokenizer(text)["input_ids"] == raw.encode(text).ids


def test_a_length_in_the_file_cuts_nothing(tmp_path: Path) -> None:
    source = fast(tmp_path / "base", {})
    whole = Tokenizer.from_file(str(source / "tokenizer.json"))
    whole.enable_truncation(4)
    whole.enable_padding(length=8)
    whole.save(str(source / "tokenizer.json"))
    assert len(open_tokenizer(converted(source))("one two three four five six")["input_ids"]) > 8


# --- in stage base


def test_a_base_with_only_a_sentencepiece_model_becomes_one_with_a_tokenizer(tmp_path: Path) -> None:
    import torch
    from safetensors.torch import save_file

    from sft_atlas.files import read_json
    from sft_atlas.models.tokenizer import load_tokenizer

    source = train(tmp_path / "published", {"chat_template": "{{ x }}"}, **KINDS["unigram, as Sarashina's"])
    save_file({"norm": torch.ones(2)}, source / "model.safetensors")
    spec = content(
        "base", "bases/b-00000000/manifest.json", {"source": {"content": "x"}}, sources=[source / "config.json"]
    )
    do(spec, tmp_path)
    manifest = tmp_path / spec["output"]
    folder = manifest.with_name("model")
    names = {"config.json", "model.safetensors", "tokenizer.json", "tokenizer_config.json"}
    assert {file.name for file in folder.iterdir()} == names
    assert read_json(manifest)["tokenizer"] == {
        "made_from": "tokenizer.model",
        "adds": ["<s>"],
        "audited_texts": 1000,
        "equally_likely": 0,
    }
    assert load_tokenizer(manifest).chat_template == "{{ x }}"
    again = tmp_path / "saved/model"
    load_tokenizer(manifest).save_pretrained(again)
    raw = SentencePieceProcessor(model_file=str(source / "tokenizer.model"))
    # a checkpoint's copy reads the same
    for text in SPEECH:
        assert load_tokenizer(again.with_name("manifest.json"))(text)["input_ids"] == [raw.bos_id(), *raw.encode(text)]


def test_a_tokenizer_without_a_raw_file_of_its_own_is_held_to_its_ends(tmp_path: Path) -> None:
    """`vocab.json` and `merges.txt`: transformers makes the tokenizer, as it does for GPT-2's."""
    made = json.loads((fast(tmp_path / "made", {}) / "tokenizer.json").read_text())["model"]
    source = tmp_path / "base"
    source.mkdir()
    (source / "vocab.json").write_text(json.dumps(made["vocab"]))
    (source / "merges.txt").write_text("\n".join(["#version: 0.2", *(" ".join(pair) for pair in made["merges"])]))
    (source / "config.json").write_text(json.dumps({"model_type": "gpt2"}))
    config = {"tokenizer_class": "GPT2Tokenizer", "bos_token": "<s>", "eos_token": "<|endoftext|>"}
    (source / "tokenizer_config.json").write_text(json.dumps(config))
    assert convert(source, tmp_path) is None
    check_ends(source)
    (source / "tokenizer_config.json").write_text(json.dumps(config | {"add_eos_token": True}))
    with pytest.raises(
        DataError, match=r"reads 'a prompt' as \[.*endoftext.*expected one BOS in front at most, and no EOS"
    ):
        check_ends(source)
