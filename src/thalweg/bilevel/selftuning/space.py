"""Regularisation hyper-parameters as unconstrained numbers: bijections, ranges, whole numbers."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Literal

import torch
from torch import Tensor

from thalweg.core import InvalidParameter, UnknownName
from thalweg.core.validation import is_real, require


@dataclass(frozen=True)
class HyperParameter:
    """One number that the training loss depends on, tuned as an unconstrained u.

    Args:
        name: by which losses, dropouts and augmentations ask for it.
        value0: its first value.
        low, high: its range. With scale ``"logit"`` it is ``low + (high - low) sigmoid(u)``.
        scale: ``"logit"`` for a range, e.g. a dropout rate; ``"log"`` for positive numbers, ``exp(u)``, e.g. a weight
            decay.
        integer: rounded where it is used, e.g. a number of holes; u stays continuous.
        spread: the first sigma of its perturbations, in u; 0.5 as the authors have it.

    >>> rate = HyperParameter("dropout", 0.05, high=0.9)
    >>> round(float(rate.value(torch.tensor(rate.unconstrained(0.3)))), 3)
    0.3
    """

    name: str
    value0: float
    low: float = 0.0
    high: float = 1.0
    scale: Literal["logit", "log"] = "logit"
    integer: bool = False
    spread: float = 0.5

    def __post_init__(self) -> None:
        require(self.scale in ("logit", "log"), "HyperParameter needs scale 'logit' or 'log'", got=self.scale)
        for option in ("value0", "low", "high", "spread"):
            given = getattr(self, option)
            fits = is_real(given) and math.isfinite(given)
            require(fits, f"HyperParameter {self.name!r} needs {option}, a finite number", got=given)
        require(
            self.low < self.high, f"HyperParameter {self.name!r} needs low < high", got=(self.low, self.high)
        )
        require(self.spread > 0, f"HyperParameter {self.name!r} needs spread > 0", got=self.spread)
        self.unconstrained(self.value0)

    def unconstrained(self, value: float) -> float:
        """U of a value, or `InvalidParameter` when it is outside the range."""
        if self.scale == "log":
            if not 0.0 < value < math.inf:
                raise InvalidParameter(f"{self.name} needs a positive value; got {value:g}.")
            return math.log(value)
        if not self.low < value < self.high:
            raise InvalidParameter(
                f"{self.name} needs a value inside ({self.low:g}, {self.high:g}); got {value:g}. At an end, u is "
                "infinite."
            )
        share = (value - self.low) / (self.high - self.low)
        return math.log(share / (1.0 - share))

    def value(self, u: Tensor, whole: bool = True) -> Tensor:
        """The value of u, any shape; ``whole=False`` leaves integers unrounded."""
        value = u.exp() if self.scale == "log" else self.low + (self.high - self.low) * torch.sigmoid(u)
        return value.round() if self.integer and whole else value

    def inside(self, value: float) -> float:
        """The nearest value whose u is finite."""
        if self.scale == "log":
            return max(value, 1e-30)
        edge = 1e-4 * (self.high - self.low)
        return min(max(value, self.low + edge), self.high - edge)


class HyperSpace:
    """Some hyper-parameters, in an order.

    >>> space = HyperSpace(HyperParameter("dropout", 0.2), HyperParameter("decay", 1e-3, scale="log"))
    >>> {name: round(float(v), 4) for name, v in space.values(space.u0).items()}
    {'dropout': 0.2, 'decay': 0.001}
    """

    def __init__(self, *parameters: HyperParameter) -> None:
        names = [p.name for p in parameters]
        require(len(parameters) >= 1, "HyperSpace needs one hyper-parameter at least")
        require(len(set(names)) == len(names), "HyperSpace needs different names", got=names)
        self.parameters = parameters

    def __len__(self) -> int:
        return len(self.parameters)

    @property
    def names(self) -> list[str]:
        """In order."""
        return [p.name for p in self.parameters]

    @property
    def u0(self) -> Tensor:
        """U of the first values, shape (hyper-parameters,)."""
        return torch.tensor([p.unconstrained(p.value0) for p in self.parameters])

    @property
    def spread(self) -> Tensor:
        """The first sigmas."""
        return torch.tensor([p.spread for p in self.parameters])

    def values(self, u: Tensor, whole: bool = True) -> dict[str, Tensor]:
        """Values by name; u has shape (..., hyper-parameters), each value (...)."""
        return {p.name: p.value(u[..., i], whole) for i, p in enumerate(self.parameters)}

    def unconstrained(self, values: Mapping[str, float]) -> Tensor:
        """U of values by name."""
        for name in values:
            self.require(name)
        return torch.tensor([p.unconstrained(values[p.name]) for p in self.parameters])

    def require(self, name: str) -> None:
        """Refuse a name that is not here."""
        if name not in self.names:
            raise UnknownName("hyper-parameter", name, self.names)

    def tree(self) -> list[HyperParameter]:
        """For fingerprints."""
        return list(self.parameters)
