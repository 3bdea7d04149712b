"""Few random queries and a linear program: for features on which sparse parameters can be told apart.

Candes and Tao (2007), "The Dantzig selector", and Bickel, Ritov and Tsybakov (2009), "Simultaneous analysis of Lasso
and Dantzig selector", for why few answers are enough.
"""

from __future__ import annotations

import math
from dataclasses import dataclass, replace
from typing import Literal

import numpy as np

from thalweg.core.validation import is_real, is_whole, require
from thalweg.online.actions.lazy import PolytopeSearch, Supports, check_dimensions
from thalweg.online.actions.method import ActionSearch
from thalweg.online.actions.problem import Features, Vector
from thalweg.online.actions.search import GapCertificate, Search
from thalweg.online.actions.sparse_fit import (
    closest_fit,
    lasso_fit,
    refitted,
    restricted_eigenvalue,
    shortest_fit,
    support_of,
)
from thalweg.online.actions.tolerance import check_size, draws_for

Estimator = Literal["lp", "lasso"]

#: A restricted eigenvalue below this share of the features' size is none.
DEGENERATE = 1e-6


class _FitSearch(Search):
    """Random actions, a fit, and the action that the fit likes best."""

    def __init__(self, features: Features, queries: int, draws: int, seed: int) -> None:
        super().__init__(features, draws, seed)
        count = min(queries, self.n)
        self.plan = self._rng.choice(self.n, count, replace=False).tolist()
        self.theta: Vector | None = None

    def _choose(self) -> int | None:
        for action in self.plan[self.queries :]:
            if not self.counts[action]:
                return int(action)
        if self.theta is None:
            rows = np.array(self.plan)
            self.theta = self._fitted(self.features[rows], self.sums[rows] / self.counts[rows])
        liked = int(np.argmax(self.features @ self.theta))
        return None if self.counts[liked] else liked

    def _fitted(self, features: Features, rewards: Vector) -> Vector:
        raise NotImplementedError


class _SparseSearch(_FitSearch):
    """`SparseDesign` under way."""

    def __init__(
        self, features: Features, options: SparseDesign, queries: int, slack: float, draws: int, seed: int
    ) -> None:
        super().__init__(features, queries, draws, seed)
        self.options, self.eps, self.slack, self.kappa = options, options.eps, slack, 0.0
        self.follower: PolytopeSearch | None = None

    def _choose(self) -> int | None:
        if self.follower is None:
            action = super()._choose()
            if action is not None or not self.options.follow:
                return action
            self.follower = self._followed()
        action = self.follower._choose()
        if action is None:
            self.message = " ".join(filter(None, (self.message, self.follower.message)))
        return action

    def _followed(self) -> PolytopeSearch:
        """Elimination on the support found and those one swap away, that knows all answers."""
        near = support_of(np.asarray(self.theta), self.options.sparsity)
        supports = swaps(near, self.d, self.options.sparsity)
        self.message += f" Elimination on {len(supports)} supports near the one found."
        follower = PolytopeSearch(
            self.features,
            supports,
            eps=self.eps,
            given=self.eps == self.options.eps,
            slack=self.slack,
            radius=self.options.radius,
        )
        follower.sums, follower.counts = self.sums, self.counts  # the same answers, those to come as well
        follower.asked = list(dict.fromkeys(self.actions))
        return follower

    def _answered(self, action: int) -> None:
        if self.follower is not None:
            self.follower.asked.append(action)

    def _fitted(self, features: Features, rewards: Vector) -> Vector:
        within = self.eps + self.slack
        theta = shortest_fit(features, rewards, within) if self.options.estimator == "lp" else None
        if self.options.estimator == "lasso":
            theta = lasso_fit(features, rewards, 2 * within * float(np.abs(features).max()))
        while theta is None:
            _, least = closest_fit(features, rewards)
            self.eps = max(2 * self.eps, least - self.slack, 1e-12 * float(np.abs(rewards).max()))
            told = f"No theta fits {len(rewards)} answers within eps = {self.options.eps:g};"
            self.message = f"{told} it is {self.eps:.4g} now. "
            theta = shortest_fit(features, rewards, (self.eps + self.slack) * (1 + 1e-9))
        if self.options.refit:
            theta = refitted(features, rewards, theta, self.options.sparsity)
        near = support_of(theta, self.options.sparsity)
        self.kappa = restricted_eigenvalue(features, self.options.sparsity, self._rng, near)
        size = float(np.sqrt(np.square(features).mean()))
        if self.kappa <= DEGENERATE * size:
            self.kappa = 0.0
            self.message += "The design is degenerate: some sparse parameters cannot be told apart by it."
        else:
            self.message += (
                f"The design's restricted eigenvalue is at most {self.kappa:.3g}, as far as was looked."
            )
        return np.asarray(theta)

    @property
    def error(self) -> float:
        """Most that an estimate of a reward is off from its linear part, by theory, with the eigenvalue found."""
        if self.kappa == 0:
            return math.inf
        within, s = self.eps + self.slack, self.options.sparsity
        largest = float(np.abs(self.features).max())
        if self.options.estimator == "lp":
            return 4 * math.sqrt(s) * within / self.kappa * largest
        return 24 * s * within / self.kappa**2 * largest**2

    def certificate(self) -> GapCertificate | None:
        if self.follower is not None:
            near = "the parameter's entries are those found, but for one at most"
            proof = self.follower.certificate()
            return None if proof is None else replace(proof, condition=near)
        if self.theta is None or not self.done or self.options.refit or not math.isfinite(self.error):
            return None
        promise = float((self.features @ self.theta).max())
        given = self.eps == self.options.eps
        return GapCertificate(
            self.mean(self.answer()),
            promise,
            self.error + self.eps + self.slack,
            self.eps,
            given,
            0,
            f"the restricted eigenvalue is at least {self.kappa:.3g}",
        )


@dataclass(frozen=True)
class SparseDesign(ActionSearch):
    """Query a few dozen random actions and take the shortest parameter that fits: for features such as random signs.

    ``4 s ln d`` queries are enough where the design tells sparse parameters apart (a restricted eigenvalue kappa):
    every estimate is off by at most ``4 sqrt(s) eps / kappa`` times the largest feature. The search reports the
    smallest kappa that it finds, which may be too large: its certificate holds if it is not. Where columns are nearly
    alike, or rows short, use `LazyElimination`, whose certificate needs no kappa.

    Args:
        eps: most that a reward is off from linear; too small a one is raised to what fits, and told.
        sparsity: s, nonzero entries of the parameter. Default 2.
        queries: None (default) for ``max(40, ceil(4 s ln d))``.
        estimator: "lp" (default), whose error grows as sqrt(s), or "lasso", weighted by 2 eps times the largest
            feature, whose error grows as s.
        refit: least squares on the s largest entries. Default False: it is the better estimate where these are the
            right ones, but there is no certificate for it.
        follow: go on with elimination (as `LazyElimination`) on the support found and all that differ from it in one
            entry: a certificate of ``2 eps`` that needs no kappa, if the right support is among them. Default False.
        radius: most that ``|theta|_2`` may be, for ``follow``. Default 1.
        accuracy: with noise, how near means are brought. None (default) for eps.
        delta: with noise, the probability of one being farther off. Default 0.05.

    Raises:
        InvalidParameter: a sparsity outside 1 .. d.

    Cost: a linear program in 2 d variables and 2 rows a query, some tenths of a second for d = 1024.

    >>> from thalweg import solve
    >>> from thalweg.online import ActionTable
    >>> features = np.random.default_rng(0).choice([-1.0, 1.0], (500, 100))
    >>> table = ActionTable(features, 0.5 * features[:, 7] - 0.5 * features[:, 20])
    >>> found = solve(table, SparseDesign(eps=0.01))
    >>> found.metrics["gap"] < 0.1, found.calls
    (True, 41)
    """

    eps: float
    sparsity: int = 2
    queries: int | None = None
    estimator: Estimator = "lp"
    refit: bool = False
    follow: bool = False
    radius: float = 1.0
    accuracy: float | None = None
    delta: float = 0.05

    def __post_init__(self) -> None:
        require(self.eps is not None, "SparseDesign needs a number eps >= 0", got=self.eps)
        check_size("eps", self.eps, "SparseDesign")
        check_size("accuracy", self.accuracy, "SparseDesign", positive=True)
        whole = is_whole(self.sparsity) and self.sparsity >= 1
        require(whole, "SparseDesign needs a whole sparsity >= 1", got=self.sparsity)
        if self.follow:
            check_dimensions(self.sparsity, "SparseDesign with follow")
        known = self.estimator in ("lp", "lasso")
        require(known, "SparseDesign: estimator is 'lp' or 'lasso'", got=self.estimator)
        weighted = self.estimator == "lp" or self.eps > 0
        require(weighted, "SparseDesign: a lasso needs eps > 0, of which its weight is made", got=self.eps)
        check_queries("SparseDesign", self.queries)
        check_size("radius", self.radius, "SparseDesign", positive=True)
        require(self.radius is not None, "SparseDesign needs a radius > 0, of theta")
        require(
            is_real(self.delta) and 0 < self.delta < 1, "SparseDesign needs 0 < delta < 1", got=self.delta
        )

    def made(self, features: Features, noise: float, seed: int) -> Search:
        d, s = features.shape[1], self.sparsity
        require(s <= d, f"SparseDesign needs a sparsity of at most d = {d}", got=s)
        accuracy = self.eps if self.accuracy is None else self.accuracy
        draws = draws_for(noise, accuracy, len(features), self.delta)
        queries = self.queries or max(40, math.ceil(4 * s * math.log(d)))
        return _SparseSearch(features, self, queries, accuracy if noise else 0.0, draws, seed)


def swaps(near: Supports, d: int, sparsity: int) -> Supports:
    """The support ``near``, filled up with the first other places, and all with one entry of it exchanged.

    >>> swaps(np.array([1, 2]), 4, 2).tolist()
    [[1, 2], [0, 2], [2, 3], [0, 1], [1, 3]]
    """
    rest = np.setdiff1d(np.arange(d), near)
    held = np.sort(np.concatenate([near, rest[: sparsity - len(near)]])).astype(np.int64)
    others = np.setdiff1d(np.arange(d), held)
    found = [held]
    for k in range(sparsity):
        found += [np.sort(np.append(np.delete(held, k), other)) for other in others]
    return np.array(found, dtype=np.int64)


class _CommitSearch(_FitSearch):
    """`ExploreThenCommit` under way."""

    def __init__(self, features: Features, options: ExploreThenCommit, seed: int) -> None:
        super().__init__(features, options.queries, 1, seed)
        self.options = options

    def _fitted(self, features: Features, rewards: Vector) -> Vector:
        self.message = f"Lasso on {len(rewards)} random actions; the answer has no certificate."
        return lasso_fit(features, rewards, self.options.weight)


@dataclass(frozen=True)
class ExploreThenCommit(ActionSearch):
    """Query so many random actions, fit a Lasso, and take what it likes best: the plain way to use sparsity.

    Args:
        queries: default 40.
        weight: of the Lasso. Default 0.02.

    Source: Hao, Lattimore and Wang (2020), "High-dimensional sparse linear bandits", with random exploration.

    >>> from thalweg import solve
    >>> from thalweg.online import ActionTable
    >>> features = np.random.default_rng(0).choice([-1.0, 1.0], (500, 100))
    >>> table = ActionTable(features, 0.5 * features[:, 7] - 0.5 * features[:, 20])
    >>> solve(table, ExploreThenCommit()).metrics["gap"]
    0.0
    """

    queries: int = 40
    weight: float = 0.02

    def __post_init__(self) -> None:
        require(self.queries is not None, "ExploreThenCommit needs queries >= 1", got=self.queries)
        check_queries("ExploreThenCommit", self.queries)
        require(
            is_real(self.weight) and 0 < self.weight < math.inf,
            "ExploreThenCommit needs weight > 0",
            got=self.weight,
        )

    def made(self, features: Features, noise: float, seed: int) -> Search:
        return _CommitSearch(features, self, seed)


def check_queries(method: str, queries: int | None) -> None:
    """Refuse a number of queries that is none."""
    right = queries is None or (is_whole(queries) and queries >= 1)
    require(right, f"{method} needs queries >= 1", got=queries)
