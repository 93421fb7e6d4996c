"""What a job reads: a frozen specification as a typed model, validated once when the job starts."""

from typing import Any, TypeVar

from pydantic import BaseModel, ConfigDict, ValidationError

from sft_atlas.errors import SpecError

Model = TypeVar("Model", bound="JobSpec")


class Part(BaseModel):
    """A part of a specification: closed to unknown keys, and never changed by the job."""

    model_config = ConfigDict(extra="forbid", frozen=True, strict=True, protected_namespaces=())


class JobSpec(Part):
    """What every specification holds; a stage's own (its `spec.py`) says what its identity, inputs and labels are.

    `output` and inputs are paths below the results folder, sources are local files from outside of it.
    """

    stage: str
    version: int
    hash: str
    output: str
    identity: Any
    inputs: Any
    sources: list[str]
    labels: Any


class Nothing(Part):
    """No inputs, or no labels."""


def parse(model: type[Model], content: dict[str, Any]) -> Model:
    """A frozen specification as a stage reads it.

    Raises:
        SpecError: it is one that this version of the stage cannot read; names the first field.
    """
    try:
        return model.model_validate(content)
    except ValidationError as error:
        first = error.errors()[0]
        where = ".".join(map(str, first["loc"]))
        raise SpecError(
            f"the specification of {content.get('output')} is not one of this version: {where}: {first['msg']}; delete "
            "it, and snakemake freezes it again if the study still plans it"
        ) from None
