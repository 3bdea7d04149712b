"""When to stop, as data, and why a run stopped."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping
from dataclasses import dataclass, field
from enum import Enum
from typing import Literal

from thalweg.core.validation import is_real, require

#: Most steps of a run whose problem states no length of its own.
DEFAULT_STEPS = 10_000


class Status(Enum):
    """Why a run ended. Running out of budget is a status, not an exception."""

    CONVERGED = "converged"
    EXHAUSTED = "exhausted"
    STALLED = "stalled"
    DIVERGED = "diverged"
    INTERRUPTED = "interrupted"


@dataclass(frozen=True)
class Stop:
    """Stopping rule: the run ends as soon as one of these holds.

    Args:
        below: CONVERGED once every named metric of the state is at or below its value, and the problem's own
            judgement of the answer agrees.
        steps: EXHAUSTED after this many steps; None for no limit. ``"auto"``, the default, is the length that the
            problem states (a training task of 20 000 steps has 20 000), else 10 000.
        seconds: EXHAUSTED after this much wall-clock time, earlier parts of a resumed run included.
        calls: EXHAUSTED after this many evaluations of the problem; refused for a method that counts none.
        patience: STALLED after this many steps without a new smallest value of the problem's objective.

    >>> Stop(below={"residual": 1e-8}, seconds=60)
    Stop(below={'residual': 1e-08}, steps='auto', seconds=60, calls=None, patience=None)
    """

    below: Mapping[str, float] = field(default_factory=dict)
    steps: int | Literal["auto"] | None = "auto"
    seconds: float | None = None
    calls: int | None = None
    patience: int | None = None

    def __post_init__(self) -> None:
        names = isinstance(self.below, Mapping) and all(isinstance(name, str) for name in self.below)
        require(
            names, "Stop.below needs metrics' names and values, such as {'residual': 1e-8}", got=self.below
        )
        for name, bound in self.below.items():
            require(is_real(bound) and bound == bound, f"Stop.below['{name}'] needs a number", got=bound)
        for name in ("steps", "seconds", "calls", "patience"):
            value = getattr(self, name)
            fits = value is None or (value == "auto" and name == "steps") or _is_count(value)
            require(fits, f"Stop.{name} needs a number >= 0 or None", got=value)

    def limited(self, own: Stop) -> Stop:
        """This rule with the steps of the problem's ``own`` rule, or 10 000 where that has none either."""
        return dataclasses.replace(self, steps=DEFAULT_STEPS if own.steps == "auto" else own.steps)


def _is_count(value: object) -> bool:
    return is_real(value) and value >= 0
