"""Games and sums whose stable rank is known, and what a method needs on them: for the study of Halpern iterations."""

from __future__ import annotations

import dataclasses
import functools
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from thalweg.core import Method, Stop, solve
from thalweg.core.seeding import torch_generator
from thalweg.equilibrium import Bilinear, MonotoneInclusion, linear_gan, matrix_game

GAME, SUM, GAN = 22, 23, 24  # streams of random numbers


def spectrum(a: float, n: int, seed: int) -> MonotoneInclusion:
    """``x' A y`` with linear terms, A of n rows with the singular values ``i^-a`` and random singular vectors."""
    random = torch_generator(seed, GAME, n)
    left, right = (torch.linalg.qr(_normal(random, n, n)).Q for _ in "xy")
    A = (left * torch.arange(1, n + 1, dtype=torch.float64) ** -a) @ right.T
    solution = _normal(random, 2 * n)
    components = Bilinear(A, -Bilinear(A).moved(solution))
    return MonotoneInclusion(components, torch.zeros(2 * n, dtype=torch.float64))


def _normal(random: torch.Generator, *shape: int) -> Tensor:
    return torch.randn(*shape, generator=random, dtype=torch.float64)


def as_given(A: Tensor) -> MonotoneInclusion:
    """`matrix_game` without centring, in the same unit."""
    game = matrix_game(A)
    assert isinstance(game.components, Bilinear)
    unit = float((game.components.full(game.x0)[0] - game.components.full(game.x0)[1]) / (A[0] - A[1]).mean())
    return MonotoneInclusion(Bilinear(unit * A), game.x0, game.resolvent)


class Rows:
    """``F_i(u) = x_i (x_i'u - y_i) + S u``: least squares, and a skew part that makes F no gradient."""

    def __init__(self, X: Tensor, y: Tensor, S: Tensor) -> None:
        self.X, self.y, self.S, self.count = X, y, S, len(X)
        self._M, self._c = X.T @ X / len(X) + S, X.T @ y / len(X)

    def weighted(self, u: Tensor, rows: Tensor, weights: Tensor) -> Tensor:
        return self.difference(u, rows, weights) - (weights * self.y[rows]) @ self.X[rows]

    def difference(self, d: Tensor, rows: Tensor, weights: Tensor) -> Tensor:
        X = self.X[rows]
        return (weights * (X @ d)) @ X + weights.sum() * (self.S @ d)

    def full(self, u: Tensor) -> Tensor:
        return self._M @ u - self._c


def least_squares(power: float, skew: float, n: int, seed: int) -> MonotoneInclusion:
    """20 columns of scales ``i^-power``; a skew part of the given norm."""
    random = torch_generator(seed, SUM, n)
    X = _normal(random, n, 20) * torch.arange(1, 21, dtype=torch.float64) ** -power
    S = _normal(random, 20, 20)
    S = S - S.T
    S = skew * S / torch.linalg.matrix_norm(S, 2)
    return MonotoneInclusion(Rows(X, X.sum(1) + _normal(random, n), S), torch.zeros(20, dtype=torch.float64))


def linear_gan_of(n: int, seed: int) -> MonotoneInclusion:
    """A linear GAN of n examples: three conditions, two outputs, noise as large as the signal."""
    random = torch_generator(seed, GAN, n)
    z, W = _normal(random, n, 3), _normal(random, 2, 3)
    return linear_gan(z, z @ W.T + _normal(random, n, 2))


@dataclass(frozen=True)
class Passes:
    """A method at a multiple of the step that it takes by itself, and the passes over all components that it needs.

    Args:
        goal: the residual, as a share of the first.
        most: passes, after which the run has failed.
    """

    method: Method[MonotoneInclusion]
    multiple: float
    goal: float
    most: int

    def __call__(self, problem: MonotoneInclusion, seed: int) -> float:
        return passes_of(self, problem, seed)


@functools.lru_cache(maxsize=128)
def passes_of(entry: Passes, problem: MonotoneInclusion, seed: int) -> float:
    """Kept, for settings that are tried on one small problem for several large ones."""
    method = entry.method
    step_size = entry.multiple * method.init(problem, seed).step_size
    stop = Stop(
        below={"residual": entry.goal * problem.natural_residual(problem.x0)},
        calls=entry.most * problem.count,
        steps=None,
    )
    tuned = dataclasses.replace(method, step_size=step_size)  # type: ignore[type-var]
    found = solve(problem, tuned, stop=stop, seed=seed, progress=False)
    return found.calls / problem.count if found.converged else np.inf


def multiples(
    method: Method[MonotoneInclusion], steps: tuple[float, ...], goal: float, most: int
) -> dict[str, Passes]:
    """A grid for `contest`: a method at multiples of its own step."""
    return {f"step x {step:g}": Passes(method, step, goal, most) for step in steps}
