"""Which rows make a step: those that TRL would take, dealt by length; sorted by length; packed."""

from collections import Counter
from collections.abc import Callable
from pathlib import Path
from random import Random

import polars as pl
import pytest
import torch
from accelerate.data_loader import SeedableRandomSampler
from datasets import Dataset
from safetensors.torch import load_file
from transformers import PreTrainedTokenizerBase
from trl import SFTConfig, SFTTrainer

from sft_atlas.models.device import load_model
from sft_atlas.models.tokenizer import IGNORED, load_tokenizer
from sft_atlas.stages.tokens.run import SCHEMA
from sft_atlas.training.batches import sequences
from sft_atlas.training.sampler import StepSampler, splits_for
from tests.unit.helpers import do
from tests.unit.test_train import Bench, place_tokens, recipe, train_spec

RANDOM = Random(7)
LENGTHS = [RANDOM.randint(3, 90) for _ in range(101)]


@pytest.mark.parametrize("splits", [1, 2, 4, 16])
def test_every_step_has_the_rows_that_trl_would_give_it(splits: int) -> None:
    sampler = StepSampler(LENGTHS, batch=16, splits=splits, seed=3)
    trl = SeedableRandomSampler(LENGTHS, data_seed=3)
    for epoch in range(3):
        sampler.set_epoch(epoch)
        trl.set_epoch(epoch)
        order, micro_batches = list(trl), list(sampler)
        assert len(micro_batches) == len(sampler)
        for step in range(7):
            dealt = [row for micro in micro_batches[step * splits : (step + 1) * splits] for row in micro]
            assert Counter(dealt) == Counter(order[step * 16 : (step + 1) * 16])


def test_rows_of_like_length_share_a_micro_batch() -> None:
    def padded(splits: int) -> int:
        sampler = StepSampler(LENGTHS, batch=16, splits=splits, seed=0)
        return sum(len(micro) * max(LENGTHS[row] for row in micro) for micro in sampler)

    assert padded(4) < 0.75 * padded(1)
    assert padded(16) == sum(LENGTHS)


@pytest.mark.parametrize("rows", [1, 2, 3, 16, 17, 18, 31, 33])
@pytest.mark.parametrize(
    ("batch", "processes", "splits"), [(16, 1, 4), (16, 2, 1), (16, 2, 4), (16, 4, 2), (1, 2, 1), (3, 8, 1)]
)
def test_processes_share_every_row_once_in_as_many_micro_batches_each(
    rows: int, batch: int, processes: int, splits: int
) -> None:
    samplers = [StepSampler(LENGTHS[:rows], batch, splits, 0, processes, rank) for rank in range(processes)]
    ranks = [list(sampler) for sampler in samplers]
    assert {len(micro_batches) for micro_batches in ranks} == {len(samplers[0])}
    assert all(micro for micro_batches in ranks for micro in micro_batches)
    dealt = Counter(row for micro_batches in ranks for micro in micro_batches for row in micro)
    # the row after the last one trains nothing
    del dealt[rows]
    assert dealt == Counter(range(rows))


def test_batching_by_length_sorts_within_pools_and_keeps_every_row() -> None:
    sampler = StepSampler(LENGTHS, batch=8, splits=1, seed=0, by_length=True)
    steps = sampler.steps(0)
    assert sorted(row for step in steps for row in step) == list(range(101))
    assert [len(step) for step in steps] == [8] * 12 + [5]
    spread = [max(LENGTHS[row] for row in step) - min(LENGTHS[row] for row in step) for step in steps[:-1]]
    assert max(spread) < 30
    assert steps != sampler.steps(1)
    means = [sum(LENGTHS[row] for row in step) for step in steps[:-1]]
    assert means != sorted(means)


def test_splits_follow_the_tokens() -> None:
    assert splits_for(16, 128, 2048) == 1
    assert splits_for(16, 129, 2048) == 2
    assert splits_for(16, 1000, 2048) == 8
    assert splits_for(16, 10**6, 2048) == 16
    assert splits_for(16, 10**6, 2048, processes=4) == 4
    assert splits_for(1, 10**6, 2048, processes=4) == 1


def table(tokenizer: PreTrainedTokenizerBase) -> pl.DataFrame:
    eos = tokenizer.eos_token_id
    rows = [(f"r:{n}", [5] * length + [eos], [IGNORED] * length + [eos], False) for n, length in enumerate(LENGTHS)]
    return pl.DataFrame(rows, schema=SCHEMA, orient="row")


def test_packed_rows_are_all_there_and_never_cut(tokenizer: PreTrainedTokenizerBase) -> None:
    packed = sequences(table(tokenizer), recipe(batching="packed", max_length=128))
    assert packed["input_ids"].list.len().max() <= 128
    assert packed.height < 50
    assert packed["seq_lengths"].list.sum().to_list() == packed["input_ids"].list.len().to_list()
    named = [name for names in packed["row"] for name in names.split(", ")]
    assert sorted(named) == sorted(f"r:{n}" for n in range(101))
    assert Counter(packed["seq_lengths"].explode()) == Counter(length + 1 for length in LENGTHS)


def test_a_packed_run_trains_each_row_as_if_alone(
    place_base: Callable[..., str], tokenizer: PreTrainedTokenizerBase, tmp_path: Path
) -> None:
    """One pack holds all rows, so its step is that of one batch with all of them."""
    place = {name: Bench(tmp_path / name, place_base(tmp_path / name), "") for name in ("packed", "batch")}
    logs = {}
    for name, settings in {"packed": {"batching": "packed", "batch_size": 1}, "batch": {"batch_size": 6}}.items():
        tokens = place_tokens(tmp_path / name, tokenizer, rows=6)
        spec = train_spec(place[name].base, tokens, [2], **settings | {"max_length": 512})
        do(spec, tmp_path / name)
        logs[name] = pl.read_parquet((tmp_path / name / spec["output"]).with_name("log.parquet"))
    assert logs["packed"].height == logs["batch"].height == 2
    for column in ("loss", "grad_norm"):
        assert logs["packed"][column].to_list() == pytest.approx(logs["batch"][column].to_list(), rel=1e-4)


def test_a_run_has_the_losses_of_plain_trl(
    place_base: Callable[..., str], tokenizer: PreTrainedTokenizerBase, tmp_path: Path
) -> None:
    """The same numbers step by step, although rows are dealt by length to four micro-batches."""
    bench = Bench(tmp_path, place_base(tmp_path), place_tokens(tmp_path, tokenizer, rows=29))
    folder = bench.run([2], schedule="cosine", epochs=2)
    rows = pl.read_parquet((tmp_path / bench.tokens).with_name("tokens.parquet"))
    tokenizer = load_tokenizer(tmp_path / bench.base)
    trainer = SFTTrainer(
        model=load_model((tmp_path / bench.base).with_name("model"), "fp32", torch.device("cpu")),
        args=SFTConfig(
            output_dir=str(tmp_path / "trl"),
            per_device_train_batch_size=8,
            learning_rate=3e-3,
            lr_scheduler_type="cosine",
            num_train_epochs=2,
            seed=0,
            data_seed=0,
            bf16=False,
            use_cpu=True,
            max_length=64,
            save_strategy="no",
            logging_steps=1,
            dataset_kwargs={"skip_prepare_dataset": True},
        ),
        train_dataset=Dataset(rows.select("input_ids", "labels").to_arrow()),
        processing_class=tokenizer,
    )
    trainer.train()
    expected = [entry["loss"] for entry in trainer.state.log_history if "loss" in entry]
    assert pl.read_parquet(folder / "log.parquet")["loss"].to_list() == pytest.approx(expected, rel=1e-5)
    found = load_file(folder / "epoch-02/model/model.safetensors")
    assert all(
        (tensor - found[name]).abs().max() < 1e-4
        for name, tensor in trainer.model.state_dict().items()
        if name in found
    )
