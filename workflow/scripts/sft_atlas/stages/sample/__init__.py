"""Stage *prepare*, second half: a fixed subset of datasets, or a mixture of such, as prompts and completions."""

from collections.abc import Iterator
from typing import Any

from sft_atlas.nodes import Dataset, Sample
from sft_atlas.stage import Job, Stage
from sft_atlas.study.identity import identity_of
from sft_atlas.study.plan import Plan


def jobs(plan: Plan) -> Iterator[Job]:
    """A job for each sample that a run is trained on, after those that such a mixture is made of."""
    mixtures = sorted({key.sample for key in plan.matrix.runs} - set(plan.singles))
    for name in [*plan.singles, *mixtures]:
        sample = plan.matrix.samples[name]
        if sample.parts:
            parts = [plan.job("sample", Sample(part)) for part in sample.parts]
            identity: dict[str, Any] = {"mix": sorted(part.hash for part in parts)}
        else:
            parts = [plan.job("dataset", Dataset(dataset)) for dataset in sample.datasets]
            drawn = {"datasets": sorted(part.hash for part in parts), **identity_of(sample.declared)}
            identity = drawn | {"template": plan.template}
        # in the order of the hashes, so that a mixture does not depend on names
        ordered = sorted(parts, key=lambda part: part.hash)
        yield Job(Sample(name), f"samples/{name}", identity, {"parts": [part.output for part in ordered]})


STAGE = Stage(
    __name__,
    name="sample",
    scope="sample",
    output="{place}-{hash}/manifest.json",
    jobs=jobs,
    version=1,
    after=("dataset",),
    target="prepare",
    prepares=True,
    folders=("samples",),
)
