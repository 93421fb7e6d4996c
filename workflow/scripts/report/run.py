"""Stage *report*: the page of a study, with the library versions that made its results."""

from collections import defaultdict
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from sft_atlas.files import read_json
from sft_atlas.report.page import build
from sft_atlas.study.identity import spec_file


def run(spec: dict[str, Any], root: Path) -> None:
    """Write `report.html` and `figures/` from the study's tables."""
    output = root / spec["output"]
    collected = root / spec["inputs"]["collect"]
    frozen = read_json(root / spec_file(spec["inputs"]["collect"], read_json(collected)["spec"]))
    results = frozen["inputs"].get("results") or [spec["inputs"]["collect"]]
    build(output.with_name("tables"), spec["labels"], versions(results, root), output.parent, cost(results, root))


def cost(results: list[str], root: Path) -> list[dict[str, Any]]:
    """What each stage took: jobs, and their hours of time and of CPU, from the records beside the results."""
    found: dict[str, list[dict[str, Any]]] = defaultdict(list)
    for record in _records(results, root):
        found[record["stage"]].append(record)
    return [
        {
            "stage": stage,
            "jobs": len(records),
            "hours": sum(record["wall_seconds"] for record in records) / 3600,
            "cpu_hours": sum(record["cpu_seconds"] for record in records) / 3600,
            "memory": max(record["peak_memory_mb"] for record in records),
        }
        for stage, records in sorted(found.items())
    ]


def _records(results: list[str], root: Path) -> Iterator[dict[str, Any]]:
    """The records of the jobs that made the results."""
    for result in results:
        path = root / result
        for name in [path.with_name(f"{path.stem}.record.json"), *path.parent.glob(f"{path.stem}-*.record.json")]:
            if name.exists():
                yield read_json(name)


def versions(results: list[str], root: Path) -> dict[str, list[str]]:
    """Every version of each library among the jobs that made the results; more than one means that they are mixed."""
    found: dict[str, set[str]] = defaultdict(set)
    for record in _records(results, root):
        for library, version in {"python": record["python"], **record["libraries"]}.items():
            if version:
                found[library].add(version)
    return {library: sorted(values) for library, values in sorted(found.items())}
