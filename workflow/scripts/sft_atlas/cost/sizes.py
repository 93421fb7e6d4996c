"""Sizes that prices are made of: weights of a base, tokens of a sample, items of a benchmark; exact where known.

The best source wins: what a finished job counted (its manifest), then what the study declares or the size of a local
file says, then an assumption of throughput.yaml. Everything but the first makes a price an estimate.
"""

import json
from collections.abc import Mapping
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any

from sft_atlas.errors import StudyError
from sft_atlas.micro.declared import MicroBase
from sft_atlas.study.load import read_yaml
from sft_atlas.study.matrix import ExpandedSample
from sft_atlas.study.model import Base, Benchmark, Dataset, Study

# formats whose items have choices that are letters or single words, and micro topics whose items have written choices
LETTER_FORMATS = {"mmlu", "cmmlu", "hellaswag", "boolq"}
CHOICE_TOPICS = {"facts_choice", "reading", "logic"}
BYTES_PER_TOKEN = 4


@cache
def throughput() -> dict[str, Any]:
    """The table of speeds, throughput.yaml."""
    return dict(read_yaml(Path(__file__).with_name("throughput.yaml")))


@dataclass(frozen=True)
class ModelSize:
    """A transformer's number of weights, layers and width."""

    parameters: float
    layers: float
    hidden: float
    exact: bool

    def adapter(self, rank: int) -> float:
        """Weights of a LoRA adapter on every linear layer of this model.

        A d_in × d_out matrix gets rank · (d_in + d_out). With h the width, attention has four matrices of h × h (fewer
        for grouped keys and values, which is left aside) and the gated feed-forward three of h × 3.5 h: 21.5 h each
        layer.
        """
        return 21.5 * self.hidden * rank * self.layers


@dataclass(frozen=True)
class SampleSize:
    """Rows and tokens of a sample under one tokenizer."""

    rows: float
    tokens: float
    longest: float
    exact: bool


@dataclass(frozen=True)
class BenchmarkSize:
    """Items of a benchmark, tokens of a question without worked examples, and forward passes per item."""

    items: float
    tokens: float
    passes: int
    generates: bool
    exact: bool


def model_size(base: Base, manifest: Path) -> ModelSize:
    """Size of a base: of its configuration if it is micro, local or fetched already, else as declared.

    Raises:
        StudyError: its config.json is broken.
    """
    if base.micro:
        return _of_micro(base.micro)
    for folder in (manifest.with_name("model"), Path(base.path) if base.path else None):
        if folder and (folder / "config.json").is_file():
            config = _config(folder / "config.json")
            if "hidden_size" in config and "num_hidden_layers" in config:
                return _of_config(config)
    return _of_parameters(base.parameters or throughput()["assumed"]["parameters"])


def _config(path: Path) -> dict[str, Any]:
    try:
        content = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        raise StudyError(f"{path}: cannot be read as JSON ({error}); copy the base's config.json there again") from None
    if not isinstance(content, dict):
        raise StudyError(f"{path}: found {type(content).__name__}, expected the mapping of a model's configuration")
    return content


def _of_micro(micro: MicroBase) -> ModelSize:
    return _of_config(
        {
            "hidden_size": micro.hidden_size,
            "num_hidden_layers": micro.layers,
            "intermediate_size": micro.intermediate_size,
            "num_attention_heads": micro.heads,
            "num_key_value_heads": micro.kv_heads,
            "vocab_size": micro.vocab_size,
            "tie_word_embeddings": True,
        }
    )


def _of_config(config: dict[str, Any]) -> ModelSize:
    """Matrices of a Llama-like model: embeddings, queries, keys, values, output, gated feed-forward; norms left out."""
    hidden, layers = config["hidden_size"], config["num_hidden_layers"]
    heads = config.get("num_attention_heads") or 1
    grouped = (config.get("num_key_value_heads") or heads) / heads
    head_share = (config.get("head_dim") or hidden // heads) * heads / hidden
    attention = hidden * hidden * head_share * (2 + 2 * grouped)
    feed_forward = 3 * hidden * (config.get("intermediate_size") or 4 * hidden)
    embeddings = config.get("vocab_size", 0) * hidden * (1 if config.get("tie_word_embeddings") else 2)
    return ModelSize(embeddings + layers * (attention + feed_forward), layers, hidden, True)


def _of_parameters(parameters: float) -> ModelSize:
    """Width and depth of a usual model: 12 · layers · h² weights and h = 128 · layers, so 4,200 and 33 for 7·10⁹."""
    hidden = (parameters * 128 / 12) ** (1 / 3)
    return ModelSize(parameters, hidden / 128, hidden, False)


def embedder_size(folder: Path) -> ModelSize:
    """Size of the study's embedding model."""
    return _of_config(_read(folder / "config.json") or {"hidden_size": 384, "num_hidden_layers": 12})


def sample_size(manifest: Path, declared: SampleSize) -> SampleSize:
    """Tokens of a sample: counted by its tokenise job, else as declared."""
    counted = _read(manifest)
    return SampleSize(counted["rows"], counted["tokens"], counted["longest"], True) if counted else declared


def known_size(dataset: Dataset, manifest: Path) -> SampleSize | None:
    """Rows and tokens of a dataset: counted by its prepare job, else of the declaration or the local file's size.

    None: nothing is known before it is fetched.
    """
    assumed, micro = throughput()["assumed"], dataset.micro
    usual = dataset.expected_tokens or assumed["micro_tokens_per_row" if micro else "tokens_per_row"]
    counted = _read(manifest)
    if counted or micro:
        rows = counted["rows"] if counted else micro.rows if micro else 0
        return SampleSize(rows, rows * usual, 0, True)
    if dataset.path and Path(dataset.path).is_file():
        tokens = Path(dataset.path).stat().st_size / BYTES_PER_TOKEN
        return SampleSize(tokens / usual, tokens, 0, False)
    return None


def counted_rows(manifest: Path, declared: SampleSize) -> SampleSize:
    """The size of a sample with the rows that its prepare job counted, if it has finished."""
    counted = _read(manifest)
    if not counted:
        return declared
    return SampleSize(counted["rows"], declared.tokens / declared.rows * counted["rows"], declared.longest, True)


def counted_bytes(manifest: Path) -> float | None:
    """What the files of a finished job take on the disk."""
    counted = _read(manifest)
    return sum(file["size"] for file in counted["files"]) if counted else None


def declared_size(
    study: Study,
    samples: dict[str, ExpandedSample],
    known: Mapping[str, SampleSize],
    name: str,
    length: int = 10**6,
) -> SampleSize:
    """Tokens of a sample by its declaration: rows × the datasets' `expected_tokens`, cut at `length`."""
    sample, assumed = samples[name], throughput()["assumed"]
    if sample.parts:
        parts = [declared_size(study, samples, known, part, length) for part in sample.parts]
        return SampleSize(sum(part.rows for part in parts), sum(part.tokens for part in parts), length, False)
    rows = tokens = 0.0
    for dataset in sample.datasets:
        declared, found = study.datasets[dataset], known.get(dataset)
        drawn = sample.declared.size or (found.rows if found else assumed["rows"])
        if found and found.exact:
            drawn = min(drawn, found.rows)
        usual = assumed["micro_tokens_per_row" if declared.micro else "tokens_per_row"]
        rows += drawn
        tokens += drawn * min(declared.expected_tokens or usual, length)
    return SampleSize(rows, tokens, length, False)


def benchmark_size(benchmark: Benchmark, manifest: Path) -> BenchmarkSize:
    """Items of a benchmark: counted by its prepare job, else as declared; tokens are the study's `expected_tokens`.

    An item with letters as choices takes one forward pass (lm-eval groups continuations of one token), one with written
    choices takes one for each.
    """
    counted, assumed = _read(manifest), throughput()["assumed"]
    micro = benchmark.micro
    declared = micro.items if micro else benchmark.expected_items or assumed["items"]
    items = counted["items"] if counted else min(declared, benchmark.limit or declared)
    written = micro.topic in CHOICE_TOPICS if micro else False
    chooses = written or benchmark.format in LETTER_FORMATS
    if counted:
        chooses = counted["kind"] == "multiple_choice"
        written = chooses and benchmark.format not in LETTER_FORMATS
    tokens = benchmark.expected_tokens or assumed["micro_tokens_per_item" if micro else "tokens_per_item"]
    return BenchmarkSize(items, tokens, assumed["choices"] if written else 1, not chooses, counted is not None)


def _read(manifest: Path) -> dict[str, Any] | None:
    try:
        return dict(json.loads(manifest.read_text(encoding="utf-8")))
    except (OSError, ValueError):
        return None
