"""Lays out every job of a study as a plan: stage by stage, each with the identities of those that it reads from."""

from pathlib import Path

from sft_atlas.errors import StudyError
from sft_atlas.files import read_json
from sft_atlas.nodes import Benchmark, Sample
from sft_atlas.stage import stages
from sft_atlas.study.load import unknown
from sft_atlas.study.matrix import Matrix
from sft_atlas.study.model import Study
from sft_atlas.study.plan import Plan, Spec


def build_plan(study: Study, matrix: Matrix, name: str, results: Path | None = None) -> Plan:
    """Resolve identities, from sources up to runs, and lay out every job of the study.

    Raises:
        StudyError: a local source does not exist, two identities collide, or results of a version are accepted that
            never was.
    """
    _check_accepted(study, name)
    plan = Plan(study, matrix, name, results)
    for stage in stages().values():
        if stage.scope != "study":
            for job in stage.jobs(plan):
                plan.add(stage, job)
    return plan


def _check_accepted(study: Study, name: str) -> None:
    versions = {stage.name: stage.version for stage in stages().values() if stage.version}
    for stage, version in study.accept.items():
        if stage not in versions:
            raise StudyError(f"{name}: accept.{stage}: {unknown('stage', stage, versions)}")
        if version > versions[stage]:
            raise StudyError(
                f"{name}: accept.{stage}: found {version}, but this code is of version {versions[stage]}; give an "
                "earlier one, or bring the code up to date"
            )


def check_examples(plan: Plan, results: Path) -> None:
    """Refuse what a benchmark or sample that is prepared already does not have, before anything is trained.

    More worked examples, another number of items, more rows than there are (with `shortfall: error`).

    Raises:
        StudyError: names the benchmark or sample and how many there are.
    """
    for (stage, key), spec in plan.specs.items():
        if stage == "sample" and isinstance(key, Sample):
            _check_rows(plan.name, key.sample, spec, results)
    for name, declared in plan.study.benchmarks.items():
        spec, asked = plan.job("benchmark", Benchmark(name)), max(declared.shots)
        if not (results / spec.output).is_file():
            continue
        expected = declared.expected_items
        if expected and (found := read_json(results / spec.output).get("in_source", expected)) != expected:
            raise StudyError(
                f"{plan.name}: benchmarks.{name}.expected_items: found {expected}, but the benchmark's source holds "
                f"{found} items; correct `files`, the revision, or the number"
            )
        # what was prepared counts each item's examples without itself
        if asked and declared.own_example == "exclude":
            # manifests of earlier versions do not say
            found = read_json(results / spec.output).get("worked_examples", asked)
            if asked > found:
                raise StudyError(
                    f"{plan.name}: benchmarks.{name}.shots: found {asked}, but the benchmark has {found} worked "
                    "examples that fit every item; lower it, or add examples to `shots_path` or `shots_hub`"
                )


def _check_rows(study: str, sample: str, spec: Spec, results: Path) -> None:
    manifest, asked = results / spec.output, spec.labels.get("asked")
    if asked is None or spec.labels["shortfall"] != "error" or not manifest.is_file():
        return
    for dataset, facts in read_json(manifest)["sources"].items():
        if facts["available"] < asked:
            raise StudyError(
                f"{study}: samples.{sample}: {asked} rows of {dataset} are asked for, {facts['available']} are there "
                "after cleaning; lower `size`, or set `shortfall: take_all`"
            )
