"""Where a study stands: jobs by stage and state, what failed and why, how far training is, GPU-hours.

It reads files and asks SLURM, and never starts a job; so it works from any log-in node, whether or not a Snakemake is
at work. Where SLURM does not answer, the rest is still told.
"""

import json
import time
from collections import Counter, defaultdict
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from sft_atlas import failures
from sft_atlas.cluster import journal, session
from sft_atlas.cluster.journal import Attempt
from sft_atlas.cluster.queue import Job, QueueError, jobs_of, name_of
from sft_atlas.cost.estimates import Estimates, read_record
from sft_atlas.runtime.progress import last_words
from sft_atlas.stage import stages
from sft_atlas.study.plan import Plan, Spec
from sft_atlas.units import duration, hours

STATES = ("done", "running", "pending", "failed", "waiting")
# a progress file that has not been written for so long is of a job that is gone
STALE_SECONDS = 600.0
MOST_LINES = 20
# how states are told
REASONS = {"OUT_OF_MEMORY": "OOM", "": "error"}


@dataclass
class Cell:
    """A job of the plan with what is known of it; `lost`: why it has failed for good, if it has."""

    spec: Spec
    state: str
    job: Job | None = None
    attempt: Attempt | None = None
    lost: str | None = None


@dataclass
class Seen:
    """Everything that was read of a study."""

    cells: list[Cell]
    used: dict[str, float] = field(default_factory=lambda: defaultdict(float))
    planned: dict[str, float] = field(default_factory=lambda: defaultdict(float))
    notes: list[str] = field(default_factory=list)


def status_lines(plan: Plan, estimates: Estimates, folder: Path = Path(), now: float | None = None) -> list[str]:
    """The lines of `sft-atlas status`."""
    seen = look(plan, estimates, folder)
    logs = log_files(folder)
    lines = [plan.summary(), *seen.notes, "", *_table(seen)]
    running = [cell for cell in seen.cells if cell.state == "running"]
    if running:
        lines += [
            "",
            "running",
            *_shortened([_running(cell, estimates.results, now or time.time()) for cell in running]),
        ]
    held = [cell for cell in seen.cells if cell.state == "pending" and cell.job]
    reasons = Counter(cell.job.reason for cell in held if cell.job)
    if reasons:
        lines += ["", "pending", *(f"  {count:>5}  {_waits_for(reason)}" for reason, count in reasons.most_common())]
    failed = [cell for cell in seen.cells if cell.state == "failed"]
    if failed:
        lines += [
            "",
            "failed",
            *_shortened([line for cell in failed for line in _failure(cell, logs, estimates.results)]),
        ]
    return lines


def look(plan: Plan, estimates: Estimates, folder: Path) -> Seen:
    """Read what there is of every job that the study's results need, and ask SLURM for the rest."""
    specs = [*plan.needed(), *plan.study_specs().values()]
    notes = []
    living, dead = session.found(folder)
    notes += [f"at work: {session.describe(path)}" for path in living]
    if not living:
        notes.append("no Snakemake is at work in this folder" + (" (one was killed)" if dead else ""))
    try:
        queued = {job.comment.rpartition("_")[2]: job for job in jobs_of(name_of(folder)) if not job.ended}
    except QueueError as error:
        queued = {}
        notes.append(f"without SLURM: {error}")
    since = min((session.entered(path) for path in living), default=0.0)
    attempts: dict[str, Attempt] = {}
    history = journal.read(folder)
    for attempt in history:
        attempts[attempt.output] = attempt
    logs = log_files(folder)
    cells = []
    for spec in specs:
        output = estimates.results / spec.output
        job, attempt_ = queued.get(spec.hash), attempts.get(str(output))
        at_work = bool(living) and _begun(spec, logs, since)
        # a failed cell is finished: it stays until `sft-atlas retry` clears it
        lost = failures.reason_of(folder / output) if stages()[spec.stage].fails else None
        state = "failed" if lost else _state(folder / output, job, attempt_, at_work, _broken(spec, logs))
        cells.append(Cell(spec, state, job, attempt_, lost))
    seen = Seen(cells, notes=notes)
    for cell in cells:
        seen.planned[cell.spec.stage] += estimates.of(cell.spec).gpu_hours
    seen.used = _used(cells, estimates, history)
    return seen


def _state(output: Path, job: Job | None, attempt: Attempt | None, at_work: bool, broken: bool) -> str:
    if output.exists():
        return "done"
    if job is not None:
        return "running" if job.state in ("RUNNING", "COMPLETING", "SUSPENDED") else "pending"
    if attempt is not None and attempt.state != "COMPLETED":
        return "failed"
    if at_work:
        return "running"
    return "failed" if broken else "waiting"


def _used(cells: Iterable[Cell], estimates: Estimates, history: Iterable[Attempt]) -> dict[str, float]:
    """GPU-hours by stage: of finished jobs by their records, of lost attempts by the journal."""
    used: dict[str, float] = defaultdict(float)
    stages = {str(estimates.results / cell.spec.output): cell.spec.stage for cell in cells}
    for cell in cells:
        taken = read_record(estimates.results, cell.spec) if cell.state == "done" else None
        if taken and taken.device == "gpu":
            used[cell.spec.stage] += taken.seconds * max(1, estimates.of(cell.spec).gpus) / 3600
    for attempt in history:
        if attempt.state != "COMPLETED" and attempt.output in stages:
            used[stages[attempt.output]] += attempt.gpu * attempt.elapsed / 3600
    return used


def _table(seen: Seen) -> Iterator[str]:
    counts: dict[str, Counter[str]] = defaultdict(Counter)
    for cell in seen.cells:
        counts[cell.spec.stage][cell.state] += 1
    yield f"{'stage':<14}" + "".join(f"{state:>9}" for state in STATES) + f"{'GPU-hours':>12}{'planned':>10}"
    for stage, states in counts.items():
        numbers = "".join(f"{states[state]:>9}" for state in STATES)
        yield f"{stage:<14}{numbers}{hours(seen.used[stage]):>12}{hours(seen.planned[stage]):>10}"
    numbers = "".join(f"{sum(states[state] for states in counts.values()):>9}" for state in STATES)
    yield f"{'all':<14}{numbers}{hours(sum(seen.used.values())):>12}{hours(sum(seen.planned.values())):>10}"


def _running(cell: Cell, results: Path, now: float) -> str:
    where = (
        f"SLURM job {cell.job.number} on {cell.job.node}, {cell.job.elapsed} of {cell.job.limit}" if cell.job else ""
    )
    return "  ".join(["  " + cell.spec.output, *filter(None, [where, _progress(cell.spec, results, now)])])


def _progress(spec: Spec, results: Path, now: float) -> str:
    """What a training job says of itself while it works."""
    output = results / spec.output
    try:
        told: dict[str, Any] = json.loads(output.with_name(output.name.replace("train-", "progress-")).read_bytes())
        if output.name.startswith("progress-") or spec.stage != "train" or now - told["written"] > STALE_SECONDS:
            return ""
        parts = [f"step {told['step']:,} of {told['max_steps']:,}"]
        parts += [f"loss {told['loss']:.3f}"] if told.get("loss") is not None else []
        parts += [f"{told['tokens_per_second']:,.0f} tokens/s"] if told.get("tokens_per_second") else []
        parts += [f"{duration(told['seconds_left'])} left"] if told.get("seconds_left") is not None else []
        return ", ".join(parts)
    except (OSError, ValueError, KeyError, TypeError):
        return ""


def _waits_for(reason: str) -> str:
    """SLURM's reason; a held job waits for a person."""
    held = "held" in reason.lower()
    return f"{reason}: waits for `scontrol release`, or scancel it to have it submitted again" if held else reason


def _failure(cell: Cell, logs: dict[str, Path], results: Path) -> Iterator[str]:
    if cell.lost:
        yield f"  {results / cell.spec.output}: for good: {cell.lost}"
        return
    found, log = cell.attempt, logs.get(cell.spec.hash)
    state = found.state if found else ""
    reason = REASONS.get(state, state)
    at = f" (SLURM job {found.number}{f' on {found.node}' if found.node else ''})" if found and found.number else ""
    last = found.reason if found and state == "REFUSED" else _last_line(log).removeprefix("error: ")
    yield f"  {results / cell.spec.output}: {reason}{at}{f': {last}' if last else ''}"
    if log is not None:
        yield f"    see {log}"


def log_files(folder: Path) -> dict[str, Path]:
    """The log of every job, by the hash that its name ends with."""
    return {path.stem.rpartition("-")[2]: path for path in (folder / "logs").rglob("*.log")}


def _begun(spec: Spec, logs: dict[str, Path], since: float) -> bool:
    """Whether a local job has begun, and has not failed yet: its log is there, and younger than the run at work."""
    log = logs.get(spec.hash)
    try:
        return log is not None and log.stat().st_mtime >= since and not _broken(spec, logs)
    except OSError:
        return False


def _broken(spec: Spec, logs: dict[str, Path]) -> bool:
    """Whether a job's log ends with an error."""
    last = _last_line(logs.get(spec.hash))
    return last.startswith("error:") or "Error" in last.partition(":")[0]


def _last_line(log: Path | None) -> str:
    return last_words(log) if log else ""


def _shortened(lines: list[str]) -> list[str]:
    return lines if len(lines) <= MOST_LINES else [*lines[:MOST_LINES], f"  … and {len(lines) - MOST_LINES} lines more"]
