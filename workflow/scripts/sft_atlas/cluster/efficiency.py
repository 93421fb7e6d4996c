"""After a run: what jobs had asked for against what they used, by stage.

Used is what every finished job recorded of itself; asked is what the journal of a SLURM run says, else what the plan
asks for. The same records correct the estimates of all jobs to come (cost/estimates.py), so nothing has to be copied
from the table; it shows where a stage asks for far more than it needs, or came close to its limit.
"""

import json
from collections import defaultdict
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from statistics import median

from sft_atlas.cluster import journal
from sft_atlas.cost.estimates import Estimates
from sft_atlas.study.identity import spec_file
from sft_atlas.study.plan import Plan, Spec

HEADER = (
    f"{'':<14}{'':>6}  {'minutes':^23}  {'memory, MB':^23}  {'CPUs':^15}  {'GPU-hours':^15}\n"
    f"{'stage':<14}{'jobs':>6}  {'asked':>7}{'used':>8}{'share':>8}  {'asked':>7}{'used':>8}{'share':>8}"
    f"  {'asked':>7}{'used':>8}  {'held':>7}{'tries':>8}"
)


@dataclass(frozen=True)
class Use:
    """One finished job: what it asked for, and what it used."""

    minutes_asked: float
    minutes: float
    mem_mb_asked: float
    mem_mb: float
    threads: int
    cpus: float
    gpu_hours: float
    tries: int


def efficiency_lines(plan: Plan, estimates: Estimates, folder: Path = Path()) -> list[str]:
    """A table: medians of minutes, the largest memory, CPUs kept busy, GPU-hours and attempts in all."""
    uses = measured(plan, estimates, folder)
    if not uses:
        return ["no job of this study has finished here yet"]
    lines = [HEADER]
    for stage, found in uses.items():
        minutes = (_median(found, lambda use: use.minutes_asked), _median(found, lambda use: use.minutes))
        memory = (max(use.mem_mb_asked for use in found), max(use.mem_mb for use in found))
        cpus = (_median(found, lambda use: use.threads), _median(found, lambda use: use.cpus))
        lines.append(
            f"{stage:<14}{len(found):>6}  {minutes[0]:>7.0f}{minutes[1]:>8.1f}{minutes[1] / minutes[0]:>8.0%}"
            f"  {memory[0]:>7.0f}{memory[1]:>8.0f}{memory[1] / memory[0]:>8.0%}"
            f"  {cpus[0]:>7.0f}{cpus[1]:>8.1f}  {sum(use.gpu_hours for use in found):>7.1f}"
            f"{sum(use.tries for use in found):>8}"
        )
    return [*lines, "minutes and CPUs: medians; memory: of the largest job. The plan's estimates follow these records."]


def measured(plan: Plan, estimates: Estimates, folder: Path) -> dict[str, list[Use]]:
    """Every finished job that left a record, by stage."""
    attempts = defaultdict(list)
    for attempt in journal.read(folder):
        attempts[attempt.output].append(attempt)
    uses: dict[str, list[Use]] = defaultdict(list)
    for spec in [*plan.needed(), *plan.study_specs().values()]:
        record = _record(folder / estimates.results, spec)
        if record is None:
            continue
        tries = attempts[str(estimates.results / spec.output)]
        last = next((attempt for attempt in reversed(tries) if attempt.state == "COMPLETED"), None)
        gpus = last.gpu if last else estimates.resource(spec, "gpu")
        seconds = max(record["wall_seconds"], 1e-3)
        uses[spec.stage].append(
            Use(
                minutes_asked=last.runtime if last else estimates.resource(spec, "runtime"),
                minutes=seconds / 60,
                mem_mb_asked=last.mem_mb if last else estimates.resource(spec, "mem_mb"),
                mem_mb=record["peak_memory_mb"],
                threads=last.threads if last else estimates.resource(spec, "threads"),
                cpus=(record["cpu_seconds"] + record["import_cpu_seconds"]) / seconds,
                gpu_hours=sum(attempt.gpu * attempt.elapsed for attempt in tries) / 3600 or gpus * seconds / 3600,
                tries=max(1, len(tries)),
            )
        )
    return dict(uses)


def _record(results: Path, spec: Spec) -> dict[str, float] | None:
    frozen = results / spec_file(spec.output, spec.hash)
    try:
        record = json.loads(frozen.with_name(frozen.name.replace(".spec.json", ".record.json")).read_bytes())
        names = ("wall_seconds", "peak_memory_mb", "cpu_seconds", "import_cpu_seconds")
        return {name: float(record[name]) for name in names}
    except (OSError, ValueError, KeyError, TypeError):
        return None


def _median(uses: Sequence[Use], value: Callable[[Use], float]) -> float:
    return median(value(use) for use in uses)
