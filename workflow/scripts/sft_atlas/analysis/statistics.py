"""The statistics that all analyses share, in vectorised NumPy; their intervals are made in intervals.py.

Undefined is NaN, never 0: fewer than three pairs, no variance, too few clusters. A pair with NaN on a side is left out.

Sources: Spearman (1904), The proof and measurement of association, for rank correlation and for what measurement error
takes from one; Fisher (1924) for partial correlation; Phipson and Smyth (2010) for the p of a permutation test;
Benjamini and Hochberg (1995) for the false discovery rate; Pearson (1901) for components.
"""

from dataclasses import dataclass
from functools import lru_cache
from typing import Any

import numpy as np
from numpy.typing import ArrayLike, NDArray
from scipy.stats import false_discovery_control, rankdata

Array = NDArray[np.float64]
Labels = NDArray[np.int64]

ALIKE = 1e-12
"""Values that differ by less, relative to the greatest above 1, are ties: rounding tells them apart, not the data."""


def codes(*columns: ArrayLike) -> Labels:
    """Number the distinct rows of `columns`, each of shape (n,), from 0; shape (n,)."""
    combined = np.zeros(len(np.asarray(columns[0])), dtype=np.int64)
    for column in columns:
        label = _dense(np.asarray(column))
        combined = _dense(combined * (int(label.max(initial=0)) + 1) + label)
    return combined


def _dense(column: NDArray[Any]) -> Labels:
    """Number the distinct values of an array by size; small whole numbers without sorting them."""
    whole = column.dtype.kind == "i" and len(column) and column.min() >= 0 and column.max() < 8 * len(column) + 64
    if not whole:
        return np.unique(column, return_inverse=True)[1].astype(np.int64)
    there = np.zeros(int(column.max()) + 1, dtype=np.int64)
    there[column] = 1
    return np.asarray(np.cumsum(there)[column] - 1)


def tied(values: ArrayLike) -> Labels:
    """Number values of any shape by size, from 0, near ones (ALIKE) with one number; NaN is not allowed."""
    values = np.asarray(values, dtype=float)
    order = np.argsort(values, axis=None, kind="stable")
    steps = np.diff(values.ravel()[order], prepend=values.ravel()[order][:1])
    number = np.empty(values.size, dtype=np.int64)
    number[order] = np.cumsum(steps > ALIKE * max(1.0, np.abs(values).max(initial=0)))
    return number.reshape(values.shape)


def ranks(values: ArrayLike) -> Array:
    """Ranks 1..n along the last axis, ties (`tied`) sharing their average rank. Values must not be NaN."""
    return np.asarray(rankdata(tied(values), axis=-1))


def within(values: ArrayLike, strata: ArrayLike, rank: bool = False) -> Array:
    """Values, or their ranks within each stratum, minus the stratum's mean; shape (n,). Constant strata become 0."""
    given, labels = np.asarray(values, dtype=np.float64), codes(strata)
    if rank:
        given = np.asarray(rankdata(codes(labels, tied(given))))
    mean = np.bincount(labels, weights=given) / np.maximum(np.bincount(labels), 1)
    centred = given - mean[labels]
    return np.where(np.abs(centred) <= 1e-12 * np.abs(given).max(initial=0), 0.0, centred)


def pearson(x: ArrayLike, y: ArrayLike, strata: ArrayLike | None = None) -> float:
    """Pearson's correlation of x and y, shape (n,); with strata, of the deviations from each stratum's means.

    r = sum (x - mx)(y - my) / sqrt(sum (x - mx)^2 sum (y - my)^2), with mx, my the means of the pair's stratum. It
    equals the partial correlation given one indicator per stratum.
    """
    return float(correlation_ratio(correlation_products(x, y, strata, rank=False)[0].sum(axis=0)))


def spearman(x: ArrayLike, y: ArrayLike, strata: ArrayLike | None = None) -> float:
    """Spearman's correlation of x and y, shape (n,): Pearson's of average ranks; with strata, of ranks within each."""
    return float(correlation_ratio(correlation_products(x, y, strata, rank=True)[0].sum(axis=0)))


def correlation_products(
    x: ArrayLike, y: ArrayLike, strata: ArrayLike | None, rank: bool
) -> tuple[Array, NDArray[np.bool_]]:
    """Products xy, xx, yy of centred scores, shape (kept, 3), whose totals give r, and which pairs were kept.

    With fewer than two degrees of freedom r would be -1 or 1 whatever x and y are: then the products are NaN.
    """
    x, y = np.asarray(x, dtype=np.float64), np.asarray(y, dtype=np.float64)
    keep = np.isfinite(x) & np.isfinite(y)
    labels = codes(np.zeros(len(x)) if strata is None else strata)[keep]
    x, y = within(x[keep], labels, rank), within(y[keep], labels, rank)
    defined = len(labels) - len(np.unique(labels)) >= 2
    return np.stack([x * y, x * x, y * y], axis=-1) if defined else np.full((len(x), 3), np.nan), keep


def correlation_ratio(totals: Array) -> Array:
    """Correlation from totals of xy, xx, yy, the last axis; NaN where a side does not vary."""
    with np.errstate(invalid="ignore", divide="ignore"):
        spread = totals[..., 1] * totals[..., 2]
        return np.clip(np.where(spread > 0, totals[..., 0] / np.sqrt(spread), np.nan), -1, 1)


@dataclass(frozen=True)
class Interval:
    """An estimate, the ends of its interval, and the two-sided p of no effect; NaN where undefined."""

    estimate: float
    low: float
    high: float
    p: float = float("nan")


@lru_cache(maxsize=64)
def cluster_draws(seed: int, draws: int, count: int) -> Array:
    """How often each of `count` clusters is drawn, shape (draws, count); the same for equal arguments.

    Whole clusters with replacement: Davison and Hinkley, Bootstrap Methods and their Application (1997), section 3.8.
    """
    drawn = np.random.default_rng(seed).multinomial(count, np.full(count, 1 / count), size=draws).astype(float)
    drawn.setflags(write=False)
    return drawn


def permutation_p(
    y: ArrayLike,
    values: Array,
    unit: Labels,
    column: Labels,
    strata: Labels,
    draws: int,
    seed: int,
) -> float:
    """Two-sided p of the rank correlation within strata, when whole units exchange their values.

    Observation i has y[i] and x[i] = values[unit[i], column[i]], where `values` has shape (units, columns) and no NaN.
    In each draw units trade their rows of `values`, so all observations of a unit move together.
    A value's rank is its rank among the observed x of the stratum it comes to. The statistic is T = sum of x ranks
    times centred y ranks, which orders draws as r does when the design is balanced. p = (1 + number of draws with |T|
    at least as large) / (1 + draws), Phipson and Smyth (2010); NaN where r is undefined.
    """
    y = np.asarray(y, dtype=float)
    if not np.isfinite(spearman(values[unit, column], y, strata)):
        return float("nan")
    dense = tied(values)
    offset = strata * (int(dense.max()) + 1)
    observed = np.sort(dense[unit, column] + offset)
    moved = dense[:, column] + offset
    rank = (np.searchsorted(observed, moved, "left") + np.searchsorted(observed, moved, "right") + 1) / 2
    member = np.eye(len(values))[unit]
    # gain[v, u]: what unit u adds to T when it holds the values of unit v; a draw looks up one entry per unit.
    gain = (rank * within(y, strata, rank=True)) @ member
    place = np.arange(len(values))
    source = np.argsort(np.random.default_rng(seed).random((draws, len(values))), axis=1, kind="stable")
    total = abs(gain[place, place].sum())
    extreme = np.sum(np.abs(gain[source, place].sum(axis=1)) >= total - 1e-9 * max(1.0, total))
    return float((1 + extreme) / (1 + draws))


def partial(x: ArrayLike, y: ArrayLike, given: Array, strata: ArrayLike | None = None, rank: bool = True) -> float:
    """Partial correlation of x and y given columns of `given`, shape (n, k): that of what these do not predict.

    With strata, ranks (or values) are taken within each. Fisher (1924).
    """
    rest = residuals(x, y, given, strata, rank)
    return float("nan") if rest is None else pearson(*rest)


def residuals(
    x: ArrayLike, y: ArrayLike, given: Array, strata: ArrayLike | None = None, rank: bool = True
) -> tuple[Array, Array] | None:
    """What the columns of `given` leave of x and y by least squares, within strata; None with too few rows."""
    strata = np.zeros(len(np.asarray(x))) if strata is None else strata
    others = np.stack([within(column, strata, rank) for column in np.asarray(given, dtype=float).T], axis=-1)
    if len(others) - len(np.unique(codes(strata))) - others.shape[1] < 2:
        return None
    first, second = (
        within(v, strata, rank) - others @ np.linalg.lstsq(others, within(v, strata, rank), rcond=None)[0]
        for v in (x, y)
    )
    return first, second


def reliability(values: ArrayLike, stderr: ArrayLike, strata: ArrayLike | None = None) -> float:
    """Share of the variance of `values` (within strata) that is not measurement: 1 - mean(stderr^2) / variance.

    NaN where standard errors are unknown or nothing varies; at least 0.
    """
    values, stderr = np.asarray(values, dtype=float), np.asarray(stderr, dtype=float)
    keep = np.isfinite(values) & np.isfinite(stderr)
    labels = codes(np.zeros(len(values)) if strata is None else strata)[keep]
    freedom = int(keep.sum()) - len(np.unique(labels))
    variance = float((within(values[keep], labels) ** 2).sum()) / freedom if freedom > 0 else 0.0
    return max(0.0, 1 - float((stderr[keep] ** 2).mean()) / variance) if variance > 0 else float("nan")


def disattenuated(r: float, first: float, second: float) -> float:
    """Correlation of what two noisy variables measure: r / sqrt(reliability x reliability), within -1..1.

    Spearman (1904). NaN where a reliability is unknown, or so low that the quotient says nothing (below 0.1).
    """
    if not (first >= 0.1 and second >= 0.1):
        return float("nan")
    return float(np.clip(r / np.sqrt(first * second), -1, 1))


def components(values: Array) -> tuple[Array, Array, Array]:
    """Principal components of rows x columns: shares of variance, loadings (component x column), scores.

    Columns are centred. Signs are fixed: the loading of greatest size is positive. Pearson (1901).
    """
    centred = values - values.mean(axis=0)
    left, singular, right = np.linalg.svd(centred, full_matrices=False)
    total = float((singular**2).sum())
    sign = np.sign(right[np.arange(len(right)), np.abs(right).argmax(axis=1)])
    sign[sign == 0] = 1.0
    share = singular**2 / total if total > 0 else np.full(len(singular), np.nan)
    return share, right * sign[:, None], left * singular * sign


def benjamini_hochberg(p: ArrayLike) -> Array:
    """Adjusted p of a family of tests, shape (n,), by Benjamini and Hochberg (1995); NaN stays and is no test."""
    p = np.asarray(p, dtype=float)
    adjusted = np.full(len(p), np.nan)
    tested = np.isfinite(p)
    if tested.any():
        adjusted[tested] = false_discovery_control(p[tested])
    return adjusted
