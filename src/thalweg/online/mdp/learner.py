"""A learner of episodes with tables of estimates: `act`, see the loss, `learn`."""

from __future__ import annotations

import copy
import dataclasses
from dataclasses import dataclass
from typing import Literal, get_args

import numpy as np
from numpy.typing import NDArray

from thalweg.core import CheckpointMismatch, InvalidParameter, NotFinite
from thalweg.core.seeding import generator
from thalweg.core.tree import require_alike
from thalweg.core.validation import is_real, is_whole, require
from thalweg.online.mdp import _kernels as kernels
from thalweg.online.mdp.constants import Constants, Schedule
from thalweg.online.mdp.covariance import check_samples, resampling_length, samples_needed
from thalweg.online.mdp.problem import Array, Dynamics

Covariance = Literal["exact", "monte-carlo", "resampling"]
COVARIANCES: dict[str, int] = {
    "exact": kernels.EXACT,
    "monte-carlo": kernels.MONTE_CARLO,
    "resampling": kernels.RESAMPLING,
}

#: Episodes of the first stage where their number is not known; each stage is twice as long.
FIRST_STAGE = 64


@dataclass(frozen=True)
class Rule:
    """What kind of learner it is.

    Args:
        leader: a regulariser of the kernels.
        reduced: whether estimates are magnitude-reduced.
        schedule: constants from the number of episodes.
        covariance: how inverse covariances are had.
        samples: of each layer and episode; what theory asks for by default.
    """

    leader: int
    reduced: bool
    schedule: Schedule
    covariance: Covariance = "exact"
    samples: int | None = None

    def __post_init__(self) -> None:
        known = get_args(Covariance)
        require(self.covariance in known, f"covariance is one of {', '.join(known)}", got=self.covariance)
        check_samples(self.samples)


class EpisodeLearner:
    """Follows the regularised leader in every state, from estimates of what each episode would have lost elsewhere.

    An episode is ``a = learner.act(state)`` and ``learner.learn(loss)``, H times; then the next one begins. Methods
    make it: ``MagnitudeReduced().learner(dynamics, episodes=1000)``. It must know transitions; `measured_dynamics`
    counts those of a simulator. `LinearLearner` and `EpochLearner` do without.

    Args:
        dynamics: features and transitions.
        rule: the kind of learner.
        episodes: K. None where it is not known: constants are then those of stages that double, from 64, and each stage
            begins anew.
        seed: names the stream that actions are drawn from.

    ``policy`` is that of the episode at hand, shape (H, S, A); ``least`` the smallest estimate so far.

    Cost of an episode: O(H S A (S + d^2)), and O(H (S A)^2 d) more for magnitude-reduced estimates; O(H S^2 A) where
    features are unit vectors.

    >>> from thalweg.online.mdp import MagnitudeReduced
    >>> bandit = Dynamics(np.eye(2)[None], np.ones((1, 2, 1)), layers=1)
    >>> learner = MagnitudeReduced().learner(bandit, episodes=500, seed=0)
    >>> for _ in range(500):
    ...     learner.learn([0.9, 0.1][learner.act(0)])
    >>> learner.probabilities(0).argmax()
    np.int64(1)
    """

    def __init__(self, dynamics: Dynamics, rule: Rule, episodes: int | None = None, seed: int = 0) -> None:
        fits = episodes is None or (is_whole(episodes) and episodes >= 1)
        require(fits, "A learner needs episodes >= 1, or None where it is not known", got=episodes)
        self.dynamics, self.rule, self.episodes = dynamics, rule, episodes
        shape = (dynamics.layers, dynamics.states, dynamics.actions)
        self.episode = 0
        self.cumulative: Array = np.zeros(shape)  # of estimates, less bonuses
        self.policy: Array = np.full(shape, 1.0 / dynamics.actions)
        self._chances: Array = np.zeros(shape[:2])
        self._least: Array = np.zeros(1)
        self._stage, self._ends = episodes or FIRST_STAGE, episodes or FIRST_STAGE
        self._rng = generator(seed)
        self._layer, self._acted = 0, False
        self._states: NDArray[np.int64] = np.zeros(shape[0], dtype=np.int64)
        self._actions: NDArray[np.int64] = np.zeros(shape[0], dtype=np.int64)
        self._losses: Array = np.zeros(shape[0])
        self.constants  # noqa: B018 -- refuses what is out of range before any work

    @property
    def constants(self) -> Constants:
        """Of the stage at hand."""
        d = self.dynamics
        return self.rule.schedule(self._stage, d.actions, d.dimension, d.layers)

    @property
    def least(self) -> float:
        """The smallest estimate of a Q so far; zero before there is one."""
        return float(self._least[0])

    def probabilities(self, state: int) -> Array:
        """Of the actions in a state of the layer that comes, shape (A,)."""
        self._check_state(state)
        if self._layer == 0 and not self._acted:
            self._begin()
        return np.asarray(self.policy[self._layer, state].copy())

    def act(self, state: int) -> int:
        """Draw an action in the state that the episode has come to, which is one of the layer's.

        Raises:
            InvalidParameter: no such state; the last action's loss has not been told.
        """
        self._check_state(state)
        require(not self._acted, "act: tell the loss of the last action first, with learn(loss)")
        if self._layer == 0:
            self._begin()
        h = self._layer
        action = int(kernels.choose(self._rng, self.policy[h, state]))
        self._states[h], self._actions[h], self._acted = state, action, True
        return action

    def learn(self, loss: float) -> None:
        """Take in the loss of the action drawn; after the last layer's, the episode is learned from.

        Raises:
            InvalidParameter: no action was drawn, a loss outside [0, 1]. NotFinite: NaN or infinity.
        """
        require(self._acted, "learn: draw an action first, with act(state)")
        if not np.isfinite(loss):
            raise NotFinite(f"The loss of layer {self._layer} is {loss}; expected a number in [0, 1].")
        fits = is_real(loss) and 0 <= loss <= 1
        require(fits, f"The loss of layer {self._layer} lies in [0, 1]: shift and scale all losses", got=loss)
        self._losses[self._layer] = loss
        self._layer, self._acted = self._layer + 1, False
        if self._layer == self.dynamics.layers:
            self._end()

    def run(self, losses: Array, world: np.random.Generator, policies: Array) -> Array:
        """Play episodes with losses (K, H, S, A) in one go; ``world`` draws next states.

        Fills ``policies``, of the losses' shape, and returns what each episode lost in expectation, shape (K,). It is
        the same as `act` and `learn` of each.
        """
        require(self._layer == 0 and not self._acted, "run: an episode is under way; end it first")
        expected, done = np.empty(len(losses)), 0
        while done < len(losses):
            self._begin_stage()
            left = len(losses) - done if self.episodes is not None else self._ends - self.episode
            part = slice(done, min(done + left, len(losses)))
            self._play(losses[part], world, policies[part], expected[part])
            self.episode += part.stop - done
            done = part.stop
        self._check_finite()
        return expected

    def state_dict(self) -> dict[str, object]:
        """All that was learned, the episode under way, and the random stream, as plain data."""
        kind = {"leader": self.rule.leader, "constants": dataclasses.astuple(self.constants)}
        return {**kind, **copy.deepcopy(self._held())}

    def load_state_dict(self, state: dict[str, object]) -> None:
        """Go on from ``state``; `CheckpointMismatch` if it is of another kind of learner or another size."""
        held = self._held()
        if set(state) != {"leader", "constants", *held} or state["leader"] != self.rule.leader:
            raise CheckpointMismatch("The saved learner is of another kind; expected one made alike.")
        for name, value in held.items():
            saved = state[name]
            require_alike(f"learner's {name}", value, saved)
            if isinstance(value, np.ndarray) and isinstance(saved, np.ndarray) and value.shape != saved.shape:
                raise CheckpointMismatch(
                    f"The saved learner's {name} has shape {saved.shape}; expected {value.shape}."
                )
        if state["episodes"] != self.episodes:
            raise CheckpointMismatch(
                f"The saved learner was made for {state['episodes']} episodes; expected {self.episodes}."
            )
        vars(self).update({name: copy.deepcopy(state[name]) for name in held})
        mine = dataclasses.astuple(self.constants)
        if state["constants"] != mine:
            vars(self).update(held)
            raise CheckpointMismatch(
                f"The saved learner has (eta, gamma, beta) = {state['constants']}; expected {mine}."
            )

    def _held(self) -> dict[str, object]:
        return {name: value for name, value in vars(self).items() if name not in ("dynamics", "rule")}

    def _check_state(self, state: int) -> None:
        fits = is_whole(state) and 0 <= state < self.dynamics.states
        require(fits, f"A state is a number in 0 .. {self.dynamics.states - 1}", got=state)

    def _begin_stage(self) -> None:
        """Where the number of episodes is not known: twice as many as before, and nothing remembered."""
        if self.episodes is None and self.episode == self._ends:
            self._stage *= 2
            self._ends += self._stage
            self.cumulative[:] = 0.0

    def _begin(self) -> None:
        self._begin_stage()
        d = self.dynamics
        for h in range(d.layers):
            kernels.leaders(self.rule.leader, self.cumulative[h], self.constants.eta, self.policy[h])
        kernels.occupy(d.packed_transitions, d.start, self.policy, self._chances)

    def _end(self) -> None:
        d = self.dynamics
        if self.rule.leader != kernels.UNIFORM:
            tails = np.cumsum(self._losses[::-1])[::-1].copy()
            kernels.take_in(
                d.packed_features, d.is_tabular, d.packed_transitions, self.policy, self._chances, self._states,
                self._actions, tails, *self._learning(), self._rng, self.cumulative, self._least,
            )  # fmt: skip
            self._check_finite()
        self.episode, self._layer = self.episode + 1, 0

    def _play(self, losses: Array, world: np.random.Generator, policies: Array, expected: Array) -> None:
        d = self.dynamics
        try:
            kernels.play_episodes(
                d.packed_features, d.is_tabular, d.packed_transitions, d.packed_sums, d.start, losses,
                self.rule.leader, self.constants.eta, *self._learning(), self._rng, world, self.cumulative,
                self._least, policies, expected,
            )  # fmt: skip
        except np.linalg.LinAlgError:  # of a covariance under a policy that is not finite
            raise self._beyond() from None

    def _learning(self) -> tuple[float, float, bool, int, int, int]:
        """gamma, beta, and how estimates and covariances are made."""
        known, rule, d = self.constants, self.rule, self.dynamics
        samples, length = 1, 1
        if rule.covariance != "exact":
            samples = rule.samples or samples_needed(known.gamma, d.dimension, d.layers, self._stage)
        if rule.covariance == "resampling":
            length = resampling_length(known.gamma)
        return known.gamma, known.beta, rule.reduced, COVARIANCES[rule.covariance], samples, length

    def _check_finite(self) -> None:
        if not np.isfinite(self.cumulative).all():
            raise self._beyond()

    def _beyond(self) -> NotFinite:
        return NotFinite(
            f"Estimates are no longer finite after {self.episode} episodes, with {self.constants}. Take a larger gamma "
            "or a smaller beta."
        )


def with_options(schedule: Schedule, eta: float | None, gamma: float | None, beta: float | None) -> Schedule:
    """``schedule`` with the constants that are given in place of its own."""
    given = {name: v for name, v in (("eta", eta), ("gamma", gamma), ("beta", beta)) if v is not None}

    def made(episodes: int, actions: int, dimension: int, layers: int) -> Constants:
        return dataclasses.replace(schedule(episodes, actions, dimension, layers), **given)

    Constants(**{"eta": 0.0, "gamma": 1.0, "beta": 0.0, **given})
    return made


def check_known(name: str, value: object, known: tuple[str, ...]) -> None:
    """Refuse an option that is none of a few words."""
    if value not in known:
        raise InvalidParameter(f"{name} is one of {', '.join(known)}; got {value!r}.")
