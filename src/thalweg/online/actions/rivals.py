"""Searches that every other has to beat: optimism, chance, and mixtures of fit and chance.

Abbasi-Yadkori, Pal and Szepesvari (2011), "Improved algorithms for linear stochastic bandits", for LinUCB.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from thalweg.core.validation import is_real, is_whole, require
from thalweg.online.actions.method import ActionSearch
from thalweg.online.actions.problem import Features, Vector
from thalweg.online.actions.search import Search

#: With noise a search without an end of its own draws so many times the number of actions.
NOISY_ROUNDS = 10


class _Rounds(Search):
    """A search of so many rounds; without noise no action comes twice, as its reward is known."""

    def __init__(self, features: Features, rounds: int | None, noise: float, seed: int) -> None:
        super().__init__(features, 1, seed)
        self.repeats = noise > 0
        default = NOISY_ROUNDS * self.n if self.repeats else self.n
        self.rounds = default if rounds is None else rounds

    def _choose(self) -> int | None:
        over = len(self.actions) >= self.rounds or (not self.repeats and self.queries == self.n)
        if over:
            self.message = f"{len(self.actions)} rounds played; the answer has no certificate."
            return None
        return self._pick()

    def _pick(self) -> int:
        """An action at random."""
        return int(self._rng.choice(self._open()))

    def _open(self) -> NDArray[np.int64]:
        """Actions that may be queried."""
        return np.arange(self.n) if self.repeats else np.flatnonzero(self.counts == 0)


class _Ridge(_Rounds):
    """Rounds with a ridge regression: its estimates and widths follow by rank-one updates, 2 n d operations a round."""

    def __init__(self, features: Features, rounds: int | None, ridge: float, noise: float, seed: int) -> None:
        super().__init__(features, rounds, noise, seed)
        self.inverse: NDArray[np.float64] = np.eye(self.d) / ridge
        self.theta: Vector = np.zeros(self.d)
        self.estimates: Vector = np.zeros(self.n)
        self.squares: Vector = np.square(features).sum(1) / ridge  # phi' V^-1 phi

    def _answered(self, action: int) -> None:
        phi, reward = self.features[action], self.rewards[-1]
        direction = self.inverse @ phi
        gain = direction / (1.0 + phi @ direction)
        off = reward - phi @ self.theta
        across = self.features @ direction
        self.theta += gain * off
        self.inverse -= np.outer(gain, direction)
        self.estimates += across * (off / (1.0 + phi @ direction))
        self.squares -= np.square(across) / (1.0 + phi @ direction)

    def answer(self) -> int:
        seen = self.queried
        if not self.repeats or not len(seen):
            return super().answer()
        return int(seen[np.argmax(self.estimates[seen])])


class _Optimism(_Ridge):
    """`LinUCB` under way."""

    def __init__(self, features: Features, options: LinUCB, noise: float, seed: int) -> None:
        super().__init__(features, options.rounds, options.ridge, noise, seed)
        self.beta = options.beta

    def _pick(self) -> int:
        may = self._open()
        upper = self.estimates[may] + self.beta * np.sqrt(np.maximum(self.squares[may], 0.0))
        return int(may[np.argmax(upper)])


class _Greedy(_Ridge):
    """`EpsilonGreedy` under way."""

    def __init__(self, features: Features, options: EpsilonGreedy, noise: float, seed: int) -> None:
        super().__init__(features, options.rounds, options.ridge, noise, seed)
        self.share = options.share

    def _pick(self) -> int:
        may = self._open()
        if not self.actions or self._rng.random() < self.share:
            return int(self._rng.choice(may))
        return int(may[np.argmax(self.estimates[may])])


@dataclass(frozen=True)
class LinUCB(ActionSearch):
    """Query the action whose linear estimate could be largest: optimism, for exactly linear rewards.

    Without noise no action is queried twice. It knows neither sparsity nor misspecification, and gives no certificate:
    the baseline of linear bandits.

    Args:
        beta: width of the confidence, in standard errors of the ridge. Default 1.
        ridge: default 1.
        rounds: rewards observed; None (default): as many as there are actions, ten times that with noise.

    Cost a round: 2 n d + 2 d^2 operations.

    >>> from thalweg import Stop, solve
    >>> from thalweg.online import ActionTable
    >>> features = np.random.default_rng(0).standard_normal((100, 3))
    >>> solve(ActionTable(features, features @ np.ones(3)), LinUCB(), stop=Stop(calls=10)).metrics["gap"]
    0.0
    """

    beta: float = 1.0
    ridge: float = 1.0
    rounds: int | None = None

    def __post_init__(self) -> None:
        require(is_real(self.beta) and 0 <= self.beta < np.inf, "LinUCB needs beta >= 0", got=self.beta)
        require(is_real(self.ridge) and 0 < self.ridge < np.inf, "LinUCB needs ridge > 0", got=self.ridge)
        _check_rounds("LinUCB", self.rounds)

    def made(self, features: Features, noise: float, seed: int) -> Search:
        return _Optimism(features, self, noise, seed)


@dataclass(frozen=True)
class EpsilonGreedy(ActionSearch):
    """Query what a ridge regression likes best, and now and then any action.

    Args:
        share: of rounds with any action. Default 0.1.
        ridge: default 1.
        rounds: as `LinUCB`.

    Cost a round: 2 n d + 2 d^2 operations.

    >>> EpsilonGreedy(share=0.2).name
    'EpsilonGreedy(share=0.2)'
    """

    share: float = 0.1
    ridge: float = 1.0
    rounds: int | None = None

    def __post_init__(self) -> None:
        require(
            is_real(self.share) and 0 <= self.share <= 1,
            "EpsilonGreedy needs 0 <= share <= 1",
            got=self.share,
        )
        require(
            is_real(self.ridge) and 0 < self.ridge < np.inf, "EpsilonGreedy needs ridge > 0", got=self.ridge
        )
        _check_rounds("EpsilonGreedy", self.rounds)

    def made(self, features: Features, noise: float, seed: int) -> Search:
        return _Greedy(features, self, noise, seed)


@dataclass(frozen=True)
class RandomActions(ActionSearch):
    """Query actions at random: what a search has to beat.

    Args:
        rounds: as `LinUCB`.

    >>> search = RandomActions(rounds=2).begin([[0.0], [1.0], [2.0]], seed=1)
    >>> first = search.next_action(); search.observe(0.0); search.next_action() != first
    True
    """

    rounds: int | None = None

    def __post_init__(self) -> None:
        _check_rounds("RandomActions", self.rounds)

    def made(self, features: Features, noise: float, seed: int) -> Search:
        return _Rounds(features, self.rounds, noise, seed)


def _check_rounds(method: str, rounds: int | None) -> None:
    right = rounds is None or (is_whole(rounds) and rounds >= 1)
    require(right, f"{method} needs rounds >= 1, or None", got=rounds)
