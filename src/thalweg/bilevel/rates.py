"""Step sizes and penalties: numbers, or numbers that fall with the step."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TypeAlias

from thalweg.core.validation import is_real, require, require_positive


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
        require_positive(self, "first", "delay")
        require_positive(self, "power", "least", zero=True)

    def __call__(self, k: int) -> float:
        """Its value at step k, from zero."""
        if self.power == 0.0:
            return self.first
        return max(self.first * (1.0 + k / self.delay) ** -self.power, self.least)


Rate: TypeAlias = float | Decay


def rate(given: Rate, k: int) -> float:
    """A number, or a `Decay` at step k."""
    return given(k) if isinstance(given, Decay) else given


def require_rates(owner: object, *names: str, infinite: bool = False) -> None:
    """Refuse step sizes and penalties that are no positive numbers and no `Decay`."""
    for name in names:
        if not isinstance(getattr(owner, name), Decay):
            require_positive(owner, name, infinite=infinite)


def require_momentum(owner: object) -> None:
    """Refuse a momentum outside [0, 1)."""
    given = getattr(owner, "momentum", None)
    require(is_real(given) and 0 <= given < 1, f"{type(owner).__name__} needs 0 <= momentum < 1", got=given)
