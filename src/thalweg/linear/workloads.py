"""Sequences of systems as the paper's experiments have them, made from a seed.

Khodak et al. (2024), section 5 and appendix E.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property

import numpy as np
from numpy.typing import NDArray

from thalweg.core import InvalidProblem
from thalweg.core.seeding import generator
from thalweg.core.validation import require, require_counts, require_positive
from thalweg.linear.problem import LinearSystem
from thalweg.linear.sequence import LinearSystemSequence
from thalweg.numerics import FivePointStencil

Vector = NDArray[np.float64]


@dataclass(frozen=True, eq=False)
class ListedSystems(LinearSystemSequence):
    """Systems that are all there already, in their order.

    Args:
        systems: of one size.

    >>> listed = ListedSystems([LinearSystem(np.eye(2), np.ones(2))] * 3)
    >>> listed.rounds
    3
    """

    systems: Sequence[LinearSystem]

    def __post_init__(self) -> None:
        sizes = sorted({system.n for system in self.systems})
        if len(sizes) != 1:
            raise InvalidProblem(f"ListedSystems needs systems of one size; got sizes {sizes}.")

    @property
    def rounds(self) -> int:  # type: ignore[override]
        """Number of systems."""
        return len(self.systems)

    def system(self, t: int, previous: Vector | None) -> LinearSystem:
        return self.systems[t]


@dataclass(frozen=True, eq=False)
class ShiftedLaplacians(LinearSystemSequence):
    """Independent systems ``(A + c_t I) x = b_t``, A the five-point Laplacian on a square.

    Offsets are ``-0.15 + 0.6 Beta(alpha, beta)``; b is Gaussian, truncated to norm at most sqrt(n). The
    offset is the context.

    Args:
        rounds: number of systems.
        alpha, beta: of the Beta distribution; (0.5, 1.5), the default, is the paper's high-variance case and
            (2, 6) its low-variance case.
        side: the grid has side x side points, n = side^2. Default 10.
        seed: round t depends on the seed and t alone.

    >>> ShiftedLaplacians(rounds=3).system(2, None).n
    100
    """

    rounds: int = 5000
    alpha: float = 0.5
    beta: float = 1.5
    side: int = 10
    seed: int = 0

    def __post_init__(self) -> None:
        require_counts(self, "rounds", "side")
        require_counts(self, "seed", least=0)
        require_positive(self, "alpha", "beta")
        # The smallest eigenvalue of the Laplacian must exceed the largest negative offset.
        require(
            1 <= self.side <= 10, "ShiftedLaplacians needs 1 <= side <= 10 to stay definite", got=self.side
        )

    @cached_property
    def base(self) -> LinearSystem:
        """The system without an offset."""
        return LinearSystem(FivePointStencil(self.side, self.side).to_csr(), np.zeros(self.side**2))

    def context(self, t: int) -> float:
        """The offset c_t, in [-0.15, 0.45]."""
        return -0.15 + 0.6 * generator(self.seed, t).beta(self.alpha, self.beta)

    def right_hand_side(self, t: int) -> Vector:
        """b_t, shape (n,)."""
        rng, n = generator(self.seed, t, 1), self.side**2
        while True:
            b = rng.standard_normal(n)
            if b @ b <= n:
                return b

    def system(self, t: int, previous: Vector | None) -> LinearSystem:
        base = self.base
        data = base.csr.data.copy()
        data[base.diagonal[1]] += self.context(t)
        return base.updated(data, self.right_hand_side(t))


@dataclass(frozen=True, eq=False)
class HeatEquation(LinearSystemSequence):
    """Crank-Nicolson steps of the 2-D heat equation whose diffusion coefficient varies with time.

    ``u_t = kappa(t) Laplace(u) + f`` on the unit square with zero boundary values;
    ``kappa(t) = max(0.1 sin 2 pi t, -10 sin 2 pi t)``, f a bump that circles the centre, u(0) a bump. Each
    system starts from the temperature before it, and the coefficient is the context.

    Args:
        nx: intervals a side, n = (nx - 1)^2.
        rounds: time steps.
        dt: their length. The paper does 5000 steps of 0.001.

    >>> workload = HeatEquation(nx=25, rounds=10)
    >>> workload.system(0, None).n, round(workload.context(0), 5)
    (576, 0.0)
    """

    nx: int = 50
    rounds: int = 1000
    dt: float = 0.001

    def __post_init__(self) -> None:
        require_counts(self, "nx", least=3)
        require_counts(self, "rounds")
        require_positive(self, "dt")

    #: Ends of the coefficient over a period.
    context_range = (0.0, 10.0)

    @staticmethod
    def coefficient(t: float) -> float:
        """kappa(t)."""
        wave = math.sin(2.0 * math.pi * t)
        return max(0.1 * wave, -10.0 * wave)

    @cached_property
    def grid(self) -> tuple[Vector, Vector]:
        """Coordinates of the unknowns, each of shape (n,)."""
        line = np.arange(1, self.nx) / self.nx
        x, y = np.meshgrid(line, line, indexing="ij")
        return x.ravel(), y.ravel()

    @cached_property
    def base(self) -> LinearSystem:
        """The system with coefficients 4 and -1, whose pattern all systems share."""
        side = self.nx - 1
        return LinearSystem(FivePointStencil(side, side).to_csr(), np.zeros(side * side))

    def bump(self, center: tuple[float, float], radius: float) -> Vector:
        """``exp(1 - 1/(1 - |x - c|^2 / r^2))`` inside the circle, zero outside; shape (n,)."""
        x, y = self.grid
        inside = 1.0 - np.minimum(1.0, ((x - center[0]) ** 2 + (y - center[1]) ** 2) / radius**2)
        return np.where(inside > 0, np.exp(1.0 - 1.0 / np.where(inside > 0, inside, 1.0)), 0.0)

    def initial(self) -> Vector:
        """u(0), shape (n,)."""
        return self.bump((0.5, 0.5), 0.25)

    def context(self, t: int) -> float:
        """The diffusion coefficient at the start of step t."""
        return self.coefficient(t * self.dt)

    def system(self, t: int, previous: Vector | None) -> LinearSystem:
        u = self.initial() if previous is None else previous
        half = (t + 0.5) * self.dt
        weight = 0.5 * self.coefficient(half) * self.dt * self.nx**2
        base, side = self.base, self.nx - 1
        data = weight * base.csr.data
        data[base.diagonal[1]] += 1.0
        angle = 16.0 * math.pi * half
        forcing = 32.0 * self.bump((0.5 + math.cos(angle) / 4, 0.5 + math.sin(angle) / 4), 0.125)
        explicit = FivePointStencil(side, side, 1.0 - 4.0 * weight, weight)
        return base.updated(data, explicit @ u + self.dt * forcing, x0=u)
