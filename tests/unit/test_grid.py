"""Recipes that list values stand for the product of these, no more and no less."""

from pathlib import Path

import pytest

from sft_atlas.errors import StudyError
from sft_atlas.study.grid import WHOLE, RecipeGrid, members
from sft_atlas.study.load import load_study
from sft_atlas.study.model import Recipe
from tests.unit.helpers import plan_of, write_study

DECAY = "  decay: {method: full, learning_rate: 1e-3, schedule: cosine, epochs: 4}\n"
GRID = (
    '  "{method}-lr{learning_rate}-wd{weight_decay}": {method: [full, lora], learning_rate: [1e-5, 2e-4], '
    "weight_decay: [0, 0.1], epochs: 2, keep: [1, 2], lora: {rank: 4}}\n"
)
MAIN = 'main: {bases: "*", samples: "*-40", recipes: full}'


def with_recipe(folder: Path, recipe: str) -> Path:
    return write_study(folder, (DECAY, DECAY + recipe))


def test_a_grid_is_its_recipes_written_out(tmp_path: Path) -> None:
    recipes = load_study(with_recipe(tmp_path, GRID)).recipes
    made = {name: recipe for name, recipe in recipes.items() if "-lr" in name}
    assert list(made) == [
        f"{method}-lr{rate}-wd{decay}"
        for method in ("full", "lora")
        for rate in ("1e-5", "0.0002")
        for decay in ("0", "0.1")
    ]
    adapter = {"rank": 4, "alpha": 16, "dropout": 0.0, "targets": "all-linear"}
    for name, recipe in made.items():
        method, rate, decay = name.split("-", 1)[0], name.split("lr")[1].split("-wd")[0], name.split("-wd")[1]
        written = {"method": method, "learning_rate": float(rate), "weight_decay": float(decay), "epochs": 2}
        written |= {"keep": [1, 2], "lora": adapter if method == "lora" else None}
        assert recipe == Recipe.model_validate(written)


def test_identities_know_nothing_of_a_grid(tmp_path: Path) -> None:
    grid = '  "lr{learning_rate}": {method: full, learning_rate: [1e-5, 2e-5]}\n'
    alone = "  lr2e-5: {method: full, learning_rate: 2e-5}\n"
    plans = []
    for recipe in (grid, alone):
        path = write_study(tmp_path, (DECAY, DECAY + recipe), (MAIN, MAIN.replace("recipes: full", "recipes: lr*")))
        plans.append({spec.output for spec in plan_of(path).select("train", recipe="lr2e-5")})
    assert plans[0] == plans[1]
    assert plans[0]


# mistake: the recipe, the key path that the message must name, and what else it must say
BAD = {
    "list without a place in the name": (
        "x: {method: full, learning_rate: [1e-5, 1e-4]}",
        "recipes.x",
        "put {learning_rate} into the recipe's name",
    ),
    "one list without a place": (
        '"x{method}": {method: [full, lora], learning_rate: [1e-5, 1e-4]}',
        "recipes.x{method}",
        "put {learning_rate} into",
    ),
    "unknown field in the name": (
        '"x{lr}": {method: full, learning_rate: [1e-5]}',
        "recipes.x{lr}",
        "settings that do: {learning_rate}",
    ),
    "name of a single value": (
        '"x{method}": {method: full, learning_rate: 1e-5}',
        "recipes.x{method}",
        "settings that do: none",
    ),
    "value that the field refuses": (
        '"x{learning_rate}": {method: full, learning_rate: [1e-5, -1]}',
        "recipes.x{learning_rate}.learning_rate[1]",
        "expected greater than 0; found -1",
    ),
    "mistyped value": (
        '"x{method}": {method: [full, lor], learning_rate: 1e-5}',
        "recipes.x{method}.method[1]",
        "did you mean 'lora'?",
    ),
    "mistyped key": (
        '"x{method}": {method: [full, lora], learning_rat: 1e-5}',
        "recipes.x{method}.learning_rat",
        "did you mean 'learning_rate'?",
    ),
    "empty list": (
        '"x{learning_rate}": {method: full, learning_rate: []}',
        "recipes.x{learning_rate}.learning_rate",
        "at least one entry",
    ),
    "value twice": (
        '"x{weight_decay}": {method: full, learning_rate: 1e-5, weight_decay: [0, 0.0]}',
        "recipes.x{weight_decay}",
        "stands twice",
    ),
    "name of another recipe": (
        '"{method}": {method: [full], learning_rate: 1e-5}',
        "recipes.{method}",
        "second recipe named 'full'",
    ),
    "names that run together": (
        '"x{batch_size}{epochs}": {method: full, learning_rate: 1e-5, batch_size: [1, 11], epochs: [11, 1]}',
        "recipes.x{batch_size}{epochs}",
        "two combinations are named 'x111'",
    ),
    "name that is none": (
        '"x/{method}": {method: [full], learning_rate: 1e-5}',
        "recipes.x/{method}",
        "'x/full' is no valid name",
    ),
    "too many": (
        f'"{{warmup_steps}}-{{batch_size}}": {{method: full, learning_rate: 1e-5, warmup_steps: {list(range(101))}, '
        f"batch_size: {list(range(1, 101))}}}",
        "recipes.{warmup_steps}-{batch_size}",
        "10,100 recipes; at most 10,000",
    ),
    "list of lists": (
        '"x{method}": {method: [[full]], learning_rate: 1e-5}',
        "recipes.x{method}.method[0]",
        "found a list",
    ),
}


@pytest.mark.parametrize(("recipe", "where", "says"), BAD.values(), ids=BAD)
def test_a_wrong_grid_is_refused_in_one_line(recipe: str, where: str, says: str, tmp_path: Path) -> None:
    path = with_recipe(tmp_path, f"  {recipe}\n")
    with pytest.raises(StudyError) as refusal:
        load_study(path)
    message = str(refusal.value)
    assert "\n" not in message
    assert message.startswith(f"{path}: {where}: ")
    assert says in message


@pytest.mark.parametrize(
    ("value", "text"),
    [(1e-5, "1e-5"), (2.5e-6, "2.5e-6"), (0.0, "0"), (0, "0"), (3.0, "3"), (0.1, "0.1"), (1e20, "1e+20"), (32, "32")],
)
def test_values_are_named_shortly_and_exactly(value: float, text: str) -> None:
    recipe = {"method": "full", "learning_rate": 1e-5, "weight_decay": [value]}
    assert list(members("{weight_decay}", recipe)) == [text]


def test_every_setting_may_be_listed_but_those_that_are_lists() -> None:
    full = Recipe(method="full", learning_rate=1e-5)
    for name in Recipe.model_fields.keys() - set(WHOLE):
        settings = {"method": "full", "learning_rate": 1e-5, name: [getattr(full, name)]}
        RecipeGrid.model_validate(settings)
        assert list(members(f"{{{name}}}", settings).values()) == [settings | {name: getattr(full, name)}]
