"""Exponentiated gradient for the inner problem over simplices."""

from __future__ import annotations

from dataclasses import dataclass, replace

from torch import Tensor
from torch.utils import _pytree as pytree

from thalweg.bilevel._trees import vector
from thalweg.bilevel.composite import (
    SHRINK,
    TRIALS,
    Composite,
    InnerMethod,
    InnerState,
    no_prox,
    slack,
)
from thalweg.core import InvalidProblem
from thalweg.core.validation import require, require_positive


@dataclass(kw_only=True)
class MirrorState(InnerState):
    """As `InnerState`, with the logarithms of x."""

    logs: Tensor  # (size of x,)
    step_size: float


@dataclass(frozen=True)
class MirrorDescent(InnerMethod[MirrorState]):
    """Exponentiated gradient: mirror descent over simplices (of the last axis), in the Kullback-Leibler geometry.

    The problem has to know its simplices, too: its ``prox`` is the projection onto them.

    Args:
        step_size: a number; by default found by backtracking on the bound that the divergence gives.

    Raises:
        InvalidProblem: a problem without ``prox``, or a start outside the simplices or on their boundary.

    Cost per step: one gradient; with backtracking values of f as needed.

    >>> import torch
    >>> from thalweg import Stop, solve
    >>> from thalweg.numerics.projections import simplex
    >>> costs, x0 = torch.tensor([1.0, 0.5, 2.0]), torch.full((3,), 1.0 / 3.0)
    >>> problem = Composite(
    ...     lambda p, c: c @ p + 0.1 * (p * p.log()).sum(), x0, costs, lambda p, theta, scale: simplex(p)
    ... )
    >>> found = solve(problem, MirrorDescent(), stop=Stop(below={"residual": 1e-4}))
    >>> found.status.name, torch.allclose(found.x, (-costs / 0.1).softmax(0), atol=1e-4)
    ('CONVERGED', True)
    """

    step_size: float | None = None

    def __post_init__(self) -> None:
        if self.step_size is not None:
            require_positive(self, "step_size")

    def init(self, problem: Composite, seed: int) -> MirrorState:
        require(
            problem.prox is not no_prox,
            "MirrorDescent needs a problem whose prox is the projection onto its simplices, such as "
            "prox=lambda y, theta, scale: simplex(y).",
            error=InvalidProblem,
        )
        for leaf in pytree.tree_leaves(problem.x0):
            inside = bool((leaf > 0).all()) and bool((leaf.sum(-1) - 1.0).abs().max() < 1e-5)
            require(
                inside,
                "MirrorDescent starts inside the simplex: positive, summing to one",
                error=InvalidProblem,
            )
        begun = self._begun(problem)
        return MirrorState(**vars(begun), logs=begun.at.log(), step_size=self.step_size or 1.0)

    def step(self, problem: Composite, state: MirrorState) -> MirrorState:
        logs, size = state.logs, state.step_size
        gradient, value = problem.gradient(state.at)
        for _ in range(TRIALS):
            moved = pytree.tree_map(lambda t: t.log_softmax(-1), problem.tree(logs - size * gradient))
            new_logs = vector(moved)
            new = new_logs.exp()
            if self.step_size is not None:
                break
            model = value + gradient @ (new - state.at) + (new * (new_logs - logs)).sum() / size
            if float((problem.value(new) - model).detach()) <= slack(value):
                break
            size /= SHRINK
        after = replace(state, logs=new_logs, step_size=size)
        return self._moved(problem, after, new, value, (new - state.at).abs().max() / size)
