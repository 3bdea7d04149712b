"""Elimination without a net: on each support, what the answers leave is a polytope, made when it is needed.

Dong and Yang (2023) for elimination by promise; polytopes in place of lattice points do away with the net's radius.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from thalweg.core import InvalidParameter
from thalweg.core.validation import is_whole, require
from thalweg.online.actions._polytope_kernels import ball_promises, most_promising
from thalweg.online.actions.elimination import HALVINGS, Elimination, largest_on_support
from thalweg.online.actions.method import ActionSearch
from thalweg.online.actions.net import all_supports
from thalweg.online.actions.problem import Features
from thalweg.online.actions.search import Search
from thalweg.online.actions.tolerance import check_assumptions, check_probes, draws_for, probes_for

Supports = NDArray[np.int64]


#: Share of the largest reward below which no tolerance is taken.
LEAST = 1e-7
#: A polytope of more dimensions has too many vertices.
MOST_ENTRIES = 8


def check_dimensions(sparsity: int, method: str) -> None:
    """Refuse polytopes that have too many vertices to be found."""
    require(
        sparsity <= MOST_ENTRIES,
        f"{method}: polytopes of {sparsity} dimensions have too many vertices; expected a sparsity of at most "
        f"{MOST_ENTRIES}. Use SparseDesign, or GOptimal",
    )


class PolytopeSearch(Elimination):
    """Elimination over the given supports, shape (count, s); see `LazyElimination`."""

    def __init__(
        self,
        features: Features,
        supports: Supports,
        *,
        eps: float,
        given: bool,
        slack: float,
        radius: float,
        probes: int = 0,
        draws: int = 1,
        seed: int = 0,
    ) -> None:
        largest = radius * largest_on_support(features, supports.shape[1])
        super().__init__(features, eps, given, slack, largest, probes, draws, seed)
        self.supports, self.radius = supports, radius
        self.columns = np.ascontiguousarray(features.T)
        self.asked: list[int] = []  # in their order: bounds know up to where they have looked
        self._renew()

    @property
    def tolerance(self) -> float:
        """At least so much that rounding does not empty a polytope: eps may be zero."""
        return max(super().tolerance, LEAST * self.largest)

    def _renew(self) -> None:
        count, s = self.supports.shape
        self.bounds = np.empty(count)
        self.choices = np.zeros(count, dtype=np.int64)
        self.points = np.zeros((count, s))
        self.seen = np.zeros(count, dtype=np.int64)
        ball_promises(self.supports, self.columns, self.radius, self.bounds, self.choices, self.points)

    def _most_promising(self) -> int | None:
        while True:
            found = self._best_support()
            if found < 0:
                self._contradicted()
                continue
            promise, action = float(self.bounds[found]), int(self.choices[found])
            self._promise = promise
            # A queried action's promise is within the tolerance of its answer, up to rounding: that is the end, too.
            return None if self._is_enough(promise) or self.counts[action] else action

    def _best_support(self) -> int:
        """Brings bounds up to date as needed; -1 where nothing is left."""
        means = self.sums[self.asked] / self.counts[self.asked] if self.asked else np.zeros(0)
        order = np.argsort(-self.bounds, kind="stable")
        order = order[: int(np.count_nonzero(self.bounds > -np.inf))]
        asked = np.array(self.asked, dtype=np.int64)
        return int(
            most_promising(
                order,
                self.supports,
                self.columns,
                asked,
                means,
                self.tolerance,
                self.radius,
                self.bounds,
                self.choices,
                self.points,
                self.seen,
            )
        )

    def _answered(self, action: int) -> None:
        self.asked.append(action)

    def _survivors(self) -> int:
        return int(np.count_nonzero(self.bounds > -np.inf))


@dataclass(frozen=True)
class LazyElimination(ActionSearch):
    """Elimination of sparse parameters without a net: for more features, or a smaller error, than a net allows.

    On every support the parameters that fit all answers within eps are a polytope; what it promises at the actions lies
    at its vertices, which are found when the support could promise most, and not before. Ends with an action within
    ``2 eps`` of the best (a net: ``2 (eps + eta)``), after at most n queries and usually a few dozen. It looks at every
    support: with more than some millions of them use `SparseDesign`, if the features are good.

    Args:
        sparsity: s, nonzero entries of theta. Default 2.
        eps: most that a reward is off from linear, for rounding's sake at least 1e-7 of the largest reward. None
            (default) begins with a small one and doubles it while the answers contradict it. That is no proof: see
            `GapCertificate`. One that is given and contradicted is doubled as well, and told.
        radius: most that ``|theta|_2`` may be. Default 1.
        accuracy: with noise, how near means are brought; it is added to eps. None (default) for eps;
            where eps is unknown it has to be given.
        delta: with noise, the probability of an action's mean being farther off. Default 0.05.
        probes: actions drawn at random that are queried first; None (default) for none where eps is given, and for
            ``10 + 5 s`` where it is not, so that there is something to contradict a small one.
        limit: most supports, ``C(d, s)``; their count is told before the work. Default 2 000 000.

    Raises:
        InvalidParameter: sparsity > d or > 8, more supports than the limit.
        InvalidProblem: a reward beyond what radius and eps allow.

    Cost: n s operations a support at first; then, for each support that may still promise most and whose last best
    parameter an answer has contradicted, a polytope of some dozen vertices and n s operations for each of them.
    ``8 (2 s + 3)`` bytes a support, and as much again while they are sorted. Two million supports at 1000 actions take
    some fifteen seconds and 250 MB.

    >>> import numpy as np
    >>> from thalweg.online import LazyElimination
    >>> from thalweg import solve
    >>> from thalweg.online import ActionTable
    >>> rng = np.random.default_rng(0)
    >>> features = rng.standard_normal((300, 40)); features /= np.linalg.norm(features, axis=1, keepdims=True)
    >>> linear = 0.8 * features[:, 3] - 0.6 * features[:, 20]
    >>> table = ActionTable(features, linear + rng.uniform(-0.1, 0.1, 300))
    >>> found = solve(table, LazyElimination(sparsity=2, eps=0.1))
    >>> found.metrics["gap"] <= 0.2 and found.calls < 60
    True
    """

    sparsity: int = 2
    eps: float | None = None
    radius: float = 1.0
    accuracy: float | None = None
    delta: float = 0.05
    probes: int | None = None
    limit: int = 2_000_000

    def __post_init__(self) -> None:
        check_assumptions(self.sparsity, self.eps, self.radius, self.accuracy, self.delta, "LazyElimination")
        check_probes(self.probes, "LazyElimination")
        require(is_whole(self.limit) and self.limit >= 1, "LazyElimination needs limit >= 1", got=self.limit)

    def made(self, features: Features, noise: float, seed: int) -> Search:
        d, s = features.shape[1], self.sparsity
        require(s <= d, f"LazyElimination: sparsity needs a whole number from 0 to d = {d}", got=s)
        count = math.comb(d, s)
        if count > self.limit:
            raise InvalidParameter(
                f"There are {count} supports of {s} among {d} features; the limit is {self.limit}. Use a smaller "
                "sparsity, SparseDesign, or a larger limit."
            )
        check_dimensions(s, "LazyElimination")
        supports = all_supports(d, s)
        largest = self.radius * largest_on_support(features, s)
        eps = (largest or 1.0) / 2**HALVINGS if self.eps is None else self.eps
        accuracy = (eps if self.eps is not None else 0.0) if self.accuracy is None else self.accuracy
        return PolytopeSearch(
            features,
            supports,
            eps=eps,
            given=self.eps is not None,
            slack=accuracy if noise else 0.0,
            radius=self.radius,
            probes=probes_for(self.probes, s, self.eps is not None),
            draws=draws_for(noise, accuracy, len(features), self.delta),
            seed=seed,
        )
