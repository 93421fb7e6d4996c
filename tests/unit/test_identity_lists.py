"""What an identity holds is an explicit list; an option added to a declaration moves no identity until it is used."""

import importlib
from collections.abc import Iterator
from pathlib import Path
from typing import Any, Literal

import pytest
from pydantic import Field

from sft_atlas.fields import Strict
from sft_atlas.stages.train import recipe_identity
from sft_atlas.study import measures, model
from sft_atlas.study.identity import identity_of
from sft_atlas.study.model import Recipe
from sft_atlas.study.plan import Plan
from tests.unit.helpers import plan_of, write_study

RECIPE: dict[str, Any] = {"method": "full", "learning_rate": 1e-3}


def declarations() -> Iterator[type[Strict]]:
    """Every declaration that some identity holds."""
    micro = importlib.import_module("sft_atlas.micro.declared")
    for module in (model, measures, micro):
        for kind in vars(module).values():
            if isinstance(kind, type) and issubclass(kind, Strict) and (kind.HASHED or kind.LABELS):
                yield kind


@pytest.mark.parametrize("kind", sorted(set(declarations()), key=lambda kind: kind.__name__))
def test_the_lists_name_fields_that_there_are(kind: type[Strict]) -> None:
    listed = [*kind.hashed(), *kind.LABELS]
    assert len(set(listed)) == len(listed)
    assert set(listed) <= set(kind.model_fields)
    # what is in neither list is absent at its default, so it has to have one
    assert all(not kind.model_fields[name].is_required() for name in set(kind.model_fields) - set(listed))


def test_a_field_that_entered_later_is_absent_while_it_is_neutral() -> None:
    class Later(Recipe):
        loss: Literal["token_mean", "row_mean"] = Field(default="token_mean")

    before = recipe_identity(Recipe(**RECIPE))
    assert recipe_identity(Later(**RECIPE)) == before
    assert recipe_identity(Later(**RECIPE, loss="row_mean")) == before | {"loss": "row_mean"}


def test_a_renamed_field_keeps_its_key() -> None:
    class Before(Strict):
        HASHED = ("splits",)
        splits: int = 1

    class After(Strict):
        HASHED = ("accumulation_steps=splits",)
        accumulation_steps: int = 1

    assert identity_of(After(accumulation_steps=3)) == identity_of(Before(splits=3)) == {"splits": 3}
    assert After.model_validate(After.of_identity({"splits": 3})) == After(accumulation_steps=3)


def test_parts_of_a_declaration_follow_their_own_lists() -> None:
    class Inner(Strict):
        HASHED = ("old",)
        LABELS = ("note",)
        old: int = 1
        new: int = 2
        note: str = ""

    class Outer(Strict):
        HASHED = ("parts",)
        parts: list[Inner] = Field(default=[])

    assert identity_of(Outer(parts=[Inner(note="x"), Inner(new=5)])) == {"parts": [{"old": 1}, {"old": 1, "new": 5}]}


def ids(plan: Plan) -> dict[tuple[str, Any], str]:
    return {key: spec.hash for key, spec in plan.specs.items()}


@pytest.mark.parametrize(("section", "kind"), [("recipes", "Recipe"), ("evaluation", "Evaluation")])
def test_an_option_moves_no_job_until_it_is_used_and_then_its_own(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, section: str, kind: str
) -> None:
    """The option is added to the shipped declaration itself, as a later version would."""
    path = write_study(tmp_path)
    before = plan_of(path)
    declared: Any = getattr(model if kind == "Recipe" else measures, kind)

    def planned(value: str) -> Plan:
        later = type(kind, (declared,), {"__annotations__": {"option": str}, "option": Field(default="as before")})
        plan = plan_of(path)
        study = plan.study
        if section == "recipes":
            recipes = {
                name: later.model_validate(recipe.model_dump() | ({"option": value} if name == "lora" else {}))
                for name, recipe in study.recipes.items()
            }
            changed = study.model_copy(update={"recipes": recipes})
        else:
            changed = study.model_copy(update={"evaluation": later.model_validate({"option": value, **_given(study)})})
        from sft_atlas.study.build import build_plan

        return build_plan(changed, plan.matrix, plan.name)

    assert ids(planned("as before")) == ids(before)
    moved = {key for key, hash8 in ids(planned("another")).items() if ids(before)[key] != hash8}
    if section == "recipes":
        runs = {key for key in before.matrix.runs if key.recipe == "lora"}
        assert {key for stage, key in moved if stage == "train"} == runs
        assert {stage for stage, _ in moved} == {"train", "evaluate", "weights"}
    else:
        assert {stage for stage, _ in moved} == {"evaluate"}


def _given(study: Any) -> dict[str, Any]:
    return dict(study.evaluation.model_dump())
