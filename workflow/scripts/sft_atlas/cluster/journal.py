"""A line for every attempt at a job that has ended on SLURM: what it had asked for, what became of it.

SLURM itself forgets within minutes where there is no accounting, and where there is, another cluster's is out of reach.
"""

import json
import sys
from collections.abc import Iterable
from dataclasses import asdict, dataclass
from functools import cache
from pathlib import Path

from sft_atlas.cluster.session import FOLDER

FILE = FOLDER / "attempts.jsonl"


@dataclass(frozen=True)
class Attempt:
    """One attempt; `state` is SLURM's, or LOST (SLURM did not know it any more) or REFUSED (sbatch did not take it)."""

    output: str
    rule: str
    number: str
    state: str
    reason: str = ""
    node: str = ""
    attempt: int = 1
    threads: int = 1
    mem_mb: int = 0
    runtime: int = 0
    gpu: int = 0
    elapsed: float = 0.0
    ended: float = 0.0


def write(attempts: Iterable[Attempt], folder: Path = Path()) -> None:
    """Append attempts; a note that cannot be written (a quota, a slow disk) must not end the run that it is about."""
    text = "".join(json.dumps(asdict(attempt)) + "\n" for attempt in attempts)
    if not text:
        return
    try:
        (folder / FOLDER).mkdir(parents=True, exist_ok=True)
        with (folder / FILE).open("a", encoding="utf-8") as file:
            file.write(text)
    except OSError as error:
        _warn(f"warning: {folder / FILE}: {error.strerror}; `sft-atlas status` will miss attempts that end now")


@cache
def _warn(text: str) -> None:
    """Say it once."""
    print(text, file=sys.stderr, flush=True)


def read(folder: Path = Path()) -> list[Attempt]:
    """Every attempt so far, the oldest first; a line that a crash has cut is left out."""
    try:
        lines = (folder / FILE).read_text(encoding="utf-8").splitlines()
    except OSError:
        return []
    attempts = []
    for line in lines:
        try:
            attempts.append(Attempt(**json.loads(line)))
        except (ValueError, TypeError):
            continue
    return attempts
