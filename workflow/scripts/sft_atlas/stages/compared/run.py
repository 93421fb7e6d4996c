"""Notes what the comparison of a sample with the benchmarks found."""

from pathlib import Path

import polars as pl

from sft_atlas.files import read_json, write_json
from sft_atlas.stages.compared.spec import Spec


def run(spec: Spec, root: Path) -> None:
    """Write how many rows of the sample hold an item, by benchmark."""
    held = pl.DataFrame()
    if spec.inputs.contamination:
        found = pl.read_parquet(root / spec.inputs.contamination)
        held = found.group_by("benchmark").agg(pl.struct("dataset", "row").n_unique()).sort("benchmark")
    rows = read_json(root / spec.inputs.sample)["rows"]
    write_json(root / spec.output, {"rows": rows, "rows_that_hold_an_item": dict(held.iter_rows())})
