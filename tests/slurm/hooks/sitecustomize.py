"""Read by every Python that a test starts with this folder on PYTHONPATH: notes each job's start and end, holds it.

A job waits before its first line of work while `$ATLAS_NOTES/hold` exists, so that a fault strikes a job that runs.
"""

import atexit
import os
import sys
import time
from pathlib import Path


def _note(what: str) -> None:
    line = f"{what} {os.environ.get('SLURM_JOB_ID', '-')} {sys.orig_argv[-1]}\n"
    with open(Path(os.environ["ATLAS_NOTES"]) / "notes", "a") as notes:  # noqa: PTH123
        notes.write(line)


if "sft_atlas.job" in sys.orig_argv and os.environ.get("ATLAS_NOTES"):
    _note("start")
    while (Path(os.environ["ATLAS_NOTES"]) / "hold").exists():
        time.sleep(0.1)
    atexit.register(_note, "end")
