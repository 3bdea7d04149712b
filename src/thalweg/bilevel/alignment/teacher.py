"""Who says which of two pieces of behaviour is better: scripted teachers, and your own.

Lee, Smith, Dragan and Abbeel (2021), "B-Pref" (arXiv 2111.03026), section 4, for the scripted teachers' faults.
"""

from __future__ import annotations

import numbers
import warnings
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Protocol

import numpy as np
from numpy.typing import NDArray
from scipy.special import expit
from scipy.stats import binom

from thalweg.bilevel.alignment.segments import Array, Segments
from thalweg.core import InvalidProblem, NotFinite
from thalweg.core.validation import is_real, require


class InconsistentTeacher(UserWarning):
    """A teacher contradicts itself more often than its declared mistakes explain."""


class Teacher(Protocol):
    """Answers for pairs: 1 where the first is preferred, 0 the second, 0.5 where neither, NaN where it skips."""

    def label(
        self,
        first: Segments,
        second: Segments,
        rewards: tuple[Array, Array] | None,
        seed: np.random.Generator,
    ) -> Array:
        """Of N pairs, shape (N,). ``rewards`` are the true ones of the steps, shape (N, L) each, where known."""


@dataclass(frozen=True)
class ScriptedTeacher:
    """A teacher who knows the reward, with faults.

    Args:
        beta: how surely the better is preferred, ``P = 1 / (1 + exp(-beta (R0 - R1)))`` (Bradley-Terry); zero or
            less is always right ("rational"). Default 1, in units of the reward.
        discount: weight of a step for each step that follows it in the piece: below 1 the end counts more. Default 1.
        mistakes: chance that an answer is turned round. Default 0.
        skip: a pair is skipped where both sums are below this. Default: none is.
        equal: sums closer than this are told as equal, target 0.5. A rational teacher's ties always are. Default 0.

    Sums are of the true rewards of the lived steps.

    >>> teacher = ScriptedTeacher(beta=0)
    >>> two = np.array([[1.0, 1.0], [0.0, 0.0]])
    >>> teacher.answers(two, two[::-1], np.random.default_rng(0))
    array([1., 0.])
    """

    beta: float = 1.0
    discount: float = 1.0
    mistakes: float = 0.0
    skip: float = -np.inf
    equal: float = 0.0

    def __post_init__(self) -> None:
        require(
            is_real(self.beta) and np.isfinite(self.beta),
            "ScriptedTeacher needs a finite beta",
            got=self.beta,
        )
        fits = is_real(self.discount) and 0 < self.discount <= 1
        require(fits, "ScriptedTeacher needs a discount in (0, 1]", got=self.discount)
        fits = is_real(self.mistakes) and 0 <= self.mistakes <= 0.5
        require(fits, "ScriptedTeacher needs mistakes in [0, 0.5]", got=self.mistakes)
        fits = is_real(self.equal) and 0 <= self.equal < np.inf
        require(fits, "ScriptedTeacher needs a finite equal >= 0", got=self.equal)
        fits = is_real(self.skip) and self.skip < np.inf
        require(fits, "ScriptedTeacher's skip is a number", got=self.skip)

    def sums(self, rewards: Array) -> Array:
        """What pieces are judged by, shape (N,), of rewards (N, L)."""
        L = rewards.shape[1]
        found: Array = rewards @ (self.discount ** np.arange(L - 1, -1, -1.0))
        return found

    def probability(self, first: Array, second: Array) -> Array:
        """Chance (a tie counts half) that a piece with the first sum is preferred, of sums of any shape."""
        ahead = first - second
        right = expit(self.beta * ahead) if self.beta > 0 else 0.5 * (1.0 + np.sign(ahead))
        found = (1.0 - 2.0 * self.mistakes) * right + self.mistakes
        return np.where(np.abs(ahead) < self.equal, 0.5, found)

    def answers(self, first: Array, second: Array, rng: np.random.Generator) -> Array:
        """Targets for true rewards of shape (N, L) each."""
        a, b = self.sums(first), self.sums(second)
        if not (np.isfinite(a).all() and np.isfinite(b).all()):
            raise NotFinite(
                "The true rewards of segments hold NaN or infinity; the teacher cannot compare them."
            )
        ahead, (coin, slip) = a - b, rng.random((2, len(a)))
        right = (coin < expit(self.beta * ahead)) if self.beta > 0 else ahead > 0
        found = np.where(right ^ (slip < self.mistakes), 1.0, 0.0)
        found[np.abs(ahead) < self.equal] = 0.5
        if self.beta <= 0:
            found[ahead == 0.0] = 0.5
        found[np.maximum(a, b) < self.skip] = np.nan
        return found

    def label(
        self,
        first: Segments,
        second: Segments,
        rewards: tuple[Array, Array] | None,
        seed: np.random.Generator,
    ) -> Array:
        """See `Teacher`; needs the true rewards."""
        if rewards is None:
            raise InvalidProblem(
                "ScriptedTeacher needs the true reward, and the world has none: give TabularMDP(reward=), or a "
                "CallbackTeacher."
            )
        return self.answers(*rewards, seed)


#: ``ask(first, second)`` -> one answer a pair: 1, 0, 0.5, or None to skip.
Ask = Callable[[Segments, Segments], Sequence[float | None] | Array]


@dataclass(frozen=True)
class CallbackTeacher:
    """Your own function, or a person behind one.

    Args:
        ask: called with two `Segments` of N pieces; returns N answers: 1 the first is better, 0 the second, 0.5
            neither, None or NaN for no answer.
        mistakes: the share of answers that you expect to be wrong, below 0.5. Default 0.
        checked: the share of pairs that are asked once more the other way round; where these answers contradict the
            first ones more often than ``mistakes`` explains, an `InconsistentTeacher` warning says so. Default 0.

    Raises:
        InvalidProblem: answers of another number, or that are none.

    >>> likes_action_one = CallbackTeacher(lambda a, b: (a.actions.sum(1) > b.actions.sum(1)).astype(float))
    >>> likes_action_one.label(Segments([[0]], [[1]]), Segments([[0]], [[0]]), None, np.random.default_rng(0))
    array([1.])
    """

    ask: Ask
    mistakes: float = 0.0
    checked: float = 0.0

    def __post_init__(self) -> None:
        require(callable(self.ask), "CallbackTeacher needs a function ask(first, second)", got=self.ask)
        check_mistakes("CallbackTeacher", self.mistakes)
        fits = is_real(self.checked) and 0 <= self.checked <= 1
        require(fits, "CallbackTeacher needs checked in [0, 1]", got=self.checked)

    def label(
        self,
        first: Segments,
        second: Segments,
        rewards: tuple[Array, Array] | None,
        seed: np.random.Generator,
    ) -> Array:
        """See `Teacher`."""
        found = as_targets("The teacher", self.ask(first, second), len(first))
        again = np.flatnonzero(seed.random(len(first)) < self.checked)
        if len(again):
            turned = as_targets("The teacher", self.ask(second[again], first[again]), len(again))
            told = contradictions(found[again], 1.0 - turned, self.mistakes)
            if told:
                warnings.warn(told, InconsistentTeacher, stacklevel=2)
        return found


def check_mistakes(who: str, mistakes: float) -> None:
    """Refuse a share of wrong answers that is none, or says nothing of what is right."""
    fits = is_real(mistakes) and 0 <= mistakes < 0.5
    require(fits, f"{who} needs mistakes in [0, 0.5)", got=mistakes)


def as_targets(who: str, answers: object, n: int) -> Array:
    """Answers as targets in {0, 0.5, 1}, NaN for none; `InvalidProblem` for anything else."""
    given = np.atleast_1d(np.asarray(answers, dtype=object))
    given = given if given.ndim == 1 else given[:0].reshape(-1)
    if len(given) != n:
        raise InvalidProblem(f"{who} gave {len(given)} answers to {n} pairs; expected one for each.")
    for at, answer in enumerate(given):
        if not (answer is None or isinstance(answer, bool | np.bool_ | numbers.Real)):
            raise InvalidProblem(
                f"{who} answered {answer!r} to pair {at}; expected a number: 1 (the first), 0 (the second), 0.5 "
                "(neither), or None."
            )
    found = np.array([np.nan if v is None else v for v in given], dtype=np.float64)
    wrong = ~(np.isnan(found) | np.isin(found, (0.0, 0.5, 1.0)))
    if wrong.any():
        at = int(np.flatnonzero(wrong)[0])
        raise InvalidProblem(
            f"{who} answered {found[at]:g} to pair {at}; expected 1 (the first), 0 (the second), 0.5 (neither), None."
        )
    return found


def contradictions(targets: Array, again: Array, mistakes: float) -> str:
    """What is to be said of two rounds of answers to the same pairs; nothing where mistakes explain it.

    Two answers with mistakes m of their own differ with chance 2 m (1 - m); more than that by a one-sided binomial test
    at 0.1 % is told.

    >>> contradictions(np.array([1.0, 0.0]), np.array([1.0, 0.0]), 0.0)
    ''
    """
    decided: NDArray[np.bool_] = np.isin(targets, (0.0, 1.0)) & np.isin(again, (0.0, 1.0))
    n, apart = int(decided.sum()), int((targets != again)[decided].sum())
    explained = 2.0 * mistakes * (1.0 - mistakes)
    if n == 0 or binom.sf(apart - 1, n, explained) >= 1e-3:
        return ""
    return (
        f"Asked twice, the teacher contradicts itself on {apart} of {n} pairs; mistakes={mistakes:g} explains "
        f"{explained * n:.3g}. Declare more mistakes, or look at the pairs."
    )
