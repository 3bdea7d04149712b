"""Finite sums of operators, ``F = (1/n) sum F_i``, evaluated on some of their terms at once."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Protocol

import torch
from numpy.typing import ArrayLike
from torch import Tensor

from thalweg.core import InvalidProblem
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

    def importance(self) -> Tensor:
        """Squared norms of rows and columns, by which components are best drawn."""
        m, n = self.A.shape
        at = torch.arange(self.count)
        rows, columns = self.A.square().sum(1), self.A.square().sum(0)
        return rows[at % m] * self._row_share / self.count + columns[at % n] * self._column_share / self.count


class SumOfComponents:
    """Two finite sums of equally many components, added: a game and its regularisation, say."""

    def __init__(self, first: Components, second: Components) -> None:
        if first.count != second.count:
            raise InvalidProblem(
                f"SumOfComponents needs equally many components; got {first.count} and {second.count}."
            )
        self.first, self.second, self.count = first, second, first.count

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

    def weighted(self, u: Tensor, rows: Tensor, weights: Tensor) -> Tensor:
        """See `Components`."""
        return weights.sum() * self.vector

    def full(self, u: Tensor) -> Tensor:
        """See `Components`."""
        return self.vector.clone()
