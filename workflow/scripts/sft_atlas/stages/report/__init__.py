"""Stage *report*: one page of findings that opens offline."""

from collections.abc import Iterator

from sft_atlas.stage import Job, Stage
from sft_atlas.study.plan import View


def jobs(view: View) -> Iterator[Job]:
    """One job."""
    plan = view.plan
    study = plan.study
    # in the identity: two filters may leave the same cells, and the page names one
    identity = {"study": plan.name, **({"part": plan.part} if plan.part else {})}
    if plan.accepted:
        identity["accepted"] = plan.accepted
    shown = {"bases": list(study.bases), "datasets": list(study.datasets)}
    labels = plan.labels()
    about = {"name": plan.name, "title": study.title, "analyses": study.analyses.model_dump(), **labels, **shown}
    inputs = {name: view.specs[name].output for name in ("collect", "audit", "analyse")}
    yield Job(view.key, view.folder, identity, inputs, labels=about | {"labels": labels, "part": plan.part})


STAGE = Stage(
    __name__,
    name="report",
    scope="study",
    output="{place}/report.html",
    jobs=jobs,
    gathers=("tables",),
    data=("report/templates/*",),
    after=("analyse",),
)
