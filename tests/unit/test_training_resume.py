"""Runs that are killed and started again end with the bytes of a run that was left alone."""

import multiprocessing
import os
import random
import signal
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from transformers import PreTrainedTokenizerBase

from sft_atlas.runtime.settings import VARIABLE, Runtime
from tests.unit.helpers import do
from tests.unit.test_train import Bench, contents, place_tokens, train_spec

# The libraries are imported once, in the process that the others are forks of.
PROCESSES = multiprocessing.get_context("forkserver")
PROCESSES.set_forkserver_preload(["sft_atlas.stages.train.run", "tests.unit.test_training_resume"])

KINDS: dict[str, dict[str, Any]] = {
    "full, constant": {"method": "full", "schedule": "constant"},
    "full, cosine": {"method": "full", "schedule": "cosine", "warmup_steps": 2},
    "LoRA, constant": {"method": "lora", "lora": {"rank": 2, "dropout": 0.1}, "schedule": "constant"},
    "LoRA, cosine": {"method": "lora", "lora": {"rank": 2, "dropout": 0.1}, "schedule": "cosine"},
}
KEPT = [1, 2, 3]
# Where a kill hurts most: (module, function, whether before or after it has done its work).
MOMENTS = {
    "while the weights of a state are written": ("sft_atlas.training.trainer.Trainer.save_model", "after"),
    "while the optimiser's state is written": ("torch.save", "after"),
    "before a state is recorded": ("sft_atlas.training.callbacks.complete", "before"),
    "after a state is recorded": ("sft_atlas.training.callbacks.complete", "after"),
    "while an epoch is written": ("sft_atlas.training.callbacks.save", "after"),
    "before an epoch is recorded": ("sft_atlas.training.callbacks.write_record", "before"),
    "between two epochs": ("sft_atlas.training.callbacks.write_record", "after"),
    "before the log is recorded": ("sft_atlas.stages.train.run.write_record", "before"),
    "before the manifest is written": ("sft_atlas.stages.train.run.write_json", "before"),
}


def attempt(spec: dict[str, Any], root: Path, settings: dict[str, str], moment: tuple[str, str, int] | None) -> None:
    """In a process of its own: do the job, and be killed at the n-th call of a function, before or after it."""
    os.environ.update(settings)
    if moment:
        _kill_at(*moment)
    do(spec, root)


def _kill_at(place: str, when: str, count: int) -> None:
    import importlib

    parts = place.split(".")
    depth = next(n for n in range(len(parts) - 1, 0, -1) if not parts[n - 1][0].isupper())
    owner: Any = importlib.import_module(".".join(parts[:depth]))
    for name in parts[depth:-1]:
        owner = getattr(owner, name)
    original, calls = getattr(owner, parts[-1]), [0]

    def deadly(*args: Any, **named: Any) -> Any:
        calls[0] += 1
        last = calls[0] == count
        if last and when == "before":
            os.kill(os.getpid(), signal.SIGKILL)
        result = original(*args, **named)
        if last:
            os.kill(os.getpid(), signal.SIGKILL)
        return result

    setattr(owner, parts[-1], deadly)


class Runner:
    """Starts one run again and again in processes of its own."""

    def __init__(self, bench: Bench, **recipe: Any) -> None:
        self.root = bench.root
        self.spec = train_spec(bench.base, bench.tokens, KEPT, **recipe)
        self.folder = (bench.root / self.spec["output"]).parent

    def start(self, moment: tuple[str, str, int] | None = None, minutes: float = 0) -> Any:
        """A process that trains, saving its state after every step unless told otherwise."""
        settings = {VARIABLE: Runtime(save_minutes=minutes, device="cpu").model_dump_json()}
        process = PROCESSES.Process(target=attempt, args=(self.spec, self.root, settings, moment))
        process.start()
        return process

    def finish(self) -> dict[str, bytes]:
        """Train undisturbed from what is there; what the run has made."""
        process = self.start()
        process.join(120)
        assert process.exitcode == 0
        return contents(self.folder)

    def kill(self, *moment: Any) -> bool:
        """Kill it at a moment; whether it was reached."""
        process = self.start(moment)
        process.join(120)
        assert process.exitcode in (0, -signal.SIGKILL)
        return bool(process.exitcode)

    def kill_after(self, seconds: float) -> bool:
        process = self.start()
        time.sleep(seconds)
        process.kill()
        process.join()
        return bool(process.exitcode)


@pytest.fixture(scope="module")
def place(place_base: Callable[..., str], tokenizer: PreTrainedTokenizerBase) -> Callable[[Path], Bench]:
    return lambda root: Bench(root, place_base(root), place_tokens(root, tokenizer))


@pytest.fixture(scope="module")
def undisturbed(
    place: Callable[[Path], Bench], tmp_path_factory: pytest.TempPathFactory
) -> Callable[[str], tuple[dict[str, bytes], float]]:
    """By kind of run: what one has made that was left alone and saved no state, and how long it took."""
    made: dict[str, tuple[dict[str, bytes], float]] = {}

    def of(kind: str) -> tuple[dict[str, bytes], float]:
        if kind not in made:
            runner = Runner(place(tmp_path_factory.mktemp("alone")), **KINDS[kind])
            process = runner.start(minutes=1000)
            began = time.monotonic()
            process.join(120)
            assert process.exitcode == 0
            made[kind] = contents(runner.folder), time.monotonic() - began
        return made[kind]

    return of


QUICK = [
    ("full, cosine", "while the optimiser's state is written", 3),
    ("LoRA, constant", "between two epochs", 1),
    ("LoRA, cosine", "while the weights of a state are written", 5),
]
SLOW = [(kind, moment, count) for count, moment in enumerate(MOMENTS) for kind in list(KINDS)[count % 2 :: 2]]


@pytest.mark.parametrize(("kind", "moment", "count"), QUICK)
def test_a_killed_run_ends_with_the_same_bytes(
    place: Callable[[Path], Bench], undisturbed: Any, tmp_path: Path, kind: str, moment: str, count: int
) -> None:
    runner = Runner(place(tmp_path), **KINDS[kind])
    assert runner.kill(*MOMENTS[moment], count)
    assert runner.finish() == undisturbed(kind)[0]


@pytest.mark.slow
@pytest.mark.parametrize(("kind", "moment", "count"), SLOW)
def test_a_run_killed_where_it_hurts_ends_with_the_same_bytes(
    place: Callable[[Path], Bench], undisturbed: Any, tmp_path: Path, kind: str, moment: str, count: int
) -> None:
    """Each moment for two kinds of run, and a second time in the run that goes on."""
    runner = Runner(place(tmp_path), **KINDS[kind])
    assert runner.kill(*MOMENTS[moment], 1)
    runner.kill(*MOMENTS[moment], 2)
    assert runner.finish() == undisturbed(kind)[0]


@pytest.mark.slow
@pytest.mark.parametrize("number", range(20))
def test_a_run_killed_at_any_time_ends_with_the_same_bytes(
    place: Callable[[Path], Bench], undisturbed: Any, tmp_path: Path, number: int
) -> None:
    """Twenty random times, five for each kind; every second run is killed twice."""
    kind, chance = list(KINDS)[number % 4], random.Random(number)
    expected, seconds = undisturbed(kind)
    runner = Runner(place(tmp_path), **KINDS[kind])
    for _ in range(1 + number % 2):
        # states after every step make a run slower than the undisturbed one
        runner.kill_after(chance.uniform(0.02, 1.5) * seconds)
    assert runner.finish() == expected
