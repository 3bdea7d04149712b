"""Finite sums of operators, ``F = (1/n) sum F_i``, evaluated on some of their terms at once."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass
from functools import cached_property
from typing import Protocol

import torch
from numpy.typing import ArrayLike
from torch import Tensor

from thalweg.core import InvalidProblem
from thalweg.core.validation import is_real, is_whole, require, require_counts, require_positive
from thalweg.equilibrium import _kernels as kernels
from thalweg.equilibrium._tensors import as_tensor, told


class Components(Protocol):
    """What a method asks of a finite sum.

    Components that are affine in u may have a method ``difference(d, rows, weights)`` too, ``sum_s weights_s
    (F_{rows_s}(w + d) - F_{rows_s}(w))``, the same for every w: a sampled difference then takes one evaluation of each
    row, not two.
    """

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
        fits = is_whole(self.count) and self.count >= 1
        require(fits, "Functions needs count >= 1 components", got=self.count, error=InvalidProblem)

    def weighted(self, u: Tensor, rows: Tensor, weights: Tensor) -> Tensor:
        """See `Components`."""
        return weights @ self._at(u, rows)

    def full(self, u: Tensor) -> Tensor:
        """See `Components`."""
        return self._at(u, torch.arange(self.count, device=u.device)).mean(0)

    def _at(self, u: Tensor, rows: Tensor) -> Tensor:
        found = self.f(u, rows)
        if not isinstance(found, Tensor) or found.shape != (len(rows), *u.shape) or found.dtype != u.dtype:
            raise InvalidProblem(
                f"Functions: f gives {told(found)}; expected {told(u.expand(len(rows), *u.shape))}."
            )
        return found


class Bilinear:
    """``F(x, y) = (A y + r x, r y - A' x) + linear`` of ``min_x max_y x' A y``; u is x and y in one vector.

    A component is a column with its y and a row with its x: O(rows + columns) to evaluate. Where A is not square, the
    shorter side's are shared evenly among the components.

    Args:
        A: shape (rows, columns).
        linear: shape (rows + columns,), added to F: a and -b of a game with the terms ``a'x + b'y``. By default none.
        regularisation: r, of ``(r/2)(|x|^2 - |y|^2)``.

    F is affine, so that a difference takes one product, of ``u - w``, and rows and columns can be drawn where the
    difference is large (`drawn`).
    """

    def __init__(
        self, A: ArrayLike | Tensor, linear: ArrayLike | Tensor | None = None, regularisation: float = 0.0
    ) -> None:
        A = as_tensor("The payoff matrix", A, "rows", "columns")
        self.A, self.columns = A, A.T.contiguous()
        self.count = max(A.shape)
        m, n = A.shape
        self.linear = A.new_zeros(m + n) if linear is None else as_tensor("linear", linear, "d").to(A)
        if self.linear.shape != (m + n,):
            raise InvalidProblem(
                f"Bilinear needs linear of shape ({m + n},), rows and columns; got {tuple(self.linear.shape)}."
            )
        fits = is_real(regularisation) and 0 <= regularisation < math.inf
        require(fits, "Bilinear needs regularisation >= 0", got=regularisation, error=InvalidProblem)
        self.regularisation = float(regularisation)
        at = torch.arange(self.count)
        # row i stands in for as many components as are i modulo m
        self._row_share = self.count / torch.bincount(at % m, minlength=m)[at % m].to(A)
        self._column_share = self.count / torch.bincount(at % n, minlength=n)[at % n].to(A)
        # norms of what a coordinate of u is multiplied by: rows for x, columns for y
        self._norms = torch.cat([torch.linalg.vector_norm(A, dim=1), torch.linalg.vector_norm(A, dim=0)])

    def weighted(self, u: Tensor, rows: Tensor, weights: Tensor) -> Tensor:
        """See `Components`."""
        return self.difference(u, rows, weights) + weights.sum() * self.linear

    def difference(self, d: Tensor, rows: Tensor, weights: Tensor) -> Tensor:
        """``sum_s weights_s (F_{rows_s}(u) - F_{rows_s}(w))`` for ``d = u - w``: one product instead of two."""
        m, n = self.A.shape
        i, j = rows % m, rows % n
        x, y = d[:m], d[m:]
        of_x = (weights * self._column_share[rows] * y[j]) @ self.columns[j]
        of_y = (weights * self._row_share[rows] * x[i]) @ self.A[i]
        return torch.cat([of_x, -of_y]) + self.regularisation * weights.sum() * d

    def drawn(self, d: Tensor, size: int, random: torch.Generator) -> Tensor:
        """An unbiased estimate of ``F(u) - F(w)``, ``d = u - w``, from ``size`` rows and as many columns.

        Row i is drawn with probability proportional to ``|A_i| |d_i|``, which makes the variance least, and columns
        likewise and apart. Cost: O(rows + columns) beside the products. For tensors on the CPU.
        """
        m = len(self.A)
        found = (self.regularisation * d).numpy()
        x, y = d[:m].numpy(), d[m:].numpy()
        numbers = torch.rand((2, size), generator=random, dtype=torch.float64).numpy()
        norms = self._norms.numpy()
        kernels.add_drawn(self.columns.numpy(), norms[m:], y, numbers[0], 1.0, found[:m])
        kernels.add_drawn(self.A.numpy(), norms[:m], x, numbers[1], -1.0, found[m:])
        return torch.from_numpy(found)

    def moved(self, d: Tensor) -> Tensor:
        """``F(u) - F(w)`` for ``d = u - w``, wholly."""
        m = len(self.A)
        return torch.cat([self.A @ d[m:], -(d[:m] @ self.A)]) + self.regularisation * d

    def full(self, u: Tensor) -> Tensor:
        """See `Components`."""
        return self.moved(u) + self.linear

    @cached_property
    def norm(self) -> float:
        """``|A|_2``. Cost: singular values, once."""
        return float(torch.linalg.matrix_norm(self.A, 2))

    def average_lipschitz(self) -> float:
        """Root mean square Lipschitz constant of one row and one column, drawn by `drawn`: at most ``|A|_F`` and r."""
        return math.hypot(float(torch.linalg.matrix_norm(self.A)), self.regularisation)

    def importance(self) -> Tensor:
        """Squared norms of rows and columns, by which components are best drawn where they are drawn once for all."""
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

    def __post_init__(self) -> None:
        require_positive(self, "strength", zero=True)
        require_counts(self, "count")

    def weighted(self, u: Tensor, rows: Tensor, weights: Tensor) -> Tensor:
        """See `Components`."""
        return self.strength * weights.sum() * u

    def full(self, u: Tensor) -> Tensor:
        """See `Components`."""
        return self.strength * u
