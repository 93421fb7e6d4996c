"""What the study's tables gain from several results together."""

from functools import lru_cache
from pathlib import Path

import numpy as np
import polars as pl

from sft_atlas.analysis.collected import Found, Rows, key_of
from sft_atlas.analysis.columns import COUNT, REAL, TEXT, Column, Table, cell
from sft_atlas.files import read_json
from sft_atlas.stage import with_cells
from sft_atlas.stages.tokens.tables import lengths

TABLES: dict[str, Table] = {
    "predictors": Table(
        "one training sample under one base model, beside one benchmark",
        (
            Column("base", TEXT, "", "base model"),
            Column("sample", TEXT, "", "training sample"),
            Column("benchmark", TEXT, "", "benchmark"),
            Column("perplexity", REAL, "perplexity", "of completions under the base model, given prompts", True),
            Column("perplexity_stderr", REAL, "perplexity", "its standard error over rows", True),
            Column("perplexity_full", REAL, "perplexity", "of prompts and completions under the base model", True),
            Column("perplexity_full_stderr", REAL, "perplexity", "its standard error over rows", True),
            Column("mean_tokens", REAL, "tokens per row", "mean length, prompt and completion", True),
            Column("mean_completion_tokens", REAL, "tokens per row", "mean length of the completion", True),
            Column("similarity", REAL, "fraction", "n-gram overlap of sample and benchmark", True),
            Column(
                "embedding_similarity", REAL, "-1..1", "cosine of their mean embeddings; null without a model", True
            ),
            Column("dataset", TEXT, "", "dataset of the sample, or a mixture's name", True),
            Column("size", COUNT, "rows", "rows in the sample", True),
        ),
        ("base", "sample", "benchmark"),
    ),
    "missing": Table(
        "one declared cell, or one benchmark of it, that has no result",
        (
            *cell(null=True),
            Column("benchmark", TEXT, "", "benchmark; null where the whole cell is missing", True),
            Column("reason", TEXT, "", "why there is no result"),
        ),
        (),
    ),
}


def gather(found: Found) -> dict[str, Rows]:
    """Tables `predictors` and `missing`."""
    return {"predictors": predictors(found), "missing": [*found.identity.missing, *found.missing, *_absent(found)]}


def predictors(found: Found) -> Rows:
    """What is known of every sample under every base beside every benchmark, before any training."""

    @lru_cache
    def similarity(sample: str) -> dict[str, float | None]:
        path = found.sample("similarity", sample)
        return dict(pl.read_parquet(path).select("benchmark", "similarity").iter_rows()) if path else {}

    @lru_cache
    def embedded(kind: str, name: str) -> list[float] | None:
        path = found.identity.of("embeddings").get(kind, {}).get(name)
        return pl.read_parquet(found.root / path)["mean"].to_list()[0] if path else None

    rows: Rows = []
    for base, samples in found.identity.tokens.items():
        measured = found.present(found.identity.bases[base], "perplexity")
        own = pl.read_parquet(measured).iter_rows(named=True) if measured else []
        perplexity = {row.pop("tokens"): row for row in own}
        for sample, path in samples.items():
            if path is None:
                continue
            facts = read_json(found.root / path)
            known = perplexity.get(Path(path).parent.name.rpartition("-")[2], {})
            values = {name: known[name] for name in known if name.startswith("perplexity")}
            rows += [
                {
                    "base": base,
                    "sample": sample,
                    "benchmark": benchmark,
                    **values,
                    **lengths(facts),
                    "similarity": similarity(sample).get(benchmark),
                    "embedding_similarity": cosine(embedded("sample", sample), embedded("benchmark", benchmark)),
                    "dataset": found.identity.samples[sample],
                    "size": facts["rows"],
                }
                for benchmark in found.identity.matches
            ]
    return rows


def cosine(one: list[float] | None, other: list[float] | None) -> float | None:
    """The cosine of two vectors, -1..1; None where one of them is absent or 0."""
    if one is None or other is None:
        return None
    a, b = np.asarray(one), np.asarray(other)
    length = float(np.linalg.norm(a) * np.linalg.norm(b))
    return float(a @ b) / length if length else None


def _absent(found: Found) -> Rows:
    """Cells without some result, each with the first reason: it has failed, or its job has not been done."""
    stages = {stage.result: stage for stage in with_cells() if stage.absent != "-"}
    rows: Rows = []
    for base, results in found.identity.bases.items():
        if why := _why(found, {result: results.path(result) for result in results.asked() if result in stages}):
            rows.append({"base": base, "epoch": 0, "reason": why})
    for run in found.identity.runs:
        if why := _why(found, {result: run.path(result) for result in stages if result in run.asked()}):
            rows += [{**key_of(run), "epoch": int(epoch), "reason": why} for epoch in run.epochs]
    return rows


def _why(found: Found, paths: dict[str, str | None]) -> str | None:
    absent = {stage.result: stage.absent for stage in with_cells()}
    for result, path in paths.items():
        reason = absent[result] if path is None else found.reason(path)
        if reason:
            return reason if path is None else f"failed: {reason}"
    return None
