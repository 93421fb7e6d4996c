"""Weights that a study does not keep: given back after they are measured, made again when something needs them."""

import json
from pathlib import Path

import numpy as np
import pytest
from safetensors.numpy import save_file

from sft_atlas.errors import DataError
from sft_atlas.models.deltas import decode, encode
from tests.conftest import Repository

STUDY = "tests/studies/trimmed.yaml"
TITLE = "title: trimmed micro study"


def weights(folder: Path) -> set[str]:
    return {path.relative_to(folder).as_posix() for path in (folder / "results/runs").rglob("*.safetensors")}


@pytest.mark.parametrize(
    ("keep", "left"),
    [
        ("none", 0),
        pytest.param("adapters", 1, marks=pytest.mark.slow),
        pytest.param("deltas", 1, marks=pytest.mark.slow),
    ],
)
def test_weights_go_when_their_last_reader_is_done(finished: Repository, keep: str, left: int) -> None:
    assert len(weights(finished.folder)) == 10
    finished.edit(STUDY, TITLE, f"keep_weights: {keep}")
    assert finished.plan().jobs == {"release_weights": 6}
    finished.snakemake()
    # the one run of adapters is kept, unless nothing is
    assert len(weights(finished.folder)) == left
    assert len(list((finished.folder / "results/runs").rglob("*.delta"))) == (9 if keep == "deltas" else 0)
    assert not finished.plan().jobs


@pytest.mark.parametrize("keep", ["none", "deltas"])
def test_released_weights_come_back_to_the_byte(finished: Repository, keep: str) -> None:
    finished.edit(STUDY, TITLE, f"keep_weights: {keep}")
    finished.snakemake("release")
    finished.edit(STUDY, "evaluation: {", "  reading: {micro: {topic: reading, items: 20}}\nevaluation: {")
    run = next((finished.folder / "results/runs/reader/math-40").glob("full-*"))
    target = next(line for line in finished.plan("evaluate").text.split() if f"{run.name}/scores-" in line).rstrip(",")
    finished.snakemake(target)
    for record in run.rglob("checkpoint.json"):
        files = json.loads(record.read_text())["files"]
        assert all((record.parent / file["name"]).stat().st_size == file["size"] for file in files)
    (restored,) = (path for path in run.glob("restore-*.json") if path.name.count(".") == 1)
    made = {"decoded": [], "trained": [1, 2]} if keep == "none" else {"decoded": [1, 2], "trained": []}
    assert json.loads(restored.read_text()) == made


def test_a_delta_gives_the_file_back(tmp_path: Path) -> None:
    rng = np.random.default_rng(0)
    base = {"a": rng.standard_normal((64, 48)).astype(np.float16), "b": rng.standard_normal(7).astype(np.float32)}
    tuned = {"a": (base["a"] * 1.001).astype(np.float16), "b": base["b"] + 1e-4, "new": np.arange(5, dtype=np.int64)}
    for folder, tensors in (("base", base), ("tuned", tuned)):
        (tmp_path / folder).mkdir()
        save_file(tensors, tmp_path / folder / "model.safetensors")
    file = tmp_path / "tuned/model.safetensors"
    content = file.read_bytes()
    delta = encode(file, tmp_path / "base")
    file.unlink()
    decode(delta, tmp_path / "base", file)
    assert file.read_bytes() == content
    save_file({**base, "b": base["b"] + 1}, tmp_path / "base/model.safetensors")
    with pytest.raises(DataError, match="still the same base"):
        decode(delta, tmp_path / "base", tmp_path / "other")
    assert not (tmp_path / "other").exists()
