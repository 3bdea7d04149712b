"""G-optimal designs, least squares on them, and elimination of actions in phases.

Kiefer and Wolfowitz (1960), "The equivalence of two extremum problems"; Lattimore, Szepesvari and Weisz (2020),
"Learning with good feature representations in bandits and in RL with a generative model", sections 3 and 4.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np
from numpy.typing import ArrayLike, NDArray

from thalweg.core import InvalidParameter
from thalweg.core.seeding import generator
from thalweg.core.validation import is_real, is_whole, require, require_positive
from thalweg.online.actions.method import ActionSearch
from thalweg.online.actions.problem import Features, Vector, as_features
from thalweg.online.actions.search import GapCertificate, Search
from thalweg.online.actions.tolerance import check_size, draws_for

#: Steps after which the inverse is made anew, so that rounding does not add up.
REFRESH = 200


@dataclass(frozen=True)
class OptimalDesign:
    """Weights of actions, and how well they determine every other.

    Args:
        weights: shape (n,), >= 0, summing to one.
        leverage: largest ``phi' A^-1 phi``, with A the weighted sum of ``phi phi'``; at best the rank.
        rank: of the features.
        steps: that it took.
    """

    weights: Vector
    leverage: float
    rank: int
    steps: int


def g_optimal_design(features: ArrayLike, tol: float = 0.02, max_steps: int = 100_000) -> OptimalDesign:
    """Weights for which the largest leverage of an action is at most ``(1 + tol)`` times the rank.

    Frank-Wolfe steps towards the action of largest leverage, or away from the one of smallest in the design, each with
    the best step size; the inverse and the leverages follow by rank-one updates.

    Args:
        features: shape (n, d), of any rank.
        tol: default 0.02.
        max_steps: default 100 000.

    Raises:
        InvalidProblem: as `ActionTable`. InvalidParameter: rows of zeros only, or a tol that was not reached.

    Cost a step: 2 n d operations. Steps: a few times d / sqrt(tol) in practice.

    >>> design = g_optimal_design([[1.0, 0.0], [0.0, 1.0], [0.5, 0.5]])
    >>> design.weights.round(2).tolist(), round(design.leverage, 2)
    ([0.5, 0.5, 0.0], 2.0)
    """
    require(is_real(tol) and tol > 0, "g_optimal_design needs tol > 0", got=tol)
    X = _full_rank(as_features(features))
    d = X.shape[1]
    weights = _beginning(X)
    inverse, leverages = _inverse(X, weights)
    for step in range(max_steps):
        if step % REFRESH == REFRESH - 1:
            inverse, leverages = _inverse(X, weights)
        most = int(np.argmax(leverages))
        if leverages[most] <= (1 + tol) * d:
            inverse, leverages = _inverse(X, weights)
            most = int(np.argmax(leverages))
            if leverages[most] <= (1 + tol) * d:
                return OptimalDesign(weights, float(leverages[most]), d, step)
        inside = np.flatnonzero(weights)
        least = int(inside[np.argmin(leverages[inside])])
        towards = leverages[most] - d >= d - leverages[least]
        at = most if towards else least
        leverage, share = leverages[at], weights[at]
        size = (leverage / d - 1) / (leverage - 1) if leverage > 1 else -math.inf
        leaves = not towards and size <= -share / (1 - share)
        size = -share / (1 - share) if leaves else size
        weights *= 1 - size
        weights[at] = 0.0 if leaves else weights[at] + size
        direction = inverse @ X[at]
        shrink = size / (1 - size + size * leverage)
        inverse = (inverse - shrink * np.outer(direction, direction)) / (1 - size)
        leverages = (leverages - shrink * np.square(X @ direction)) / (1 - size)
    raise InvalidParameter(
        f"The design's leverage is {leverages.max():.4g} after {max_steps} steps; expected {(1 + tol) * d:.4g}. Give a "
        "larger tol or max_steps."
    )


def _full_rank(features: Features) -> Features:
    """Coordinates in the row space, orthonormal: leverages do not depend on them."""
    left, values, _ = np.linalg.svd(_in_own_units(features), full_matrices=False)
    rank = int((values > max(features.shape) * np.finfo(float).eps * values[0]).sum()) if values[0] > 0 else 0
    require(rank > 0, "g_optimal_design needs features that are not all zero")
    return np.ascontiguousarray(left[:, :rank] * math.sqrt(len(features)))


def _in_own_units(features: Features) -> Features:
    """Each column over its largest entry: a column in a small unit is not taken for rounding of the others."""
    largest = np.abs(features).max(0)
    return np.asarray(features / np.where(largest > 0, largest, 1.0))


def _beginning(X: Features) -> Vector:
    """Equal weights of d actions that span the space: by QR with pivoting."""
    from scipy.linalg import qr

    n, d = X.shape
    _, pivots = qr(X.T, mode="r", pivoting=True)
    weights = np.zeros(n)
    weights[pivots[:d]] = 1.0 / d
    return weights


def _inverse(X: Features, weights: Vector) -> tuple[NDArray[np.float64], Vector]:
    inside = np.flatnonzero(weights)
    moments = X[inside].T @ (weights[inside, None] * X[inside])
    inverse = np.asarray(np.linalg.inv(moments), dtype=np.float64)
    return inverse, np.asarray(np.einsum("ij,ij->i", X @ inverse, X))


def _weighted_fit(features: Features, weights: Vector, rewards: Vector) -> Vector:
    """Estimates of all actions by weighted least squares; rewards count where weights do."""
    inside = np.flatnonzero(weights)
    root = np.sqrt(weights[inside])
    rows = _in_own_units(features)
    theta = np.linalg.lstsq(root[:, None] * rows[inside], root * rewards[inside], rcond=None)[0]
    return np.asarray(rows @ theta)


class _DesignSearch(Search):
    """`GOptimal` under way: the design's actions, then the one that the fit likes best."""

    def __init__(
        self, features: Features, projected: Features, options: GOptimal, noise: float, seed: int
    ) -> None:
        accuracy = options.accuracy or options.eps or 0.0
        super().__init__(features, draws_for(noise, accuracy, len(features), options.delta), seed)
        self.projected, self.options, self.slack = projected, options, accuracy if noise else 0.0
        self.design = g_optimal_design(projected, options.tol)
        self.plan = np.flatnonzero(self.design.weights).tolist()
        self.estimates: Vector | None = None

    def _choose(self) -> int | None:
        for action in self.plan:
            if not self.counts[action]:
                return int(action)
        if self.estimates is None:
            means = self.sums / np.maximum(self.counts, 1)
            self.estimates = _weighted_fit(self.projected, self.design.weights, means)
            self.message = (
                f"Least squares on a design of {len(self.plan)} actions, leverage {self.design.leverage:.4g}."
            )
        liked = int(np.argmax(self.estimates))
        return None if self.counts[liked] else liked

    def answer(self) -> int:
        return super().answer() if self.estimates is None else int(np.argmax(self.estimates))

    def certificate(self) -> GapCertificate | None:
        eps = self.options.eps
        if eps is None or self.estimates is None or not self.done or self.projected is not self.features:
            return None
        off = (eps + self.slack) * math.sqrt(self.design.leverage)
        promise, reward = float(self.estimates.max()), self.mean(self.answer())
        return GapCertificate(reward, promise, off + eps + self.slack, eps, True, 0)


@dataclass(frozen=True)
class GOptimal(ActionSearch):
    """Query a G-optimal design, fit least squares, and take the action that the fit likes best.

    Needs no sparsity: its estimates are off by at most ``eps sqrt((1 + tol) d)``, so that the answer is within
    ``2 eps (1 + sqrt((1 + tol) d))`` of the best. Use it for d up to some dozens, where that is little; it queries
    several times d actions, all of a table with d some hundreds. With many features and few that matter, eliminations
    promise less error from fewer queries.

    Args:
        eps: the misspecification, of which the certificate speaks; None (default) gives none.
        tol: of the design: leverage at most ``(1 + tol) d``. Default 0.02.
        dimension: project features to so many at random first (Johnson and Lindenstrauss); None (default) does not.
            ``8 ln(n) / eta^2`` of them add some ``eta |theta|`` of misspecification.
        accuracy: with noise, how near means are brought. None (default) for eps.
        delta: with noise, the probability of one being farther off. Default 0.05.

    Raises:
        InvalidParameter: features all zero; a dimension that is not below d.

    Cost: O(n d) a step of the design, some hundreds to thousands of steps, before the first query.

    Source: Lattimore, Szepesvari and Weisz (2020), proposition 4.2.

    >>> from thalweg import solve
    >>> from thalweg.online import ActionTable
    >>> features = np.random.default_rng(0).standard_normal((200, 5))
    >>> solve(ActionTable(features, features @ np.arange(5.0)), GOptimal(eps=0.0)).metrics["gap"] < 1e-9
    True
    """

    eps: float | None = None
    tol: float = 0.02
    dimension: int | None = None
    accuracy: float | None = None
    delta: float = 0.05

    def __post_init__(self) -> None:
        check_size("eps", self.eps, "GOptimal")
        check_size("accuracy", self.accuracy, "GOptimal", positive=True)
        require_positive(self, "tol")
        require(is_real(self.delta) and 0 < self.delta < 1, "GOptimal needs 0 < delta < 1", got=self.delta)
        whole = self.dimension is None or (is_whole(self.dimension) and self.dimension >= 1)
        require(whole, "GOptimal needs dimension >= 1, or None", got=self.dimension)

    def made(self, features: Features, noise: float, seed: int) -> Search:
        projected, d, m = features, features.shape[1], self.dimension
        if m is not None:
            require(m < d, f"GOptimal: a projection needs dimension < d = {d}", got=m)
            projected = features @ (generator(seed, 8).standard_normal((d, m)) / math.sqrt(m))
        return _DesignSearch(features, projected, self, noise, seed)


class _PhasedSearch(Search):
    """`PhasedElimination` under way."""

    def __init__(self, features: Features, options: PhasedElimination, noise: float, seed: int) -> None:
        super().__init__(features, 1, seed)
        self.options, self.noise = options, noise
        self.active: NDArray[np.int64] = np.arange(self.n)
        self.phase = 0
        self.plan: list[int] = []
        self.estimates: Vector | None = None
        self._spread = float(np.abs(features).sum(1).max())
        self._begin()

    @property
    def width(self) -> float:
        """How far off noise may leave the estimates of this phase."""
        return self._spread * 2.0**-self.phase if self.noise else 0.0

    def _begin(self) -> None:
        """The next phase: a design on what is active, and what is to be drawn for it."""
        self.phase += 1
        rows = self.features[self.active]
        nothing = not rows.any()
        self.weights = np.zeros(self.n)
        design = None if nothing else g_optimal_design(rows)
        self.leverage = 0.0 if design is None else design.leverage
        self.weights[self.active] = 1.0 / len(rows) if design is None else design.weights
        self.plan = []
        if self.noise:
            level = math.log(self.n * self.phase * (self.phase + 1) / self.options.delta)
            total = 2 * self.leverage * self.noise**2 * level / self.width**2
            self.drawn = np.ceil(self.weights * total).astype(np.int64)
            self.plan = np.repeat(np.arange(self.n), self.drawn).tolist()[::-1]
        else:
            self.plan = [a for a in np.flatnonzero(self.weights).tolist() if not self.counts[a]][::-1]
        self._sums_before, self._counts_before = self.sums.copy(), self.counts.copy()

    def _choose(self) -> int | None:
        while not self.plan:
            if self._end():
                return None
            self._begin()
        return self.plan.pop()

    def _end(self) -> bool:
        """Fit, remove what is clearly worse; whether that was the last phase."""
        if self.noise:  # of this phase alone, as its bound needs
            counts = self.counts - self._counts_before
            means, weights = (
                (self.sums - self._sums_before) / np.maximum(counts, 1),
                counts / max(counts.sum(), 1),
            )
        else:
            means, weights = self.sums / np.maximum(self.counts, 1), self.weights
        found = _weighted_fit(self.features, weights, means)
        off = self.width + self.options.eps * math.sqrt(max(self.leverage, 0.0))
        self.estimates, estimates = found, found[self.active]
        kept = self.active[estimates >= estimates.max() - 2 * off]
        shrunk, self.active = len(kept) < len(self.active), kept
        self.message = f"{self.phase} phases left {len(kept)} of {self.n} actions."
        small = self.width <= max(self.options.eps, self.options.least)
        return len(kept) == 1 or (small if self.noise else not shrunk)

    def answer(self) -> int:
        if self.estimates is None:
            return super().answer()
        return int(self.active[np.argmax(self.estimates[self.active])])


@dataclass(frozen=True)
class PhasedElimination(ActionSearch):
    """Least squares on G-optimal designs of ever fewer actions: those that are clearly worse are left out.

    With noise the phases draw four times as often each; without, they end when nothing more is left out. It needs no
    sparsity, and its answer is within some ``4 eps sqrt(d)`` of the best.

    Args:
        eps: the misspecification that estimates are trusted for, times ``sqrt(d)``. Default 0.
        delta: probability, with noise, of leaving out the best of an exactly linear table. Default 0.05.
        least: with noise, phases end when it leaves estimates off by no more than this, or by eps. Default 0.01.

    Cost: a G-optimal design a phase; without noise a few phases, with noise ``log2(|phi| / least)`` at most.

    Source: Lattimore, Szepesvari and Weisz (2020), section 5, algorithm 1.

    >>> from thalweg import solve
    >>> from thalweg.online import ActionTable
    >>> features = np.random.default_rng(0).standard_normal((200, 5))
    >>> solve(ActionTable(features, features @ np.arange(5.0)), PhasedElimination()).metrics["gap"] < 1e-9
    True
    """

    eps: float = 0.0
    delta: float = 0.05
    least: float = 0.01

    def __post_init__(self) -> None:
        require(self.eps is not None, "PhasedElimination needs a number eps >= 0")
        check_size("eps", self.eps, "PhasedElimination")
        check_size("least", self.least, "PhasedElimination", positive=True)
        require(
            is_real(self.delta) and 0 < self.delta < 1,
            "PhasedElimination needs 0 < delta < 1",
            got=self.delta,
        )

    def made(self, features: Features, noise: float, seed: int) -> Search:
        return _PhasedSearch(features, self, noise, seed)
