"""Stage *train*: one run of supervised fine-tuning, and the epochs of it that the study keeps."""

from collections.abc import Iterator
from typing import Any

from sft_atlas.nodes import Base, RunKey, Sample
from sft_atlas.stage import Job, Stage
from sft_atlas.study.identity import identity_of, spec_hash
from sft_atlas.study.model import Recipe
from sft_atlas.study.plan import Plan


def jobs(plan: Plan) -> Iterator[Job]:
    """A job for each run."""
    for key in plan.matrix.runs:
        yield _job(plan, key, STAGE.version)


def _job(plan: Plan, key: RunKey, version: int) -> Job:
    base, tokens = plan.job("base", Base(key.base)), plan.job("tokens", plan.tokens_of(key))
    run = {
        "base": base.hash,
        "tokens": tokens.hash,
        "recipe": recipe_identity(plan.study.recipes[key.recipe]),
        "seed": key.seed,
        "threads": plan.study.threads,
    }
    run_id = spec_hash("run", version, run)
    place = f"runs/{key.base}/{key.sample}/{key.recipe}-{run_id}"
    identity = {"run": run_id, "settings": run, "epochs": list(plan.matrix.runs[key].epochs)}
    inputs = {"base": base.output, "tokens": tokens.output}
    compared = plan.get("compared", Sample(key.sample))
    inputs |= {"compared": compared.output} if compared else {}
    return Job(key, place, identity, inputs, under=lambda earlier: _job(plan, key, earlier))


def recipe_identity(recipe: Recipe) -> dict[str, Any]:
    """A recipe's scientific fields.

    Which epochs are kept changes no weight. Under a constant schedule, neither does the number of epochs: epoch k of a
    longer run equals a run of k epochs, so both are the same run. Under any other schedule they are different runs.
    """
    # an adapter's settings count whether they are written out or left at their defaults
    whole = recipe.model_copy(update={"lora": recipe.adapter})
    return identity_of(whole, without={"epochs"} if recipe.schedule == "constant" else ())


STAGE = Stage(
    __name__,
    name="train",
    scope="run",
    output="{place}/train-{hash}.json",
    jobs=jobs,
    version=2,
    after=("base", "tokens", "compared"),
    absent="not trained",
    numeric=True,
    fails=True,
    folders=("runs",),
)
