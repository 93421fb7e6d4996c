"""Stage *restore*: puts back released weights that a new measurement needs, once for all that need them.

Planned only where a run's weights are gone, a release says so, and one of its readers has no result yet. Readers that
were made on restored weights are finished for good: what they read is gone again, so a plan leaves them alone
(`finished`), and no finished job has a restoring one among its inputs.
"""

from collections.abc import Iterator
from pathlib import Path

from sft_atlas.files import epoch_folder, read_json
from sft_atlas.models.released import has_weights, releases
from sft_atlas.nodes import Base, RunKey
from sft_atlas.stage import Job, Stage, stages
from sft_atlas.study.plan import Plan, Spec


def jobs(plan: Plan) -> Iterator[Job]:
    """A job for each run whose released weights are needed; tells its readers."""
    for key in plan.matrix.runs if plan.results else ():
        assert plan.results is not None
        train = plan.job("train", key)
        if not (plan.results / train.output).exists():
            continue
        missing = [spec for spec in readers(plan, key) if not (plan.results / spec.output).exists()]
        epochs = sorted({epoch for spec in missing for epoch in spec.identity["epochs"]})
        if not missing or not _gone(plan.results / train.output, epochs):
            continue
        tokens, base = plan.job("tokens", plan.tokens_of(key)), plan.job("base", Base(key.base))
        identity = {
            "run": train.identity["run"],
            "epochs": epochs,
            "readers": sorted(spec.hash for spec in missing),
        }
        inputs = {"base": base.output, "tokens": tokens.output, "train": train.output}
        yield Job(key, train.folder, identity, inputs, labels={"spec": train.file})
        for spec in missing:
            spec.inputs["restored"] = plan.job("restore", key).output


def readers(plan: Plan, key: RunKey) -> list[Spec]:
    """The jobs that read a run's weights."""
    found = [plan.get(stage.name, key) for stage in stages().values() if stage.reads_weights]
    return [spec for spec in found if spec]


def finished(plan: Plan, results: Path) -> list[str]:
    """Outputs that are there and were made on restored weights, by stage."""
    return [
        spec.output
        for key in plan.matrix.runs
        for spec in _restored(plan, key, results)
        if (results / spec.output).exists()
    ]


def _restored(plan: Plan, key: RunKey, results: Path) -> list[Spec]:
    folder = results / plan.job("train", key).folder
    hashes: set[str] = set()
    for path in folder.glob("restore-*.spec.json"):
        hashes |= set(read_json(path)["identity"]["readers"])
    return [spec for spec in readers(plan, key) if spec.hash in hashes] if hashes else []


def _gone(train: Path, epochs: list[int]) -> bool:
    """Whether the weights of some epochs are not there because they were released."""
    gone = [epoch for epoch in epochs if not has_weights(train, epoch)]
    return bool(gone) and {epoch_folder(train, epoch) for epoch in gone} <= releases(train.parent)


STAGE = Stage(
    __name__,
    name="restore",
    scope="run",
    output="{place}/restore-{hash}.json",
    jobs=jobs,
    priority=10,
    after=("train", "tokens"),
    after_readers=True,
    numeric=True,
)
