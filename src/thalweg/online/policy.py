"""What every bandit does: `act`, see the loss, `learn`; and the two simplest ways of doing it."""

from __future__ import annotations

import copy
import inspect
import warnings
from abc import ABC, abstractmethod
from typing import Any, Self

import numpy as np
from numpy.typing import NDArray

from thalweg.core import CheckpointMismatch, InvalidParameter, NotFinite
from thalweg.core.seeding import generator
from thalweg.core.tree import require_alike
from thalweg.core.validation import is_whole, require
from thalweg.online.problem import LossTable

#: Losses whose squares, divided by small probabilities, are still numbers.
LARGEST = 1e150


class OutsideRange(UserWarning):
    """A context lies outside the range that a policy was made for."""


def _number(what: str, value: object) -> float:
    """A real number, also where an array or a tensor holds it alone."""
    found = np.asarray(value)
    if found.dtype.kind not in "iuf" or found.size != 1:
        raise InvalidParameter(f"{what} is a real number; got {value!r}.")
    return float(found.reshape(()))


def known(context: float | None, low: float, high: float) -> float:
    """The context of a round; a warning where it lies outside [low, high]."""
    value = float(context or 0.0)
    if not low <= value <= high:
        warnings.warn(
            f"A context lies outside [{low:g}, {high:g}] and counts as the nearest end. Make the policy with wider "
            "low and high.",
            OutsideRange,
            stacklevel=4,
        )
    return value


class Policy(ABC):
    """Base of bandit policies over ``arms`` arms, numbered from 0.

    A round is ``arm = policy.act(context)`` and then ``policy.learn(arm, loss)``; smaller losses are better.
    `started` gives a fresh copy with its own random stream; `state_dict` holds all that was learned.

    Args:
        arms: number of arms, at least 1.
    """

    #: Whether `act` needs a context, a number.
    needs_context: bool = False

    def __init__(self, arms: int) -> None:
        require(arms >= 1, f"{type(self).__name__} needs arms >= 1", got=arms)
        self.arms = arms
        self.probabilities: NDArray[np.float64] = np.zeros(arms)  # of the action being played
        self._rng = generator(0)

    @classmethod
    def solves(cls) -> type[LossTable]:
        """What a policy plays."""
        return LossTable

    def started(self, seed: int) -> Self:
        """A copy that has learned nothing more than this one, drawing from the stream named ``seed``."""
        policy = copy.deepcopy(self)
        policy._rng = generator(seed)
        return policy

    def act(self, context: float | None = None) -> int:
        """Draw an arm for this round; ``context`` is what is known about the round before it is played."""
        if self.needs_context:
            context = _number(f"The context of {type(self).__name__}.act", context)
            require(np.isfinite(context), f"{type(self).__name__}.act needs a finite context", got=context)
        self.probabilities = self._distribution(context)
        arm = int(np.searchsorted(np.cumsum(self.probabilities), self._rng.random(), side="right"))
        return min(arm, self.arms - 1)

    def learn(self, arm: int, loss: float) -> None:
        """Take in the loss of the arm that was played.

        Raises:
            InvalidParameter: ``arm`` could not have been drawn by the last `act`; the loss is no number, negative, or
                above 1e150.
            NotFinite: the loss is NaN or infinite.
        """
        if not (is_whole(arm) and 0 <= arm < self.arms and self.probabilities[arm] > 0):
            raise InvalidParameter(
                f"{type(self).__name__}.learn: arm {arm} could not have been drawn. Pass the arm that act() "
                "returned for this round."
            )
        loss = _number(f"The loss of arm {arm}", loss)
        if not np.isfinite(loss):
            raise NotFinite(f"The loss of arm {arm} is {loss}; a finite number >= 0 is needed. Cap it.")
        require(loss <= LARGEST, f"The loss of arm {arm} must be <= {LARGEST:g}: scale all losses", got=loss)
        require(loss >= 0, f"The loss of arm {arm} must be >= 0: add a constant to all losses", got=loss)
        self._update(arm, loss)
        self.probabilities = np.zeros(self.arms)

    @abstractmethod
    def _distribution(self, context: float | None) -> NDArray[np.float64]:
        """The probability of each arm in this round, shape (arms,)."""

    @abstractmethod
    def _update(self, arm: int, loss: float) -> None:
        """Learn from a checked loss."""

    def state_dict(self) -> dict[str, Any]:
        """Everything learned, and the random stream, as plain data."""
        return {"policy": type(self).__name__, **copy.deepcopy(vars(self))}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Go on from ``state``; `CheckpointMismatch` if it is of another policy or another number of arms."""
        expected = (type(self).__name__, self.arms, set(vars(self)))
        found = (state.get("policy"), state.get("arms"), set(state) - {"policy"})
        if expected != found:
            raise CheckpointMismatch(
                f"The saved policy is {found[0]} with {found[1]} arms; "
                f"expected {expected[0]} with {self.arms}."
            )
        for name, held in vars(self).items():
            require_alike(name, held, state[name])
        for name in inspect.signature(type(self)).parameters:
            mine, saved = vars(self).get(name), state.get(name)
            if name in vars(self) and mine != saved:
                raise CheckpointMismatch(
                    f"The saved {found[0]} has {name}={saved!r}; expected {name}={mine!r}, as this one has."
                )
        vars(self).update({k: copy.deepcopy(v) for k, v in state.items() if k != "policy"})


class Fixed(Policy):
    """Always the same arm: the baseline that learning has to beat.

    >>> Fixed(3, arm=1).act()
    1
    """

    def __init__(self, arms: int, arm: int = 0) -> None:
        super().__init__(arms)
        require(0 <= arm < arms, f"Fixed needs an arm in 0 .. {arms - 1}", got=arm)
        self.arm = arm

    def _distribution(self, context: float | None) -> NDArray[np.float64]:
        return np.eye(1, self.arms, self.arm).ravel()

    def _update(self, arm: int, loss: float) -> None:
        pass


class Binned(Policy):
    """One copy of a policy for each bin of a context interval: Tsallis-INF-CB when that is `TsallisINF`.

    Simple and without assumptions, but bins share nothing; `ChebCB` learns faster from smooth losses.

    Args:
        policy: the policy to copy.
        bins: number of equal bins.
        low, high: ends of the contexts; what lies outside goes to the nearest bin, with a warning (`OutsideRange`).

    Source: Khodak et al. (2024), section 4, the baseline.

    >>> from thalweg.online import TsallisINF
    >>> policy = Binned(TsallisINF(4), bins=3, low=0.0, high=1.0)
    >>> arm = policy.act(0.4); policy.learn(arm, 1.0)
    """

    needs_context = True

    def __init__(self, policy: Policy, bins: int, low: float, high: float) -> None:
        super().__init__(policy.arms)
        require(bins >= 1, "Binned needs bins >= 1", got=bins)
        require(low < high, "Binned needs low < high", got=(low, high))
        self.low, self.high, self.bin = low, high, 0
        self._policies = [copy.deepcopy(policy) for _ in range(bins)]

    def _distribution(self, context: float | None) -> NDArray[np.float64]:
        share = (known(context, self.low, self.high) - self.low) / (self.high - self.low)
        self.bin = int(np.clip(share * len(self._policies), 0, len(self._policies) - 1))
        inner = self._policies[self.bin]
        inner.probabilities = inner._distribution(context)
        return inner.probabilities

    def _update(self, arm: int, loss: float) -> None:
        self._policies[self.bin].learn(arm, loss)

    def state_dict(self) -> dict[str, Any]:
        state = {"policy": type(self).__name__, **vars(self)}
        return copy.deepcopy(state | {"_policies": [policy.state_dict() for policy in self._policies]})

    def load_state_dict(self, state: dict[str, Any]) -> None:
        inner = state.get("_policies", [])
        if len(inner) != len(self._policies):
            raise CheckpointMismatch(
                f"The saved policy has {len(inner)} bins; expected {len(self._policies)}."
            )
        for policy, saved in zip(self._policies, inner, strict=True):
            policy.load_state_dict(saved)
        super().load_state_dict(state | {"_policies": self._policies})
