"""Which level of a bilevel run diverges: the lower one is tried alone, at a fixed upper variable."""

from __future__ import annotations

from typing import Literal, TypeAlias

import torch
from torch import Tensor

from thalweg.bilevel.problem import Bilevel
from thalweg.core import NotFinite

Cause: TypeAlias = Literal["lower", "moved", "penalised", "upper"]

#: Gradient steps after which the lower level's gradient has to be shorter.
TRIAL = 20


def settles(problem: Bilevel, x: Tensor, y: Tensor, step_size: float, penalty: float | None = None) -> bool:
    """Whether gradient steps on g, or on ``s f + g``, at a fixed x, shorten the step, or stand still to rounding."""

    def moved(y: Tensor) -> Tensor:
        (slope,) = problem.gradients("lower", x, y, problem.batch("lower", None), "y")
        if penalty is not None:
            (more,) = problem.gradients("upper", x, y, problem.batch("upper", None), "y")
            slope = slope + penalty * more
        return problem.project("y", y - step_size * slope)

    def last_step(y: Tensor, steps: int) -> tuple[Tensor, float]:
        before = y
        for _ in range(steps):
            before, y = y, moved(y)
        return y, float(torch.linalg.vector_norm(y - before))

    try:
        _, first = last_step(y, 1)
        end, last = last_step(y, TRIAL + 1)
    except NotFinite:
        return False
    rounding = 8.0 * torch.finfo(y.dtype).eps * float(torch.linalg.vector_norm(end))
    return last < (1.0 - 1e-9) * first or last <= rounding


def cause_of_growth(
    problem: Bilevel,
    before: tuple[Tensor, Tensor],
    *,
    step_size: float,
    penalty: float | None,
    upper_grows: bool,
) -> Cause | None:
    """What made a variable grow in a step from ``before``, x and y; None where nothing says that it diverges.

    Args:
        step_size, penalty: of the lower level, the method's.
        upper_grows: whether the steps of x grow longer, or are not finite.
    """
    x, y = before
    if not settles(problem, x, y, step_size):
        return "moved" if settles(problem, problem.vector0("x"), y, step_size) else "lower"
    if penalty is not None and not settles(problem, x, y, step_size, penalty):
        return "penalised"
    return "upper" if upper_grows else None


MESSAGES: dict[Cause, str] = {
    "lower": "the lower level's variable grew to {y:.3g} after {steps} steps: it is unbounded below, or its step too "
    "long. Regularise it, or take a smaller inner_step_size.",
    "moved": "the lower level's variable grew to {y:.3g} after {steps} steps: the lower level settles where x began "
    "and not where x has come to. Take a smaller step_size, or a smaller inner_step_size.",
    "penalised": "the lower level's variable grew to {y:.3g} after {steps} steps: the lower level settles alone, and "
    "with the penalty s f added it does not. Take a smaller penalty, or a smaller inner_step_size.",
    "upper": "the upper level's variable grew to {x:.3g} after {steps} steps, and the lower level settles where it is "
    "tried alone: the upper step is too long, or the upper level unbounded below. Take a smaller step_size.",
}
