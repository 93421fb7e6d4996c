"""A run on several GPUs: one process each, the model sharded over them by FSDP2 through accelerate."""

import contextlib
import os
import signal
import socket
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import polars as pl
import torch

from sft_atlas.errors import CellError
from sft_atlas.files import read_json, write_json, write_table
from sft_atlas.runtime import log
from sft_atlas.runtime.stopping import StopRequest, stop_request

PATHS = ("base", "tokens", "states", "progress", "lease")


def fit_in_processes(request: Any, splits: int | None, state: Path | None, processes: int, stop: StopRequest) -> Any:
    """Train in several processes, and pass on a request to stop; returns what the first of them did.

    Raises:
        torch.OutOfMemoryError: in one of them, with the number of micro-batches as its attribute `splits`.
        CellError: the run has diverged.
        RuntimeError: one of them failed; its error is in the log above.
    """
    from sft_atlas.training.fit import Trained

    request.states.mkdir(parents=True, exist_ok=True)
    order, answer = request.states / "order.json", request.states / "answer.json"
    answer.unlink(missing_ok=True)
    plain: dict[str, Any] = {name: str(getattr(request, name)) for name in PATHS}
    plain |= {"settings": request.settings.model_dump(mode="json"), "made_from": request.made_from}
    plain["records"] = {str(epoch): str(record) for epoch, record in request.records.items()}
    write_json(order, {"request": plain, "splits": splits, "state": str(state) if state else None})
    common = os.environ | _meeting_place() | {"WORLD_SIZE": str(processes), "LOCAL_WORLD_SIZE": str(processes)}
    started = [
        subprocess.Popen(
            [sys.executable, "-m", "sft_atlas.training.parallel", str(order)],
            env=common | {"RANK": str(rank), "LOCAL_RANK": str(rank)},
        )
        for rank in range(processes)
    ]
    statuses = _wait(started, stop)
    said = read_json(answer) if answer.exists() else {}
    if said.get("out_of_memory"):
        error = torch.OutOfMemoryError(said["out_of_memory"])
        error.splits = said["splits"]  # type: ignore[attr-defined]
        raise error
    if said.get("diverged"):
        raise CellError(said["diverged"])
    if any(statuses):
        raise RuntimeError(f"of {processes} training processes, some failed: {statuses}")
    history = pl.read_parquet(answer.with_suffix(".parquet"))
    return Trained(history, said["step"], said["finished"], said["facts"])


def main(order: Path) -> int:
    """One of the processes: train its share; the first writes what came of it."""
    from sft_atlas.training.fit import Request, fit
    from sft_atlas.training.lease import Lease
    from sft_atlas.training.memory import is_out_of_memory
    from sft_atlas.training.run_settings import Settings
    from sft_atlas.training.trainer import DivergedError

    log.set_up()
    content = read_json(order)
    plain, answer = content["request"], order.with_name("answer.json")
    plain |= {name: Path(plain[name]) for name in PATHS}
    plain["records"] = {int(epoch): Path(record) for epoch, record in plain["records"].items()}
    plain["settings"] = Settings.model_validate(plain["settings"])
    request = Request(**plain)
    with stop_request() as stop:
        try:
            state = Path(content["state"]) if content["state"] else None
            trained = fit(request, Lease(request.lease), stop, content["splits"], state)
        except DivergedError as error:
            write_json(answer, {"diverged": str(error)})
            return 1
        except (RuntimeError, MemoryError) as error:
            if not is_out_of_memory(error):
                raise
            write_json(answer, {"out_of_memory": str(error), "splits": getattr(error, "splits", None)})
            return 1
    if os.environ["RANK"] == "0":
        write_table(answer.with_suffix(".parquet"), trained.history)
        write_json(answer, {"step": trained.step, "finished": trained.finished, "facts": trained.facts})
    with contextlib.suppress(RuntimeError, ValueError):
        torch.distributed.destroy_process_group()
    return 0


def _wait(started: list[subprocess.Popen[bytes]], stop: StopRequest) -> list[int]:
    """Wait for all; if one fails the others cannot go on, and a request to stop is passed on to each."""
    told = False
    while any(process.poll() is None for process in started):
        if stop.received and not told:
            told = True
            _signal(started, signal.SIGTERM)
        if any(process.poll() for process in started):
            # the one that failed may still be followed by others with the same, clearer, error
            time.sleep(2)
            _signal(started, signal.SIGKILL)
        time.sleep(0.1)
    return [process.wait() for process in started]


def _signal(started: list[subprocess.Popen[bytes]], number: int) -> None:
    for process in started:
        if process.poll() is None:
            process.send_signal(number)


def _meeting_place() -> dict[str, str]:
    """Where the processes of one machine find each other."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return {"MASTER_ADDR": "127.0.0.1", "MASTER_PORT": str(probe.getsockname()[1])}


if __name__ == "__main__":
    sys.exit(main(Path(sys.argv[1])))
