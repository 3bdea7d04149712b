"""Newton's method for smooth inner problems."""

from __future__ import annotations

from dataclasses import dataclass

import torch

from thalweg.bilevel.composite import SHRINK, TRIALS, Composite, InnerMethod, InnerState, no_prox
from thalweg.core import InvalidProblem
from thalweg.core.validation import require


@dataclass(frozen=True)
class Newton(InnerMethod[InnerState]):
    """Newton's method with the whole Hessian, its steps halved until f falls; for smooth problems of tens of unknowns.

    Cost per step: the Hessian and a solve, n^3 operations.

    >>> from thalweg import Stop, solve
    >>> problem = Composite(lambda x, a: (x.exp() - a * x).sum(), torch.zeros(2), torch.tensor([1.0, 2.0]))
    >>> solve(problem, Newton(), stop=Stop(below={"residual": 1e-6})).x
    tensor([0.0000, 0.6931])
    """

    def init(self, problem: Composite, seed: int) -> InnerState:
        require(problem.prox is no_prox, "Newton is for smooth problems, without prox", error=InvalidProblem)
        gradient, _ = problem.gradient(problem.vector0)
        return self._begun(problem, gradient.abs().max())

    def step(self, problem: Composite, state: InnerState) -> InnerState:
        gradient, value = problem.gradient(state.at)
        # twice in reverse: forward mode within autograd's forward mode is not to be had
        hessian = torch.func.jacrev(torch.func.jacrev(problem.value))(state.at)
        direction = torch.linalg.solve(hessian, gradient)
        if float((direction @ gradient).detach()) <= 0.0:
            direction = gradient  # not convex here
        size = 1.0
        for _ in range(TRIALS):
            new = state.at - size * direction
            lower = problem.value(new) <= value - 1e-4 * size * (direction @ gradient)
            if bool(lower.detach()) or float((size * direction).detach().abs().max()) < 1e-14:
                break
            size /= SHRINK
        slope, value = problem.gradient(new)
        return self._moved(problem, state, new, value, slope.abs().max())
