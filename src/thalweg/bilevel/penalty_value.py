"""The penalised objective ``psi_s``: its value and gradient, and how far from its stationary points an answer is.

Kwon, Kwon, Wright and Nowak (2024), arXiv 2309.01753.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from thalweg.bilevel.composite import Composite
from thalweg.bilevel.method import length
from thalweg.bilevel.problem import Bilevel, Name
from thalweg.bilevel.proximal_gradient import ProximalGradient
from thalweg.core import InvalidProblem, Status, Stop, solve
from thalweg.core.validation import require


def outer_gradient(
    problem: Bilevel, x: Tensor, y: Tensor, z: Tensor, s: float, random: torch.Generator | None
) -> Tensor:
    """``grad_x f(x, y) + (grad_x g(x, y) - grad_x g(x, z)) / s``."""
    upper, lower = problem.batch("upper", random), problem.batch("lower", random)
    (f_x,) = problem.gradients("upper", x, y, upper, "x")
    (g_x,) = problem.gradients("lower", x, y, lower, "x")
    (g_x_low,) = problem.gradients("lower", x, z, lower, "x")
    return f_x + (g_x - g_x_low) / s


@dataclass(frozen=True)
class PenaltyCertificate:
    """How far from stationary a point of the penalised problem is; all zero at a solution.

    Args:
        stationarity: ``|x - P_X(x - a grad psi_s)| / a``, a the step size.
        penalised_gap: the same of ``s f + g`` in y.
        lower_gap: the same of g in z.
    """

    stationarity: float
    penalised_gap: float
    lower_gap: float


def penalty_certificate(
    problem: Bilevel, x: Tensor, y: Tensor, z: Tensor, penalty: float, step_size: float = 1e-3
) -> PenaltyCertificate:
    """The certificate of three vectors, on all the data, with steps of ``step_size``. Cost: six gradients."""
    require(penalty > 0, "penalty_certificate needs penalty > 0", got=penalty)
    upper, lower = problem.batch("upper", None), problem.batch("lower", None)
    (f_y,) = problem.gradients("upper", x, y, upper, "y")
    (g_y,) = problem.gradients("lower", x, y, lower, "y")
    (g_z,) = problem.gradients("lower", x, z, lower, "y")

    def gap(name: Name, at: Tensor, slope: Tensor) -> float:
        return length(problem.project(name, at - step_size * slope) - at) / step_size

    return PenaltyCertificate(
        gap("x", x, outer_gradient(problem, x, y, z, penalty, None)),
        gap("y", y, penalty * f_y + g_y),
        gap("y", z, g_z),
    )


@dataclass(frozen=True)
class PenaltyValue:
    """``psi_s`` at x: its value and gradient, and the solutions of ``s f + g`` and of g that they are made of."""

    value: float
    gradient: Tensor
    y: Tensor
    z: Tensor


def penalty_value(
    problem: Bilevel, x: Tensor, penalty: float, y: Tensor | None = None, stop: Stop | None = None
) -> PenaltyValue:
    """``psi_s`` and its gradient, by solving both inner problems accurately with FISTA on all the data.

    Args:
        x: a vector.
        y: where the inner solvers begin; by default the problem's y0.
        stop: of the inner solvers; by default at a residual of 1e-10, or after 20 000 steps.

    Raises:
        InvalidProblem: an inner problem has no minimum that the solver could find.
    """
    require(penalty > 0, "penalty_value needs penalty > 0", got=penalty)
    y0 = problem.vector0("y") if y is None else y
    y_s = inner_solution(problem, x, penalty, y0, stop)
    z = inner_solution(problem, x, 0.0, y0, stop)
    lower = problem.batch("lower", None)
    with torch.no_grad():
        f = problem.value("upper", x, y_s, problem.batch("upper", None))
        rise = problem.value("lower", x, y_s, lower) - problem.value("lower", x, z, lower)
    gradient = outer_gradient(problem, x, y_s, z, penalty, None)
    return PenaltyValue(float(f + rise / penalty), gradient, y_s, z)


def inner_solution(
    problem: Bilevel, x: Tensor, penalty: float, y0: Tensor, stop: Stop | None = None
) -> Tensor:
    """The minimiser of ``penalty f + g`` at x, accurately, from y0."""
    upper, lower = problem.batch("upper", None), problem.batch("lower", None)

    def f(y: Tensor, _: None) -> Tensor:
        value = problem.value("lower", x, y, lower)
        return value + penalty * problem.value("upper", x, y, upper) if penalty else value

    inner = Composite(f, y0, prox=lambda y, _, scale: problem.project("y", y))
    found = solve(
        inner,
        ProximalGradient(),
        stop=stop if stop is not None else Stop(below={"residual": 1e-10}, steps=20_000),
        progress=False,
    )
    if found.status is Status.DIVERGED or not bool(torch.isfinite(found.x).all()):
        raise InvalidProblem("The lower level is unbounded below: its minimisation diverged.")
    return torch.as_tensor(found.x)
