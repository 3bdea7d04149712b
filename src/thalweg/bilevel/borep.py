"""BO-REP: bilevel optimization under unbounded smoothness (Hao, Gong and Liu, 2024; arXiv 2401.09587)."""

from __future__ import annotations

import math
from dataclasses import dataclass, replace

import torch
from torch import Tensor

from thalweg.bilevel.hypergradient import Inverse, NeumannInverse, hypergradient
from thalweg.bilevel.method import (
    BilevelMethod,
    BilevelState,
    begun,
    begun_at,
    length,
    require_free_lower,
)
from thalweg.bilevel.problem import Bilevel
from thalweg.bilevel.rates import require_momentum
from thalweg.core.seeding import torch_generator
from thalweg.core.validation import require_counts, require_positive


@dataclass(frozen=True)
class EpochSGD:
    """Epochs of projected SGD on shrinking balls (Hazan and Kale, 2014): an accurate solution to start from.

    Each epoch starts at the last one's average, halves the step, doubles the steps, shrinks the ball by the root of 2.

    Args:
        epochs: how many.
        steps: of the first epoch.
        step_size: of the first epoch.
        radius: of the first epoch's ball; infinity projects on nothing.

    >>> zero = torch.zeros(1)
    >>> problem = Bilevel(lambda x, y: y.sum(), lambda x, y: (y - x).square().sum(), torch.ones(1), zero)
    >>> EpochSGD(6, 8, 0.4)(problem, torch.ones(1), zero, torch.Generator())[0].round(decimals=3)
    tensor([1.])
    """

    epochs: int = 4
    steps: int = 10
    step_size: float = 0.1
    radius: float = math.inf

    def __post_init__(self) -> None:
        require_counts(self, "epochs", "steps")
        require_positive(self, "step_size")
        require_positive(self, "radius", infinite=True)

    def __call__(self, problem: Bilevel, x: Tensor, y: Tensor, random: torch.Generator) -> tuple[Tensor, int]:
        """The last epoch's average, and the gradients it took."""
        steps, size, radius, calls = self.steps, self.step_size, self.radius, 0
        for _ in range(self.epochs):
            y = ball_sgd(problem, x, y, steps, size, radius, random)
            calls += steps
            steps, size, radius = 2 * steps, size / 2.0, radius / math.sqrt(2.0)
        return y, calls


def ball_sgd(
    problem: Bilevel,
    x: Tensor,
    centre: Tensor,
    steps: int,
    step_size: float,
    radius: float,
    random: torch.Generator,
) -> Tensor:
    """The average of ``steps`` steps of SGD on g, each projected on the ball around where they start."""
    y, total = centre, torch.zeros_like(centre)
    for _ in range(steps):
        (slope,) = problem.gradients("lower", x, y, problem.batch("lower", random), "y")
        away = y - step_size * slope - centre
        far = length(away)
        y = centre + (away * (radius / far) if far > radius else away)
        total = total + y
    return total / steps


@dataclass(kw_only=True)
class BOREPState(BilevelState):
    """As `BilevelState`, with the momentum."""

    momentum: Tensor | None = None  # (size of x,); None before the first step


@dataclass(frozen=True)
class BOREP(BilevelMethod[BOREPState]):
    """Normalised momentum on x, a lower variable refined at the start and renewed every so often.

    For upper levels whose curvature grows with their gradient (recurrent networks, attention), where no fixed step of
    gradient descent fits; the lower level has to be strongly convex. Not for constrained or many-valued lower levels
    (`Penalty`), nor where y's solution has to be followed closely at each step (`AID`).

    Args:
        step_size: eta, exactly how far x moves each step.
        momentum: beta.
        inverse: of the hyper-gradient; by default ten terms of the Neumann series with the inner step size.
        period: I, steps between two renewals of y.
        inner_steps: N, steps of SGD of a renewal, averaged.
        inner_step_size: of SGD.
        radius: R, of the ball around y that a renewal stays in.
        refinement: what solves the lower level at the start; None takes y as it is.

    The metrics of a step are ``hypergradient``, the norm of the stochastic one, ``momentum``, that of m,
    ``stationarity``, what a step along the hyper-gradient would move x over its length, and ``lower_gap``, the norm of
    g's gradient in y.

    Cost per step: 2 gradients, the inverse's products, and N/I gradients.

    >>> import torch
    >>> from thalweg.bilevel import BOREP, Bilevel
    >>> from thalweg import Stop, solve
    >>> zero = torch.zeros(2)
    >>> problem = Bilevel(lambda x, y: (y - 1).square().sum(), lambda x, y: (y - x).square().sum(), zero, zero)
    >>> found = solve(problem, BOREP(0.01, inner_step_size=0.3), stop=Stop(steps=300))
    >>> torch.allclose(found.x.x, torch.ones(2), atol=0.1)
    True
    """

    step_size: float = 0.01
    momentum: float = 0.9
    inverse: Inverse | None = None
    period: int = 2
    inner_steps: int = 3
    inner_step_size: float = 0.1
    radius: float = math.inf
    refinement: EpochSGD | None = EpochSGD()

    def __post_init__(self) -> None:
        require_positive(self, "step_size", "inner_step_size")
        require_positive(self, "radius", infinite=True)
        require_momentum(self)
        require_counts(self, "period", "inner_steps")

    def init(self, problem: Bilevel, seed: int) -> BOREPState:
        require_free_lower(problem, self)
        first = begun(problem, seed)
        if self.refinement is not None:
            y, calls = self.refinement(problem, first.at_x, first.at_y, torch_generator(seed, 0x1217))
            first = begun_at(problem, first.at_x, y, seed, calls)
        return BOREPState(**vars(first))

    def step(self, problem: Bilevel, state: BOREPState) -> BOREPState:
        x, y, random, calls = state.at_x, state.at_y, state.stream(), 0
        if state.step > 0 and state.step % self.period == 0:
            y = ball_sgd(problem, x, y, self.inner_steps, self.inner_step_size, self.radius, random)
            calls += self.inner_steps
        inverse = self.inverse if self.inverse is not None else NeumannInverse(10, self.inner_step_size)
        found = hypergradient(problem, x, y, inverse, random)
        g, m = found.gradient, state.momentum
        m = g if m is None else self.momentum * m + (1.0 - self.momentum) * g
        size, eta = length(m), self.step_size
        new_x = problem.project("x", x - eta * m / size) if size > 0.0 else x
        return self.moved(
            problem,
            replace(state, momentum=m),
            new_x,
            y,
            calls=calls + found.calls,
            metrics={
                "hypergradient": length(g),
                "momentum": size,
                "stationarity": length(problem.project("x", x - eta * g) - x) / eta,
                "lower_gap": length(found.lower_gradient),
            },
        )
