"""Tsallis-INF: follow the regularised leader with the 1/2-Tsallis entropy.

Zimmert and Seldin (2021), "Tsallis-INF: an optimal algorithm for stochastic and adversarial bandits".
"""

from __future__ import annotations

import numpy as np
from numpy.typing import ArrayLike, NDArray

from thalweg.core.validation import as_real, check_finite, is_real, require
from thalweg.online._kernels import tsallis_weights
from thalweg.online.policy import Policy


def tsallis_probabilities(losses: ArrayLike, eta: float) -> NDArray[np.float64]:
    """Minimiser over the simplex of ``<p, losses> - (4/eta) sum sqrt(p)``, shape (d,).

    ``p_i = 4 / (eta (losses_i - x))^2`` with x such that they sum to one, found to machine precision.

    >>> tsallis_probabilities([0.0, 0.0], 1.0)
    array([0.5, 0.5])
    """
    values = as_real("losses", losses)
    require(values.ndim == 1 and values.size > 0, "losses need shape (d,), d >= 1", got=values.shape)
    require(is_real(eta) and 0 < eta < np.inf, "tsallis_probabilities needs a finite eta > 0", got=eta)
    check_finite("losses", values)
    # Only eta times the losses' gaps counts: no square of eta alone, which may be no number.
    with np.errstate(over="ignore"):  # a gap without end has probability zero
        gaps = 2.0 * (eta * (values / 2.0 - values.min() / 2.0))
    return np.asarray(tsallis_weights(gaps, 1.0))


class TsallisINF(Policy):
    """Tsallis-INF bandit: best of both worlds, no parameter to tune.

    Regret at most ``4 sqrt(d T) + 1`` against any losses in [0, 1], and O(log T) when they are i.i.d. Use it
    when nothing is known before a round; with a context, use `ChebCB`.

    Args:
        arms: number d of arms.
        scale: what losses are divided by. ``None``, the default, takes their running mean, for losses of
            unknown size such as iteration counts; 1 when they lie in [0, 1].

    Cost per round: O(d), some microseconds for 20 arms.

    Source: Zimmert and Seldin (2021), algorithm 1 with importance-weighted losses and ``eta_t = 2/sqrt(t)``.

    >>> policy = TsallisINF(3)
    >>> for _ in range(2000):
    ...     arm = policy.act(); policy.learn(arm, [1.0, 0.2, 1.0][arm])
    >>> policy.act(); int(policy.probabilities.argmax())
    1
    1
    """

    def __init__(self, arms: int, scale: float | None = None) -> None:
        super().__init__(arms)
        fits = scale is None or (is_real(scale) and 0 < scale < np.inf)
        require(fits, "TsallisINF needs a finite scale > 0", got=scale)
        self.scale = scale
        self.rounds = 0
        self._estimates = np.zeros(arms)  # importance-weighted cumulative losses
        self._total = 0.0

    def _distribution(self, context: float | None) -> NDArray[np.float64]:
        scale = self.scale or (self._total / self.rounds if self._total > 0 else 1.0)
        eta = 2.0 / np.sqrt(self.rounds + 1.0)
        weights: NDArray[np.float64] = tsallis_weights(self._estimates / scale, eta)
        return weights

    def _update(self, arm: int, loss: float) -> None:
        self._estimates[arm] += loss / self.probabilities[arm]
        self._total += loss
        self.rounds += 1
