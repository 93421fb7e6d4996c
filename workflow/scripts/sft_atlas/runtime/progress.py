"""Counts of jobs by stage: while they run, a line per stage when something has changed; before, why they would run."""

import re
import sys
import time
from collections import Counter
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TextIO

SECONDS_BETWEEN = 10.0
# as job.py ends, or an exception does; a progress bar may be drawn again after it
ERROR = re.compile(r"error: |[\w.]*(Error|Exception)\b")
BAR = re.compile(r"\d+%\||\d+it \[|\d+(\.\d+)?(s/it|it/s)")
LINES_AT_THE_END = 20

# How Snakemake's reasons begin, and what a table says instead.
REASONS = {
    "Forced": "forced",
    "Missing output": "output missing",
    "Incomplete output": "output incomplete",
    "Updated input": "input changed",
    "Input files updated": "input made anew",
    "Set of input files": "inputs added or removed",
    "Params": "specification changed",
    "Code": "command changed",
    "Software": "environment changed",
}


def last_words(log: Path) -> str:
    """The line of a log that says why its job ended: its last error, else the last that is no progress bar; or ''."""
    try:
        lines = [
            line.strip() for line in log.read_text(encoding="utf-8", errors="replace").splitlines() if line.strip()
        ]
    except OSError:
        return ""
    errors = [line for line in lines[-LINES_AT_THE_END:] if ERROR.match(line)]
    others = [line for line in lines if not BAR.search(line)]
    return next(reversed(errors), None) or next(reversed(others), "")


class Outlook:
    """What a dry run would do: jobs and GPU-hours by stage and reason."""

    def __init__(self) -> None:
        self.jobs: Counter[tuple[str, str]] = Counter()
        self.gpu_hours: Counter[tuple[str, str]] = Counter()

    def add(self, stage: str, reason: str, gpu_hours: float) -> None:
        """A job would run; `reason` is Snakemake's text."""
        parts = [part.strip() for part in reason.split(";")]
        known = [short for part in parts for start, short in REASONS.items() if part.startswith(start)]
        key = (stage, ", ".join(dict.fromkeys(known)) or reason)
        self.jobs[key] += 1
        self.gpu_hours[key] += gpu_hours  # type: ignore[assignment]

    def show(self) -> None:
        """Print the lines, if there are any, and where more is to be learnt."""
        if self.jobs:
            print(*self.lines(), "why one of them: sft-atlas why PATH", sep="\n", file=sys.stderr)

    def lines(self) -> list[str]:
        """`train_run  341 jobs  383 GPU-hours  output missing`, in the order in which stages first run."""
        lines = []
        for (stage, reason), count in self.jobs.items():
            jobs = "job " if count == 1 else "jobs"
            lines.append(f"{stage:<22}{count:>6} {jobs} {self.gpu_hours[stage, reason]:>9,.1f} GPU-hours  {reason}")
        return lines


class Progress:
    """What is planned, running, done and failed; prints at most every few seconds, and at the end of each stage."""

    def __init__(self, out: TextIO | None = None, seconds_between: float = SECONDS_BETWEEN) -> None:
        self.out, self.seconds_between = out, seconds_between
        self.planned: Counter[str] = Counter()
        self.running: Counter[str] = Counter()
        self.done: Counter[str] = Counter()
        self.lost: Counter[str] = Counter()
        self.printed = time.monotonic()

    def plan(self, jobs: Mapping[str, int]) -> None:
        """Set how many jobs each stage has."""
        self.planned = Counter(dict(jobs))

    def started(self, stage: str) -> None:
        """A job has begun."""
        self.running[stage] += 1

    def finished(self, stage: str | None) -> None:
        """A job has ended well."""
        if stage is not None and stage in self.planned:
            self.running[stage] -= 1
            self.done[stage] += 1
            self._show(stage, ended=self.done[stage] + self.lost[stage] == self.planned[stage])

    def failed(self, stage: str | None, logs: Sequence[str] = ()) -> None:
        """A job has failed; the end of its log says why."""
        if stage is not None and stage in self.planned:
            self.running[stage] -= 1
            self.lost[stage] += 1
            for log in logs:
                self._print([f"FAILED {stage}: {last_words(Path(log)) or 'nothing in its log'}", f"       see {log}"])
            self._show(stage, ended=True)

    def line(self, stage: str) -> str:
        """`train_run            12 done   2 running   0 failed  of 76`."""
        return (
            f"{stage:<20} {self.done[stage]:>5} done {self.running[stage]:>4} running "
            f"{self.lost[stage]:>4} failed  of {self.planned[stage]}"
        )

    def _show(self, stage: str, ended: bool) -> None:
        now = time.monotonic()
        if ended:
            self._print([self.line(stage)])
        elif now - self.printed >= self.seconds_between:
            self._print([self.line(name) for name in self.planned if self.running[name] > 0])
            self.printed = now

    def _print(self, lines: Sequence[str]) -> None:
        print("\n".join(lines), file=self.out or sys.stderr, flush=True)
