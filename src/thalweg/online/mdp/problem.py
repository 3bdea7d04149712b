"""Episodes in a Markov decision process whose losses are known to the judge."""

from __future__ import annotations

import warnings
from dataclasses import dataclass
from functools import cached_property

import numpy as np
import scipy.linalg
from numpy.typing import ArrayLike, NDArray

from thalweg.core import InvalidProblem, Problem, Stop
from thalweg.core.seeding import generator
from thalweg.core.validation import as_real, check_finite, is_whole, require
from thalweg.numerics.markov import ROUNDING, check_chances, start_chances
from thalweg.online.mdp import _kernels as kernels

Array = NDArray[np.float64]

#: Features shorter than this would be drowned by what is added to covariances.
SHORT = 0.01
#: The share of Q, in the norm over states and actions, that features may leave unexplained.
LINEAR = 1e-6


class NotLinear(UserWarning):
    """The values of some policy are no linear function of the features."""


@dataclass(frozen=True, eq=False)
class Dynamics:
    """What stays the same in all episodes: features, transitions, and where an episode starts.

    Args:
        features: shape (S, A, d), or (H, S, A, d) with those of each of the H layers; no longer than one.
        transitions: chances of the next state, shape (S, A, S), or (H, S, A, S); the last layer's are not used.
        layers: H, the length of an episode; needed where neither array says it.
        start: a state, or the chances of each, shape (S,).

    ``rank`` is the smallest rank of a layer's features: below d, some directions are never seen, and cost nothing. One
    state with features that are the unit vectors is a bandit.

    Raises:
        InvalidProblem: shapes that do not fit, features longer than one or all shorter than 0.01, chances that are
            none.
        NotFinite: NaN or infinity.

    Memory: that of the arrays as given, layers that are alike once, and running sums of the transitions.

    >>> chain = Dynamics(np.eye(4).reshape(2, 2, 4), np.full((2, 2, 2), 0.5), layers=3)
    >>> (chain.layers, chain.states, chain.actions, chain.rank)
    (3, 2, 2, 4)
    """

    layers: int
    start: Array
    packed_features: Array  # (H, S, A, d), or (1, S, A, d) where all layers have the same
    packed_transitions: Array  # (H, S, A, S) or (1, S, A, S)

    def __init__(
        self,
        features: ArrayLike,
        transitions: ArrayLike,
        *,
        layers: int | None = None,
        start: int | ArrayLike = 0,
    ) -> None:
        phi, moves = as_real("features", features), as_real("transitions", transitions)
        for name, array, axes in (("features", phi, "S, A, d"), ("transitions", moves, "S, A, S")):
            if array.ndim not in (3, 4) or array.size == 0:
                raise InvalidProblem(
                    f"Dynamics: {name} has shape {array.shape}; expected ({axes}) or (H, {axes}), none empty."
                )
            check_finite(name, array)
        counted = layers is None or (is_whole(layers) and layers >= 1)
        require(counted, "Dynamics needs whole layers >= 1", error=InvalidProblem, got=layers)
        said = {len(array) for array in (phi, moves) if array.ndim == 4} | (
            {layers} if layers is not None else set()
        )
        if len(said) != 1 or min(said) < 1:
            raise InvalidProblem(
                f"Dynamics: the number of layers is said to be {sorted(said) or 'nothing'}; expected one number >= 1, "
                "by layers= or by arrays of each layer."
            )
        (depth,) = said
        states, actions = phi.shape[-3:-1]
        if moves.shape[-3:] != (states, actions, states):
            raise InvalidProblem(
                f"Dynamics: transitions has shape {moves.shape}; expected (..., {states}, {actions}, {states}), as the "
                f"features have {states} states and {actions} actions."
            )
        phi, moves = (array.reshape(-1, *array.shape[-3:]).copy() for array in (phi, moves))
        _check_length(phi)
        check_chances("the transitions", moves)
        object.__setattr__(self, "layers", int(depth))
        object.__setattr__(self, "start", start_chances("Dynamics", start, states))
        object.__setattr__(self, "packed_features", phi)
        object.__setattr__(self, "packed_transitions", moves)

    @property
    def features(self) -> Array:
        """Of all layers, shape (H, S, A, d)."""
        return np.broadcast_to(self.packed_features, (self.layers, *self.packed_features.shape[1:]))

    @property
    def transitions(self) -> Array:
        """Of all layers, shape (H, S, A, S)."""
        return np.broadcast_to(self.packed_transitions, (self.layers, *self.packed_transitions.shape[1:]))

    @property
    def states(self) -> int:
        """S."""
        return self.packed_features.shape[1]

    @property
    def actions(self) -> int:
        """A."""
        return self.packed_features.shape[2]

    @property
    def dimension(self) -> int:
        """d, of the features."""
        return self.packed_features.shape[3]

    @cached_property
    def rank(self) -> int:
        """The smallest rank of a layer's features; below d they do not span."""
        if self.is_tabular:
            return self.dimension
        flat = self.packed_features.reshape(len(self.packed_features), -1, self.dimension)
        return int(np.linalg.matrix_rank(flat).min())

    @cached_property
    def is_tabular(self) -> bool:
        """Whether each state and action has a unit vector of its own, in their order: covariances are diagonal."""
        pairs = self.states * self.actions
        if self.dimension != pairs:
            return False
        return bool((self.packed_features.reshape(-1, pairs, pairs) == np.eye(pairs)).all())

    @cached_property
    def packed_sums(self) -> Array:
        """Running sums of the packed transitions, from which next states are drawn."""
        return np.cumsum(self.packed_transitions, axis=-1)

    @property
    def sums(self) -> Array:
        """Running sums of the transitions, shape (H, S, A, S)."""
        return np.broadcast_to(self.packed_sums, (self.layers, *self.packed_sums.shape[1:]))


@dataclass(frozen=True, eq=False)
class AdversarialMDP(Problem):
    """Episodes whose losses change arbitrarily, and which are as good as the best fixed policy in hindsight, or not.

    Args:
        features, transitions, start: as `Dynamics` takes them.
        losses: in [0, 1], shape (K, H, S, A), of each episode. They are fixed beforehand, and known to the judge alone:
            a learner sees those of the states and actions that it went through.
        dynamics: in place of features, transitions and start, where they are at hand.

    The answer is the policies played, shape (K, H, S, A), NaN for episodes to come. The metrics are ``loss``, the mean
    over the episodes played of what they lose in expectation; ``regret``, their expected total less that of the best
    fixed policy in hindsight, both by exact dynamic programming; and ``left``, the episodes to come: a run has
    converged when all are played.

    Methods take it that the values of every policy are linear in the features. Some random policies are tried, and the
    warning `NotLinear` tells the share of their values that is not (``misfit``).

    Raises:
        InvalidProblem: shapes that do not fit, features longer than one, chances that are none, losses outside [0, 1].
        NotFinite: NaN or infinity.

    Cost of a judgement: O(K H S^2 A).

    >>> stay = np.eye(2)[:, None, :].repeat(2, axis=1)
    >>> losses = np.zeros((3, 1, 2, 2)); losses[:, 0, 0, 1] = 1.0
    >>> problem = AdversarialMDP(np.eye(4).reshape(2, 2, 4), stay, losses)
    >>> problem.metrics(np.full((3, 1, 2, 2), 0.5))
    {'loss': 0.5, 'regret': 1.5, 'left': 0.0}
    """

    dynamics: Dynamics
    losses: Array

    def __init__(
        self,
        features: ArrayLike | None = None,
        transitions: ArrayLike | None = None,
        losses: ArrayLike | None = None,
        *,
        start: int | ArrayLike = 0,
        dynamics: Dynamics | None = None,
    ) -> None:
        table = as_real("losses", losses if losses is not None else ())
        if table.ndim != 4 or table.size == 0:
            raise InvalidProblem(
                f"AdversarialMDP: losses has shape {table.shape}; expected (episodes, H, S, A), none empty."
            )
        check_finite("losses", table)
        if dynamics is None:
            if features is None or transitions is None:
                raise InvalidProblem("AdversarialMDP needs features and transitions, or dynamics=.")
            dynamics = Dynamics(features, transitions, layers=table.shape[1], start=start)
        elif features is not None or transitions is not None:
            raise InvalidProblem("AdversarialMDP takes features and transitions, or dynamics=; not both.")
        expected = (dynamics.layers, dynamics.states, dynamics.actions)
        if table.shape[1:] != expected:
            raise InvalidProblem(
                f"AdversarialMDP: losses has shape {table.shape}; expected (episodes, H, S, A) = "
                f"(episodes, {', '.join(map(str, expected))})."
            )
        outside = (table < 0) | (table > 1)
        if outside.any():
            where = tuple(int(i) for i in np.argwhere(outside)[0])
            raise InvalidProblem(
                f"AdversarialMDP: the loss at {where} (episode, layer, state, action) is {table[where]:g}, outside "
                "[0, 1]. Shift and scale all losses."
            )
        object.__setattr__(self, "dynamics", dynamics)
        object.__setattr__(self, "losses", table.copy())
        if self.misfit > LINEAR:
            warnings.warn(
                f"{self.misfit:.2g} of the values of random policies is not linear in the features: regret may grow "
                "with every episode. Give features that explain losses and transitions, such as one for each state "
                "and action.",
                NotLinear,
                stacklevel=3,
            )

    @property
    def episodes(self) -> int:
        """K."""
        return len(self.losses)

    @cached_property
    def misfit(self) -> float:
        """The largest share of a random policy's values that the features do not explain, over a few of them.

        Policies are deterministic and drawn for this; losses are the mean, the first and the last episode's, and one
        drawn.
        """
        d = self.dynamics
        if d.is_tabular:
            return 0.0
        rng, worst = generator(0, 0xADD), 0.0
        tried = [
            self.losses.mean(0),
            self.losses[0],
            self.losses[-1],
            self.losses[rng.integers(self.episodes)],
        ]
        flat = d.packed_features.reshape(len(d.packed_features), -1, d.dimension)
        bases = [scipy.linalg.orth(rows, rcond=1e-12) for rows in flat]
        for losses in tried:
            choice = rng.integers(d.actions, size=(d.layers, d.states))
            after = np.zeros(d.states)
            for h in range(d.layers - 1, -1, -1):
                values = losses[h] if h == d.layers - 1 else losses[h] + d.transitions[h] @ after
                all_values, basis = values.ravel(), bases[h % len(bases)]
                left = all_values - basis @ (basis.T @ all_values)
                worst = max(
                    worst, float(np.linalg.norm(left)) / max(float(np.linalg.norm(all_values)), 1e-300)
                )
                after = values[np.arange(d.states), choice[h]]
        return worst

    def recommended_stop(self) -> Stop:
        """The last episode."""
        return Stop(below={"left": 0.0}, steps=self.episodes)

    def expected_losses(self, x: ArrayLike) -> Array:
        """What each episode loses in expectation, shape (K,), NaN for those to come."""
        policies = as_real("x", x)
        if policies.shape != self.losses.shape:
            raise InvalidProblem(
                f"AdversarialMDP: x has shape {policies.shape}; expected policies {self.losses.shape}."
            )
        played = policies[~np.isnan(policies).all(axis=(1, 2, 3))]
        check_chances("x", played)
        found = np.empty(self.episodes)
        d = self.dynamics
        kernels.expected_losses(d.packed_transitions, d.start, policies, self.losses, found)
        return found

    def best(self, episodes: NDArray[np.bool_] | slice = slice(None)) -> tuple[NDArray[np.int64], float]:
        """The best fixed policy of some episodes in hindsight, shape (H, S), and what it loses in total."""
        d = self.dynamics
        choice = np.zeros((d.layers, d.states), dtype=np.int64)
        total = kernels.best_policy(d.packed_transitions, d.start, self.losses[episodes].sum(axis=0), choice)
        return choice, float(total)

    def metrics(self, x: ArrayLike) -> dict[str, float]:
        """``loss`` and ``regret`` of the episodes played, and the episodes ``left``."""
        lost = self.expected_losses(x)
        played = np.isfinite(lost)
        left = float(self.episodes - played.sum())
        if not played.any():
            return {"loss": 0.0, "regret": 0.0, "left": left}
        total = float(lost[played].sum())
        return {"loss": total / float(played.sum()), "regret": total - self.best(played)[1], "left": left}

    def so_far(self, total: float, sums: Array, done: int) -> dict[str, float]:
        """The metrics of the first ``done`` episodes, of which ``total`` was lost in expectation.

        ``sums`` are of their losses, shape (H, S, A): a method keeps both, so that a step need not look back.
        """
        d = self.dynamics
        choice = np.zeros((d.layers, d.states), dtype=np.int64)
        best = float(kernels.best_policy(d.packed_transitions, d.start, sums, choice))
        return {"loss": total / max(done, 1), "regret": total - best, "left": float(self.episodes - done)}

    def curve(self, x: ArrayLike, points: int = 100) -> tuple[NDArray[np.int64], Array]:
        """Numbers of episodes, at most ``points`` of them, and the regret after each. Cost O(K H S A) more."""
        lost = self.expected_losses(x)
        played = int(np.isfinite(lost).argmin()) if not np.isfinite(lost).all() else self.episodes
        at = np.unique(np.linspace(0, played, min(points, played) + 1).astype(np.int64)[1:])
        found, total, start = np.empty(len(at)), np.zeros(self.losses.shape[1:]), 0
        d = self.dynamics
        choice = np.zeros((d.layers, d.states), dtype=np.int64)
        sums = np.cumsum(lost[:played])
        for i, end in enumerate(at):
            total += self.losses[start:end].sum(axis=0)
            best = kernels.best_policy(d.packed_transitions, d.start, total, choice)
            found[i], start = sums[end - 1] - best, end
        return at, found


def _check_length(features: Array) -> None:
    lengths = np.linalg.norm(features, axis=-1)
    longest = float(lengths.max())
    if longest > 1.0 + ROUNDING:
        where = tuple(int(i) for i in np.unravel_index(int(lengths.argmax()), lengths.shape))
        raise InvalidProblem(
            f"Dynamics: the features at {where} (layer, state, action) have length {longest:.6g}; expected at most 1. "
            f"Divide all of them by {longest:.6g}."
        )
    if longest < SHORT:
        raise InvalidProblem(
            f"Dynamics: the longest features have length {longest:.3g}; expected about 1, in whose units gamma counts. "
            "Multiply all of them by one number."
        )
