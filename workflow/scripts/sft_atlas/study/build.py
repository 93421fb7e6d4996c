"""Lays out every job of a study as a plan: stage by stage, each with the identities of those that it reads from."""

from pathlib import Path

from sft_atlas.errors import StudyError
from sft_atlas.files import read_json
from sft_atlas.nodes import Benchmark
from sft_atlas.stage import stages
from sft_atlas.study.matrix import Matrix
from sft_atlas.study.model import Study
from sft_atlas.study.plan import Plan


def build_plan(study: Study, matrix: Matrix, name: str, results: Path | None = None) -> Plan:
    """Resolve identities, from sources up to runs, and lay out every job of the study.

    Raises:
        StudyError: a local source does not exist, or two identities collide.
    """
    plan = Plan(study, matrix, name, results)
    for stage in stages().values():
        if stage.scope != "study":
            for job in stage.jobs(plan):
                plan.add(stage, job)
    return plan


def check_examples(plan: Plan, results: Path) -> None:
    """Refuse more worked examples than a benchmark has that is prepared already, before anything is trained.

    Raises:
        StudyError: names the benchmark and how many there are.
    """
    for name, declared in plan.study.benchmarks.items():
        spec, asked = plan.get("benchmark", Benchmark(name)), max(declared.shots)
        # what was prepared counts each item's examples without itself
        if spec and asked and declared.own_example == "exclude" and (results / spec.output).is_file():
            # manifests of earlier versions do not say
            found = read_json(results / spec.output).get("worked_examples", asked)
            if asked > found:
                raise StudyError(
                    f"{plan.name}: benchmarks.{name}.shots: found {asked}, but the benchmark has {found} worked "
                    "examples that fit every item; lower it, or add examples to `shots_path` or `shots_hub`"
                )
