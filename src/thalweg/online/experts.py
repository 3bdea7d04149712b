"""Experts of whom some sleep: AdaNormalHedge, and the aggregating algorithm for specialists.

Luo and Schapire (2015), "Achieving all with no parameters: AdaNormalHedge"; Freund, Schapire, Singer and Warmuth
(1997), "Using and combining predictors that specialize".
"""

from __future__ import annotations

from typing import Any, Self

import numpy as np
from numpy.typing import ArrayLike, NDArray

from thalweg.core import CheckpointMismatch, InvalidParameter
from thalweg.core.tree import require_alike
from thalweg.core.validation import as_real, check_vector, is_whole, require
from thalweg.online import _group_kernels as kernels

Vector = NDArray[np.float64]


def log_prior(prior: ArrayLike | None, experts: int, name: str) -> Vector:
    """The logarithm of a prior over experts, uniform where None, shape (experts,)."""
    if prior is None:
        return np.full(experts, -np.log(max(experts, 1)))
    given = check_vector(f"{name}: prior", prior, experts)
    if not (given > 0).all():
        at = int(np.argmin(given))
        raise InvalidParameter(f"{name}: prior[{at}] is {given[at]:g}; expected weights > 0.")
    return np.asarray(np.log(given / given.sum()))


class _Experts:
    """What both kinds share: who is awake."""

    def __init__(self, experts: int, prior: ArrayLike | None = None) -> None:
        require(is_whole(experts) and experts >= 1, f"{type(self).__name__} needs experts >= 1", got=experts)
        self.experts = int(experts)
        self._log_prior = log_prior(prior, self.experts, type(self).__name__)

    def _awake(self, active: ArrayLike | None) -> NDArray[np.int64]:
        """The numbers of the active experts; all of them where none is said, or none is awake."""
        if active is None:
            return np.arange(self.experts)
        mask = np.asarray(active)
        if mask.shape != (self.experts,) or mask.dtype != bool:
            raise InvalidParameter(
                f"{type(self).__name__}: active has shape {mask.shape} of {mask.dtype}; expected ({self.experts},) "
                "of truth values."
            )
        return np.flatnonzero(mask)

    def _checked(self, name: str, values: ArrayLike, awake: NDArray[np.int64], low: float) -> Vector:
        """Values of all experts, those awake within [low, 1]; what sleepers have is not looked at."""
        given = as_real(name, values)
        if given.shape != (self.experts,):
            raise InvalidParameter(f"{name} has shape {given.shape}; expected ({self.experts},).")
        seen = given[awake]
        if not ((seen >= low) & (seen <= 1.0)).all():
            at = int(awake[np.flatnonzero(~((seen >= low) & (seen <= 1.0)))[0]])
            raise InvalidParameter(f"{name}[{at}] is {given[at]:g}; expected numbers in [{low:g}, 1].")
        return given

    def state_dict(self) -> dict[str, Any]:
        """All that was learned, as plain data."""
        return {"experts": type(self).__name__, **{k: np.copy(v) for k, v in self._learned().items()}}

    def load_state_dict(self, state: dict[str, Any]) -> Self:
        """Go on from ``state``.

        Raises:
            CheckpointMismatch: it is of other experts, or of another number or prior.
        """
        mine = self._learned()
        if state.get("experts") != type(self).__name__ or set(state) - {"experts"} != set(mine):
            raise CheckpointMismatch(
                f"The saved experts are {state.get('experts')!r}; expected {type(self).__name__}."
            )
        for name, held in mine.items():
            require_alike(name, held, state[name], optional=False)
            if held.shape != state[name].shape:
                raise CheckpointMismatch(
                    f"The saved {name} has shape {state[name].shape}; expected {held.shape}."
                )
        if not np.array_equal(self._log_prior, state["_log_prior"]):
            raise CheckpointMismatch("The saved experts have another prior.")
        for name, held in mine.items():
            held[...] = state[name]
        return self

    def _learned(self) -> dict[str, Vector]:
        return {name: value for name, value in vars(self).items() if isinstance(value, np.ndarray)}


class AdaNormalHedge(_Experts):
    """Weights for experts of whom some sleep, without a learning rate.

    A round is ``weights(active)`` and then ``learn(regrets, active)``. Use it where experts are rules, groups or
    models that speak on some rounds only. Where all speak always and losses are mixable (square loss), `Specialists`
    has a smaller bound.

    Args:
        experts: N, at least 1.
        prior: positive weights, shape (N,); uniform by default.

    The regret to expert g on its own rounds is at most ``bound()[g] = sqrt(3 C_g (ln 1/q_g + ln B))``, with
    ``C_g = sum |r|`` over its rounds, at any time and for any regrets in [-1, 1] whose mean under the weights is not
    positive.

    Cost per round: O(N), 0.4 ms for ten thousand active experts.

    Source: Luo and Schapire (2015), section 5; computed in logarithms, since the potential overflows from C = 2000 on.

    >>> hedge = AdaNormalHedge(2)
    >>> for _ in range(50):
    ...     p = hedge.weights()
    ...     losses = np.array([0.2, 0.8])
    ...     hedge.learn(p @ losses - losses)
    >>> bool(hedge.weights()[0] > 0.95)
    True
    """

    def __init__(self, experts: int, prior: ArrayLike | None = None) -> None:
        super().__init__(experts, prior)
        self.regrets: Vector = np.zeros(self.experts)
        self.magnitudes: Vector = np.zeros(self.experts)

    def weights(self, active: ArrayLike | None = None) -> Vector:
        """Weights that sum to one over the active experts, shape (N,); over all where none is active."""
        awake, found = self._awake(active), np.zeros(self.experts)
        if len(awake) == 0:
            found[:] = 1.0 / self.experts
        else:
            found[awake] = kernels.hedge_weights(awake, self.regrets, self.magnitudes, self._log_prior)
        return found

    def learn(self, regrets: ArrayLike, active: ArrayLike | None = None) -> None:
        """Take in what each active expert would have saved in this round: our loss less its own, in [-1, 1].

        Raises:
            InvalidParameter: another shape, or a regret outside [-1, 1].
        """
        awake = self._awake(active)
        given = self._checked("regrets", regrets, awake, -1.0)
        self.regrets[awake] += given[awake]
        self.magnitudes[awake] += np.abs(given[awake])

    def bound(self) -> Vector:
        """What the regrets cannot exceed, shape (N,)."""
        return hedge_bound(self.magnitudes, self._log_prior)


def hedge_bound(magnitudes: Vector, log_prior: Vector) -> Vector:
    """AdaNormalHedge's bound of each expert's regret, shape (N,)."""
    spread = 1.0 + 1.5 * float(np.exp(log_prior) @ (1.0 + np.log1p(magnitudes)))
    return np.asarray(np.sqrt(3.0 * magnitudes * (np.log(spread) - log_prior)))


class Specialists(_Experts):
    """The aggregating algorithm for square loss in [0, 1] and experts of whom some sleep.

    A round is ``predict(proposals, active)`` and then ``learn(proposals, y, active)``. The regret to expert g on its
    own rounds is at most ``ln(1/q_g) / 2``, whatever its rounds: smaller than `AdaNormalHedge`'s, for this loss only.

    Args:
        experts: N, at least 1.
        prior: positive weights, shape (N,); uniform by default.

    Cost per round: O(N).

    Source: Freund, Schapire, Singer and Warmuth (1997); substitution for square loss: Vovk (1998), eta = 2.

    >>> mix = Specialists(2)
    >>> round(mix.predict([0.0, 1.0]), 3)
    0.5
    """

    def __init__(self, experts: int, prior: ArrayLike | None = None) -> None:
        super().__init__(experts, prior)
        self.log_weights: Vector = self._log_prior.copy()

    def weights(self, active: ArrayLike | None = None) -> Vector:
        """Weights that sum to one over the active experts, shape (N,); over all where none is active."""
        awake, found = self._awake(active), np.zeros(self.experts)
        if len(awake) == 0:
            found[:] = 1.0 / self.experts
        else:
            found[awake] = kernels.specialist_weights(awake, self.log_weights)
        return found

    def predict(self, proposals: ArrayLike, active: ArrayLike | None = None) -> float:
        """A prediction in [0, 1] from the proposals of the active experts."""
        awake = self._awake(active)
        awake = np.arange(self.experts) if len(awake) == 0 else awake
        given = self._checked("proposals", proposals, awake, 0.0)
        return float(kernels.substituted(self.weights(active)[awake], given[awake]))

    def learn(self, proposals: ArrayLike, y: float, active: ArrayLike | None = None) -> None:
        """Take in the label of a round, in [0, 1]."""
        require(0.0 <= y <= 1.0, "Specialists.learn needs a label in [0, 1]", got=y)
        awake = self._awake(active)
        if len(awake) == 0:
            return
        given = self._checked("proposals", proposals, awake, 0.0)[awake]
        weights = kernels.specialist_weights(awake, self.log_weights)
        unused = np.zeros((2, self.experts))
        kernels.learn_weights(kernels.MIXABLE, awake, weights, given, float(y), 0.0, unused, self.log_weights)
