"""The policies, searches and learners by name, and which of them suits a problem."""

from __future__ import annotations

import math
from typing import Any

from thalweg.core import InvalidParameter, Method, recommended
from thalweg.core.contestant import contestant
from thalweg.online.actions.elimination import NetElimination
from thalweg.online.actions.g_optimal import GOptimal, PhasedElimination
from thalweg.online.actions.lazy import LazyElimination
from thalweg.online.actions.problem import ActionTable
from thalweg.online.actions.rivals import EpsilonGreedy, LinUCB, RandomActions
from thalweg.online.actions.sparse_design import ExploreThenCommit, SparseDesign
from thalweg.online.cheb_cb import ChebCB
from thalweg.online.mdp.epochs import SimulatorFree
from thalweg.online.mdp.methods import (
    LogBarrier,
    LuoWeiLee,
    MagnitudeReduced,
    PlainEntropy,
    UniformPolicy,
)
from thalweg.online.mdp.problem import AdversarialMDP
from thalweg.online.play import Play, PlayState
from thalweg.online.policy import Fixed, Policy
from thalweg.online.predict import Groupwise, OneForAll
from thalweg.online.problem import LossTable
from thalweg.online.stream import GroupedStream
from thalweg.online.tsallis_inf import TsallisINF

#: The area's policies, its searches, and its methods for streams and for episodes, by the names that tables use.
METHODS: dict[str, type[Any]] = {
    "cheb-cb": ChebCB,
    "epsilon-greedy": EpsilonGreedy,
    "explore-then-commit": ExploreThenCommit,
    "fixed": Fixed,
    "g-optimal": GOptimal,
    "groupwise": Groupwise,
    "lazy-elimination": LazyElimination,
    "lin-ucb": LinUCB,
    "log-barrier": LogBarrier,
    "luo-wei-lee": LuoWeiLee,
    "magnitude-reduced": MagnitudeReduced,
    "net-elimination": NetElimination,
    "one-for-all": OneForAll,
    "phased-elimination": PhasedElimination,
    "plain-entropy": PlainEntropy,
    "random-actions": RandomActions,
    "simulator-free": SimulatorFree,
    "sparse-design": SparseDesign,
    "tsallis-inf": TsallisINF,
    "uniform-policy": UniformPolicy,
}


@recommended.register
def for_losses(problem: LossTable) -> Play:
    """Tsallis-INF: the best of both worlds, stochastic and adversarial losses."""
    return Play(TsallisINF(problem.arms))


@recommended.register
def for_streams(problem: GroupedStream) -> Groupwise:
    """A learner for each group, combined by their mean."""
    return Groupwise()


@recommended.register
def for_episodes(problem: AdversarialMDP) -> MagnitudeReduced:
    """Magnitude-reduced estimates: the smallest regret on most problems, however many actions."""
    return MagnitudeReduced()


@recommended.register
def for_actions(problem: ActionTable) -> LazyElimination:
    """Elimination without a net, for two entries of an unknown eps; for one, where pairs are too many."""
    d = problem.features.shape[1]
    sparsity = min(2, d) if math.comb(d, 2) <= LazyElimination().limit else 1
    return LazyElimination(sparsity, accuracy=problem.noise or None)


@contestant.register
def of_losses(problem: LossTable, entrant: object) -> Method[LossTable, PlayState]:
    """Any policy of `thalweg.online`."""
    if isinstance(entrant, Method):
        return entrant
    if isinstance(entrant, Policy):
        return Play(entrant)
    raise InvalidParameter(f"A LossTable is compared by policies such as TsallisINF(arms); got {entrant!r}.")
