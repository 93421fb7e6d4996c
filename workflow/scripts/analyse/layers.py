"""Question 3: the change of which layers goes with the gain?"""

from typing import Any

import numpy as np
import polars as pl

from sft_atlas.analyse import tables
from sft_atlas.analyse.cells import final_gains
from sft_atlas.analyse.correlations import Scope, test_columns, with_q
from sft_atlas.analyse.options import AnalysisOptions

Row = dict[str, Any]

SCOPES = {"pooled": Scope((), ("dataset",)), "within_base": Scope(("base", "size", "recipe"), ("dataset",))}
GRID = 11
"""Relative depths at which layers of different models are compared, at most."""


def layer_correlations(layers: pl.DataFrame, gains: pl.DataFrame, options: AnalysisOptions) -> pl.DataFrame:
    """Table `layer_correlations` from tables `layers` and `gains`.

    Per method and module type: the relative change at each depth of a common grid against the mean gain of the run,
    over all benchmarks or over matched ones, each run being the mean over its seeds. `within_base` compares runs of
    equal base and size only. Clusters are base x dataset. All tests of one target and scope are one family for q.
    """
    changes = _on_grid(layers)
    targets = _targets(final_gains(gains))
    runs = changes.join(targets, on=["base", "sample", "recipe"], how="inner")
    rows = []
    for (target, method, module, depth), part in runs.group_by(
        "target", "method", "module", "depth", maintain_order=True
    ):
        for scope, strata in SCOPES.items():
            rows.append(
                {
                    "scope": scope,
                    "target": target,
                    "module": module,
                    "method": method,
                    "depth": depth,
                    "n_runs": int(part["n_runs"].sum()),
                    "family": f"{target}, {scope}",
                    **test_columns(part, "relative", strata, ["base", "size", "recipe"], options),
                }
            )
    return tables.build("layer_correlations", with_q(rows))


def _on_grid(layers: pl.DataFrame) -> pl.DataFrame:
    """Relative change per base x sample x recipe x module at common relative depths, seeds averaged."""
    last = layers.filter(pl.col("epoch") == pl.col("epoch").max().over("base", "sample", "recipe", "seed"))
    known_changes = last.filter(pl.col("relative").is_not_null())
    key = ["base", "sample", "recipe", "module"]
    profile = known_changes.group_by(*key, "depth").agg(pl.col("relative").mean()).sort(*key, "depth")
    fewest = profile.group_by(key).len()["len"].min()
    grid = np.linspace(0, 1, min(GRID, max(2, fewest if isinstance(fewest, int) else 2))).round(4)
    rows = [
        dict(zip(key, values, strict=True)) | {"depth": float(depth), "relative": float(relative)}
        for values, part in profile.group_by(key, maintain_order=True)
        for depth, relative in zip(grid, np.interp(grid, part["depth"], part["relative"]), strict=True)
    ]
    schema = dict.fromkeys(key, pl.String()) | {"depth": pl.Float64(), "relative": pl.Float64()}
    return pl.DataFrame(rows, schema=schema)


def _targets(gains: pl.DataFrame) -> pl.DataFrame:
    """Mean gain and mean matched gain of each base x sample x recipe, the latter where it has a matched benchmark."""
    key = ["base", "sample", "recipe", "dataset", "size", "method"]
    parts = {"mean_gain": gains, "matched_gain": gains.filter("matched")}
    return pl.concat(
        part.group_by(key)
        .agg(pl.col("gain").mean(), pl.col("seed").n_unique().cast(pl.Int64).alias("n_runs"))
        .with_columns(pl.lit(target).alias("target"))
        .sort(key)
        for target, part in parts.items()
    )
