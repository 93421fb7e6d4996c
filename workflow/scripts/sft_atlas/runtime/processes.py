"""Which process is which: PIDs are reused, and mean nothing on another machine."""

import platform
from pathlib import Path

import psutil

TOLERANCE_SECONDS = 5.0
"""A process's start is counted from the machine's boot by a clock that may be set; a PID is not reused so soon."""


def machine() -> str:
    """This boot of this machine and its space of process numbers (containers have their own)."""
    try:
        boot = Path("/proc/sys/kernel/random/boot_id").read_text().strip()
        return f"{boot} {Path('/proc/self/ns/pid').readlink()}"
    except OSError:
        return f"{platform.node()} {psutil.boot_time():.0f}"


def process_start(pid: int) -> float | None:
    """When a process was started, in seconds; None if there is none or only its exit status is left."""
    try:
        process = psutil.Process(pid)
        return None if process.status() == psutil.STATUS_ZOMBIE else float(process.create_time())
    except (psutil.Error, ValueError):
        return None


def is_alive(pid: int, started: object) -> bool:
    """Whether the process that was started then still lives; what is no time is none of ours."""
    now = process_start(pid)
    return now is not None and isinstance(started, int | float) and abs(now - started) < TOLERANCE_SECONDS
