"""What values a parameter may take: a range, a list of choices, or a function of one's own."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np

from thalweg.core.validation import is_real, is_whole, require


@dataclass(frozen=True)
class Bounds:
    """A number between ``low`` and ``high``; ``log`` where its ratio counts, ``whole`` for whole numbers.

    Raises:
        InvalidParameter: not ``low < high`` and finite, or ``log`` with ``low <= 0``.

    >>> Bounds(0.0, 1.0).reason(1.5)
    'must lie between 0 and 1'
    """

    low: float
    high: float
    log: bool = False
    whole: bool = False

    def __post_init__(self) -> None:
        require(is_real(self.low) and is_real(self.high), "Bounds needs numbers", got=(self.low, self.high))
        require(-math.inf < self.low < self.high < math.inf, "Bounds needs finite low < high", got=self)
        require(not self.log or self.low > 0, "Bounds with log=True needs low > 0", got=self)

    def reason(self, value: object) -> str | None:
        """Why a value is refused, or None."""
        if not is_real(value) or (self.whole and not is_whole(value)):
            return f"must be a {'whole ' if self.whole else ''}number"
        return None if self.low <= value <= self.high else f"must lie between {self.low:g} and {self.high:g}"

    def __str__(self) -> str:
        return f"a {'whole ' if self.whole else ''}number between {self.low:g} and {self.high:g}"


@dataclass(frozen=True)
class Choices:
    """One of several values: texts, categories.

    Raises:
        InvalidParameter: fewer than two, two alike, or one that does not equal itself, as NaN.

    >>> Choices(("a", "b")).reason("c")
    "must be one of 'a', 'b'"
    """

    values: tuple[object, ...]

    def __post_init__(self) -> None:
        listed = isinstance(self.values, Sequence) and not isinstance(self.values, str | bytes)
        require(listed, "Choices needs a tuple of values", got=self.values)
        object.__setattr__(self, "values", tuple(self.values))
        require(len(self.values) >= 2, "Choices needs two values or more", got=self.values)
        equal = all(_same(value, value) for value in self.values)
        require(equal, "Choices needs values that equal themselves, which NaN does not", got=self.values)
        alike = any(_same(a, b) for i, a in enumerate(self.values) for b in self.values[:i])
        require(not alike, "Choices needs values that differ", got=self.values)

    def index(self, value: object) -> int | None:
        """The place of a value, or None."""
        return next((i for i, known in enumerate(self.values) if _same(known, value)), None)

    def reason(self, value: object) -> str | None:
        """Why a value is refused, or None."""
        return (
            None if self.index(value) is not None else f"must be one of {', '.join(map(repr, self.values))}"
        )

    def __str__(self) -> str:
        return f"one of {', '.join(map(repr, self.values))}"


#: A range, choices, words for a model to read, or a function that says whether a value is allowed (a truth value, or a
#: text with the reason why not).
Constraint = Bounds | Choices | str | Callable[[object], object]


def refusal(constraint: object, old: object, new: object) -> str | None:
    """Why ``new`` may not stand where ``old`` stood, or None.

    Where there is no range and no list, the new value has the old one's kind: nothing is converted by its type.

    >>> refusal(None, True, "False")
    'must be a bool, as True is; got str'
    """
    if isinstance(constraint, Bounds | Choices):
        return constraint.reason(new)
    told = getattr(constraint, "reason", None)
    if callable(told):
        found = told(new)
        return None if found is None else str(found)
    reason = _kind(old, new)
    if reason is not None or constraint is None or isinstance(constraint, str):
        return reason
    answer = constraint(new) if callable(constraint) else True
    if isinstance(answer, str):
        return answer
    return None if answer is None or answer else "breaks its constraint"


def drawn(constraint: object, old: object, rng: np.random.Generator) -> object:
    """A random value that may stand where ``old`` stands; ``old`` itself where nothing says what others there are.

    Evenly within `Bounds` (their ratio with ``log``) and `Choices`; a number without them by a normal law around it,
    whose deviation is the larger of 1 and its size.
    """
    for _ in range(100):
        value = _drawn(constraint, old, rng)
        if refusal(constraint, old, value) is None:
            return value
    return old


def _drawn(constraint: object, old: object, rng: np.random.Generator) -> object:
    if isinstance(constraint, Choices):
        return constraint.values[int(rng.integers(len(constraint.values)))]
    if isinstance(constraint, Bounds):
        low, high = constraint.low, constraint.high
        share = float(rng.random())
        value = low * (high / low) ** share if constraint.log else low + share * (high - low)
        value = min(max(value, low), high)
    elif is_real(old):
        value = old + max(1.0, abs(old)) * float(rng.standard_normal())
    else:
        return old
    return round(value) if is_whole(old) else value


def described(constraint: object) -> str:
    """The words for a constraint; those of a function are its docstring."""
    if constraint is None:
        return ""
    if isinstance(constraint, Bounds | Choices | str):
        return str(constraint)
    words = getattr(constraint, "words", None) or getattr(constraint, "__doc__", None)
    return " ".join(str(words or getattr(constraint, "__name__", "")).split())


def _kind(old: object, new: object) -> str | None:
    if old is None:
        return None
    if is_real(old) and not is_whole(old):
        if not is_real(new) or not math.isfinite(new):
            return f"must be a finite number, as {old!r} is; got {type(new).__name__} {new!r}"
        return None
    if is_whole(old):
        return None if is_whole(new) else f"must be a whole number, as {old!r} is; got {type(new).__name__}"
    if type(new) is not type(old):
        return f"must be a {type(old).__name__}, as {_short(old)} is; got {type(new).__name__}"
    return None


def _short(value: object) -> str:
    text = repr(value)
    return text if len(text) <= 40 else text[:37] + "..."


def _same(a: object, b: object) -> bool:
    return type(a) is type(b) and bool(a == b)
