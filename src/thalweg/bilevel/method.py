"""What the methods for two levels share: a state, where they begin, and what they say after a step."""

from __future__ import annotations

import math
from dataclasses import dataclass, replace
from typing import Any, Self, TypeVar

import torch
from torch import Tensor

from thalweg.bilevel.divergence import MESSAGES, cause_of_growth
from thalweg.bilevel.problem import Bilevel, Pair
from thalweg.bilevel.rates import rate
from thalweg.core import InvalidProblem, Method, NotFinite, State
from thalweg.core.seeding import torch_generator

#: A variable this many times its first size, plus one, is looked at: it may have run away.
RUNAWAY = 1e8
#: A step of x this many times the last one says so at once; a longer one after so many looks, each ten times farther.
LEAP, LOOKS = 1e3, 3


@dataclass(kw_only=True)
class BilevelState(State):
    """``x`` is a `Pair` of pytrees; ``at_x`` and ``at_y`` are the same as vectors.

    Random numbers of step k come from a stream named by seed and k.
    """

    x: Pair
    at_x: Tensor  # (size of x,)
    at_y: Tensor  # (size of y,)
    seed: int
    limit: tuple[float, float]  # of the largest entries of x and y, beyond which they are looked at
    looks: int = 0
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
        limit=(RUNAWAY * (1.0 + largest(at_x)), RUNAWAY * (1.0 + largest(at_y))),
    )


class BilevelMethod(Method[Bilevel, S]):
    """Base of the methods for `Bilevel`.

    The metrics of a step hold ``stationarity``, the length of the step of x over its step size, and ``lower_gap``, that
    of the lower level's last one: with exact gradients both are zero at solutions only.
    """

    def moved(
        self, problem: Bilevel, state: S, x: Tensor, y: Tensor, *, calls: int, metrics: dict[str, float]
    ) -> S:
        """The state after a step to two vectors; `NotFinite` where x or y runs away, with the level that does it."""
        limit, looks = state.limit, state.looks
        if not (largest(x) <= limit[0] and largest(y) <= limit[1]):
            self._require_no_runaway(problem, state, x, y, metrics["stationarity"])
            limit = (max(limit[0], 10.0 * largest(x)), max(limit[1], 10.0 * largest(y)))
            looks += 1
        return replace(
            state,
            x=Pair(problem.tree("x", x), problem.tree("y", y)),
            at_x=x,
            at_y=y,
            limit=limit,
            looks=looks,
            step=state.step + 1,
            calls=state.calls + calls,
            metrics=metrics,
        )

    def _require_no_runaway(
        self, problem: Bilevel, state: S, x: Tensor, y: Tensor, stationarity: float
    ) -> None:
        """Refuse a step to far out that diverges; data of large size move far, and settle."""
        options = vars(self)
        step_size = rate(options["inner_step_size"], state.step)
        penalty = rate(options["penalty"], state.step) if "penalty" in options else None
        last = state.metrics.get("stationarity", math.inf)
        finite = bool(torch.isfinite(x).all()) and bool(torch.isfinite(y).all())
        leaps = stationarity > LEAP * last > 0.0
        cause = cause_of_growth(
            problem,
            (state.at_x, state.at_y),
            step_size=step_size,
            penalty=penalty,
            upper_grows=not finite or leaps or (stationarity > last and state.looks >= LOOKS),
        )
        if cause is not None:
            told = MESSAGES[cause].format(x=largest(x), y=largest(y), steps=state.step + 1)
            raise NotFinite(f"{type(self).__name__}: {told}")


def require_free_lower(problem: Bilevel, method: object) -> None:
    """Refuse a constrained lower level: the hyper-gradient with the plain inverse is wrong on the boundary."""
    if problem.y_set is not None:
        raise InvalidProblem(
            f"{type(method).__name__} differentiates an unconstrained lower level; this one has y_set. "
            "Use Penalty or MomentumPenalty."
        )


def largest(v: Tensor) -> float:
    """The largest entry's size; NaN where one is."""
    return float(v.abs().max())


def length(v: Tensor) -> float:
    """Euclidean norm."""
    return float(torch.linalg.vector_norm(v))
