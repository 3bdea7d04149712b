"""What may be chosen: real and whole numbers, categories, and choices that matter only beside others.

Points are dictionaries for the user and vectors of the unit cube for the methods; a category with more than two
values takes one coordinate for each.
"""

from __future__ import annotations

import math
from abc import ABC, abstractmethod
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, TypeAlias

import numpy as np
import torch
from scipy.stats import qmc
from torch import Tensor

from thalweg.core import InvalidParameter, InvalidProblem, UnknownName
from thalweg.core.validation import require
from thalweg.datasets import load_toml

#: Values of parameters by name; a category's may be anything.
Point: TypeAlias = dict[str, Any]
#: The values of other parameters beside which one matters.
Conditions: TypeAlias = Mapping[str, object]


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


def _range(kind: str, low: float, high: float, log: bool) -> None:
    require(
        math.isfinite(low) and math.isfinite(high) and low < high, f"{kind} needs low < high", got=(low, high)
    )
    require(not log or low > 0, f"{kind} with log=True needs low > 0", got=low)


@dataclass(frozen=True)
class Real(Parameter):
    """A number in [low, high]; ``log`` spreads it evenly over orders of magnitude.

    >>> Real(1e-4, 1.0, log=True).decode([0.5])
    0.01
    """

    low: float
    high: float
    log: bool = False
    when: Conditions | None = None

    def __post_init__(self) -> None:
        _range("Real", self.low, self.high, self.log)

    def encode(self, value: object) -> list[float]:
        number = _inside(value, self.low, self.high)
        if self.log:
            return [math.log(number / self.low) / math.log(self.high / self.low)]
        return [(number - self.low) / (self.high - self.low)]

    def decode(self, u: Sequence[float]) -> float:
        if self.log:
            value = self.low * (self.high / self.low) ** float(u[0])
        else:
            value = self.low + (self.high - self.low) * float(u[0])
        return min(max(value, self.low), self.high)


@dataclass(frozen=True)
class Integer(Parameter):
    """A whole number in low .. high; each value has the same share of the coordinate, or of its logarithm.

    >>> [Integer(1, 3).decode([u]) for u in (0.0, 0.5, 1.0)]
    [1, 2, 3]
    """

    low: int
    high: int
    log: bool = False
    when: Conditions | None = None

    def __post_init__(self) -> None:
        require(
            isinstance(self.low, int) and isinstance(self.high, int), "Integer needs whole bounds", got=self
        )
        _range("Integer", self.low, self.high, self.log)

    def _real(self) -> Real:
        return Real(self.low - 0.5, self.high + 0.5, self.log)

    def encode(self, value: object) -> list[float]:
        number = _inside(value, self.low, self.high)
        if int(number) != number:
            raise InvalidParameter(f"{value!r} is no whole number.")
        return self._real().encode(number)

    def decode(self, u: Sequence[float]) -> int:
        return min(max(round(self._real().decode(u)), self.low), self.high)

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

    >>> Categorical(["rbf", "poly", "linear"]).encode("poly")
    [0.0, 1.0, 0.0]
    """

    choices: tuple[object, ...]
    when: Conditions | None = None

    def __init__(self, choices: Sequence[object], when: Conditions | None = None) -> None:
        require(
            len(choices) >= 2 and len(set(map(repr, choices))) == len(choices),
            "Categorical needs two or more different choices",
            got=choices,
        )
        object.__setattr__(self, "choices", tuple(choices))
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


def _inside(value: object, low: float, high: float) -> float:
    """The value as a number, or a refusal of what is none or out of range."""
    slack = 1e-9 * (high - low)
    number = float(value) if isinstance(value, int | float | np.number) else math.nan
    if not low - slack <= number <= high + slack:
        raise InvalidParameter(f"{value!r} is not in [{low:g}, {high:g}].")
    return number


@dataclass(frozen=True)
class Space:
    """Named parameters, and cheap constraints that are known beforehand.

    Args:
        parameters: `Real`, `Integer` or `Categorical`, by name.
        allowed: takes a point, tells whether it may be evaluated; for constraints that cost nothing to check.

    Raises:
        InvalidProblem: no parameters, a condition on one that comes later or is no category.

    >>> space = Space({"C": Real(1e-2, 1e2, log=True), "kernel": Categorical(["rbf", "poly"]),
    ...                "degree": Integer(2, 5, when={"kernel": "poly"})})
    >>> space.dimension
    3
    >>> space.decode(space.encode({"C": 1.0, "kernel": "rbf"}))
    {'C': 1.0, 'kernel': 'rbf'}
    """

    parameters: Mapping[str, Parameter]
    allowed: Callable[[Point], bool] | None = None
    dimension: int = field(init=False)

    def __post_init__(self) -> None:
        if not self.parameters:
            raise InvalidProblem("Space needs at least one parameter.")
        seen: set[str] = set()
        for name, parameter in self.parameters.items():
            for other in parameter.when or {}:
                if other not in seen or not isinstance(self.parameters[other], Categorical):
                    raise InvalidProblem(
                        f"Space: {name!r} depends on {other!r}, which must be a category that stands before it."
                    )
            seen.add(name)
        object.__setattr__(self, "dimension", sum(p.width for p in self.parameters.values()))

    @classmethod
    def from_toml(cls, path: str | Path) -> Space:
        """A space from a file with a table for each parameter.

        ``[rate]``, ``type = "real"``, ``low = 1e-4``, ``high = 1.0``, ``log = true``; ``type = "integer"``; and
        ``type = "categorical"``, ``choices = ["a", "b"]``. ``when = {kernel = "rbf"}`` makes one conditional.
        """
        kinds = {"real": Real, "integer": Integer, "categorical": Categorical}
        tables = load_toml(path)
        parameters = {}
        for name, table in tables.items():
            options = table if isinstance(table, dict) else {}
            kind = options.pop("type", None)
            if kind not in kinds:
                raise InvalidProblem(
                    f"{path}: [{name}] needs type = one of {', '.join(kinds)}; got {kind!r}."
                )
            try:
                parameters[name] = kinds[kind](**options)
            except TypeError as error:
                raise InvalidProblem(f"{path}: [{name}]: {error}.") from None
        return cls(parameters)

    @property
    def slices(self) -> Iterator[tuple[str, Parameter, slice]]:
        """Name, parameter and coordinates of each."""
        at = 0
        for name, parameter in self.parameters.items():
            yield name, parameter, slice(at, at + parameter.width)
            at += parameter.width

    @property
    def continuous(self) -> bool:
        """Whether every point of the cube stands for itself."""
        return all(isinstance(p, Real) and not p.when for p in self.parameters.values())

    def active(self, name: str, point: Point) -> bool:
        """Whether a parameter matters beside the others."""
        for other, wanted in (self.parameters[name].when or {}).items():
            values = wanted if isinstance(wanted, tuple | list) else (wanted,)
            if not self.active(other, point) or point.get(other) not in values:
                return False
        return True

    def encode(self, point: Point) -> list[float]:
        """The coordinates of a point; parameters that do not matter lie in the middle.

        Raises:
            InvalidParameter: a value out of range, or one missing.
            UnknownName: a name or a choice that is none of the space.
        """
        for name in point:
            if name not in self.parameters:
                raise UnknownName("parameter", name, self.parameters)
        u: list[float] = []
        for name, parameter in self.parameters.items():
            if not self.active(name, point):
                u += [0.5] * parameter.width
                continue
            if name not in point:
                raise InvalidParameter(f"The point has no {name!r}: {point}.")
            try:
                u += parameter.encode(point[name])
            except InvalidParameter as error:
                raise InvalidParameter(f"{name}: {error}") from None
        return u

    def decode(self, u: Sequence[float] | Tensor) -> Point:
        """The point that some coordinates stand for, without the parameters that do not matter."""
        values = u.tolist() if isinstance(u, Tensor) else list(u)
        point: Point = {}
        for name, parameter, at in self.slices:
            if self.active(name, point):
                point[name] = parameter.decode(values[at])
        return point

    def snap(self, U: Tensor) -> Tensor:
        """Coordinates, shape (n, dimension), moved to those that `encode` gives."""
        if self.continuous:
            return U
        if any(p.when for p in self.parameters.values()):
            return U.new_tensor([self.encode(self.decode(u)) for u in U])
        return torch.cat([parameter.snap(U[..., at]) for _, parameter, at in self.slices], -1)

    def neighbours(self, u: Tensor) -> Tensor:
        """All points that differ from ``u`` by one step of one discrete parameter, shape (k, dimension)."""
        found = []
        for _, parameter, at in self.slices:
            for part in parameter.neighbours(u[at]):
                other = u.clone()
                other[at] = part
                found.append(other)
        return self.snap(torch.stack(found)) if found else u.new_zeros(0, len(u))

    def design(self, count: int, seed: int, kind: str = "sobol") -> Tensor:
        """``count`` allowed points spread over the space, shape (count, dimension): ``"sobol"`` or ``"lhs"``.

        Raises:
            InvalidProblem: hardly any point is allowed.
        """
        require(kind in ("sobol", "lhs"), "design: kind is 'sobol' or 'lhs'", got=kind)
        engine = qmc.Sobol if kind == "sobol" else qmc.LatinHypercube
        sampler = engine(self.dimension, rng=np.random.default_rng(seed))
        kept: list[Tensor] = []
        have = 0
        for _ in range(50):
            wanted = max(count, 16)
            drawn = sampler.random(1 << (wanted - 1).bit_length() if kind == "sobol" else wanted)
            U = self.snap(torch.from_numpy(drawn))
            U = U[self.permitted(U)]
            kept.append(U)
            have += len(U)
            if have >= count:
                return torch.cat(kept)[:count]
        raise InvalidProblem(
            f"Space: only {have} of some thousand points are allowed. Draw its bounds tighter."
        )

    def permitted(self, U: Tensor) -> Tensor:
        """Which rows of U the known constraints allow, shape (n,), bool."""
        if self.allowed is None:
            return torch.ones(len(U), dtype=torch.bool)
        return torch.tensor([bool(self.allowed(self.decode(u))) for u in U], dtype=torch.bool)
