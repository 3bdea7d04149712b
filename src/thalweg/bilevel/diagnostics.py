"""What to look at along a bilevel run: local smoothness beside the gradient's size, and the lower level's error."""

from __future__ import annotations

import numpy as np
import torch

from thalweg.bilevel.method import BilevelState, length
from thalweg.bilevel.penalty_value import inner_solution
from thalweg.bilevel.problem import Bilevel
from thalweg.core import Run, Stop
from thalweg.core.validation import require, require_counts


class SmoothnessMonitor:
    """A callback: local smoothness of f in x, and its gradient's norm, along the path of x.

    Where the one grows with the other, f is not smooth but ``(L0, L1)``-smooth, and methods with fixed steps for x are
    in trouble: take `BOREP`. Zhang et al. (2020), figure 1.

    Args:
        every: steps between two places.

    Between two places y is held fixed. Cost: two gradients on all of f's data every so often.
    """

    def __init__(self, every: int = 1) -> None:
        self.every = every
        require_counts(self, "every")
        self.gradients: list[float] = []
        self.smoothness: list[float] = []
        self._last: tuple[torch.Tensor, torch.Tensor, torch.Tensor] | None = None

    def __call__(self, run: Run[Bilevel, BilevelState]) -> None:
        """Look, if it is time."""
        if run.steps % self.every:
            return
        problem, state = run.problem, run.state
        batch = problem.batch("upper", None)
        if self._last is not None:
            x, y, slope = self._last
            move = length(state.at_x - x)
            if move > 0.0:
                (now,) = problem.gradients("upper", state.at_x, y, batch, "x")
                self.gradients.append(length(slope))
                self.smoothness.append(length(now - slope) / move)
        (slope,) = problem.gradients("upper", state.at_x, state.at_y, batch, "x")
        self._last = (state.at_x, state.at_y, slope)

    @property
    def fit(self) -> tuple[float, float]:
        """Least-squares ``(L0, L1)`` of ``smoothness = L0 + L1 gradient``."""
        require(
            len(self.gradients) >= 2,
            "SmoothnessMonitor.fit needs three places at least",
            got=len(self.gradients),
        )
        slope, offset = np.polyfit(self.gradients, self.smoothness, 1)
        return float(offset), float(slope)


class LowerErrorMonitor:
    """A callback: ``|y - y*(x)|`` every so often, y* by an accurate solver.

    Args:
        every: steps between two looks; a method's period shows the error just after y was renewed.
        stop: of the solver.
    """

    def __init__(self, every: int = 1, stop: Stop | None = None) -> None:
        self.every, self.stop = every, stop
        require_counts(self, "every")
        self.errors: dict[int, float] = {}

    def __call__(self, run: Run[Bilevel, BilevelState]) -> None:
        """Look, if it is time."""
        if run.steps % self.every:
            return
        state = run.state
        solution = inner_solution(run.problem, state.at_x, 0.0, state.at_y, self.stop)
        self.errors[run.steps] = length(state.at_y - solution)
