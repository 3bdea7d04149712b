"""Elimination on a net of sparse parameters: the most promising candidate first.

Dong and Yang (2023), "Does sparsity help in learning misspecified linear bandits?", for the scheme.
"""

from __future__ import annotations

import math
from abc import abstractmethod
from dataclasses import dataclass

import numpy as np

from thalweg.core import InvalidProblem
from thalweg.core.validation import is_whole, require
from thalweg.online.actions.method import ActionSearch
from thalweg.online.actions.net import Net, NetSize
from thalweg.online.actions.problem import Features
from thalweg.online.actions.search import GapCertificate, Search
from thalweg.online.actions.tolerance import (
    check_assumptions,
    check_probes,
    check_size,
    draws_for,
    probes_for,
)

#: An unknown eps begins at the largest reward possible, halved at most so many times.
HALVINGS = 10


def largest_on_support(features: Features, sparsity: int) -> float:
    """The largest Euclidean norm of ``sparsity`` entries of a row: a linear reward is at most radius times this."""
    squares = np.sort(np.square(features), axis=1)[:, features.shape[1] - sparsity :]
    return float(np.sqrt(squares.sum(1).max()))


class Elimination(Search):
    """Base of searches that remove what the answers contradict, and double ``eps`` when nothing is left.

    Args:
        features: shape (n, d).
        eps: the misspecification, and whether it was ``given``.
        slack: what a mean may be off by beside it: of the noise.
        largest: of the moduli of rewards that are exactly linear.
        probes: actions drawn at random to be queried first.
        draws, seed: as `Search`.
    """

    certifies = True

    def __init__(
        self,
        features: Features,
        eps: float,
        given: bool,
        slack: float,
        largest: float,
        probes: int,
        draws: int,
        seed: int,
    ) -> None:
        super().__init__(features, draws, seed)
        self.eps, self.given, self.slack, self.largest = eps, given, slack, largest
        self.probes = self._rng.choice(self.n, min(probes, self.n), replace=False).tolist()
        self._first_eps = eps
        self._promise = math.inf  # the largest left, rounding added; unknown while probes are asked for

    @property
    def tolerance(self) -> float:
        """How far a mean may be from what the right candidate promises."""
        return self.eps + self.slack

    def _choose(self) -> int | None:
        for action in self.probes:
            if not self.counts[action]:
                return int(action)
        return self._most_promising()

    def certificate(self) -> GapCertificate | None:
        best = self.best()
        if best is None or self._promise == math.inf:
            return None
        reward = self.mean(best)
        given = self.given and self.eps == self._first_eps
        return GapCertificate(reward, self._promise, self.tolerance, self.eps, given, self._survivors())

    def _check(self, action: int, mean: float) -> None:
        most = self.largest + self.tolerance
        if self.given and abs(mean) > most * (1 + 1e-9):
            raise InvalidProblem(
                f"The reward of action {action} is {mean:.6g}; eps = {self.eps:g} and the radius allow at most "
                f"{most:.6g}. Give a larger radius=, or divide rewards by their size."
            )

    def _is_enough(self, promise: float) -> bool:
        """Whether the best reward seen is what a candidate with the largest promise can be trusted for."""
        best = self.best()
        return best is not None and self.mean(best) >= promise - self.tolerance

    def _contradicted(self) -> None:
        """Nothing is left: eps is too small. Double it and use all answers again."""
        before = self.eps
        self.eps = 2.0 * before if before > 0 else max(self.slack, 1e-3 * self.largest)
        if self.given:
            told = f"eps = {self._first_eps:g} is too small, or the radius or the sparsity is: {self.queries} answers"
            self.message = f"{told} contradict them. eps is {self.eps:g} now."
        self._renew()

    @abstractmethod
    def _most_promising(self) -> int | None:
        """The action at which what is left promises most; None where its promise is as good as kept."""

    @abstractmethod
    def _renew(self) -> None:
        """Begin again with the new eps, and apply all answers."""

    @abstractmethod
    def _survivors(self) -> int:
        """What the answers have left."""


class _NetSearch(Elimination):
    """`NetElimination` under way."""

    def __init__(
        self,
        features: Features,
        options: NetElimination,
        eps: float,
        slack: float,
        largest: float,
        draws: int,
        seed: int,
    ) -> None:
        given = options.eps is not None
        probes = probes_for(options.probes, options.sparsity, given)
        super().__init__(features, eps, given, slack, largest, probes, draws, seed)
        self.options = options
        self._renew()

    @property
    def eta(self) -> float:
        """The net's radius."""
        return self.eps if self.options.eta is None else self.options.eta

    @property
    def tolerance(self) -> float:
        return self.eps + self.eta + self.slack

    def _renew(self) -> None:
        size = NetSize.of(self.features, self.options.sparsity, self.eta, self.options.radius)
        size.require_within(self.options.limit)
        self.net = Net(self.features, size)
        for action in self.queried.tolist() if self.options.prune else ():
            self.net.keep(action, self.mean(action), self.tolerance)

    def _most_promising(self) -> int | None:
        while True:
            if not self.net.count:
                self._contradicted()
                continue
            promise, action = self.net.top()
            self._promise = promise + self.net.rounding
            if self._is_enough(promise):
                return None
            if not self.counts[action]:
                return action
            self.net.drop_top()  # one candidate a query: its own answer is not as it promised

    def _answered(self, action: int) -> None:
        if self.options.prune:
            self.net.keep(action, self.mean(action), self.tolerance)

    def _survivors(self) -> int:
        return self.net.count


@dataclass(frozen=True)
class NetElimination(ActionSearch):
    """Try the most promising sparse parameter of a net, and remove all that its action's reward contradicts.

    For rewards ``<phi(a), theta> + nu(a)`` with few nonzero entries in theta and ``|nu| <= eps``: ends with an action
    within ``2 (eps + eta)`` of the best, after at most n queries and usually a few dozen. Use it for up to some
    millions of candidates, about ``d^s (radius / eta)^s``; above that use `LazyElimination`, which needs no net and
    promises ``2 eps``. For d up to some dozens without sparsity `GOptimal` needs no such search.

    Args:
        sparsity: s, nonzero entries of theta. 0 says that rewards are within eps of zero.
        eps: most that a reward is off from linear; None (default) begins with a small one and doubles it while the
            answers contradict it. That is no proof: see `GapCertificate`. One that is given and contradicted is doubled
            as well, and told.
        eta: of the net; None (default) for eps. Smaller promises more and costs ``(eps / eta)^s`` candidates.
        radius: most that ``|theta|_2`` may be. Default 1.
        prune: False removes one candidate a query, as the plainest form does, for comparison. Default True.
        accuracy: with noise, how near means are brought; it is added to the tolerance. None (default) for eta;
            where eps is unknown it has to be given.
        delta: with noise, the probability of an action's mean being farther off. Default 0.05.
        probes: actions drawn at random that are queried first; None (default) for none where eps is given, and for
            ``10 + 5 s`` where it is not, so that there is something to contradict a small one.
        limit: most candidates; the count is told before the work. Default 2 000 000: some seconds for 1000 actions.

    The first of these is stopped at whose promise the best reward seen reaches within the tolerance: never later than
    by the last reward alone.

    Raises:
        InvalidParameter: sparsity > d, eps = 0 without eta, a net above the limit.
        InvalidProblem: a reward beyond what radius and eps allow.

    Cost: 2 n operations in float32 a candidate before the first query, 24 bytes a candidate; after that s operations
    for each candidate left and query.

    >>> from thalweg import solve
    >>> from thalweg.online import ActionTable
    >>> rng = np.random.default_rng(0)
    >>> features = rng.standard_normal((300, 10)); features /= np.linalg.norm(features, axis=1, keepdims=True)
    >>> table = ActionTable(features, 0.8 * features[:, 3] + rng.uniform(-0.1, 0.1, 300))
    >>> found = solve(table, NetElimination(sparsity=1, eps=0.1))
    >>> found.metrics["gap"] <= 0.4 and found.calls < 20
    True
    """

    sparsity: int = 2
    eps: float | None = None
    eta: float | None = None
    radius: float = 1.0
    prune: bool = True
    accuracy: float | None = None
    delta: float = 0.05
    probes: int | None = None
    limit: int = 2_000_000

    def __post_init__(self) -> None:
        check_assumptions(self.sparsity, self.eps, self.radius, self.accuracy, self.delta, "NetElimination")
        check_probes(self.probes, "NetElimination")
        check_size("eta", self.eta, "NetElimination", positive=True)
        require(is_whole(self.limit) and self.limit >= 1, "NetElimination needs limit >= 1", got=self.limit)
        require(
            self.eps != 0 or self.eta is not None, "NetElimination with eps = 0 needs eta, the net's radius"
        )

    def made(self, features: Features, noise: float, seed: int) -> Search:
        largest = self.radius * largest_on_support(features, self.sparsity)
        eps = self._first_eps(features, largest) if self.eps is None else self.eps
        eta = eps if self.eta is None else self.eta
        accuracy = (eta if self.eps is not None else 0.0) if self.accuracy is None else self.accuracy
        draws = draws_for(noise, accuracy, len(features), self.delta)
        return _NetSearch(features, self, eps, accuracy if noise else 0.0, largest, draws, seed)

    def _first_eps(self, features: Features, largest: float) -> float:
        """The smallest whose net is within the limit."""
        eps = largest or 1.0
        for _ in range(HALVINGS):
            eta = eps / 2 if self.eta is None else self.eta
            if NetSize.of(features, self.sparsity, eta, self.radius).count > self.limit:
                break
            eps /= 2
        return eps
