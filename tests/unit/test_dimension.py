"""Intrinsic dimension on data whose dimension is known, and the estimator against its own likelihood."""

import numpy as np
import pytest
import torch
from scipy import optimize, special

from sft_atlas.stages.likelihoods.dimension import gride, intrinsic_dimension, ratios


def log_ratios(d: float, k: int, n: int, seed: int = 0) -> np.ndarray:
    """Logarithms of exact ratios: mu^-d is distributed as Beta(k, k)."""
    return -np.log(np.random.default_rng(seed).beta(k, k, n)) / d


@pytest.mark.parametrize("k", [1, 2, 4])
@pytest.mark.parametrize("d", [0.7, 3.0, 25.0])
def test_the_estimate_maximises_the_published_likelihood(d: float, k: int) -> None:
    x = log_ratios(d, k, 500)

    def negative(value: float) -> float:
        density = np.log(value) + (k - 1) * np.log(np.expm1(value * x)) - ((2 * k - 1) * value + 1) * x
        return -float(density.sum() - len(x) * special.betaln(k, k))

    found = gride(x, k)
    assert found is not None
    best = optimize.minimize_scalar(negative, bounds=(d / 3, d * 3), method="bounded", options={"xatol": 1e-10})
    assert found[0] == pytest.approx(best.x, rel=1e-6)
    step = 1e-3 * d
    bend = (negative(found[0] + step) - 2 * negative(found[0]) + negative(found[0] - step)) / step**2
    assert found[1] == pytest.approx(bend**-0.5, rel=1e-3)


def test_the_first_neighbours_give_two_nn() -> None:
    x = log_ratios(5.0, 1, 300)
    assert gride(x, 1) == pytest.approx((300 / x.sum(), 300**0.5 / x.sum()), abs=1e-9)


@pytest.mark.parametrize("k", [1, 2, 4])
def test_standard_errors_cover(k: int) -> None:
    found = [gride(log_ratios(6.0, k, 200, seed), k) for seed in range(200)]
    z = np.array([(one[0] - 6.0) / one[1] for one in found if one])
    assert abs(z.mean()) < 0.3
    assert 0.9 < np.std(z) < 1.1


@pytest.mark.parametrize(("d", "tolerance"), [(1, 0.1), (2, 0.12), (5, 0.5), (10, 1.8)])
@pytest.mark.parametrize("k", [1, 2])
def test_flat_clouds_in_a_wider_space_have_their_own_dimension(d: int, tolerance: float, k: int) -> None:
    rng = np.random.default_rng(d)
    flat = rng.normal(size=(2000, d))
    turned = flat @ np.linalg.qr(rng.normal(size=(40, 40)))[0][:d] + 100.0
    found = intrinsic_dimension(torch.tensor(turned), k)
    assert found is not None
    assert found[0] == pytest.approx(d, abs=tolerance)


def test_a_curved_sheet_has_two_dimensions() -> None:
    rng = np.random.default_rng(0)
    angle, height = rng.uniform(4, 14, 3000), rng.uniform(0, 20, 3000)
    roll = np.stack([angle * np.cos(angle), height, angle * np.sin(angle)], axis=1)
    found = intrinsic_dimension(torch.tensor(roll), 2)
    assert found is not None
    assert found[0] == pytest.approx(2, abs=0.1)


def test_distances_are_those_of_brute_force() -> None:
    points = np.random.default_rng(1).normal(size=(50, 7)) * 3 + 1000
    distance = np.sqrt(((points[:, None] - points[None]) ** 2).sum(axis=-1))
    near = np.sort(distance, axis=1)
    np.testing.assert_allclose(ratios(torch.tensor(points), 3), np.log(near[:, 6] / near[:, 3]), rtol=1e-7)


def test_coinciding_points_have_no_ratio() -> None:
    points = torch.rand(30, 5, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
    double = torch.cat([points, points])
    assert intrinsic_dimension(double, 1) is None
    assert intrinsic_dimension(torch.ones(20, 4), 1) is None
    assert intrinsic_dimension(points[:5], 2) is None
