"""How coordinates fall into blocks: once for all, or anew each step."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Sequence
from dataclasses import dataclass
from typing import ClassVar

import numpy as np
import scipy.sparse as sp

from thalweg.convex.coordinate.selection import Selection
from thalweg.convex.coordinate.state import BlockState
from thalweg.convex.coordinate.trees import greedy_forest
from thalweg.convex.datafits import Index, Vector
from thalweg.convex.problem import Penalized
from thalweg.core import InvalidProblem
from thalweg.core.validation import require


class Partition(ABC):
    """Base: which blocks a step may take."""

    #: Whether the same blocks come again and again, so that what is worked out of them is kept.
    blocks_return: ClassVar[bool] = False

    @property
    def name(self) -> str:
        """For tables and legends."""
        return type(self).__name__

    def check(self, problem: Penalized) -> None:  # noqa: B027 -- nothing to check for most
        """Refuse a problem that the blocks do not fit."""

    @abstractmethod
    def choose(self, problem: Penalized, state: BlockState, selection: Selection) -> Index:
        """The block of this step."""


@dataclass(frozen=True, eq=False)
class FixedBlocks(Partition):
    """Blocks given once; every coordinate is in exactly one.

    Args:
        blocks: arrays of coordinates. `in_order`, `at_random`, `sorted_by_lipschitz` and `averaged` make them; so do
            `red_black` and `tree_partition`.

    Raises:
        InvalidProblem: from a solve, when a coordinate is in no block, or in two.
    """

    blocks_return: ClassVar[bool] = True

    blocks: Sequence[Index]

    @classmethod
    def in_order(cls, n: int, size: int) -> FixedBlocks:
        """Neighbours together.

        >>> [block.tolist() for block in FixedBlocks.in_order(5, 2).blocks]
        [[0, 1], [2, 3], [4]]
        """
        require(1 <= size <= n, f"Blocks need 1 <= size <= {n}", got=size)
        return cls(tuple(np.arange(start, min(start + size, n)) for start in range(0, n, size)))

    @classmethod
    def at_random(cls, n: int, size: int, seed: int = 0) -> FixedBlocks:
        """A random permutation, cut."""
        order = np.random.default_rng(seed).permutation(n)
        return cls(tuple(order[block] for block in cls.in_order(n, size).blocks))

    @classmethod
    def sorted_by_lipschitz(cls, lipschitz: Vector, size: int) -> FixedBlocks:
        """The coordinates of the largest constants together, then the next: best for greedy rules (section 3.2)."""
        order = np.argsort(-np.asarray(lipschitz), kind="stable")
        return cls(tuple(order[block] for block in cls.in_order(len(order), size).blocks))

    @classmethod
    def averaged(cls, lipschitz: Vector, size: int) -> FixedBlocks:
        """Large and small constants mixed: dealt out like cards."""
        order = np.argsort(-np.asarray(lipschitz), kind="stable")
        count = -(-len(order) // size)
        return cls(tuple(order[k::count] for k in range(count)))

    def check(self, problem: Penalized) -> None:
        n = problem.loss.n
        together = np.concatenate([np.asarray(block) for block in self.blocks])
        if not np.array_equal(np.sort(together), np.arange(n)):
            raise InvalidProblem(
                f"FixedBlocks: {len(self.blocks)} blocks hold {len(together)} coordinates, "
                f"{len(np.unique(together))} of them different; the problem has {n}, each to be in one block."
            )
        for block in self.blocks:
            problem.require_whole(np.asarray(block))

    def choose(self, problem: Penalized, state: BlockState, selection: Selection) -> Index:
        return np.asarray(self.blocks[selection.block(problem, state, self.blocks)])


@dataclass(frozen=True)
class VariableBlocks(Partition):
    """Any ``size`` coordinates, or groups, chosen anew each step: the greedy rules' best (section 3.1)."""

    size: int

    @property
    def name(self) -> str:
        return f"{type(self).__name__}({self.size})"

    def check(self, problem: Penalized) -> None:
        n = problem.units
        require(1 <= self.size <= n, f"VariableBlocks needs 1 <= size <= {n}", got=self.size)

    def choose(self, problem: Penalized, state: BlockState, selection: Selection) -> Index:
        return selection.coordinates(problem, state, self.size)


@dataclass(frozen=True)
class ForestBlocks(Partition):
    """As many coordinates as can be taken without closing a cycle in the graph of H, best first; for `Quadratic`.

    Blocks hold a large part of all coordinates, and `MessagePassing` solves them in linear time (section 4.3).
    """

    def check(self, problem: Penalized) -> None:
        self._graph(problem)
        if problem.units < problem.loss.n:
            raise InvalidProblem("ForestBlocks would cut groups in two. Use VariableBlocks.")

    def choose(self, problem: Penalized, state: BlockState, selection: Selection) -> Index:
        return greedy_forest(self._graph(problem), selection.order(problem, state))

    @staticmethod
    def _graph(problem: Penalized) -> sp.csr_array:
        if problem.loss.graph is None:
            raise InvalidProblem(
                f"ForestBlocks follow the graph of a sparse Quadratic; this loss is a {type(problem.loss).__name__}."
            )
        return problem.loss.graph
