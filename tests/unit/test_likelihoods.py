"""Log-likelihoods against a loop over tokens, representations against the model itself; what was measured is kept."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import polars as pl
import pytest
import torch
from transformers import PreTrainedTokenizerBase

from sft_atlas.analysis.collected import Found, Identity
from sft_atlas.data.prompt import prompt
from sft_atlas.models.device import load_model, prepare
from sft_atlas.stages.likelihoods import run as likelihoods
from sft_atlas.stages.likelihoods.run import draw_texts, forward
from sft_atlas.stages.likelihoods.spec import Options
from sft_atlas.stages.likelihoods.tables import gather
from sft_atlas.study.model import Template
from tests.unit.helpers import content, do, snapshot, stand_in

TEMPLATE = Template()
OPTIONS = {"texts": 6, "seed": 0, "max_length": 64, "precision": "fp32", "representation": "last", "neighbour": 1}
CPU = torch.device("cpu")


def questions(root: Path, hash8: str, texts: list[str]) -> str:
    """A prepared benchmark with these questions."""
    table = pl.DataFrame({"item": [f"{hash8}:{i}" for i in range(len(texts))], "instruction": texts})
    return stand_in(root, f"benchmarks/b-{hash8}", table, "items.parquet")


@pytest.fixture
def spec(tmp_path: Path, place_base: Callable[..., str]) -> dict[str, Any]:
    """The job of a base with two benchmarks; one has fewer questions than are asked for, and one of them twice."""
    base = place_base(tmp_path)
    few = questions(tmp_path, "aaaaaaaa", ["what is red?", "what is blue?", "what is red?"])
    many = questions(tmp_path, "bbbbbbbb", [f"what is {i} plus {i}? " + "and " * (i % 4) for i in range(20)])
    chosen = {"bbbbbbbb": many, "aaaaaaaa": few}
    identity = {"model": "0", "epochs": [0], "benchmarks": sorted(chosen), "options": OPTIONS}
    identity |= {"template": TEMPLATE.model_dump(), "threads": 1}
    inputs = {"model": base, "base": base, "benchmarks": chosen}
    return content("likelihoods", "bases/tiny-00000000/likelihoods-0.parquet", identity, inputs)


def test_control_tokens_in_a_question_are_text(
    place_base: Callable[..., str], tmp_path: Path, tokenizer: PreTrainedTokenizerBase
) -> None:
    base = place_base(tmp_path)
    chosen = {"aaaaaaaa": questions(tmp_path, "aaaaaaaa", ["what is <|end|> for?", "what is red?", "what is blue?"])}
    identity = {"model": "0", "epochs": [0], "benchmarks": ["aaaaaaaa"], "options": OPTIONS}
    identity |= {"template": TEMPLATE.model_dump(), "threads": 1}
    inputs = {"model": base, "base": base, "benchmarks": chosen}
    spec = content("likelihoods", "bases/tiny-00000000/likelihoods-0.parquet", identity, inputs)
    do(spec, tmp_path)
    output = tmp_path / spec["output"]
    vector = pl.read_parquet(output.parent / pl.read_parquet(output)["vector"][0])
    asked = prompt(TEMPLATE, "what is <|end|> for?")
    written = sum(len(tokenizer(part)["input_ids"]) for part in asked.partition("<|end|>"))
    # as one control token it would be a few tokens less
    assert written - 3 < vector["tokens"][0] + 1 <= written
    assert len(tokenizer("<|end|>")["input_ids"]) > 4


def test_likelihoods_are_sums_over_next_tokens(
    spec: dict[str, Any], tmp_path: Path, tokenizer: PreTrainedTokenizerBase
) -> None:
    do(spec, tmp_path)
    output = tmp_path / spec["output"]
    row = pl.read_parquet(output).row(0, named=True)
    vector = pl.read_parquet(output.parent / row["vector"])
    assert vector["benchmark"].to_list() == ["aaaaaaaa"] * 2 + ["bbbbbbbb"] * 6
    model = load_model((tmp_path / spec["inputs"]["base"]).with_name("model"), "fp32", CPU).eval()
    texts = draw_texts(
        {hash8: tmp_path / path for hash8, path in spec["inputs"]["benchmarks"].items()}, Options(**OPTIONS), TEMPLATE
    )
    assert texts["text"][0] == prompt(TEMPLATE, "what is red?")
    for text, value, tokens in zip(texts["text"], vector["log_likelihood"], vector["tokens"], strict=True):
        ids = tokenizer(text)["input_ids"]
        with torch.no_grad():
            log_p = model(torch.tensor([ids])).logits[0].double().log_softmax(dim=-1)
        expected = sum(float(log_p[t, ids[t + 1]]) for t in range(len(ids) - 1))
        assert value == pytest.approx(expected, abs=1e-3)
        assert tokens == len(ids) - 1
    assert row["log_likelihood"] == pytest.approx(vector["log_likelihood"].sum())
    layers = pl.read_parquet(output.parent / row["layers"])
    assert layers.select("layer", "depth", "texts").rows() == [(0, 0.0, 8), (1, 1.0, 8)]
    assert (layers["dimension"] > 0).all()


@pytest.mark.parametrize("representation", ["last", "mean"])
def test_representations_are_the_models_states(
    representation: str, tmp_path: Path, place_base: Callable[..., str], tokenizer: PreTrainedTokenizerBase
) -> None:
    model = load_model((tmp_path / place_base(tmp_path)).with_name("model"), "fp32", prepare(1)).eval()
    ids = [tokenizer(text)["input_ids"] for text in ("a much longer question than the other", "a short one")]
    for index, _, state in forward(model, ids, representation):
        with torch.no_grad():
            states = torch.stack(model(torch.tensor([ids[index]]), output_hidden_states=True).hidden_states[1:])[:, 0]
        expected = states[:, -1] if representation == "last" else states.mean(dim=1)
        torch.testing.assert_close(state, expected, atol=1e-4, rtol=1e-3)


def test_what_was_measured_is_kept_and_the_bytes_are_the_same(
    spec: dict[str, Any], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    do(spec, tmp_path)
    folder = (tmp_path / spec["output"]).parent / "likelihoods"
    before = snapshot(folder)
    with monkeypatch.context() as patched:
        patched.setattr(likelihoods, "open_model", lambda *_: pytest.fail("measured again"))
        do(spec, tmp_path)
    assert snapshot(folder) == before
    for path in folder.iterdir():
        path.unlink()
    do(spec, tmp_path)
    assert {name: content for name, (content, _) in snapshot(folder).items()} == {
        name: content for name, (content, _) in before.items()
    }


def test_other_texts_are_another_piece(spec: dict[str, Any], tmp_path: Path) -> None:
    do(spec, tmp_path)
    spec["identity"]["options"] = OPTIONS | {"texts": 3}
    do(spec, tmp_path)
    assert len(list((tmp_path / spec["output"]).parent.glob("likelihoods/*.json"))) == 2
    assert pl.read_parquet(tmp_path / spec["output"])["texts"].item() == 5


def test_the_study_s_table_names_cell_and_benchmark(spec: dict[str, Any], tmp_path: Path) -> None:
    do(spec, tmp_path)
    names = {"aaaaaaaa": "colours", "bbbbbbbb": "sums"}
    run = {"base": "tiny", "sample": "s", "recipe": "full", "seed": 1, "likelihoods": None, "epochs": {"1": "main"}}
    run |= {"dataset": "s", "held_out": None, "method": "full", "schedule": "constant", "run": "0", "tokens": "none"}
    identity: dict[str, Any] = {"bases": {"tiny": {"likelihoods": spec["output"]}}, "runs": [run], "benchmarks": names}
    identity |= {"tokens": {}, "samples": {}, "matches": {}, "missing": []}
    table = gather(Found(Identity.model_validate(identity), tmp_path))["likelihoods"]
    assert isinstance(table, pl.DataFrame)
    assert table.height == 8
    assert set(table["benchmark"]) == {"colours", "sums"}
    assert table.select("base", "sample", "recipe", "seed", "epoch").unique().rows() == [("tiny", None, None, None, 0)]
