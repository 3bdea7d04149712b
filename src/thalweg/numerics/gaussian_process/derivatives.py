"""Kernels of a function together with its partial derivatives, and of warped inputs.

Rasmussen and Williams (2006), section 9.4; Wu, Poloczek, Wilson and Frazier (2017), "Bayesian optimization with
gradients"; Snoek, Swersky, Zemel and Adams (2014) for the warping.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from thalweg.core import InvalidProblem
from thalweg.core.validation import require
from thalweg.numerics.gaussian_process.kernels import Kernel, Matern, Prior, Stationary, squared_distances


@dataclass(frozen=True)
class Derivative(Kernel):
    """Covariances of values and partial derivatives of a function with a stationary kernel.

    Points have one coordinate more, the last: 0 for the value there, j for the derivative in coordinate j = 1 .. d.
    A Gaussian process with this kernel takes any mixture of them as observations, and predicts any mixture.

    Args:
        base: `RBF` or ``Matern(nu=2.5)``; others have no derivative, or none that is worked out here.

    >>> from thalweg.numerics.gaussian_process import RBF
    >>> points = torch.tensor([[0.0, 0.0], [0.0, 1.0]])  # f(0) and f'(0): uncorrelated, both of variance one
    >>> Derivative(RBF())(torch.zeros(1), points, points).abs()
    tensor([[1., 0.],
            [0., 1.]])
    """

    base: Stationary

    def __post_init__(self) -> None:
        if isinstance(self.base, Matern):
            require(
                self.base.nu == 2.5,
                "Derivative needs a differentiable function: Matern(nu=2.5)",
                got=self.base,
                error=InvalidProblem,
            )
        require(
            self.base.dims is None,
            "Derivative needs a kernel of all coordinates",
            got=self.base,
            error=InvalidProblem,
        )
        self.base.profile(torch.zeros(1))  # refuses what has none

    def size(self, d: int) -> int:
        return self.base.size(d - 1)

    def prior(self, d: int) -> Prior:
        return self.base.prior(d - 1)

    def __call__(self, theta: Tensor, A: Tensor, B: Tensor) -> Tensor:
        a, b = self.base.scaled(theta, A[..., :-1]), self.base.scaled(theta, B[..., :-1])
        value, slope, bend = self.base.profile(squared_distances(a, b))
        along_a, along_b = self._directions(theta, A), self._directions(theta, B)
        gap_a = (along_a * a).sum(-1)[..., :, None] - along_a @ b.transpose(-1, -2)
        gap_b = a @ along_b.transpose(-1, -2) - (along_b * b).sum(-1)[..., None, :]
        of_a, of_b = (A[..., -1] > 0.5)[..., :, None], (B[..., -1] > 0.5)[..., None, :]
        both = -4.0 * bend * gap_a * gap_b - 2.0 * slope * (along_a @ along_b.transpose(-1, -2))
        one = torch.where(of_a, 2.0 * slope * gap_a, -2.0 * slope * gap_b)
        return torch.where(of_a & of_b, both, torch.where(of_a | of_b, one, value))

    def diagonal(self, theta: Tensor, A: Tensor) -> Tensor:
        _, slope, _ = self.base.profile(A.new_zeros(()))
        return torch.where(A[..., -1] > 0.5, -2.0 * slope * self._directions(theta, A).square().sum(-1), 1.0)

    def _directions(self, theta: Tensor, A: Tensor) -> Tensor:
        """The unit vector of each derivative over the lengthscales, shape (..., n, d); zero for a value."""
        d = A.shape[-1] - 1
        numbers = torch.arange(1, d + 1, dtype=A.dtype, device=A.device)
        hot = (A[..., -1:].detach().round() == numbers).to(A.dtype)
        return hot * torch.exp(-theta[..., None, :d])


def with_gradients(X: Tensor, values: Tensor, gradients: Tensor) -> tuple[Tensor, Tensor]:
    """Observations for a `Derivative` kernel: points (n, d), values (n,), gradients (n, d), NaN where unknown.

    Returns points of shape (m, d + 1) and what was observed there, shape (m,).

    >>> points, y = with_gradients(torch.zeros(1, 2), torch.ones(1), torch.tensor([[2.0, torch.nan]]))
    >>> points, y
    (tensor([[0., 0., 0.],
            [0., 0., 1.]]), tensor([1., 2.]))
    """
    n, d = X.shape
    codes = torch.arange(d + 1, dtype=X.dtype, device=X.device).repeat(n)
    points = torch.cat([X.repeat_interleave(d + 1, 0), codes[:, None]], 1)
    y = torch.cat([values[:, None], gradients], 1).flatten()
    known = ~torch.isnan(y)
    return points[known], y[known]


@dataclass(frozen=True)
class Warped(Kernel):
    """A kernel of inputs bent by Kumaraswamy's distribution function, ``1 - (1 - x^a)^b``, a and b learned.

    For functions that change faster at one end of the cube than at the other. Parameters: a, b of each coordinate,
    then the base's.
    """

    base: Kernel

    def size(self, d: int) -> int:
        return 2 * d + self.base.size(d)

    def prior(self, d: int) -> Prior:
        means, stds = self.base.prior(d)
        return [0.0] * 2 * d + means, [0.5] * 2 * d + stds

    def _bent(self, theta: Tensor, A: Tensor) -> tuple[Tensor, Tensor]:
        d = A.shape[-1]
        a, b = torch.exp(theta[..., None, :d]), torch.exp(theta[..., None, d : 2 * d])
        return 1.0 - (1.0 - A.clamp(1e-9, 1 - 1e-9) ** a) ** b, theta[..., 2 * d :]

    def __call__(self, theta: Tensor, A: Tensor, B: Tensor) -> Tensor:
        (a, rest), (b, _) = self._bent(theta, A), self._bent(theta, B)
        return self.base(rest, a, b)

    def diagonal(self, theta: Tensor, A: Tensor) -> Tensor:
        a, rest = self._bent(theta, A)
        return self.base.diagonal(rest, a)
