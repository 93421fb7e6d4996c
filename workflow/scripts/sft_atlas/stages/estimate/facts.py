"""All that the page of a plan shows, as one JSON-ready mapping: the identity of the job that writes the page."""

from collections import Counter
from collections.abc import Sequence
from dataclasses import asdict
from typing import Any

from sft_atlas.cost.estimates import Estimates
from sft_atlas.cost.summary import KEPT, Job, by_stage, disk_at_end, disk_at_peak, schedule, total
from sft_atlas.study.plan import Plan

COLUMNS = (
    "stage",
    "output",
    "done",
    "seconds",
    "device",
    "threads",
    "mem_mb",
    "gpu_mem_mb",
    "disk",
    "weights",
    "exact",
    "files",
)


def facts(plan: Plan, estimates: Estimates, jobs: Sequence[Job], gpus: int, gpu_memory_gb: float) -> dict[str, Any]:
    """Totals by stage, wall time by number of GPUs, disk by what is kept, jobs too large for the GPU, every job."""
    rows = [job.row() for job in jobs]
    played = {workers: schedule(jobs, workers) for workers in sorted({1, gpus, *(8**n for n in range(1, 4))})}
    return {
        "study": plan.name,
        "models": plan.matrix.checkpoints,
        "runs": len(plan.matrix.runs),
        "bases": len(plan.bases),
        "benchmarks": len(plan.study.benchmarks),
        "gpus": gpus,
        "gpu_memory_gb": gpu_memory_gb,
        "keep_weights": plan.study.keep_weights,
        "several_gpus": _several_gpus(jobs),
        "on_gpu": any(job.cost.gpus for job in jobs),
        "total": asdict(total(jobs)),
        "stages": [{"stage": stage, **asdict(sums)} for stage, sums in by_stage(jobs).items()],
        "wall": [{"workers": workers, "seconds": plan.seconds} for workers, plan in played.items()],
        "disk": [
            {"kept": kept, "end": disk_at_end(jobs, kept), "peak": disk_at_peak(jobs, played[gpus], kept)}
            for kept in KEPT
        ],
        "corrections": [
            {"stage": stage, "device": device, **asdict(found)}
            for (stage, device), found in estimates.corrections.items()
        ],
        "jobs": {name: [row[name] for row in rows] for name in COLUMNS},
    }


def _several_gpus(jobs: Sequence[Job]) -> list[dict[str, Any]]:
    """How many jobs of a stage one GPU cannot hold, and how many GPUs each of them asks for."""
    found = Counter((job.stage, job.cost.gpus) for job in jobs if job.cost.gpus > 1)
    return [{"stage": stage, "gpus": gpus, "jobs": count} for (stage, gpus), count in sorted(found.items())]
