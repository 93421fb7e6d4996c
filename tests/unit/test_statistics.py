"""The shared statistics against SciPy, by enumeration, and by simulation. Intervals: test_intervals.py."""

from itertools import permutations

import numpy as np
import pytest
from scipy import stats

from sft_atlas.analysis.statistics import (
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


def test_differences_by_rounding_are_ties() -> None:
    """0.1 + 0.2 is not 0.3 to the last bit; a rank must not see that."""
    values = np.array([0.3, 0.1 + 0.2, 0.1, 0.3 + 1e-9])
    assert ranks(values).tolist() == [2.5, 2.5, 1, 4]
    gains = np.array([0.3, 0.1 + 0.2, 0.5, 0.7])
    assert spearman(gains, [1, 2, 3, 4]) == pytest.approx(stats.spearmanr(gains.round(12), [1, 2, 3, 4]).statistic)
    assert spearman(gains, [1, 2, 3, 4], [0, 0, 0, 0]) == spearman(gains, [1, 2, 3, 4])


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


def test_permutation_p_equals_full_enumeration() -> None:
    x, y = _tied(6, 11)
    observed = abs(stats.spearmanr(x, y).statistic)
    exact = np.mean([abs(stats.spearmanr(x[list(p)], y).statistic) >= observed - 1e-12 for p in permutations(range(6))])
    unit, zero = np.arange(6), np.zeros(6, dtype=int)
    assert permutation_p(y, x[:, None], unit, zero, zero, 20_000, 0) == pytest.approx(exact, abs=0.015)


def test_permutation_p_is_uniform_under_the_null_within_strata() -> None:
    """Six units are known in four strata, which differ in level; whole units trade places."""
    rng = np.random.default_rng(12)
    unit, stratum = np.tile(np.arange(6), 4), np.repeat(np.arange(4), 6)
    p = [
        permutation_p(rng.normal(size=24) + 3 * stratum, rng.normal(size=(6, 4)), unit, stratum, stratum, 200, i)
        for i in range(400)
    ]
    assert np.mean(np.array(p) <= 0.05) == pytest.approx(0.05, abs=0.03)
    assert 0.45 < np.mean(p) < 0.6  # above 0.5, since ties of a discrete statistic count as extreme


def test_permutation_moves_units_with_all_their_observations() -> None:
    """Four units seen on many benchmarks are still four units: p cannot fall below about 2 / 4!."""
    unit, column = np.repeat(np.arange(4), 50), np.zeros(200, dtype=int)
    y = unit + np.tile(np.linspace(0, 0.1, 50), 4)
    p = permutation_p(y, np.arange(4.0)[:, None], unit, column, np.zeros(200, dtype=int), 5000, 0)
    assert p == pytest.approx(2 / 24, abs=0.015)
    assert np.isnan(permutation_p(y, np.ones((4, 1)), unit, column, column, 100, 0))


def test_codes_number_rows_and_within_takes_out_means() -> None:
    assert codes(["b", "a", "b"], [1, 1, 2]).tolist() == [1, 0, 2]
    assert within([1.0, 3.0, 5.0, 5.0], ["a", "a", "b", "b"]).tolist() == [-1, 1, 0, 0]
