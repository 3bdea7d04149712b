"""One call of a decorated solver: the condition at its arguments, and what is told where a derivative is not right."""

from __future__ import annotations

import math
import warnings
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import TypeAlias

import torch
from torch import Tensor
from torch.utils import _pytree as pytree

from thalweg.bilevel._trees import Tree, TreeFunction, filled
from thalweg.core import InvalidProblem, NotFinite
from thalweg.numerics.torch_krylov import LinearSolver, Product

#: Takes x, a pytree, and theta; gives a pytree like x, zero at the solution.
Condition: TypeAlias = Callable[..., Tree]


class NotARoot(UserWarning):
    """What the solver returned does not satisfy the condition well: derivatives are off by about as much."""


class SolveInaccurate(UserWarning):
    """The linear system of a derivative was not solved to its tolerance: it may be singular; a ridge helps."""


@dataclass
class Call:
    """One call of a decorated solver: what is not a tensor, and how the tensors go together."""

    F: Condition
    solver: TreeFunction
    linear: LinearSolver
    leaves: list[Tree]
    structure: pytree.TreeSpec
    has_aux: bool
    tol: float
    x_structure: pytree.TreeSpec = field(init=False)  # known once the solver has run
    aux: Tree = None

    def arguments(self, tensors: Sequence[Tensor]) -> tuple[Tree, tuple[Tree, ...]]:
        """x0 and theta with these tensors in their places."""
        x0, theta = pytree.tree_unflatten(filled(self.leaves, tensors), self.structure)
        return x0, tuple(theta)

    def check(self, value: Tensor) -> None:
        """Warn, once, where the solver's solution is no root: told with the derivative, which has F's value anyway.

        Raises:
            NotFinite: the condition is NaN or infinite there.
        """
        worst = float(value.abs().max()) if value.numel() else 0.0
        if not math.isfinite(worst):
            raise NotFinite(
                "The condition is not finite at the solver's solution, so it has no derivative there: the solver may "
                "have returned NaN. Look at what it returns, or at F."
            )
        if not worst <= self.tol:
            warnings.warn(
                f"The solver's solution leaves a residual of {worst:.3g} in the condition (tolerance "
                f"{self.tol:.3g}): derivatives are off. Solve more accurately, or check F.",
                NotARoot,
                stacklevel=2,
            )
            self.tol = math.inf

    def solved(self, A: Product, b: Tensor, transposed: Product) -> Tensor:
        """The linear solver's solution; warns where it is inaccurate."""
        solution = self.linear(A, b, transposed)
        if not solution.residual <= max(100.0 * self.linear.tol, 1e3 * torch.finfo(b.dtype).eps):
            warnings.warn(
                f"The linear system of a derivative was solved to a relative residual of {solution.residual:.3g} only. "
                "The condition's Jacobian may be singular: LinearSolver(ridge=...) regularises it.",
                SolveInaccurate,
                stacklevel=2,
            )
        return solution.x

    def value(self, tensors: Sequence[Tensor], x: Sequence[Tensor]) -> list[Tensor]:
        """F at x, a tensor for each leaf."""
        _, theta = self.arguments(tensors)
        told = pytree.tree_leaves(self.F(pytree.tree_unflatten(list(x), self.x_structure), *theta))
        if [t.shape for t in told] != [leaf.shape for leaf in x]:
            raise InvalidProblem(
                f"The condition's value has shapes {[tuple(t.shape) for t in told]}; expected those of x, "
                f"{[tuple(leaf.shape) for leaf in x]}."
            )
        return told
