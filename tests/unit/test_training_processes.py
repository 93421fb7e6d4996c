"""Several processes, each with a shard of the model (FSDP2, here over gloo on a CPU), train what one process trains."""

import multiprocessing
import os
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import polars as pl
import pytest
from safetensors.torch import load_file
from transformers import PreTrainedTokenizerBase

from sft_atlas.runtime.settings import VARIABLE, Runtime
from sft_atlas.runtime.stopping import StoppedError
from tests.unit.helpers import do, runtime
from tests.unit.test_train import Bench, contents, place_tokens, train_spec

TWO: dict[str, Any] = {"processes": 2, "device": "cpu"}


def trained(bench: Bench, monkeypatch: pytest.MonkeyPatch, settings: dict[str, Any], **recipe: Any) -> Path:
    """Train two epochs in a results folder; the run's folder."""
    runtime(monkeypatch, **settings)
    spec = train_spec(bench.base, bench.tokens, [1, 2], **recipe)
    facts = do(spec, bench.root)
    assert facts["processes"] == settings.get("processes", 1)
    assert facts["sharded"] == ("processes" in settings)
    return (bench.root / spec["output"]).parent


@pytest.mark.parametrize("method", [{"method": "full"}, {"method": "lora", "lora": {"rank": 2}}])
def test_two_processes_train_what_one_trains(
    place_base: Callable[..., str],
    tokenizer: PreTrainedTokenizerBase,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    method: dict[str, Any],
) -> None:
    """The last step of an epoch has 5 rows of 8: processes get unequal shares, and none is trained twice."""
    logs, weights = {}, {}
    for name, settings in {"one": {"device": "cpu"}, "two": TWO}.items():
        root = tmp_path / name
        bench = Bench(root, place_base(root), place_tokens(root, tokenizer, rows=21))
        folder = trained(bench, monkeypatch, settings, schedule="cosine", epochs=2, **method)
        logs[name] = pl.read_parquet(folder / "log.parquet")
        weights[name] = load_file(next((folder / "epoch-02/model").glob("*model.safetensors")))
    for column in ("loss", "grad_norm", "learning_rate"):
        assert logs["two"][column].to_list() == pytest.approx(logs["one"][column].to_list(), rel=1e-5)
    assert weights["one"].keys() == weights["two"].keys()
    for name, tensor in weights["one"].items():
        assert (tensor - weights["two"][name]).abs().max() < 1e-3 * tensor.abs().max()


def train_apart(spec: dict[str, Any], root: Path) -> None:
    """In a process of its own, which can be asked to stop."""
    os.environ[VARIABLE] = Runtime(**TWO, save_minutes=0).model_dump_json()
    try:
        do(spec, root)
    except StoppedError:
        sys.exit(143)


@pytest.mark.slow
@pytest.mark.parametrize("method", [{"method": "full"}, {"method": "lora", "lora": {"rank": 2}}])
def test_two_processes_that_are_stopped_go_on_to_the_same_bytes(
    place_base: Callable[..., str], tokenizer: PreTrainedTokenizerBase, tmp_path: Path, method: dict[str, Any]
) -> None:
    folders = {}
    for name in ("alone", "stopped"):
        root = tmp_path / name
        bench = Bench(root, place_base(root), place_tokens(root, tokenizer, rows=41))
        spec = train_spec(bench.base, bench.tokens, [2], schedule="cosine", epochs=2, **method)
        folders[name] = (root / spec["output"]).parent
        process = multiprocessing.get_context("spawn").Process(target=train_apart, args=(spec, root))
        process.start()
        if name == "stopped":
            deadline = time.monotonic() + 120
            while not list(folders[name].glob("state/checkpoint-*.json")) and time.monotonic() < deadline:
                time.sleep(0.05)
            process.terminate()
            process.join(120)
            assert process.exitcode == 143
            assert list(folders[name].glob("state/checkpoint-*.json"))
            process = multiprocessing.get_context("spawn").Process(target=train_apart, args=(spec, root))
            process.start()
        process.join(240)
        assert process.exitcode == 0
    assert contents(folders["stopped"]) == contents(folders["alone"])
