"""What is generated from the typed models is in step with them, and the template is a study."""

import pytest

from sft_atlas.study.export import ROOT, generated
from sft_atlas.study.load import load_study
from sft_atlas.study.matrix import expand
from sft_atlas.study.model import Study


@pytest.mark.parametrize("path", generated(), ids=lambda path: path.name)
def test_generated_files_are_in_step_with_the_models(path) -> None:
    assert path.read_text(encoding="utf-8") == generated()[path], "run `make schemas` and commit what it writes"


def test_the_template_is_a_study_and_explains_every_key() -> None:
    path = ROOT / "studies/template.yaml"
    assert expand(load_study(path), path).checkpoints == 1
    text = path.read_text(encoding="utf-8")
    for name, field in Study.model_fields.items():
        assert f"\n{name}:" in text or f"\n# {name}:" in text
        assert field.description
