"""The inner problem, ``min_x f(x, theta_f) + g(x, theta_g)``, and what its methods share."""

from __future__ import annotations

import functools
import math
from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import TypeVar

import torch
from torch import Tensor
from torch.utils import _pytree as pytree

from thalweg.bilevel._trees import Tree, TreeFunction, ravel, unravel, vector
from thalweg.core import InvalidProblem, Method, NotFinite, Problem, State, Stop

#: Backtracking: what a step is divided by, and how often at most.
SHRINK, TRIALS = 2.0, 60


def no_prox(y: Tree, theta: Tree, scale: float) -> Tree:
    """The proximal operator of zero."""
    return y


@dataclass(frozen=True, eq=False)
class Composite(Problem):
    """``min_x f(x, theta_f) + g(x, theta_g)``: f smooth, g with a proximal operator, x a pytree of tensors.

    Args:
        f: gives a scalar tensor.
        x0: where to begin.
        theta_f: f's parameters, a pytree.
        prox: ``prox(y, theta_g, scale)``, of `thalweg.numerics.prox`, or a projection; by default g is zero.
        theta_g: g's parameters.

    The metrics of an answer are ``objective``, f alone, and ``residual``, the largest entry of
    ``x - prox(x - grad f(x))``, zero at a solution.

    Raises:
        InvalidProblem: x0 holds no floating-point tensors.
    """

    f: Callable[..., Tensor]
    x0: Tree
    theta_f: Tree = None
    prox: TreeFunction = no_prox
    theta_g: Tree = None

    def __post_init__(self) -> None:
        leaves = pytree.tree_leaves(self.x0)
        if not leaves or not all(isinstance(t, Tensor) and t.is_floating_point() for t in leaves):
            raise InvalidProblem("Composite needs x0 to be floating-point tensors, or a pytree of them.")

    @functools.cached_property
    def _parts(self) -> tuple[list[Tensor], pytree.TreeSpec]:
        return pytree.tree_flatten(self.x0)

    @property
    def vector0(self) -> Tensor:
        """Where to begin as one vector."""
        return ravel(self._parts[0])

    def tree(self, x: Tensor) -> Tree:
        """A vector as a pytree like x0."""
        return pytree.tree_unflatten(unravel(x, self._parts[0]), self._parts[1])

    def value(self, x: Tensor) -> Tensor:
        """f at a vector."""
        return self.f(self.tree(x), self.theta_f)

    def gradient(self, x: Tensor) -> tuple[Tensor, Tensor]:
        """Gradient of f at a vector, and f."""
        gradient, value = torch.func.grad_and_value(self.value)(x)
        return gradient, value

    def proximal(self, y: Tensor, scale: float | Tensor) -> Tensor:
        """The proximal operator at a vector."""
        return vector(self.prox(self.tree(y), self.theta_g, scale))

    def recommended_stop(self) -> Stop:
        """A residual of the square root of the dtype's rounding: 1.5e-8 in float64."""
        return Stop(below={"residual": float(torch.finfo(self.vector0.dtype).eps) ** 0.5})

    def metrics(self, x: Tree) -> dict[str, float]:
        """``objective`` and ``residual``."""
        at = vector(x)
        gradient, value = self.gradient(at)
        gap = at - self.proximal(at - gradient, 1.0)
        return {"objective": float(value.detach()), "residual": float(gap.detach().abs().max())}


@dataclass(kw_only=True)
class InnerState(State):
    """``x`` is the answer as a pytree, ``at`` as a vector; ``calls`` counts gradients of f."""

    at: Tensor  # (size of x,)


S = TypeVar("S", bound=InnerState)


class InnerMethod(Method[Composite, S]):
    """Base of the methods for `Composite`: every operation of a step can be differentiated."""

    def _begun(self, problem: Composite, residual: Tensor | None = None) -> InnerState:
        """At x0; the residual is infinite where the method does not know it yet."""
        at = problem.vector0
        known = at.new_tensor(math.inf) if residual is None else residual
        return InnerState(x=problem.x0, at=at, metrics=_judged(problem.value(at), known, 0))

    def _moved(self, problem: Composite, state: S, at: Tensor, value: Tensor, residual: Tensor) -> S:
        """The state at a new vector, one gradient later; ``value`` is f's, there or at the place before."""
        calls = state.calls + 1
        return replace(state, x=problem.tree(at), at=at, metrics=_judged(value, residual, calls), calls=calls)


def _judged(value: Tensor, residual: Tensor, calls: int) -> dict[str, float]:
    metrics = {"objective": float(value.detach()), "residual": float(residual.detach())}
    if not math.isfinite(metrics["objective"]):
        raise NotFinite(
            f"The inner objective is {metrics['objective']} after {calls} gradients: a step may be too long, or f "
            "unbounded below."
        )
    return metrics


def slack(value: Tensor) -> float:
    """What rounding may add to a difference of values: a search that does not allow for it never ends."""
    return 10.0 * torch.finfo(value.dtype).eps * (1.0 + abs(float(value.detach())))
