"""Question 1: what do base models share, what is particular to one?

All of it rests on base-free effects (cells.free_effects), averaged over recipes and sizes: one number per base x
dataset x benchmark.
"""

from collections.abc import Callable
from dataclasses import dataclass
from itertools import combinations
from typing import Any

import numpy as np
import polars as pl
from numpy.typing import ArrayLike, NDArray

from sft_atlas.analysis import tables
from sft_atlas.analysis.cells import MEASURE, final_gains, known, over_seeds, row_codes
from sft_atlas.analysis.intervals import FISHER, PLAIN, SHARE, Jackknife, Scale, ways
from sft_atlas.analysis.statistics import (
    Array,
    Interval,
    Labels,
    codes,
    components,
    disattenuated,
    ranks,
    reliability,
    spearman,
    within,
)

Flags = NDArray[np.bool_]
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


def agreement(data: Cube, intervals: Jackknife) -> pl.DataFrame:
    """Table `agreement`: do two bases profit from the same datasets, per benchmark and over all?

    Intervals of means over pairs leave out bases and datasets, on Fisher's scale.
    """
    if len(data.bases) < 2:
        return tables.empty("agreement")
    rows: list[Row] = []
    scaled = data.scaled()
    views: list[tuple[Row, Array]] = [(dict.fromkeys(MEASURE), scaled)]
    views += [(dict(zip(MEASURE, m, strict=True)), data.effect[:, :, k : k + 1]) for k, m in enumerate(data.measures)]
    for key, cells in views:
        values = np.asarray(cells).reshape(len(data.bases), -1)
        pairs = correlations_of_rows(values)
        if not np.isfinite(pairs).any():
            continue
        rho = correlations_of_rows(ranks(values)) if np.isfinite(values).all() else None
        for i, j in combinations(range(len(data.bases)), 2):
            both = np.isfinite(values[i]) & np.isfinite(values[j])
            if np.isfinite(pairs[i, j]):
                names = {"base": data.bases[i], "other": data.bases[j]}
                ranked = spearman(values[i][both], values[j][both]) if rho is None else rho[i, j]
                found = {"coefficient": known(pairs[i, j]), "spearman": known(ranked)}
                rows.append(key | names | found | {"n_cells": int(both.sum()), "n_bases": 2})
        mean = _over_pairs(cells, _mean_pair, intervals, FISHER)
        count = int(np.isfinite(values).any(axis=1).sum())
        rows.append(key | _columns(mean) | {"n_cells": int(np.isfinite(values).sum()), "n_bases": count})
    return tables.build("agreement", rows)


def correlations_of_rows(values: Array) -> Array:
    """Pearson's correlation of each pair of rows over the columns both have; NaN on and below the diagonal.

    Pairs with fewer than MIN_DATASETS columns in common, or without variance there, are NaN.
    """
    there = np.isfinite(values).astype(float)
    with np.errstate(invalid="ignore", divide="ignore"):
        mean = np.where(there > 0, values, 0.0).sum(axis=1, keepdims=True) / there.sum(axis=1, keepdims=True)
        x = np.where(there > 0, values - mean, 0.0)
        n, sums, squares = there @ there.T, x @ there.T, x**2 @ there.T
        spread = squares - sums**2 / n
        # rounding leaves a little of what does not vary
        spread = np.where(spread > 1e-12 * squares, spread, np.nan)
        found = (x @ x.T - sums * sums.T / n) / np.sqrt(spread * spread.T)
    found[(n < MIN_DATASETS) | ~np.triu(np.ones_like(n, dtype=bool), 1)] = np.nan
    return np.clip(found, -1, 1)


def _mean_pair(pairs: Array, bases: Labels) -> float:
    return float(pairs[np.isfinite(pairs)].mean()) if np.isfinite(pairs).any() else float("nan")


def _over_pairs(
    cells: Array, statistic: Callable[[Array, Labels], float], intervals: Jackknife, scale: Scale = PLAIN
) -> Interval:
    """A statistic of the correlations between bases, from effects of shape (bases, datasets, measures).

    `statistic` gets the correlations of pairs and which bases they are of. Left out are bases and datasets; what both
    do to it is added.
    """
    bases = np.flatnonzero(np.isfinite(cells).any(axis=(1, 2))).tolist()
    datasets = np.flatnonzero(np.isfinite(cells).any(axis=(0, 2))).tolist()
    whole = correlations_of_rows(cells.reshape(len(cells), -1))

    place = np.arange(len(cells))
    fewer = [np.delete(place, base) for base in bases]
    less = [np.delete(cells, dataset, axis=1).reshape(len(cells), -1) for dataset in datasets]
    left_out = [
        scale.to(np.array([statistic(whole[np.ix_(kept, kept)], kept) for kept in fewer])),
        scale.to(np.array([statistic(correlations_of_rows(left), place) for left in less])),
    ]
    return intervals.ends(statistic(whole, place), left_out, scale)


def _columns(interval: Interval) -> Row:
    """Columns of a correlation with interval."""
    ends = {"ci_low": known(interval.low), "ci_high": known(interval.high)}
    return {"coefficient": known(interval.estimate)} | ends


def similarity(data: Cube, labels: dict[str, Any], intervals: Jackknife, permutations: int, seed: int) -> pl.DataFrame:
    """Table `similarity`: how alike are the effects of two bases, and is it family or language that makes them so?

    The difference between pairs inside and across a label is tested by permuting the labels of bases (Mantel 1967);
    intervals leave out bases and datasets.
    """
    if len(data.bases) < 2:
        return tables.empty("similarity")
    scaled = data.scaled()
    values = scaled.reshape(len(data.bases), -1)
    pairs = correlations_of_rows(values)
    about = {base: labels.get("bases", {}).get(base) or {} for base in data.bases}
    same = {label: _same(about, label) for label in ("family", "language")}
    rows: list[Row] = []
    for i, j in combinations(range(len(data.bases)), 2):
        if np.isfinite(pairs[i, j]):
            names = {"scope": "pair", "base": data.bases[i], "other": data.bases[j]}
            flags = {f"same_{label}": bool(flag[i, j]) for label, flag in same.items()}
            n = int((np.isfinite(values[i]) & np.isfinite(values[j])).sum())
            rows.append(names | flags | {"coefficient": known(pairs[i, j]), "n_pairs": 1, "n_cells": n})
    for label, flag in same.items():
        upper = np.isfinite(pairs)
        if not (flag & upper).any() or not (~flag & upper).any():
            continue
        for scope, chosen in ((f"same {label}", flag), (f"other {label}", ~flag)):
            mean = _over_pairs(scaled, _mean_of(chosen), intervals, FISHER)
            rows.append({"scope": scope, **_columns(mean), "n_pairs": int((chosen & upper).sum())})
        found = _over_pairs(scaled, _difference_by(flag), intervals)
        # widened for few bases, an interval may reach beyond what a difference of correlations can be
        found = Interval(found.estimate, *np.clip([found.low, found.high], -2.0, 2.0).tolist())
        p = _permuted(pairs, flag, permutations, seed)
        rows.append({"scope": f"difference by {label}", **_columns(found), "p": p, "n_pairs": int(upper.sum())})
    return tables.build("similarity", rows)


def _same(about: dict[str, Any], label: str) -> Flags:
    """Which two bases share a label, shape (bases, bases)."""
    names = [entry.get(label) for entry in about.values()]
    return np.array([[a is not None and a == b for b in names] for a in names], dtype=bool).reshape((len(names),) * 2)


def _mean_of(chosen: Flags) -> Callable[[Array, Labels], float]:
    """Mean correlation over chosen pairs."""

    def statistic(pairs: Array, bases: Labels) -> float:
        use = np.isfinite(pairs) & chosen[np.ix_(bases, bases)]
        return float(pairs[use].mean()) if use.any() else float("nan")

    return statistic


def _difference_by(same: Flags) -> Callable[[Array, Labels], float]:
    """Mean correlation of pairs with equal labels minus that of the others."""
    inside, across = _mean_of(same), _mean_of(~same)
    return lambda pairs, bases: inside(pairs, bases) - across(pairs, bases)


def _permuted(pairs: Array, same: Flags, permutations: int, seed: int) -> float:
    """Two-sided p of the difference by a label, when the labels of bases are permuted."""
    rng, place = np.random.default_rng(seed), np.arange(len(pairs))
    observed = _difference_by(same)(pairs, place)
    # the labels move as a whole, so each permutation keeps how many bases share one
    orders = (rng.permutation(len(pairs)) for _ in range(min(permutations, 2000)))
    moved = np.array([_difference_by(same[np.ix_(order, order)])(pairs, place) for order in orders])
    return float((1 + np.sum(np.abs(moved) >= abs(observed) - 1e-12)) / (1 + len(moved)))


LAYOUTS = {
    "all, scaled": (True, True),
    "all, as they are": (True, False),
    "one number of shots, scaled": (False, True),
    "one number of shots, as they are": (False, False),
}
"""How benchmarks enter components: every number of shots or the fewest alone; scaled to equal variance or not."""
SHUFFLES = 100
"""Draws behind the chance level of components."""


def pca(data: Cube, intervals: Jackknife, seed: int = 0) -> pl.DataFrame:
    """Table `pca`: how many patterns the effects consist of, in each of LAYOUTS.

    Scope `benchmarks`: rows are base x dataset, columns benchmarks. Scope `bases`: rows are dataset x benchmark,
    columns bases. Columns known for less than nine tenths of the rows are left out, then rows with gaps. Intervals of
    the cumulative share leave out bases and datasets. `chance` is the mean share when each column is shuffled by
    itself: what as many unrelated columns and rows give. Loadings are those of the first layout.
    """
    if len(data.bases) < 2:
        return tables.empty("pca")
    fewest = {m: min(o[1] for o in data.measures if o[0] == m[0] and o[2] == m[2]) for m in data.measures}
    rows: list[Row] = []
    for layout, (every, scale) in LAYOUTS.items():
        chosen = [k for k, m in enumerate(data.measures) if every or m[1] == fewest[m]]
        if not every and len(chosen) == len(data.measures):
            continue
        cells = (data.scaled() if scale else data.effect)[:, :, chosen]
        names = [data.measures[k] for k in chosen]
        base, dataset = np.indices(cells.shape[:2]).reshape(2, -1)
        rows += _components(
            "benchmarks", layout, cells.reshape(-1, len(chosen)), names, (base, dataset), intervals, seed
        )
        flat = cells.reshape(len(data.bases), -1).T
        of = (np.repeat(np.arange(len(data.datasets)), len(chosen)),)
        rows += _components("bases", layout, flat, data.bases, of, intervals, seed)
    return tables.build("pca", rows)


def _components(
    scope: str,
    layout: str,
    values: Array,
    names: list[Any],
    factors: tuple[Labels, ...],
    intervals: Jackknife,
    seed: int,
) -> list[Row]:
    """Rows of one layout: each component, and in the first layout what it loads on."""
    there = np.isfinite(values)
    keep = there.sum(axis=0) >= 0.9 * max(1, there.any(axis=1).sum())
    if keep.sum() < 2:
        return []
    values, names = values[:, keep], [name for name, kept in zip(names, keep, strict=True) if kept]
    complete = np.isfinite(values).all(axis=1)
    values, factors = values[complete], tuple(label[complete] for label in factors)
    if len(values) < 3:
        return []
    if "scaled" in layout:
        spread = values.std(axis=0)
        values = values / np.where(spread > 0, spread, 1.0)
    share, loadings, _ = components(values)
    total = np.cumsum(share)
    left_out = [_shares_without(values, label, len(share)) for label in ways(*factors)]
    rng = np.random.default_rng(seed)
    chance = np.mean([np.cumsum(shares_of(rng.permuted(values, axis=0))) for _ in range(SHUFFLES)], axis=0)
    rows: list[Row] = []
    for k in range(len(share)):
        interval = intervals.ends(float(total[k]), [SHARE.to(part[:, k]) for part in left_out], SHARE)
        about = {"scope": scope, "layout": layout, "component": k + 1, "share": known(share[k])}
        about |= {"n_rows": len(values), "n_columns": len(names)}
        span = {"ci_low": known(interval.low), "ci_high": known(interval.high)} if total[k] < 1 - 1e-9 else {}
        rows.append(about | {"cumulative": known(min(1.0, total[k])), "chance": known(min(1.0, chance[k]))} | span)
        for name, loading in zip(names, loadings[k], strict=True) if layout == next(iter(LAYOUTS)) else ():
            whose = {"base": name} if scope == "bases" else dict(zip(MEASURE, name, strict=True))
            rows.append(about | whose | {"loading": float(loading)})
    return rows


def shares_of(values: Array) -> Array:
    """Shares of variance of the principal components of rows x columns, greatest first."""
    centred = values - values.mean(axis=0)
    found = np.linalg.eigvalsh(centred.T @ centred)[::-1].clip(0)
    with np.errstate(invalid="ignore", divide="ignore"):
        return np.asarray(found / found.sum())


def _shares_without(values: Array, label: Labels, count: int) -> Array:
    """Cumulative shares without each cluster, shape (clusters, count); NaN where too few rows are left."""
    found = np.full((int(label.max(initial=0)) + 1, count), np.nan)
    for c in range(len(found)):
        left = values[label != c]
        if len(left) > 2:
            found[c] = np.cumsum(shares_of(left))[:count]
    return found


def benchmarks(effects: pl.DataFrame, gains: pl.DataFrame, intervals: Jackknife) -> pl.DataFrame:
    """Table `benchmarks`: do two benchmarks profit from the same data? Effects of runs, pair by pair.

    Both are also corrected for what their limited items blur (statistics.disattenuated). All models answer the same
    items, so what these have in common is no noise of an effect: where gains are known, its variance is taken from
    their paired standard error, stderr^2 (D - 1) / 2D for D datasets, as if each model, the base too, had noise of its
    own of equal size. Clusters are bases and datasets.
    """
    key = ["base", "sample", "recipe"]
    paired = over_seeds(final_gains(gains)).select(*key, *MEASURE, pl.col("stderr").alias("paired"))
    runs = effects.join(paired, on=[*key, *MEASURE], how="left").sort(*key, *MEASURE)
    datasets = pl.col("dataset").n_unique().over("base", "recipe", "size", *MEASURE)
    own = pl.col("paired") * ((datasets - 1) / (2 * datasets)).sqrt()
    runs = runs.with_columns(stderr=pl.coalesce(own, "stderr"))
    parts = {
        measure: part.select(*key, "dataset", "effect", "stderr")
        for measure, part in runs.group_by(MEASURE, maintain_order=True)
    }
    rows: list[Row] = []
    for first, second in combinations(sorted(parts), 2):
        both = parts[first].join(parts[second], on=key, suffix="_other").sort(key)
        if both.height < MIN_DATASETS:
            continue
        x, y = both["effect"].to_numpy(), both["effect_other"].to_numpy()
        interval = intervals.correlation(x, y, row_codes(both, ["base"]), row_codes(both, ["dataset"]), rank=False)
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


def variance(gains: pl.DataFrame, intervals: Jackknife) -> pl.DataFrame:
    """Table `variance`: what share of the variance of gains goes with the base, the dataset, and neither.

    Per benchmark, on cells base x dataset (means over recipes and sizes). A factor's share is what it adds to the
    other: R^2(base + dataset) - R^2(other), by least squares on indicators; `shared` is what both explain alike.
    Intervals leave out bases and datasets and stay within 0..1.
    """
    runs = over_seeds(final_gains(gains))
    cells = (
        runs.filter(pl.col("dataset") != pl.col("sample"))
        .group_by("base", "dataset", *MEASURE)
        .agg(pl.col("gain").mean())
    )
    rows: list[Row] = []
    for measure, part in cells.sort("base", "dataset").group_by(MEASURE, maintain_order=True):
        base, dataset, gain = row_codes(part, ["base"]), row_codes(part, ["dataset"]), part["gain"].to_numpy()
        shares = variance_shares(gain, base, dataset)
        if shares is None or part["base"].n_unique() < 3 or part["dataset"].n_unique() < 3:
            continue
        folds = [_without(gain, base, dataset, label) for label in ways(base, dataset)]
        for k, (factor, share) in enumerate(shares.items()):
            interval = intervals.ends(share, [SHARE.to(fold[:, k]) for fold in folds], SHARE)
            counts = {"n_bases": part["base"].n_unique(), "n_datasets": part["dataset"].n_unique()}
            rows.append(
                {
                    **dict(zip(MEASURE, measure, strict=True)),
                    **{"factor": factor, "share": float(share)},
                    **{"ci_low": known(interval.low), "ci_high": known(interval.high)},
                    **counts | {"n_cells": part.height},
                }
            )
    return tables.build("variance", rows)


def _without(gain: Array, base: Labels, dataset: Labels, label: Labels) -> Array:
    """Shares of variance without each cluster, shape (clusters, factors)."""
    found = np.full((int(label.max()) + 1, 4), np.nan)
    for c in range(len(found)):
        left = label != c
        shares = variance_shares(gain[left], base[left], dataset[left])
        found[c] = np.nan if shares is None else list(shares.values())
    return found


def variance_shares(y: Array, base: ArrayLike, dataset: ArrayLike) -> dict[str, float] | None:
    """Shares of the variance of y: base, dataset, rest, shared (either explains it); None where y does not vary.

    In an unbalanced table what both explain can be negative, where one hides the other: then it is 0, and the sum of
    all is above 1.
    """
    total = float(((y - y.mean()) ** 2).sum())
    if total <= 0:
        return None
    one = float((within(y, base) ** 2).sum())
    other = float((within(y, dataset) ** 2).sum())
    # on indicators of both: normal equations, since there are few levels and many calls
    b, d = codes(base), codes(dataset) + int(codes(base).max()) + 1
    size = int(d.max()) + 1
    both = np.bincount(np.concatenate([b * size + d, d * size + b, b * size + b, d * size + d]), minlength=size**2)
    sums = np.bincount(b, weights=y, minlength=size) + np.bincount(d, weights=y, minlength=size)
    fit = np.linalg.lstsq(both.reshape(size, size).astype(float), sums, rcond=None)[0]
    rest = float(((y - fit[b] - fit[d]) ** 2).sum())
    shares = {"base": (other - rest) / total, "dataset": (one - rest) / total, "rest": rest / total}
    # rounding leaves a share of nothing a little below 0
    shares = {name: min(1.0, max(0.0, value)) for name, value in shares.items()}
    return shares | {"shared": max(0.0, 1 - sum(shares.values()))}
