"""Stage *audit*: which scores look like mistakes, before anything is made of them."""

from collections.abc import Iterator

from sft_atlas.stage import Job, Stage
from sft_atlas.study.plan import View


def jobs(view: View) -> Iterator[Job]:
    """One job."""
    identity = {"labels": {"benchmarks": view.plan.labels()["benchmarks"]}}
    yield Job(view.key, view.folder, identity, {"collect": view.specs["collect"].output})


STAGE = Stage(
    __name__,
    name="audit",
    scope="study",
    output="{place}/audit.json",
    jobs=jobs,
    gathers=("tables",),
    after=("collect", "import"),
)
