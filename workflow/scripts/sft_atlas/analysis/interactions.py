"""Question 1: what do base models share, what is particular to one?

All of it rests on base-free effects (cells.free_effects), averaged over recipes and sizes: one number per base x
dataset x benchmark.
"""

from dataclasses import dataclass
from itertools import combinations
from typing import Any

import numpy as np
import polars as pl

from sft_atlas.analysis import tables
from sft_atlas.analysis.cells import MEASURE, final_gains, known, over_seeds
from sft_atlas.analysis.statistics import (
    Array,
    Bootstrap,
    codes,
    components,
    disattenuated,
    jackknife,
    pearson,
    reliability,
    spearman,
    within,
)

Row = dict[str, Any]
Measure = tuple[str, int, str]
MIN_DATASETS = 3


@dataclass(frozen=True)
class Cube:
    """Effects by base, dataset and measure; NaN where unknown."""

    bases: list[str]
    datasets: list[str]
    measures: list[Measure]
    effect: Array
    stderr: Array

    def scaled(self) -> Array:
        """Effects in standard deviations of their measure, so that no benchmark counts for its scale."""
        spread = np.nanstd(self.effect, axis=(0, 1), keepdims=True)
        with np.errstate(invalid="ignore", divide="ignore"):
            return np.where(spread > 0, self.effect / spread, np.nan)


def cube(effects: pl.DataFrame) -> Cube:
    """The cube of base-free effects: means over recipes and sizes."""
    cells = effects.group_by("base", "dataset", *MEASURE).agg(pl.col("effect", "stderr").mean())
    bases, datasets = (sorted(cells[name].unique()) for name in ("base", "dataset"))
    measures = sorted(set(cells.select(MEASURE).iter_rows()))
    shape = (len(bases), len(datasets), len(measures))
    effect, stderr = np.full(shape, np.nan), np.full(shape, np.nan)
    place = {name: i for names in (bases, datasets, measures) for i, name in enumerate(names)}
    for base, dataset, benchmark, shots, metric, value, error in cells.select(
        "base", "dataset", *MEASURE, "effect", "stderr"
    ).iter_rows():
        at = place[base], place[dataset], measures.index((benchmark, shots, metric))
        effect[at], stderr[at] = value, np.nan if error is None else error
    return Cube(bases, datasets, measures, effect, stderr)


def agreement(data: Cube, bootstrap: Bootstrap) -> pl.DataFrame:
    """Table `agreement`: do two bases profit from the same datasets, per benchmark and over all?"""
    if len(data.bases) < 2:
        return tables.empty("agreement")
    rows: list[Row] = []
    scaled = data.scaled()
    views: list[tuple[Row, Array]] = [(dict.fromkeys(MEASURE), scaled.reshape(len(data.bases), -1))]
    views += [(dict(zip(MEASURE, m, strict=True)), data.effect[:, :, k]) for k, m in enumerate(data.measures)]
    for key, values in views:
        pairs = _pairs(values)
        if not np.isfinite(pairs).any():
            continue
        for i, j in combinations(range(len(data.bases)), 2):
            both = np.isfinite(values[i]) & np.isfinite(values[j])
            if np.isfinite(pairs[i, j]):
                rho = spearman(values[i][both], values[j][both])
                names = {"base": data.bases[i], "other": data.bases[j]}
                rows.append(
                    key
                    | names
                    | {
                        "coefficient": known(pairs[i, j]),
                        "spearman": known(rho),
                        "n_cells": int(both.sum()),
                        "n_bases": 2,
                    }
                )
        mean = _mean_over_pairs(pairs, bootstrap)
        count = int(np.isfinite(values).any(axis=1).sum())
        rows.append(key | mean | {"n_cells": int(np.isfinite(values).sum()), "n_bases": count})
    return tables.build("agreement", rows)


def _pairs(values: Array) -> Array:
    """Pearson's correlation of each pair of rows over the columns both have; NaN on and below the diagonal."""
    found = np.full((len(values),) * 2, np.nan)
    for i, j in combinations(range(len(values)), 2):
        both = np.isfinite(values[i]) & np.isfinite(values[j])
        if both.sum() >= MIN_DATASETS:
            found[i, j] = pearson(values[i][both], values[j][both])
    return found


def _mean_over_pairs(pairs: Array, bootstrap: Bootstrap, chosen: Array | None = None) -> Row:
    """Mean correlation over (chosen) pairs, with an interval from drawing bases whole."""
    use = np.isfinite(pairs) if chosen is None else np.isfinite(pairs) & chosen
    value = np.where(use, pairs, 0.0)
    if not use.any():
        return {"coefficient": None}
    weights = bootstrap.weights(len(pairs))
    with np.errstate(invalid="ignore", divide="ignore"):
        drawn = np.einsum("di,ij,dj->d", weights, value, weights, optimize=True)
        drawn = drawn / np.einsum("di,ij,dj->d", weights, use.astype(float), weights, optimize=True)
    interval = bootstrap.ends(drawn, float(value.sum() / use.sum()), len(pairs))
    # widened for few bases, an interval may reach beyond what a correlation can be
    low, high = np.clip([interval.low, interval.high], -1.0, 1.0)
    return {"coefficient": known(interval.estimate), "ci_low": known(float(low)), "ci_high": known(float(high))}


def similarity(data: Cube, labels: dict[str, Any], bootstrap: Bootstrap, permutations: int) -> pl.DataFrame:
    """Table `similarity`: how alike are the effects of two bases, and is it family or language that makes them so?

    The difference between pairs inside and across a label is tested by permuting the labels of bases (Mantel 1967).
    """
    if len(data.bases) < 2:
        return tables.empty("similarity")
    values = data.scaled().reshape(len(data.bases), -1)
    pairs = _pairs(values)
    rows: list[Row] = []
    about = {base: labels.get("bases", {}).get(base) or {} for base in data.bases}
    same = {
        label: np.array(
            [
                [about[a].get(label) is not None and about[a].get(label) == about[b].get(label) for b in data.bases]
                for a in data.bases
            ],
            dtype=bool,
        ).reshape((len(data.bases),) * 2)
        for label in ("family", "language")
    }
    for i, j in combinations(range(len(data.bases)), 2):
        if np.isfinite(pairs[i, j]):
            flags = {f"same_{label}": bool(flag[i, j]) for label, flag in same.items()}
            n = int((np.isfinite(values[i]) & np.isfinite(values[j])).sum())
            rows.append(
                {
                    "scope": "pair",
                    "base": data.bases[i],
                    "other": data.bases[j],
                    "coefficient": known(pairs[i, j]),
                    "n_pairs": 1,
                    "n_cells": n,
                }
                | flags
            )
    for label, flag in same.items():
        upper = np.isfinite(pairs)
        inside, across = flag & upper, ~flag & upper
        if not inside.any() or not across.any():
            continue
        for scope, chosen in ((f"same {label}", inside), (f"other {label}", across)):
            rows.append({"scope": scope, **_mean_over_pairs(pairs, bootstrap, chosen), "n_pairs": int(chosen.sum())})
        rows.append(
            {
                "scope": f"difference by {label}",
                **_label_difference(pairs, flag, bootstrap, permutations),
                "n_pairs": int(upper.sum()),
            }
        )
    return tables.build("similarity", rows)


def _label_difference(pairs: Array, same: Array, bootstrap: Bootstrap, permutations: int) -> Row:
    """Mean correlation of pairs with equal labels minus that of the others; interval over bases, p by permutation."""
    upper = np.isfinite(pairs)
    value = np.where(upper, pairs, 0.0)

    def difference(flag: Array) -> float:
        inside, across = flag & upper, ~flag & upper
        return float(value[inside].mean() - value[across].mean())

    weights = bootstrap.weights(len(pairs))
    totals = [
        np.einsum("di,ij,dj->d", weights, part, weights, optimize=True)
        for flag in (same, ~same)
        for part in (value * flag, (upper & flag).astype(float))
    ]
    with np.errstate(invalid="ignore", divide="ignore"):
        drawn = totals[0] / totals[1] - totals[2] / totals[3]
    estimate = difference(same)
    interval = bootstrap.ends(drawn, estimate, len(pairs))
    rng = np.random.default_rng(bootstrap.seed)
    # the labels move as a whole, so each permutation keeps how many bases share one
    orders = (rng.permutation(len(pairs)) for _ in range(min(permutations, 2000)))
    moved = np.array([difference(same[np.ix_(order, order)]) for order in orders])
    p = (1 + np.sum(np.abs(moved) >= abs(estimate) - 1e-12)) / (1 + len(moved))
    return {
        "coefficient": known(estimate),
        "ci_low": known(interval.low),
        "ci_high": known(interval.high),
        "p": float(p),
    }


def pca(data: Cube, bootstrap: Bootstrap) -> pl.DataFrame:
    """Table `pca`: how many patterns the effects consist of.

    Scope `benchmarks`: rows are base x dataset, columns benchmarks. Scope `bases`: rows are dataset x benchmark,
    columns bases. Columns are scaled to equal variance; those known for less than nine tenths of the rows are left
    out, then rows with gaps. Intervals of the cumulative share: jackknife over bases, in scope `bases` over datasets.
    """
    if len(data.bases) < 2:
        return tables.empty("pca")
    scaled = data.scaled()
    rows = _components(
        "benchmarks",
        scaled.reshape(-1, len(data.measures)),
        data.measures,
        np.repeat(np.arange(len(data.bases)), len(data.datasets)),
        bootstrap,
    )
    flat = scaled.reshape(len(data.bases), -1).T
    rows += _components(
        "bases", flat, data.bases, np.repeat(np.arange(len(data.datasets)), len(data.measures)), bootstrap
    )
    return tables.build("pca", rows)


def _components(scope: str, values: Array, names: list[Any], cluster: Array, bootstrap: Bootstrap) -> list[Row]:
    there = np.isfinite(values)
    keep = there.sum(axis=0) >= 0.9 * max(1, there.any(axis=1).sum())
    if keep.sum() < 2:
        return []
    values, names = values[:, keep], [name for name, kept in zip(names, keep, strict=True) if kept]
    complete = np.isfinite(values).all(axis=1)
    values, cluster = values[complete], codes(cluster[complete])
    if len(values) < 3:
        return []
    spread = values.std(axis=0)
    values = values / np.where(spread > 0, spread, 1.0)
    share, loadings, _ = components(values)
    count = int(cluster.max()) + 1
    folds = [np.cumsum(components(values[cluster != c])[0]) for c in range(count)] if count >= MIN_DATASETS else []
    width = min((len(fold) for fold in folds), default=0)
    rows: list[Row] = []
    for k in range(len(share)):
        total = float(share[: k + 1].sum())
        interval = jackknife(total, [fold[k] for fold in folds] if k < width else [], bootstrap.confidence)
        high = None if not np.isfinite(interval.high) else min(1.0, interval.high)
        about = {"scope": scope, "component": k + 1, "share": known(share[k])}
        rows.append(
            about
            | {
                "cumulative": known(total),
                "ci_low": known(interval.low),
                "ci_high": high,
                "n_rows": len(values),
                "n_columns": len(names),
            }
        )
        for name, loading in zip(names, loadings[k], strict=True):
            whose = {"base": name} if scope == "bases" else dict(zip(MEASURE, name, strict=True))
            rows.append(about | whose | {"loading": float(loading), "n_rows": len(values), "n_columns": len(names)})
    return rows


def benchmarks(effects: pl.DataFrame, bootstrap: Bootstrap) -> pl.DataFrame:
    """Table `benchmarks`: do two benchmarks profit from the same data? Effects of runs, pair by pair.

    Both are also corrected for what their limited items blur (statistics.disattenuated). Clusters are bases.
    """
    runs = effects.sort("base", "sample", "recipe", *MEASURE)
    key = ["base", "sample", "recipe"]
    parts = {
        measure: part.select(*key, "effect", "stderr") for measure, part in runs.group_by(MEASURE, maintain_order=True)
    }
    rows: list[Row] = []
    for first, second in combinations(sorted(parts), 2):
        both = parts[first].join(parts[second], on=key, suffix="_other").sort(key)
        if both.height < MIN_DATASETS:
            continue
        x, y = both["effect"].to_numpy(), both["effect_other"].to_numpy()
        interval = bootstrap.correlation(x, y, both["base"].to_numpy(), rank=False)
        sure = [
            reliability(both[name], both[error].fill_null(float("nan")))
            for name, error in (("effect", "stderr"), ("effect_other", "stderr_other"))
        ]
        rows.append(
            {
                **dict(zip(MEASURE, first, strict=True)),
                **{f"other_{name}": value for name, value in zip(MEASURE, second, strict=True)},
                "coefficient": known(interval.estimate),
                "ci_low": known(interval.low),
                "ci_high": known(interval.high),
                "spearman": known(spearman(x, y)),
                "reliability": known(sure[0]),
                "other_reliability": known(sure[1]),
                "corrected": known(disattenuated(interval.estimate, *sure)),
                "n_runs": both.height,
                "n_bases": both["base"].n_unique(),
            }
        )
    return tables.build("benchmarks", rows)


def variance(gains: pl.DataFrame, confidence: float = 0.95) -> pl.DataFrame:
    """Table `variance`: what share of the variance of gains goes with the base, the dataset, and neither.

    Per benchmark, on cells base x dataset (means over recipes and sizes). A factor's share is what it adds to the
    other: R^2(base + dataset) - R^2(other), by least squares on indicators; `shared` is what both explain alike. The
    interval is the jackknife's over bases.
    """
    runs = over_seeds(final_gains(gains))
    cells = (
        runs.filter(pl.col("dataset") != pl.col("sample"))
        .group_by("base", "dataset", *MEASURE)
        .agg(pl.col("gain").mean())
    )
    rows: list[Row] = []
    for measure, part in cells.sort("base", "dataset").group_by(MEASURE, maintain_order=True):
        base, dataset, gain = (part[name].to_numpy() for name in ("base", "dataset", "gain"))
        shares = variance_shares(gain, base, dataset)
        if shares is None or part["base"].n_unique() < 3 or part["dataset"].n_unique() < 3:
            continue
        folds = [variance_shares(gain[base != b], base[base != b], dataset[base != b]) for b in np.unique(base)]
        for factor, share in shares.items():
            interval = jackknife(share, [fold[factor] for fold in folds if fold is not None], confidence)
            rows.append(
                {
                    **dict(zip(MEASURE, measure, strict=True)),
                    "factor": factor,
                    "share": float(share),
                    "ci_low": known(interval.low),
                    "ci_high": known(interval.high),
                    "n_cells": part.height,
                    "n_bases": part["base"].n_unique(),
                    "n_datasets": part["dataset"].n_unique(),
                }
            )
    return tables.build("variance", rows)


def variance_shares(y: Array, base: Array, dataset: Array) -> dict[str, float] | None:
    """Shares of the variance of y: base, dataset, shared (either explains it), rest; None where y does not vary."""
    total = float(((y - y.mean()) ** 2).sum())
    if total <= 0:
        return None
    one = float((within(y, base) ** 2).sum())
    other = float((within(y, dataset) ** 2).sum())
    columns = np.concatenate([np.eye(int(c.max()) + 1)[c] for c in (codes(base), codes(dataset))], axis=1)
    rest = float(((y - columns @ np.linalg.lstsq(columns, y, rcond=None)[0]) ** 2).sum())
    shares = {"base": (other - rest) / total, "dataset": (one - rest) / total, "rest": rest / total}
    return shares | {"shared": 1 - sum(shares.values())}
