"""Step sizes and penalties: numbers, or numbers that fall with the step."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TypeAlias

from thalweg.core.validation import require


@dataclass(frozen=True)
class Decay:
    """A parameter that falls as a power of the step, ``max(first (1 + k / delay)^-power, least)``.

    >>> Decay(1.0, 0.5)(3)
    0.5
    """

    first: float
    power: float = 0.0
    delay: float = 1.0
    least: float = 0.0

    def __post_init__(self) -> None:
        require(self.first > 0, "Decay needs first > 0", got=self.first)
        require(self.power >= 0, "Decay needs power >= 0", got=self.power)
        require(self.delay > 0, "Decay needs delay > 0", got=self.delay)

    def __call__(self, k: int) -> float:
        """Its value at step k, from zero."""
        if self.power == 0.0:
            return self.first
        return max(self.first * (1.0 + k / self.delay) ** -self.power, self.least)


Rate: TypeAlias = float | Decay


def rate(given: Rate, k: int) -> float:
    """A number, or a `Decay` at step k."""
    return given(k) if isinstance(given, Decay) else given


def require_rates(method: object, *names: str) -> None:
    """Refuse step sizes and penalties that are not positive."""
    for name in names:
        given = getattr(method, name)
        require(isinstance(given, Decay) or given > 0, f"{type(method).__name__} needs {name} > 0", got=given)
