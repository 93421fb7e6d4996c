"""Stage *likelihoods*: how likely every model of the study finds the same texts, and how it represents them.

The texts are questions of the benchmarks in the study's prompt, drawn once for all models. For model i and text s of
tokens t, L[i, s] = sum_t log p_i(token_t | before), natural logarithm, over the tokens that have one before them
(Oyama et al. 2025, arXiv 2502.16173); the rows of L place the models on a map. The same forward pass gives each
layer's representation of each text, whose intrinsic dimension is kept, layer by layer (dimension.py).
"""

import logging
from collections.abc import Iterator
from pathlib import Path

import polars as pl
import torch
from transformers import PreTrainedModel, PreTrainedTokenizerBase

from sft_atlas.data.draw import draw_rows
from sft_atlas.data.prompt import prompt
from sft_atlas.data.sources import refuse_twice
from sft_atlas.files import content_hash, recorded, write_record, write_table
from sft_atlas.hashing import digest
from sft_atlas.models.checkpoint import open_model, place, weights_identity
from sft_atlas.models.device import prepare
from sft_atlas.stages.likelihoods.dimension import intrinsic_dimension
from sft_atlas.stages.likelihoods.spec import Options, Spec
from sft_atlas.study.identity import identity_of
from sft_atlas.study.model import Template

LOG = logging.getLogger(__name__)

TOKENS_PER_BATCH = 4096
SCHEMA = {
    "epoch": pl.Int64,
    "texts": pl.Int64,
    "tokens": pl.Int64,
    "log_likelihood": pl.Float64,
    "vector": pl.String,
    "layers": pl.String,
}
VECTOR_SCHEMA = {"benchmark": pl.String, "item": pl.String, "log_likelihood": pl.Float64, "tokens": pl.Int64}
LAYER_SCHEMA = {
    "layer": pl.Int64,
    "depth": pl.Float64,
    "dimension": pl.Float64,
    "stderr": pl.Float64,
    "texts": pl.Int64,
}


def run(spec: Spec, root: Path) -> None:
    """Write a row per epoch (schema `SCHEMA`): sums, and the files of its vector and of its layers beside the table.

    An epoch that was measured before, on the same weights and texts, is not measured again.
    """
    identity, output = spec.identity, root / spec.output
    manifest = root / spec.inputs.model
    benchmarks = {hash8: root / path for hash8, path in spec.inputs.benchmarks.items()}
    options = identity.options
    texts: pl.DataFrame | None = None
    rows = []
    for epoch in identity.epochs:
        made_from = {
            "version": spec.version,
            "model": weights_identity(manifest, epoch),
            "texts": {hash8: content_hash(path) for hash8, path in benchmarks.items()},
            "options": options.model_dump(),
            "template": identity_of(identity.template),
            "threads": identity.threads,
        }
        stem = place(output, epoch, "likelihoods") / digest(made_from)
        record = stem.with_suffix(".json")
        vector, layers = (stem.with_name(f"{stem.name}-{part}.parquet") for part in ("vector", "layers"))
        if recorded(record, made_from) is None:
            texts = draw_texts(benchmarks, options, identity.template) if texts is None else texts
            device = prepare(identity.threads)
            model, tokenizer = open_model(manifest, root / spec.inputs.base, epoch, options.precision, device)
            tables = measure(model.eval(), tokenizer, texts, options)
            for path, table in zip((vector, layers), tables, strict=True):
                write_table(path, table)
            write_record(record, made_from, [vector, layers])
            LOG.info(f"epoch {epoch}: {texts.height} texts")
        found = pl.read_parquet(vector)
        files = (path.relative_to(output.parent).as_posix() for path in (vector, layers))
        rows.append((epoch, found.height, found["tokens"].sum(), found["log_likelihood"].sum(), *files))
    write_table(output, pl.DataFrame(rows, schema=SCHEMA, orient="row"))


def draw_texts(benchmarks: dict[str, Path], options: Options, template: Template) -> pl.DataFrame:
    """Columns benchmark (its hash), item and text: so many distinct questions of each benchmark, as they are asked."""
    parts = []
    for hash8, manifest in sorted(benchmarks.items()):
        items = pl.read_parquet(manifest.with_name("items.parquet"), columns=["item", "instruction"])
        refuse_twice(items["item"], str(manifest), "item")
        distinct = items.unique("instruction", keep="first", maintain_order=True).rename({"item": "row"})
        drawn = draw_rows(distinct, options.texts, options.seed)
        asked = [prompt(template, instruction) for instruction in drawn["instruction"]]
        parts.append(pl.DataFrame({"benchmark": [hash8] * drawn.height, "item": drawn["row"], "text": asked}))
    return pl.concat(parts)


def measure(
    model: PreTrainedModel, tokenizer: PreTrainedTokenizerBase, texts: pl.DataFrame, options: Options
) -> tuple[pl.DataFrame, pl.DataFrame]:
    """Log-likelihoods by text (schema `VECTOR_SCHEMA`) and intrinsic dimensions by layer (schema `LAYER_SCHEMA`).

    A layer is counted by what it hands on; the embeddings before the first are left out. Unknown dimensions are null.
    """
    # cut here, at the study's length; a length in the tokenizer's own file would only warn
    tokenizer.model_max_length = 1 << 30
    ids = tokenizer(texts["text"].to_list(), truncation=True, max_length=options.max_length)["input_ids"]
    likelihood, states = [0.0] * len(ids), [torch.empty(0)] * len(ids)
    for index, value, state in forward(model, ids, options.representation):
        likelihood[index], states[index] = value, state
    counts = [max(0, len(row) - 1) for row in ids]
    vector = texts.select("benchmark", "item").with_columns(
        log_likelihood=pl.Series(likelihood, dtype=pl.Float64), tokens=pl.Series(counts, dtype=pl.Int64)
    )
    # texts x layers x width
    cloud = torch.stack(states)
    last = max(1, cloud.shape[1] - 1)
    rows = []
    for layer in range(cloud.shape[1]):
        found = intrinsic_dimension(cloud[:, layer].to(model.device), options.neighbour)
        rows.append((layer, layer / last, *(found or (None, None)), len(ids)))
    return vector, pl.DataFrame(rows, schema=LAYER_SCHEMA, orient="row")


@torch.no_grad()
def forward(
    model: PreTrainedModel, ids: list[list[int]], representation: str
) -> Iterator[tuple[int, float, torch.Tensor]]:
    """Index, log-likelihood in nats, and representation (layers x width, fp32, on the CPU) of each text."""
    order = sorted(range(len(ids)), key=lambda index: -len(ids[index]))
    start = 0
    while start < len(order):
        width = len(ids[order[start]])
        chosen = order[start : start + max(1, TOKENS_PER_BATCH // width)]
        start += len(chosen)
        batch, real = torch.zeros(len(chosen), width, dtype=torch.long), torch.zeros(len(chosen), width)
        for position, index in enumerate(chosen):
            # padding stands on the right, where causal attention does not look
            batch[position, : len(ids[index])] = torch.tensor(ids[index])
            real[position, : len(ids[index])] = 1
        batch, real = batch.to(model.device), real.to(model.device)
        output = model(input_ids=batch, output_hidden_states=True)
        logits = output.logits[:, :-1].float().transpose(1, 2)
        losses = torch.nn.functional.cross_entropy(logits, batch[:, 1:], reduction="none").double()
        sums = -(losses * real[:, 1:]).sum(dim=1).cpu()
        weight = real
        if representation == "last":
            weight = torch.nn.functional.one_hot(real.sum(dim=1).long() - 1, width).to(real.dtype)
        weight = weight / weight.sum(dim=1, keepdim=True)
        layers = torch.stack([torch.einsum("bt,bth->bh", weight, state.float()) for state in output.hidden_states[1:]])
        layers = layers.transpose(0, 1).cpu()
        for position, index in enumerate(chosen):
            yield index, float(sums[position]), layers[position]
