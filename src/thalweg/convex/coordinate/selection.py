"""Which block next: in turn, at random, or the one that promises most.

Nutini, Laradji and Schmidt (2022), sections 2.2, 3 and 5.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

import numpy as np
from scipy.linalg import cho_factor, cho_solve

from thalweg.convex.coordinate.state import BlockState
from thalweg.convex.datafits import Index, Vector
from thalweg.convex.problem import Penalized
from thalweg.core.validation import require


class Selection(ABC):
    """Base: picks one of several blocks, or a number of coordinates."""

    @abstractmethod
    def block(self, problem: Penalized, state: BlockState, blocks: Sequence[Index]) -> int:
        """Number of the block to take."""

    @abstractmethod
    def order(self, problem: Penalized, state: BlockState) -> Index:
        """All coordinates, or groups, the most wanted first."""

    def coordinates(self, problem: Penalized, state: BlockState, size: int) -> Index:
        """The ``size`` most wanted coordinates, or those of as many groups."""
        return problem.members(self.order(problem, state)[:size])


@dataclass(frozen=True)
class Cyclic(Selection):
    """One after another."""

    def block(self, problem: Penalized, state: BlockState, blocks: Sequence[Index]) -> int:
        return state.t % len(blocks)

    def order(self, problem: Penalized, state: BlockState) -> Index:
        return np.roll(np.arange(problem.units), -state.used)


@dataclass(frozen=True)
class Random(Selection):
    """Each with the same probability."""

    def block(self, problem: Penalized, state: BlockState, blocks: Sequence[Index]) -> int:
        return int(state.stream.integers(len(blocks)))

    def order(self, problem: Penalized, state: BlockState) -> Index:
        return state.stream.permutation(problem.units)


@dataclass(frozen=True)
class LipschitzSampling(Selection):
    """Probabilities proportional to the blocks' Lipschitz constants (Nesterov, 2012)."""

    def block(self, problem: Penalized, state: BlockState, blocks: Sequence[Index]) -> int:
        constants = np.array([state.constant(problem, block) for block in blocks])
        return int(state.stream.choice(len(blocks), p=constants / constants.sum()))

    def order(self, problem: Penalized, state: BlockState) -> Index:
        # Gumbel's trick: sampling without replacement, proportional to the constants
        noise = state.stream.gumbel(size=problem.units)
        return np.argsort(-(np.log(problem.unit_sums(problem.lipschitz)) + noise))


class Greedy(Selection):
    """Base of the Gauss-Southwell rules: a score for each coordinate; a block's score is the sum, unless a rule has
    its own.
    """

    @abstractmethod
    def scores(self, problem: Penalized, x: Vector, g: Vector) -> Vector:
        """The promise of each coordinate, shape (n,); a group's is the sum."""

    def block_scores(self, problem: Penalized, state: BlockState, blocks: Sequence[Index]) -> Vector:
        """The promise of each block."""
        scores = self.scores(problem, state.x, state.g)
        return np.array([scores[block].sum() for block in blocks])

    def block(self, problem: Penalized, state: BlockState, blocks: Sequence[Index]) -> int:
        return int(np.argmax(self.block_scores(problem, state, blocks)))

    def order(self, problem: Penalized, state: BlockState) -> Index:
        return np.argsort(-problem.unit_sums(self.scores(problem, state.x, state.g)), kind="stable")

    def coordinates(self, problem: Penalized, state: BlockState, size: int) -> Index:
        return problem.members(_largest(problem.unit_sums(self.scores(problem, state.x, state.g)), size))


def _largest(scores: Vector, size: int) -> Index:
    if size == 1:
        return np.array([int(np.argmax(scores))])
    if size == len(scores):
        return np.arange(size)
    return np.argpartition(-scores, size)[:size]


@dataclass(frozen=True)
class GS(Greedy):
    """Gauss-Southwell: the largest gradient; with a penalty the largest subgradient of least norm (GS-s)."""

    def scores(self, problem: Penalized, x: Vector, g: Vector) -> Vector:
        return problem.slopes(x, g) ** 2


class _Scaled(Greedy):
    """Squared gradients over the coordinates' own Lipschitz constants."""

    def scores(self, problem: Penalized, x: Vector, g: Vector) -> Vector:
        return problem.slopes(x, g) ** 2 / problem.lipschitz


@dataclass(frozen=True)
class GSL(_Scaled):
    """``|g_b|^2 / L_b``: counts the Lipschitz constant of the block; for variable blocks, of each coordinate."""

    def block_scores(self, problem: Penalized, state: BlockState, blocks: Sequence[Index]) -> Vector:
        squares = problem.slopes(state.x, state.g) ** 2
        return np.array([squares[b].sum() / state.constant(problem, b) for b in blocks])


@dataclass(frozen=True)
class GSD(_Scaled):
    """``sum g_i^2 / D_i`` with the diagonal bound D_i = (block size) L_i, which holds for every block (section 3.3)."""

    def block_scores(self, problem: Penalized, state: BlockState, blocks: Sequence[Index]) -> Vector:
        scores = self.scores(problem, state.x, state.g)
        return np.array([scores[b].sum() / len(b) for b in blocks])


@dataclass(frozen=True)
class GSDHB(_Scaled):
    """``sum g_i^2 / H_ii`` with the diagonal of the Hessian's bound: GSQ without what lies off the diagonal."""


@dataclass(frozen=True)
class GSQ(_Scaled):
    """``g_b' H_b^-1 g_b`` with the bound matrix H_b: the decrease that `BoundStep` is sure of.

    Args:
        search: how variable blocks, a combinatorial choice, are looked for. ``"omp"`` (default): grown one coordinate
            or group at a time, by the gradient that would be left after the matrix step on those before (orthogonal
            matching pursuit). ``"iht"``: from the diagonal's choice on, a matrix step on the block, a gradient step
            outside it, and the largest of both kept (hard thresholding pursuit; Foucart, 2011); the best block met.

    Cost of a variable block: O(n b^2) by pursuit; O(n b) for each of the at most thirty steps of thresholding.
    """

    search: Literal["omp", "iht"] = "omp"

    def __post_init__(self) -> None:
        require(self.search in ("omp", "iht"), "GSQ knows the searches 'omp' and 'iht'", got=self.search)

    def block_scores(self, problem: Penalized, state: BlockState, blocks: Sequence[Index]) -> Vector:
        slopes = problem.slopes(state.x, state.g)
        found = np.empty(len(blocks))
        for k, b in enumerate(blocks):
            found[k] = slopes[b] @ cho_solve(state.factor(problem, b), slopes[b])
        return found

    def coordinates(self, problem: Penalized, state: BlockState, size: int) -> Index:
        slopes = problem.slopes(state.x, state.g)
        return (_pursued if self.search == "omp" else _thresholded)(problem, slopes, size)


def _pursued(problem: Penalized, slopes: Vector, size: int) -> Index:
    lipschitz = problem.lipschitz
    units = [int(np.argmax(problem.unit_sums(slopes**2 / lipschitz)))]
    block = problem.members(np.array(units))
    columns = problem.loss.bound_columns(block)
    while len(units) < size:
        H = columns[block] + 1e-12 * np.diag(lipschitz[block])
        left = slopes - columns @ cho_solve(cho_factor(H), slopes[block])
        promise = problem.unit_sums(left**2 / lipschitz)
        promise[units] = -1.0
        units.append(int(np.argmax(promise)))
        new = problem.members(np.array(units[-1:]))
        block = np.concatenate([block, new])
        columns = np.column_stack([columns, problem.loss.bound_columns(new)])
    return block


THRESHOLDINGS = 30


def _thresholded(problem: Penalized, slopes: Vector, size: int) -> Index:
    lipschitz = problem.lipschitz
    block = problem.members(_largest(problem.unit_sums(slopes**2 / lipschitz), size))
    seen, best, most = set(), block, -np.inf
    for _ in range(THRESHOLDINGS):
        columns = problem.loss.bound_columns(block)
        H = columns[block] + 1e-12 * np.diag(lipschitz[block])
        d = cho_solve(cho_factor(H), slopes[block])  # the step is -d
        promise = float(slopes[block] @ d)
        if promise > most:
            best, most = block, promise
        seen.add(np.sort(block).tobytes())
        left = slopes - columns @ d
        # the length that is exact along the best direction outside the block, in the metric of the diagonal
        aside = left / lipschitz
        aside[block] = 0.0
        ahead = problem.members(_largest(problem.unit_sums(aside**2 * lipschitz), min(size, problem.units)))
        curved = float(aside[ahead] @ problem.loss.bound(ahead) @ aside[ahead])
        length = float(left[ahead] @ aside[ahead]) / curved if curved > 0.0 else 1.0
        trial = length * aside
        trial[block] = d
        block = problem.members(_largest(problem.unit_sums(trial**2 * lipschitz), size))
        if np.sort(block).tobytes() in seen:
            break
    return best


@dataclass(frozen=True)
class GSR(Greedy):
    """The longest proximal step (GS-r), scaled by the root of L_i; for smooth problems the same as `GSL`."""

    def scores(self, problem: Penalized, x: Vector, g: Vector) -> Vector:
        step = 1.0 / problem.lipschitz
        return (problem.prox(x - step * g, step) - x) ** 2 / step


@dataclass(frozen=True)
class GSProgress(Greedy):
    """The largest decrease of the coordinate's proximal model (GS-q with L_i): never misled by a step that a kink or a
    bound cuts short.
    """

    def scores(self, problem: Penalized, x: Vector, g: Vector) -> Vector:
        step = 1.0 / problem.lipschitz
        new = problem.prox(x - step * g, step)
        d = new - x
        change = g * d + 0.5 * d**2 / step + problem.penalty_change(x, new)
        return -2.0 * change
