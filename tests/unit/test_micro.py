"""The micro world: reproducible, distinct, and clean between what is trained on and what is asked."""

import hashlib
from pathlib import Path
from random import Random
from typing import get_args

import pytest
import torch
from pydantic import ValidationError
from transformers import AutoTokenizer, PreTrainedTokenizerBase

from sft_atlas.micro import declared, documents, questions, world
from sft_atlas.micro.byte_pairs import train_tokenizer
from sft_atlas.micro.declared import MicroBase
from sft_atlas.micro.pretrain import build_model, pretrain

VOCAB_SIZE = 400


def prompt(instruction: str) -> str:
    return f"###Question: {instruction}\n###Answer:"


def tiny(architecture: str = "llama", **fields: object) -> MicroBase:
    return MicroBase.model_validate(
        {"architecture": architecture, "steps": 3, "layers": 1, "vocab_size": VOCAB_SIZE, **fields}
    )


@pytest.fixture(scope="module")
def tokenizer_folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("tokenizer")
    train_tokenizer(folder, VOCAB_SIZE, 1000, prompt)
    return folder


@pytest.fixture(scope="module")
def tokenizer(tokenizer_folder: Path) -> PreTrainedTokenizerBase:
    return AutoTokenizer.from_pretrained(tokenizer_folder)


def instructions(topic: str, held: bool, draws: int = 3000) -> set[str]:
    rng = Random(f"{topic} {held}")
    return {questions.draw(topic, rng, held).instruction for _ in range(draws)}


def test_config_names_what_exists() -> None:
    assert set(get_args(declared.Topic)) == set(questions.TOPICS)
    assert set(get_args(declared.BenchmarkTopic)) == set(questions.BENCHMARKS)
    assert set(get_args(declared.Domain)) == set(documents.DOMAINS)


def test_config_refuses_nonsense() -> None:
    for wrong in ({"stpes": 3}, {"mixture": {"web": 0}}, {"mixture": {}}, {"hidden_size": 60}, {"kv_heads": 3}):
        with pytest.raises(ValidationError):
            MicroBase.model_validate(wrong)


@pytest.mark.parametrize("topic", questions.TOPICS)
def test_examples_are_distinct_and_reproducible(topic: str) -> None:
    rows = questions.examples(topic, 300, 1)
    assert rows == questions.examples(topic, 300, 1)
    assert rows != questions.examples(topic, 300, 2)
    assert len({row.instruction for row in rows}) == 300


@pytest.mark.parametrize("topic", ["general", "code", "math", "knowledge", "comprehension", "reasoning"])
def test_datasets_have_room_for_a_thousand_rows(topic: str) -> None:
    assert len({row.instruction for row in questions.examples(topic, 1200, 1)}) == 1200


@pytest.mark.parametrize(("topic", "kind"), questions.BENCHMARKS.items())
def test_items_are_distinct_and_well_formed(topic: str, kind: str) -> None:
    items = questions.items(topic, 200, 99)
    assert items == questions.items(topic, 200, 99)
    assert len({item.instruction for item in items}) == 200
    for item in items:
        assert item.answer == item.answer.strip() != ""
        if kind == "generation":
            assert item.choices is None
        else:
            assert item.choices is not None
            assert len(set(item.choices)) == 4
            assert item.choices.count(item.answer) == 1


@pytest.mark.parametrize("topic", questions.GENERATORS)
def test_held_out_questions_are_never_in_datasets(topic: str) -> None:
    assert instructions(topic, held=True).isdisjoint(instructions(topic, held=False))


def test_general_rows_are_not_held_out_in_any_topic() -> None:
    rows = {row.instruction for row in questions.examples("general", 1000, 1)}
    for topic in questions.GENERATORS:
        assert rows.isdisjoint(instructions(topic, held=True))


def test_facts_are_split_by_country() -> None:
    held = [country for country in world.COUNTRIES if world.held_out("knowledge", (country,))]
    assert 0.3 < len(held) / len(world.COUNTRIES) < 0.7
    for row in questions.examples("knowledge", 1000, 3):
        assert not any(country in row.instruction for country in held)
    for item in questions.items("facts", 200, 99):
        assert any(country in item.instruction for country in held)


def test_unknown_topics_and_too_many_rows_are_refused() -> None:
    with pytest.raises(ValueError, match=r"unknown topic 'nonsense'; valid topics: general, code"):
        questions.examples("nonsense", 1, 1)
    with pytest.raises(ValueError, match=r"unknown benchmark topic 'general'; valid topics: instructions"):
        questions.items("general", 1, 1)
    with pytest.raises(ValueError, match=r"topic 'translation' has only about \d+ distinct questions, 9999 are"):
        questions.examples("translation", 9999, 1)
    with pytest.raises(ValueError, match=r"\['nonsense'\]; valid domains: web"):
        list(documents.documents({"nonsense": 1.0}, 1, 0, prompt))


def test_corpus_is_reproducible() -> None:
    mixture = {"web": 2.0, "math": 1.0, "chinese": 1.0}
    reordered = dict(reversed(mixture.items()))
    texts = list(documents.documents(mixture, 200, 5, prompt))
    assert texts == list(documents.documents(reordered, 200, 5, prompt))
    assert texts != list(documents.documents(mixture, 200, 6, prompt))


def test_corpus_asks_no_held_out_question_and_no_fact() -> None:
    mixture = dict.fromkeys(documents.DOMAINS, 1.0)
    texts = list(documents.documents(mixture, 3000, 0, prompt, question_share=1.0))
    asked = {text[len("###Question: ") : text.index("\n###Answer: ")] for text in texts if text.startswith("###")}
    assert len(asked) > 1000
    for topic in questions.GENERATORS:
        assert asked.isdisjoint(instructions(topic, held=True))
    assert not any(country in question for country in world.COUNTRIES for question in asked)


def test_corpus_has_few_questions_and_all_domains() -> None:
    texts = list(documents.documents(dict.fromkeys(documents.DOMAINS, 1.0), 3000, 0, prompt))
    assert 0.02 < sum(text.startswith("###Question: ") for text in texts) / len(texts) < 0.06
    for sign in ("says", "The sport of", " + 1 = ", "def ", "In this story", "is older than", "です", "在"):
        assert any(sign in text for text in texts)


def test_tokenizer_is_reproducible(tokenizer_folder: Path, tmp_path: Path) -> None:
    train_tokenizer(tmp_path, VOCAB_SIZE, 1000, prompt)
    for path in tokenizer_folder.iterdir():
        assert path.read_bytes() == (tmp_path / path.name).read_bytes()


def test_tokenizer_marks(tokenizer: PreTrainedTokenizerBase) -> None:
    assert len(tokenizer) == VOCAB_SIZE
    assert tokenizer.pad_token_id != tokenizer.eos_token_id
    assert tokenizer.bos_token_id is None
    ids = tokenizer("Tom has 12 books").input_ids
    assert not {tokenizer.pad_token_id, tokenizer.eos_token_id} & set(ids)
    assert tokenizer.decode(ids) == "Tom has 12 books"


def test_prompt_and_completion_meet_at_a_token_boundary(tokenizer: PreTrainedTokenizerBase) -> None:
    for topic in questions.TOPICS:
        for row in questions.examples(topic, 100, 1):
            start, end = prompt(row.instruction), f" {row.completion}"
            assert tokenizer(start + end).input_ids == tokenizer(start).input_ids + tokenizer(end).input_ids


def digests(folder: Path) -> dict[str, str]:
    return {path.name: hashlib.sha256(path.read_bytes()).hexdigest() for path in folder.iterdir()}


def test_pretraining_gives_equal_bytes(tokenizer_folder: Path, tmp_path: Path) -> None:
    lines: list[str] = []
    record = pretrain(tiny(), tokenizer_folder, prompt, tmp_path / "a", report=lines.append)
    pretrain(tiny(), tokenizer_folder, prompt, tmp_path / "b", report=lines.append)
    pretrain(tiny(seed=1), tokenizer_folder, prompt, tmp_path / "c", report=lines.append)
    weights = "model.safetensors"
    assert digests(tmp_path / "a") == digests(tmp_path / "b")
    assert digests(tmp_path / "a")[weights] != digests(tmp_path / "c")[weights]
    assert record["steps"] == 3
    assert record["tokens"] > 3 * 16
    assert lines[0].startswith("step 3/3: loss ")


def test_pretraining_wants_the_tokenizer_of_its_config(tokenizer_folder: Path, tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="has 400 tokens, the base wants vocab_size 768"):
        pretrain(tiny(vocab_size=768), tokenizer_folder, prompt, tmp_path)


def test_every_architecture_is_another_network_with_the_same_tokenizer(
    tokenizer_folder: Path, tokenizer: PreTrainedTokenizerBase, tmp_path: Path
) -> None:
    text = "###Question: Tom 3 + 4 犬\n\n###Answer: a's x[0]  "
    ids = torch.arange(2, 42)[None]
    seen: list[torch.Tensor] = []
    for architecture in get_args(declared.Architecture):
        # The loader chooses the tokenizer class by model type, which must not change what the tokenizer does.
        model = build_model(tiny(architecture, layers=2), tokenizer.eos_token_id, tokenizer.pad_token_id).eval()
        model.save_pretrained(tmp_path / architecture)
        tokenizer.save_pretrained(tmp_path / architecture)
        loaded = AutoTokenizer.from_pretrained(tmp_path / architecture)
        assert loaded(text).input_ids == tokenizer(text).input_ids
        with torch.no_grad():
            logits = model(input_ids=ids).logits[0, -1]
        assert all(not torch.allclose(logits, other, atol=1e-4) for other in seen)
        seen.append(logits)
