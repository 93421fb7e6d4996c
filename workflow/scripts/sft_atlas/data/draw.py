"""Draws that depend on a seed and on the rows' own ids, not on their order."""

import hashlib

import polars as pl


def draw_rows(rows: pl.DataFrame, size: int | None, seed: int) -> pl.DataFrame:
    """The first `size` rows in an order that depends on the seed and each row's id only, then back in source order.

    So the draw is random whatever the order of the source, a smaller sample is part of a larger one, and a row that
    is added to the source moves no other in or out, except across the edge.
    """
    if size is None or size >= rows.height:
        return rows
    ranks = [hashlib.sha256(f"{seed}:{row}".encode()).hexdigest() for row in rows["row"]]
    chosen = sorted(sorted(range(rows.height), key=ranks.__getitem__)[:size])
    return rows[chosen]
