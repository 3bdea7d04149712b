"""What every search among actions does: `next_action`, see its reward, `observe`; and what it brings back."""

from __future__ import annotations

import math
from abc import ABC, abstractmethod
from dataclasses import dataclass
from typing import Any, ClassVar

import numpy as np
from numpy.typing import NDArray

from thalweg.core import CheckpointMismatch, InvalidParameter, InvalidProblem, NotFinite, UnreadableFile
from thalweg.core.seeding import generator
from thalweg.core.validation import is_real
from thalweg.online.actions.problem import Features


@dataclass(frozen=True)
class GapCertificate:
    """Why no action can be much better than the one found.

    It holds where rewards are within ``eps`` of an s-sparse linear function, s and its radius those of the search; with
    noise, with the search's probability. Where the search has found ``eps`` itself, the answers so far do not
    contradict it, which is no proof: an action that was never queried may still.

    Args:
        reward: of the action found, as observed.
        promise: most that any function left by the answers promises at any action.
        tolerance: how far a reward may be from what the right function of those promises.
        eps: the misspecification assumed.
        given: whether the user stated it.
        survivors: candidates (of a net) or supports (without one) that the answers leave; 0 where not counted.
        condition: what else has to hold, in words; mostly nothing.

    >>> round(GapCertificate(reward=0.7, promise=0.8, tolerance=0.2, eps=0.1, given=True, survivors=3).gap, 9)
    0.3
    """

    reward: float
    promise: float
    tolerance: float
    eps: float
    given: bool
    survivors: int
    condition: str = ""

    @property
    def gap(self) -> float:
        """The best action is better by at most this."""
        return max(0.0, self.promise + self.tolerance - self.reward)

    def __str__(self) -> str:
        within = f"If rewards are within {self.eps:.4g} of linear"
        found = "" if self.given else ", which the answers do not contradict"
        also = f" and {self.condition}" if self.condition else ""
        return f"{within}{found}{also}, no action is better by more than {self.gap:.4g}."


@dataclass(frozen=True)
class FoundAction:
    """What a search brings back.

    Args:
        action: its number.
        reward: its mean reward as observed; NaN where it was not queried.
        queries: different actions queried.
        draws: rewards observed.
        certificate: why it is near the best; None for a method that gives no such word, or not yet.
        message: how the search ended, in a line.
    """

    action: int
    reward: float
    queries: int
    draws: int
    certificate: GapCertificate | None
    message: str


class Search(ABC):
    """Base of searches among actions with known features and unknown rewards.

    A round is ``action = search.next_action()`` and then ``search.observe(reward)``, until `done`; `result` has the
    answer, at any time. A method's ``begin(features)`` makes one.

    Args:
        features: shape (n, d), as `as_features` gives them.
        draws: rewards observed of each action that is queried, one after another; their mean is the answer.
        seed: names the random stream.

    ``certifies`` says whether it may have a certificate before its end.

    A saved search is its rewards: they are played again to a new one, which then has the same bits.
    """

    certifies: ClassVar[bool] = False

    def __init__(self, features: Features, draws: int = 1, seed: int = 0) -> None:
        self.features, self.draws = features, draws
        self.n, self.d = features.shape
        self.sums: NDArray[np.float64] = np.zeros(self.n)  # of the rewards observed
        self.counts: NDArray[np.int64] = np.zeros(self.n, dtype=np.int64)
        self.actions: list[int] = []  # as they were asked for, with every repetition
        self.rewards: list[float] = []
        self.message = ""
        self._rng = generator(seed)
        self._next: int | None = None
        self._asked = False

    # Asking and telling

    def start(self) -> None:
        """Make the first choice; `ActionSearch.begin` does it."""
        self._next = self._choose()

    @property
    def done(self) -> bool:
        """Whether the search has ended."""
        return self._next is None

    def next_action(self) -> int:
        """The number of the action to query; the same until its reward is told.

        Raises:
            InvalidParameter: the search has ended.
        """
        if self._next is None:
            raise InvalidParameter("The search has ended: result() has its answer.")
        self._asked = True
        return self._next

    def observe(self, reward: float) -> None:
        """Take in the reward of the action that `next_action` gave.

        Raises:
            InvalidParameter: no action has been asked for.
            NotFinite: NaN or infinity. InvalidProblem: no number, or one that the search's assumptions exclude.
        """
        action = self._next
        if not self._asked or action is None:
            raise InvalidParameter("observe() takes the reward of the last next_action(); ask for one first.")
        if not is_real(reward):
            raise InvalidProblem(f"The reward of action {action} is {reward!r}; expected a number.")
        if not math.isfinite(reward):
            raise NotFinite(f"The reward of action {action} is {reward}; expected a finite number. Cap it.")
        value = float(reward)
        drawn = len(self.actions) % self.draws + 1
        if drawn == self.draws:
            self._check(action, (self._pending(drawn - 1) + value) / drawn)
        self.actions.append(action)
        self.rewards.append(value)
        self.sums[action] += value
        self.counts[action] += 1
        self._asked = False
        if drawn == self.draws:
            self._answered(action)
            self._next = self._choose()

    def result(self) -> FoundAction:
        """The best action as far as is known, and what is certain of it by now."""
        action = self.answer()
        seen = self.counts[action]
        return FoundAction(
            action,
            float(self.sums[action] / seen) if seen else math.nan,
            self.queries,
            len(self.actions),
            self.certificate() if self.queries else None,
            self.message,
        )

    def certificate(self) -> GapCertificate | None:
        """Of what is known after a query or more; None where the method gives none, or not yet."""
        return None

    # What is known

    @property
    def queries(self) -> int:
        """Different actions queried."""
        return int(np.count_nonzero(self.counts))

    @property
    def queried(self) -> NDArray[np.int64]:
        """Their numbers, in their order."""
        return np.flatnonzero(self.counts)

    def mean(self, action: int) -> float:
        """Of the rewards observed of a queried action."""
        return float(self.sums[action] / self.counts[action])

    def best(self) -> int | None:
        """The queried action with the best mean; None before the first."""
        seen = self.queried
        return int(seen[np.argmax(self.sums[seen] / self.counts[seen])]) if len(seen) else None

    # What a search of one kind says

    @abstractmethod
    def _choose(self) -> int | None:
        """The next action, None at the end; called at the start and after each answer."""

    def _check(self, action: int, mean: float) -> None:
        """Refuse an answer that cannot be, before it is taken in; there is none by default."""
        return

    def _answered(self, action: int) -> None:
        """Learn from an answer beside the sums: the action's draws are complete."""
        return

    def answer(self) -> int:
        """The action to use: by default the best observed, the first to be asked for before that."""
        found = self.best()
        return found if found is not None else self._next or 0

    def _pending(self, count: int) -> float:
        """Sum of the last ``count`` rewards."""
        return sum(self.rewards[len(self.rewards) - count :])

    # Keeping

    def state_dict(self) -> dict[str, Any]:
        """What was asked and answered, as plain data."""
        return {
            "search": type(self).__name__,
            "actions": np.array(self.actions, dtype=np.int64),
            "rewards": np.array(self.rewards, dtype=np.float64),
        }

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Play the answers of ``state`` to this search, which has just begun.

        Raises:
            CheckpointMismatch: it would have asked for other actions: it is of another kind, of other features, or
                has other options.
            InvalidParameter: it has answers already. UnreadableFile: no state of a search.
        """
        if self.actions:
            raise InvalidParameter("load_state_dict goes into a search that has just begun; make a new one.")
        actions, rewards = state.get("actions"), state.get("rewards")
        if not isinstance(actions, np.ndarray) or not isinstance(rewards, np.ndarray):
            raise UnreadableFile("The saved search has no actions or no rewards.")
        if state.get("search") != type(self).__name__ or len(actions) != len(rewards):
            raise CheckpointMismatch(
                f"The saved search is a {state.get('search')}; expected a {type(self).__name__}."
            )
        for k, (action, reward) in enumerate(zip(actions.tolist(), rewards.tolist(), strict=True)):
            if self.done or self.next_action() != action:
                raise CheckpointMismatch(
                    f"The saved search asked for action {action} at query {k}; this one would not. Its features or "
                    "its options are others."
                )
            self.observe(reward)
