"""The kinds of parameters: real and whole numbers, and categories."""

from __future__ import annotations

import math
from abc import ABC, abstractmethod
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, TypeAlias

import numpy as np
import torch
from torch import Tensor

from thalweg.core import InvalidParameter, UnknownName
from thalweg.core.validation import is_real, is_whole, require

#: Values of parameters by name; a category's may be anything.
Point: TypeAlias = dict[str, Any]
#: The values of other parameters beside which one matters.
Conditions: TypeAlias = Mapping[str, object]

#: Whole numbers that a coordinate tells apart with some digits to spare.
MOST_WHOLE = 2**44
#: How far outside its bounds, as a share of the coordinate, a value may lie by rounding.
SLACK = 1e-9


class Parameter(ABC):
    """Base of the kinds of parameters.

    ``when`` makes one conditional: ``when={"kernel": "rbf"}`` or ``when={"kernel": ("rbf", "poly")}``.
    """

    when: Conditions | None

    @property
    def width(self) -> int:
        """Coordinates it takes."""
        return 1

    @abstractmethod
    def encode(self, value: object) -> list[float]:
        """Coordinates of a value, in [0, 1]; raises when it is out of range."""

    @abstractmethod
    def decode(self, u: Sequence[float]) -> object:
        """The value nearest to some coordinates."""

    def snap(self, u: Tensor) -> Tensor:
        """Coordinates, shape (..., width), moved to the nearest that stand for a value."""
        return u

    def neighbours(self, u: Tensor) -> list[Tensor]:
        """Coordinates of the values next to those of ``u``, each of shape (width,); none for a real number."""
        return []


def _check_range(kind: str, low: float, high: float, log: object) -> None:
    require(low < high, f"{kind} needs low < high", got=(low, high))
    require(isinstance(log, bool), f"{kind}: log is True or False", got=log)
    require(not log or low > 0, f"{kind} with log=True needs low > 0", got=low)


@dataclass(frozen=True)
class Real(Parameter):
    """A number in [low, high]; ``log`` spreads it evenly over orders of magnitude.

    Raises:
        InvalidParameter: bounds that are no finite numbers, or the wrong way round; ``log`` with low <= 0.

    >>> Real(1e-4, 1.0, log=True).decode([0.5])
    0.01
    """

    low: float
    high: float
    log: bool = False
    when: Conditions | None = None

    def __post_init__(self) -> None:
        for name in ("low", "high"):
            bound = getattr(self, name)
            require(
                is_real(bound) and math.isfinite(bound),
                f"Real: {name} is a finite number, low < high",
                got=bound,
            )
            object.__setattr__(self, name, float(bound))
        _check_range("Real", self.low, self.high, self.log)

    def encode(self, value: object) -> list[float]:
        return [_inside(self._share(_number(value)), value, self.low, self.high)]

    def _share(self, number: float) -> float:
        low, high = self.low, self.high
        if not self.log:
            # halves: a width or a distance of more than the largest float would be infinite
            return (0.5 * number - 0.5 * low) / (0.5 * high - 0.5 * low)
        if not number > 0:
            return math.nan
        if self._ratio_is_moderate:
            return math.log(number / low) / math.log(high / low)
        return (math.log(number) - math.log(low)) / (math.log(high) - math.log(low))

    def decode(self, u: Sequence[float]) -> float:
        low, high, share = self.low, self.high, float(u[0])
        if not self.log:
            width = high - low
            value = low + width * share if math.isfinite(width) else low * (1.0 - share) + high * share
        elif self._ratio_is_moderate:
            value = low * (high / low) ** share
        else:
            value = math.exp(math.log(low) * (1.0 - share) + math.log(high) * share)
        return min(max(value, low), high)

    @property
    def _ratio_is_moderate(self) -> bool:
        return self.high / self.low < 1e300


@dataclass(frozen=True)
class Integer(Parameter):
    """A whole number in low .. high; each value has the same share of the coordinate, or of its logarithm.

    Raises:
        InvalidParameter: bounds that are not whole, or the wrong way round; more values than a coordinate tells
            apart, 2^44.

    >>> [Integer(1, 3).decode([u]) for u in (0.0, 0.5, 1.0)]
    [1, 2, 3]
    """

    low: int
    high: int
    log: bool = False
    when: Conditions | None = None

    def __post_init__(self) -> None:
        for name in ("low", "high"):
            bound = getattr(self, name)
            require(is_whole(bound), f"Integer needs whole bounds; {name} is none", got=bound)
            object.__setattr__(self, name, int(bound))
        _check_range("Integer", self.low, self.high, self.log)
        require(
            (self.high if self.log else self.high - self.low) < MOST_WHOLE,
            "Integer takes at most 2^44 (1.8e13) values, as more are not told apart. Use Real, and round",
            got=(self.low, self.high),
        )

    @property
    def _count(self) -> int:
        return self.high - self.low + 1

    def _real(self) -> Real:
        return Real(self.low - 0.5, self.high + 0.5, log=True)

    def encode(self, value: object) -> list[float]:
        number = int(value) if is_whole(value) else _number(value)
        if not self.low <= number <= self.high:
            raise InvalidParameter(_outside(value, self.low, self.high))
        if number != int(number):
            raise InvalidParameter(f"{value!r} is no whole number.")
        if self.log:
            return self._real().encode(number)
        return [(int(number) - self.low + 0.5) / self._count]

    def decode(self, u: Sequence[float]) -> int:
        if self.log:
            return min(max(round(self._real().decode(u)), self.low), self.high)
        return self.low + min(max(math.floor(self._count * float(u[0])), 0), self._count - 1)

    def snap(self, u: Tensor) -> Tensor:
        flat = [self.encode(self.decode([float(v)]))[0] for v in u.reshape(-1)]
        return torch.tensor(flat, dtype=u.dtype).reshape(u.shape)

    def neighbours(self, u: Tensor) -> list[Tensor]:
        value = self.decode(u.tolist())
        near = [v for v in (value - 1, value + 1) if self.low <= v <= self.high]
        return [u.new_tensor(self.encode(v)) for v in near]


@dataclass(frozen=True)
class Categorical(Parameter):
    """One of several values without an order.

    Raises:
        InvalidParameter: fewer than two choices, two that are equal (as 1 and True are), NaN among them, or a text
            in place of a list.

    >>> Categorical(["rbf", "poly", "linear"]).encode("poly")
    [0.0, 1.0, 0.0]
    """

    choices: tuple[object, ...]
    when: Conditions | None = None

    def __init__(self, choices: Sequence[object], when: Conditions | None = None) -> None:
        require(
            isinstance(choices, Sequence | np.ndarray) and not isinstance(choices, str | bytes),
            "Categorical needs a list of choices",
            got=choices,
        )
        found = tuple(choices)
        require(len(found) >= 2, "Categorical needs two or more different choices", got=choices)
        for i, choice in enumerate(found):
            require(
                not (isinstance(choice, float | np.floating) and choice != choice),
                f"Categorical: choice {i} (from 0) is NaN, which equals nothing. Use None or a word",
            )
        same = _equal_pair(found)
        require(
            same is None,
            "Categorical needs two or more different choices; two of these are equal, as 1 and True are",
            got=same,
        )
        object.__setattr__(self, "choices", found)
        object.__setattr__(self, "when", when)

    @property
    def width(self) -> int:
        return 1 if len(self.choices) == 2 else len(self.choices)

    def encode(self, value: object) -> list[float]:
        if value not in self.choices:
            raise UnknownName("choice", str(value), map(str, self.choices))
        index = self.choices.index(value)
        return [float(index)] if self.width == 1 else np.eye(self.width)[index].tolist()

    def decode(self, u: Sequence[float]) -> object:
        return self.choices[round(float(u[0])) if self.width == 1 else int(np.argmax(list(u)))]

    def snap(self, u: Tensor) -> Tensor:
        if self.width == 1:
            return u.round()
        return torch.nn.functional.one_hot(u.argmax(-1), self.width).to(u.dtype)

    def neighbours(self, u: Tensor) -> list[Tensor]:
        value = self.decode(u.tolist())
        return [u.new_tensor(self.encode(v)) for v in self.choices if v != value]


def _equal_pair(choices: tuple[object, ...]) -> tuple[object, object] | None:
    try:
        if len(set(choices)) == len(choices):
            return None
    except TypeError:  # lists, say, cannot be looked up but compared
        pass
    pairs = ((a, b) for i, a in enumerate(choices) for b in choices[:i])
    return next(((b, a) for a, b in pairs if a == b), None)


def _number(value: object) -> float:
    """The value as a float, NaN for what is none."""
    return float(value) if is_real(value) else math.nan


def _inside(share: float, value: object, low: float, high: float) -> float:
    """A coordinate, what rounding has put outside moved back; a refusal of what lies outside."""
    if not -SLACK <= share <= 1.0 + SLACK:
        raise InvalidParameter(_outside(value, low, high))
    return min(max(share, 0.0), 1.0)


def _outside(value: object, low: float, high: float) -> str:
    return f"{value!r} is not in [{low:g}, {high:g}]."
