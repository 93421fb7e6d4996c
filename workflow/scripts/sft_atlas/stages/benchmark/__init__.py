"""Stage *prepare* for benchmarks: whatever the layout of the source, items of one schema."""

from collections.abc import Iterator
from typing import Any

from sft_atlas.nodes import Benchmark
from sft_atlas.stage import Job, Stage
from sft_atlas.study.identity import identity_of
from sft_atlas.study.plan import Plan
from sft_atlas.study.source_identities import file_identity, files_of, source_identity


def jobs(plan: Plan) -> Iterator[Job]:
    """A job for each benchmark."""
    for name, declared in sorted(plan.study.benchmarks.items()):
        identity: dict[str, Any] = {
            "source": source_identity(f"benchmarks.{name}", declared),
            "format": declared.format,
            "limit": declared.limit,
            "examples": None,
        }
        if declared.shots_path:
            identity["examples"] = file_identity(f"benchmarks.{name}.shots_path", declared.shots_path)
        elif declared.shots_hub:
            identity["examples"] = {"hub": identity_of(declared.shots_hub)}
        sources = (*files_of(declared.path), *([declared.shots_path] if declared.shots_path else []))
        # no part of what is prepared, but the job can tell whether there are as many worked examples, and items
        kept = declared.model_dump(include={"own_example"}, exclude_defaults=True)
        labels: dict[str, Any] = {"shots": max(declared.shots)} | kept if any(declared.shots) else {}
        labels |= {"expected_items": declared.expected_items} if declared.expected_items else {}
        yield Job(Benchmark(name), f"benchmarks/{name}", identity, sources=sources, labels=labels)


STAGE = Stage(
    __name__,
    name="benchmark",
    scope="benchmark",
    output="{place}-{hash}/manifest.json",
    jobs=jobs,
    priority=60,
    version=2,
    target="prepare",
    prepares=True,
    folders=("benchmarks",),
)
