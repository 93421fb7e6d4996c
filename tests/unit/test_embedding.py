"""Embeddings by a tiny random model: mean pooling, what is read of a source, cosines, and folders that are no model."""

import re
import shutil
from pathlib import Path
from typing import Any

import numpy as np
import polars as pl
import pytest
import torch
from transformers import AutoModel, AutoTokenizer, BertConfig, BertModel, PreTrainedTokenizerBase

from sft_atlas.cost.estimates import Estimates
from sft_atlas.errors import DataError, StudyError
from sft_atlas.nodes import Benchmark, Sample
from sft_atlas.stages.collect.tables import cosine
from sft_atlas.stages.embedding import run as embedding
from sft_atlas.stages.embedding.run import embed, read_texts
from sft_atlas.stages.embedding.spec import Identity
from sft_atlas.study.model import Template
from tests.unit.helpers import content, do, plan_of, stand_in, write_study

CPU = torch.device("cpu")
TEMPLATE = Template()
TEXTS = ["a cat", "a much longer text about a cat that sat", "twelve plus four", "a cat"]


@pytest.fixture(scope="session")
def embedder(tmp_path_factory: pytest.TempPathFactory, tokenizer: PreTrainedTokenizerBase) -> Path:
    """The folder of a random encoder with the tiny tokenizer."""
    folder = tmp_path_factory.mktemp("embedder")
    torch.manual_seed(0)
    sizes = {"hidden_size": 16, "intermediate_size": 32, "num_hidden_layers": 2, "num_attention_heads": 2}
    BertModel(BertConfig(vocab_size=len(tokenizer), max_position_embeddings=128, **sizes)).save_pretrained(folder)
    tokenizer.save_pretrained(folder)
    return folder


def test_an_embedding_is_the_mean_state_of_the_real_tokens(embedder: Path, tokenizer: PreTrainedTokenizerBase) -> None:
    found = embed(embedder, TEXTS, 64, CPU)
    model: Any = AutoModel.from_pretrained(embedder).eval()
    for text, vector in zip(TEXTS, found, strict=True):
        with torch.no_grad():
            states = model(torch.tensor([tokenizer(text)["input_ids"]])).last_hidden_state[0]
        mean = states.mean(dim=0)
        torch.testing.assert_close(vector, mean / mean.norm(), atol=1e-5, rtol=1e-4)


def test_batches_change_nothing_and_long_texts_are_cut(embedder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    whole = embed(embedder, TEXTS, 64, CPU)
    monkeypatch.setattr(embedding, "BATCH", 1)
    torch.testing.assert_close(embed(embedder, TEXTS, 64, CPU), whole, atol=1e-5, rtol=1e-4)
    long = ["cat " * 2000, "cat " * 1000]
    torch.testing.assert_close(*embed(embedder, long, 32, CPU))


def test_the_side_a_tokenizer_pads_on_changes_nothing(embedder: Path, tmp_path: Path) -> None:
    left = Path(shutil.copytree(embedder, tmp_path / "left"))
    padding = AutoTokenizer.from_pretrained(embedder, padding_side="left")
    padding(TEXTS, padding=True)
    padding.save_pretrained(left)
    assert '"direction": "Left"' in (left / "tokenizer.json").read_text(encoding="utf-8")
    torch.testing.assert_close(embed(left, TEXTS, 64, CPU), embed(embedder, TEXTS, 64, CPU))


def spec_of(kind: str, source: str, folder: Path, rows: int = 1000) -> dict[str, Any]:
    identity = {"kind": kind, "source": "0", "model": "0", "rows": rows, "max_length": 64, "threads": 1}
    identity |= {"template": TEMPLATE.model_dump()}
    output = f"{Path(source).parent}/embedding-0.parquet"
    return content("embedding", output, identity, {"source": source}, sorted(folder.iterdir()))


def test_samples_and_benchmarks_are_read_alike(tmp_path: Path, embedder: Path) -> None:
    rows = pl.DataFrame(
        {
            "row": ["1", "2"],
            "prompt": ["###Question: what is red?\n###Answer:", "###Question: 1 + 1\n###Answer:"],
            "completion": [" a colour", " 2"],
        }
    )
    items = pl.DataFrame(
        {"item": ["a", "b", "c"], "instruction": ["what is red?", "1 + 1", "write"], "example": ["a colour", "2", ""]}
    )
    sample = stand_in(tmp_path, "samples/s-00000000", rows, "rows.parquet")
    benchmark = stand_in(tmp_path, "benchmarks/b-00000000", items, "items.parquet")
    specs = [spec_of("sample", sample, embedder), spec_of("benchmark", benchmark, embedder)]
    texts = [read_texts(tmp_path / s["inputs"]["source"], Identity(**s["identity"])) for s in specs]
    assert texts[0] == texts[1][:2]
    assert texts[1][2] == "###Question: write\n###Answer:"
    for spec, given in zip(specs, texts, strict=True):
        do(spec, tmp_path)
        found = pl.read_parquet(tmp_path / spec["output"]).row(0, named=True)
        assert found["rows"] == len(given)
        np.testing.assert_allclose(found["mean"], embed(embedder, given, 64, CPU).mean(dim=0), atol=1e-6)
    few = spec_of("benchmark", benchmark, embedder, rows=2)
    assert len(read_texts(tmp_path / benchmark, Identity(**few["identity"]))) == 2


def test_cosines() -> None:
    assert cosine([1.0, 0.0], [2.0, 0.0]) == pytest.approx(1)
    assert cosine([1.0, 0.0], [0.0, 3.0]) == pytest.approx(0)
    assert cosine([1.0, 1.0], [-1.0, -1.0]) == pytest.approx(-1)
    assert cosine([0.0, 0.0], [1.0, 0.0]) is None
    assert cosine(None, [1.0]) is None


def test_pickled_weights_are_refused(tmp_path: Path, embedder: Path) -> None:
    for file in embedder.iterdir():
        if file.suffix != ".safetensors":
            (tmp_path / file.name).write_bytes(file.read_bytes())
    torch.save({}, tmp_path / "pytorch_model.bin")
    with pytest.raises(DataError, match=f"{re.escape(str(tmp_path))}: not an embedding model with safetensors"):
        embed(tmp_path, TEXTS, 64, CPU)


WITH = "similarity: {embedding: {path: PATH, rows: 50}}\nevaluation: {"


def test_a_model_in_the_study_adds_a_job_for_each_source_and_touches_no_other(tmp_path: Path, embedder: Path) -> None:
    before = plan_of(write_study(tmp_path))
    after = plan_of(write_study(tmp_path, ("evaluation: {", WITH.replace("PATH", str(embedder)))))
    added = after.by_output.keys() - before.by_output.keys()
    assert {spec.output for spec in after.select("embedding")} == added
    assert len(added) == len(before.select("similarity")) + len(before.select("benchmark"))
    assert before.by_output.keys() <= after.by_output.keys()
    assert added <= set(after.collected())
    job = after.job("embedding", Benchmark("sums"))
    assert {Path(path).parent for path in job.sources} == {embedder}
    assert str(embedder) not in str(job.identity)
    prices = Estimates(after, tmp_path)
    few, many = (prices.of(after.job("embedding", key)).seconds for key in (Benchmark("sums"), Sample("all")))
    assert 0 < few < many


def test_a_folder_that_is_not_there_is_refused_while_planning(tmp_path: Path) -> None:
    study = write_study(tmp_path, ("evaluation: {", WITH.replace("PATH", "nowhere")))
    with pytest.raises(StudyError, match=r"similarity\.embedding\.path: 'nowhere' is not the folder of a transformers"):
        plan_of(study)
