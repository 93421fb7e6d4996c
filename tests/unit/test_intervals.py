"""Intervals that leave out whole clusters: against SciPy, against a plain reference, and by simulation."""

import numpy as np
import polars as pl
import pytest
from scipy import stats

from sft_atlas.analysis.cells import final_gains, over_seeds
from sft_atlas.analysis.effects import effects
from sft_atlas.analysis.intervals import FISHER, LOG, SHARE, SKILL, Jackknife, ratio, variance, ways
from sft_atlas.analysis.statistics import spearman
from tests.unit.synthetic import Study, tables_of

EXACT = 1e-9
INTERVALS = Jackknife()


def test_one_way_is_the_t_interval_of_cluster_means() -> None:
    means = np.random.default_rng(4).normal(size=12)
    low, high = stats.t.interval(0.95, 11, means.mean(), stats.sem(means))
    once = INTERVALS.mean(means, np.arange(12))
    often = INTERVALS.mean(np.repeat(means, 9), np.repeat(np.arange(12), 9))
    for found in (once, often):
        assert (found.low, found.high) == pytest.approx((low, high), abs=EXACT)
        assert found.p == pytest.approx(stats.ttest_1samp(means, 0).pvalue, abs=EXACT)


def two_way(y: np.ndarray, base: np.ndarray, dataset: np.ndarray) -> tuple[float, float]:
    """Cameron, Gelbach and Miller's interval of a mean, by leaving clusters out: nothing of the project's own."""

    def term(label: np.ndarray) -> float:
        names = sorted(set(label.tolist()))
        rest = np.array([y[label != name].mean() for name in names])
        return (len(names) - 1) / len(names) * ((rest - y.mean()) ** 2).sum()

    both = np.array([f"{b} {d}" for b, d in zip(base, dataset, strict=True)])
    v = max(term(base) + term(dataset) - term(both), term(base), term(dataset))
    half = stats.t.ppf(0.975, min(len(set(base)), len(set(dataset))) - 1) * v**0.5
    return y.mean() - half, y.mean() + half


def test_the_matched_effect_has_two_way_clusters() -> None:
    frames = tables_of(Study(mixture=False))
    runs = over_seeds(final_gains(frames["gains"])).filter("matched")
    low, high = two_way(*(runs[name].to_numpy() for name in ("gain", "base", "dataset")))
    found = effects(frames["gains"], INTERVALS).filter(
        pl.col("method").is_null() & pl.col("size").is_null(), scope="matched"
    )
    assert found["gain"].item() == pytest.approx(runs["gain"].mean(), abs=EXACT)
    assert (found["ci_low"].item(), found["ci_high"].item()) == pytest.approx((low, high), abs=EXACT)


def test_a_balanced_mean_has_the_sandwich_of_cameron_gelbach_and_miller() -> None:
    """By sums of deviations, each term times G / (G - 1): the textbook's form, which the jackknife then equals."""
    base, dataset = (a.ravel() for a in np.indices((5, 7)))
    y = np.random.default_rng(0).normal(size=(5, 1)) + np.random.default_rng(1).normal(size=(1, 7))
    y = (y + np.random.default_rng(2).normal(0, 0.2, (5, 7))).ravel()
    deviation, v = y - y.mean(), 0.0
    for label, sign in ((base, 1), (dataset, 1), (np.arange(35), -1)):
        count = len(set(label))
        v += sign * sum(deviation[label == g].sum() ** 2 for g in range(count)) / 35**2 * count / (count - 1)
    half = stats.t.ppf(0.975, 4) * v**0.5
    found = INTERVALS.mean(y, base, dataset)
    assert (found.low, found.high) == pytest.approx((y.mean() - half, y.mean() + half), abs=EXACT)


def test_a_variance_below_its_parts_is_never_taken() -> None:
    """Opposite signs in a checkerboard: both one-way variances vanish, and their sum less the crossing is negative."""
    base, dataset = (a.ravel() for a in np.indices((4, 4)))
    y = np.where((base + dataset) % 2, 1.0, -1.0) + 0.01 * base
    terms = [variance(0.0, [np.array([0.1, -0.1, 0.1])])[0], variance(0.0, [np.zeros(3)])[0]]
    assert terms[0] == pytest.approx(2 / 3 * 0.03) and terms[1] == 0
    found = INTERVALS.mean(y, base, dataset)
    one_way = INTERVALS.mean(y, base)
    assert found.high - found.low >= one_way.high - one_way.low > 0


def test_too_few_clusters_give_no_interval_and_a_single_level_does_not_vary() -> None:
    y = np.arange(6.0)
    assert np.isnan(INTERVALS.mean(y, [0, 0, 0, 1, 1, 1]).low)
    assert np.isnan(INTERVALS.mean(y, np.arange(6), [0, 0, 0, 1, 1, 1]).low)
    assert np.isnan(INTERVALS.mean(y).low)
    assert np.isnan(INTERVALS.mean([], []).estimate)
    alone = INTERVALS.mean(y, np.arange(6), np.zeros(6))
    assert alone == INTERVALS.mean(y, np.arange(6))
    assert len(ways(np.arange(6), np.zeros(6))) == 1 and len(ways(np.arange(6), np.arange(6) % 2)) == 3
    perfect = INTERVALS.correlation([1, 2, 3, 4, 5], [2, 4, 6, 8, 9], np.arange(5))
    assert perfect.estimate == pytest.approx(1) and np.isnan([perfect.low, perfect.high]).all()


@pytest.mark.parametrize("scale", [FISHER, LOG, SHARE, SKILL])
def test_scales_lead_there_and_back(scale) -> None:  # type: ignore[no-untyped-def]
    values = np.array([0.05, 0.4, 0.9])
    np.testing.assert_allclose(scale.back(scale.to(values)), values, atol=EXACT)


def test_ends_stay_where_a_number_can_be() -> None:
    rng = np.random.default_rng(3)
    x = rng.normal(size=30)
    found = INTERVALS.correlation(x, x + rng.normal(0, 0.05, 30), np.repeat(np.arange(5), 6))
    assert -1 <= found.low < found.estimate < found.high <= 1
    totals = np.stack([np.r_[np.ones(9), 0], np.ones(10)], axis=-1)
    share = INTERVALS.interval(totals, ratio, np.arange(10), scale=SHARE)
    assert 0 <= share.low < 0.9 < share.high <= 1


@pytest.mark.parametrize(("bases", "datasets"), [(4, 6), (12, 10)])
@pytest.mark.parametrize("mix", [(1, 0.3, 0.3), (0.3, 1, 0.3), (0.3, 0.3, 1)])
def test_two_way_intervals_of_a_mean_cover(bases: int, datasets: int, mix: tuple[float, float, float]) -> None:
    rng = np.random.default_rng(9)
    base, dataset = (a.ravel() for a in np.indices((bases, datasets)))
    held = 0
    for _ in range(600):
        y = rng.normal(0, mix[0], (bases, 1)) + rng.normal(0, mix[1], (1, datasets))
        found = INTERVALS.mean((y + rng.normal(0, mix[2], (bases, datasets))).ravel(), base, dataset)
        held += found.low <= 0 <= found.high
    assert 0.925 <= held / 600 <= (1.0 if bases < 8 else 0.985)


@pytest.mark.parametrize(("bases", "datasets", "strength"), [(4, 6, 0.0), (4, 6, 0.6), (12, 10, 0.6)])
def test_intervals_of_stratified_correlations_cover(bases: int, datasets: int, strength: float) -> None:
    rng = np.random.default_rng(8)
    strata, unit = np.repeat(np.arange(bases), datasets), np.tile(np.arange(datasets), bases)

    def draw() -> tuple[np.ndarray, np.ndarray]:
        common = rng.normal(size=(2, datasets))
        x = common[0][unit] + rng.normal(0, 0.5, bases * datasets)
        y = strength * common[0][unit] + (1 - strength**2) ** 0.5 * common[1][unit]
        return x, y + rng.normal(0, 0.5, bases * datasets)

    truth = np.mean([spearman(*draw(), strata) for _ in range(1000)])
    found = [INTERVALS.correlation(*draw(), unit, strata=strata) for _ in range(300)]
    assert np.mean([f.low <= truth <= f.high for f in found]) >= 0.91
