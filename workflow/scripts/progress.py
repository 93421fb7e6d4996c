"""Counts of jobs by stage, printed as one line per stage when something has changed."""

import sys
import time
from collections import Counter
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TextIO

SECONDS_BETWEEN = 10.0


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
                lines = Path(log).read_text(errors="replace").strip().splitlines() if Path(log).exists() else []
                self._print([f"FAILED {stage}: {lines[-1] if lines else 'nothing in its log'}", f"       see {log}"])
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
