"""Stage *complete*: whether every declared cell has its results; only target `report_complete` asks."""

from collections.abc import Iterator

from sft_atlas.stage import Job, Stage
from sft_atlas.study.plan import View


def jobs(view: View) -> Iterator[Job]:
    """One job."""
    yield Job(view.key, view.folder, {}, {"collect": view.specs["collect"].output})


STAGE = Stage(
    __name__,
    name="complete",
    scope="study",
    output="{place}/complete.json",
    jobs=jobs,
    after=("collect", "import"),
    gathers=("tables",),
)
