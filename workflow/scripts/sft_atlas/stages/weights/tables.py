"""What the study's tables gain from weights."""

import polars as pl

from sft_atlas.analysis.collected import Found, Rows
from sft_atlas.analysis.columns import CELL, COUNT, DESCRIPTION, REAL, TEXT, Column, Table, cell

TABLES: dict[str, Table] = {
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
}


def gather(found: Found) -> dict[str, Rows]:
    """Table `layers`."""
    rows = [
        {**cell.key, **row, **cell.row(row["epoch"])}
        for cell in found.of_runs("weights")
        for row in pl.read_parquet(cell.path).iter_rows(named=True)
    ]
    return {"layers": rows}
