"""Intervals whose units are whole clusters, in one way or in two, by leaving each cluster out.

Cells of a study share a base model, or a dataset, or both. Where one of them varies, its levels are the clusters; where
both vary, the variance is that of Cameron, Gelbach and Miller (2011), V(base) + V(dataset) - V(base x dataset), each
term by the cluster jackknife (MacKinnon, Nielsen and Webb 2024, Jackknife inference with two-way clustering):

    V(g) = (G - 1) / G  sum over clusters c of (t without c - t)^2,

which for a mean over equal clusters is the usual variance with the correction G / (G - 1). The sum of three terms may
be small or negative by chance: never less is taken than either single term (their max-se). Ends are t of the fewest
clusters less one degrees of freedom, on a scale where the estimate is nearly normal (Fisher's z, logarithm, arcsine).
A factor with one level does not vary: the interval then speaks of that level alone. Two levels say too little for any.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import ArrayLike
from scipy.special import stdtr, stdtrit

from sft_atlas.analysis.statistics import Array, Interval, Labels, codes, correlation_products, correlation_ratio

Statistic = Callable[[Array], Array]
"""From totals, shape (..., k) or with strata (..., strata, k), to one number each, shape (...)."""
MIN_CLUSTERS = 3
"""Fewer clusters give no interval: it would say more about the draw than about the data."""


@dataclass(frozen=True)
class Scale:
    """Where an estimate is nearly normal: how to get there and back."""

    to: Callable[[Array], Array]
    back: Callable[[Array], Array]


PLAIN = Scale(lambda x: x, lambda x: x)
FISHER = Scale(lambda x: np.arctanh(np.clip(x, -1 + 1e-12, 1 - 1e-12)), np.tanh)
LOG = Scale(np.log, np.exp)
SHARE = Scale(lambda x: np.arcsin(np.sqrt(np.clip(x, 0, 1))), lambda z: np.sin(np.clip(z, 0, np.pi / 2)) ** 2)
"""The arcsine of the root: a share of 0 or 1 has a place on it."""
SKILL = Scale(lambda x: np.log1p(-x), lambda z: -np.expm1(z))
"""Skill is 1 minus a ratio: the scale is the ratio's logarithm, which turns the ends round."""


def ways(*factors: ArrayLike) -> list[Labels]:
    """Codes of the factors that vary, and after two of them those of their crossing."""
    varying = [label for label in map(codes, factors) if label.max(initial=0) > 0]
    return [*varying, codes(*varying)] if len(varying) == 2 else varying


def variance(estimate: float, left_out: Sequence[Array]) -> tuple[float, float]:
    """Variance and degrees of freedom from the values without each cluster: of one way, or of both and their crossing.

    Without the crossing the terms of both ways are added, which is never too little (their two-term variance).
    A value that is undefined without a cluster is left out of the sum. Both NaN below MIN_CLUSTERS in any way.
    """
    terms, counts = [], []
    for values in left_out:
        defined = values[np.isfinite(values)]
        counts.append(len(defined))
        terms.append((len(defined) - 1) / max(1, len(defined)) * float(((defined - estimate) ** 2).sum()))
    single = counts[:2]
    if not single or min(single) < MIN_CLUSTERS or not np.isfinite(estimate):
        return np.nan, np.nan
    total = max(terms[0] + terms[1] - terms[2], terms[0], terms[1]) if len(terms) == 3 else sum(terms)
    return total, float(min(single) - 1)


@dataclass(frozen=True)
class Jackknife:
    """Intervals by leaving clusters out; `factors` are one or two arrays of labels, shape (n,), that cross."""

    confidence: float = 0.95

    def mean(self, values: ArrayLike, *factors: ArrayLike) -> Interval:
        """Mean of values, shape (n,), NaN ones left out."""
        values = np.asarray(values, dtype=float)
        keep = np.isfinite(values)
        totals = np.stack([values[keep], np.ones(int(keep.sum()))], axis=-1)
        return self.interval(totals, ratio, *(np.asarray(factor)[keep] for factor in factors))

    def paired_difference(self, first: ArrayLike, second: ArrayLike, *factors: ArrayLike) -> Interval:
        """Mean of second - first over pairs, each of shape (n,)."""
        return self.mean(np.asarray(second, dtype=float) - np.asarray(first, dtype=float), *factors)

    def correlation(
        self,
        x: ArrayLike,
        y: ArrayLike,
        *factors: ArrayLike,
        strata: ArrayLike | None = None,
        rank: bool = True,
        given: int = 0,
    ) -> Interval:
        """Correlation of x and y within strata, all of shape (n,), on Fisher's scale.

        Ranks and stratum means are taken once. What these means, and `given` other variables that were taken out
        before, cost in degrees of freedom widens the interval. A perfect correlation has no interval: leaving clusters
        out repeats it, however few the pairs.
        """
        products, keep = correlation_products(x, y, strata, rank)
        factors = tuple(np.asarray(factor)[keep] for factor in factors)
        labels = codes(np.zeros(len(keep)) if strata is None else strata)[keep]
        estimate = float(correlation_ratio(products.sum(axis=0)))
        if not abs(estimate) < 1 - 1e-9:
            return Interval(estimate, np.nan, np.nan)
        lost = min((kept_share(labels, codes(factor)) for factor in factors), default=1.0)
        return self.interval(products, correlation_ratio, *factors, scale=FISHER, share=lost, given=given)

    def interval(
        self,
        totals: Array,
        statistic: Statistic,
        *factors: ArrayLike,
        strata: ArrayLike | None = None,
        scale: Scale = PLAIN,
        share: float = 1.0,
        given: int = 0,
    ) -> Interval:
        """Interval of a statistic of totals, shape (n, k), which hold what each observation adds.

        With `strata`, shape (n,), the statistic sees the totals of each stratum. `share` of the clusters' degrees of
        freedom is left after what was estimated before, less `given`.
        """
        if not len(totals):
            return Interval(np.nan, np.nan, np.nan)
        place = None if strata is None else codes(strata)
        whole = _sums(totals, np.zeros(len(totals), dtype=np.int64), place)
        estimate = float(statistic(whole)[0])
        with np.errstate(invalid="ignore", divide="ignore"):
            left_out = [
                scale.to(statistic(whole - part)) for part in (_sums(totals, label, place) for label in ways(*factors))
            ]
        return self.ends(estimate, left_out, scale, share, given)

    def ends(
        self, estimate: float, left_out: Sequence[Array], scale: Scale = PLAIN, share: float = 1.0, given: int = 0
    ) -> Interval:
        """Interval of an estimate from its values on `scale` without each cluster of each way.

        The p is that of 0 on the scale: no difference, no correlation, a ratio of 1.
        """
        with np.errstate(invalid="ignore", divide="ignore"):
            centre = float(scale.to(np.asarray(estimate)))
        spread, freedom = variance(centre, left_out)
        left = (freedom + 1) * share - 1 - given
        if not np.isfinite(spread) or left < 1:
            return Interval(float(estimate), np.nan, np.nan)
        error = float(np.sqrt(spread * freedom / left))
        half = float(stdtrit(left, (1 + self.confidence) / 2)) * error
        low, high = sorted(float(scale.back(np.asarray(end))) for end in (centre - half, centre + half))
        p = float(2 * stdtr(left, -abs(centre) / error)) if error > 0 else np.nan
        return Interval(float(estimate), low, high, p)


def ratio(totals: Array) -> Array:
    """First total over the second; a mean when the second counts."""
    with np.errstate(invalid="ignore", divide="ignore"):
        return totals[..., 0] / totals[..., 1]


def kept_share(strata: Labels, clusters: Labels) -> float:
    """Share of the clusters' degrees of freedom that stratum means leave: strata x clusters less strata, over that.

    Strata that lie within one cluster each take none.
    """
    cells = np.unique(np.stack([strata, clusters]), axis=1)[0]
    members = np.bincount(cells)[np.bincount(cells) > 1]
    return float((members - 1).sum() / members.sum()) if len(members) else 1.0


def _sums(totals: Array, label: Labels, strata: Labels | None) -> Array:
    """Totals by cluster, shape (clusters, k), or by cluster and stratum, shape (clusters, strata, k)."""
    count = int(label.max(initial=0)) + 1
    if strata is None:
        sums = [np.bincount(label, weights=column, minlength=count) for column in totals.T]
        return np.asarray(np.stack(sums, axis=-1), dtype=np.float64)
    width = int(strata.max(initial=0)) + 1
    place = label * width + strata
    sums = [np.bincount(place, weights=column, minlength=count * width) for column in totals.T]
    return np.asarray(np.stack(sums, axis=-1).reshape(count, width, totals.shape[1]), dtype=np.float64)
