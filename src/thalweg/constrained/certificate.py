"""What can be said of an answer: feasibility, multipliers, curvature."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import ArrayLike, NDArray

from thalweg.constrained._arrays import DENSE
from thalweg.constrained.curvature import dependent_rows, reduced_curvature, smallest_square
from thalweg.constrained.problem import EqualityConstrained, fitted_multipliers, residuals
from thalweg.core.validation import check_vector


@dataclass(frozen=True)
class OptimalityCertificate:
    """The optimality conditions at a point, each with its number.

    Args:
        value: f(x).
        stationarity: ``|f'(x) + G'lambda|``.
        feasibility: ``|c(x)|``.
        multipliers: lambda of least squares; ``-lambda_i`` is how fast the optimum changes with the right side of
            ``c_i = t``.
        smallest: the smallest squared singular value of G.
        dependent: constraints whose gradients follow from the others'.
        curvature: the smallest eigenvalue of the Lagrangian's Hessian along the constraints; infinity where they
            leave no direction.
    """

    value: float
    stationarity: float
    feasibility: float
    multipliers: NDArray[np.float64]
    smallest: float
    dependent: tuple[int, ...]
    curvature: float

    def minimum(self, tol: float = 1e-6) -> bool:
        """Whether this is a strict local minimum by the second-order conditions, to ``tol``."""
        return max(self.stationarity, self.feasibility) <= tol and self.curvature > 0.0

    def __str__(self) -> str:
        lines = [
            f"f(x)                     {self.value:.8g}",
            f"|c(x)|                   {self.feasibility:.3g}",
            f"|f' + G'lambda|          {self.stationarity:.3g}",
            f"curvature on constraints {self.curvature:.3g}",
            f"multipliers              {np.array2string(self.multipliers, precision=5, threshold=8)}",
        ]
        if self.dependent:
            lines.append(
                f"dependent constraints    {', '.join(map(str, self.dependent))}: multipliers are not unique"
            )
        return "\n".join(lines)


def certify(problem: EqualityConstrained, x: ArrayLike) -> OptimalityCertificate:
    """Check the first- and second-order conditions at x.

    Cost: a Jacobian, a Hessian, and for up to 1000 unknowns their dense factorizations.

    >>> circle = EqualityConstrained.from_formulas("x1 + x2", ["x1**2 + x2**2 - 2"], [-1.5, -0.5])
    >>> certify(circle, [-1.0, -1.0]).minimum(), certify(circle, [1.0, 1.0]).minimum()
    (True, False)
    """
    point = problem.at(check_vector("x", x, problem.n))
    multipliers = fitted_multipliers(point)
    found, G = residuals(point, multipliers), point.G
    smallest = smallest_square(G)
    return OptimalityCertificate(
        value=point.value,
        stationarity=found["stationarity"],
        feasibility=found["feasibility"],
        multipliers=multipliers * problem.unit / problem.units,
        smallest=smallest,
        dependent=tuple(dependent_rows(G)) if smallest < 1e-8 and max(G.shape) <= DENSE else (),
        curvature=reduced_curvature(problem.curvature(point.x, multipliers), G),
    )
