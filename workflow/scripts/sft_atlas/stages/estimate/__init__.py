"""Stage *estimate*: what the study will cost, before anything is spent; a page, a text and a table of every job."""

from sft_atlas.stage import Stage

STAGE = Stage(
    __name__,
    name="estimate",
    scope="study",
    output="{place}/plan.html",
    # what it says is worked out only when the page is asked for
    jobs=lambda plan: (),
    target="plan",
)
