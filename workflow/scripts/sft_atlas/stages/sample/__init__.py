"""Stage *prepare*, second half: a fixed subset of datasets, or a mixture of such, as prompts and completions."""

from collections.abc import Iterator
from dataclasses import replace
from functools import partial
from typing import Any

from sft_atlas.nodes import Dataset, Sample
from sft_atlas.stage import Job, Stage
from sft_atlas.study.identity import identity_of
from sft_atlas.study.matrix import ExpandedSample
from sft_atlas.study.model import Study
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
            size = known_rows(plan.study, sample)
            drawn = {"datasets": sorted(part.hash for part in parts), **identity_of(sample.declared), "size": size}
            identity = drawn | {"template": plan.template}
        # in the order of the hashes, so that a mixture does not depend on names
        ordered = sorted(parts, key=lambda part: part.hash)
        inputs = {"parts": [part.output for part in ordered]}
        # what is to be done where rows are too few changes no row
        labels = {} if sample.parts else {"asked": sample.declared.size, "shortfall": sample.declared.shortfall}
        job = Job(Sample(name), f"samples/{name}", identity, inputs, labels=labels)
        yield replace(job, under=partial(_under, job, sample))


def _under(job: Job, sample: ExpandedSample, version: int) -> Job:
    """The job as an earlier version knew it: the first one hashed the rows asked for, and what to do with fewer."""
    if version > 1 or sample.parts:
        return job
    return replace(job, identity=job.identity | {"size": sample.declared.size, "shortfall": sample.declared.shortfall})


def known_rows(study: Study, sample: ExpandedSample) -> int | None:
    """Rows to draw of each dataset: those asked for, or all where it is known at planning that there are no more.

    Only a micro dataset is known to have its rows: what cleaning leaves of a file is known when it has been read whole,
    and planning does not.
    """
    asked = sample.declared.size
    known = [made.rows for name in sample.datasets if (made := study.datasets[name].micro)]
    most = max(known, default=0)
    return asked if len(known) < len(sample.datasets) else min(asked or most, most)


STAGE = Stage(
    __name__,
    name="sample",
    scope="sample",
    output="{place}-{hash}/manifest.json",
    jobs=jobs,
    priority=60,
    version=2,
    after=("dataset",),
    target="prepare",
    prepares=True,
    folders=("samples",),
)
