"""Stage *perplexity*: how surprising every sample is to its base, before any training.

For a sample with rows i, tokens t of a row and natural logarithms, the mean loss per token is
L = sum_i s_i / sum_i n_i with s_i = -sum_t log p(token_t | before) over the n_i tokens that count (completion and EOS
only, or the full text but its first token). Perplexity is exp(L): token-weighted, so that long rows count by their
length. Its standard error is that of a ratio of sums over rows (Cochran, Sampling Techniques, 3rd ed., eq. 6.13),
SE(L) = sqrt(m / (m - 1) * sum_i (s_i - L n_i)^2) / sum_i n_i for m rows, carried over by SE(exp L) = exp(L) SE(L).
"""

import math
from pathlib import Path
from typing import Any

import polars as pl
import torch
from transformers import PreTrainedModel

from sft_atlas.files import content_hash, recorded, write_record, write_table
from sft_atlas.models.device import load_model, prepare
from sft_atlas.models.tokenizer import IGNORED

TOKENS_PER_BATCH = 4096
SCHEMA = {
    "tokens": pl.String,
    "perplexity": pl.Float64,
    "perplexity_stderr": pl.Float64,
    "perplexity_full": pl.Float64,
    "perplexity_full_stderr": pl.Float64,
    "rows": pl.Int64,
    "n_tokens": pl.Int64,
    "n_tokens_full": pl.Int64,
}


def run(spec: dict[str, Any], root: Path) -> None:
    """Write a table with one row per sample (schema `SCHEMA`, keyed by the tokens' hash) beside per-row values.

    A sample whose values are there already, from the same base and tokens, is not computed again.
    """
    identity, output = spec["identity"], root / spec["output"]
    base = root / spec["inputs"]["base"]
    model: PreTrainedModel | None = None
    rows = []
    for hash8 in identity["samples"]:
        manifest = root / spec["inputs"]["tokens"][hash8]
        piece = output.parent / "perplexity" / f"{hash8}-{identity['precision']}.parquet"
        made_from = {
            "version": spec["version"],
            "base": content_hash(base),
            "tokens": content_hash(manifest),
            "precision": identity["precision"],
            "threads": identity["threads"],
        }
        record = piece.with_suffix(".json")
        if recorded(record, made_from) is None:
            if model is None:
                device = prepare(identity["threads"])
                model = load_model(base.with_name("model"), identity["precision"], device).eval()
            write_table(piece, row_losses(model, pl.read_parquet(manifest.with_name("tokens.parquet"))))
            write_record(record, made_from, [piece])
            print(f"perplexity of {manifest.parent.name}", flush=True)
        rows.append({"tokens": hash8, **summary(pl.read_parquet(piece))})
    write_table(output, pl.DataFrame(rows, schema=SCHEMA))


@torch.no_grad()
def row_losses(model: PreTrainedModel, tokens: pl.DataFrame) -> pl.DataFrame:
    """Sums of -log p in nats and counts of tokens per row: completion, and full text from the second token on."""
    order = tokens["input_ids"].list.len().arg_sort(descending=True).to_list()
    ids, labels = tokens["input_ids"].to_list(), tokens["labels"].to_list()
    out: dict[int, tuple[float, int, float, int]] = {}
    start = 0
    while start < len(order):
        width = len(ids[order[start]])
        chosen = order[start : start + max(1, TOKENS_PER_BATCH // width)]
        start += len(chosen)
        batch = torch.zeros(len(chosen), width, dtype=torch.long)
        counted, full = torch.zeros_like(batch, dtype=torch.bool), torch.zeros_like(batch, dtype=torch.bool)
        for position, index in enumerate(chosen):
            size = len(ids[index])
            # padding stands on the right, where causal attention does not look
            batch[position, :size] = torch.tensor(ids[index])
            counted[position, :size] = torch.tensor(labels[index]) != IGNORED
            full[position, :size] = True
        batch = batch.to(model.device)
        logits = model(input_ids=batch).logits[:, :-1].float()
        loss = torch.nn.functional.cross_entropy(logits.transpose(1, 2), batch[:, 1:], reduction="none").double().cpu()
        for position, index in enumerate(chosen):
            mask, whole = counted[position, 1:], full[position, 1:]
            out[index] = (
                float(loss[position][mask].sum()),
                int(mask.sum()),
                float(loss[position][whole].sum()),
                int(whole.sum()),
            )
    values = [(tokens["row"][index], *out[index]) for index in range(tokens.height)]
    return pl.DataFrame(
        values,
        schema={"row": pl.String, "nll": pl.Float64, "n": pl.Int64, "nll_full": pl.Float64, "n_full": pl.Int64},
        orient="row",
    )


def summary(rows: pl.DataFrame) -> dict[str, Any]:
    """Perplexities of a sample from its rows, with standard errors (formula in the module's docstring)."""
    perplexity, stderr = ratio_perplexity(rows["nll"], rows["n"])
    perplexity_full, stderr_full = ratio_perplexity(rows["nll_full"], rows["n_full"])
    return {
        "perplexity": perplexity,
        "perplexity_stderr": stderr,
        "perplexity_full": perplexity_full,
        "perplexity_full_stderr": stderr_full,
        "rows": rows.height,
        "n_tokens": int(rows["n"].sum()),
        "n_tokens_full": int(rows["n_full"].sum()),
    }


def ratio_perplexity(nll: pl.Series, n: pl.Series) -> tuple[float, float | None]:
    """Token-weighted perplexity and its standard error over rows; the error of a single row is unknown (None)."""
    total = float(n.sum())
    mean = float(nll.sum()) / total
    perplexity = math.exp(mean)
    rows = len(nll)
    if rows < 2:
        return perplexity, None
    residuals = ((nll - mean * n) ** 2).sum()
    return perplexity, perplexity * math.sqrt(rows / (rows - 1) * float(residuals)) / total
