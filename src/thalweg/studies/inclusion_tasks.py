"""The inclusions that variance reduction is tried on: games, cocoercive sums, a linear GAN, robust regression."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from thalweg.core.seeding import torch_generator
from thalweg.datasets import load
from thalweg.equilibrium import (
    Bilinear,
    Constant,
    MonotoneInclusion,
    SumOfComponents,
    estimate_lipschitz,
    linear_gan,
    matrix_game,
    policeman_and_burglar,
    random_game,
    robust_regression,
)


@dataclass(frozen=True, eq=False)
class Task:
    """An inclusion, the share of its first residual to reach, the passes allowed, and F's exact Lipschitz constant."""

    problem: MonotoneInclusion
    share: float
    most: int
    whole: float
    least: float = 0.0  # the modulus of strong convexity, for Nesterov's method

    @property
    def goal(self) -> float:
        return self.share * self.problem.natural_residual(self.problem.x0)


def spectral(n: int, power: float, share: float, seed: int) -> Task:
    """``x'Ay`` with singular values ``i^-power`` and linear terms whose solution is Gaussian."""
    random = torch_generator(seed, n, 0x16)
    U, V = (torch.linalg.qr(_normal(random, n, n)).Q for _ in "UV")
    A = U * torch.arange(1.0, n + 1.0, dtype=torch.float64) ** -power @ V.T
    x, y = _normal(random, n), _normal(random, n)
    linear = torch.cat([-(A @ y), A.T @ x])
    components = SumOfComponents(Bilinear(A), Constant(linear, n))
    return Task(MonotoneInclusion(components, torch.zeros(2 * n, dtype=torch.float64)), share, 800, 1.0)


def on_simplices(n: int) -> dict[str, Callable[[int], Task]]:
    """The burglar's game first, about which claims are made; then those in which theory promises little."""

    def low_rank(seed: int) -> Tensor:
        random = torch_generator(seed, n, 0x17)
        return _normal(random, n, 5) @ _normal(random, 5, n) + 0.1 * _normal(random, n, n)

    def task(A: Tensor, share: float) -> Task:
        problem = matrix_game(A)
        assert isinstance(problem.components, SumOfComponents)
        assert isinstance(problem.components.first, Bilinear)
        return Task(problem, share, 400, float(torch.linalg.matrix_norm(problem.components.first.A, 2)))

    side = n // 4
    return {
        f"policeman and burglar, n = {n}": lambda seed: task(policeman_and_burglar(n, seed), 1e-2),
        f"random payoffs, n = {side}": lambda seed: task(random_game(side, side, seed), 3e-2),
        f"rank five and noise, n = {n}": lambda seed: task(low_rank(seed), 0.1),
    }


class Squares:
    """``x_i (x_i'u - y_i) + S u`` with S skew: cocoercive, no gradient unless S is zero; the sum by its moments."""

    def __init__(self, X: Tensor, y: Tensor, skew: Tensor) -> None:
        self.X, self.y, self.skew, self.count = X, y, skew, len(X)
        self.mean, self.target = X.T @ X / len(X) + skew, X.T @ y / len(X)

    def weighted(self, u: Tensor, rows: Tensor, weights: Tensor) -> Tensor:
        X = self.X[rows]
        return (weights * (X @ u - self.y[rows])) @ X + weights.sum() * (self.skew @ u)

    def full(self, u: Tensor) -> Tensor:
        return self.mean @ u - self.target


def _squares(n: int, scale_power: float, twist: float, most: int, seed: int) -> Task:
    random = torch_generator(seed, n, 0x18)
    d = 20
    X = _normal(random, n, d) * torch.arange(1.0, d + 1.0, dtype=torch.float64) ** -scale_power
    y = X @ _normal(random, d) + 0.1 * _normal(random, n)
    B = _normal(random, d, d)
    skew = B - B.T
    skew = twist * skew / torch.linalg.matrix_norm(skew, 2)
    components = Squares(X, y, skew)
    spectrum = torch.linalg.eigvalsh(X.T @ X / n)
    whole = float(torch.linalg.matrix_norm(components.mean, 2))
    problem = MonotoneInclusion(components, torch.zeros(d, dtype=torch.float64))
    return Task(problem, 1e-3, most, whole, float(spectrum[0]))


def skew_sum(n: int, most: int, seed: int) -> Task:
    """Least squares in twenty dimensions of scales ``i^-0.5`` and a skew part of norm 0.02."""
    return _squares(n, 0.5, 0.02, most, seed)


def least_squares(n: int, most: int, seed: int) -> Task:
    """Least squares in twenty dimensions of scales 1/i: a condition of about 400."""
    return _squares(n, 1.0, 0.0, most, seed)


def gan(n: int, seed: int) -> Task:
    """A linear GAN with three conditions and two outputs."""
    random = torch_generator(seed, n, 0x19)
    z, W = _normal(random, n, 3), _normal(random, 2, 3)
    problem = linear_gan(z, z @ W.T + _normal(random, n, 2))
    return Task(problem, 1e-3, 300, float(torch.linalg.matrix_norm(z.T @ z / n, 2)))


def robust_logistic(most: int, seed: int) -> Task:
    """The breast_cancer data, the worst 30 % of examples."""
    data = load("breast_cancer")
    assert data.y is not None
    X = torch.tensor((data.X - data.X.mean(0)) / data.X.std(0)) / np.sqrt(data.X.shape[1])
    problem = robust_regression(X, torch.tensor(2.0 * data.y - 1.0), tail=0.3, loss="logistic")
    return Task(problem, 0.1, most, estimate_lipschitz(problem) / 1.1)


def _normal(random: torch.Generator, *shape: int) -> Tensor:
    return torch.randn(*shape, generator=random, dtype=torch.float64)
