"""Combiners that settle conflicts between gradients without a guide."""

from __future__ import annotations

import itertools
import math
from dataclasses import dataclass

import numpy as np
import scipy.optimize
from numpy.typing import NDArray

from thalweg.adaptation.combiners import GradientCombiner, Mode, Vector, _least_norm, root
from thalweg.core import InvalidProblem
from thalweg.core.seeding import generator
from thalweg.core.validation import is_real, require

#: Objectives up to which PCGrad averages over all orders, and the orders that it draws for more.
ALL_ORDERS, DRAWN = 5, 24


@dataclass(frozen=True)
class MGDA(GradientCombiner):
    """The convex combination of least norm: a descent direction of every objective, or zero on the Pareto front.

    Safe, and slow where one gradient is small: it takes the place of all others.

    Source: Desideri (2012), "Multiple-gradient descent algorithm"; Sener and Koltun (2018).

    >>> MGDA().weights(np.diag([1.0, 3.0]))
    array([0.75, 0.25])
    """

    def _combined(
        self, C: Vector, c: Vector | None, losses: Vector | None, reached: float, kept: NDArray[np.int64]
    ) -> tuple[Vector, Mode]:
        return _least_norm(C), ""


@dataclass(frozen=True)
class PCGrad(GradientCombiner):
    """Each gradient gives up what points against another one; then all are added.

    Up to five objectives the mean over all orders of the others is taken, where the paper draws one; for more, over
    24 drawn ones.

    Source: Yu et al. (2020), "Gradient surgery for multi-task learning", algorithm 1.

    >>> PCGrad().weights(np.array([[1.0, -0.5], [-0.5, 1.0]]))
    array([1.5, 1.5])
    """

    def _combined(
        self, C: Vector, c: Vector | None, losses: Vector | None, reached: float, kept: NDArray[np.int64]
    ) -> tuple[Vector, Mode]:
        m, total = len(C), np.zeros(len(C))
        for i in range(m):
            others = [j for j in range(m) if j != i]
            orders = list(itertools.permutations(others)) if m <= ALL_ORDERS else _drawn(others)
            for order in orders:
                w = np.zeros(m)
                w[i] = 1.0
                for j in order:
                    w[j] -= min(float(C[j] @ w), 0.0) / C[j, j]
                total += w / len(orders)
        return total, ""


def _drawn(others: list[int]) -> list[tuple[int, ...]]:
    draw = generator(0x01, len(others))
    return [tuple(int(j) for j in draw.permutation(others)) for _ in range(DRAWN)]


@dataclass(frozen=True)
class UPGrad(GradientCombiner):
    """The mean of the gradients' projections on the directions along which no objective rises.

    Source: Quinton and Rey (2024), "Jacobian descent for multi-objective optimization", section 3.

    >>> UPGrad().weights(np.array([[1.0, -0.5], [-0.5, 1.0]]))
    array([0.75, 0.75])
    """

    def _combined(
        self, C: Vector, c: Vector | None, losses: Vector | None, reached: float, kept: NDArray[np.int64]
    ) -> tuple[Vector, Mode]:
        m, R = len(C), root(C / np.trace(C))
        added = [scipy.optimize.nnls(R, -R[:, i])[0] for i in range(m)]
        return np.asarray((1.0 + np.sum(added, axis=0)) / m), ""


@dataclass(frozen=True)
class CAGrad(GradientCombiner):
    """The direction within a ball around the mean gradient along which the worst objective falls most.

    Args:
        radius: of the ball, in lengths of the mean gradient, 0 <= radius < 1. Default 0.5; 0 is the mean.

    Source: Liu et al. (2021), "Conflict-averse gradient descent", algorithm 1.

    >>> CAGrad(0.0).weights(np.eye(2))
    array([0.5, 0.5])
    """

    radius: float = 0.5

    def __post_init__(self) -> None:
        require(
            is_real(self.radius) and 0 <= self.radius < 1, "CAGrad needs 0 <= radius < 1", got=self.radius
        )

    def _combined(
        self, C: Vector, c: Vector | None, losses: Vector | None, reached: float, kept: NDArray[np.int64]
    ) -> tuple[Vector, Mode]:
        m = len(C)
        scaled = C / np.trace(C) * m
        b = scaled.mean(1)
        length = self.radius * math.sqrt(max(float(b.mean()), 0.0))
        mean = np.full(m, 1 / m)
        if length == 0:
            return mean, ""
        tiny = 1e-12

        def value(w: Vector) -> tuple[float, Vector]:
            Cw = scaled @ w
            norm = math.sqrt(max(float(w @ Cw), 0.0) + tiny)
            return float(b @ w) + length * norm, b + length * Cw / norm

        found = scipy.optimize.minimize(  # type: ignore[call-overload]
            value,
            mean,
            jac=True,
            method="SLSQP",
            bounds=[(0.0, 1.0)] * m,
            constraints={"type": "eq", "fun": lambda w: w.sum() - 1.0, "jac": np.ones_like},
            options={"ftol": 1e-14, "maxiter": 500},
        )
        w = np.maximum(found.x, 0.0) / np.maximum(found.x, 0.0).sum()
        norm = math.sqrt(max(float(w @ scaled @ w), 0.0))
        return mean + (length / norm * w if norm > math.sqrt(tiny) else 0.0), ""


@dataclass(frozen=True)
class NashMTL(GradientCombiner):
    """The bargaining solution: ``C a = 1 / a``, where no objective gains in proportion what the others lose.

    Its direction has length sqrt(m) whatever the gradients' lengths, and its relative weights do not change when a loss
    is scaled. On the Pareto front there is no solution; there it takes the point of least norm.

    Source: Navon et al. (2022), "Multi-task learning as a bargaining game", claim 3.1. Solved by Newton steps on
    ``a' C a / 2 - sum log a``, not by the paper's sequence of convex problems.

    >>> NashMTL().weights(np.diag([4.0, 1.0]))
    array([0.5, 1. ])
    """

    def _combined(
        self, C: Vector, c: Vector | None, losses: Vector | None, reached: float, kept: NDArray[np.int64]
    ) -> tuple[Vector, Mode]:
        size = np.sqrt(np.diag(C))
        scaled = C / np.outer(size, size)
        least = _least_norm(scaled)
        if float(least @ scaled @ least) <= 1e-10:
            return _least_norm(C), ""
        a = np.ones(len(C))
        for _ in range(200):
            gradient = scaled @ a - 1 / a
            step = np.linalg.solve(scaled + np.diag(1 / a**2), -gradient)
            decrement = math.sqrt(max(float(-gradient @ step), 0.0))
            a = a + step / (1.0 + decrement if decrement > 0.25 else 1.0)
            if decrement <= 1e-12:
                return a / size, ""
        raise InvalidProblem(
            "NashMTL found no solution of C a = 1/a; the gradients are too close to dependent."
        )
