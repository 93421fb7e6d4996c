"""What the study's tables gain from comparing samples with benchmarks."""

import polars as pl

from sft_atlas.analysis.collected import Found, Rows
from sft_atlas.analysis.columns import COUNT, REAL, TEXT, Column, Table

TABLES: dict[str, Table] = {
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


def gather(found: Found) -> dict[str, Rows]:
    """Table `contamination`; how many items a benchmark has is known from the comparison of wordings."""
    rows: Rows = []
    for sample in found.identity.samples:
        path, counts = found.sample("contamination", sample), found.sample("similarity", sample)
        if path is None or counts is None:
            continue
        counted = pl.read_parquet(path).group_by("benchmark").agg(pl.col("item").n_unique())
        held = dict(counted.iter_rows())
        for name, items in pl.read_parquet(counts).select("benchmark", "items").iter_rows():
            share = held.get(name, 0) / items
            rows.append(
                {"sample": sample, "benchmark": name, "items": items, "found": held.get(name, 0), "share": share}
            )
    return {"contamination": rows}
