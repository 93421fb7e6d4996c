"""What a run is fed: rows as they were tokenised, or packed; micro-batches go by `sampler.py`."""

from typing import Any

import polars as pl
import polars.selectors as cs
from datasets import Dataset
from trl import pack_dataset

from sft_atlas.models.tokenizer import IGNORED


def sequences(rows: pl.DataFrame, recipe: dict[str, Any]) -> pl.DataFrame:
    """What one row of a batch is: a tokenised row, or several that are packed into the recipe's length.

    Columns row (id; packed, all their ids), input_ids, labels; packed also seq_lengths. Packed rows do not see each
    other: positions start anew with each, and attention stays within them.
    """
    plain = rows.select("row", "input_ids", "labels")
    if recipe["batching"] != "packed":
        return plain
    ids = plain["row"].to_list()
    # TRL packs lists only, so each token is told which row it is of
    origin = plain.with_row_index("origin").select(
        "input_ids", "labels", origin=pl.col("origin").repeat_by(pl.col("input_ids").list.len())
    )
    packed = pack_dataset(Dataset(origin.to_arrow()), recipe["max_length"], "bfd")
    table = pl.DataFrame(packed.with_format("arrow")[:])
    names = [", ".join(ids[row] for row in dict.fromkeys(origins)) for origins in table["origin"].to_list()]
    return table.select(pl.Series("row", names), "input_ids", "labels", "seq_lengths")


def dataset(table: pl.DataFrame, eos: int, processes: int) -> Dataset:
    """Sequences as TRL takes them; several processes need one that trains nothing (see `StepSampler`)."""
    columns = table.select(cs.exclude("row"))
    if processes > 1:
        nothing = {"input_ids": [[eos, eos]], "labels": [[IGNORED, IGNORED]], "seq_lengths": [[2]]}
        columns = columns.vstack(pl.DataFrame({name: nothing[name] for name in columns.columns}, schema=columns.schema))
    return Dataset(columns.to_arrow())
