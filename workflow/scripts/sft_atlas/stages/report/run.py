"""Stage *report*: the page of a study, with the library versions that made its results and what they cost."""

from collections import defaultdict
from collections.abc import Iterable
from pathlib import Path

from sft_atlas.analysis import tables
from sft_atlas.report.costs import Record, cost_table, records
from sft_atlas.report.page import build
from sft_atlas.stages.report.spec import Spec


def run(spec: Spec, root: Path) -> None:
    """Write `report.html` and `figures/` from the study's tables, and the table `cost` from the jobs' records."""
    output = root / spec.output
    found = records(spec.inputs.model_dump().values(), root)
    tables.write(cost_table(found), output.with_name("tables"), "cost")
    build(
        output.with_name("tables"), spec.labels | {"accepted": spec.identity.accepted}, versions(found), output.parent
    )


def versions(found: Iterable[Record]) -> dict[str, list[str]]:
    """Every version of each library among the jobs that made the results; more than one means that they are mixed."""
    seen: dict[str, set[str]] = defaultdict(set)
    for record in found:
        for library, version in {"python": record["python"], **record["libraries"]}.items():
            if version:
                seen[library].add(version)
    return {library: sorted(values) for library, values in sorted(seen.items())}
