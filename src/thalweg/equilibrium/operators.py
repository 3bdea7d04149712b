"""Finite sums of operators, ``F = (1/n) sum F_i``, evaluated on some of their terms at once."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import ClassVar, Protocol, runtime_checkable

import numpy as np
import torch
from numpy.typing import ArrayLike
from torch import Tensor

from thalweg.core import InvalidProblem
from thalweg.equilibrium._kernels import add_drawn
from thalweg.equilibrium._tensors import as_tensor


class Components(Protocol):
    """What a method asks of a finite sum."""

    @property
    def count(self) -> int:
        """n."""

    def weighted(self, u: Tensor, rows: Tensor, weights: Tensor) -> Tensor:
        """``sum_s weights_s F_{rows_s}(u)``, shape of u."""

    def full(self, u: Tensor) -> Tensor:
        """F(u)."""


@runtime_checkable
class Affine(Components, Protocol):
    """Components that are affine in u, and draw those that matter for a difference themselves.

    ``F_i(u) - F_i(w)`` is linear in ``d = u - w``: one product tells it, where others need two.
    """

    @property
    def cost(self) -> float:
        """Component evaluations that a draw is worth."""

    @property
    def spread(self) -> float:
        """The least L known with ``E |change(d, 1)|^2 <= L^2 |d|^2``."""

    def change(self, d: Tensor, size: int, random: torch.Generator) -> Tensor:
        """Unbiased for ``F(u) - F(w)``, d = u - w: the mean of ``size`` independent draws, shape of d."""


def affine(components: Components) -> Affine | None:
    """The components where they are `Affine`, both terms of a sum included; None elsewhere."""
    if isinstance(components, SumOfComponents):
        both = affine(components.first) is not None and affine(components.second) is not None
        return components if both else None
    return components if isinstance(components, Affine) else None


@dataclass(frozen=True)
class Functions:
    """Components from a function ``f(u, rows)`` that gives the operators of some rows, shape (rows, d).

    >>> targets = torch.tensor([[1.0, 0.0], [3.0, 2.0]])
    >>> Functions(lambda u, rows: u - targets[rows], 2).full(torch.zeros(2))
    tensor([-2., -1.])
    """

    f: Callable[[Tensor, Tensor], Tensor]
    count: int

    def __post_init__(self) -> None:
        if self.count < 1:
            raise InvalidProblem(f"Functions needs count >= 1 components; got {self.count}.")

    def weighted(self, u: Tensor, rows: Tensor, weights: Tensor) -> Tensor:
        """See `Components`."""
        return weights @ self.f(u, rows)

    def full(self, u: Tensor) -> Tensor:
        """See `Components`."""
        return self.f(u, torch.arange(self.count, device=u.device)).mean(0)


class Bilinear:
    """``F(x, y) = (A y, -A' x)`` of the game ``min_x max_y x' A y``; u is x and y in one vector.

    A component is a column with its y and a row with its x: O(rows + columns) to evaluate. Where A is not square, the
    shorter side's are shared evenly among the components.

    For a difference d columns are drawn by ``|A_j| |d_j|``, and rows likewise: the chances that leave the least
    variance. With strategies that differ in few places it is far less than the spread ``|A|_F`` allows.

    >>> game, d = Bilinear([[1.0, 2.0], [3.0, 4.0]]), torch.tensor([0.0, 1.0, 0.0, 1.0], dtype=torch.float64)
    >>> game.change(d, 1, torch.Generator())  # one row and one column matter: exact
    tensor([ 2.,  4., -3., -4.], dtype=torch.float64)
    """

    def __init__(self, A: ArrayLike | Tensor) -> None:
        A = as_tensor("The payoff matrix", A, "rows", "columns")
        self.A, self.columns = A, A.T.contiguous()
        self.count = max(A.shape)
        m, n = A.shape
        at = torch.arange(self.count)
        # row i stands in for as many components as are i modulo m
        self._row_share = self.count / torch.bincount(at % m, minlength=m)[at % m].to(A)
        self._column_share = self.count / torch.bincount(at % n, minlength=n)[at % n].to(A)
        lengths = [torch.linalg.vector_norm(A, dim=k) for k in (1, 0)]
        self._arrays = [v.cpu().contiguous().numpy() for v in (A, self.columns, *lengths)]
        self.cost = (m + n) / (2.0 * min(m, n))
        self.spread = float(torch.linalg.vector_norm(A))

    def change(self, d: Tensor, size: int, random: torch.Generator) -> Tensor:
        """See `Affine`. Cost: O(size (rows + columns))."""
        m = len(self.A)
        uniform = torch.rand(2, size, generator=random, dtype=torch.float64).numpy()
        given = d.detach().cpu().numpy()
        found = np.zeros(len(given), given.dtype)
        A, columns, row_lengths, column_lengths = self._arrays
        add_drawn(columns, column_lengths, given[m:], uniform[0], 1.0, found[:m])
        add_drawn(A, row_lengths, given[:m], uniform[1], -1.0, found[m:])
        return torch.from_numpy(found).to(d.device)

    def weighted(self, u: Tensor, rows: Tensor, weights: Tensor) -> Tensor:
        """See `Components`."""
        m, n = self.A.shape
        i, j = rows % m, rows % n
        x, y = u[:m], u[m:]
        of_x = (weights * self._column_share[rows] * y[j]) @ self.columns[j]
        of_y = (weights * self._row_share[rows] * x[i]) @ self.A[i]
        return torch.cat([of_x, -of_y])

    def full(self, u: Tensor) -> Tensor:
        """See `Components`."""
        m = len(self.A)
        return torch.cat([self.A @ u[m:], -(u[:m] @ self.A)])


class SumOfComponents:
    """Two finite sums of equally many components, added: a game and its regularisation, say."""

    def __init__(self, first: Components, second: Components) -> None:
        if first.count != second.count:
            raise InvalidProblem(
                f"SumOfComponents needs equally many components; got {first.count} and {second.count}."
            )
        self.first, self.second, self.count = first, second, first.count

        self._parts = affine(first), affine(second)

    @property
    def cost(self) -> float:
        """See `Affine`."""
        return max(part.cost for part in self._affine())

    @property
    def spread(self) -> float:
        """See `Affine`."""
        return sum(part.spread for part in self._affine())

    def change(self, d: Tensor, size: int, random: torch.Generator) -> Tensor:
        """See `Affine`."""
        first, second = self._affine()
        if isinstance(second, Constant):
            return first.change(d, size, random)
        return first.change(d, size, random) + second.change(d, size, random)

    def _affine(self) -> tuple[Affine, Affine]:
        first, second = self._parts
        if first is None or second is None:
            raise InvalidProblem("SumOfComponents is affine only where both of its terms are.")
        return first, second

    def weighted(self, u: Tensor, rows: Tensor, weights: Tensor) -> Tensor:
        """See `Components`."""
        return self.first.weighted(u, rows, weights) + self.second.weighted(u, rows, weights)

    def full(self, u: Tensor) -> Tensor:
        """See `Components`."""
        return self.first.full(u) + self.second.full(u)


@dataclass(frozen=True)
class ScaledIdentity:
    """``strength u`` in every component: quadratic regularisation, which makes a game strongly monotone."""

    strength: float
    count: int
    cost: ClassVar[float] = 0.0

    @property
    def spread(self) -> float:
        """See `Affine`."""
        return abs(self.strength)

    def change(self, d: Tensor, size: int, random: torch.Generator) -> Tensor:
        """See `Affine`."""
        return self.strength * d

    def weighted(self, u: Tensor, rows: Tensor, weights: Tensor) -> Tensor:
        """See `Components`."""
        return self.strength * weights.sum() * u

    def full(self, u: Tensor) -> Tensor:
        """See `Components`."""
        return self.strength * u


@dataclass(frozen=True)
class Constant:
    """The same vector in every component, wherever u is: the linear terms of a saddle point.

    Args:
        vector: shape (d,).
        count: components.
    """

    vector: Tensor
    count: int
    cost: ClassVar[float] = 0.0
    spread: ClassVar[float] = 0.0

    def change(self, d: Tensor, size: int, random: torch.Generator) -> Tensor:
        """See `Affine`."""
        return torch.zeros_like(d)

    def weighted(self, u: Tensor, rows: Tensor, weights: Tensor) -> Tensor:
        """See `Components`."""
        return weights.sum() * self.vector

    def full(self, u: Tensor) -> Tensor:
        """See `Components`."""
        return self.vector.clone()
