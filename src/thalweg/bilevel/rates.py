"""Step sizes and penalties: numbers, or numbers that fall with the step."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import TypeAlias

from thalweg.core.validation import is_real, is_whole, require


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


def require_positive(owner: object, *names: str, zero: bool = False, infinite: bool = False) -> None:
    """Refuse options that are no real numbers above zero; zero and infinity pass where they are said to."""
    for name in names:
        given = getattr(owner, name)
        fits = is_real(given) and (given > 0 or (zero and given == 0)) and (infinite or given < math.inf)
        told = f"{type(owner).__name__} needs {name} {'>=' if zero else '>'} 0"
        require(fits, told if is_real(given) else f"{told}, a number", got=given)


def require_counts(owner: object, *names: str, least: int = 1) -> None:
    """Refuse options that are no whole numbers, or below the least."""
    for name in names:
        given = getattr(owner, name)
        told = f"{type(owner).__name__} needs {name} >= {least}, a whole number"
        require(is_whole(given) and given >= least, told, got=given)


def require_momentum(owner: object) -> None:
    """Refuse a momentum outside [0, 1)."""
    given = getattr(owner, "momentum", None)
    require(is_real(given) and 0 <= given < 1, f"{type(owner).__name__} needs 0 <= momentum < 1", got=given)
