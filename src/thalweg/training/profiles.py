"""Profiles of learning-rate schedules: functions from the share z of the budget used, in [0, 1], to [0, 1].

Chen, Wolfe and Kyrillidis (2022), "REX: revisiting budgeted training with an improved schedule", section 3.
"""

from __future__ import annotations

import hashlib
from abc import ABC, abstractmethod
from dataclasses import dataclass

import numpy as np
from numpy.typing import ArrayLike, NDArray

from thalweg.core import InvalidParameter, UnknownName
from thalweg.core.validation import is_real, require, require_positive

Vector = NDArray[np.float64]


class Profile(ABC):
    """Base of profiles; call one with any array of shares.

    >>> Linear()([0.0, 0.25, 1.0])
    array([1.  , 0.75, 0.  ])
    """

    def __call__(self, z: ArrayLike) -> Vector:
        """The multiple of the base rate at each share ``z``, clipped to [0, 1]."""
        return np.asarray(self.at(np.clip(np.asarray(z, dtype=np.float64), 0.0, 1.0)))

    @abstractmethod
    def at(self, z: Vector) -> Vector:
        """The formula, for z in [0, 1]."""


@dataclass(frozen=True)
class Rex(Profile):
    """``(1 - z) / ((1 - beta) + beta (1 - z))``: between linear (beta = 0) and constant (beta -> 1).

    Args:
        beta: strength in [0, 1); 1/2, the default, is REX.

    >>> float(Rex()(0.5))
    0.6666666666666666
    """

    beta: float = 0.5

    def __post_init__(self) -> None:
        require(is_real(self.beta) and 0 <= self.beta < 1, "Rex needs beta in [0, 1)", got=self.beta)

    def at(self, z: Vector) -> Vector:
        return (1.0 - z) / ((1.0 - self.beta) + self.beta * (1.0 - z))


@dataclass(frozen=True)
class Linear(Profile):
    """``1 - z``."""

    def at(self, z: Vector) -> Vector:
        return 1.0 - z


@dataclass(frozen=True)
class Constant(Profile):
    """One: no decay."""

    def at(self, z: Vector) -> Vector:
        return np.ones_like(z)


@dataclass(frozen=True)
class Cosine(Profile):
    """``(1 + cos(pi z))/2`` (Loshchilov and Hutter, 2017)."""

    def at(self, z: Vector) -> Vector:
        return 0.5 * (1.0 + np.cos(np.pi * z))


@dataclass(frozen=True)
class Exponential(Profile):
    """``exp(-rate z)``; the default ends at a hundredth."""

    rate: float = float(np.log(100.0))

    def __post_init__(self) -> None:
        require_positive(self, "rate")

    def at(self, z: Vector) -> Vector:
        return np.exp(-self.rate * z)


@dataclass(frozen=True)
class Step(Profile):
    """Multiplied by ``factor`` at each of the ``points``; the default is 30-60-90.

    >>> Step(points=(0.5, 0.75))([0.4, 0.5, 0.8])
    array([1.  , 0.1 , 0.01])
    """

    points: tuple[float, ...] = (0.3, 0.6, 0.9)
    factor: float = 0.1

    def __post_init__(self) -> None:
        inside = all(0 < p < 1 for p in self.points) and list(self.points) == sorted(self.points)
        require(inside, "Step needs rising points in (0, 1)", got=self.points)
        require(0 < self.factor < 1, "Step needs a factor in (0, 1)", got=self.factor)

    def at(self, z: Vector) -> Vector:
        return self.factor ** np.searchsorted(self.points, z, side="right").astype(np.float64)


@dataclass(frozen=True)
class Polynomial(Profile):
    """``(1 - z)^power``."""

    power: float = 2.0

    def __post_init__(self) -> None:
        require_positive(self, "power")

    def at(self, z: Vector) -> Vector:
        return (1.0 - z) ** self.power


@dataclass(frozen=True)
class OneCycle(Profile):
    """From ``start`` up to one over the first ``rise`` of the budget, then down to nearly zero, on cosines.

    Smith and Topin (2019); torch's defaults. Momentum usually runs against it: ``momentum=(0.85, 0.95)``.
    """

    rise: float = 0.3
    start: float = 1.0 / 25.0
    end: float = 1.0 / 25e4

    def __post_init__(self) -> None:
        require(0 < self.rise < 1, "OneCycle needs rise in (0, 1)", got=self.rise)

    def at(self, z: Vector) -> Vector:
        up = self.start + (1.0 - self.start) * 0.5 * (1.0 - np.cos(np.pi * z / self.rise))
        down = self.end + (1.0 - self.end) * 0.5 * (1.0 + np.cos(np.pi * (z - self.rise) / (1.0 - self.rise)))
        return np.where(z < self.rise, up, down)


@dataclass(frozen=True)
class DelayedLinear(Profile):
    """One for the first ``delay`` of the budget, then linear to zero."""

    delay: float = 0.5

    def __post_init__(self) -> None:
        require(0 <= self.delay < 1, "DelayedLinear needs delay in [0, 1)", got=self.delay)

    def at(self, z: Vector) -> Vector:
        return np.minimum(1.0, (1.0 - z) / (1.0 - self.delay))


@dataclass(frozen=True)
class InverseSqrt(Profile):
    """``1/sqrt(1 + rate z)``; the default ends at a tenth."""

    rate: float = 99.0

    def __post_init__(self) -> None:
        require_positive(self, "rate")

    def at(self, z: Vector) -> Vector:
        return 1.0 / np.sqrt(1.0 + self.rate * z)


@dataclass(frozen=True, eq=False)
class Refined(Profile):
    """A schedule given by its values at equal distances, 1 the highest; read between them by straight lines.

    Args:
        values: shape (steps,), the last one zero.

    >>> Refined(np.array([0.5, 1.0, 0.0]))([0.0, 0.25, 1.0])
    array([0.5 , 0.75, 0.  ])
    """

    values: Vector

    def at(self, z: Vector) -> Vector:
        return np.interp(z, np.linspace(0.0, 1.0, len(self.values)), self.values)

    def __repr__(self) -> str:
        digest = hashlib.sha256(self.values.tobytes()).hexdigest()[:12]
        return f"Refined({len(self.values)} steps, {digest})"

    def __eq__(self, other: object) -> bool:
        return isinstance(other, Refined) and np.array_equal(self.values, other.values)

    def __hash__(self) -> int:
        return hash(self.values.tobytes())


@dataclass(frozen=True)
class WarmupPolynomial(Profile):
    """Straight up from zero during the share ``warmup``, then ``((1 - z)/(1 - warmup))^power``.

    >>> WarmupPolynomial(0.5, 2.0)([0.25, 0.5, 0.75])
    array([0.5 , 1.  , 0.25])
    """

    warmup: float
    power: float

    def __post_init__(self) -> None:
        require(0 <= self.warmup < 1, "WarmupPolynomial needs warmup in [0, 1)", got=self.warmup)
        require_positive(self, "power")

    def at(self, z: Vector) -> Vector:
        fall = ((1.0 - z) / (1.0 - self.warmup)) ** self.power
        return np.where(z < self.warmup, z / max(self.warmup, 1e-300), fall)


@dataclass(frozen=True)
class InverseTime(Profile):
    """``1/(1 + rate z)``; the default ends at a hundredth."""

    rate: float = 99.0

    def __post_init__(self) -> None:
        require_positive(self, "rate")

    def at(self, z: Vector) -> Vector:
        return 1.0 / (1.0 + self.rate * z)


PROFILES: dict[str, Profile] = {
    "rex": Rex(),
    "linear": Linear(),
    "cosine": Cosine(),
    "step": Step(),
    "step-50-75": Step(points=(0.5, 0.75)),
    "exponential": Exponential(),
    "polynomial": Polynomial(),
    "onecycle": OneCycle(),
    "delayed-linear": DelayedLinear(),
    "inverse-sqrt": InverseSqrt(),
    "inverse-time": InverseTime(),
    "constant": Constant(),
}


def profile(name: str | Profile) -> Profile:
    """The profile called ``name``; a `Profile` is handed through.

    >>> profile("rex")
    Rex(beta=0.5)
    """
    if isinstance(name, Profile):
        return name
    if not isinstance(name, str):
        raise InvalidParameter(f"A profile is a name or a Profile; got a {type(name).__name__}.")
    if name not in PROFILES:
        raise UnknownName("profile", name, PROFILES)
    return PROFILES[name]
