"""Block coordinate descent: a partition, a selection and an update, put together.

Nutini, Laradji and Schmidt (2022), "Let's make block coordinate descent converge faster: faster greedy rules,
message-passing, active-set complexity, and superlinear convergence", JMLR 23.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import ClassVar

import numpy as np
import scipy.sparse as sp

from thalweg.convex import _kernels as kernels
from thalweg.convex.coordinate.partition import Partition, VariableBlocks
from thalweg.convex.coordinate.selection import GSL, Selection
from thalweg.convex.coordinate.state import BlockState
from thalweg.convex.coordinate.update import BoundStep, Update
from thalweg.convex.datafits import Index, Vector
from thalweg.convex.losses import Loss
from thalweg.convex.problem import Penalized
from thalweg.core import InvalidProblem, Method, State, Status
from thalweg.core.seeding import generator
from thalweg.core.validation import require_counts


@dataclass(frozen=True)
class BlockCoordinateDescent(Method[Penalized, BlockState]):
    """Block coordinate descent; one step updates one block.

    Args:
        partition: `FixedBlocks`, `VariableBlocks` (default: single coordinates) or `ForestBlocks`.
        selection: `Cyclic`, `Random`, `LipschitzSampling`, or a greedy rule: `GS`, `GSL` (default), `GSD`, `GSDHB`,
            `GSQ`; `GSR` and `GSProgress` for penalties.
        update: `GradientStep`, `BoundStep` (default), `NewtonStep`, `TwoMetric`, `MessagePassing`, `SparseStep`.

    Where it pays: greedy rules when the gradient is cheap to keep (sparse graphs, moderate n); matrix and Newton
    updates when blocks are correlated; forests on lattices and graphs. For the Lasso on large data use `Lasso`,
    whose working sets are faster.

    Raises:
        InvalidProblem: blocks that do not cover the coordinates, a forest or message passing without a sparse
            quadratic.

    The metrics of a step are ``violation`` (as the problem's), ``active`` coordinates and ``identified``, the last step
    at which the active set changed.

    Cost per step: the update's own (b^3 for matrices, b for forests), keeping the gradient (a few columns of A'A where
    n <= 4000 or the loss is a sparse quadratic; one pass over the data otherwise), O(n) for a greedy choice.

    >>> import numpy as np
    >>> from thalweg.convex import BlockCoordinateDescent, Penalized
    >>> from thalweg import Stop, solve
    >>> from thalweg.convex.losses import LeastSquares
    >>> rng = np.random.default_rng(0)
    >>> problem = Penalized(LeastSquares(rng.standard_normal((50, 20)), rng.standard_normal(50)), l1=5.0)
    >>> solve(problem, BlockCoordinateDescent(), stop=Stop(below={"violation": 1e-8})).converged
    True
    """

    in_place: ClassVar[bool] = True

    partition: Partition = field(default_factory=lambda: VariableBlocks(1))
    selection: Selection = field(default_factory=GSL)
    update: Update = field(default_factory=BoundStep)

    @property
    def name(self) -> str:
        """The three choices."""
        return ", ".join([self.partition.name, type(self.selection).__name__, type(self.update).__name__])

    def init(self, problem: Penalized, seed: int) -> BlockState:
        self.partition.check(problem)
        self.update.check(problem)
        if problem.is_smooth:
            problem.loss.require_minimum()
        x = problem.start()
        z = problem.loss.keep(x)
        g = problem.loss.gradient(x, z)
        returns = self.partition.blocks_return
        state = BlockState(x=x, z=z, g=g, stream=generator(seed), blocks_return=returns)
        state.metrics = self._metrics(problem, state, float(problem.active(x).sum()))
        return state

    def step(self, problem: Penalized, state: BlockState) -> BlockState:
        block = self.partition.choose(problem, state, self.selection)
        before = problem.active(state.x)[block] if not problem.is_smooth else None
        d = self.update.change(problem, state, block)
        problem.loss.advance(state.x, state.z, state.g, block, d)
        state.t, state.used = state.t + 1, state.used + problem.count_units(block)
        state.calls += 1
        active = state.metrics["active"]
        if before is not None:
            after = problem.active(state.x)[block]
            active += float(after.sum()) - float(before.sum())
            if (after != before).any():
                state.identified = state.t
        state.metrics = self._metrics(problem, state, active)
        if state.metrics["violation"] == 0.0:
            state.status, state.message = Status.CONVERGED, "Every subdifferential holds zero."
        return state

    @staticmethod
    def _metrics(problem: Penalized, state: BlockState, active: float) -> dict[str, float]:
        violation = float(np.abs(problem.slopes(state.x, state.g)).max())
        return {"violation": violation, "active": active, "identified": float(state.identified)}


@dataclass(kw_only=True)
class HeapState(State):
    """Greedy choices from a heap; all of it is overwritten by each step."""

    x: Vector  # (n,)
    g: Vector  # (n,) the gradient
    key: Vector  # (n,) what a coordinate is chosen by
    heap: Index  # (n,) coordinates, the largest key first
    place: Index  # (n,) of each coordinate in the heap


@dataclass(frozen=True)
class HeapGreedy(Method[Penalized, HeapState]):
    """Exact greedy coordinate descent on a sparse `Quadratic`, the largest entry kept in a heap.

    Same iterates as single coordinates with `GS` or `GSL`, at O(column log n) a coordinate in place of O(n): use it for
    large sparse graphs.

    Args:
        counts_lipschitz: choose by ``g^2/L`` (GSL, default) or by ``|g|`` (GS).
        inner: coordinates updated in one step of `solve`; default 1000.
    """

    in_place: ClassVar[bool] = True

    counts_lipschitz: bool = True
    inner: int = 1000

    def __post_init__(self) -> None:
        require_counts(self, "inner")

    def init(self, problem: Penalized, seed: int) -> HeapState:
        self._graph(problem)
        x = problem.start()
        g = problem.loss.gradient(x, problem.loss.keep(x))
        key = (g * self._weights(problem.loss)) ** 2
        heap, place = kernels.heap_make(key)
        metrics = {"violation": float(np.abs(g).max())}
        return HeapState(x=x, g=g, key=key, heap=heap, place=place, metrics=metrics)

    @staticmethod
    def _graph(problem: Penalized) -> sp.csr_array:
        graph = problem.loss.graph
        if graph is None or not problem.is_smooth:
            raise InvalidProblem(
                "HeapGreedy is for a sparse Quadratic without penalty or box. Use BlockCoordinateDescent."
            )
        return graph

    def _weights(self, loss: Loss) -> Vector:
        return 1.0 / np.sqrt(loss.lipschitz) if self.counts_lipschitz else np.ones(loss.n)

    def step(self, problem: Penalized, state: HeapState) -> HeapState:
        loss, H = problem.loss, self._graph(problem)
        parts = (state.x, state.g, state.key, state.heap, state.place)
        done = kernels.greedy_steps(
            H.data, H.indices, H.indptr, loss.lipschitz, self._weights(loss), *parts, self.inner
        )
        state.calls += int(done)
        state.metrics = {"violation": float(np.abs(state.g).max())}
        if done < self.inner:
            state.status, state.message = Status.CONVERGED, "The gradient is zero."
        return state
