"""Mends what Snakemake's SLURM executor (plugin 2.8.0) leaves open, on the one executor of a run, before its first job.

- A killed Snakemake forgets its jobs, and the next one submits them again beside the old ones. Here all runs of a
  project name their jobs alike, and a job that is in the queue already is taken over instead of being submitted. One
  that does several runs (--groups) is cancelled: nothing tells which runs it does.
- It waits for ever for a job that was preempted without being requeued, that a dead node had and that nobody requeues,
  or that SLURM does not know any more; and, with sacct, for "CANCELLED by 1000". Here such a job is given up after a
  few polls, or counts as done if its outputs are there.
- When SLURM does not answer for long, it drops its jobs from its list. Here they stay.
- A refused sbatch costs one of the job's attempts, and three of them take a second. Here it is tried again for hours,
  unless SLURM says that it will never take the job, while jobs that ask for something else are submitted.
- It polls every three minutes while nothing ends, and a chain of short jobs waits for it. Here every minute or so.
- It wants GPUs as `gpu` or as `gres`, and the rules ask for `gpu`. Here a profile's `gres: gpu:a100:1` is what a GPU is
  called: its number becomes that of the job's GPUs, and a job without any does not get it.
- A job that failed on a node with a full disk is sent there again. Here the next attempt avoids the node, unless the
  job was told that its time is up, and saved.
- After an interrupt it goes on submitting what had been queued for submission. Here it does not.

The rest of the plugin is untouched. `check` refuses any other version of it, so that an update is looked at.
"""

import asyncio
import re
import threading
import time
from collections.abc import AsyncIterator, Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from importlib import metadata
from pathlib import Path
from typing import Any

from sft_atlas.cluster import journal
from sft_atlas.cluster.journal import Attempt
from sft_atlas.cluster.queue import ENDED, Job, QueueError, cancel, jobs_of, name_of, seconds

PLUGIN, VERSION = "snakemake-executor-plugin-slurm", "2.8.0"
# states that SLURM may still turn into a requeued job, and no state at all
DOUBTFUL = ("", "PREEMPTED", "NODE_FAIL", "REVOKED")
# a doubtful job is given up after so many times the plugin's first interval between polls
DOUBTFUL_POLLS = 4
# the plugin polls less and less often while nothing ends; here never less often than every so many first intervals
MOST_BETWEEN = 2
# what sbatch says of a job that it will never take
NEVER = re.compile(
    r"invalid|configuration is not available|memory required|more processors|unsupported|unrecognized|unknown"
    r"|not permitted|permission denied",
    re.IGNORECASE,
)
REFUSED_HOURS = 6.0
START_SECONDS = 600.0
# sbatch runs so many times at a time (as with the plugin's own two threads), and so many jobs of a kind try
AT_A_TIME = 2
# threads that submit, at most, where the profile's `jobs` is not less
MOST_WAITING = 1000
# nodes that the next attempt of a failed job avoids
MOST_AVOIDED = 8
# what a job says, after which it is not the node's fault that it has failed (training/run.py)
STOPPED = "asked to stop after step"


class GuardError(RuntimeError):
    """The installed plugin is not the one that this was written for."""


def check() -> None:
    """Make sure of the plugin's version.

    Raises:
        GuardError: another version is installed.
    """
    found = metadata.version(PLUGIN)
    if found != VERSION:
        raise GuardError(
            f"{PLUGIN} {found} is installed, but this workflow mends {VERSION}: pip install -r requirements.txt"
        )


def guard(executor: Any, folder: Path, say: Callable[[str], None]) -> "Guard":
    """Put the guard before an executor that has submitted nothing yet.

    Raises:
        GuardError: the installed plugin is another version.
        QueueError: SLURM does not answer.
    """
    check()
    import snakemake_executor_plugin_slurm as plugin

    return Guard(executor, plugin, name_of(folder), say)


class Guard:
    """The mended parts of one executor."""

    def __init__(self, executor: Any, plugin: Any, name: str, say: Callable[[str], None]) -> None:
        self.executor, self.say, self.name = executor, say, name
        self.interval = executor.workflow.executor_settings.init_seconds_before_status_checks
        self.grace = DOUBTFUL_POLLS * self.interval
        # a refused submission is tried as often as SLURM is asked
        self.pause, self.patience = float(self.interval), REFUSED_HOURS * 3600
        self.stopped = threading.Event()
        self.answered = True
        self.active: list[Any] = []
        self.doubtful_since: dict[str, float] = {}
        self.refusal = threading.local()
        self.submitting = threading.Semaphore(AT_A_TIME)
        # by rule and number of GPUs
        self.lines: dict[tuple[str, Any], threading.Semaphore] = {}
        # by what a job makes: the nodes on which it has failed
        self.avoided: dict[str, list[str]] = {}
        self.left = self._left_behind(self._patiently(lambda: jobs_of(name)))
        self.submit, self.poll = executor.run_job, executor.check_active_jobs
        self.report_error, self.cancel_all = executor._report_job_error_threadsafe, executor.cancel_jobs
        self.states = plugin.query_job_status
        self.wildcards = plugin.get_job_wildcards
        executor.run_uuid = name
        # a refused job waits in a thread, and must not keep the others from theirs
        most = min(executor.workflow.resource_settings.nodes or MOST_WAITING, MOST_WAITING)
        executor._job_submission_executor = ThreadPoolExecutor(most, thread_name_prefix="slurm_job_submit")
        executor.run_job, executor.check_active_jobs = self.run_job, self.check_active_jobs
        executor._report_job_error_threadsafe, executor.cancel_jobs = self.refused, self.cancel_jobs
        plugin.query_job_status = self.query
        say(f"the jobs of this project: squeue --name {name}; their state: sft-atlas status")
        if self.left:
            say(f"{len(self.left)} of them were submitted by an earlier run; those that are needed are taken over")

    def _patiently(self, ask: Callable[[], list[Job]]) -> list[Job]:
        """Ask SLURM, for ten minutes if it does not answer."""
        give_up = time.monotonic() + START_SECONDS
        while True:
            try:
                return ask()
            except QueueError as error:
                if time.monotonic() > give_up:
                    raise
                self.say(f"{error}; asked again in {self.pause:.0f} s")
                time.sleep(self.pause)

    def _left_behind(self, jobs: list[Job]) -> dict[str, Job]:
        """Living jobs of earlier runs by what they make; of two that make the same, the later one is cancelled.

        All groups of a rule have the same comment, without wildcards, and runs may be grouped in another way now.
        """
        left: dict[str, Job] = {}
        groups, doubled = [], []
        for job in sorted((job for job in jobs if not job.ended), key=lambda job: job.state != "RUNNING"):
            if "_wildcards_" not in job.comment:
                groups.append(job)
            elif left.setdefault(job.comment, job) is not job:
                doubled.append(job)
        cancel(groups + doubled)
        if groups:
            self.say(
                f"{len(groups)} jobs of an earlier run that did several runs each (--groups) are cancelled; those runs "
                "go on from their saved states"
            )
        return left

    # submitting

    def run_job(self, job: Any) -> None:
        """Take over the job that makes the same, else submit it.

        SLURM refuses jobs of a rule with as many GPUs alike: two of them try, and the others wait for these.
        """
        wildcards = self.wildcards(job)
        left = self.left.pop(f"rule_{job.name}_wildcards_{wildcards}", None)
        if left is not None:
            self._take_over(job, left, wildcards)
            return
        kind = (job.name, job.resources.get("gpu"))
        with self.lines.setdefault(kind, threading.Semaphore(AT_A_TIME)):
            self._submit(job)

    def _submit(self, job: Any) -> None:
        """Submit a job; try again for hours while SLURM refuses."""
        give_up, usual = time.monotonic() + self.patience, job.resources.get("slurm_extra") or ""
        avoided = ",".join(self.avoided.get(str(job.output), [])[-MOST_AVOIDED:])
        while not self.stopped.is_set():
            if avoided:
                job.resources.slurm_extra = f"{usual} --exclude={avoided}".strip()
            self.refusal.message = None
            with self.submitting:
                if self.stopped.is_set():
                    break
                with as_gres(job):
                    self.submit(job)
            message = self.refusal.message
            if message is None:
                break
            reason = message.partition("sbatch call:")[0].strip()
            if avoided:
                # there may be no other node that the job fits on
                avoided, job.resources.slurm_extra = "", usual
                continue
            if NEVER.search(reason) or time.monotonic() > give_up:
                # with --quiet rules nobody else says it
                self.say(reason)
                journal.write([attempt(job, number="", state="REFUSED", reason=reason)])
                self.report_error(*self.refusal.call)
                break
            self.say(f"{reason} It is tried again every {self.pause:.0f} s.")
            self.stopped.wait(self.pause)
        if self.stopped.is_set():
            # an interrupt came while sbatch was at work: what it has submitted is not on the list that was cancelled
            with self.executor.lock:
                late = [info for info in self.executor.active_jobs if info.job is job]
            if late:
                self.cancel_all(late)

    def _take_over(self, job: Any, left: Job, wildcards: str) -> None:
        from snakemake_interface_executor_plugins.executors.base import SubmittedJobInfo

        log = self.executor.slurm_logdir / f"rule_{job.name}" / wildcards / f"{left.number}.log"
        self.say(f"SLURM job {left.number} ({left.state.lower()}) is taken over: {left.comment}")
        info = SubmittedJobInfo(job, external_jobid=left.number, aux={"slurm_logfile": log})
        self.executor._report_job_submission_threadsafe(info)

    def refused(self, info: Any, message: str) -> None:
        """Keep a refusal of sbatch for `run_job`, and pass any other error on."""
        if message.startswith("SLURM sbatch failed"):
            self.refusal.message, self.refusal.call = message, (info, message)
        else:
            self.report_error(info, message)

    def cancel_jobs(self, jobs: list[Any]) -> None:
        """Cancel, and submit nothing any more."""
        self.stopped.set()
        self.cancel_all(jobs)

    # asking

    async def check_active_jobs(self, active: list[Any]) -> AsyncIterator[Any]:
        """Ask for the states of jobs; those that SLURM said nothing of remain on the list."""
        self.active, self.answered = active, False
        async for info in self.poll(active):
            yield info
        if active and not self.answered:
            self.say("SLURM has not answered for long; its jobs are kept, and it is asked again")
            for info in active:
                yield info
        between = self.executor.next_seconds_between_status_checks
        self.executor.next_seconds_between_status_checks = min(between, MOST_BETWEEN * self.interval)
        # what sacct says of a job without a node is no node to avoid
        self.executor._failed_nodes.difference_update([node for node in self.executor._failed_nodes if " " in node])

    async def query(self, command: str, logger: Any) -> tuple[dict[str, str] | None, float | None]:
        """The states of all jobs, with a verdict where SLURM gives none."""
        states, duration = await self.states(command, logger)
        if states is None:
            return None, None
        self.answered = True
        states = {number: state.partition(" ")[0] for number, state in states.items()}
        now = time.monotonic()
        ended = []
        for info in self.active:
            number = info.external_jobid
            state = states.get(number, "")
            if state not in DOUBTFUL:
                self.doubtful_since.pop(number, None)
            elif now - self.doubtful_since.setdefault(number, now) >= self.grace:
                done = not state and all(Path(output).exists() for output in info.job.output)
                states[number] = "COMPLETED" if done else "CANCELLED"
                known = state.lower() or "not known to SLURM any more"
                self.say(f"SLURM job {number} is {known}: {'its outputs are there' if done else 'given up'}")
            elif state == "NODE_FAIL":
                # the plugin would give it up, or wait for ever; SLURM may be about to requeue it
                states[number] = "PENDING"
            # a preempted job may come back; it has ended only with the verdict above
            if states.get(number) in ENDED and states[number] != "PREEMPTED":
                ended.append((info, state or "LOST"))
        if ended:
            await self._note(ended)
        return states, duration

    async def _note(self, ended: list[tuple[Any, str]]) -> None:
        """Write attempts that have ended into the journal; the next one at a job that failed runs on another node."""
        try:
            known = {job.number: job for job in await asyncio.to_thread(jobs_of, self.name)}
        except QueueError:
            known = {}
        attempts = []
        for info, told in ended:
            # without cgroups SLURM's word for it is FAILED, and only the job's log says why
            state = "OUT_OF_MEMORY" if told == "FAILED" and out_of_memory(info.aux["slurm_logfile"]) else told
            found = known.get(info.external_jobid)
            broken = state in ("BOOT_FAIL", "NODE_FAIL") or (state == "FAILED" and not was_stopped(info.job))
            if found and found.node and broken:
                self.avoided.setdefault(str(info.job.output), []).append(found.node)
            facts = {"node": found.node, "elapsed": seconds(found.elapsed), "reason": found.reason} if found else {}
            attempts.append(attempt(info.job, number=info.external_jobid, state=state, **facts))
        journal.write(attempts)


def was_stopped(job: Any) -> bool:
    """Whether a job has ended because it was asked to."""
    for log in map(Path, job.log):
        try:
            if STOPPED in log.read_text(encoding="utf-8", errors="replace"):
                return True
        except OSError:
            continue
    return False


def out_of_memory(log: Path) -> bool:
    """Whether SLURM has written into a job's log that it took more memory than it had asked for."""
    try:
        text = log.read_text(encoding="utf-8", errors="replace")
    except OSError:
        return False
    return any(
        words in text for words in ("exceeded memory limit", "Exceeded job memory limit", "oom-kill", "oom_kill")
    )


@contextmanager
def as_gres(job: Any) -> Iterator[None]:
    """While a job is submitted: its GPUs under the name that the profile gives them, if it gives one."""
    asked, name = job.resources.get("gpu"), job.resources.get("gres")
    if not name or asked is None:
        yield
        return
    job.resources.gres, job.resources.gpu = gres(name, asked), 0
    try:
        yield
    finally:
        job.resources.gres, job.resources.gpu = name, asked


def gres(name: str, gpus: int) -> str:
    """`gpu:a100:1` for two GPUs is `gpu:a100:2`, and for none it is nothing."""
    return f"{re.sub(r':[0-9]+$', '', name)}:{gpus}" if gpus else ""


def attempt(job: Any, **facts: Any) -> Attempt:
    """An attempt at a job, with what it has asked for."""
    asked: dict[str, Any] = {name: int(job.resources.get(name) or 0) for name in ("mem_mb", "runtime", "gpu")}
    places: dict[str, Any] = {
        "output": str(job.output[0]),
        "rule": job.name,
        "threads": job.threads,
        "attempt": job.attempt,
    }
    return Attempt(**places, **asked, ended=time.time(), **facts)
