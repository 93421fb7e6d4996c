"""What the jobs behind a study took, from the records beside their outputs."""

from collections.abc import Iterable, Iterator
from pathlib import Path, PurePosixPath
from typing import Any

import polars as pl

from sft_atlas.analysis import tables
from sft_atlas.files import read_json
from sft_atlas.study.identity import spec_file
from sft_atlas.study.plan import leaves

Record = dict[str, Any]


def records(outputs: Iterable[str], root: Path) -> list[Record]:
    """The records of the jobs that made the outputs and of all jobs before them, each once, with key `spec`.

    `outputs` are paths below the results folder `root`. A job whose record or specification is gone is left out.
    """
    found: dict[str, Record] = {}
    waiting = list(outputs)
    while waiting:
        output = waiting.pop()
        if output in found:
            continue
        found[output] = {}
        frozen = _frozen(output, root)
        if frozen is None:
            continue
        spec = read_json(frozen)
        waiting += leaves(spec["inputs"])
        record = frozen.with_name(frozen.name.replace(".spec.json", ".record.json"))
        if record.exists():
            found[output] = read_json(record) | {"spec": spec}
    return [found[output] for output in sorted(found) if found[output]]


def _frozen(output: str, root: Path) -> Path | None:
    """The specification that a present output was made by: its hash is in the output's path, or said in the output."""
    path = root / output
    exact = path.with_name(f"{path.stem}.spec.json")
    if exact.exists():
        return exact
    if path.name == "manifest.json":
        hash8 = path.parent.name.rpartition("-")[2]
    elif path.suffix == ".json" and path.exists():
        hash8 = read_json(path).get("spec", "")
    else:
        return None
    found = root / spec_file(output, hash8)
    return found if found.exists() else None


def cost_table(found: Iterable[Record]) -> pl.DataFrame:
    """Table `cost`: a row per job."""
    jobs = list(found)
    seeds = {
        PurePosixPath(job["output"]).parent: job["spec"]["identity"]["settings"]["seed"]
        for job in jobs
        if job["stage"] == "train"
    }
    rows = []
    for job in jobs:
        place = PurePosixPath(job["output"])
        # records from before there was a device are of CPUs
        on_gpu = job.get("device", "cpu") == "gpu"
        rows.append(
            {
                **{"stage": job["stage"], "output": job["output"], **dict(_names(place))},
                **{name: job[name] for name in ("wall_seconds", "cpu_seconds", "peak_memory_mb")},
                "gpu_seconds": job["wall_seconds"] if on_gpu else 0.0,
                "seed": seeds.get(place.parent),
            }
        )
    return tables.build("cost", rows)


def _names(output: PurePosixPath) -> Iterator[tuple[str, str]]:
    """Which base, sample and recipe a job is of, read off where its output lies."""
    kind, *parts = output.parts
    if kind == "runs":
        yield from zip(("base", "sample", "recipe"), (*parts[:2], parts[2].rpartition("-")[0]), strict=True)
    elif kind in ("bases", "samples"):
        yield kind.removesuffix("s"), parts[0].rpartition("-")[0]
    elif kind == "tokens":
        yield "sample", parts[1].rpartition("-")[0]


def by_stage(cost: pl.DataFrame) -> list[dict[str, Any]]:
    """Each stage of table `cost`: jobs, hours of time, CPU and GPU in all, and the most memory of one job in MB."""
    hours = ((pl.col(f"{name}_seconds").sum() / 3600).alias(f"{name}_hours") for name in ("wall", "cpu", "gpu"))
    summed = cost.group_by("stage").agg(pl.len().alias("jobs"), *hours, pl.col("peak_memory_mb").max())
    return summed.sort("stage").to_dicts()
