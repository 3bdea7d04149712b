"""One evaluation of a black box, and what a study makes of them all."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, Literal

from thalweg.blackbox.parameters import Point

#: The largest size of a value, a constraint or a noise.
LARGEST = 1e300

Status = Literal["pending", "done", "failed"]


@dataclass(frozen=True)
class Trial:
    """One evaluation: asked for, and told when it is known.

    Args:
        number: from 0, in the order asked.
        point: the parameters' values.
        status: ``"pending"``, ``"done"`` or ``"failed"``.
        value: what came out.
        noise: standard deviation of the value, where known.
        gradient: partial derivatives by name, where known.
        constraints: values that must be at most zero.
        u: the point's coordinates in the unit cube.
        told: how many were told before it; None while it is pending.
    """

    number: int
    point: Point
    status: Status = "pending"
    value: float | None = None
    noise: float | None = None
    gradient: Mapping[str, float] | None = None
    constraints: tuple[float, ...] = ()
    u: tuple[float, ...] = field(default=(), repr=False)
    told: int | None = field(default=None, repr=False)

    def __getitem__(self, name: str) -> Any:  # noqa: ANN401 -- a category's value may be anything
        return self.point[name]

    @property
    def feasible(self) -> bool:
        """Whether it is done and no constraint is above zero."""
        return self.status == "done" and all(c <= 0 for c in self.constraints)


@dataclass(frozen=True)
class Recommendation:
    """The visited point with the best posterior mean, which noise cannot flatter.

    Args:
        point: where.
        mean, std: what the model says about the value there.
        number: of the trial.
    """

    point: Point
    mean: float
    std: float
    number: int
