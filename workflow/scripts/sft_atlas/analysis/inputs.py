"""Schemas of the tables that the analysis reads, written by the collecting or the importing stage."""

from sft_atlas.analysis.columns import CELL, COUNT, DESCRIPTION, FLAG, MEASURE, REAL, SCORE, TEXT, Column, Table, cell

INPUTS: dict[str, Table] = {
    "scores": Table(
        "one cell on one benchmark",
        (
            *cell(null=True),
            *MEASURE,
            Column("score", REAL, "fraction", "mean over items; points 1..10 for judge_1_10", True),
            Column("stderr", REAL, "fraction", "standard error over items", True),
            Column("n", COUNT, "items", "items scored; null where an imported table does not say", True),
            *DESCRIPTION,
        ),
        SCORE,
    ),
    "gains": Table(
        "one fine-tuned cell on one benchmark, against its base model on the same items",
        (
            *cell(null=False),
            *MEASURE,
            Column("gain", REAL, "fraction", "score minus the base model's score"),
            Column("stderr", REAL, "fraction", "standard error of the gain, paired over items", True),
            Column("n", COUNT, "items", "items scored for both; null where unknown", True),
            Column("score", REAL, "fraction", "score of the cell on these items"),
            Column("base_score", REAL, "fraction", "score of the base model on these items"),
            Column("matched", FLAG, "", "the study says that this dataset trains what this benchmark tests"),
            *DESCRIPTION,
        ),
        SCORE,
    ),
    "samples": Table(
        "one training sample as one base model's tokenizer reads it",
        (
            Column("base", TEXT, "", "base model"),
            Column("sample", TEXT, "", "training sample"),
            Column("rows", COUNT, "rows", "rows in the sample"),
            Column("tokens", COUNT, "tokens", "tokens in one epoch, prompt and completion"),
            Column("trained_tokens", COUNT, "tokens", "tokens in one epoch that carry loss"),
            Column("mean_tokens", REAL, "tokens per row", "mean length, prompt and completion"),
            Column("mean_completion_tokens", REAL, "tokens per row", "mean length of the completion"),
            Column("truncated", COUNT, "rows", "rows cut at the maximum length"),
        ),
        ("base", "sample"),
    ),
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
    "layers": Table(
        "the change of one layer's weights in one fine-tuned cell",
        (
            *cell(null=False),
            Column("layer", COUNT, "", "index of the layer, 0 nearest to the input"),
            Column("depth", REAL, "fraction", "layer / (layers - 1)"),
            Column("module", TEXT, "", "all, attention, mlp or norm"),
            Column("norm", REAL, "weight", "Frobenius norm of the change"),
            Column("base_norm", REAL, "weight", "Frobenius norm of the base model's weights"),
            Column("relative", REAL, "fraction", "norm / base_norm", True),
            Column("cosine_distance", REAL, "fraction", "1 - cosine of the weights before and after", True),
            *DESCRIPTION,
        ),
        (*CELL, "layer", "module"),
    ),
    "likelihoods": Table(
        "one text under one model",
        (
            *cell(null=True),
            Column("benchmark", TEXT, "", "benchmark the text is a question of"),
            Column("item", TEXT, "", "item of that benchmark"),
            Column("log_likelihood", REAL, "nats", "sum over the text's tokens, the first left out"),
            Column("tokens", COUNT, "tokens", "tokens summed over, by the model's own tokenizer"),
        ),
        (*CELL, "benchmark", "item"),
        csv=False,
    ),
    "dimensions": Table(
        "one layer of one model as a cloud of texts",
        (
            *cell(null=True),
            Column("layer", COUNT, "", "index of the layer, 0 nearest to the input"),
            Column("depth", REAL, "fraction", "layer / (layers - 1)"),
            Column("dimension", REAL, "", "intrinsic dimension (Gride); null where texts coincide", True),
            Column("stderr", REAL, "", "its standard error, as if texts were independent", True),
            Column("texts", COUNT, "texts", "texts in the cloud"),
            *DESCRIPTION,
        ),
        (*CELL, "layer"),
    ),
    "training": Table(
        "one training run",
        (
            Column("base", TEXT, "", "base model"),
            Column("sample", TEXT, "", "training sample"),
            Column("recipe", TEXT, "", "training recipe"),
            Column("seed", COUNT, "", "training seed"),
            Column("run", TEXT, "", "identity of the run"),
            Column("epochs", COUNT, "epochs", "epochs trained"),
            Column("steps", COUNT, "steps", "optimiser steps"),
            Column("tokens", COUNT, "tokens", "tokens that carried loss, over all epochs"),
            Column("final_loss", REAL, "nats per token", "loss at the end", True),
            Column("method", TEXT, "", "full or lora"),
        ),
        ("base", "sample", "recipe", "seed"),
    ),
    "curves": Table(
        "one training run over some consecutive steps, at most 40 rows a run",
        (
            Column("base", TEXT, "", "base model"),
            Column("sample", TEXT, "", "training sample"),
            Column("recipe", TEXT, "", "training recipe"),
            Column("seed", COUNT, "", "training seed"),
            Column("step", COUNT, "steps", "optimiser steps done at the end of the row's steps"),
            Column("epoch", REAL, "epochs", "passes over the sample done then"),
            Column("loss", REAL, "nats per token", "mean over the row's steps", True),
            Column("learning_rate", REAL, "", "of the row's last step", True),
            Column("grad_norm", REAL, "", "norm of the gradient before clipping, mean over the row's steps", True),
            *DESCRIPTION,
        ),
        ("base", "sample", "recipe", "seed", "step"),
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
    "imported": Table(
        "one column of an imported table; no rows where scores are our own",
        (
            Column("column", TEXT, "", "name in the imported file"),
            *MEASURE,
            Column("unit", TEXT, "", "percent, fraction or points 1..10, read off the values"),
            Column("factor", REAL, "", "what values were multiplied by"),
            Column("values", COUNT, "cells", "values that are not empty"),
            Column("least", REAL, "as in the file", "least value", True),
            Column("greatest", REAL, "as in the file", "greatest value", True),
        ),
        ("column",),
    ),
    "contamination": Table(
        "overlap of one training sample with the items of one benchmark",
        (
            Column("sample", TEXT, "", "training sample"),
            Column("benchmark", TEXT, "", "benchmark"),
            Column("items", COUNT, "items", "items of the benchmark"),
            Column("found", COUNT, "items", "items whose text stands in the sample"),
            Column("share", REAL, "fraction", "found / items"),
        ),
        ("sample", "benchmark"),
    ),
}

RECORDS: dict[str, Table] = {
    "cost": Table(
        "what one job took",
        (
            Column("stage", TEXT, "", "stage of the workflow"),
            Column("output", TEXT, "", "file that the job made, below the results folder"),
            Column("base", TEXT, "", "base model, where the job has one", True),
            Column("sample", TEXT, "", "training sample, where the job has one", True),
            Column("recipe", TEXT, "", "training recipe, where the job has one", True),
            Column("seed", COUNT, "", "training seed, where the job has one", True),
            Column("wall_seconds", REAL, "s", "time from start to end"),
            Column("cpu_seconds", REAL, "s", "CPU time, without importing libraries"),
            Column("gpu_seconds", REAL, "s", "GPUs x time; 0 where the job used none"),
            Column("peak_memory_mb", REAL, "MB", "greatest resident memory of the process"),
        ),
        ("stage", "output"),
    ),
}
"""Tables of time and machine, written by the report's stage; no analysis reads them, and they differ between runs."""
