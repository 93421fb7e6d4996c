"""Perplexity against transformers' own loss, row by row, and its standard error against simulation."""

import math
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import polars as pl
import pytest
import torch
from transformers import PreTrainedModel

from sft_atlas.models.device import load_model, prepare
from sft_atlas.models.tokenizer import IGNORED
from sft_atlas.stages.perplexity import run as perplexity
from sft_atlas.stages.perplexity.run import ratio_perplexity, row_losses, summary
from sft_atlas.stages.tokens.run import SCHEMA as TOKENS
from tests.unit.helpers import content, do, snapshot, stand_in


@pytest.fixture(scope="module")
def base(place_base: Callable[..., str], tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A results folder with a base in it."""
    root = tmp_path_factory.mktemp("base")
    return root / place_base(root)


@pytest.fixture(scope="module")
def model(base: Path) -> PreTrainedModel:
    return load_model(base.with_name("model"), "fp32", prepare(1)).eval()


def random_tokens(rows: int, seed: int = 0) -> pl.DataFrame:
    """Rows of 3 to 60 random tokens of which the first ones are not counted."""
    generator = np.random.default_rng(seed)
    out = []
    for row in range(rows):
        size = int(generator.integers(3, 60))
        ids = generator.integers(2, 400, size).tolist()
        start = int(generator.integers(1, size))
        out.append((f"r:{row}", ids, [IGNORED] * start + ids[start:], False))
    return pl.DataFrame(out, schema=TOKENS, orient="row")


@torch.no_grad()
def loss_by_transformers(model: PreTrainedModel, ids: list[int], labels: list[int]) -> tuple[float, int]:
    """Sum of losses and count of tokens of one row, alone, without padding, by the model's own loss."""
    counted = sum(label != IGNORED for label in labels[1:])
    loss = model(input_ids=torch.tensor([ids]), labels=torch.tensor([labels])).loss
    return float(loss) * counted, counted


def test_losses_are_those_of_transformers_one_row_at_a_time(model: PreTrainedModel) -> None:
    tokens = random_tokens(30)
    found = row_losses(model, tokens)
    assert found["row"].to_list() == tokens["row"].to_list()
    for (_, ids, labels, _), (_, nll, n, nll_full, n_full) in zip(tokens.iter_rows(), found.iter_rows(), strict=True):
        expected, counted = loss_by_transformers(model, ids, labels)
        assert n == counted
        assert nll == pytest.approx(expected, rel=1e-5)
        expected, counted = loss_by_transformers(model, ids, ids)
        assert n_full == counted == len(ids) - 1
        assert nll_full == pytest.approx(expected, rel=1e-5)


def test_batches_and_padding_do_not_matter(model: PreTrainedModel, monkeypatch: pytest.MonkeyPatch) -> None:
    tokens = random_tokens(40)
    together = row_losses(model, tokens)
    monkeypatch.setattr(perplexity, "TOKENS_PER_BATCH", 1)
    alone = row_losses(model, tokens)
    assert together.drop("nll", "nll_full").equals(alone.drop("nll", "nll_full"))
    for column in ("nll", "nll_full"):
        assert together[column].to_list() == pytest.approx(alone[column].to_list(), rel=1e-5)


def test_perplexity_is_weighted_by_tokens(model: PreTrainedModel) -> None:
    tokens = random_tokens(30)
    losses = [loss_by_transformers(model, ids, labels) for _, ids, labels, _ in tokens.iter_rows()]
    expected = math.exp(sum(loss for loss, _ in losses) / sum(count for _, count in losses))
    found = summary(row_losses(model, tokens))
    assert found["perplexity"] == pytest.approx(expected, rel=1e-5)
    assert found["n_tokens"] == sum(count for _, count in losses)
    assert found["n_tokens_full"] == sum(len(ids) - 1 for ids in tokens["input_ids"])
    assert found["rows"] == 30


def test_a_hand_made_example() -> None:
    # 6 nats over 4 tokens: L = 1.5; residuals 2 - 1.5·1 and 4 - 1.5·3 are ±0.5; SE(L) = sqrt(2 · 0.5) / 4 = 0.25
    value, stderr = ratio_perplexity(pl.Series([2.0, 4.0]), pl.Series([1, 3]))
    assert value == pytest.approx(math.exp(1.5))
    assert stderr == pytest.approx(math.exp(1.5) * 0.25)
    assert ratio_perplexity(pl.Series([2.0]), pl.Series([1]))[1] is None


def test_the_standard_error_is_that_of_repeated_samples() -> None:
    generator = np.random.default_rng(1)

    def sample() -> tuple[float, float]:
        counts = generator.integers(1, 30, 200)
        sums = counts * generator.normal(1.0, 0.2, 200) + generator.normal(0, 1.5, 200) * np.sqrt(counts)
        value, stderr = ratio_perplexity(pl.Series(sums), pl.Series(counts))
        assert stderr is not None
        return value, stderr

    values, errors = np.array([sample() for _ in range(3000)]).T
    # the standard deviation of 3000 values is known to 1.3 %
    assert errors.mean() == pytest.approx(values.std(ddof=1), rel=0.06)


def test_the_standard_error_agrees_with_a_bootstrap(model: PreTrainedModel) -> None:
    rows = row_losses(model, random_tokens(150, seed=3))
    nll, n = rows["nll"].to_numpy(), rows["n"].to_numpy()
    generator = np.random.default_rng(2)
    drawn = [generator.integers(0, len(n), len(n)) for _ in range(3000)]
    resampled = np.array([math.exp(nll[index].sum() / n[index].sum()) for index in drawn])
    assert summary(rows)["perplexity_stderr"] == pytest.approx(resampled.std(ddof=1), rel=0.08)


def test_the_stage_computes_a_sample_once(base: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    root = base.parents[2]
    places = {
        name: stand_in(root, f"tokens/t/{name}-{hash8}", random_tokens(8, seed), "tokens.parquet")
        for seed, (name, hash8) in enumerate((("one", "11111111"), ("two", "22222222")))
    }
    inputs = {"base": str(base.relative_to(root)), "tokens": {"11111111": places["one"], "22222222": places["two"]}}

    def run(*hashes: str) -> pl.DataFrame:
        identity: dict[str, Any] = {"base": "x", "samples": list(hashes), "precision": "fp32", "threads": 1}
        spec = content("perplexity", f"bases/tiny-00000000/perplexity-{len(hashes)}.parquet", identity, inputs)
        do(spec, root)
        return pl.read_parquet(root / spec["output"])

    scored: list[int] = []

    def spy(model: PreTrainedModel, tokens: pl.DataFrame) -> pl.DataFrame:
        scored.append(tokens.height)
        return row_losses(model, tokens)

    monkeypatch.setattr(perplexity, "row_losses", spy)
    one = run("11111111")
    assert dict(one.schema) == perplexity.SCHEMA
    pieces = snapshot(root / "bases/tiny-00000000/perplexity")
    both = run("11111111", "22222222")
    assert len(scored) == 2
    assert both[:1].equals(one)
    assert both["tokens"].to_list() == ["11111111", "22222222"]
    assert pieces.items() <= snapshot(root / "bases/tiny-00000000/perplexity").items()
    # the same tokens under another name, as after a dataset was renamed, are the same piece
    (root / "tokens/t/renamed-11111111").mkdir()
    for file in (root / places["one"]).parent.iterdir():
        file.rename(root / "tokens/t/renamed-11111111" / file.name)
    inputs["tokens"]["11111111"] = "tokens/t/renamed-11111111/manifest.json"
    assert run("11111111").equals(one)
    assert len(scored) == 2
