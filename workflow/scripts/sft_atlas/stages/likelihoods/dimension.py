"""Intrinsic dimension of a cloud of points from the distances to near neighbours.

Gride (Denti, Doimo, Laio and Mira 2022, The generalized ratios intrinsic dimension estimator, Scientific Reports 12,
20005): where density is even up to neighbour 2k, the ratio mu = r_2k / r_k of a point's distances to its neighbours 2k
and k has, in d dimensions, the density

    f(mu) = d (mu^d - 1)^(k - 1) / (mu^((2k - 1) d + 1) B(k, k)),   mu > 1,

so that mu^-d is distributed as Beta(k, k). Over N points the derivative of the log-likelihood in d is

    l'(d) = N / d + (k - 1) sum log mu / (1 - mu^-d) - (2k - 1) sum log mu,

which falls, so that its only root is the estimate; its standard error is 1 / sqrt(-l''(d)), as if ratios of different
points were independent. With k = 1 this is the maximum-likelihood TwoNN, d = N / sum log mu (Facco et al. 2017).
"""

import numpy as np
import numpy.typing as npt
import torch
from scipy.optimize import brentq

Array = npt.NDArray[np.float64]


def intrinsic_dimension(points: torch.Tensor, k: int = 2) -> tuple[float, float] | None:
    """Dimension and its standard error of points x coordinates; None where too few points have distinct neighbours."""
    return gride(ratios(points, k), k)


def ratios(points: torch.Tensor, k: int) -> Array:
    """log(r_2k / r_k) of every point whose neighbours k and 2k lie at different distances above 0."""
    count = points.shape[0]
    if count < 2 * k + 2:
        return np.zeros(0)
    x = points.double()
    x = x - x.mean(dim=0)
    norms = (x * x).sum(dim=1)
    squared = (norms[:, None] + norms[None] - 2 * x @ x.T).clamp(min=0)
    squared.fill_diagonal_(torch.inf)
    nearest = squared.topk(2 * k, dim=1, largest=False).values.sort(dim=1).values.cpu().numpy()
    near, far = nearest[:, k - 1], nearest[:, 2 * k - 1]
    # below this, distances are what rounding leaves of equal points
    apart = (near > 1e-12 * float(norms.max())) & (far > near)
    return np.asarray(0.5 * np.log(far[apart] / near[apart]), dtype=np.float64)


def gride(log_mu: Array, k: int) -> tuple[float, float] | None:
    """The estimate and its standard error from logarithms of ratios; None for fewer than two."""
    n = len(log_mu)
    if n < 2:
        return None

    def slope(d: float) -> float:
        return float(n / d + (k - 1) * (log_mu / -np.expm1(-d * log_mu)).sum() - (2 * k - 1) * log_mu.sum())

    # each term of the first sum is at most log mu + 1 / d, so that beyond N / sum log mu the derivative is below zero
    high = low = 2 * n / float(log_mu.sum())
    while slope(low) < 0:
        low /= 2
    d = float(brentq(slope, low, high, xtol=1e-12, rtol=1e-14))
    bend = (k - 1) * (log_mu**2 * np.exp(-d * log_mu) / np.expm1(-d * log_mu) ** 2).sum()
    return d, float((n / d**2 + bend) ** -0.5)
