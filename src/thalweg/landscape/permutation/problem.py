"""Two networks, and orders of the second's units: how near they bring it to the first."""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Any, ClassVar

import torch
from torch import Tensor, nn

from thalweg.core import InvalidProblem, Problem
from thalweg.landscape.permutation.specification import Orders, PermutationSpec
from thalweg.landscape.permutation.weights import Network, weights_of

#: Numbers that are summed at once.
BLOCK = 2**20


@dataclass(frozen=True, eq=False)
class Rebasin(Problem):
    """Orders of the units of network b that bring it into the basin of network a.

    An answer is orders by the names of the specification's permutations; ``spec.apply(b, orders)`` is the network.

    Args:
        a, b: networks, state dicts, or files of weights (``.safetensors``, ``.pt``), of one architecture.
        spec: whose permutations; see `trace_permutations`.
        module: the architecture; needed by methods that look at activations or losses.
        data: inputs and labels, along the first axis; needed by the same.

    Metrics: ``distance``, the norm of ``a - P b`` over what is compared; ``objective``, the inner product of a and P b;
    ``left``, the distance over that of b as it is.

    Raises:
        InvalidProblem: tensors that are missing or have another shape. NotFinite: NaN.

    Cost of a judgement: one pass over the weights, a tensor at a time; files are mapped, and never whole in memory.
    """

    objective: ClassVar[str | None] = "distance"

    a: Network
    b: Network
    spec: PermutationSpec
    module: nn.Module | None = None
    data: Sequence[Tensor] | None = None

    def __post_init__(self) -> None:
        object.__setattr__(self, "a", weights_of(self.a, self.module))
        object.__setattr__(self, "b", weights_of(self.b, self.module))
        self.spec.check_state(self.first, "network a")
        self.spec.check_state(self.second, "network b")
        if not self.compared:
            raise InvalidProblem("Rebasin: no tensor of floating-point numbers is compared.")

    @property
    def first(self) -> dict[str, Tensor]:
        """Network a."""
        return self.a  # type: ignore[return-value]

    @property
    def second(self) -> dict[str, Tensor]:
        """Network b."""
        return self.b  # type: ignore[return-value]

    @cached_property
    def compared(self) -> tuple[str, ...]:
        """Tensors that are compared: numbers, no statistics, each of a tied pair once."""
        found: dict[tuple[int, torch.Size], str] = {}
        for name in self.spec.axes:
            value = self.first[name]
            if value.is_floating_point() and name not in self.spec.statistics and value.numel():
                found.setdefault((value.data_ptr(), value.shape), name)
        return tuple(found.values())

    @cached_property
    def norms(self) -> float:
        """``|a|^2 + |b|^2``."""
        return sum(_inner(s[n], s[n]) for s in (self.first, self.second) for n in self.compared)

    @cached_property
    def start(self) -> float:
        """The distance of b as it is."""
        return math.sqrt(max(self.norms - 2 * self.value(self.spec.identity()), 0.0))

    def value(self, orders: Orders) -> float:
        """``<a, P b>``, summed in float64."""
        return sum(
            _inner(self.first[n], self.spec.moved(n, self.second[n], orders).to(self.first[n].device))
            for n in self.compared
        )

    def metrics(self, x: Any) -> dict[str, float]:  # noqa: ANN401 -- orders by name
        self.spec.check_orders(x)
        squares = sum(
            _square(self.first[n], self.spec.moved(n, self.second[n], x).to(self.first[n].device))
            for n in self.compared
        )
        return {
            "distance": math.sqrt(squares),
            "objective": self.value(x),
            "left": math.sqrt(squares) / self.start if self.start > 0 else 0.0,
        }


def _square(a: Tensor, b: Tensor) -> float:
    """``|a - b|^2``."""
    return sum(float(torch.linalg.vector_norm(u - v, dtype=torch.float64)) ** 2 for u, v in _in_blocks(a, b))


def _inner(a: Tensor, b: Tensor) -> float:
    return sum(float(torch.dot(u.double(), v.double())) for u, v in _in_blocks(a, b))


def _in_blocks(a: Tensor, b: Tensor) -> Iterator[tuple[Tensor, Tensor]]:
    """Numbers that meet, some at a time: sums in float64 need no copy of a whole tensor."""
    return zip(torch.split(a.reshape(-1), BLOCK), torch.split(b.reshape(-1), BLOCK), strict=True)
