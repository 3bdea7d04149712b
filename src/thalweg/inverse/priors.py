"""Priors whose denoiser and whose posterior are known exactly: a Gaussian, and a mixture of equal ones."""

from __future__ import annotations

import math
from dataclasses import dataclass, field

import numpy as np
import torch
from numpy.typing import ArrayLike
from torch import Tensor

from thalweg.core import InvalidProblem
from thalweg.core.validation import as_real, check_finite, is_real, require
from thalweg.inverse.operators.base import Operator
from thalweg.inverse.schedules import Schedule


@dataclass(frozen=True, eq=False)
class GaussianPrior:
    """``eps(x, t)`` of images of the law N(mean, covariance): exact.

    Args:
        mean: shape of an image, (height, width) or (channels, height, width).
        covariance: shape (n, n), symmetric positive semidefinite, n pixels in row order.
        schedule: default `Schedule.linear`.

    Raises:
        InvalidProblem: shapes that do not fit, a covariance that is not symmetric positive semidefinite.

    Cost of an evaluation: two products with an n x n matrix.

    >>> prior = GaussianPrior(np.zeros((1, 2)), np.eye(2))
    >>> prior(torch.ones(1, 1, 1, 2).double(), torch.tensor([0])).round(decimals=4)  # noise_0 x
    tensor([[[[0.0100, 0.0100]]]], dtype=torch.float64)
    """

    mean: ArrayLike
    covariance: ArrayLike
    schedule: Schedule = field(default_factory=Schedule.linear)
    #: Eigenvalues and eigenvectors of the covariance.
    spectrum: tuple[Tensor, Tensor] = field(init=False, compare=False)

    def __post_init__(self) -> None:
        mean, C = (
            as_real("GaussianPrior: mean", self.mean),
            as_real("GaussianPrior: covariance", self.covariance),
        )
        if mean.ndim not in (2, 3) or C.shape != (mean.size, mean.size):
            raise InvalidProblem(
                f"GaussianPrior: the mean has shape {mean.shape} and the covariance {C.shape}; expected an image of n "
                "pixels and (n, n)."
            )
        check_finite("GaussianPrior: mean", mean)
        check_finite("GaussianPrior: covariance", C)
        values, vectors = np.linalg.eigh(C)
        fits = (
            np.allclose(C, C.T, rtol=1e-8, atol=1e-12 * np.abs(C).max()) and values[0] >= -1e-8 * values[-1]
        )
        if not fits:
            raise InvalidProblem("GaussianPrior: the covariance is not symmetric positive semidefinite.")
        object.__setattr__(self, "mean", mean)
        object.__setattr__(self, "covariance", C)
        object.__setattr__(
            self, "spectrum", tuple(map(torch.from_numpy, (np.clip(values, 0, None), vectors)))
        )

    def __call__(self, x: Tensor, t: Tensor) -> Tensor:
        signal, noise = _levels(self.schedule, t, x)
        values, vectors = (part.to(x) for part in self.spectrum)
        away = x.reshape(len(x), -1) - signal * torch.as_tensor(self.mean).to(x).reshape(1, -1)
        return (noise * ((away @ vectors) / (signal**2 * values + noise**2)) @ vectors.T).reshape(x.shape)

    def posterior(self, operator: Operator, y: ArrayLike | Tensor, sigma: float) -> tuple[Tensor, Tensor]:
        """Mean (the shape of an image) and covariance (n, n) given ``y = A x + n`` of one image; sigma > 0."""
        A, right = _matrix(operator, y, sigma)
        C, m = torch.as_tensor(self.covariance), torch.as_tensor(self.mean).reshape(-1)
        S = A @ C @ A.T + sigma**2 * torch.eye(len(A), dtype=A.dtype)
        gain = torch.linalg.solve(S, A @ C).T
        mean = m + gain @ (right - A @ m)
        return mean.reshape(operator.image_shape), C - gain @ A @ C


@dataclass(frozen=True, eq=False)
class MixturePrior:
    """``eps(x, t)`` of images of the law ``sum_k weight_k N(centre_k, deviation^2 I)``: exact.

    With data as centres it is the kernel density of the data: a generative model without training.

    Args:
        centres: shape (components, height, width), or (components, channels, height, width).
        deviation: > 0.
        weights: shape (components,), positive; equal by default.
        schedule: default `Schedule.linear`.

    Raises:
        InvalidProblem: shapes that do not fit. InvalidParameter: deviation <= 0.

    Cost of an evaluation: two products with a matrix of components x pixels.

    >>> prior = MixturePrior([[[1.0]], [[-1.0]]], 0.1)
    >>> prior(torch.zeros(1, 1, 1, 1).double(), torch.tensor([500])).item()
    0.0
    """

    centres: ArrayLike
    deviation: float
    weights: ArrayLike | None = None
    schedule: Schedule = field(default_factory=Schedule.linear)

    def __post_init__(self) -> None:
        found = is_real(self.deviation) and 0 < self.deviation < math.inf
        require(found, "MixturePrior needs deviation > 0", got=self.deviation)
        centres = as_real("MixturePrior: centres", self.centres)
        if centres.ndim not in (3, 4) or not centres.size:
            raise InvalidProblem(
                f"MixturePrior: centres have shape {centres.shape}; expected (components, height, width)."
            )
        check_finite("MixturePrior: centres", centres)
        weights = (
            np.ones(len(centres)) if self.weights is None else as_real("MixturePrior: weights", self.weights)
        )
        if weights.shape != (len(centres),) or not weights.min() > 0:
            raise InvalidProblem(
                f"MixturePrior: weights have shape {weights.shape}; expected ({len(centres)},), all positive."
            )
        object.__setattr__(self, "centres", centres)
        object.__setattr__(self, "weights", weights / weights.sum())

    def __call__(self, x: Tensor, t: Tensor) -> Tensor:
        signal, noise = _levels(self.schedule, t, x)
        centres = torch.as_tensor(self.centres).to(x).flatten(1)
        flat, variance = x.reshape(len(x), -1), (signal * self.deviation) ** 2 + noise**2
        # |x - signal c|^2 without |x|^2, which all components share
        exponent = (2 * signal * flat @ centres.T - signal**2 * centres.square().sum(1)) / (2 * variance)
        shares = (exponent + torch.as_tensor(self.weights).to(x).log()).softmax(1)
        mean = shares @ centres
        return (noise * (flat - signal * mean) / variance).reshape(x.shape)

    def posterior(self, operator: Operator, y: ArrayLike | Tensor, sigma: float) -> tuple[Tensor, Tensor]:
        """Mean (the shape of an image) and each component's weight, given ``y = A x + n`` of one image; sigma > 0."""
        A, right = _matrix(operator, y, sigma)
        centres = torch.as_tensor(self.centres).flatten(1)
        S = self.deviation**2 * A @ A.T + sigma**2 * torch.eye(len(A), dtype=A.dtype)
        root = torch.linalg.cholesky(S)
        gap = right[:, None] - A @ centres.T
        white = torch.linalg.solve_triangular(root, gap, upper=False)
        shares = (torch.as_tensor(self.weights).log() - white.square().sum(0) / 2).softmax(0)
        mean = (
            shares @ centres
            + self.deviation**2 * A.T @ torch.cholesky_solve((gap @ shares)[:, None], root)[:, 0]
        )
        return mean.reshape(operator.image_shape), shares


def _levels(schedule: Schedule, t: Tensor, like: Tensor) -> tuple[Tensor, Tensor]:
    """Signal and noise at times, shape (batch, 1)."""
    return (
        torch.as_tensor(schedule.signal)[t.cpu()].to(like)[:, None],
        torch.as_tensor(schedule.noise)[t.cpu()].to(like)[:, None],
    )


def _matrix(operator: Operator, y: ArrayLike | Tensor, sigma: float) -> tuple[Tensor, Tensor]:
    """A as a real matrix, and y as a real vector."""
    require(is_real(sigma) and 0 < sigma < math.inf, "posterior needs sigma > 0", got=sigma)
    if operator.complex_image:
        raise InvalidProblem(
            "posterior: images are complex; expected real ones (an operator with real=True)."
        )
    matrix = torch.from_numpy(np.ascontiguousarray(operator.matmat(np.eye(operator.shape[1]))))
    data = torch.as_tensor(np.asarray(y)).reshape(-1)
    data = torch.cat([data.real, data.imag]) if operator.complex_data else data
    if len(data) != len(matrix):
        raise InvalidProblem(f"posterior: y has shape {np.shape(y)}; expected {operator.data_shape}.")
    return matrix, data.to(matrix)
