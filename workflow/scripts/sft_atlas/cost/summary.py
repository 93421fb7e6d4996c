"""A plan in numbers: jobs, hours and disk by stage and in total, wall time on so many GPUs, and peak disk.

Plain arithmetic on lists, since the totals are printed at every planning, where nothing heavy may be imported.
"""

import heapq
from collections import defaultdict
from collections.abc import Iterable, Sequence
from dataclasses import asdict, dataclass
from typing import Any

from sft_atlas.cost.estimates import Estimates
from sft_atlas.cost.formulas import Cost
from sft_atlas.stage import stages
from sft_atlas.study.plan import Spec

# What may stay of fine-tuned weights: what a study's keep_weights says, or every adapter merged into a whole model.
KEPT = ("merged", "all", "deltas", "adapters", "none")


@dataclass(frozen=True)
class Job:
    """A job of the plan with its price; `after` are the outputs it waits for."""

    output: str
    stage: str
    cost: Cost
    done: bool
    after: tuple[str, ...]

    def row(self) -> dict[str, Any]:
        """The job as a row of a table."""
        return {"stage": self.stage, "output": self.output, "done": self.done, **asdict(self.cost)}


@dataclass(frozen=True)
class Total:
    """Sums over jobs, and the largest memory that one of them needs."""

    jobs: int
    done: int
    gpu_hours: float
    cpu_hours: float
    mem_mb: float
    gpu_mem_mb: float
    disk: float
    estimated: int
    files: int


def priced(estimates: Estimates, specs: Iterable[Spec], done: Iterable[str] = ()) -> list[Job]:
    """Every job of the specs, in their order, each once."""
    there = set(done)
    return [
        Job(spec.output, spec.stage, estimates.of(spec), spec.output in there, tuple(spec.input_files()))
        for spec in {spec.output: spec for spec in specs}.values()
    ]


def total(jobs: Sequence[Job]) -> Total:
    """Hours and disk of all jobs, done or not; CPU-hours are those of jobs that hold no GPU."""
    return Total(
        jobs=len(jobs),
        done=sum(job.done for job in jobs),
        gpu_hours=sum(job.cost.gpu_hours for job in jobs),
        cpu_hours=sum(job.cost.seconds * job.cost.threads for job in jobs if not job.cost.gpus) / 3600,
        mem_mb=max((job.cost.mem_mb for job in jobs), default=0.0),
        gpu_mem_mb=max((job.cost.gpu_mem_mb for job in jobs), default=0.0),
        disk=sum(job.cost.disk for job in jobs),
        estimated=sum(not job.cost.exact for job in jobs),
        files=sum(job.cost.files for job in jobs),
    )


def by_stage(jobs: Sequence[Job]) -> dict[str, Total]:
    """Totals of each stage, in the order of the jobs."""
    stages: dict[str, list[Job]] = defaultdict(list)
    for job in jobs:
        stages[job.stage].append(job)
    return {stage: total(members) for stage, members in stages.items()}


@dataclass(frozen=True)
class Schedule:
    """When each job that is left starts and ends, in seconds, and when the last one does."""

    start: dict[str, float]
    end: dict[str, float]

    @property
    def seconds(self) -> float:
        """Wall time of the whole."""
        return max(self.end.values(), default=0.0)


def schedule(jobs: Sequence[Job], workers: int) -> Schedule:
    """Play the jobs that are left through, in the order in which the rules' priorities have Snakemake start them.

    Workers are GPUs: one that is free takes first what has the highest priority, then the next in the plan; a job that
    shares several waits for all of them. Jobs without a GPU run beside them and wait for nobody; in a study that needs
    no GPU at all, workers are jobs at a time. Queues, failures and machines that differ are not in it.
    """
    left = {job.output: job for job in jobs if not job.done}
    scarce = any(job.cost.gpus for job in left.values())
    waiting = {output: sum(before in left for before in job.after) for output, job in left.items()}
    followers: dict[str, list[str]] = defaultdict(list)
    for output, job in left.items():
        for before in job.after:
            followers[before].append(output)
    turns = {output: (-stages()[job.stage].priority, order) for order, (output, job) in enumerate(left.items())}
    queue: list[tuple[tuple[int, int], str]] = []
    running: list[tuple[float, str]] = []
    start: dict[str, float] = {}
    end: dict[str, float] = {}
    clock, free = 0.0, workers

    def takes(output: str) -> int:
        return min(left[output].cost.gpus, workers) if scarce else 1

    def begin(output: str) -> None:
        start[output], end[output] = clock, clock + left[output].cost.seconds
        heapq.heappush(running, (end[output], output))

    def release(output: str) -> None:
        if takes(output):
            heapq.heappush(queue, (turns[output], output))
        else:
            begin(output)

    for output in left:
        if not waiting[output]:
            release(output)
    while queue or running:
        while queue and takes(queue[0][1]) <= free:
            free -= takes(queue[0][1])
            begin(heapq.heappop(queue)[1])
        clock, ended = heapq.heappop(running)
        free += takes(ended)
        for follower in followers[ended]:
            waiting[follower] -= 1
            if not waiting[follower]:
                release(follower)
    return Schedule(start, end)


def disk_at_end(jobs: Sequence[Job], kept: str) -> float:
    """Bytes of all results once everything is done."""
    return sum(job.cost.disk - job.cost.weights + job.cost.remains(kept) for job in jobs)


def disk_at_peak(jobs: Sequence[Job], played: Schedule, kept: str) -> float:
    """The most bytes there are at any moment of a schedule.

    A result counts from the start of its job on; the weights of a run that are given back count until the last of its
    readers has ended.
    """
    read: dict[str, float] = defaultdict(float)
    for job in jobs:
        if stages()[job.stage].reads_weights:
            for before in job.after:
                read[before] = max(read[before], played.end.get(job.output, 0.0))
    events = []
    for job in jobs:
        begins, ends = played.start.get(job.output, 0.0), played.end.get(job.output, 0.0)
        stays = job.cost.remains(kept)
        most = max(job.cost.weights, stays)
        events.append((begins, job.cost.disk - job.cost.weights + most))
        events.append((max(read[job.output], ends), stays - most))
    peak = held = 0.0
    # at one moment, what goes makes room before what comes
    for _, change in sorted(events):
        held += change
        peak = max(peak, held)
    return peak
