"""Proximal gradient descent for the inner problem, accelerated."""

from __future__ import annotations

import math
from dataclasses import dataclass, replace

from torch import Tensor

from thalweg.bilevel.composite import SHRINK, TRIALS, Composite, InnerMethod, InnerState, slack
from thalweg.core.validation import require_positive


@dataclass(kw_only=True)
class AcceleratedState(InnerState):
    """As `InnerState`, with the extrapolated point that the next step is taken from."""

    ahead: Tensor  # (size of x,)
    momentum: float
    step_size: float


@dataclass(frozen=True)
class ProximalGradient(InnerMethod[AcceleratedState]):
    """Proximal gradient descent, accelerated (FISTA; Beck and Teboulle, 2009) and restarted (O'Donoghue, Candes, 2015).

    With a projection for ``prox`` it is projected gradient descent, with none gradient descent.

    Args:
        step_size: a number; by default found by backtracking, from one on.
        accelerated: False for the plain method.

    Cost per step: one gradient; with backtracking values of f and proximal operators as needed.

    >>> import torch
    >>> from thalweg import Stop, solve
    >>> problem = Composite(lambda x, y: 0.5 * (x - y).square().sum(), torch.zeros(2), torch.ones(2))
    >>> solve(problem, ProximalGradient(), stop=Stop(below={"residual": 1e-6})).x
    tensor([1., 1.])
    """

    step_size: float | None = None
    accelerated: bool = True

    def __post_init__(self) -> None:
        if self.step_size is not None:
            require_positive(self, "step_size")

    def init(self, problem: Composite, seed: int) -> AcceleratedState:
        begun = self._begun(problem)
        return AcceleratedState(**vars(begun), ahead=begun.at, momentum=1.0, step_size=self.step_size or 1.0)

    def step(self, problem: Composite, state: AcceleratedState) -> AcceleratedState:
        ahead, size = state.ahead, state.step_size
        gradient, value = problem.gradient(ahead)
        for _ in range(TRIALS):
            new = problem.proximal(ahead - size * gradient, size)
            move = new - ahead
            if self.step_size is not None:
                break
            model = value + gradient @ move + move.square().sum() / (2.0 * size)
            if float((problem.value(new) - model).detach()) <= slack(value):
                break
            size /= SHRINK
        momentum = state.momentum
        following = 0.5 * (1.0 + math.sqrt(1.0 + 4.0 * momentum**2)) if self.accelerated else 1.0
        push = (momentum - 1.0) / following if self.accelerated else 0.0
        if self.accelerated and float((-move @ (new - state.at)).detach()) > 0.0:
            following, push = 1.0, 0.0  # it goes the wrong way: start over
        ahead = new + push * (new - state.at)
        after = replace(state, ahead=ahead, momentum=following, step_size=size)
        return self._moved(problem, after, new, value, move.abs().max() / size)
