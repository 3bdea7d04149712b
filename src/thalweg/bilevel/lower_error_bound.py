"""Whether a lower level has the error bound that the penalty methods need: distances to solutions over residuals."""

from __future__ import annotations

import warnings
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from thalweg.bilevel.method import BilevelState
from thalweg.bilevel.penalty_value import inner_solution
from thalweg.bilevel.problem import Bilevel
from thalweg.core import Run, Stop
from thalweg.core.seeding import torch_generator
from thalweg.core.validation import require, require_counts

#: Growth as a power of the penalty or distance beyond which a constant is no constant.
GROWTH = 0.25


class LowerErrorBoundFails(UserWarning):
    """``psi_s`` need not be smooth here, nor close to the bilevel objective: the error bound does not hold."""


@dataclass(frozen=True)
class LowerErrorBound:
    """What `lower_error_bound` measured at one x.

    Args:
        penalties: s, each one row.
        distances: from the solution, at which it was looked.
        ratios: distance to the solution set over the proximal residual, the largest of the samples, shape
            (penalties, distances). The error bound says that it is bounded.
        moves: ``|y_s - y_0| / s``, y_0 the solution for the smallest s: bounded, if solution sets are Lipschitz in s.
    """

    penalties: tuple[float, ...]
    distances: tuple[float, ...]
    ratios: NDArray[np.float64]
    moves: NDArray[np.float64]

    @property
    def constant(self) -> float:
        """An estimate of ``1/mu``: the largest ratio."""
        return float(self.ratios.max())

    @property
    def holds(self) -> bool:
        """Whether ratios stay bounded as distances and penalties fall, and the solutions move no faster than s."""
        with np.errstate(divide="ignore"):
            by_distance = max(-_slope(self.distances, row) for row in self.ratios)
            by_penalty = -_slope(self.penalties, self.ratios.max(1))
            moving = -_slope(self.penalties[:-1], self.moves[:-1])
        return bool(max(by_distance, by_penalty, moving) < GROWTH)


def lower_error_bound(
    problem: Bilevel,
    x: Tensor,
    y: Tensor | None = None,
    *,
    penalties: Sequence[float] = (0.1, 0.01, 0.001),
    distances: Sequence[float] = (1e-1, 1e-2, 1e-3),
    samples: int = 4,
    seed: int = 0,
    stop: Stop | None = None,
) -> LowerErrorBound:
    """Look whether the small-error proximal error bound holds at x, near a solution.

    The bound: where the proximal residual ``|y - P_Y(y - grad h_s(y))|`` is small, the solutions of ``h_s = s f + g``
    are no farther than a constant times it, the same for all small s. Here h_s is solved, the solution left in random
    directions, and the solver is run again from there: where it ends stands for the nearest solution.

    Args:
        x: a vector.
        y: where to start looking; by default the problem's y0.
        penalties, distances: where to look, falling.
        samples: directions.
        stop: of the inner solver.

    Cost: ``penalties x (1 + samples x distances)`` inner solves. It is an estimate from below: it can find that the
    bound fails, and not prove that it holds.

    >>> def upper(x, y): return (y - 1).square().sum()
    >>> def quadratic(x, y): return (y - x).square().sum()
    >>> def quartic(x, y): return (y - x).pow(4).sum()
    >>> zero = torch.zeros(1, dtype=torch.float64)
    >>> [lower_error_bound(Bilevel(upper, g, zero, zero), zero).holds for g in (quadratic, quartic)]
    [True, False]
    """
    require(
        len(penalties) >= 2 and len(distances) >= 2,
        "lower_error_bound needs two penalties and distances at least",
    )
    require(min(penalties) > 0, "lower_error_bound needs penalties > 0", got=min(penalties))
    require(samples >= 1, "lower_error_bound needs samples >= 1", got=samples)
    random = torch_generator(seed, 0xEB)
    at = problem.vector0("y") if y is None else y
    ratios, solutions = np.zeros((len(penalties), len(distances))), []
    for i, s in enumerate(penalties):
        at = inner_solution(problem, x, s, at, stop)
        solutions.append(at)
        for j, distance in enumerate(distances):
            for _ in range(samples):
                away = torch.randn(at.shape, generator=random, dtype=at.dtype).to(at.device)
                away = problem.project("y", at + distance * away / torch.linalg.vector_norm(away))
                nearest = inner_solution(problem, x, s, away, stop)
                residual = _residual(problem, x, s, away)
                far = float(torch.linalg.vector_norm(away - nearest))
                if far > 0.1 * distance:
                    ratios[i, j] = max(ratios[i, j], far / max(residual, 1e-300))
    limit = inner_solution(problem, x, min(penalties) * 1e-3, solutions[-1], stop)
    moves = [
        float(torch.linalg.vector_norm(v - limit)) / s for v, s in zip(solutions, penalties, strict=True)
    ]
    return LowerErrorBound(tuple(penalties), tuple(distances), ratios, np.array(moves))


class LowerErrorBoundMonitor:
    """A callback that looks for the error bound every so often, keeps what it saw, and warns where it fails.

    Args:
        every: steps between two looks.
        options: of `lower_error_bound`.
    """

    def __init__(self, every: int = 100, **options: object) -> None:
        self.every, self.options = every, options
        require_counts(self, "every")
        self.seen: dict[int, LowerErrorBound] = {}

    def __call__(self, run: Run[Bilevel, BilevelState]) -> None:
        """Look, if it is time."""
        if run.steps % self.every:
            return
        state = run.state
        found = lower_error_bound(run.problem, state.at_x, state.at_y, **self.options)  # type: ignore[arg-type]
        self.seen[run.steps] = found
        if not found.holds:
            warnings.warn(
                f"Step {run.steps}: the lower level's error bound fails (distance over residual {found.constant:.3g}). "
                "The penalised objective may jump or be far from the bilevel one here; regularise the lower level.",
                LowerErrorBoundFails,
                stacklevel=2,
            )


def _residual(problem: Bilevel, x: Tensor, s: float, y: Tensor) -> float:
    (g_y,) = problem.gradients("lower", x, y, problem.batch("lower", None), "y")
    (f_y,) = problem.gradients("upper", x, y, problem.batch("upper", None), "y")
    return float(torch.linalg.vector_norm(problem.project("y", y - g_y - s * f_y) - y))


def _slope(at: Sequence[float], values: NDArray[np.float64]) -> float:
    """Log-log slope, zero where there is nothing to see."""
    seen = np.asarray(values) > 1e-6
    if seen.sum() < 2:
        return 0.0
    return float(np.polyfit(np.log(np.asarray(at)[seen]), np.log(np.asarray(values)[seen]), 1)[0])
