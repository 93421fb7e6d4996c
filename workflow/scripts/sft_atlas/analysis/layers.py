"""Question 3: the change of which layers goes with the gain?"""

from itertools import combinations
from typing import Any

import numpy as np
import polars as pl

from sft_atlas.analysis import tables
from sft_atlas.analysis.cells import final_gains, row_codes
from sft_atlas.analysis.correlations import Scope, test_columns, with_q
from sft_atlas.analysis.interactions import correlations_of_rows
from sft_atlas.analysis.intervals import MIN_CLUSTERS
from sft_atlas.analysis.statistics import cluster_draws, spearman, within
from sft_atlas.study.analyses import AnalysisOptions

Row = dict[str, Any]

SCOPES = {"pooled": Scope((), "dataset", "base"), "within_base": Scope(("base", "size", "recipe"), "dataset")}
CHANGES = {"relative": "relative", "raw": "norm"}
"""Names of the two ways to measure change, and their columns in table `layers`."""
GRID = 11
"""Relative depths at which layers of different models are compared, at most."""


def layer_correlations(layers: pl.DataFrame, gains: pl.DataFrame, options: AnalysisOptions) -> pl.DataFrame:
    """Table `layer_correlations` from tables `layers` and `gains`.

    Per method and module type: the change, relative and raw, at each depth of a common grid against the mean gain of
    the run, over all benchmarks or over matched ones, each run being the mean over its seeds. `within_base` compares
    runs of equal base, size and recipe only; there both changes rank alike, since the base's norm divides them all, so
    that one row stands for both. Clusters are datasets. All tests of one change, target and scope are one family for q.
    """
    targets = _targets(final_gains(gains))
    runs = _changes(layers).join(targets, on=["base", "sample", "recipe"], how="inner")
    rows = []
    for (change, target, method, module, depth), part in runs.group_by(
        "change", "target", "method", "module", "depth", maintain_order=True
    ):
        for scope, strata in SCOPES.items():
            if scope == "within_base" and change == "raw":
                continue
            rows.append(
                {
                    "change": change,
                    "scope": scope,
                    "target": target,
                    "module": module,
                    "method": method,
                    "depth": depth,
                    "n_runs": int(part["n_runs"].sum()),
                    "family": f"{change} change, {target}, {scope}",
                    **test_columns(part, "relative", strata, ["base", "size", "recipe"], options),
                }
            )
    return tables.build("layer_correlations", with_q(rows))


def _on_grid(layers: pl.DataFrame, change: str = "relative") -> pl.DataFrame:
    """Change (column `change`, named `relative` in the result) per base x sample x recipe x module at common
    relative depths, seeds averaged.
    """
    last = layers.filter(pl.col("epoch") == pl.col("epoch").max().over("base", "sample", "recipe", "seed"))
    known_changes = last.with_columns(relative=pl.col(change)).filter(pl.col("relative").is_not_null())
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


def _changes(layers: pl.DataFrame) -> pl.DataFrame:
    """Both ways to measure change, named in column `change`, each in column `relative`, at common depths."""
    return pl.concat(_on_grid(layers, column).with_columns(change=pl.lit(name)) for name, column in CHANGES.items())


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


def layer_peaks(layers: pl.DataFrame, gains: pl.DataFrame, options: AnalysisOptions) -> pl.DataFrame:
    """Table `layer_peaks`: at which depth the correlation of change with gain is greatest, and how sure that is.

    As layer_correlations within base; each bootstrap draw of datasets has its own curve over depth, and its peak. The
    interval is the percentile interval of these peaks; `flat` is the share of draws whose peak lies at either end.
    Where the correlation at the peak is not clear (table layer_correlations), its place says nothing.
    """
    targets = _targets(final_gains(gains))
    runs = (
        _on_grid(layers)
        .with_columns(change=pl.lit("relative"))
        .join(targets, on=["base", "sample", "recipe"], how="inner")
    )
    rows = []
    for (change, target, method, module), part in runs.group_by(
        "change", "target", "method", "module", maintain_order=True
    ):
        totals, depths = [], sorted(part["depth"].unique())
        for depth in depths:
            here = part.filter(pl.col("depth") == depth).sort("base", "sample", "recipe")
            strata = row_codes(here, ["base", "size", "recipe"])
            x, y = (within(here[name].to_numpy(), strata, rank=True) for name in ("relative", "gain"))
            cluster = row_codes(here, ["dataset"])
            products = np.stack([x * y, x * x, y * y], axis=-1)
            totals.append(np.stack([np.bincount(cluster, weights=column) for column in products.T], axis=-1))
        sums = np.stack(totals)
        count = sums.shape[1]
        whole = sums.sum(axis=1)
        if count < MIN_CLUSTERS or not (whole[:, 1] * whole[:, 2] > 0).all():
            continue
        with np.errstate(invalid="ignore", divide="ignore"):
            curve = whole[:, 0] / np.sqrt(whole[:, 1] * whole[:, 2])
            drawn = np.einsum(
                "dc,pck->dpk", cluster_draws(options.seed, options.bootstrap_draws, count), sums, optimize=True
            )
            curves = drawn[..., 0] / np.sqrt(drawn[..., 1] * drawn[..., 2])
        curves = curves[np.isfinite(curves).all(axis=1)]
        peaks = np.array(depths)[curves.argmax(axis=1)]
        low, high = np.quantile(peaks, [(1 - options.confidence) / 2, (1 + options.confidence) / 2])
        rows.append(
            {
                **{"change": change, "target": target, "method": method, "module": module},
                **{"depth": float(depths[int(curve.argmax())]), "coefficient": float(curve.max())},
                **{"ci_low": float(low), "ci_high": float(high)},
                "flat": float(np.mean((peaks == depths[0]) | (peaks == depths[-1]))),
                "n_runs": int(part.filter(pl.col("depth") == depths[0])["n_runs"].sum()),
                "n_clusters": count,
            }
        )
    return tables.build("layer_peaks", rows)


def layer_agreement(layers: pl.DataFrame) -> pl.DataFrame:
    """Table `layer_agreement`: at each depth, do two bases rank their training samples by change alike?

    The mean over pairs of bases of Spearman's correlation over samples trained under the same recipe.
    """
    runs = _on_grid(layers)
    rows = []
    for (module, depth), part in runs.group_by("module", "depth", maintain_order=True):
        wide = part.pivot("base", index=["sample", "recipe"], values="relative", sort_columns=True).sort(
            "sample", "recipe"
        )
        names = [column for column in wide.columns if column not in ("sample", "recipe")]
        recipes = row_codes(wide, ["recipe"])
        values = wide.select(names).to_numpy().T
        if np.isfinite(values).all():
            pairs = correlations_of_rows(np.stack([within(row, recipes, rank=True) for row in values]))
        else:
            pairs = np.array([[spearman(one, other, recipes) for other in values] for one in values])
        found = [pairs[i, j] for i, j in combinations(range(len(names)), 2) if np.isfinite(pairs[i, j])]
        if found:
            rows.append({"module": module, "depth": depth, "coefficient": float(np.mean(found)), "n_pairs": len(found)})
    return tables.build("layer_agreement", rows)
