"""The statistics that all analyses share, in vectorised NumPy.

Undefined is NaN, never 0: fewer than three pairs, no variance, too few clusters. A pair with NaN on a side is left out.

Sources: Spearman (1904) for rank correlation; Davison and Hinkley, Bootstrap Methods and their Application (1997),
section 3.8, for clusters drawn whole; Efron (1987) for the BCa interval; Hesterberg (2015), What Teachers Should Know
About the Bootstrap, for widening it with few clusters; Phipson and Smyth (2010) for the p of a permutation test;
Benjamini and Hochberg (1995) for the false discovery rate.
"""

from collections.abc import Callable
from dataclasses import dataclass
from functools import lru_cache

import numpy as np
from numpy.typing import ArrayLike, NDArray
from scipy.special import ndtr, ndtri, stdtrit

Array = NDArray[np.float64]
Labels = NDArray[np.int64]
Statistic = Callable[[Array], Array]
"""From totals, shape (..., k), to one number each, shape (...)."""

MIN_CLUSTERS = 3
"""Fewer clusters give no interval: it would say more about the draw than about the data."""


def codes(*columns: ArrayLike) -> Labels:
    """Number the distinct rows of `columns`, each of shape (n,), from 0; shape (n,)."""
    combined = np.zeros(len(np.asarray(columns[0])), dtype=np.int64)
    for column in columns:
        _, label = np.unique(np.asarray(column), return_inverse=True)
        combined = combined * (int(label.max(initial=0)) + 1) + label
        combined = np.unique(combined, return_inverse=True)[1].astype(np.int64)
    return combined


def ranks(values: ArrayLike) -> Array:
    """Ranks 1..n along the last axis, ties sharing their average rank. Values must not be NaN."""
    values = np.asarray(values)
    order = np.argsort(values, axis=-1, kind="stable")
    ordered = np.take_along_axis(values, order, axis=-1)
    place = np.broadcast_to(np.arange(values.shape[-1]), values.shape)
    starts = np.ones(values.shape, dtype=bool)
    starts[..., 1:] = ordered[..., 1:] != ordered[..., :-1]
    first = np.maximum.accumulate(np.where(starts, place, 0), axis=-1)
    ends = np.roll(starts, -1, axis=-1)
    last = np.minimum.accumulate(np.where(ends, place, values.shape[-1])[..., ::-1], axis=-1)[..., ::-1]
    result = np.empty(values.shape)
    np.put_along_axis(result, order, (first + last) / 2 + 1, axis=-1)
    return result


def within(values: ArrayLike, strata: ArrayLike, rank: bool = False) -> Array:
    """Values, or their ranks within each stratum, minus the stratum's mean; shape (n,). Constant strata become 0."""
    values, strata = np.asarray(values, dtype=float), codes(strata)
    if rank:
        values = ranks(codes(strata, values))
    mean = np.bincount(strata, weights=values) / np.maximum(np.bincount(strata), 1)
    centred = values - mean[strata]
    return np.where(np.abs(centred) <= 1e-12 * np.abs(values).max(initial=0), 0.0, centred)


def pearson(x: ArrayLike, y: ArrayLike, strata: ArrayLike | None = None) -> float:
    """Pearson's correlation of x and y, shape (n,); with strata, of the deviations from each stratum's means.

    r = sum (x - mx)(y - my) / sqrt(sum (x - mx)^2 sum (y - my)^2), with mx, my the means of the pair's stratum. It
    equals the partial correlation given one indicator per stratum.
    """
    return float(_ratio(_products(x, y, strata, rank=False)[0].sum(axis=0)))


def spearman(x: ArrayLike, y: ArrayLike, strata: ArrayLike | None = None) -> float:
    """Spearman's correlation of x and y, shape (n,): Pearson's of average ranks; with strata, of ranks within each."""
    return float(_ratio(_products(x, y, strata, rank=True)[0].sum(axis=0)))


def _products(x: ArrayLike, y: ArrayLike, strata: ArrayLike | None, rank: bool) -> tuple[Array, NDArray[np.bool_]]:
    """Products xy, xx, yy of centred scores, shape (kept, 3), whose totals give r, and which pairs were kept.

    With fewer than two degrees of freedom r would be -1 or 1 whatever x and y are: then the products are NaN.
    """
    x, y = np.asarray(x, dtype=float), np.asarray(y, dtype=float)
    keep = np.isfinite(x) & np.isfinite(y)
    labels = codes(np.zeros(len(x)) if strata is None else strata)[keep]
    x, y = within(x[keep], labels, rank), within(y[keep], labels, rank)
    defined = len(labels) - len(np.unique(labels)) >= 2
    return np.stack([x * y, x * x, y * y], axis=-1) if defined else np.full((len(x), 3), np.nan), keep


def _ratio(totals: Array) -> Array:
    """Correlation from totals of xy, xx, yy; NaN where a side does not vary."""
    with np.errstate(invalid="ignore", divide="ignore"):
        spread = totals[..., 1] * totals[..., 2]
        return np.clip(np.where(spread > 0, totals[..., 0] / np.sqrt(spread), np.nan), -1, 1)


def _mean(totals: Array) -> Array:
    """Mean from totals of value and count."""
    with np.errstate(invalid="ignore", divide="ignore"):
        return totals[..., 0] / totals[..., 1]


def _fisher(statistic: Statistic) -> Statistic:
    """Fisher's z of a correlation; at -1 and 1 the largest finite z that rounding leaves."""
    return lambda totals: np.arctanh(np.clip(statistic(totals), -1 + 1e-12, 1 - 1e-12))


@dataclass(frozen=True)
class Interval:
    """An estimate and the ends of its interval; NaN where undefined."""

    estimate: float
    low: float
    high: float


@dataclass(frozen=True)
class Bootstrap:
    """Intervals by drawing whole clusters with replacement: what a cluster's members share is not counted twice."""

    draws: int = 2000
    seed: int = 0
    confidence: float = 0.95

    def mean(self, values: ArrayLike, clusters: ArrayLike) -> Interval:
        """Mean of values, shape (n,), with its interval."""
        values = np.asarray(values, dtype=float)
        keep = np.isfinite(values)
        totals = np.stack([values[keep], np.ones(int(keep.sum()))], axis=-1)
        return self.interval(totals, _mean, np.asarray(clusters)[keep])

    def paired_difference(self, first: ArrayLike, second: ArrayLike, clusters: ArrayLike) -> Interval:
        """Mean of second - first over pairs, each of shape (n,), with its interval."""
        return self.mean(np.asarray(second, dtype=float) - np.asarray(first, dtype=float), clusters)

    def correlation(
        self, x: ArrayLike, y: ArrayLike, clusters: ArrayLike, strata: ArrayLike | None = None, rank: bool = True
    ) -> Interval:
        """Correlation of x and y within strata, all of shape (n,), with its BCa interval on Fisher's scale.

        Ranks and stratum means are taken once, not in each draw: redrawn strata of few members are mostly ties. What
        these means cost in degrees of freedom widens the interval instead. A perfect correlation has no interval: every
        draw repeats it, however few the pairs.
        """
        products, keep = _products(x, y, strata, rank)
        clusters = codes(clusters)[keep]
        labels = codes(np.zeros(len(keep)) if strata is None else strata)[keep]
        cells = np.unique(np.stack([labels, clusters]), axis=1)[0]
        members = np.bincount(cells)[np.bincount(cells) > 1]
        share = float((members - 1).sum() / members.sum()) if len(members) else 0.0
        freedom = len(np.unique(clusters)) * share - 1
        estimate = float(_ratio(products.sum(axis=0)))
        if not abs(estimate) < 1 - 1e-9:
            return Interval(estimate, np.nan, np.nan)
        z = self.interval(products, _fisher(_ratio), clusters, freedom, bca=True)
        return Interval(estimate, float(np.tanh(z.low)), float(np.tanh(z.high)))

    def weights(self, count: int) -> Array:
        """How often each of `count` clusters is drawn, shape (draws, count); the same for equal counts."""
        return _weights(self.seed, self.draws, count)

    def ends(self, values: Array, estimate: float, count: int, freedom: float | None = None) -> Interval:
        """Percentile interval of drawn values of a statistic of `count` clusters, widened as `interval` does."""
        freedom = count - 1 if freedom is None else freedom
        values = values[np.isfinite(values)]
        if count < MIN_CLUSTERS or freedom < 1 or not np.isfinite(estimate) or len(values) * 2 < self.draws:
            return Interval(float(estimate), np.nan, np.nan)
        tails = np.array([(1 - self.confidence) / 2, (1 + self.confidence) / 2])
        wider = np.sqrt(count / freedom) * stdtrit(freedom, tails[1]) / ndtri(tails[1])
        low, high = estimate + wider * (np.quantile(values, tails) - estimate)
        return Interval(float(estimate), float(low), float(high))

    def interval(
        self,
        totals: Array,
        statistic: Statistic,
        clusters: ArrayLike,
        freedom: float | None = None,
        bca: bool = False,
    ) -> Interval:
        """Interval of a statistic of totals.

        `totals`, shape (n, k), holds what each observation adds; `clusters`, shape (n,), labels observations.
        Percentile interval, or BCa. Draws are spread about the estimate by sqrt(C / f) t(f) / z, with C clusters and f
        degrees of freedom (default C - 1), which makes intervals of few clusters cover. Undefined draws are left out;
        the ends are NaN when more than half are undefined, with fewer than three clusters, or f < 1.
        """
        label = codes(clusters)
        count = int(label.max(initial=-1)) + 1
        freedom = count - 1 if freedom is None else freedom
        estimate = float(statistic(totals.sum(axis=0))) if count else np.nan
        if count < MIN_CLUSTERS or freedom < 1 or not np.isfinite(estimate):
            return Interval(estimate, np.nan, np.nan)
        sums = np.stack([np.bincount(label, weights=column) for column in totals.T], axis=-1)
        values = statistic(self.weights(count) @ sums)
        values = values[np.isfinite(values)]
        if len(values) * 2 < self.draws:
            return Interval(estimate, np.nan, np.nan)
        tails = np.array([(1 - self.confidence) / 2, (1 + self.confidence) / 2])
        wider = np.sqrt(count / freedom) * stdtrit(freedom, tails[1]) / ndtri(tails[1])
        if bca:
            tails = _bca_tails(estimate, values, statistic(sums.sum(axis=0) - sums), tails)
        low, high = estimate + wider * (np.quantile(values, tails) - estimate)
        return Interval(estimate, float(low), float(high))


@lru_cache(maxsize=64)
def _weights(seed: int, draws: int, count: int) -> Array:
    drawn = np.random.default_rng(seed).multinomial(count, np.full(count, 1 / count), size=draws).astype(float)
    drawn.setflags(write=False)
    return drawn


def _bca_tails(estimate: float, values: Array, jackknife: Array, tails: Array) -> Array:
    """Tails of the BCa interval, Efron (1987): Phi(z0 + (z0 + z) / (1 - a (z0 + z)))."""
    below = (np.sum(values < estimate) + np.sum(values <= estimate)) / (2 * len(values))
    bias = ndtri(np.clip(below, 0.5 / len(values), 1 - 0.5 / len(values)))
    jackknife = jackknife[np.isfinite(jackknife)]
    deviation = jackknife.mean() - jackknife if len(jackknife) else jackknife
    scale = 6 * np.sum(deviation**2) ** 1.5
    acceleration = np.sum(deviation**3) / scale if scale > 0 else 0.0
    shifted = bias + ndtri(tails)
    return np.asarray(ndtr(bias + shifted / (1 - acceleration * shifted)))


def permutation_p(
    y: ArrayLike,
    values: Array,
    unit: Labels,
    column: Labels,
    unit_strata: Labels,
    strata: Labels,
    draws: int,
    seed: int,
) -> float:
    """Two-sided p of the rank correlation within strata, when whole units exchange their values within unit strata.

    Observation i has y[i] and x[i] = values[unit[i], column[i]], where `values` has shape (units, columns) and no NaN.
    In each draw units of equal `unit_strata` trade their rows of `values`, so all observations of a unit move together.
    A value's rank is its rank among the observed x of the stratum it comes to. The statistic is T = sum of x ranks
    times centred y ranks, which orders draws as r does when the design is balanced. p = (1 + number of draws with |T|
    at least as large) / (1 + draws), Phipson and Smyth (2010); NaN where r is undefined.
    """
    y = np.asarray(y, dtype=float)
    if not np.isfinite(spearman(values[unit, column], y, strata)):
        return float("nan")
    dense = codes(values.ravel()).reshape(values.shape)
    offset = strata * (int(dense.max()) + 1)
    observed = np.sort(dense[unit, column] + offset)
    moved = dense[:, column] + offset
    rank = (np.searchsorted(observed, moved, "left") + np.searchsorted(observed, moved, "right") + 1) / 2
    member = np.eye(len(values))[unit]
    # gain[v, u]: what unit u adds to T when it holds the values of unit v; a draw looks up one entry per unit.
    gain = (rank * within(y, strata, rank=True)) @ member
    place = np.arange(len(values))
    own = np.argsort(unit_strata, kind="stable")
    rng = np.random.default_rng(seed)
    source = np.empty((draws, len(values)), dtype=np.int64)
    source[:, own] = np.argsort(rng.random((draws, len(values))) + unit_strata, axis=1, kind="stable")
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


def jackknife(estimate: float, left_out: ArrayLike, confidence: float = 0.95) -> Interval:
    """Interval of a statistic from its values with one cluster left out each, Tukey (1958).

    se^2 = (C - 1) / C sum (t_c - mean t)^2, times t of C - 1 degrees of freedom; none with fewer than three clusters.
    """
    values = np.asarray(left_out, dtype=float)
    values = values[np.isfinite(values)]
    if len(values) < MIN_CLUSTERS:
        return Interval(float(estimate), np.nan, np.nan)
    error = np.sqrt((len(values) - 1) / len(values) * ((values - values.mean()) ** 2).sum())
    half = float(stdtrit(len(values) - 1, (1 + confidence) / 2) * error)
    return Interval(float(estimate), float(estimate) - half, float(estimate) + half)


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
    """Adjusted p of a family of tests, shape (n,): q(i) = min over j >= i of p(j) n / j, in order of p.

    NaN stays NaN and does not count as a test.
    """
    p = np.asarray(p, dtype=float)
    adjusted = np.full(len(p), np.nan)
    tested = np.flatnonzero(np.isfinite(p))
    order = tested[np.argsort(p[tested], kind="stable")]
    scaled = p[order] * len(order) / np.arange(1, len(order) + 1)
    adjusted[order] = np.minimum(1, np.minimum.accumulate(scaled[::-1])[::-1])
    return adjusted
