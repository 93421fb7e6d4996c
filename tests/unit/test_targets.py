"""What nothing makes is told with the target that comes nearest."""

from pathlib import Path

import pytest

from sft_atlas.files import write_json
from sft_atlas.study.targets import mistaken_target

NAMES = ["plan", "train", "report_complete", "report_partial", "base_reader", "block_methods"]
OUTPUTS = {
    "micro/report.html",
    "runs/reader/math-40/full-0123abcd/train-89abcdef.json",
    "bases/reader-0123abcd/manifest.json",
}
MISTAKES = {
    "a stage": ("trian", "unknown target 'trian'; expected one of: .*; did you mean 'train'"),
    "a block": ("block_method", "unknown target 'block_method'; did you mean 'block_methods'"),
    "the beginning of a name": ("report", "unknown target 'report'; did you mean 'report_complete'"),
    "nothing like any": ("xyz", "unknown target 'xyz'; expected one of: base_reader, block_methods, plan, .*train$"),
    "a file": ("results/micro/reprot.html", r"no job .* 'results/micro/reprot.html' .*'results/micro/report.html'\?"),
    "another hash": (
        "results/runs/reader/math-40/full-00000000/train-00000000.json",
        r"did you mean 'results/runs/reader/math-40/full-0123abcd/train-89abcdef.json'\?",
    ),
}


@pytest.mark.parametrize(("asked", "said"), MISTAKES.values(), ids=MISTAKES)
def test_a_mistyped_target_gets_the_nearest(
    asked: str, said: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    found = mistaken_target(["train", asked], NAMES, ["all"], OUTPUTS, "results")
    assert found is not None and "\n" not in found
    with pytest.raises(ValueError, match=said):
        raise ValueError(found)


def test_what_is_made_was_planned_or_is_there_is_no_mistake(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "there.txt").touch()
    write_json(tmp_path / "results/runs/a/train-1.spec.json", {"output": "runs/a/train-1.json"})
    asked = ["all", "plan", "./results/micro/report.html", "there.txt", "results/runs/a/train-1.json"]
    assert mistaken_target(asked, NAMES, ["all"], OUTPUTS, "results") is None
