"""After a session that was killed: what of it is left, and doing away with it.

`snakemake --profile slurm` alone is enough to go on: it removes a dead run's lock and takes its jobs over. This command
is for whoever wants to see first, or to end it all.
"""

import shutil
import time
from pathlib import Path

from sft_atlas.cluster import session
from sft_atlas.cluster.queue import Job, QueueError, cancel, jobs_of, name_of

PAUSE_SECONDS = 5.0


def recover_lines(folder: Path, cancelled: bool, wait: bool) -> list[str]:
    """Say what is left of dead runs; cancel or await their jobs if asked to, then remove their lock.

    Raises:
        QueueError: SLURM does not answer, or there are jobs to be cancelled beside a run that is alive.
    """
    living, dead = session.found(folder)
    name = name_of(folder)
    jobs = _left(name)
    lines = [f"at work: {session.describe(path)}" for path in living]
    lines += [f"killed: {session.describe(path)}" for path in dead]
    lines += [f"SLURM job {job.number} {job.state} {job.elapsed} {job.node}  {job.comment}".rstrip() for job in jobs]
    if living:
        if cancelled or wait:
            raise QueueError(f"a run is alive ({session.describe(living[0])}); interrupt it, and it cancels its jobs")
        return [*lines, "nothing to recover: the run that is at work has its jobs in hand"]
    if cancelled:
        cancel(jobs)
    if cancelled or wait:
        while jobs := _left(name):
            print(f"{len(jobs)} jobs are still in the queue", flush=True)
            time.sleep(PAUSE_SECONDS)
    if any((folder / session.LOCKS).glob("*.lock")) and dead:
        shutil.rmtree(folder / session.LOCKS, ignore_errors=True)
        lines.append("the lock of the killed run is removed")
    for path in dead:
        path.unlink(missing_ok=True)
    if jobs:
        return [
            *lines,
            "go on with `snakemake --profile slurm`, which takes these jobs over; or end them with --cancel",
        ]
    return [*lines, "nothing is left in the queue; go on with `snakemake --profile slurm`"]


def _left(name: str) -> list[Job]:
    return [job for job in jobs_of(name) if not job.ended]
