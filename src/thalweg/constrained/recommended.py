"""The methods for equality constraints by name, and which of them suits a problem."""

from __future__ import annotations

from thalweg.constrained._arrays import DENSE
from thalweg.constrained.augmented_lagrangian import AugmentedLagrangian
from thalweg.constrained.inexact_sqp import InexactSQP
from thalweg.constrained.newton_sqp import NewtonSQP
from thalweg.constrained.problem import EqualityConstrained
from thalweg.constrained.sketched_newton import SketchedNewton
from thalweg.core import Method, recommended
from thalweg.numerics.sketch import BlockKaczmarz

#: The area's methods, by the names that tables and the command use.
METHODS: dict[str, type[Method]] = {
    "augmented-lagrangian": AugmentedLagrangian,
    "inexact-sqp": InexactSQP,
    "newton": NewtonSQP,
    "sketched-newton": SketchedNewton,
}


@recommended.register
def for_equalities(problem: EqualityConstrained) -> NewtonSQP | SketchedNewton:
    """Direct Newton; for many unknowns sketched Newton, by blocks of equations."""
    if problem.n + problem.m <= DENSE:
        return NewtonSQP()
    return SketchedNewton(BlockKaczmarz(blocks=problem.blocks), conditioning=1.0)
