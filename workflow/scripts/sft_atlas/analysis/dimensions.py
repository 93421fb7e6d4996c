"""Question 3: how training changes the intrinsic dimension of representations, by depth."""

from typing import Any

import numpy as np
import polars as pl

from sft_atlas.analysis import tables
from sft_atlas.analysis.cells import RUN, known, row_codes
from sft_atlas.analysis.intervals import Jackknife

Row = dict[str, Any]
GRID = 11
"""Relative depths at which models of different depth are compared, at most."""


def dimension_changes(dimensions: pl.DataFrame, intervals: Jackknife) -> pl.DataFrame:
    """Table `dimension_changes`: dimension after the last epoch minus that of the base, at common relative depths.

    Between layers, dimensions are interpolated. Seeds of a cell are averaged first. Clusters are bases and
    datasets; a single base has no interval.
    """
    known_ones = dimensions.filter(pl.col("dimension").is_not_null())
    tuned = known_ones.filter(pl.col("sample").is_not_null() & pl.col("held_out").is_null())
    tuned = tuned.filter(pl.col("epoch") == pl.col("epoch").max().over(RUN))
    before = {
        base: part.sort("depth") for (base,), part in known_ones.filter(pl.col("sample").is_null()).group_by("base")
    }
    fewest = min((part.height for part in before.values()), default=0)
    grid = np.linspace(0, 1, min(GRID, max(2, fewest))).round(4)
    curves = [
        dict(zip(("base", "dataset", "method"), key, strict=True)) | {"depth": float(depth), "before": b, "after": a}
        for (*key, _, _, _), part in tuned.sort("depth").group_by(
            "base", "dataset", "method", "sample", "recipe", "seed", maintain_order=True
        )
        if key[0] in before
        for depth, b, a in zip(
            grid,
            np.interp(grid, before[key[0]]["depth"], before[key[0]]["dimension"]).tolist(),
            np.interp(grid, part["depth"], part["dimension"]).tolist(),
            strict=True,
        )
    ]
    if not curves:
        return tables.empty("dimension_changes")
    frame = pl.DataFrame(curves).with_columns(difference=pl.col("after") - pl.col("before"))
    rows: list[Row] = []
    for base in [None, *frame["base"].unique().sort()]:
        view = frame if base is None else frame.filter(pl.col("base") == base)
        for (method, depth), part in view.group_by("method", "depth", maintain_order=True):
            cells = part.group_by("base", "dataset").agg(pl.col("before", "after", "difference").mean(), pl.len())
            cells = cells.sort("base", "dataset")
            factors = [row_codes(cells, [name]) for name in ("base", "dataset") if base is None]
            mean = intervals.mean(cells["difference"].to_numpy(), *factors)
            rows.append(
                {
                    **{"base": base, "method": method, "depth": depth},
                    **{"before": cells["before"].mean(), "after": cells["after"].mean()},
                    **{"difference": known(mean.estimate), "ci_low": known(mean.low), "ci_high": known(mean.high)},
                    **{"n_runs": part.height, "n_clusters": cells["dataset"].n_unique()},
                }
            )
    return tables.build("dimension_changes", rows)
