"""What SLURM knows of a project's jobs.

All jobs of a project have one name, made from its folder, whichever call of Snakemake submitted them and from whichever
log-in node. So a later call, and a person, find them with `squeue --name`.
"""

import subprocess
from dataclasses import dataclass
from pathlib import Path

from sft_atlas.hashing import digest

# states in which a job needs nobody's decision any more
ENDED = (
    *("BOOT_FAIL", "CANCELLED", "COMPLETED", "DEADLINE", "FAILED", "NODE_FAIL", "OUT_OF_MEMORY", "PREEMPTED"),
    *("REVOKED", "TIMEOUT"),
)
COLUMNS = ("%i", "%T", "%M", "%l", "%P", "%N", "%r", "%Z", "%k")
ANSWER_SECONDS = 60


class QueueError(RuntimeError):
    """SLURM does not answer, or there is none."""


@dataclass(frozen=True)
class Job:
    """A job as `squeue` shows it; `comment` is the rule with its wildcards."""

    number: str
    state: str
    elapsed: str
    limit: str
    partition: str
    node: str
    reason: str
    folder: str
    comment: str

    @property
    def ended(self) -> bool:
        """Whether it neither runs nor will run."""
        return self.state in ENDED


def name_of(folder: Path) -> str:
    """The name of all jobs of the project in a folder."""
    return f"sft-atlas-{digest(str(folder.resolve()))}"


def jobs_of(name: str) -> list[Job]:
    """Every job of that name that SLURM still remembers, the oldest first.

    Raises:
        QueueError: squeue fails or is not there; says what it said.
    """
    text = ask("squeue", "--noheader", "--states=all", f"--name={name}", "--sort=i", f"--format={'|'.join(COLUMNS)}")
    rows = [line.split("|", len(COLUMNS) - 1) for line in text.splitlines() if line.strip()]
    return [Job(*(value.strip() for value in row)) for row in rows if len(row) == len(COLUMNS)]


def cancel(jobs: list[Job]) -> None:
    """Cancel jobs.

    Raises:
        QueueError: scancel fails; says what it said.
    """
    if jobs:
        ask("scancel", *(job.number for job in jobs))


def seconds(elapsed: str) -> float:
    """`1-02:03:04`, `02:03:04` or `03:04` in seconds; 0 for what is none of them."""
    days, _, clock = elapsed.rpartition("-")
    try:
        total = 0.0
        for part in clock.split(":"):
            total = 60 * total + float(part)
        return total + 86400 * int(days or 0)
    except ValueError:
        return 0.0


def ask(*command: str) -> str:
    """What a SLURM command prints.

    Raises:
        QueueError: it fails, is not there, or does not answer within a minute.
    """
    try:
        done = subprocess.run(command, capture_output=True, text=True, check=False, timeout=ANSWER_SECONDS)
    except (OSError, subprocess.TimeoutExpired) as error:
        raise QueueError(f"{command[0]}: {getattr(error, 'strerror', None) or 'no answer within a minute'}") from None
    if done.returncode:
        said = done.stderr.strip().splitlines() or [f"exit status {done.returncode}"]
        raise QueueError(f"{command[0]}: {said[-1].removeprefix(f'{command[0]}: ')}")
    return done.stdout
