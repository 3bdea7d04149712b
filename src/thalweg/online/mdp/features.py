"""Learners that know states by the features of their actions alone: what all episodes taught is three sums a layer.

Dai, Luo, Wei and Zimmert (2023), algorithm 1, in a linear MDP.
"""

from __future__ import annotations

import copy
from abc import ABC, abstractmethod
from dataclasses import dataclass

import numpy as np
from numpy.typing import ArrayLike, NDArray

from thalweg.core import CheckpointMismatch, InvalidProblem, NotFinite
from thalweg.core.seeding import generator
from thalweg.core.tree import require_alike
from thalweg.core.validation import as_real, check_finite, is_real, is_whole, require
from thalweg.numerics.markov import ROUNDING
from thalweg.online.mdp import _kernels as kernels
from thalweg.online.mdp.constants import Constants
from thalweg.online.mdp.problem import Array


@dataclass(frozen=True)
class Rollouts:
    """Episodes under one policy, each with a weight; the weights sum to one.

    ``features`` (H, M, A, d) of the actions in the states met, ``probabilities`` (H, M, A) and the ``actions`` taken
    (H, M), ``weights`` (M,).
    """

    features: Array
    probabilities: Array
    actions: NDArray[np.int64]
    weights: Array

    @property
    def taken(self) -> Array:
        """Features of the actions taken, shape (H, M, d)."""
        return np.take_along_axis(self.features, self.actions[..., None, None], axis=2)[:, :, 0]


class FeatureLearner(ABC):
    """The log-barrier without tables: a query costs O(A d^2), however many states there are.

    An episode is ``a = learner.act(features)``, the features of the state's actions, shape (A, d), and
    ``learner.learn(loss)``, H times; then the next one begins. `LinearLearner` has a simulator, `EpochLearner` none.

    Args:
        dimension, actions, layers, episodes: d, A, H and K.
        constants: learning rate, gamma and bonus.
        explore: the share of the uniform policy that is mixed in.
        seed: names the stream that all is drawn from.
    """

    def __init__(
        self,
        dimension: int,
        actions: int,
        layers: int,
        episodes: int,
        constants: Constants,
        explore: float,
        seed: int,
    ) -> None:
        self.sizes = {"dimension": dimension, "actions": actions, "layers": layers, "episodes": episodes}
        self.constants, self.explore = constants, float(explore)
        self.episode = 0
        self.estimates: Array = np.zeros((layers, dimension))  # sum of S phi L
        self.squares: Array = np.zeros((layers, dimension, dimension))  # beta sum of S
        self.bonuses: Array = np.zeros(
            (layers, dimension)
        )  # what the bonus of later layers is linear by, summed
        self._rng = generator(seed)
        self._layer, self._acted = 0, False
        self._features: Array = np.zeros((layers, actions, dimension))
        self._actions: NDArray[np.int64] = np.zeros(layers, dtype=np.int64)
        self._losses: Array = np.zeros(layers)

    def cumulative(self, layer: int, features: Array) -> Array:
        """``sum of (Q - B)`` up to a constant a state: features (..., A, d), returns (..., A)."""
        linear = features @ (self.estimates[layer] - self.bonuses[layer])
        return np.asarray(linear - ((features @ self.squares[layer]) * features).sum(-1))

    def policy(self, layer: int, features: Array) -> Array:
        """Of the states of a layer whose actions have these features: (..., A, d), returns (..., A)."""
        cumulative, width = self.cumulative(layer, features), self.sizes["actions"]
        found = np.empty_like(cumulative)
        rows = cumulative.reshape(-1, width)
        kernels.leaders(kernels.LOG_BARRIER, rows, self.constants.eta, found.reshape(-1, width))
        return (1.0 - self.explore) * found + self.explore / width

    def probabilities(self, features: ArrayLike) -> Array:
        """Of the actions of a state of the layer that comes, shape (A,)."""
        return self.policy(self._layer, self.checked(features, (), "features"))

    def act(self, features: ArrayLike) -> int:
        """Draw an action where they have these features, shape (A, d).

        Raises:
            InvalidProblem: another shape, rows longer than one. NotFinite: NaN or infinity.
            InvalidParameter: the last action's loss has not been told.
        """
        require(not self._acted, "act: tell the loss of the last action first, with learn(loss)")
        rows, h = self.checked(features, (), "features"), self._layer
        self._actions[h] = kernels.choose(self._rng, self.policy(h, rows))
        self._features[h], self._acted = rows, True
        return int(self._actions[h])

    def learn(self, loss: float) -> None:
        """Take in the loss of the action drawn; after the last layer's, the episode is learned from.

        Raises:
            InvalidParameter: no action was drawn, a loss outside [0, 1]. NotFinite: NaN or infinity.
        """
        require(self._acted, "learn: draw an action first, with act(features)")
        check_finite("loss", loss)
        fits = is_real(loss) and 0 <= loss <= 1
        require(fits, f"The loss of layer {self._layer} lies in [0, 1]: shift and scale all losses", got=loss)
        self._losses[self._layer] = loss
        self._layer, self._acted = self._layer + 1, False
        if self._layer == self.sizes["layers"]:
            self._layer = 0
            self._end()
            self.episode += 1

    @abstractmethod
    def _end(self) -> None:
        """What is done after an episode, whose features, actions and losses are at hand."""

    def take_in(self, rollouts: Rollouts, paths: Array, losses: Array, times: int = 1) -> None:
        """Learn from episodes under one policy, each as if it had been played ``times`` over their number.

        Args:
            rollouts: other episodes under the same policy, for covariances and the bonus.
            paths: features of the actions taken, shape (n, H, d).
            losses: shape (n, H).
        """
        layers, known = self.sizes["layers"], self.constants
        taken, ahead = rollouts.taken, np.zeros(len(rollouts.weights))
        tails = np.cumsum(losses[:, ::-1], axis=1)[:, ::-1]
        for h in range(layers - 1, -1, -1):
            S = kernels.inverse_covariance(np.ascontiguousarray(taken[h]), rollouts.weights, known.gamma)
            self.estimates[h] += times * (S @ (paths[:, h] * tails[:, h, None]).mean(0))
            self.squares[h] += times * known.beta * S
            self.bonuses[h] += times * (S @ (taken[h].T @ (rollouts.weights * ahead)))
            norms = ((rollouts.features[h] @ S) * rollouts.features[h]).sum(-1)
            own = np.take_along_axis(norms, rollouts.actions[h][:, None], axis=1)[:, 0]
            local = known.beta * (own + (rollouts.probabilities[h] * norms).sum(-1))
            ahead = (1.0 + 1.0 / layers) * (local + ahead)
        if not (np.isfinite(self.estimates).all() and np.isfinite(self.bonuses).all()):
            raise NotFinite(
                f"Estimates are no longer finite after {self.episode} episodes, with {known}. Take a larger gamma or a "
                "smaller beta."
            )

    def state_dict(self) -> dict[str, object]:
        """All that was learned, the episode under way, and the random stream; a simulator's own state is not in it."""
        return copy.deepcopy(self._held())

    def load_state_dict(self, state: dict[str, object]) -> None:
        """Go on from ``state``; `CheckpointMismatch` if it is of a learner of another kind or other sizes."""
        held = self._held()
        if set(state) != set(held) or any(state[name] != held[name] for name in ("kind", "sizes", "made")):
            raise CheckpointMismatch(
                f"The saved learner is a {state.get('kind')} with {state.get('sizes')}, {state.get('made')}; expected "
                f"a {held['kind']} with {self.sizes}, {held['made']}."
            )
        for name, value in held.items():
            require_alike(f"learner's {name}", value, state[name])
        kept = {name: value for name, value in state.items() if name not in ("kind", "made")}
        vars(self).update(copy.deepcopy(kept))

    def _held(self) -> dict[str, object]:
        left_out = ("world", "constants", "samples", "explore")
        kind: dict[str, object] = {"kind": type(self).__name__, "made": self.made()}
        return kind | {name: value for name, value in vars(self).items() if name not in left_out}

    def made(self) -> str:
        """What it was made with, in words."""
        return f"{self.constants}, explore={self.explore:g}"

    def checked(self, features: ArrayLike, leading: tuple[int, ...], name: str) -> Array:
        """Features of states, shape (*leading, A, d)."""
        rows = as_real(name, features)
        expected = (*leading, self.sizes["actions"], self.sizes["dimension"])
        if rows.shape != expected:
            raise InvalidProblem(f"{name} has shape {rows.shape}; expected {expected}.")
        check_finite(name, rows)
        longest = float(np.sqrt(np.einsum("...d,...d->...", rows, rows).max()))
        if longest > 1.0 + ROUNDING:
            raise InvalidProblem(
                f"{name} has a row of length {longest:.6g}; expected at most 1. Scale all of them."
            )
        return rows


def check_sizes(name: str, **sizes: int) -> None:
    """Refuse sizes of a learner that are no whole numbers from 1."""
    for what, value in sizes.items():
        require(is_whole(value) and value >= 1, f"{name} needs {what} >= 1", got=value)


def drawn(sums: Array, rng: np.random.Generator) -> NDArray[np.int64]:
    """A number for each row of running sums of chances, shape (rows, n)."""
    uniforms = rng.random(len(sums))[:, None] * sums[:, -1:]
    return np.asarray(np.minimum((sums <= uniforms).sum(1), sums.shape[1] - 1), dtype=np.int64)
