"""Gradient descent on the bilevel objective by approximate hyper-gradients: implicit ones, unrolled ones."""

from __future__ import annotations

import math
from dataclasses import dataclass

import torch
from torch import Tensor

from thalweg.bilevel.hypergradient import CGInverse, Inverse, NeumannInverse, hypergradient
from thalweg.bilevel.method import (
    BilevelMethod,
    BilevelState,
    begun,
    length,
    require_free_lower,
)
from thalweg.bilevel.problem import Bilevel, slopes
from thalweg.bilevel.rates import Decay, Rate, rate, require_rates
from thalweg.core.validation import require_counts, require_positive


def clipped(gradient: Tensor, most: float) -> Tensor:
    """The gradient, no longer than ``most``."""
    size = length(gradient)
    return gradient * (most / size) if size > most else gradient


@dataclass(frozen=True)
class AID(BilevelMethod[BilevelState]):
    """Approximate implicit differentiation: a few steps of (S)GD on y, a hyper-gradient, a step of x.

    By the inverse it is AID-CG (`CGInverse`; Pedregosa, 2016; Ghadimi and Wang, 2018), AID-FP (`FixedPointInverse`;
    Grazzi et al., 2020) or, with batches, stocBiO (`NeumannInverse`; Ji, Yang and Liang, 2021): see `StocBiO`.

    Args:
        step_size: of x.
        inner_step_size: of y.
        inner_steps: T, steps of y, from where the last ones ended.
        inverse: how the Hessian's inverse is applied.
        clip: largest norm of a hyper-gradient; infinity clips nothing.

    Cost per step: ``T + 2`` gradients and the inverse's products.

    >>> from thalweg import Stop, solve
    >>> zero = torch.zeros(1)
    >>> problem = Bilevel(lambda x, y: (y - 1).square().sum(), lambda x, y: (y - x).square().sum(), zero, zero)
    >>> solve(problem, AID(0.3, 0.3), stop=Stop(steps=50)).x.x.round(decimals=3)
    tensor([1.])
    """

    step_size: Rate = 0.1
    inner_step_size: Rate = 0.1
    inner_steps: int = 10
    inverse: Inverse = CGInverse()
    clip: float = math.inf

    def __post_init__(self) -> None:
        require_rates(self, "step_size", "inner_step_size")
        require_positive(self, "clip", infinite=True)
        require_counts(self, "inner_steps")

    def init(self, problem: Bilevel, seed: int) -> BilevelState:
        require_free_lower(problem, self)
        return begun(problem, seed)

    def step(self, problem: Bilevel, state: BilevelState) -> BilevelState:
        x, y, random = state.at_x, state.at_y, state.stream()
        gamma = rate(self.inner_step_size, state.step)
        for _ in range(self.inner_steps):
            (slope,) = problem.gradients("lower", x, y, problem.batch("lower", random), "y")
            y = y - gamma * slope
        found = hypergradient(problem, x, y, self.inverse, random)
        alpha = rate(self.step_size, state.step)
        new_x = problem.project("x", x - alpha * clipped(found.gradient, self.clip))
        return self.moved(
            problem,
            state,
            new_x,
            y,
            calls=self.inner_steps + found.calls,
            metrics={
                "hypergradient": length(found.gradient),
                "stationarity": length(new_x - x) / alpha,
                "lower_gap": length(slope),
            },
        )


@dataclass(frozen=True)
class StocBiO(AID):
    """`AID` with the stochastic Neumann series (Ji, Yang and Liang, 2021)."""

    inverse: Inverse = NeumannInverse()


@dataclass(frozen=True)
class TTSA(AID):
    """Two-timescale stochastic approximation (Hong et al., 2023): one step of y a step of x, both rates falling.

    By default ``k^-3/5`` for x and ``k^-2/5`` for y, and a randomised Neumann series.
    """

    step_size: Rate = Decay(0.1, 0.6, 10.0)
    inner_step_size: Rate = Decay(0.1, 0.4, 10.0)
    inner_steps: int = 1
    inverse: Inverse = NeumannInverse(randomised=True)


@dataclass(frozen=True)
class ITD(BilevelMethod[BilevelState]):
    """Iterative differentiation: the hyper-gradient of the steps of (S)GD on y themselves (Franceschi et al., 2017).

    Args:
        step_size, inner_step_size, inner_steps, clip: as for `AID`.

    Cost per step: ``T`` gradients, as many second-order products, one gradient of f; memory grows with T.
    """

    step_size: Rate = 0.1
    inner_step_size: Rate = 0.1
    inner_steps: int = 10
    clip: float = math.inf

    def __post_init__(self) -> None:
        require_rates(self, "step_size", "inner_step_size")
        require_positive(self, "clip", infinite=True)
        require_counts(self, "inner_steps")

    def init(self, problem: Bilevel, seed: int) -> BilevelState:
        require_free_lower(problem, self)
        return begun(problem, seed)

    def step(self, problem: Bilevel, state: BilevelState) -> BilevelState:
        random, gamma = state.stream(), rate(self.inner_step_size, state.step)
        x = state.at_x.detach().requires_grad_()
        y = state.at_y.detach().requires_grad_()
        with torch.enable_grad():
            for _ in range(self.inner_steps):
                g = problem.value("lower", x, y, problem.batch("lower", random))
                (slope,) = slopes(g, [y], create_graph=True)
                y = y - gamma * slope
            (gradient,) = slopes(problem.value("upper", x, y, problem.batch("upper", random)), [x])
        x, y = x.detach(), y.detach()
        alpha = rate(self.step_size, state.step)
        new_x = problem.project("x", x - alpha * clipped(gradient, self.clip))
        return self.moved(
            problem,
            state,
            new_x,
            y,
            calls=2 * self.inner_steps + 1,
            metrics={
                "hypergradient": length(gradient),
                "stationarity": length(new_x - x) / alpha,
                "lower_gap": length(slope.detach()),
            },
        )


@dataclass(frozen=True)
class BOME(BilevelMethod[BilevelState]):
    """Bilevel optimization made easy (Liu et al., 2022): a value-function constraint held by dynamic barrier descent.

    ``q(x, y) = g(x, y) - g(x, y_T)``, y_T some steps below y; (x, y) moves along ``grad f + lambda grad q`` with the
    smallest lambda >= 0 that lowers q at the rate ``control |grad q|^2``. Gradients only.

    Args:
        step_size: of x and y.
        inner_step_size, inner_steps: of the value function.
        control: eta, 0.5 as the authors have it.

    Cost per step: ``T + 3`` gradients.
    """

    step_size: Rate = 0.1
    inner_step_size: Rate = 0.1
    inner_steps: int = 10
    control: float = 0.5

    def __post_init__(self) -> None:
        require_rates(self, "step_size", "inner_step_size")
        require_positive(self, "control")
        require_counts(self, "inner_steps")

    def init(self, problem: Bilevel, seed: int) -> BilevelState:
        return begun(problem, seed)

    def step(self, problem: Bilevel, state: BilevelState) -> BilevelState:
        x, y, random = state.at_x, state.at_y, state.stream()
        gamma, below = rate(self.inner_step_size, state.step), state.at_y
        for _ in range(self.inner_steps):
            (slope,) = problem.gradients("lower", x, below, problem.batch("lower", random), "y")
            below = problem.project("y", below - gamma * slope)
        batch = problem.batch("lower", random)
        f = torch.cat(problem.gradients("upper", x, y, problem.batch("upper", random)))
        q_x, q_y = problem.gradients("lower", x, y, batch)
        (low_x,) = problem.gradients("lower", x, below, batch, "x")
        q = torch.cat([q_x - low_x, q_y])
        square = float(torch.dot(q, q))
        weight = max(self.control - float(torch.dot(f, q)) / square, 0.0) if square > 0.0 else 0.0
        direction = f + weight * q
        xi = rate(self.step_size, state.step)
        new_x = problem.project("x", x - xi * direction[: len(x)])
        return self.moved(
            problem,
            state,
            new_x,
            problem.project("y", y - xi * direction[len(x) :]),
            calls=self.inner_steps + 3,
            metrics={"stationarity": length(new_x - x) / xi, "lower_gap": length(slope)},
        )
