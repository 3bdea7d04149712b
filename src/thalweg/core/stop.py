"""When to stop, as data, and why a run stopped."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from enum import Enum

from thalweg.core.validation import require


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
        below: CONVERGED once every named metric of the state is at or below its value.
        steps: EXHAUSTED after this many steps. Default 10 000.
        seconds: EXHAUSTED after this much wall-clock time, earlier parts of a resumed run included.
        calls: EXHAUSTED after this many evaluations of the problem.
        patience: STALLED after this many steps without a new smallest value of the problem's objective.

    >>> Stop(below={"residual": 1e-8}, seconds=60)
    Stop(below={'residual': 1e-08}, steps=10000, seconds=60, calls=None, patience=None)
    """

    below: Mapping[str, float] = field(default_factory=dict)
    steps: int | None = 10_000
    seconds: float | None = None
    calls: int | None = None
    patience: int | None = None

    def __post_init__(self) -> None:
        for name, value in self.below.items():
            require(value == value, f"Stop.below['{name}'] needs a number", got=value)
        for name in ("steps", "seconds", "calls", "patience"):
            value = getattr(self, name)
            require(value is None or value >= 0, f"Stop.{name} needs a number >= 0 or None", got=value)
