"""What to do on a block: a gradient step, a step with a matrix, Newton's, two-metric projection, message passing.

Nutini, Laradji and Schmidt (2022), sections 2.3, 4 and 6.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from dataclasses import dataclass

import numpy as np
import scipy.sparse as sp
from scipy.linalg import cho_solve
from scipy.sparse.linalg import splu

from thalweg.convex.coordinate.state import BlockState
from thalweg.convex.coordinate.trees import solve_forest
from thalweg.convex.datafits import Index, Vector
from thalweg.convex.problem import Penalized
from thalweg.core import InvalidProblem

ARMIJO, HALVINGS = 1e-4, 40


class Update(ABC):
    """Base: the change of a block's coordinates."""

    def check(self, problem: Penalized) -> None:  # noqa: B027 -- nothing to check for most
        """Refuse a problem that the update does not fit."""

    @abstractmethod
    def change(self, problem: Penalized, state: BlockState, block: Index) -> Vector:
        """d such that ``x[block] + d`` is the next point."""


@dataclass(frozen=True)
class GradientStep(Update):
    """``-g_b / L_b``, followed by the proximal map where there is a penalty or a box.

    Args:
        line_search: try longer steps: double while the objective falls, by exact evaluations.
    """

    line_search: bool = False

    def change(self, problem: Penalized, state: BlockState, block: Index) -> Vector:
        step = np.full(len(block), 1.0 / state.constant(problem, block))
        x, g = state.x[block], state.g[block]
        d = problem.prox(x - step * g, step, block) - x
        if not self.line_search:
            return d
        best, value = d, _value_after(problem, state, block, d)
        for _ in range(HALVINGS):
            step = 2.0 * step
            longer = problem.prox(x - step * g, step, block) - x
            new = _value_after(problem, state, block, longer)
            if not new < value:
                break
            best, value = longer, new
        return best


@dataclass(frozen=True)
class BoundStep(Update):
    """``-H_b^-1 g_b`` with a matrix above the Hessian's block (the paper's matrix update): no line search needed.

    With a penalty or a box the block's quadratic model is minimised exactly, by sweeps over its coordinates or groups.
    """

    def change(self, problem: Penalized, state: BlockState, block: Index) -> Vector:
        if problem.is_smooth:
            return -np.asarray(cho_solve(state.factor(problem, block), state.g[block]))
        return _model_minimum(problem, state, block, state.matrix(problem, block))


@dataclass(frozen=True)
class NewtonStep(Update):
    """Newton's step on the block with the Hessian itself, and a backtracking line search (Tseng and Yun, 2009)."""

    def change(self, problem: Penalized, state: BlockState, block: Index) -> Vector:
        H = problem.loss.hessian(state.x, state.z, block)
        H = H + 1e-12 * np.eye(len(block)) * max(float(np.trace(H)) / len(block), 1e-300)
        d = _model_minimum(problem, state, block, H)
        return _backtracked(problem, state, block, d)


@dataclass(frozen=True)
class TwoMetric(Update):
    """Two-metric projection: Newton's step on the coordinates free to move, a scaled gradient step on those held at a
    bound or at zero, projected back (Bertsekas, 1982; section 6.3 for l1).

    Cheaper than `NewtonStep` with a penalty: one linear system in place of a block problem.
    """

    def check(self, problem: Penalized) -> None:
        if problem.units < problem.loss.n:
            raise InvalidProblem("TwoMetric has no projection for groups. Use NewtonStep or BoundStep.")

    def change(self, problem: Penalized, state: BlockState, block: Index) -> Vector:
        x, weight = state.x[block], problem.weight[block]
        slopes = problem.slopes(state.x, state.g)[block]
        held = problem.active(state.x)[block]
        free = ~held
        d = np.zeros(len(block))
        H = problem.loss.hessian(state.x, state.z, block)
        d[held] = -slopes[held] / problem.loss.lipschitz[block][held]
        if free.any():
            inner = H[np.ix_(free, free)] + 1e-12 * np.diag(problem.loss.lipschitz[block][free])
            d[free] = -np.linalg.solve(inner, slopes[free])
        orthant = np.where(x != 0, np.sign(x), -np.sign(slopes))
        before = _value_after(problem, state, block, np.zeros(len(block)))
        size, rounding = 1.0, 1e-14 * (1.0 + abs(before))
        for _ in range(HALVINGS):
            new = np.clip(x + size * d, problem.lower[block], problem.upper[block])
            new = np.where((weight > 0) & (new * orthant < 0), 0.0, new)  # l1 is smooth within an orthant
            if (
                _value_after(problem, state, block, new - x)
                <= before + ARMIJO * float(slopes @ (new - x)) + rounding
            ):
                return new - x
            size *= 0.5
        return np.zeros(len(block))


@dataclass(frozen=True)
class MessagePassing(Update):
    """The exact step ``H_bb d = -g_b`` of a `Quadratic`, in time linear in the block; its graph must be a forest."""

    def check(self, problem: Penalized) -> None:
        _smooth_graph(problem, type(self).__name__)

    def change(self, problem: Penalized, state: BlockState, block: Index) -> Vector:
        return solve_forest(_smooth_graph(problem, type(self).__name__), block, state.g[block])


@dataclass(frozen=True)
class SparseStep(Update):
    """The exact step on a block of a `Quadratic` by sparse elimination (SuperLU, fill-reducing order): cheap where the
    block's graph has low treewidth, and for blocks too large for a dense factor.
    """

    def check(self, problem: Penalized) -> None:
        _smooth_graph(problem, type(self).__name__)

    def change(self, problem: Penalized, state: BlockState, block: Index) -> Vector:
        H = sp.csc_array(_smooth_graph(problem, type(self).__name__)[block][:, block])
        options = {"SymmetricMode": True}
        found: Vector = -splu(H, permc_spec="MMD_AT_PLUS_A", diag_pivot_thresh=0.0, options=options).solve(
            state.g[block]
        )
        return found


def _smooth_graph(problem: Penalized, name: str) -> sp.csr_array:
    """The sparse Hessian, or a refusal where there is none, or more than it."""
    graph = problem.loss.graph
    if graph is None or not problem.is_smooth:
        raise InvalidProblem(
            f"{name} solves blocks of a Quadratic without penalty or box; this loss is a "
            f"{type(problem.loss).__name__}{'' if problem.is_smooth else ' with one'}. Use BoundStep."
        )
    return graph


def _model_minimum(problem: Penalized, state: BlockState, block: Index, H: Vector) -> Vector:
    return problem.block_minimum(H, state.g[block], state.x[block], block)


def _value_after(problem: Penalized, state: BlockState, block: Index, d: Vector) -> float:
    """The objective at ``x[block] + d``, less the penalty of the other coordinates."""
    x = state.x.copy()
    x[block] += d
    z = state.z + problem.loss.change(block, d)
    return problem.loss.value(x, z) + float(problem.penalties(x[block], block).sum())


def _backtracked(problem: Penalized, state: BlockState, block: Index, d: Vector) -> Vector:
    x = state.x[block]
    before = _value_after(problem, state, block, np.zeros(len(block)))
    change = problem.penalty_change(x, x + d, block)
    promised = float(state.g[block] @ d) + float(change.sum())
    if not promised < 0:
        return np.zeros(len(block))
    size, rounding = 1.0, 1e-14 * (1.0 + abs(before))
    for _ in range(HALVINGS):
        if _value_after(problem, state, block, size * d) <= before + ARMIJO * size * promised + rounding:
            return size * d
        size *= 0.5
    return np.zeros(len(block))
