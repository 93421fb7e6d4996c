"""Stage *analyse*: from result tables to findings."""

from collections.abc import Iterator

from sft_atlas.stage import Job, Stage
from sft_atlas.study.plan import View


def jobs(view: View) -> Iterator[Job]:
    """One job."""
    identity = {"options": view.plan.study.analyses.model_dump(), "labels": view.plan.labels()}
    inputs = {name: view.specs[name].output for name in ("collect", "audit")}
    yield Job(view.key, view.folder, identity, inputs)


STAGE = Stage(
    __name__,
    name="analyse",
    scope="study",
    output="{place}/analyse.json",
    jobs=jobs,
    gathers=("tables",),
    after=("audit",),
    target="tables",
)
