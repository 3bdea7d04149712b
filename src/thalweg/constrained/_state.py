"""What the area's methods share: the state of a run, and the books kept from step to step."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Any, Self, TypeVar

import numpy as np

from thalweg.constrained._arrays import DENSE, Vector
from thalweg.constrained._verdicts import MET, cannot_be_met, lowest_seen
from thalweg.constrained.problem import EqualityConstrained, Point, fitted_multipliers, residuals
from thalweg.core import Method, State, Status, Unbounded
from thalweg.numerics.operators import is_sparse

#: Where f falls below minus this many times its first size, it has no minimum.
BOTTOM = 1e10


@dataclass(kw_only=True)
class ConstrainedState(State):
    """``x`` and its ``multipliers`` lambda; ``calls`` counts the points that were evaluated."""

    x: Vector  # (n,)
    multipliers: Vector  # (m,)
    seed: int
    scale: float  # 1 + |f| at the start
    step: int = 0
    warned: bool = False  # dependent constraints have been told of
    now: Point | None = None  # x with its values and derivatives; None where they have to be evaluated again

    def tree(self) -> dict[str, Any]:
        """Without ``now``, which is evaluated again."""
        return {name: value for name, value in super().tree().items() if name != "now"}

    def restored(self, tree: dict[str, Any]) -> Self:
        """The state of ``tree``, with nothing evaluated yet."""
        return replace(super().restored(tree), now=None)

    def point(self, problem: EqualityConstrained) -> Point:
        """x with its values and derivatives."""
        return problem.at(self.x) if self.now is None else self.now


S = TypeVar("S", bound=ConstrainedState)


class ConstrainedMethod(Method[EqualityConstrained, S]):
    """Base of the methods for `EqualityConstrained`."""

    def _begin(self, problem: EqualityConstrained, seed: int) -> ConstrainedState:
        now, multipliers = problem.at(problem.x0), problem.first_multipliers
        return ConstrainedState(
            x=problem.x0,
            metrics=observed(now, multipliers),
            calls=1,
            multipliers=multipliers,
            seed=seed,
            scale=1.0 + abs(now.f),
            now=now,
        )

    def _moved(
        self,
        problem: EqualityConstrained,
        state: S,
        ahead: Point,
        multipliers: Vector,
        calls: int,
        spent: dict[str, float],
    ) -> S:
        """The state at the point ahead; ``spent`` are more metrics of the step, its ``length`` among them."""
        if ahead.f < -BOTTOM * state.scale:
            raise unbounded(ahead.value)
        hopeless = cannot_be_met(problem, ahead)
        return replace(
            state,
            x=ahead.x,
            multipliers=multipliers,
            metrics=observed(ahead, multipliers) | spent,
            calls=state.calls + calls,
            status=Status.STALLED if hopeless else None,
            message=hopeless,
            step=state.step + 1,
            now=ahead,
        )

    def _looked_ahead(self, problem: EqualityConstrained, state: S, ahead: Point) -> int:
        """After 4, 8, 16, ... steps: the calls of a look along the last step, `Unbounded` where f falls without end."""
        done, before = state.step + 1, state.point(problem)
        if done < 4 or done & (done - 1) or not ahead.f < before.f:
            return 0
        lowest, calls = lowest_seen(problem, ahead, ahead.x - before.x)
        if lowest is not None:
            raise unbounded(problem.unit * lowest)
        return calls

    def _stalled(self, problem: EqualityConstrained, state: S, point: Point, calls: int, why: str = "") -> S:
        """No length is short enough: either done to rounding, or stuck where the constraints cannot be met."""
        found = observed(point, state.multipliers)
        message = why or cannot_be_met(problem, point) or _stuck(point, found["kkt"])
        return replace(
            state,
            x=point.x,
            metrics=state.metrics | found,
            calls=state.calls + calls,
            status=Status.STALLED,
            message=message,
            step=state.step + 1,
            now=point,
        )


def observed(point: Point, multipliers: Vector) -> dict[str, float]:
    """The residuals that stop a run, and f.

    With the multipliers that fit best, as the problem judges, where fitting them is cheap beside a step: where the
    constraints' gradients depend on each other at the solution, a method's own multipliers may grow for ever. For
    more than 1000 unknowns, or a sparse Jacobian, with the method's own, which give no smaller residual.
    """
    if not is_sparse(point.G) and max(point.G.shape) <= DENSE:
        multipliers = fitted_multipliers(point)
    return residuals(point, multipliers) | {"value": point.value}


def _stuck(point: Point, kkt: float) -> str:
    if kkt <= MET * (1.0 + float(np.linalg.norm(point.g))):
        return "No step lowers the merit any more: this is as near as rounding allows."
    return "No step lowers the merit any more. Give f and the constraints like sizes, or start elsewhere."


def unbounded(value: float) -> Unbounded:
    """What ends a run whose f falls without end."""
    return Unbounded(
        f"f has fallen to {value:.3g}: it seems to have no minimum on the constraints. Check its sign, or add the "
        "constraint that bounds it."
    )
