"""Stage *import*: the tables of a study from a table of scores, in place of collecting results of its own."""

from collections.abc import Iterator

from sft_atlas.stage import Job, Stage
from sft_atlas.study.plan import View


def jobs(view: View) -> Iterator[Job]:
    """One job, if the study names a table of scores."""
    if view.plan.imported:
        identity, sources = view.plan.imported
        yield Job(view.key, view.folder, identity, sources=sources)


STAGE = Stage(
    __name__,
    name="import",
    scope="study",
    output="{place}/collect.json",
    jobs=jobs,
    gathers=("tables",),
    known_as="collect",
)
