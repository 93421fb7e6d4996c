"""One owner at a time for a run's folder, on any shared file system.

Owners are numbered. To own a folder is to have made the file with the highest number in `lease/`; making a file that
must not exist yet (a hard link to a finished one) is atomic on local disks and on NFS, so of many takers of one number
exactly one wins. No file lock is used, since many clusters mount without them. The owner touches its file now and then;
an owner is dead when its process is gone (same machine), when its SLURM job was started again, or when its file has
not been touched for a while by the clock of who waits, whatever the clocks of two machines say. An owner that was only
asleep finds a higher number when it wakes, and stops before it writes anything.
"""

import contextlib
import logging
import os
import platform
import threading
import time
import uuid
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from sft_atlas.files import read_json, write_json
from sft_atlas.runtime.processes import is_alive, machine, process_start

LOG = logging.getLogger(__name__)

BEAT_SECONDS = 20.0
# Attributes may be cached for a minute on NFS; three missed minutes are no delay of the network.
PATIENCE_SECONDS = 180.0
RELEASED = {"released": True}


class LeaseLostError(RuntimeError):
    """Another process has taken the folder over."""


class Lease:
    """The right to write below a folder, by the file that says so."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self._ended = threading.Event()

    def check(self) -> None:
        """Ask before anything is published.

        Raises:
            LeaseLostError: another process owns the folder by now.
        """
        if newest(self.path.parent) != self.path:
            raise LeaseLostError(
                f"{self.path.parent.parent}: another process has taken this run over while this one was not heard of; "
                "this one stops without writing"
            )

    @contextmanager
    def kept_alive(self, beat: float) -> Iterator["Lease"]:
        """Touch the file now and then while the block runs; afterwards let the next owner in at once."""
        thread = threading.Thread(target=self._keep_alive, args=(beat,), daemon=True)
        thread.start()
        try:
            yield self
        finally:
            self._ended.set()
            thread.join()
            self._release()

    def _release(self) -> None:
        if newest(self.path.parent) == self.path:
            write_json(self.path, RELEASED)

    def _keep_alive(self, beat: float) -> None:
        while not self._ended.wait(beat):
            # a folder that is deleted or out of reach for now is noticed by `check`
            with contextlib.suppress(OSError):
                os.utime(self.path)


@contextmanager
def lease(folder: Path, beat: float = BEAT_SECONDS, patience: float = PATIENCE_SECONDS) -> Iterator[Lease]:
    """Own a folder while the block runs; waits, and says so, as long as another process does."""
    place = folder / "lease"
    place.mkdir(parents=True, exist_ok=True)
    me = identity()
    seen: tuple[Path, float] | None = None
    since = said = time.monotonic()
    while True:
        holder = newest(place)
        if holder is None or _free(holder, me):
            taken = _take(place, holder, me)
            if taken:
                break
            continue
        try:
            touched = (holder, holder.stat().st_mtime)
        except FileNotFoundError:
            continue
        now = time.monotonic()
        if touched != seen:
            seen, since = touched, now
        elif now - since > patience:
            taken = _take(place, holder, me)
            if taken:
                break
            continue
        if now - said > 60:
            LOG.info(f"waiting: {_describe(holder)} trains this run")
            said = now
        time.sleep(min(1.0, patience / 4))
    with Lease(taken).kept_alive(beat) as owned:
        yield owned


def newest(place: Path) -> Path | None:
    """The file of the last owner, or None."""
    numbered = [file for file in place.glob("*.json") if file.stem.isdigit()]
    return max(numbered, key=lambda file: int(file.stem), default=None)


def identity() -> dict[str, Any]:
    """Who this process is, so that others on this machine can tell whether it still lives."""
    return {
        "host": platform.node(),
        "machine": machine(),
        "pid": os.getpid(),
        "started": process_start(os.getpid()),
        "slurm_job": os.environ.get("SLURM_JOB_ID"),
        "slurm_restarts": int(os.environ.get("SLURM_RESTART_COUNT") or 0),
    }


def _free(holder: Path, me: dict[str, Any]) -> bool:
    """Whether the last owner has left, or is dead for certain."""
    try:
        owner = read_json(holder)
    except (FileNotFoundError, ValueError):
        return False
    if owner.get("released"):
        return True
    if owner["machine"] == me["machine"]:
        return not is_alive(owner["pid"], owner["started"])
    # a job that SLURM has queued again runs once; its earlier start was on a node that is gone
    same_job = owner["slurm_job"] is not None and owner["slurm_job"] == me["slurm_job"]
    return bool(same_job and me["slurm_restarts"] > owner["slurm_restarts"])


def _take(place: Path, holder: Path | None, me: dict[str, Any]) -> Path | None:
    """Make the file with the next number; None if another process was faster, or has a higher one."""
    number = int(holder.stem) + 1 if holder else 1
    target = place / f"{number:06d}.json"
    draft = place / f".{uuid.uuid4().hex}.draft"
    write_json(draft, me)
    try:
        os.link(draft, target)
    except FileExistsError:
        # over NFS the answer to a link that was made can be lost, and its repetition then says that it exists
        if draft.stat().st_nlink != 2:
            return None
    finally:
        draft.unlink()
    # a folder that changes while it is listed may have hidden both the last owner's file and the next one's
    if newest(place) != target:
        target.unlink(missing_ok=True)
        return None
    for file in place.glob("*.json"):
        if file.stem.isdigit() and int(file.stem) < number:
            file.unlink(missing_ok=True)
    return target


def _describe(holder: Path) -> str:
    try:
        owner = read_json(holder)
        job = f", SLURM job {owner['slurm_job']}" if owner["slurm_job"] else ""
        return f"process {owner['pid']} on {owner['host']}{job}"
    except (FileNotFoundError, ValueError, KeyError):
        return "another process"
