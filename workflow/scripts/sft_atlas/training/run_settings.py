"""What a run is trained with, as its identity holds it."""

from typing import Annotated

from pydantic import BeforeValidator

from sft_atlas.spec import Part
from sft_atlas.study.model import Recipe


class Settings(Part):
    """Everything that a run's identity is made of: hashes of base and tokens, the recipe, the seed, CPU threads."""

    base: str
    tokens: str
    recipe: Annotated[Recipe, BeforeValidator(Recipe.of_identity)]
    seed: int
    threads: int
