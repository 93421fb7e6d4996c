"""What is generated from the typed models is in step with them, and the template is a study."""

import json
from pathlib import Path

import jsonschema
import pytest

from sft_atlas.commands.export import ROOT, generated
from sft_atlas.study.load import load_study, read_yaml
from sft_atlas.study.matrix import expand
from sft_atlas.study.model import Study


@pytest.mark.parametrize("path", generated(), ids=lambda path: path.name)
def test_generated_files_are_in_step_with_the_models(path) -> None:
    assert path.read_text(encoding="utf-8") == generated()[path], "run `make schemas` and commit what it writes"


STUDIES = sorted([*(ROOT / "studies").glob("*.yaml"), *(ROOT / "tests").glob("s*/*.yaml")])


@pytest.mark.parametrize("path", STUDIES, ids=lambda path: path.name)
def test_every_study_is_valid_to_an_editor(path: Path) -> None:
    declared = read_yaml(path)
    name = "table-study" if "table" in declared else "study"
    schema = json.loads((ROOT / f"workflow/schemas/{name}.schema.json").read_text(encoding="utf-8"))
    jsonschema.validate(declared, schema)
    with pytest.raises(jsonschema.ValidationError):
        jsonschema.validate(declared | {"sections": {}}, schema)


def test_an_editor_sees_that_a_section_is_missing_unless_the_study_extends_another() -> None:
    schema = json.loads((ROOT / "workflow/schemas/study.schema.json").read_text(encoding="utf-8"))
    with pytest.raises(jsonschema.ValidationError):
        jsonschema.validate({"title": "nothing else"}, schema)
    jsonschema.validate({"title": "nothing else", "extends": "micro"}, schema)


def test_the_template_is_a_study_and_explains_every_key() -> None:
    path = ROOT / "studies/template.yaml"
    assert expand(load_study(path), path).checkpoints == 1
    text = path.read_text(encoding="utf-8")
    for name, field in Study.model_fields.items():
        assert f"\n{name}:" in text or f"\n# {name}:" in text
        assert field.description
