"""Which runs of Snakemake are at work in a project's folder: a lock that a killed one left is told from a real one.

Every real run leaves a file with its host, process and start, and touches it twice a minute. A run is alive if its
process is there (same host) or if its file is fresh (another host). Snakemake's own lock says nothing of its owner, and
after a SIGKILL, a dropped log-in or a power cut stays for ever.
"""

import atexit
import json
import os
import platform
import shutil
import threading
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

from sft_atlas.runtime.processes import is_alive, machine, process_start

FOLDER = Path(".snakemake/sft-atlas")
LOCKS = Path(".snakemake/locks")
BEAT_SECONDS = 30.0
# another host's run is given up when its file has not been touched for so long
SILENT_SECONDS = 300.0
# what reading the file of a run may raise: a power cut leaves an empty one
UNREADABLE = (OSError, ValueError, KeyError, TypeError)


def begin(say: Callable[[str], None] = print) -> None:
    """Enter this process as a run; if all earlier ones are dead, remove the lock that they left."""
    FOLDER.mkdir(parents=True, exist_ok=True)
    living, dead = found()
    if dead and not living:
        if any(LOCKS.glob("*.lock")):
            say("the lock of a run that was killed is removed; its jobs, if any are left, are taken over")
        shutil.rmtree(LOCKS, ignore_errors=True)
        # Snakemake has made the folder before, and expects it
        LOCKS.mkdir(parents=True, exist_ok=True)
    for path in living:
        say(f"another run is at work in this folder: {describe(path)}")
    # while another run lives, the lock of a dead one stays, and so must the file that tells that it is dead
    for path in [] if living else dead:
        path.unlink(missing_ok=True)
    own = FOLDER / f"run-{platform.node()}-{os.getpid()}.json"
    content = {"host": platform.node(), **_me(), "time": _now(FOLDER)}
    own.write_text(json.dumps(content) + "\n", encoding="utf-8")
    threading.Thread(target=_beat, args=(own,), daemon=True).start()
    atexit.register(_end, own, os.getpid())


def found(folder: Path = Path()) -> tuple[list[Path], list[Path]]:
    """The files of living and of dead runs in a project's folder."""
    living: list[Path] = []
    dead: list[Path] = []
    place = folder / FOLDER
    for path in sorted(place.glob("run-*.json")):
        (living if _alive(path, _now(place)) else dead).append(path)
    return living, dead


def describe(path: Path) -> str:
    """`process 123 on login1, since 2026-01-31 12:00`."""
    try:
        content = _content(path)
        since = time.strftime("%Y-%m-%d %H:%M", time.localtime(content["time"]))
        return f"process {content['process']} on {content['host']}, since {since}"
    except UNREADABLE:
        return path.stem


def entered(path: Path) -> float:
    """When a run began, by the clock of the file system; 0 if its file does not tell."""
    try:
        return float(_content(path)["time"])
    except UNREADABLE:
        return 0.0


def _content(path: Path) -> Any:
    return json.loads(path.read_text(encoding="utf-8"))


def _alive(path: Path, now: float) -> bool:
    try:
        content = _content(path)
        if content["host"] == platform.node():
            return content["machine"] == machine() and is_alive(content["process"], content["began"])
        return now - path.stat().st_mtime < SILENT_SECONDS
    except UNREADABLE:
        return False


def _now(folder: Path) -> float:
    """The time by the clock of the file system, which may differ from this host's."""
    probe = folder / f".clock-{platform.node()}-{os.getpid()}"
    try:
        probe.touch()
        return probe.stat().st_mtime
    except OSError:
        return time.time()
    finally:
        probe.unlink(missing_ok=True)


def _me() -> dict[str, Any]:
    """This process, so that others on this host can tell whether it still lives."""
    return {"machine": machine(), "process": os.getpid(), "began": process_start(os.getpid())}


def _beat(path: Path) -> None:
    while True:
        try:
            os.utime(path)
        except FileNotFoundError:
            return
        except OSError:
            # a file system that does not answer now; without a beat the run would count as dead
            pass
        time.sleep(BEAT_SECONDS)


def _end(path: Path, owner: int) -> None:
    # a fork of the run is not the run
    if os.getpid() == owner:
        path.unlink(missing_ok=True)
