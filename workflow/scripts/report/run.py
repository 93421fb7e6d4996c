"""Stage *report*: the page of a study, with the library versions that made its results."""

from collections import defaultdict
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
    build(output.with_name("tables"), spec["labels"], versions(frozen["inputs"]["results"], root), output.parent)


def versions(results: list[str], root: Path) -> dict[str, list[str]]:
    """Every version of each library among the jobs that made the results; more than one means that they are mixed."""
    found: dict[str, set[str]] = defaultdict(set)
    for result in results:
        path = root / result
        names = [path.with_name(f"{path.stem}.record.json"), *path.parent.glob(f"{path.stem}-*.record.json")]
        for record in (read_json(name) for name in names if name.exists()):
            for library, version in {"python": record["python"], **record["libraries"]}.items():
                if version:
                    found[library].add(version)
    return {library: sorted(values) for library, values in sorted(found.items())}
