"""Read by every Python that a test starts with this folder on PYTHONPATH: notes each job's start and end.

Files in `$ATLAS_NOTES` make a job do more:

- `hold`: wait before the first line of work until the file is gone, so that a fault strikes a job that runs;
- `full`: on the node that the file names, no file's content reaches the disk;
- `slow`: sleep half of the time, so that a run outlasts its limit on any machine;
- `late`: what the job makes appears four seconds after its end, as on a slow shared file system.
"""

import atexit
import errno
import os
import signal
import subprocess
import sys
import time
from pathlib import Path


def _note(what: str) -> None:
    line = f"{what} {os.environ.get('SLURM_JOB_ID', '-')} {sys.orig_argv[-1]}\n"
    with open(Path(os.environ["ATLAS_NOTES"]) / "notes", "a") as notes:  # noqa: PTH123
        notes.write(line)


def _full(descriptor: object) -> None:
    raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))


def _delay() -> None:
    """Hide the output, and have a process that outlives this one bring it back."""
    output = Path(sys.orig_argv[-1].replace(".spec.json", ".json"))
    hidden = output.with_name(f".{output.name}.late")
    if output.exists():
        output.replace(hidden)
        subprocess.Popen(["sh", "-c", f"sleep 4; mv '{hidden}' '{output}'"], start_new_session=True)


if "sft_atlas.job" in sys.orig_argv and os.environ.get("ATLAS_NOTES"):
    notes = Path(os.environ["ATLAS_NOTES"])
    if "/train-" in sys.orig_argv[-1]:
        with (notes / "gpus").open("a") as gpus:
            gpus.write(f"{os.environ.get('SLURM_JOB_ID')}={os.environ.get('CUDA_VISIBLE_DEVICES')}\n")
    _note("start")
    while (notes / "hold").exists():
        time.sleep(0.1)
    atexit.register(_note, "end")
    if (notes / "full").exists() and (notes / "full").read_text() == os.environ.get("SLURMD_NODENAME"):
        os.fsync = _full
    if (notes / "slow").exists():
        signal.signal(signal.SIGALRM, lambda *_: time.sleep(0.3))
        signal.setitimer(signal.ITIMER_REAL, 0.6, 0.6)
        # Python gives signals their default back when it ends, which for this one is to kill the process
        atexit.register(signal.setitimer, signal.ITIMER_REAL, 0)
    if (notes / "late").exists():
        atexit.register(_delay)
