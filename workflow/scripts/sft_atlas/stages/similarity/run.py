"""Stage *perplexity*, beside it: how much of a benchmark's wording a sample shares, without embeddings.

Similarity is the mean over a benchmark's items of the share of the item's n-grams that occur anywhere in the sample:
containment in the sense of Broder (1997), item by item. Words are lower-cased; in scripts without spaces each
character is a word, and letters are compared in one Unicode form (NFC). Items shorter than n words count as their whole
text.
"""

from collections.abc import Iterable
from pathlib import Path

import polars as pl

from sft_atlas.data.ngrams import ngrams
from sft_atlas.files import write_table
from sft_atlas.stages.similarity.spec import Spec

SCHEMA = {"benchmark": pl.String, "similarity": pl.Float64, "items": pl.Int64}


def run(spec: Spec, root: Path) -> None:
    """Write a table with one row per benchmark (schema `SCHEMA`)."""
    inputs, n = spec.inputs, spec.identity.options.ngram
    sample = pl.read_parquet((root / inputs.sample).with_name("rows.parquet"))
    known = {gram for row in sample.iter_rows(named=True) for gram in ngrams(row["prompt"] + row["completion"], n)}
    rows = []
    for name, manifest in sorted(inputs.benchmarks.items()):
        items = pl.read_parquet((root / manifest).with_name("items.parquet"))
        rows.append((name, containment(items["instruction"], known, n), items.height))
    write_table(root / spec.output, pl.DataFrame(rows, schema=SCHEMA, orient="row"))


def containment(texts: Iterable[str], known: set[tuple[str, ...]], n: int) -> float | None:
    """Mean share of each text's distinct n-grams that are known; None if no text has any word."""
    shares = [sum(gram in known for gram in grams) / len(grams) for text in texts if (grams := set(ngrams(text, n)))]
    return sum(shares) / len(shares) if shares else None
