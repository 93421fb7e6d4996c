"""How jobs run on this site and in this run: one typed value, in one variable of the environment.

The workflow sets it from config.yaml; jobs, the worker that forks them and the processes of one training job inherit
it. Nothing scientific is in it.
"""

import os
from collections.abc import Iterator
from contextlib import contextmanager
from functools import lru_cache
from typing import Any, Literal

from pydantic import BaseModel, ConfigDict

VARIABLE = "SFT_ATLAS_RUNTIME"


class Runtime(BaseModel):
    """What config.yaml, the rules and a local run's worker tell a job.

    Attributes:
        device: Where models run.
        deepspeed: A DeepSpeed configuration for training on several GPUs; empty: FSDP2.
        micro_batch_size: Examples in memory at once while training; none: what the memory holds.
        scratch: A compute node's own disk, whose variables are the node's; empty: none.
        local_models: Copy a base to that disk once per node.
        save_minutes: Minutes between two saves of a run's resumable state.
        keep_state: Keep the state of finished runs.
        processes: GPUs that share this training job, one process each.
        worker: Socket of the process that has the libraries imported; empty: none.
        worker_owner: Process whose end is the end of that worker.
        worker_job: SLURM job in which it was started.
        traceback: Print one for errors that a user can mend, too.
    """

    model_config = ConfigDict(extra="forbid", frozen=True)

    device: Literal["auto", "cpu", "cuda"] = "auto"
    deepspeed: str = ""
    micro_batch_size: int | None = None
    scratch: str = ""
    local_models: bool = False
    save_minutes: float = 30
    keep_state: bool = False
    processes: int = 1
    worker: str = ""
    worker_owner: int = 0
    worker_job: str = ""
    traceback: bool = False


def current() -> Runtime:
    """The settings of this process."""
    return _read(os.environ.get(VARIABLE) or "{}")


def change(**fields: Any) -> Runtime:
    """Change some settings of this process, and of all that it starts from now on."""
    changed = Runtime.model_validate(current().model_dump() | fields)
    os.environ[VARIABLE] = changed.model_dump_json(exclude_defaults=True)
    return changed


@contextmanager
def changed(**fields: Any) -> Iterator[Runtime]:
    """The same for the duration of a block."""
    before = os.environ.get(VARIABLE)
    try:
        yield change(**fields)
    finally:
        if before is None:
            os.environ.pop(VARIABLE, None)
        else:
            os.environ[VARIABLE] = before


@lru_cache(maxsize=8)
def _read(text: str) -> Runtime:
    return Runtime.model_validate_json(text)
