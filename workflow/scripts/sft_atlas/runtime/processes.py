"""Which process is which: numbers come again, and mean nothing on another machine."""

import os
import platform
import time
from pathlib import Path


def machine() -> str:
    """This boot of this machine and its space of process numbers (containers have their own)."""
    try:
        boot = Path("/proc/sys/kernel/random/boot_id").read_text().strip()
        return f"{boot} {Path('/proc/self/ns/pid').readlink()}"
    except OSError:
        return f"{platform.node()} {os.getpid()} {time.time()}"


def process_start(pid: int) -> str | None:
    """When a process was started, in the kernel's ticks; None if there is none or only its exit status is left."""
    try:
        fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    except OSError:
        return None
    return None if fields[0] in "ZX" else fields[19]
