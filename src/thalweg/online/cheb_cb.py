"""ChebCB: a contextual bandit for losses that vary smoothly with one number.

Khodak, Chow, Balcan and Talwalkar (2024), "Learning to relax", section 4 and algorithm 3.
"""

from __future__ import annotations

import math

import numpy as np
from numpy.typing import NDArray

from thalweg.core.validation import require
from thalweg.numerics import chebyshev_features, lipschitz_coefficient_bounds
from thalweg.online._kernels import box_least_squares
from thalweg.online.policy import Policy, known


class ChebCB(Policy):
    """Chebyshev regression of each arm's loss on the context, played by inverse-gap weighting (SquareCB).

    The coefficients are confined to the box that those of a Lipschitz function lie in; its size (the largest
    loss K and the Lipschitz constant L) is estimated from the losses seen. Its regret is to the best arm *for
    each context*. Use it when a number known before the round says how hard the round is.

    Args:
        arms: number d of arms.
        low, high: ends of the contexts; contexts outside count as the nearest end, with a warning (`OutsideRange`).
        terms: number m of Chebyshev terms. Default 6, as in the paper's experiments.

    Cost per round: O(m^3 + d m) and memory O(d m^2); some tens of microseconds for 20 arms.

    >>> policy = ChebCB(2, low=0.0, high=1.0)
    >>> rng = np.random.default_rng(0)
    >>> for context in rng.random(2000):  # arm 0 is better left of 1/2, arm 1 right of it
    ...     arm = policy.act(context); policy.learn(arm, context if arm == 0 else 1 - context)
    >>> policy.act(0.1), policy.act(0.9)
    (0, 1)
    """

    needs_context = True

    def __init__(self, arms: int, low: float, high: float, terms: int = 6) -> None:
        super().__init__(arms)
        require(low < high, "ChebCB needs low < high", got=(low, high))
        require(terms >= 1, "ChebCB needs terms >= 1", got=terms)
        self.low, self.high, self.terms = low, high, terms
        self.rounds = 0
        self.theta = np.zeros((arms, terms))  # regression coefficients of the unscaled loss
        self._gram = np.zeros((arms, terms, terms))
        self._moment = np.zeros((arms, terms))
        self._squares = np.zeros(arms)  # sums of squared losses, by arm
        self._features, self._predicted = np.zeros(terms), np.zeros(arms)
        self._errors = np.zeros(3)  # sums of squared scaled predictions, their products with losses, losses^2
        self._largest, self._smallest = 0.0, math.inf
        self._scale, self._eta = 1.0, 0.0

    def _distribution(self, context: float | None) -> NDArray[np.float64]:
        self._features = chebyshev_features(
            known(context, self.low, self.high), self.terms, self.low, self.high
        )
        predicted = self.theta @ self._features / self._scale
        best = int(predicted.argmin())
        weights = 1.0 / (self.arms + self._eta * (predicted - predicted[best]))
        weights[best] = 0.0
        weights[best] = 1.0 - weights.sum()
        self._predicted = predicted
        return weights

    def _update(self, arm: int, loss: float) -> None:
        self.rounds += 1
        bounds_move = loss > self._largest or loss < self._smallest
        self._largest, self._smallest = max(self._largest, loss), min(self._smallest, loss)
        # The coefficient box bounds K and 2 L width / j hold for the unscaled loss: no refit when N moves.
        spread = self._largest - self._smallest  # L times the width of the context interval
        scale = self._largest or 1.0  # K
        factor = 2.0 + 4.0 * spread / scale * (1.0 + math.log(self.terms))  # N
        self._gram[arm] += np.outer(self._features, self._features)
        self._moment[arm] += loss * self._features
        self._squares[arm] += loss * loss
        predicted = float(self._predicted[arm])
        self._errors += (predicted * predicted, predicted * loss, loss * loss)
        self._scale = scale * factor
        bound = np.maximum(lipschitz_coefficient_bounds(self.terms, scale, spread, 1.0), 1e-300)
        misfit = 0.0
        for i in range(self.arms) if bounds_move else (arm,):
            theta, constrained = box_least_squares(self._gram[i], self._moment[i], bound, self.theta[i])
            self.theta[i] = theta
            if constrained:
                misfit = self._squares[i] + theta @ (self._gram[i] @ theta) - 2.0 * theta @ self._moment[i]
        self._eta = self._exploitation(misfit / self._scale / self._scale, spread)

    def _exploitation(self, misfit: float, spread: float) -> float:
        """The weight of a gap, growing with t like the authors' own setting (their code, not the theorem)."""
        m, t, scale = self.terms, self.rounds, self._scale
        alpha = (math.pi + 2.0 / math.pi * math.log(2.0 * m + 1.0)) / (2.0 * scale * (m + 1)) * spread
        squares, products, losses = self._errors
        error = squares - 2.0 * products / scale + losses / scale / scale
        denominator = max(error - misfit, 0.0) + 2.0 * alpha**2 * t
        return 2.0 * t * math.sqrt(self.arms * t / denominator) if denominator > 0 else self._eta
