"""Decisions with linear costs, such as paths, whose regret is small on every group: perturbed leaders, one a group.

Kalai and Vempala (2005), "Efficient algorithms for online decision problems"; Acharya, Arunachaleswaran, Kannan, Roth
and Ziani (2024), section 3.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import ArrayLike, NDArray

from thalweg.core import InvalidParameter, InvalidProblem
from thalweg.core.seeding import generator
from thalweg.core.validation import check_vector, is_real, is_whole, require
from thalweg.online.experts import AdaNormalHedge

Vector = NDArray[np.float64]
#: Takes costs, shape (n,), and returns the cheapest decision, shape (n,).
Oracle = Callable[[Vector], Vector]


@dataclass(frozen=True, eq=False)
class ShortestPath:
    """The cheapest path through a graph without cycles, as a vector of the edges that it takes.

    Args:
        edges: pairs (from, to) of node numbers.
        source, sink: where paths begin and end.

    Raises:
        InvalidProblem: a cycle, or no path from source to sink.

    Cost per call: O(edges).

    >>> square = ShortestPath([(0, 1), (1, 3), (0, 2), (2, 3)], 0, 3)
    >>> square(np.array([1.0, 1.0, 0.5, 0.5]))
    array([0., 0., 1., 1.])
    """

    edges: NDArray[np.int64]  # (edges, 2)
    source: int
    sink: int
    order: tuple[int, ...]  # of edges, those into a node after those into its predecessors

    def __init__(self, edges: Sequence[tuple[int, int]], source: int, sink: int) -> None:
        found = np.asarray(edges)
        if found.ndim != 2 or found.shape[1] != 2 or found.dtype.kind not in "iu" or not len(found):
            raise InvalidProblem("ShortestPath: edges are pairs of whole numbers, (from, to).")
        object.__setattr__(self, "edges", found.astype(np.int64))
        object.__setattr__(self, "source", int(source))
        object.__setattr__(self, "sink", int(sink))
        object.__setattr__(self, "order", _sorted(self.edges))
        if not self(np.ones(len(found))).any() and source != sink:
            raise InvalidProblem(f"ShortestPath: no path leads from {source} to {sink}.")

    def __call__(self, costs: Vector) -> Vector:
        """The cheapest path for costs of the edges, which may be negative, shape (edges,)."""
        distance: dict[int, float] = {self.source: 0.0}
        last: dict[int, int] = {}
        for e in self.order:
            start, end = self.edges[e].tolist()
            if start in distance:
                found = distance[start] + float(costs[e])
                if end not in distance or found < distance[end]:
                    distance[end], last[end] = found, e
        path, node = np.zeros(len(self.edges)), self.sink
        while node != self.source and node in last:
            path[last[node]] = 1.0
            node = int(self.edges[last[node], 0])
        return path


def _sorted(edges: NDArray[np.int64]) -> tuple[int, ...]:
    """The edges by the topological order of the nodes that they leave."""
    waiting = {int(n): 0 for n in np.unique(edges)}
    for _, end in edges.tolist():
        waiting[end] += 1
    leaving: dict[int, list[int]] = {n: [] for n in waiting}
    for e, (start, _) in enumerate(edges.tolist()):
        leaving[start].append(e)
    ready, order = [n for n, count in waiting.items() if count == 0], []
    while ready:
        for e in leaving[ready.pop()]:
            order.append(e)
            end = int(edges[e, 1])
            waiting[end] -= 1
            if waiting[end] == 0:
                ready.append(end)
    if len(order) < len(edges):
        raise InvalidProblem("ShortestPath: the edges form a cycle.")
    return tuple(order)


class PerturbedLeader:
    """The decision that would have been cheapest so far, with noise on its costs.

    A round is ``decide()`` and then ``learn(costs)``. Use it where decisions are many but the cheapest one is easily
    found: paths, trees, matchings.

    Args:
        oracle: the cheapest decision for given costs.
        size: n, the length of costs and decisions.
        noise: 1/eps; costs so far are perturbed by U[0, noise] each. `horizon_noise` gives the best for a known length.
        seed: of the noise.

    Its expected regret after T rounds is at most ``2 sqrt(D R A T)`` with `horizon_noise`: D the largest l1 distance of
    two decisions, R the largest cost of a decision in a round, A the largest l1 norm of costs.

    Cost per round: one call of the oracle.

    Source: Kalai and Vempala (2005), section 1.1, FPL with fresh noise each round.

    >>> leader = PerturbedLeader(ShortestPath([(0, 1), (0, 1)], 0, 1), 2, noise=1.0)
    >>> for _ in range(30):
    ...     path = leader.decide(); leader.learn([0.9, 0.1])
    >>> leader.decide()
    array([0., 1.])
    """

    def __init__(self, oracle: Oracle, size: int, noise: float, seed: int = 0) -> None:
        require(is_whole(size) and size >= 1, "PerturbedLeader needs size >= 1", got=size)
        require(is_real(noise) and 0 <= noise < np.inf, "PerturbedLeader needs noise >= 0", got=noise)
        self.oracle, self.size, self.noise = oracle, int(size), float(noise)
        self.costs: Vector = np.zeros(self.size)
        self._rng = generator(seed)

    def decide(self) -> Vector:
        """The decision of this round, shape (n,)."""
        return self.oracle(self.costs + self.noise * self._rng.random(self.size))

    def learn(self, costs: ArrayLike) -> None:
        """Take in the costs of a round, shape (n,)."""
        self.costs += check_vector("costs", costs, self.size)


def horizon_noise(diameter: float, decision_cost: float, cost_norm: float, rounds: int) -> float:
    """``1/eps = sqrt(R A T / D)``: the noise whose bound is smallest for T rounds.

    >>> horizon_noise(4.0, 1.0, 4.0, 100)
    10.0
    """
    for name, value in (("diameter", diameter), ("decision_cost", decision_cost), ("cost_norm", cost_norm)):
        require(is_real(value) and value > 0, f"horizon_noise needs {name} > 0", got=value)
    require(is_whole(rounds) and rounds >= 1, "horizon_noise needs rounds >= 1", got=rounds)
    return float(np.sqrt(decision_cost * cost_norm * rounds / diameter))


class GroupwiseLeader:
    """A perturbed leader for each group; the decision of a round is drawn from those of its groups.

    A round is ``decide(active)`` and then ``learn(costs)``. Decisions cannot be averaged, so that one is drawn, and
    regrets are of the expected loss.

    Args:
        leaders: one a group.

    The expected regret on a group is at most that of its leader there, and AdaNormalHedge's (`hedge.bound()`), where
    decisions cost something in [0, 1].

    >>> oracle = ShortestPath([(0, 1), (0, 1)], 0, 1)
    >>> ours = GroupwiseLeader([PerturbedLeader(oracle, 2, 1.0, seed) for seed in range(2)])
    >>> path = ours.decide([True, False]); loss = ours.learn([0.5, 0.0])
    """

    def __init__(self, leaders: Sequence[PerturbedLeader], seed: int = 0) -> None:
        require(len(leaders) > 0, "GroupwiseLeader needs a leader for each group, one or more")
        self.leaders = list(leaders)
        self.hedge = AdaNormalHedge(len(self.leaders))
        self._rng = generator(seed)
        self._round: tuple[NDArray[np.bool_], list[Vector], Vector] | None = None

    def decide(self, active: ArrayLike) -> Vector:
        """A decision for a round in the groups that are ``active``, shape (groups,) of truth values."""
        p = self.hedge.weights(active)
        mask = np.asarray(active)
        asked = mask if mask.any() else np.ones(len(p), dtype=bool)
        proposals = [
            leader.decide() if a else np.zeros(0) for a, leader in zip(asked, self.leaders, strict=True)
        ]
        self._round = (mask, proposals, p)
        return proposals[int(self._rng.choice(len(p), p=p))]

    def learn(self, costs: ArrayLike) -> float:
        """Take in the costs of the round, shape (n,); the expected loss.

        Raises:
            InvalidProblem: no `decide` before it, or a decision's cost outside [0, 1].
        """
        if self._round is None:
            raise InvalidProblem("GroupwiseLeader.learn takes the costs of a round; call decide first.")
        mask, proposals, p = self._round
        given = check_vector("costs", costs, self.leaders[0].size)
        losses = np.array([float(given @ v) if len(v) else 0.0 for v in proposals])
        if not ((losses >= -1e-12) & (losses <= 1 + 1e-12)).all():
            raise InvalidProblem(
                f"The costs make a decision cost {losses[np.argmax(np.abs(losses))]:g}; expected costs in [0, 1]. "
                "Scale them by the largest cost of a decision."
            )
        expected = float(p @ losses)
        self.hedge.learn(np.clip(expected - losses, -1.0, 1.0), mask)
        for g in np.flatnonzero(mask):
            self.leaders[g].learn(given)
        self._round = None
        return expected


class BlumLykouris:
    """Every pair of a group and a model of a finite class as a sleeping expert: the method before oracles.

    A round is ``predict(proposals, active)`` and then ``learn(y)``, for labels in [0, 1] and squared error. It needs no
    learner, but its cost grows with groups times models, and it knows no models but those that are listed.

    Args:
        groups: N; models: M.

    Cost per round: O(N M).

    Source: Blum and Lykouris (2020), "Advancing subgroup fairness via sleeping experts"; weights by AdaNormalHedge.

    >>> pairs = BlumLykouris(groups=1, models=2)
    >>> pairs.predict([0.0, 1.0], [True])
    0.5
    >>> pairs.learn(1.0)
    0.25
    """

    def __init__(self, groups: int, models: int) -> None:
        for name, value in (("groups", groups), ("models", models)):
            require(is_whole(value) and value >= 1, f"BlumLykouris needs {name} >= 1", got=value)
        self.groups, self.models = int(groups), int(models)
        self.hedge = AdaNormalHedge(self.groups * self.models)
        self._round: tuple[NDArray[np.bool_], Vector, float] | None = None

    def predict(self, proposals: ArrayLike, active: ArrayLike) -> float:
        """A prediction from those of the models, shape (models,), in the groups that are active, shape (groups,)."""
        given = check_vector("proposals", proposals, self.models)
        if not ((given >= 0) & (given <= 1)).all():
            raise InvalidParameter("BlumLykouris: proposals lie in [0, 1]; clip or scale them.")
        awake = np.repeat(np.asarray(active), self.models)
        z = np.tile(given, self.groups)
        played = float(self.hedge.weights(awake) @ z)
        self._round = (awake, z, played)
        return played

    def learn(self, y: float) -> float:
        """Take in the label, in [0, 1]; the loss of the prediction."""
        if self._round is None:
            raise InvalidProblem("BlumLykouris.learn takes the label of a round; call predict first.")
        require(is_real(y) and 0.0 <= y <= 1.0, "BlumLykouris.learn needs a label in [0, 1]", got=y)
        awake, z, played = self._round
        loss = (played - y) ** 2
        self.hedge.learn(loss - (z - y) ** 2, awake)
        self._round = None
        return loss
