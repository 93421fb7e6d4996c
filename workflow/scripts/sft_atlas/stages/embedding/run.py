"""Stage *perplexity*, beside it: where a sample or a benchmark lies in the space of a local embedding model.

A text's embedding is the mean of the model's last states over its tokens, scaled to length 1. What is kept of a source
is the mean of its texts' embeddings; the similarity of a sample and a benchmark is the cosine of their two means. Read
are prompts with their completions, of a benchmark its questions, in the study's prompt, with their answers.
"""

from pathlib import Path
from typing import Any

import polars as pl
import torch
from transformers import AutoModel, AutoTokenizer

from sft_atlas.data.draw import draw_rows
from sft_atlas.data.prompt import completion, prompt
from sft_atlas.errors import DataError
from sft_atlas.files import write_table
from sft_atlas.models.device import prepare
from sft_atlas.stages.embedding.spec import Identity, Spec

BATCH = 64
SCHEMA: dict[str, Any] = {"rows": pl.Int64, "mean": pl.List(pl.Float64)}


def run(spec: Spec, root: Path) -> None:
    """Write a table of one row (schema `SCHEMA`): the number of texts and their mean embedding."""
    identity = spec.identity
    texts = read_texts(root / spec.inputs.source, identity)
    device = prepare(identity.threads)
    vectors = embed(Path(spec.sources[0]).parent, texts, identity.max_length, device)
    table = {"rows": [len(texts)], "mean": [vectors.double().mean(dim=0).tolist()]}
    write_table(root / spec.output, pl.DataFrame(table, schema=SCHEMA))


def read_texts(manifest: Path, identity: Identity) -> list[str]:
    """The texts of a sample or of a benchmark, so many as are asked for, drawn by their ids alone."""
    if identity.kind == "sample":
        rows = pl.read_parquet(manifest.with_name("rows.parquet"))
        drawn = draw_rows(rows, identity.rows, 0)
        return (drawn["prompt"] + drawn["completion"]).to_list()
    items = pl.read_parquet(manifest.with_name("items.parquet")).rename({"item": "row"})
    template, drawn = identity.template, draw_rows(items, identity.rows, 0)
    return [
        prompt(template, question) + (completion(template, answer) if answer else "")
        for question, answer in drawn.select("instruction", "example").iter_rows()
    ]


@torch.no_grad()
def embed(folder: Path, texts: list[str], max_length: int, device: torch.device) -> torch.Tensor:
    """Embeddings of length 1, texts x width, fp32 on the CPU.

    Only safetensors are read, nothing is fetched, and no code of the model's own is run.

    Raises:
        DataError: the folder holds no model that can be loaded so.
    """
    try:
        tokenizer = AutoTokenizer.from_pretrained(folder, local_files_only=True, trust_remote_code=False)
        model: Any = AutoModel.from_pretrained(
            folder, local_files_only=True, use_safetensors=True, trust_remote_code=False, dtype=torch.float32
        )
    except (OSError, ValueError) as error:
        reason = str(error).strip().splitlines()[0]
        raise DataError(f"{folder}: not an embedding model with safetensors and a tokenizer ({reason})") from None
    if tokenizer.pad_token is None:
        tokenizer.pad_token = tokenizer.eos_token
    # absolute positions are counted from the start of a row, whichever side the tokenizer would pad
    tokenizer.padding_side = "right"
    model = model.to(device).eval()
    # texts of like length together, so that little of a batch is padding
    order = sorted(range(len(texts)), key=lambda index: -len(texts[index]))
    found = [torch.empty(0)] * len(texts)
    for start in range(0, len(order), BATCH):
        chosen = order[start : start + BATCH]
        given = [texts[index] for index in chosen]
        batch = tokenizer(given, padding=True, truncation=True, max_length=max_length, return_tensors="pt").to(device)
        real = batch["attention_mask"].unsqueeze(-1).float()
        states = model(**batch).last_hidden_state.float()
        means = (states * real).sum(dim=1) / real.sum(dim=1).clamp(min=1)
        for index, vector in zip(chosen, torch.nn.functional.normalize(means, dim=1).cpu(), strict=True):
            found[index] = vector
    return torch.stack(found)
