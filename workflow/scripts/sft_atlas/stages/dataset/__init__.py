"""Stage *prepare*, first half: a declared source becomes normalised rows, cleaned, each with its source row's id."""

from collections.abc import Iterator

from sft_atlas.nodes import Dataset
from sft_atlas.stage import Job, Stage
from sft_atlas.study.identity import identity_of
from sft_atlas.study.plan import Plan
from sft_atlas.study.source_identities import files_of, source_identity


def jobs(plan: Plan) -> Iterator[Job]:
    """A job for each dataset that a run is trained on."""
    for name in dict.fromkeys(dataset for sample in plan.singles for dataset in plan.matrix.samples[sample].datasets):
        declared = plan.study.datasets[name]
        identity = {"source": source_identity(f"datasets.{name}", declared), **identity_of(declared)}
        yield Job(Dataset(name), f"datasets/{name}", identity, sources=files_of(declared.path))


STAGE = Stage(
    __name__,
    name="dataset",
    scope="dataset",
    output="{place}-{hash}/manifest.json",
    jobs=jobs,
    priority=60,
    version=2,
    target="prepare",
    prepares=True,
    folders=("datasets",),
)
