"""Linear programs as saddle points, and what to say where they have no solution."""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import ArrayLike, NDArray
from scipy.optimize import nnls
from torch import Tensor

from thalweg.core import InvalidProblem
from thalweg.core.validation import is_real, require
from thalweg.equilibrium._tensors import as_tensor, unit_of
from thalweg.equilibrium.operators import Bilinear
from thalweg.equilibrium.problem import MonotoneInclusion
from thalweg.numerics.projections import l2_ball, nonnegative

#: Programs of up to this many unknowns and constraints are looked at for a proof that they have no solution.
PROVABLE = 2000
#: The default ball, in units of the data: well beyond the solutions of programs that are not degenerate.
BALL = 1e3


@dataclass(frozen=True, eq=False, kw_only=True)
class LinearProgram(MonotoneInclusion):
    """What `linear_program` makes: a `MonotoneInclusion` that knows its data, and judges without the ball.

    Its ``residual`` is that of the program itself, x in units of ``max|b| / max|A|`` and y in units of
    ``max|c| / max|A|``: an answer that only the ball holds back is no solution, whatever the units of the data.
    """

    c: Tensor
    A: Tensor
    b: Tensor
    units: tuple[float, float]  # of x and of y
    costs: tuple[float, float]  # of F's parts: the units of c and of b
    radii: tuple[float, float]  # of the balls

    def natural_residual(self, u: Tensor, value: Tensor | None = None) -> float:
        """``|u - (u - F(u))_+|`` in the units of the class."""
        value = self.components.full(u) if value is None else value
        scaled = self._over(u, self.units)
        return float(torch.linalg.vector_norm(scaled - nonnegative(scaled - self._over(value, self.costs))))

    def hopeless(self, u: Tensor) -> str:
        """Where u is at the border of the ball: whether the program is infeasible or unbounded, or the ball small."""
        n = len(self.c)
        parts = zip((u[:n], u[n:]), self.radii, strict=True)
        shares = [float(torch.linalg.vector_norm(v / radius)) for v, radius in parts]  # no square overflows
        if max(shares) < 0.999:
            return ""
        proof = self._proof() if sum(self.A.shape) <= PROVABLE else ""
        if proof:
            return proof
        step = self._over(
            self._over(self.components.full(u), self.costs), (1 / self.units[0], 1 / self.units[1])
        )
        moved = self._over(u - self.resolvent(u - step, 1.0), self.units)
        if float(torch.linalg.vector_norm(moved)) > 1e-6 * BALL:
            return ""
        return (
            f"The answer lies on the ball that x and y are kept in (|x| = {shares[0] * self.radii[0]:.3g}, |y| = "
            f"{shares[1] * self.radii[1]:.3g}): it solves no linear program. Give a larger radius; if it comes to lie "
            "there again, there is no solution."
        )

    def _proof(self) -> str:
        """Farkas' lemma: directions that no solution withstands, by non-negative least squares."""
        A, b, c = (np.asarray((v / unit_of(v)).cpu().double()) for v in (self.A, self.b, self.c))
        m, n = A.shape
        if _has_ray(np.c_[A.T, np.eye(n)], np.r_[b, np.zeros(n)]):
            return "The linear program is infeasible: no x >= 0 meets A x >= b. Check the signs of A and b."
        if _has_ray(np.c_[A, -np.eye(m)], np.r_[-c, np.zeros(m)]):
            return (
                "The linear program is unbounded: x can grow in a direction that keeps A x >= b and lowers c'x. Check "
                "the signs of c, or add the constraint that bounds it."
            )
        return ""

    def _over(self, u: Tensor, units: tuple[float, float]) -> Tensor:
        """u with its two parts divided by theirs."""
        n = len(self.c)
        return torch.cat([u[:n] / units[0], u[n:] / units[1]])


def linear_program(
    c: ArrayLike | Tensor, A: ArrayLike | Tensor, b: ArrayLike | Tensor, radius: float | None = None
) -> LinearProgram:
    """``min c'x, A x >= b, x >= 0`` as the saddle point of ``c'x + y'(b - A x)`` over ``x, y >= 0``.

    Args:
        c, A, b: shapes (n,), (m, n), (m,); tensors, arrays or lists.
        radius: of a ball that x and y are kept in, so that the set is bounded: larger than any solution. By default
            1000 times ``max|b| / max|A|`` for x, and ``max|c| / max|A|`` for y.

    u is x, shape (n,), and the multipliers y, shape (m,), in one vector. Components are A's rows and columns, as in a
    game. Answers are judged by ``value`` and the largest ``violation`` of ``A x >= b`` too. `PDHG` is made for them;
    for an exact vertex take SciPy's HiGHS.

    A run that comes to lie on the ball ends as DIVERGED with a message: infeasible or unbounded, where non-negative
    least squares find the proof (up to 2000 unknowns and constraints), or a ball too small.

    Raises:
        InvalidProblem: shapes that do not fit, a radius that is not positive.
        NotFinite: NaN or infinity in the data.

    >>> from thalweg import solve
    >>> program = linear_program([3.0, 2.0, 4.0], [[1.0, 1.0, 0.0], [0.0, 1.0, 2.0]], [2.0, 3.0])
    >>> round(solve(program).metrics["value"], 4)
    6.0
    """
    matrix = as_tensor("A", A, "m", "n")
    cost, least = as_tensor("c", c, "n").to(matrix), as_tensor("b", b, "m").to(matrix)
    m, n = matrix.shape
    if cost.shape != (n,) or least.shape != (m,):
        raise InvalidProblem(
            f"linear_program needs c of shape ({n},) and b of shape ({m},); got {tuple(cost.shape)}, "
            f"{tuple(least.shape)}."
        )
    fits = radius is None or (is_real(radius) and 0 < radius < math.inf)
    require(fits, "linear_program needs radius > 0", got=radius, error=InvalidProblem)
    costs = unit_of(cost), unit_of(least)
    units = costs[1] / unit_of(matrix), costs[0] / unit_of(matrix)
    of_x, of_y = (BALL * unit for unit in units) if radius is None else (radius, radius)

    def resolvent(v: Tensor, step: float) -> Tensor:
        return torch.cat([_held(v[:n], of_x), _held(v[n:], of_y)])

    def judge(u: Tensor) -> dict[str, float]:
        x = u[:n]
        return {"value": float(cost @ x), "violation": float((least - matrix @ x).clamp_min(0.0).max())}

    return LinearProgram(
        Bilinear(-matrix.T, torch.cat([cost, -least])),  # x' (-A') y
        torch.zeros(n + m).to(matrix),
        resolvent,
        judge=judge,
        c=cost,
        A=matrix,
        b=least,
        units=units,
        costs=costs,
        radii=(of_x, of_y),
    )


def _held(v: Tensor, radius: float) -> Tensor:
    """The nearest ``v >= 0`` of the ball, no square of which overflows."""
    return radius * l2_ball(nonnegative(v / radius))


def _has_ray(rows: NDArray[np.float64], rises: NDArray[np.float64]) -> bool:
    """Whether some ``v >= 0`` has ``rows v = 0`` and ``rises'v = 1``."""
    target = np.zeros(len(rows) + 1)
    target[-1] = 1.0
    try:
        _, off = nnls(np.r_[rows, rises[None]], target)
    except RuntimeError:  # out of rounds: nothing is proved
        return False
    return bool(off <= 1e-9)
