"""Learners that play episodes: by the log-barrier, with magnitude-reduced estimates, and what they are measured by.

Dai, Luo, Wei and Zimmert (2023), "Refined regret for adversarial MDPs with linear function approximation".
"""

from __future__ import annotations

from abc import abstractmethod
from dataclasses import dataclass, field
from typing import ClassVar, get_args

import numpy as np

from thalweg.core import Method, State
from thalweg.core.seeding import generator
from thalweg.core.validation import is_whole, require
from thalweg.online.mdp import _kernels as kernels
from thalweg.online.mdp.constants import (
    Schedule,
    Which,
    log_barrier_schedule,
    luo_schedule,
    reduced_schedule,
)
from thalweg.online.mdp.learner import Covariance, EpisodeLearner, Rule, check_known, with_options
from thalweg.online.mdp.problem import AdversarialMDP, Array, Dynamics


@dataclass(kw_only=True)
class EpisodesState(State):
    """``x`` holds the policies played, NaN for episodes to come; the sums make the regret of a step cheap."""

    learner: EpisodeLearner
    world: np.random.Generator  # draws next states
    total: float = 0.0  # expected losses of the episodes so far
    sums: Array  # (H, S, A) of the losses so far


@dataclass(frozen=True)
class EpisodicMethod(Method[AdversarialMDP, EpisodesState]):
    """A learner that plays ``block`` episodes a step; what is played does not depend on it."""

    in_place = True

    block: int = field(default=20, kw_only=True)

    def __post_init__(self) -> None:
        require(is_whole(self.block) and self.block >= 1, "Episodes need block >= 1", got=self.block)
        self.rule  # noqa: B018 -- refuses what is out of range

    @property
    @abstractmethod
    def rule(self) -> Rule:
        """The kind of learner that it makes."""

    def learner(self, dynamics: Dynamics, episodes: int | None = None, seed: int = 0) -> EpisodeLearner:
        """A learner to `act` and `learn` with, in an environment of one's own; ``episodes`` as far as known."""
        return EpisodeLearner(dynamics, self.rule, episodes, seed)

    def init(self, problem: AdversarialMDP, seed: int) -> EpisodesState:
        learner = self.learner(problem.dynamics, problem.episodes, seed)
        x = np.full(problem.losses.shape, np.nan)
        sums = np.zeros(problem.losses.shape[1:])
        return EpisodesState(x=x, learner=learner, world=generator(seed, 1), sums=sums)

    def step(self, problem: AdversarialMDP, state: EpisodesState) -> EpisodesState:
        rows = slice(state.learner.episode, state.learner.episode + self.block)
        losses = problem.losses[rows]
        state.total += float(state.learner.run(losses, state.world, state.x[rows]).sum())
        state.sums += losses.sum(axis=0)
        state.metrics = problem.so_far(state.total, state.sums, state.learner.episode)
        return state


@dataclass(frozen=True)
class RegularizedLeader(EpisodicMethod):
    """What those that learn share; `MagnitudeReduced` says what the options are."""

    leader: ClassVar[int]
    reduced: ClassVar[bool] = False

    constants: Which = "practical"
    eta: float | None = None
    gamma: float | None = None
    beta: float | None = None
    covariance: Covariance = "exact"
    samples: int | None = None
    doubling: bool = False

    def __post_init__(self) -> None:
        check_known("constants", self.constants, get_args(Which))
        super().__post_init__()

    @abstractmethod
    def schedule(self) -> Schedule:
        """The constants by the number of episodes."""

    @property
    def rule(self) -> Rule:
        schedule = with_options(self.schedule(), self.eta, self.gamma, self.beta)
        return Rule(self.leader, self.reduced, schedule, self.covariance, self.samples)

    def learner(self, dynamics: Dynamics, episodes: int | None = None, seed: int = 0) -> EpisodeLearner:
        return super().learner(dynamics, None if self.doubling else episodes, seed)


@dataclass(frozen=True)
class MagnitudeReduced(RegularizedLeader):
    """Entropy with magnitude-reduced estimates: regret ``O~(sqrt(d H^6 K))``, however many actions.

    Estimates of Q are moved up where they would be very negative, and put right in the mean, so that none is below
    ``-H/sqrt(gamma)``. The default: its regret is the smallest or near it on the problems of study 09, and its worst
    runs are the mildest. It needs transitions; `LogBarrier` can do with a simulator of features (`LinearLearner`).

    Use it where losses change as they please and the loss of a played path is all that is seen. Where losses are the
    same in each episode, or random with a fixed mean, methods that estimate that mean learn faster; where a hundred
    episodes is all there is, nothing here does.

    Args:
        constants: "practical" (default), which learn within hundreds of episodes, or "theory", those of the analysis,
            which leave nine tenths of the uniform policy's regret after 4000.
        eta, gamma, beta: learning rate, what is added to covariances, and the weight of the bonus, in place of theirs.
        covariance: of features under the policy: "exact" (default), from the transitions; "monte-carlo", the mean of
            ``samples`` visits; "resampling", without an inverse, by as many. The last two are what a simulator gives.
        samples: of each layer and episode. ``8/gamma ln(d H K)`` by default.
        doubling: whether the number of episodes is not known beforehand; learning then begins anew after 64, 192, 448,
            ... episodes.
        block: episodes a step, so that Python's loop costs nothing. Default 20. What is played does not depend on it.

    Raises:
        InvalidParameter: an option out of range.

    Cost of an episode: O(H S A (S + S A d)); 20 microseconds for 12 states, 4 actions, d = 4, 4 layers.

    Source: Dai, Luo, Wei and Zimmert (2023), algorithm 2.

    >>> from thalweg.online import AdversarialMDP, MagnitudeReduced
    >>> from thalweg.online.mdp import UniformPolicy
    >>> from thalweg import solve
    >>> from thalweg.online.mdp import fixed_losses, random_linear_mdp
    >>> world = random_linear_mdp(seed=0)
    >>> problem = AdversarialMDP(dynamics=world, losses=fixed_losses(world, 500, seed=0))
    >>> ours, uniform = (solve(problem, m).metrics["regret"] for m in (MagnitudeReduced(), UniformPolicy()))
    >>> ours < 0.6 * uniform
    True
    """

    leader: ClassVar[int] = kernels.ENTROPY
    reduced: ClassVar[bool] = True

    def schedule(self) -> Schedule:
        return reduced_schedule(self.constants)


@dataclass(frozen=True)
class LogBarrier(RegularizedLeader):
    """Log-barrier with plain estimates: regret ``O~(sqrt(A d H^6 K))``.

    The log-barrier bears estimates of any size. Use it where states are too many for a table: `LinearLearner` plays it
    by features alone. Elsewhere `MagnitudeReduced` is better, the more so the more actions there are.

    Options as `MagnitudeReduced`. Cost of an episode: O(H S A (S + d^2)).

    Source: Dai, Luo, Wei and Zimmert (2023), algorithm 1.

    >>> LogBarrier(constants="theory").name
    'LogBarrier(constants=theory)'
    """

    leader: ClassVar[int] = kernels.LOG_BARRIER

    def schedule(self) -> Schedule:
        return log_barrier_schedule(self.constants)


@dataclass(frozen=True)
class LuoWeiLee(RegularizedLeader):
    """Entropy with plain estimates and ``gamma >= 2 eta H``, which keeps them mild: regret ``O~(K^(2/3))``.

    The method before; here as what the others have to beat. Options as `MagnitudeReduced`; gamma follows eta.

    Source: Luo, Wei and Lee (2021), "Policy optimization in adversarial MDPs: improved exploration via dilated
    bonuses".

    >>> LuoWeiLee().schedule()(1000, 4, 4, 4).gamma > 0.1
    True
    """

    leader: ClassVar[int] = kernels.ENTROPY

    def schedule(self) -> Schedule:
        return luo_schedule(self.constants, self.eta)


@dataclass(frozen=True)
class PlainEntropy(RegularizedLeader):
    """Entropy with plain estimates and the constants of `MagnitudeReduced`: nothing guards against very negative ones.

    No rate is known for it. It shows what magnitude reduction is for: on average it is as good, in its worst runs not.
    Options as `MagnitudeReduced`.

    >>> PlainEntropy(gamma=1e-5).name
    'PlainEntropy(gamma=1e-05)'
    """

    leader: ClassVar[int] = kernels.ENTROPY

    def schedule(self) -> Schedule:
        return reduced_schedule(self.constants)


@dataclass(frozen=True)
class UniformPolicy(EpisodicMethod):
    """All actions alike, always: the baseline that learning has to beat.

    >>> UniformPolicy().name
    'UniformPolicy()'
    """

    @property
    def rule(self) -> Rule:
        return Rule(kernels.UNIFORM, False, reduced_schedule("practical"))
