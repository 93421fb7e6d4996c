"""What stops a run, what does not, what is kept: warnings of the scheduler, bad numbers, memory, disks, old states."""

import errno
import os
import re
import shutil
import signal
import weakref
from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import polars as pl
import pytest
import torch
from transformers import PreTrainedModel, PreTrainedTokenizerBase

from sft_atlas.files import read_json, write_json
from sft_atlas.runtime.settings import VARIABLE
from sft_atlas.runtime.stopping import StoppedError, StopRequest
from sft_atlas.stages.train import run
from sft_atlas.training import fit
from sft_atlas.training.callbacks import StateKeeper
from sft_atlas.training.footprint import state_bytes
from sft_atlas.training.trainer import DivergedError, Trainer, disk_is_full
from tests.unit.helpers import do, runtime
from tests.unit.test_train import Bench, contents, place_tokens, train_spec, weights


@pytest.fixture(scope="module")
def place(place_base: Callable[..., str], tokenizer: PreTrainedTokenizerBase) -> Callable[[Path], Bench]:
    return lambda root: Bench(root, place_base(root), place_tokens(root, tokenizer))


@pytest.fixture
def bench(place: Callable[[Path], Bench], tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Bench:
    """A results folder in which the state is saved after every step."""
    runtime(monkeypatch, save_minutes=0)
    return place(tmp_path / "results")


def folder_of(bench: Bench, kept: list[int], **recipe: Any) -> Path:
    return (bench.root / train_spec(bench.base, bench.tokens, kept, **recipe)["output"]).parent


def states(folder: Path) -> list[str]:
    return sorted(path.name for path in (folder / "state").glob("*") if path.is_dir())


def at_step(monkeypatch: pytest.MonkeyPatch, step: int, what: Callable[[], Any]) -> None:
    """Have something happen in the middle of a step, once."""
    original, happened = Trainer.training_step, []

    def training_step(self: Trainer, *args: Any, **named: Any) -> Any:
        if self.state.global_step == step and not happened:
            happened.append(step)
            what()
        return original(self, *args, **named)

    monkeypatch.setattr(Trainer, "training_step", training_step)


@pytest.mark.parametrize("step", [1, 2, 4])
def test_a_run_that_is_asked_to_stop_saves_and_goes_on_to_the_same_bytes(
    place: Callable[[Path], Bench], tmp_path: Path, monkeypatch: pytest.MonkeyPatch, step: int
) -> None:
    """SIGTERM within an epoch, in its last step, and in the next epoch; no state would have been due."""
    alone, bench = place(tmp_path / "alone"), place(tmp_path / "stopped")
    alone.run([1, 2], schedule="cosine")
    at_step(monkeypatch, step, lambda: os.kill(os.getpid(), signal.SIGTERM))
    with pytest.raises(
        StoppedError, match=rf"after step {step + 1}: state saved at step {step + 1}; the same job goes on"
    ):
        bench.run([1, 2], schedule="cosine")
    folder = folder_of(bench, [1, 2], schedule="cosine")
    assert states(folder) == [f"checkpoint-{step + 1}"]
    assert not list(folder.glob("train-*.json"))
    spec = train_spec(bench.base, bench.tokens, [1, 2], schedule="cosine")
    assert do(spec, bench.root)["went_on_from_step"] == step + 1
    assert contents(folder) == contents(folder_of(alone, [1, 2], schedule="cosine"))
    assert signal.getsignal(signal.SIGTERM) == signal.SIG_DFL


def test_a_request_to_stop_in_the_very_last_step_lets_the_run_end(
    bench: Bench, monkeypatch: pytest.MonkeyPatch
) -> None:
    at_step(monkeypatch, 5, lambda: os.kill(os.getpid(), signal.SIGTERM))
    folder = bench.run([1, 2])
    assert bench.manifest([1, 2])["steps"] == 6
    assert not (folder / "state").exists()


def stop_after(bench: Bench, monkeypatch: pytest.MonkeyPatch, step: int, kept: list[int], **recipe: Any) -> Path:
    with monkeypatch.context() as patch:
        at_step(patch, step - 1, lambda: os.kill(os.getpid(), signal.SIGTERM))
        with pytest.raises(StoppedError):
            bench.run(kept, **recipe)
    return folder_of(bench, kept, **recipe)


@pytest.mark.parametrize("fault", ["torn", "no record", "another run", "another base", "more processes"])
def test_a_state_that_is_not_just_this_runs_is_moved_aside(
    place: Callable[[Path], Bench],
    bench: Bench,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    caplog: pytest.LogCaptureFixture,
    fault: str,
) -> None:
    caplog.set_level("INFO", "sft_atlas")
    folder = stop_after(bench, monkeypatch, 4, [2])
    record = folder / "state/checkpoint-4.json"
    if fault == "torn":
        file = folder / "state/checkpoint-4/optimizer.pt"
        file.write_bytes(file.read_bytes()[:-1])
    elif fault == "no record":
        record.unlink()
    else:
        changed = {
            "another run": {"run": "12345678"},
            "another base": {"base": "0"},
            "more processes": {"processes": 2},
        }
        content = read_json(record)
        write_json(record, content | {"made_from": content["made_from"] | changed[fault]})
    spec = train_spec(bench.base, bench.tokens, [2])
    with monkeypatch.context() as patch:
        runtime(patch, save_minutes=1000)
        patch.setattr(run.shutil, "rmtree", lambda *_, **__: None)
        assert do(spec, bench.root)["went_on_from_step"] is None
    assert states(folder) == ["aside-1-checkpoint-4"]
    assert "not a complete state of this run; moved to aside-1-checkpoint-4" in caplog.text
    shutil.rmtree(folder / "state")
    alone = place(tmp_path / "alone")
    assert contents(folder) == contents(alone.run([2]))


def test_an_epoch_that_is_lost_behind_the_state_is_trained_again(
    place: Callable[[Path], Bench], bench: Bench, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    folder = stop_after(bench, monkeypatch, 5, [1, 2])
    (folder / "epoch-01/checkpoint.json").unlink()
    bench.run([1, 2])
    assert contents(folder) == contents(place(tmp_path / "alone").run([1, 2]))


def test_a_kept_state_is_where_a_longer_run_begins(
    place: Callable[[Path], Bench], bench: Bench, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    runtime(monkeypatch, save_minutes=1000, keep_state=True)
    folder = bench.run([1])
    assert states(folder) == ["checkpoint-3"]
    longer = train_spec(bench.base, bench.tokens, [1, 3]) | {"output": "runs/tiny/sums/longer/train-1.json"}
    shutil.copytree(folder, (bench.root / longer["output"]).parent)
    longer["identity"]["run"] = train_spec(bench.base, bench.tokens, [1])["identity"]["run"]
    longer["identity"]["settings"] = train_spec(bench.base, bench.tokens, [1])["identity"]["settings"]
    longer["identity"]["settings"]["recipe"].pop("epochs", None)
    assert do(longer, bench.root)["went_on_from_step"] == 3
    alone = place(tmp_path / "alone")
    assert weights((bench.root / longer["output"]).parent, 3).keys()
    expected = weights(alone.run([3]), 3)
    found = weights((bench.root / longer["output"]).parent, 3)
    assert all(torch.equal(found[name], tensor) for name, tensor in expected.items())


def test_a_loss_that_is_no_number_stops_before_the_weights_are_spoilt(
    bench: Bench, monkeypatch: pytest.MonkeyPatch
) -> None:
    original = Trainer.compute_loss

    def compute_loss(self: Trainer, *args: Any, **named: Any) -> Any:
        loss = original(self, *args, **named)
        return loss * float("nan") if self.state.global_step == 4 else loss

    with monkeypatch.context() as patch:
        patch.setattr(Trainer, "compute_loss", compute_loss)
        with pytest.raises(DivergedError, match="step 5 of 6: the loss is nan") as caught:
            bench.run([1, 2])
    folder = folder_of(bench, [1, 2])
    named = re.findall(r"r:\d+", str(caught.value))
    seen = {row for batch in rows_by_step(bench)[4:5] for row in batch}
    assert len(named) == 8
    assert set(named) == seen
    assert states(folder) == ["checkpoint-4"]
    assert (folder / "epoch-01/checkpoint.json").exists()
    assert do(train_spec(bench.base, bench.tokens, [1, 2]), bench.root)["went_on_from_step"] == 4


def rows_by_step(bench: Bench) -> list[list[str]]:
    """The rows of each step as TRL's own sampler gives them, from plain TRL."""
    from accelerate.data_loader import SeedableRandomSampler
    from torch.utils.data import BatchSampler

    ids = pl.read_parquet((bench.root / bench.tokens).with_name("tokens.parquet"))["row"].to_list()
    sampler = SeedableRandomSampler(ids, data_seed=0)
    steps: list[list[str]] = []
    for epoch in range(2):
        sampler.set_epoch(epoch)
        steps += [[ids[row] for row in batch] for batch in BatchSampler(sampler, 8, drop_last=False)]
    return steps


def test_a_loss_that_explodes_stops_the_run(bench: Bench) -> None:
    with pytest.raises(DivergedError, match=r"has been above 2 times that of a model that knows nothing \(5.99\)"):
        bench.run([9], learning_rate=9.0, max_gradient_norm=1e9)


def test_where_a_gpus_memory_runs_out_smaller_micro_batches_go_on(
    place: Callable[[Path], Bench], bench: Bench, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The GPU is simulated where it would fail: a step of more than two rows has no memory, from the fourth step on."""
    original, load, models, held = Trainer.training_step, fit.load, [], []

    def loading(*args: Any) -> Any:
        held.append(sum(model() is not None for model in models))
        loaded = load(*args)
        models.append(weakref.ref(loaded[1]))
        return loaded

    def training_step(self: Trainer, model: Any, inputs: Any, *rest: Any) -> Any:
        if self.state.global_step >= 3 and inputs["input_ids"].shape[0] > 3:
            raise torch.OutOfMemoryError("CUDA out of memory")
        return original(self, model, inputs, *rest)

    with monkeypatch.context() as patch:
        patch.setattr(Trainer, "training_step", training_step)
        patch.setattr(fit, "load", loading)
        facts = do(train_spec(bench.base, bench.tokens, [1, 2]), bench.root)
    assert facts["out_of_memory_with_splits"] == [1, 2]
    assert facts["micro_batches_per_step"] == 4
    assert facts["went_on_from_step"] == 3
    # the memory of a model that did not fit is free before the next one is loaded
    assert held == [0, 0, 0]
    alone = place(tmp_path / "alone").run([1, 2])
    losses, expected = (pl.read_parquet(run_ / "log.parquet")["loss"] for run_ in (folder_of(bench, [1, 2]), alone))
    assert losses.to_list() == pytest.approx(expected.to_list(), rel=1e-5)


def test_processes_that_hold_one_row_each_are_not_given_less(bench: Bench, monkeypatch: pytest.MonkeyPatch) -> None:
    """Two processes, simulated: with eight rows a step, four micro-batches leave each of them one row."""
    tried: list[int | None] = []

    def fit_in_processes(_: Any, splits: int | None, *rest: Any) -> Any:
        tried.append(splits)
        error = torch.OutOfMemoryError("CUDA out of memory")
        error.splits = min(splits or 1, 4)  # type: ignore[attr-defined]
        raise error

    runtime(monkeypatch, save_minutes=0, processes=2)
    monkeypatch.setattr(run, "fit_in_processes", fit_in_processes)
    with pytest.raises(ValueError, match="one row of 64 tokens needs about"):
        bench.run([1])
    assert tried == [None, 2, 4]


def test_where_not_even_one_row_fits_the_message_says_what_would(bench: Bench, monkeypatch: pytest.MonkeyPatch) -> None:
    def training_step(*_: Any) -> Any:
        raise torch.OutOfMemoryError("CUDA out of memory")

    monkeypatch.setattr(Trainer, "training_step", training_step)
    with pytest.raises(ValueError, match=r"one row of 64 tokens needs about .* GB .*paged_adamw_8bit.*method: lora"):
        bench.run([1])


def test_state_bytes_are_those_of_the_published_arithmetic() -> None:
    billion = 10**9
    assert state_bytes(7 * billion, 7 * billion, "fp32", "adamw") == 112e9
    assert state_bytes(7 * billion, 7 * billion, "bf16", "paged_adamw_8bit") == 70e9
    assert state_bytes(7 * billion, 7 * billion, "pure_bf16", "adamw") == 56e9
    assert state_bytes(7 * billion, 0, "fp32", "adamw") == 28e9


@pytest.mark.parametrize("failing", ["torch.save", "safetensors", "fsync"])
def test_a_full_disk_at_a_state_loses_nothing(
    place: Callable[[Path], Bench],
    bench: Bench,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    caplog: pytest.LogCaptureFixture,
    failing: str,
) -> None:
    """The disk is full from the second state on: training goes on, and the first state is still there if it is cut."""
    save, save_pretrained, fsync = torch.save, PreTrainedModel.save_pretrained, os.fsync

    def is_late(place: Any) -> bool:
        return "checkpoint-" in str(place) and "checkpoint-1" not in str(place)

    def torch_save(content: Any, file: Any, *rest: Any, **named: Any) -> None:
        if is_late(file):
            Path(str(file)).write_bytes(b"half")
            raise OSError(errno.ENOSPC, "No space left on device")
        save(content, file, *rest, **named)

    def save_weights(self: Any, folder: str, **named: Any) -> None:
        if is_late(folder):
            raise ValueError("Error while serializing: I/O error: No space left on device (os error 28)")
        save_pretrained(self, folder, **named)

    def to_disk(descriptor: int) -> None:
        # a network file system, or a quota, may say so only now
        if is_late(Path(f"/proc/self/fd/{descriptor}").readlink()):
            raise OSError(errno.EDQUOT, "Disk quota exceeded")
        fsync(descriptor)

    with monkeypatch.context() as patch:
        if failing == "torch.save":
            patch.setattr(torch, "save", torch_save)
        elif failing == "safetensors":
            patch.setattr(PreTrainedModel, "save_pretrained", save_weights)
        else:
            patch.setattr(os, "fsync", to_disk)
        at_step(patch, 3, lambda: (_ for _ in ()).throw(KeyboardInterrupt))
        with pytest.raises(KeyboardInterrupt):
            bench.run([1, 2])
    folder = folder_of(bench, [1, 2])
    assert "no space to save the state" in caplog.text
    assert states(folder) == ["checkpoint-1"]
    bench.run([1, 2])
    assert contents(folder) == contents(place(tmp_path / "alone").run([1, 2]))


def test_a_full_disk_at_an_epoch_is_an_error_and_the_state_stays(
    place: Callable[[Path], Bench], bench: Bench, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from sft_atlas.training import callbacks

    def save(*_: Any) -> None:
        raise OSError(errno.ENOSPC, "No space left on device")

    with monkeypatch.context() as patch:
        patch.setattr(callbacks, "save", save)
        with pytest.raises(OSError, match="No space left"):
            bench.run([1, 2])
    folder = folder_of(bench, [1, 2])
    assert states(folder) == ["checkpoint-2"]
    assert not list(folder.rglob("*.tmp"))
    bench.run([1, 2])
    assert contents(folder) == contents(place(tmp_path / "alone").run([1, 2]))


def test_what_a_full_disk_looks_like() -> None:
    assert disk_is_full(OSError(errno.ENOSPC, "x"))
    assert disk_is_full(RuntimeError("[enforce fail at inline_container.cc:664] . unexpected pos 64 vs 0"))
    assert disk_is_full(ValueError("Error while serializing: I/O error: No space left on device (os error 28)"))
    assert not disk_is_full(OSError(errno.EACCES, "x"))
    assert not disk_is_full(RuntimeError("shape mismatch"))


def test_pure_bf16_is_a_choice_and_says_what_it_does(bench: Bench, caplog: pytest.LogCaptureFixture) -> None:
    """At a small learning rate most weights do not move in bf16 alone; with fp32 weights all do."""
    small = {"learning_rate": 1e-5, "schedule": "constant"}
    facts = do(train_spec(bench.base, bench.tokens, [1], precision="pure_bf16", **small), bench.root)
    assert facts["trained_in"] == "bfloat16"
    assert "WARNING" in caplog.text
    assert "weights and optimiser are in bf16 alone" in caplog.text
    caplog.clear()
    before = {name: tensor.to(torch.bfloat16) for name, tensor in load_base(bench).items()}
    after = weights(folder_of(bench, [1], precision="pure_bf16", **small), 1)
    moved = sum(int((after[name] != before[name]).sum()) for name in before) / sum(t.numel() for t in before.values())
    assert moved < 0.2
    do(train_spec(bench.base, bench.tokens, [1], precision="bf16", **small), bench.root)
    assert "in bf16 alone" not in caplog.text


def load_base(bench: Bench) -> dict[str, torch.Tensor]:
    from safetensors.torch import load_file

    return load_file((bench.root / bench.base).with_name("model") / "model.safetensors")


@pytest.mark.parametrize("elsewhere", [0.0, 1.0])
def test_processes_save_together_whoevers_time_has_come(elsewhere: float) -> None:
    """Clocks differ: a process that saved while another trained on would wait for it for ever."""
    accelerator = SimpleNamespace(num_processes=2, device="cpu", reduce=lambda votes, how: votes + elsewhere)
    trainer: Any = SimpleNamespace(accelerator=accelerator, steps_per_epoch=10)
    lease: Any = SimpleNamespace(check=lambda: None)
    keeper = StateKeeper(trainer, {}, lease, StopRequest(), interval=1e9, last=1, keep=False)
    control: Any = SimpleNamespace(should_save=False, should_training_stop=False)
    state: Any = SimpleNamespace(global_step=3)
    keeper.on_step_end(None, state, control)  # type: ignore[arg-type]
    assert control.should_save == bool(elsewhere)


def test_the_interval_between_states_is_the_configurations(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv(VARIABLE, raising=False)
    assert fit.save_seconds() == 1800
    runtime(monkeypatch, save_minutes=2.5)
    assert fit.save_seconds() == 150
