"""Stage *prepare*, after the draw: which rows of a sample hold an item of a benchmark.

A row holds an item if at least `threshold` of the item's distinct n-grams of words occur in the row (containment,
Broder 1997; n = 8 and 0.7 are our choices between GPT-3's 13 words in a row and Llama 2's share of overlapping tokens).
An item of fewer than n words counts as one n-gram of its own length; one of fewer than four words tells nothing and is
passed over. Words are those of data/ngrams.py.
"""

from collections import Counter, defaultdict
from pathlib import Path

import polars as pl

from sft_atlas.data.ngrams import ngrams
from sft_atlas.data.sources import refuse_twice
from sft_atlas.files import read_json, whole, write_table
from sft_atlas.stages.contamination.spec import Options, Spec

FEWEST_WORDS = 4
SCHEMA = {
    "row": pl.String,
    "dataset": pl.String,
    "benchmark": pl.String,
    "item": pl.String,
    "overlap": pl.Float64,
}


def run(spec: Spec, root: Path) -> None:
    """Write every pair of row and item that overlap (schema `SCHEMA`), and a page that counts them."""
    inputs, options = spec.inputs, spec.identity.options
    output, manifest = root / spec.output, root / inputs.sample
    rows = pl.read_parquet(manifest.with_name("rows.parquet"))
    items = {
        name: pl.read_parquet((root / path).with_name("items.parquet")).select("item", "instruction")
        for name, path in sorted(inputs.benchmarks.items())
    }
    found = overlaps(rows, items, options.ngram, options.threshold)
    write_table(output, found)
    with whole(output.with_suffix(".md")) as temporary:
        temporary.write_text(_page(manifest, read_json(manifest)["rows"], items, found, options), encoding="utf-8")


def overlaps(rows: pl.DataFrame, items: dict[str, pl.DataFrame], n: int, threshold: float) -> pl.DataFrame:
    """Pairs of row and item whose overlap reaches the threshold, by row, benchmark and item.

    Raises:
        DataError: two items of a benchmark, or two rows of a dataset, have one id.
    """
    for benchmark, table in items.items():
        refuse_twice(table["item"], f"benchmark {benchmark}", "item")
    for (dataset,), part in rows.group_by("dataset", maintain_order=True):
        refuse_twice(part["row"], f"dataset {dataset}")
    sizes: dict[tuple[str, str], int] = {}
    owners: dict[tuple[str, ...], list[tuple[str, str]]] = defaultdict(list)
    for benchmark, table in items.items():
        for item, text in table.iter_rows():
            grams = set(ngrams(text, n))
            if grams and len(next(iter(grams))) >= min(n, FEWEST_WORDS):
                sizes[benchmark, item] = len(grams)
                for gram in grams:
                    owners[gram].append((benchmark, item))
    lengths = {len(gram) for gram in owners}
    found = []
    for row, dataset, prompt, completion in rows.select("row", "dataset", "prompt", "completion").iter_rows():
        grams = {gram for length in lengths for gram in ngrams(prompt + completion, length)}
        hits = Counter(owner for gram in grams & owners.keys() for owner in owners[gram])
        found += [
            (row, dataset, *owner, count / sizes[owner])
            for owner, count in sorted(hits.items())
            if count / sizes[owner] >= threshold
        ]
    return pl.DataFrame(found, schema=SCHEMA, orient="row")


def _page(manifest: Path, rows: int, items: dict[str, pl.DataFrame], found: pl.DataFrame, options: Options) -> str:
    lines = [
        f"# Overlap of {manifest.parent.name} with the benchmarks",
        "",
        f"A row holds an item if it has at least {options.threshold:g} of the item's {options.ngram}-word runs.",
        "",
        "| benchmark | items | items held | rows that hold one | of rows |",
        "| --- | --- | --- | --- | --- |",
    ]
    for name, table in items.items():
        part = found.filter(benchmark=name)
        held, holding = part["item"].n_unique(), part.select("dataset", "row").n_unique()
        lines.append(f"| {name} | {table.height} | {held} | {holding} | {rows} |")
    return "\n".join(lines) + "\n"
