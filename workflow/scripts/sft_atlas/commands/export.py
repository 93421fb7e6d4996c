"""Writes what is derived from code: JSON schemas, a template study with every key explained, the tables' columns.

By hand: `make schemas`. A test fails when the files differ from what this writes.
"""

import json
import textwrap
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from pydantic import BaseModel, Field, create_model
from pydantic_core import PydanticUndefined

from sft_atlas.study.config import Config
from sft_atlas.study.grid import RecipeGrid
from sft_atlas.study.model import Recipe, Study
from sft_atlas.study.table import TableStudy

ROOT = Path(__file__).resolve().parents[4]


class Extends(BaseModel):
    """What a study file may hold beside the study itself: reading the file follows it (load.py)."""

    extends: str | None = Field(
        default=None,
        description="A study in the same folder, by name: sections that this file does not have are that study's.",
    )


HEADER = """\
# yaml-language-server: $schema=../workflow/schemas/study.schema.json
# Every key a study may hold, with its meaning and its default: copy this file to studies/NAME.yaml and change it.
# A key that is commented out is optional; what stands behind it is its default or an example.
"""
# What a template needs beyond defaults to be a study that can be run.
EXAMPLE: dict[str, Any] = {
    "title": "my study",
    "bases": {
        "my-base": {"micro": {"architecture": "llama", "mixture": {"web": 1.0, "math": 1.0}, "seed": 0, "steps": 100}}
    },
    "datasets": {"math": {"micro": {"topic": "math", "rows": 200, "seed": 1}}},
    "samples": {"{dataset}-100": {"datasets": ["*"], "size": 100}},
    "recipes": {"full": {"method": "full", "learning_rate": 1e-3, "epochs": 2, "max_length": 128}},
    "blocks": {"main": {"bases": ["*"], "samples": ["*"], "recipes": ["*"]}},
    "benchmarks": {"math": {"micro": {"topic": "math", "items": 50, "seed": 99}, "matches": ["math"]}},
    "evaluation": {"max_length": 256},
}
# Examples of optional parts, shown commented out.
SHOWN: dict[str, Any] = {
    "extends": "my-other-study",
    "hub": {"id": "owner/name", "revision": "0123456789abcdef"},
    "path": "data/my-file.jsonl",
    "lora": {"rank": 8, "alpha": 16, "dropout": 0.0, "targets": "all-linear"},
    "columns": {"instruction": "question", "completion": "answer"},
    "keep": {"is_correct": [True]},
    "drop": {"targets": ["none"]},
    "leave_out": ["*"],
    "mix": ["*-100"],
    "exclude": [{"base": ["my-base"], "recipe": ["full"]}],
    "include": [{"bases": ["my-base"], "samples": ["*"], "recipes": ["full"], "seeds": [1, 2]}],
    "expected_missing": [{"base": ["my-base"], "reason": "out of memory"}],
    "embedding": {"path": "models/my-embedder", "rows": 1000, "max_length": 256},
    "likelihoods": {
        "texts": 150,
        "benchmarks": ["*"],
        "seed": 0,
        "max_length": 2048,
        "representation": "last",
        "neighbour": 2,
    },
    "shots_path": "data/examples.jsonl",
    "selection": {"benchmarks": ["math"], "statistic": "mean_gain", "by": ["base", "method"], "ties": 1},
}


def generated() -> dict[Path, str]:
    """Every generated file with its content."""
    # their schemas need polars, which planning a study does without
    from sft_atlas.analysis.tables import documentation

    # as files are written: reading one replaces grids by the recipes that they stand for
    recipes = (dict[str, Recipe | RecipeGrid], Study.model_fields["recipes"])
    written: type[BaseModel] = create_model("Study", __base__=(Study, Extends), __doc__=Study.__doc__, recipes=recipes)
    models: dict[str, type[BaseModel]] = {"study": written, "table-study": TableStudy, "config": Config}
    schemas = {name: model.model_json_schema() for name, model in models.items()}
    # a file that extends another study needs no section of its own
    needed = schemas["study"].pop("required")
    schemas["study"]["anyOf"] = [{"required": ["extends"]}, {"required": needed}]
    files = {
        ROOT / "workflow/schemas" / f"{name}.schema.json": json.dumps(schema, indent=1) + "\n"
        for name, schema in schemas.items()
    }
    return files | {ROOT / "studies/template.yaml": template(), ROOT / "docs/tables.md": documentation()}


def template() -> str:
    """The template study: valid as it stands, every key with its description."""
    return HEADER + "\n" + "\n".join([*_emit(Extends, {}, ""), *_emit(Study, EXAMPLE, "")]) + "\n"


def _emit(model: type[BaseModel], values: dict[str, Any], indent: str) -> Iterator[str]:
    for name, field in model.model_fields.items():
        given = name in values
        default = None if field.default is PydanticUndefined else field.default
        value = values[name] if given else default if (model, name) == (Recipe, "keep") else SHOWN.get(name, default)
        if field.description:
            mark = f"{indent}# "
            yield from textwrap.wrap(field.description, 120, initial_indent=mark, subsequent_indent=mark)
        nested = _model_of(field.annotation)
        # a part with a default of its own is shown whole; an optional one without is commented out
        shown = given or isinstance(default, BaseModel)
        if isinstance(value, BaseModel):
            value = value.model_dump()
        if shown:
            yield from _value(name, value, nested, indent, is_mapping=_is_mapping(field.annotation))
        else:
            yield f"{indent}# {name}: {_scalar(value)}"


def _value(name: str, value: Any, nested: Any, indent: str, is_mapping: bool) -> Iterator[str]:
    deeper = indent + "  "
    if nested and is_mapping and isinstance(value, dict):
        yield f"{indent}{name}:"
        for key, content in value.items():
            yield f"{deeper}{_scalar(key)}:"
            yield from _emit(nested, content, deeper + "  ")
    elif nested and isinstance(value, dict):
        yield f"{indent}{name}:"
        yield from _emit(nested, value, deeper)
    else:
        yield f"{indent}{name}: {_scalar(value)}"


def _scalar(value: Any) -> str:
    # JSON is YAML, and quotes what YAML would misread
    return json.dumps(value, ensure_ascii=False)


def _is_mapping(annotation: Any) -> bool:
    return getattr(annotation, "__origin__", None) is dict


def _model_of(annotation: Any) -> Any:
    if isinstance(annotation, type) and issubclass(annotation, BaseModel):
        return annotation
    if getattr(annotation, "__origin__", None) is list:
        return None
    return next((found for argument in getattr(annotation, "__args__", ()) if (found := _model_of(argument))), None)


def main() -> None:
    """Write every generated file."""
    for path, content in generated().items():
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(content, encoding="utf-8")
        print(path.relative_to(ROOT))


if __name__ == "__main__":
    main()
