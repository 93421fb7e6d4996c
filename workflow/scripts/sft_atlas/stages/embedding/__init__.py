"""Stage *embedding*: where a sample or a benchmark lies in the space of a local embedding model, if there is one."""

from collections.abc import Iterator

from sft_atlas.nodes import Benchmark, Sample
from sft_atlas.stage import Job, Stage
from sft_atlas.study.identity import identity_of
from sft_atlas.study.plan import Plan
from sft_atlas.study.source_identities import files_of, local_fingerprint


def jobs(plan: Plan) -> Iterator[Job]:
    """A job for each sample that a run is trained on, and for each benchmark."""
    declared = plan.study.similarity.embedding
    if declared is None:
        return
    samples = sorted({key.sample for key in plan.matrix.runs})
    sources: list[Sample | Benchmark] = [*map(Sample, samples), *map(Benchmark, sorted(plan.study.benchmarks))]
    for key in sources:
        kind = "sample" if isinstance(key, Sample) else "benchmark"
        source = plan.job(kind, key)
        identity = {
            "kind": kind,
            "source": source.hash,
            "model": local_fingerprint("similarity.embedding.path", declared.path),
            **identity_of(declared),
            "template": plan.template,
            "threads": plan.study.threads,
        }
        yield Job(key, source.folder, identity, {"source": source.output}, files_of(declared.path))


STAGE = Stage(
    __name__,
    name="embedding",
    scope="text",
    output="{place}/embedding-{hash}.parquet",
    jobs=jobs,
    priority=54,
    version=1,
    after=("sample", "benchmark"),
    known_as="embeddings",
    absent="-",
    numeric=True,
)
