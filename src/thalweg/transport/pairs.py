"""Pairs of distributions whose optimal entropic plan is known, and the numbers by which a plan is judged.

Gushchin, Kolesov, Mokrov, Karpikova, Spiridonov, Burnaev and Korotin (2023), "Building the bridge of Schrodinger: a
continuous entropic optimal transport benchmark" (arXiv 2306.10161), section 3.
"""

from __future__ import annotations

import math

import numpy as np
import torch
from numpy.typing import ArrayLike, NDArray
from torch import Tensor

from thalweg.core import InvalidProblem
from thalweg.core.seeding import generator
from thalweg.core.validation import as_real, check_finite, is_real, is_whole, require
from thalweg.numerics.scaling import balancing
from thalweg.transport.bridge import Bridge

Array = NDArray[np.float64]


def exact_bridge(
    eps: float, means: ArrayLike, covariances: ArrayLike, weights: ArrayLike | None = None
) -> Bridge:
    """The bridge whose plan is ``exp(-|x - y|^2 / (2 eps)) sum_j p_j N(y; mu_j, Sigma_j)``, up to a factor of x.

    Given x it is a mixture: with ``P_j = (I / eps + Sigma_j^-1)^-1``, component j has mean
    ``P_j (x / eps + Sigma_j^-1 mu_j)``, covariance P_j, and a weight
    proportional to ``p_j N(x; mu_j, Sigma_j + eps I)``. For whatever law of x, the plan is optimal to the law of y that
    it makes.

    Args:
        eps: entropy weight, > 0.
        means, covariances: shapes (J, D) and (J, D, D), symmetric positive definite.
        weights: p, shape (J,), positive. Default all alike.

    >>> bridge = exact_bridge(1.0, [[2.0]], [[[1.0]]])
    >>> float(bridge.barycentric([[0.0]])[0, 0])  # half way from 0 to 2
    1.0
    """
    mu, Sigma = (torch.from_numpy(as_real(n, v)) for n, v in (("means", means), ("covariances", covariances)))
    if mu.ndim != 2 or Sigma.shape != (*mu.shape, mu.shape[-1]):
        raise InvalidProblem(
            f"means have shape {tuple(mu.shape)} and covariances {tuple(Sigma.shape)}; expected (J, D), (J, D, D)."
        )
    require(is_real(eps) and 0 < eps < math.inf, "exact_bridge needs eps > 0", got=eps)
    p = torch.ones_like(mu[:, 0]) if weights is None else torch.from_numpy(as_real("weights", weights))
    if p.shape != mu[:, 0].shape or not bool((p > 0).all()):
        raise InvalidProblem(f"weights: expected {len(mu)} positive numbers; got {p.tolist()}.")
    total = Sigma + eps * torch.eye(mu.shape[1], dtype=mu.dtype)
    S = torch.linalg.solve(total, Sigma)  # P / eps
    S = (S + S.mT) / 2
    inverse_mu = torch.linalg.solve(total, mu[:, :, None])[:, :, 0]
    # N(0; mu, Sigma + eps I) is what is left of the weight where x is zero.
    log_a = p.log() - (torch.linalg.slogdet(total)[1] + (mu * inverse_mu).sum(1)) / 2
    return Bridge(eps, log_a, eps * inverse_mu, S)


def eot_pair(D: int, eps: float, J: int = 5, radius: float = 5.0, seed: int = 0) -> Bridge:
    """A benchmark pair: x of N(0, I), and `exact_bridge` of J Gaussians around the origin.

    Their means lie on a sphere, their covariances have random axes and eigenvalues between 0.5 and 1.5. Draw x, then
    ``bridge.sample(x, generator)`` and other x for samples that nothing pairs.

    >>> eot_pair(D=3, eps=1.0).dimensions
    3
    """
    for name, value in (("D", D), ("J", J)):
        require(is_whole(value) and value >= 1, f"eot_pair needs {name} >= 1", got=value)
    drawn = generator(seed, 0x19, D, J)
    mu = drawn.standard_normal((J, D))
    mu *= radius / np.linalg.norm(mu, axis=1, keepdims=True)
    axes = np.linalg.qr(drawn.standard_normal((J, D, D)))[0]
    Sigma = (axes * drawn.uniform(0.5, 1.5, (J, 1, D))) @ axes.transpose(0, 2, 1)
    return exact_bridge(eps, mu, (Sigma + Sigma.transpose(0, 2, 1)) / 2)


def bw2(mean0: Tensor, covariance0: Tensor, mean1: Tensor, covariance1: Tensor) -> Tensor:
    """Half the squared Bures-Wasserstein distance of Gaussians, shapes (..., D) and (..., D, D): ``|m - m'|^2 / 2 +
    tr C / 2 + tr C' / 2 - tr (C^1/2 C' C^1/2)^1/2``.

    >>> one = torch.eye(2)
    >>> float(bw2(torch.zeros(2), one, torch.ones(2), 4 * one))
    2.0
    """
    values, axes = torch.linalg.eigh(covariance0)  # flat Gaussians have no Cholesky factor
    root = axes * values.clamp(min=0).sqrt()[..., None, :]
    cross = torch.linalg.eigvalsh(root.mT @ covariance1 @ root).clamp(min=0).sqrt().sum(-1)
    traces = [C.diagonal(dim1=-2, dim2=-1).sum(-1) for C in (covariance0, covariance1)]
    return ((mean0 - mean1) ** 2).sum(-1) / 2 + (traces[0] + traces[1]) / 2 - cross


def conditional_bw2_uvp(exact: Bridge, found: Bridge, x: ArrayLike | Tensor, variance: float) -> float:
    """cBW2-UVP in per cent: ``bw2`` of the two plans' conditional Gaussians at x, in the mean, over half the total
    variance of y. Both bridges' moments are in closed form; 0 for the same plan, near 100 for a plan that says nothing.

    >>> bridge = eot_pair(2, 1.0)
    >>> round(conditional_bw2_uvp(bridge, bridge, np.zeros((3, 2)), variance=1.0), 6)
    0.0
    """
    require(is_real(variance) and variance > 0, "conditional_bw2_uvp needs variance > 0", got=variance)
    moments = [(b.barycentric(x).cpu(), b.conditional_covariance(x).cpu()) for b in (exact, found)]
    require(len(moments[0][0]) > 0, "conditional_bw2_uvp needs points x, one or more", error=InvalidProblem)
    return float(200 * bw2(*moments[0], *moments[1]).mean().clamp(min=0) / variance)


def bw2_uvp(y: ArrayLike | Tensor, found: ArrayLike | Tensor) -> float:
    """BW2-UVP of a sample in per cent: ``bw2`` of the Gaussians with the two samples' moments, over half the total
    variance of y.
    """
    y, found, _ = _samples(y, found)
    moments = [
        (torch.from_numpy(z.mean(0)), torch.from_numpy(np.atleast_2d(np.cov(z.T)))) for z in (y, found)
    ]
    variance = moments[0][1].trace()
    require(bool(variance > 0), "bw2_uvp is a share of y's variance, and y has none", error=InvalidProblem)
    return float(200 * bw2(*moments[0], *moments[1]).clamp(min=0) / variance)


def energy_distance(x: ArrayLike | Tensor, y: ArrayLike | Tensor) -> float:
    """``mean |x - y| - mean |x - x'| / 2 - mean |y - y'| / 2``, without the zeros of a point to itself.

    About zero, and as often below it, for two samples of one law. Cost: ``O((n + m)^2 D)``.
    """
    from scipy.spatial.distance import cdist, pdist

    x, y, power = _samples(x, y)
    return math.ldexp(float(cdist(x, y).mean() - pdist(x).mean() / 2 - pdist(y).mean() / 2), power)


def sliced_w2(x: ArrayLike | Tensor, y: ArrayLike | Tensor, directions: int = 100, seed: int = 0) -> float:
    """The root of the mean squared W2 of two samples' shadows on random lines; in one dimension, W2 itself."""
    require(is_whole(directions) and directions >= 1, "sliced_w2 needs directions >= 1", got=directions)
    x, y, power = _samples(x, y)
    lines = generator(seed, 0x19).standard_normal((x.shape[1], directions))
    lines = np.ones((1, 1)) if x.shape[1] == 1 else lines / np.linalg.norm(lines, axis=0)
    # Quantile functions are steps: between all their jumps they are constant.
    levels = np.union1d(np.arange(1, len(x) + 1) / len(x), np.arange(1, len(y) + 1) / len(y))
    middle = levels - np.diff(levels, prepend=0.0) / 2
    shadows = [np.sort(z @ lines, 0)[np.minimum((middle * len(z)).astype(int), len(z) - 1)] for z in (x, y)]
    squares = np.diff(levels, prepend=0.0) @ (shadows[0] - shadows[1]) ** 2
    return math.ldexp(math.sqrt(squares.mean()), power)


def _samples(x: ArrayLike | Tensor, y: ArrayLike | Tensor) -> tuple[Array, Array, int]:
    """Both samples divided by a power of two, and the power: no square of theirs overflows or vanishes."""
    first, second = as_real("x", x), as_real("y", y)
    if (
        first.ndim != 2
        or second.ndim != 2
        or first.shape[1] != second.shape[1]
        or min(len(first), len(second)) < 2
    ):
        raise InvalidProblem(
            f"Samples have shapes {first.shape} and {second.shape}; expected (n, D) and (m, D), two rows or more."
        )
    for name, sample in (("x", first), ("y", second)):
        check_finite(name, sample)
    power = balancing(np.concatenate([first, second]))
    return np.ldexp(first, -power), np.ldexp(second, -power), power
