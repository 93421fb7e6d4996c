"""Recipes that list values: one declaration for a product of training settings.

    "{method}-lr{learning_rate}": {method: [full, lora], learning_rate: [1e-6, 1e-5], epochs: 3}

stands for four recipes, `full-lr1e-6` to `lora-lr1e-5`, just as if each had been written out: identities know nothing
of a grid, so that its recipes share runs with any study that declares the same values.
"""

import re
from collections.abc import Mapping
from fnmatch import fnmatchcase
from itertools import product
from typing import Annotated, Any

from pydantic import Discriminator, Field, Tag, create_model

from sft_atlas.study.model import NAME, Recipe, Strict, Study

MAX_RECIPES = 10_000
PLACEHOLDER = re.compile(r"\{(\w*)\}")
# `keep` is a list as it is, and the adapter's settings belong together
WHOLE = ("keep", "lora")
VARIED = tuple(name for name in Recipe.model_fields if name not in WHOLE)


def _listable(name: str) -> tuple[Any, Any]:
    """A recipe's field that may also be a list of what the field allows."""
    field = Recipe.model_fields[name]
    if name in WHOLE:
        return field.annotation, field
    one: Any = Annotated[field.annotation, *field.metadata] if field.metadata else field.annotation
    several = Annotated[list[one], Field(min_length=1)]
    # chosen before it is validated, so that a mistake is told of one form only; tags look like validators' names,
    # which error messages leave out of the place
    chosen = Discriminator(lambda value: "list[several]" if isinstance(value, list) else "list[one]")
    kinds = Annotated[one, Tag("list[one]")] | Annotated[several, Tag("list[several]")]
    return Annotated[kinds, chosen], Field(default=field.default, description=field.description)


RecipeGrid = create_model(
    "RecipeGrid",
    __base__=Strict,
    __doc__="Training settings of which some list values: a recipe for each combination, named by `{field}`.",
    **{name: _listable(name) for name in Recipe.model_fields},  # type: ignore[call-overload]
)


def is_grid(name: str, recipe: Any) -> bool:
    """Whether a recipe as it stands in a study file is a grid: by its name, or because a setting lists values."""
    return isinstance(recipe, Mapping) and (
        bool(PLACEHOLDER.search(name)) or any(isinstance(recipe.get(field), list) for field in VARIED)
    )


def members(name: str, recipe: Mapping[str, Any]) -> dict[str, dict[str, Any]]:
    """The recipes that a valid grid stands for, by name, in the order of its lists; `lora` goes to adapters only.

    Raises:
        ValueError: name and lists do not fit together, or a combination's name is none; says what would do.
    """
    listed = {field: recipe[field] for field in VARIED if isinstance(recipe.get(field), list)}
    named = PLACEHOLDER.findall(name)
    if wrong := [field for field in named if field not in listed]:
        lists = ", ".join(f"{{{field}}}" for field in listed) or "none"
        raise ValueError(
            f"the name holds {{{wrong[0]}}}, but no setting of that name lists values (settings that do: {lists})"
        )
    if unnamed := [field for field in listed if field not in named]:
        raise ValueError(
            f"`{unnamed[0]}` lists values: put {{{unnamed[0]}}} into the recipe's name, so that each has one of its own"
        )
    for field, values in listed.items():
        if len({_text(value) for value in values}) < len(values):
            raise ValueError(f"`{field}`: a value stands twice in {values[:20]}")
    size = 1
    for values in listed.values():
        size *= len(values)
    if size > MAX_RECIPES:
        raise ValueError(f"the grid has {size:,} recipes; at most {MAX_RECIPES:,} can be planned")
    found: dict[str, dict[str, Any]] = {}
    for combination in product(*listed.values()):
        values = dict(zip(listed, combination, strict=True))
        member = PLACEHOLDER.sub(lambda match, values=values: _text(values[match[1]]), name)  # type: ignore[misc]
        if not NAME.fullmatch(member):
            raise ValueError(f"{member!r} is no valid name; use letters, digits and . _ - + (at most 64)")
        if member in found:
            raise ValueError(f"two combinations are named {member!r}; part the placeholders, as in {{a}}-{{b}}")
        found[member] = dict(recipe) | values
        if found[member].get("method") == "full":
            found[member].pop("lora", None)
    return found


def search_facts(study: Study) -> dict[str, Any] | None:
    """What the analysis of a hyper-parameter search knows: its options, and the values of every recipe."""
    if study.selection is None:
        return None
    patterns = study.selection.benchmarks
    judges = [name for name in study.benchmarks if any(fnmatchcase(name, pattern) for pattern in patterns)]
    settings = {"learning_rate", "schedule", "warmup_steps", "batch_size", "weight_decay", "max_gradient_norm"}
    recipes = {}
    for name, recipe in study.recipes.items():
        values = recipe.model_dump(include=settings | {"max_length", "precision", "optimizer", "batching"})
        adapter = recipe.adapter
        lora = {"lora_rank": adapter.rank, "lora_alpha": adapter.alpha} if adapter else {}
        recipes[name] = values | {"lora_rank": None, "lora_alpha": None} | lora
    return {"options": study.selection.model_dump() | {"benchmarks": judges}, "recipes": recipes}


def _text(value: Any) -> str:
    """A value in a name, short and exact: 1e-05 is `1e-5`, 0.0 is `0`."""
    return re.sub(r"e([+-])0+", r"e\1", repr(value).strip("'").removesuffix(".0"))
