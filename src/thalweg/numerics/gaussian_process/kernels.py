"""Covariance functions. Rasmussen and Williams (2006), "Gaussian processes for machine learning", chapter 4.

A kernel is its structure; the hyper-parameters are a flat vector ``theta`` of logarithms, shape (..., p), whose
leading axes are models: one call evaluates a whole batch of them.
"""

from __future__ import annotations

import math
from abc import ABC, abstractmethod
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from thalweg.core import InvalidProblem
from thalweg.core.validation import require

#: Mean and standard deviation of the logarithm of each hyper-parameter.
Prior = tuple[list[float], list[float]]


class Kernel(ABC):
    """Base of covariance functions; ``+`` and ``*`` make new ones.

    Points have shape (..., n, d). A kernel with ``dims`` looks at those coordinates only.
    """

    @abstractmethod
    def size(self, d: int) -> int:
        """Number of hyper-parameters for points with d coordinates."""

    @abstractmethod
    def prior(self, d: int) -> Prior:
        """A log-normal prior of each hyper-parameter, for points in the unit cube."""

    @abstractmethod
    def __call__(self, theta: Tensor, A: Tensor, B: Tensor) -> Tensor:
        """Covariances of A, shape (..., n, d), and B, shape (..., m, d): shape (..., n, m)."""

    @abstractmethod
    def diagonal(self, theta: Tensor, A: Tensor) -> Tensor:
        """Variances of A, shape (..., n)."""

    def __add__(self, other: Kernel) -> Kernel:
        return Sum(self, other)

    def __mul__(self, other: Kernel) -> Kernel:
        return Product(self, other)


class _Profile(torch.autograd.Function):
    """A stationary profile of the squared distance with its own slope: no square root is differentiated at zero."""

    @staticmethod
    def forward(ctx: Any, squared: Tensor, kernel: Stationary) -> Tensor:  # noqa: ANN401 -- torch's
        value, slope, _ = kernel.profile(squared.detach())
        ctx.save_for_backward(slope)
        return value

    @staticmethod
    def backward(ctx: Any, *grads: Tensor) -> Any:  # noqa: ANN401 -- torch's
        (slope,) = ctx.saved_tensors
        return grads[0] * slope, None


@dataclass(frozen=True)
class Stationary(Kernel):
    """Base of kernels of the scaled distance, one lengthscale a coordinate (ARD).

    Args:
        dims: the coordinates to look at; all by default.
    """

    dims: tuple[int, ...] | None = None

    def coordinates(self, d: int) -> int:
        """How many coordinates it looks at."""
        return d if self.dims is None else len(self.dims)

    def size(self, d: int) -> int:
        return self.coordinates(d)

    def prior(self, d: int) -> Prior:
        """Lengthscales that grow with the square root of the dimension (Hvarfner, Hellsten and Nardi, 2024).

        Their log-normal density of a lengthscale, LN(sqrt 2 + log(d)/2, 3), is one of its logarithm with a mean
        that is 3 less.
        """
        d = self.coordinates(d)
        return [math.sqrt(2.0) - 3.0 + 0.5 * math.log(d)] * d, [math.sqrt(3.0)] * d

    @abstractmethod
    def profile(self, squared: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """Value, first and second derivative as functions of the squared scaled distance."""

    def scaled(self, theta: Tensor, A: Tensor) -> Tensor:
        """The coordinates it looks at over their lengthscales, shape (..., n, d)."""
        points = A if self.dims is None else A[..., list(self.dims)]
        return points * torch.exp(-theta[..., None, : points.shape[-1]])

    def __call__(self, theta: Tensor, A: Tensor, B: Tensor) -> Tensor:
        value: Tensor = _Profile.apply(  # type: ignore[no-untyped-call]
            squared_distances(self.scaled(theta, A), self.scaled(theta, B)), self
        )
        return value

    def diagonal(self, theta: Tensor, A: Tensor) -> Tensor:
        return torch.ones_like(A[..., 0] + theta[..., :1])


def squared_distances(a: Tensor, b: Tensor) -> Tensor:
    """Squared distances of a, shape (..., n, d), and b, shape (..., m, d): shape (..., n, m), never negative."""
    center = b.detach().mean(-2, keepdim=True)  # distances survive it, and rounding is less
    a, b = a - center, b - center
    squares = a.square().sum(-1)[..., :, None] + b.square().sum(-1)[..., None, :]
    return (squares - 2.0 * a @ b.transpose(-1, -2)).clamp_min(0.0)


@dataclass(frozen=True)
class RBF(Stationary):
    """``exp(-r^2/2)``: infinitely smooth, often smoother than the world is.

    >>> float(RBF()(torch.zeros(1), torch.zeros(1, 1), torch.ones(1, 1)))
    0.6065306663513184
    """

    def profile(self, squared: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        value = torch.exp(-0.5 * squared)
        return value, -0.5 * value, 0.25 * value


@dataclass(frozen=True)
class Matern(Stationary):
    """Matern kernel with ``nu`` 1/2, 3/2 or 5/2: once differentiable paths at 3/2, twice at 5/2 (the default).

    >>> Matern(nu=1.5)
    Matern(dims=None, nu=1.5)
    """

    nu: float = 2.5

    def __post_init__(self) -> None:
        require(self.nu in (0.5, 1.5, 2.5), "Matern needs nu = 1/2, 3/2 or 5/2", got=self.nu)

    def profile(self, squared: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        # Derivatives at zero distance may be infinite; they are taken a little beside it.
        s = torch.sqrt((2.0 * self.nu * squared).clamp_min(1e-24))
        decay = torch.exp(-s)
        if self.nu == 0.5:
            return decay, -0.5 * decay / s, 0.25 * decay * (1.0 + 1.0 / s) / s.square()
        if self.nu == 1.5:
            return (1.0 + s) * decay, -1.5 * decay, 2.25 * decay / s
        return (1.0 + s + s.square() / 3.0) * decay, -5.0 / 6.0 * (1.0 + s) * decay, 25.0 / 12.0 * decay

    def __call__(self, theta: Tensor, A: Tensor, B: Tensor) -> Tensor:
        if self.nu != 0.5:
            return super().__call__(theta, A, B)
        # A square root of the distance would show the rounding of the product form.
        a, b = self.scaled(theta, A), self.scaled(theta, B)
        squared = (a[..., :, None, :] - b[..., None, :, :]).square().sum(-1)
        value: Tensor = _Profile.apply(squared, self)  # type: ignore[no-untyped-call]
        return value


@dataclass(frozen=True)
class RationalQuadratic(Stationary):
    """``(1 + r^2/(2 a))^-a``: a mixture of RBF kernels of all lengthscales; the last parameter is a."""

    def size(self, d: int) -> int:
        return self.coordinates(d) + 1

    def prior(self, d: int) -> Prior:
        means, stds = super().prior(d)
        return [*means, 0.0], [*stds, 1.0]

    def profile(self, squared: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        raise InvalidProblem("RationalQuadratic takes no derivative observations; use RBF or Matern(nu=2.5).")

    def __call__(self, theta: Tensor, A: Tensor, B: Tensor) -> Tensor:
        squared = squared_distances(self.scaled(theta, A), self.scaled(theta, B))
        a = torch.exp(theta[..., -1])[..., None, None]
        return torch.exp(-a * torch.log1p(squared / (2.0 * a)))


@dataclass(frozen=True)
class Periodic(Kernel):
    """``exp(-2 sum sin^2(pi (x - x')/period)/l^2)``: parameters are the lengthscales, then one period.

    MacKay (1998).
    """

    dims: tuple[int, ...] | None = None

    def size(self, d: int) -> int:
        return (d if self.dims is None else len(self.dims)) + 1

    def prior(self, d: int) -> Prior:
        n = self.size(d) - 1
        return [0.0] * n + [math.log(0.5)], [1.0] * n + [0.7]

    def __call__(self, theta: Tensor, A: Tensor, B: Tensor) -> Tensor:
        a, b = (P if self.dims is None else P[..., list(self.dims)] for P in (A, B))
        gaps = a[..., :, None, :] - b[..., None, :, :]
        waves = torch.sin(math.pi * gaps * torch.exp(-theta[..., None, None, -1:]))
        lengths = torch.exp(theta[..., None, None, :-1])
        return torch.exp(-2.0 * (waves / lengths).square().sum(-1))

    def diagonal(self, theta: Tensor, A: Tensor) -> Tensor:
        return torch.ones_like(A[..., 0] + theta[..., :1])


@dataclass(frozen=True)
class Linear(Kernel):
    """``sum_j v_j x_j x'_j``: Bayesian linear regression through the origin, one variance a coordinate."""

    dims: tuple[int, ...] | None = None

    def size(self, d: int) -> int:
        return d if self.dims is None else len(self.dims)

    def prior(self, d: int) -> Prior:
        return [0.0] * self.size(d), [1.0] * self.size(d)

    def _root(self, theta: Tensor, A: Tensor) -> Tensor:
        points = A if self.dims is None else A[..., list(self.dims)]
        return points * torch.exp(0.5 * theta[..., None, :])

    def __call__(self, theta: Tensor, A: Tensor, B: Tensor) -> Tensor:
        return self._root(theta, A) @ self._root(theta, B).transpose(-1, -2)

    def diagonal(self, theta: Tensor, A: Tensor) -> Tensor:
        return self._root(theta, A).square().sum(-1)


@dataclass(frozen=True)
class Coregion(Kernel):
    """Covariance of tasks, ``B = W W' + diag(v)``, read off coordinate ``dim``, which holds 0 .. tasks - 1.

    The intrinsic coregionalisation model is ``Matern(dims=...) * Coregion(tasks, dim)`` (Bonilla, Chai and Williams,
    2008). W enters as itself, v by its logarithm.

    Args:
        tasks: how many.
        dim: the coordinate with the task's number.
        rank: columns of W.
    """

    tasks: int
    dim: int
    rank: int = 1

    def __post_init__(self) -> None:
        require(
            self.tasks >= 1 and self.rank >= 1, "Coregion needs tasks, rank >= 1", got=(self.tasks, self.rank)
        )

    def size(self, d: int) -> int:
        return self.tasks * (self.rank + 1)

    def prior(self, d: int) -> Prior:
        return [1.0] * self.tasks * self.rank + [-2.0] * self.tasks, [0.7] * self.size(d)

    def matrix(self, theta: Tensor) -> Tensor:
        """B, shape (..., tasks, tasks)."""
        W = theta[..., : self.tasks * self.rank].reshape(*theta.shape[:-1], self.tasks, self.rank)
        return W @ W.transpose(-1, -2) + torch.diag_embed(torch.exp(theta[..., self.tasks * self.rank :]))

    def __call__(self, theta: Tensor, A: Tensor, B: Tensor) -> Tensor:
        rows, columns = (self._indicator(P) for P in (A, B))
        return rows @ self.matrix(theta) @ columns.transpose(-1, -2)

    def diagonal(self, theta: Tensor, A: Tensor) -> Tensor:
        return (self._indicator(A) @ self.matrix(theta).diagonal(dim1=-2, dim2=-1)[..., None])[..., 0]

    def _indicator(self, P: Tensor) -> Tensor:
        numbers = torch.arange(self.tasks, dtype=P.dtype, device=P.device)
        return (P[..., self.dim, None].detach().round() == numbers).to(P.dtype)


@dataclass(frozen=True)
class Downsampling(Kernel):
    """``c + (1 - s)^(1 + e) (1 - s')^(1 + e)`` of a fidelity s in [0, 1] whose truth is s = 1.

    Multiplied with a kernel of the other coordinates it makes cheap evaluations biased, and the less the nearer
    they are to the truth (Swersky, Snoek and Adams, 2014; Wu, Toscano-Palmerin, Frazier and Wilson, 2019).
    Parameters: c, e.
    """

    dim: int = -1

    def size(self, d: int) -> int:
        return 2

    def prior(self, d: int) -> Prior:
        return [0.0, 0.0], [1.0, 0.5]

    def _bias(self, theta: Tensor, A: Tensor) -> Tensor:
        rest = (1.0 - A[..., self.dim]).clamp_min(1e-12)
        return rest ** (1.0 + torch.exp(theta[..., 1:2]))

    def __call__(self, theta: Tensor, A: Tensor, B: Tensor) -> Tensor:
        bias = self._bias(theta, A)[..., :, None] * self._bias(theta, B)[..., None, :]
        return torch.exp(theta[..., :1])[..., None] + bias

    def diagonal(self, theta: Tensor, A: Tensor) -> Tensor:
        return torch.exp(theta[..., :1]) + self._bias(theta, A).square()


@dataclass(frozen=True)
class Scaled(Kernel):
    """A variance times another kernel; the variance comes first among the parameters.

    >>> Scaled(RBF()).size(3)
    4
    """

    base: Kernel

    def size(self, d: int) -> int:
        return 1 + self.base.size(d)

    def prior(self, d: int) -> Prior:
        means, stds = self.base.prior(d)
        return [0.0, *means], [0.7, *stds]

    def __call__(self, theta: Tensor, A: Tensor, B: Tensor) -> Tensor:
        return torch.exp(theta[..., :1])[..., None] * self.base(theta[..., 1:], A, B)

    def diagonal(self, theta: Tensor, A: Tensor) -> Tensor:
        return torch.exp(theta[..., :1]) * self.base.diagonal(theta[..., 1:], A)


@dataclass(frozen=True)
class _Pair(Kernel):
    first: Kernel
    second: Kernel

    def size(self, d: int) -> int:
        return self.first.size(d) + self.second.size(d)

    def prior(self, d: int) -> Prior:
        (m1, s1), (m2, s2) = self.first.prior(d), self.second.prior(d)
        return m1 + m2, s1 + s2

    def _split(self, theta: Tensor, A: Tensor) -> Sequence[Tensor]:
        k = self.first.size(A.shape[-1])
        return theta[..., :k], theta[..., k:]


@dataclass(frozen=True)
class Sum(_Pair):
    """The sum of two kernels."""

    def __call__(self, theta: Tensor, A: Tensor, B: Tensor) -> Tensor:
        t1, t2 = self._split(theta, A)
        return self.first(t1, A, B) + self.second(t2, A, B)

    def diagonal(self, theta: Tensor, A: Tensor) -> Tensor:
        t1, t2 = self._split(theta, A)
        return self.first.diagonal(t1, A) + self.second.diagonal(t2, A)


@dataclass(frozen=True)
class Product(_Pair):
    """The product of two kernels."""

    def __call__(self, theta: Tensor, A: Tensor, B: Tensor) -> Tensor:
        t1, t2 = self._split(theta, A)
        return self.first(t1, A, B) * self.second(t2, A, B)

    def diagonal(self, theta: Tensor, A: Tensor) -> Tensor:
        t1, t2 = self._split(theta, A)
        return self.first.diagonal(t1, A) * self.second.diagonal(t2, A)
