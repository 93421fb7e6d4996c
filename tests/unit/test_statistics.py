"""The shared statistics against SciPy, by enumeration, and by simulation."""

from itertools import permutations

import numpy as np
import pytest
from scipy import stats

from sft_atlas.analysis.statistics import (
    Bootstrap,
    benjamini_hochberg,
    codes,
    pearson,
    permutation_p,
    ranks,
    spearman,
    within,
)

EXACT = 1e-9


def _tied(n: int, seed: int) -> tuple[np.ndarray, np.ndarray]:
    rng = np.random.default_rng(seed)
    x = rng.normal(size=n).round(1)
    return x, (x + rng.normal(size=n)).round(1)


@pytest.mark.parametrize("n", [3, 10, 200])
def test_correlations_equal_scipy(n: int) -> None:
    x, y = _tied(n, n)
    assert pearson(x, y) == pytest.approx(stats.pearsonr(x, y).statistic, abs=EXACT)
    assert spearman(x, y) == pytest.approx(stats.spearmanr(x, y).statistic, abs=EXACT)


def test_ranks_equal_scipy_along_the_last_axis() -> None:
    values = np.random.default_rng(0).integers(0, 5, (7, 30))
    np.testing.assert_allclose(ranks(values), stats.rankdata(values, axis=-1), atol=EXACT)


def test_stratified_correlation_is_the_partial_one_given_indicators() -> None:
    x, y = _tied(60, 1)
    strata = np.random.default_rng(2).integers(0, 7, 60)
    indicators = np.eye(7)[strata]

    def residual(v: np.ndarray) -> np.ndarray:
        return v - indicators @ np.linalg.lstsq(indicators, v, rcond=None)[0]

    assert pearson(x, y, strata) == pytest.approx(stats.pearsonr(residual(x), residual(y)).statistic, abs=EXACT)
    by_stratum = [np.flatnonzero(strata == k) for k in range(7)]
    ranked = [np.concatenate([stats.rankdata(v[i]) - (len(i) + 1) / 2 for i in by_stratum]) for v in (x, y)]
    assert spearman(x, y, strata) == pytest.approx(stats.pearsonr(*ranked).statistic, abs=EXACT)


def test_strata_take_out_what_differs_between_them() -> None:
    """Simpson's paradox: rising over all, falling inside each stratum."""
    strata = np.repeat([0, 1, 2], 5)
    x = np.tile(np.arange(5.0), 3) + 10 * strata
    y = -np.tile(np.arange(5.0), 3) + 10 * strata
    assert spearman(x, y) > 0.7
    assert spearman(x, y, strata) == pytest.approx(-1)


@pytest.mark.parametrize(
    ("x", "y"),
    [
        ([], []),
        ([1, 2], [1, 2]),
        ([1, 1, 1, 1], [1, 2, 3, 4]),
        ([0.1] * 5, [1, 2, 3, 4, 5]),
        ([1, 2, np.nan], [1, 2, 3]),
    ],
)
def test_undefined_is_nan(x: list, y: list) -> None:
    assert np.isnan(pearson(x, y))
    assert np.isnan(spearman(x, y))


def test_strata_of_one_or_two_members_leave_nothing_to_correlate() -> None:
    assert np.isnan(spearman([1, 2, 3], [3, 1, 2], ["a", "b", "c"]))
    assert np.isnan(spearman([1, 2, 3], [3, 1, 2], ["a", "a", "b"]))


def test_pairs_with_nan_are_left_out() -> None:
    x, y = _tied(40, 3)
    x[5], y[9] = np.nan, np.nan
    keep = np.isfinite(x) & np.isfinite(y)
    assert spearman(x, y) == pytest.approx(stats.spearmanr(x[keep], y[keep]).statistic, abs=EXACT)


def test_benjamini_hochberg_equals_scipy_and_skips_nan() -> None:
    p = np.random.default_rng(4).random(50) ** 3
    np.testing.assert_allclose(benjamini_hochberg(p), stats.false_discovery_control(p), atol=EXACT)
    with_nan = np.insert(p, 7, np.nan)
    np.testing.assert_allclose(np.delete(benjamini_hochberg(with_nan), 7), stats.false_discovery_control(p), atol=EXACT)
    assert np.isnan(benjamini_hochberg(with_nan)[7])
    assert len(benjamini_hochberg([])) == 0


def test_interval_of_a_mean_is_scipys_percentile_interval_widened() -> None:
    values = np.random.default_rng(5).normal(size=40)
    ours = Bootstrap(40_000, 1).mean(values, np.arange(40))
    theirs = stats.bootstrap((values,), np.mean, n_resamples=40_000, method="percentile", rng=1).confidence_interval
    wider = np.sqrt(40 / 39) * stats.t.ppf(0.975, 39) / stats.norm.ppf(0.975)
    assert ours.estimate == pytest.approx(values.mean(), abs=EXACT)
    assert ours.low == pytest.approx(values.mean() + wider * (theirs.low - values.mean()), abs=0.01)
    assert ours.high == pytest.approx(values.mean() + wider * (theirs.high - values.mean()), abs=0.01)


def test_bca_interval_of_a_correlation_is_near_scipys() -> None:
    x, y = _tied(300, 6)
    ours = Bootstrap(20_000, 1).correlation(x, y, np.arange(300), rank=False)
    theirs = stats.bootstrap(
        (x, y), lambda a, b: stats.pearsonr(a, b)[0], n_resamples=2_000, paired=True, vectorized=False, rng=1
    ).confidence_interval
    assert ours.estimate == pytest.approx(stats.pearsonr(x, y).statistic, abs=EXACT)
    assert (ours.low, ours.high) == pytest.approx((theirs.low, theirs.high), abs=0.02)


def test_clusters_are_drawn_whole() -> None:
    """Repeating every observation of a cluster adds no evidence: the interval stays the same."""
    values, clusters = np.random.default_rng(7).normal(size=20), np.arange(20)
    once = Bootstrap(500, 1).mean(values, clusters)
    often = Bootstrap(500, 1).mean(np.repeat(values, 9), np.repeat(clusters, 9))
    assert (often.low, often.high) == pytest.approx((once.low, once.high), abs=EXACT)


def test_intervals_are_deterministic_and_need_three_clusters() -> None:
    values = np.arange(6.0)
    assert Bootstrap(500, 3).mean(values, values) == Bootstrap(500, 3).mean(values, values)
    few = Bootstrap(500, 3).mean(values, [0, 0, 0, 1, 1, 1])
    assert few.estimate == 2.5
    assert np.isnan([few.low, few.high]).all()
    assert np.isnan(Bootstrap(500).mean([], []).estimate)
    perfect = Bootstrap(500).correlation([1, 2, 3, 4, 5], [2, 4, 6, 8, 9], np.arange(5))
    assert perfect.estimate == pytest.approx(1)
    assert np.isnan([perfect.low, perfect.high]).all()


@pytest.mark.parametrize(("bases", "datasets", "strength"), [(4, 6, 0.0), (4, 6, 0.6), (12, 10, 0.6)])
def test_intervals_of_stratified_correlations_cover(bases: int, datasets: int, strength: float) -> None:
    rng = np.random.default_rng(8)
    strata = np.repeat(np.arange(datasets), bases)

    def draw() -> tuple[np.ndarray, np.ndarray]:
        x = rng.normal(size=bases * datasets)
        return x, strength * x + np.sqrt(1 - strength**2) * rng.normal(size=len(x))

    truth = np.mean([spearman(*draw(), strata) for _ in range(1000)])
    found = [Bootstrap(400, i).correlation(*draw(), np.arange(len(strata)), strata) for i in range(200)]
    assert np.mean([f.low <= truth <= f.high for f in found]) == pytest.approx(0.95, abs=0.04)


@pytest.mark.parametrize("clusters", [4, 30])
def test_intervals_of_means_cover(clusters: int) -> None:
    rng = np.random.default_rng(9)
    found = [Bootstrap(400, i).mean(rng.normal(size=clusters), np.arange(clusters)) for i in range(300)]
    assert np.mean([f.low <= 0 <= f.high for f in found]) == pytest.approx(0.95, abs=0.03)


def test_paired_difference_recovers_a_shift() -> None:
    rng = np.random.default_rng(10)
    first = rng.normal(0, 5, 60)
    found = Bootstrap(1000, 1).paired_difference(
        first, first + 0.3 + rng.normal(0, 0.1, 60), np.repeat(np.arange(20), 3)
    )
    assert found.low < 0.3 < found.high
    assert found.high - found.low < 0.1


def test_permutation_p_equals_full_enumeration() -> None:
    x, y = _tied(6, 11)
    observed = abs(stats.spearmanr(x, y).statistic)
    exact = np.mean([abs(stats.spearmanr(x[list(p)], y).statistic) >= observed - 1e-12 for p in permutations(range(6))])
    unit, zero = np.arange(6), np.zeros(6, dtype=int)
    assert permutation_p(y, x[:, None], unit, zero, zero, zero, 20_000, 0) == pytest.approx(exact, abs=0.015)


def test_permutation_p_is_uniform_under_the_null_within_strata() -> None:
    rng = np.random.default_rng(12)
    strata = np.repeat(np.arange(6), 4)
    unit, zero = np.arange(24), np.zeros(24, dtype=int)
    shift = 3 * np.arange(6)[strata]
    p = [
        permutation_p(
            rng.normal(size=24) + shift, (rng.normal(size=24) + shift)[:, None], unit, zero, strata, strata, 200, i
        )
        for i in range(400)
    ]
    assert np.mean(np.array(p) <= 0.05) == pytest.approx(0.05, abs=0.03)
    assert 0.45 < np.mean(p) < 0.6  # above 0.5, since ties of a discrete statistic count as extreme


def test_permutation_moves_units_with_all_their_observations() -> None:
    """Four units seen on many benchmarks are still four units: p cannot fall below about 2 / 4!."""
    unit, column = np.repeat(np.arange(4), 50), np.zeros(200, dtype=int)
    y = unit + np.tile(np.linspace(0, 0.1, 50), 4)
    flat = np.zeros(4, dtype=int)
    p = permutation_p(y, np.arange(4.0)[:, None], unit, column, flat, np.zeros(200, dtype=int), 5000, 0)
    assert p == pytest.approx(2 / 24, abs=0.015)
    assert np.isnan(permutation_p(y, np.ones((4, 1)), unit, column, flat, column, 100, 0))


def test_codes_number_rows_and_within_takes_out_means() -> None:
    assert codes(["b", "a", "b"], [1, 1, 2]).tolist() == [1, 0, 2]
    assert within([1.0, 3.0, 5.0, 5.0], ["a", "a", "b", "b"]).tolist() == [-1, 1, 0, 0]
