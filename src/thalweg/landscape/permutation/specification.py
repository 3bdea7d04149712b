"""Which axes of which weights a permutation of hidden units moves.

Ainsworth, Hayase and Srinivasa (2023), "Git re-basin" (arXiv 2209.04836), section 3, for plain layers. Heads move
as wholes, and inside each by permutations of its own.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from functools import cached_property

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from thalweg.core import InvalidProblem, NotFinite
from thalweg.core.seeding import generator
from thalweg.landscape.permutation.weights import LazyState, StateDict

Order = NDArray[np.int64]
#: Orders by the names of permutations: (size,), or (size of the one it is under, size).
Orders = Mapping[str, Order]


@dataclass(frozen=True)
class Factor:
    """A part of an axis's index: of so many values, permuted by the named permutation or by none."""

    size: int
    permutation: str | None = None


#: Factors of the index of a run of entries, the slowest first: channel times place, head times dimension.
Segment = tuple[Factor, ...]
#: An axis: runs of entries one after the other, more than one after a concatenation.
Axis = tuple[Segment, ...]


@dataclass(frozen=True)
class Permutation:
    """So many units that change places; ``under`` names the permutation each of whose units has an order of its own."""

    size: int
    under: str | None = None


@dataclass(frozen=True)
class Use:
    """Where a permutation acts: a segment of an axis of a tensor, and the factor in it."""

    tensor: str
    axis: int
    segment: int
    factor: int


def width(segment: Segment) -> int:
    """Entries of a segment."""
    return math.prod(f.size for f in segment)


def read_axis(given: str | int | Sequence[object] | None, size: int, sizes: Mapping[str, int]) -> Axis:
    """An axis from short words: a permutation's name, None, or ``(name, block)`` for a flattened channel."""
    if given is None:
        return ((Factor(size),),)
    if isinstance(given, str):
        return ((Factor(size, given),),)
    name, block = given if isinstance(given, tuple) and len(given) == 2 else (None, None)
    if isinstance(name, str) and isinstance(block, int):
        return ((Factor(sizes.get(name, size // max(block, 1)), name), Factor(block)),)
    raise InvalidProblem(f"An axis is a permutation's name, None, or (name, block); got {given!r}.")


@dataclass(frozen=True)
class PermutationSpec:
    """For every axis of every tensor the permutation that moves it, or none.

    `trace_permutations` finds it for a module; `by_hand` takes it in short words.

    Args:
        permutations: by name.
        axes: of each tensor by its name in the ``state_dict``.
        statistics: tensors that are moved but not compared, such as running means.
        twice: tensors that one permutation may move along two axes. Elsewhere that is usually a mistake, and refused.

    Raises:
        InvalidProblem: sizes that do not fit, a permutation that is not named or moves nothing, one on two axes of a
            tensor that is not in ``twice``.

    >>> spec = PermutationSpec.by_hand({"0.weight": ("h", None), "0.bias": ("h",), "2.weight": (None, "h")},
    ...     {"0.weight": (3, 2), "0.bias": (3,), "2.weight": (1, 3)})
    >>> [(use.tensor, use.axis) for use in spec.uses["h"]]
    [('0.weight', 0), ('0.bias', 0), ('2.weight', 1)]
    """

    permutations: Mapping[str, Permutation]
    axes: Mapping[str, tuple[Axis, ...]]
    statistics: frozenset[str] = frozenset()
    twice: frozenset[str] = field(default=frozenset())

    def __post_init__(self) -> None:
        for name, p in self.permutations.items():
            top = None if p.under is None else self.permutations.get(p.under)
            if p.under is not None and (top is None or top.under is not None):
                raise InvalidProblem(
                    f"Permutation '{name}' is under '{p.under}', which is none of the first rank."
                )
            if p.size < 1:
                raise InvalidProblem(f"Permutation '{name}' has size {p.size}; expected >= 1.")
        for tensor, axes in self.axes.items():
            self._check(tensor, axes)
        for name in self.permutations:
            if not self.uses[name]:
                raise InvalidProblem(f"Permutation '{name}' moves no axis. Leave it out.")

    def _check(self, tensor: str, axes: tuple[Axis, ...]) -> None:
        where: dict[str, int] = {}
        for k, axis in enumerate(axes):
            for segment in axis:
                before: set[str] = set()
                for factor in segment:
                    name = factor.permutation
                    if name is None:
                        continue
                    p = self.permutations.get(name)
                    if p is None or p.size != factor.size:
                        known = "not among the permutations" if p is None else f"of size {p.size}"
                        raise InvalidProblem(
                            f"'{tensor}' axis {k} has {factor.size} units moved by '{name}', which is {known}."
                        )
                    if p.under is not None and p.under not in before:
                        raise InvalidProblem(
                            f"'{tensor}' axis {k}: '{name}' is under '{p.under}', which does not stand before it there."
                        )
                    if p.under is None and where.setdefault(name, k) != k and tensor not in self.twice:
                        raise InvalidProblem(
                            f"'{name}' moves axes {where[name]} and {k} of '{tensor}'. If that is meant, as on a "
                            f"residual stream, declare it: twice={{'{tensor}'}}."
                        )
                    before.add(name)

    @classmethod
    def by_hand(
        cls,
        axes: Mapping[str, Sequence[str | tuple[str, int] | None]],
        shapes: Mapping[str, Sequence[int] | Tensor] | nn.Module,
        *,
        statistics: frozenset[str] | set[str] = frozenset(),
        twice: frozenset[str] | set[str] = frozenset(),
    ) -> PermutationSpec:
        """A specification in short words: for each axis a name, None, or (name, block) after a flatten.

        Args:
            axes: for each tensor as many as it has axes; tensors that are not named do not move.
            shapes: a module, its ``state_dict``, or shapes by name.
        """
        given = shapes.state_dict() if isinstance(shapes, nn.Module) else shapes
        sizes_of = {n: tuple(v.shape) if isinstance(v, Tensor) else tuple(v) for n, v in given.items()}
        unknown = [n for n in axes if n not in sizes_of]
        if unknown:
            raise InvalidProblem(f"No tensor '{unknown[0]}'; there are {', '.join(list(sizes_of)[:5])}, ...")
        sizes: dict[str, int] = {}
        for tensor, words in axes.items():
            if len(words) != len(sizes_of[tensor]):
                raise InvalidProblem(
                    f"'{tensor}' has {len(sizes_of[tensor])} axes; {len(words)} are specified."
                )
            for word, n in zip(words, sizes_of[tensor], strict=True):
                if isinstance(word, str):
                    sizes.setdefault(word, n)
                elif isinstance(word, tuple):
                    sizes.setdefault(word[0], n // max(word[1], 1))
        read = {
            tensor: tuple(
                read_axis(word, n, sizes)
                for word, n in zip(axes.get(tensor, (None,) * len(shape)), shape, strict=True)
            )
            for tensor, shape in sizes_of.items()
        }
        spec = cls(
            {n: Permutation(s) for n, s in sizes.items()}, read, frozenset(statistics), frozenset(twice)
        )
        for tensor, shape in sizes_of.items():
            if spec.shape(tensor) != shape:
                raise InvalidProblem(
                    f"'{tensor}' has shape {shape}; its permutations and blocks make {spec.shape(tensor)}."
                )
        return spec

    @cached_property
    def uses(self) -> dict[str, list[Use]]:
        """Where each permutation acts."""
        found: dict[str, list[Use]] = {name: [] for name in self.permutations}
        for tensor, axes in self.axes.items():
            for k, axis in enumerate(axes):
                for s, segment in enumerate(axis):
                    for f, factor in enumerate(segment):
                        if factor.permutation is not None:
                            found[factor.permutation].append(Use(tensor, k, s, f))
        return found

    @cached_property
    def tops(self) -> tuple[str, ...]:
        """Permutations that are under no other."""
        return tuple(name for name, p in self.permutations.items() if p.under is None)

    @cached_property
    def children(self) -> dict[str, tuple[str, ...]]:
        """For each permutation those under it."""
        return {t: tuple(n for n, p in self.permutations.items() if p.under == t) for t in self.tops}

    @cached_property
    def tensors(self) -> dict[str, tuple[str, ...]]:
        """Tensors that each permutation of the first rank moves."""
        return {t: tuple(dict.fromkeys(use.tensor for use in self.uses[t])) for t in self.tops}

    @cached_property
    def neighbours(self) -> dict[str, frozenset[str]]:
        """For each permutation of the first rank the others that its best order hangs on."""
        by_tensor: dict[str, set[str]] = {}
        for t in self.tops:
            for tensor in self.tensors[t]:
                if tensor not in self.statistics:
                    by_tensor.setdefault(tensor, set()).add(t)
        found: dict[str, set[str]] = {t: set() for t in self.tops}
        for tensor, names in by_tensor.items():
            for t in names:
                found[t] |= names if tensor in self.twice else names - {t}
        return {t: frozenset(names) for t, names in found.items()}

    def shape(self, tensor: str) -> tuple[int, ...]:
        """The shape that a tensor must have."""
        return tuple(sum(width(s) for s in axis) for axis in self.axes[tensor])

    def identity(self) -> dict[str, Order]:
        """Orders that change nothing."""
        return {
            name: np.tile(np.arange(p.size), (*self._rows(name), 1)) for name, p in self.permutations.items()
        }

    def random(self, seed: int = 0) -> dict[str, Order]:
        """Orders drawn at random."""
        draw = generator(seed, 0x29)
        return {name: draw.permuted(order, axis=-1) for name, order in self.identity().items()}

    def _rows(self, name: str) -> tuple[int, ...]:
        under = self.permutations[name].under
        return () if under is None else (self.permutations[under].size,)

    def check_orders(self, orders: Orders) -> None:
        """Refuse orders that are none: names, shapes, a unit twice."""
        if set(orders) != set(self.permutations):
            odd = sorted(set(orders) ^ set(self.permutations))
            raise InvalidProblem(f"Orders are needed for {', '.join(self.permutations)}; '{odd[0]}' is odd.")
        for name, p in self.permutations.items():
            order = np.asarray(orders[name])
            wanted = (*self._rows(name), p.size)
            if order.shape != wanted or not np.array_equal(
                np.sort(order, -1), np.broadcast_to(np.arange(p.size), wanted)
            ):
                raise InvalidProblem(f"'{name}' needs each of 0..{p.size - 1} once, shape {wanted}.")

    def check_state(self, state: StateDict, what: str = "state") -> None:
        """Refuse a tensor that is missing, has another shape, or holds NaN."""
        for tensor in self.axes:
            if tensor not in state:
                raise InvalidProblem(f"{what} lacks '{tensor}', which the specification has.")
            if tuple(state[tensor].shape) != self.shape(tensor):
                raise InvalidProblem(
                    f"{what}: '{tensor}' has shape {tuple(state[tensor].shape)}; the specification has "
                    f"{self.shape(tensor)}. Both networks need one architecture."
                )
            if state[tensor].is_complex():
                raise InvalidProblem(
                    f"{what}: '{tensor}' is complex; real weights are matched and merged here."
                )
            if state[tensor].is_floating_point() and not bool(torch.isfinite(state[tensor]).all()):
                raise NotFinite(f"{what}: '{tensor}' holds NaN or infinity.")

    def index(self, tensor: str, axis: int, orders: Orders) -> Order | None:
        """Where each entry of a permuted axis comes from; None where it stays."""
        parts, start, moves = [], 0, False
        for segment in self.axes[tensor][axis]:
            found, moved = np.zeros(1, np.int64), False
            places: dict[str, Order] = {}
            for factor in segment:
                name = factor.permutation
                order = np.arange(factor.size)[None] if name is None else np.atleast_2d(orders[name])
                moved |= name is not None
                under = None if name is None else self.permutations[name].under
                row = np.zeros(len(found), np.int64) if under is None else places[under]
                found = (found[:, None] * factor.size + order[row]).reshape(-1)
                places = {n: np.repeat(at, factor.size) for n, at in places.items()}
                if name is not None and under is None:
                    places[name] = np.tile(np.arange(factor.size), len(row))
            parts.append(found + start)
            start += len(found)
            moves |= moved
        return np.concatenate(parts) if moves else None

    def moved(self, tensor: str, value: Tensor, orders: Orders) -> Tensor:
        """One tensor with its units in their new places."""
        for axis in range(value.ndim):
            index = self.index(tensor, axis, orders)
            if index is not None:
                value = value.index_select(axis, torch.from_numpy(index).to(value.device))
        return value

    def apply(self, state: StateDict, orders: Orders) -> dict[str, Tensor]:
        """Weights with their units in new places: unit i of the answer is unit ``order[i]`` of what is given.

        Tensors that the specification does not name, such as counters, are kept. Cost: a copy of what moves.

        Raises:
            InvalidProblem: orders or shapes that do not fit.
        """
        self.check_orders(orders)
        self.check_state(state)
        return {n: self.moved(n, v, orders) if n in self.axes else v for n, v in state.items()}

    def moving(self, state: StateDict, orders: Orders) -> LazyState:
        """`apply`, each tensor when it is asked for; what is given was looked at before."""

        def make(name: str) -> Tensor:
            value = state[name]
            return self.moved(name, value, orders) if name in self.axes else value

        return LazyState(state, make)

    def composed(self, first: Orders, then: Orders) -> dict[str, Order]:
        """The orders of ``apply(apply(state, first), then)``."""
        found = {}
        for name, p in self.permutations.items():
            one = first[name] if p.under is None else first[name][then[p.under]]
            found[name] = np.take_along_axis(one, then[name], -1)
        return found

    def inverse(self, orders: Orders) -> dict[str, Order]:
        """The orders that bring everything back."""
        back = {t: np.argsort(orders[t]) for t in self.tops}
        return {
            n: back[n] if p.under is None else np.argsort(orders[n][back[p.under]], -1)
            for n, p in self.permutations.items()
        }

    def __iter__(self) -> Iterator[str]:
        return iter(self.permutations)

    def __str__(self) -> str:
        lines = []
        for name, p in self.permutations.items():
            places = ", ".join(f"{u.tensor}[{u.axis}]" for u in self.uses[name])
            lines.append(f"{name} ({p.size}{'' if p.under is None else f' in each of {p.under}'}): {places}")
        return "\n".join(lines)
