"""What the methods for two levels share: a state, where they begin, and what they say after a step."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Any, Self, TypeVar

import torch
from torch import Tensor

from thalweg.bilevel.problem import Bilevel, Pair
from thalweg.core import InvalidProblem, Method, NotFinite, State
from thalweg.core.seeding import torch_generator

#: A lower-level variable this many times its first size, plus one, has run away.
RUNAWAY = 1e8


@dataclass(kw_only=True)
class BilevelState(State):
    """``x`` is a `Pair` of pytrees; ``at_x`` and ``at_y`` are the same as vectors.

    Random numbers of step k come from a stream named by seed and k.
    """

    x: Pair
    at_x: Tensor  # (size of x,)
    at_y: Tensor  # (size of y,)
    seed: int
    limit: float  # of y's largest entry, beyond which it has run away
    step: int = 0

    def stream(self) -> torch.Generator:
        """The random numbers of the coming step."""
        return torch_generator(self.seed, self.step, 0xB11E)

    def tree(self) -> dict[str, Any]:
        """The state as plain data, for a checkpoint."""
        tree = super().tree()
        return {**tree, "x": list(tree["x"])}

    def restored(self, tree: dict[str, Any]) -> Self:
        """This freshly initialised state with the values of ``tree`` put in."""
        return super().restored({**tree, "x": Pair(*tree["x"])})


S = TypeVar("S", bound=BilevelState)


def begun(problem: Bilevel, seed: int) -> BilevelState:
    """At x0 and y0, projected."""
    at_x, at_y = (problem.project(name, problem.vector0(name)) for name in ("x", "y"))
    return begun_at(problem, at_x, at_y, seed)


def begun_at(problem: Bilevel, at_x: Tensor, at_y: Tensor, seed: int, calls: int = 0) -> BilevelState:
    """At two vectors, which it took ``calls`` gradients to find."""
    return BilevelState(
        x=Pair(problem.tree("x", at_x), problem.tree("y", at_y)),
        calls=calls,
        at_x=at_x,
        at_y=at_y,
        seed=seed,
        limit=RUNAWAY * (1.0 + float(at_y.abs().max())),
    )


class BilevelMethod(Method[Bilevel, S]):
    """Base of the methods for `Bilevel`.

    The metrics of a step hold ``stationarity``, the length of the step of x over its step size, and ``lower_gap``, that
    of the lower level's last one: with exact gradients both are zero at solutions only.
    """

    def moved(
        self, problem: Bilevel, state: S, x: Tensor, y: Tensor, *, calls: int, metrics: dict[str, float]
    ) -> S:
        """The state after a step to two vectors; `NotFinite` where y runs away."""
        largest = float(y.abs().max())
        if not largest <= state.limit:
            raise NotFinite(
                f"{type(self).__name__}: the lower level's variable grew to {largest:.3g} after {state.step + 1} "
                "steps: it is unbounded below, or its step too long. Regularise it, or take a smaller inner_step_size."
            )
        return replace(
            state,
            x=Pair(problem.tree("x", x), problem.tree("y", y)),
            at_x=x,
            at_y=y,
            step=state.step + 1,
            calls=state.calls + calls,
            metrics=metrics,
        )


def require_free_lower(problem: Bilevel, method: object) -> None:
    """Refuse a constrained lower level: the hyper-gradient with the plain inverse is wrong on the boundary."""
    if problem.y_set is not None:
        raise InvalidProblem(
            f"{type(method).__name__} differentiates an unconstrained lower level; this one has y_set. "
            "Use Penalty or MomentumPenalty."
        )


def length(v: Tensor) -> float:
    """Euclidean norm."""
    return float(torch.linalg.vector_norm(v))
