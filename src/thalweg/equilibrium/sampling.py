"""What drawing components saves: the stable rank of a finite sum, and the gain that follows from it."""

from __future__ import annotations

import math
from dataclasses import dataclass


@dataclass(frozen=True)
class Sampling:
    """How unlike the components of a sum are, and what drawing a few of them is worth.

    Args:
        count: n.
        evaluations: of components, for the difference of one at two points: 1 where one product tells it, else 2.
        whole: F's Lipschitz constant.
        single: the root mean square one of a component drawn.

    >>> Sampling(count=1000, evaluations=1, whole=1.0, single=2.0).stable_rank
    4.0
    """

    count: int
    evaluations: int
    whole: float
    single: float

    @property
    def stable_rank(self) -> float:
        """``single^2 / whole^2``: 1 where components are alike; ``|A|_F^2 / |A|_2^2`` of a matrix game."""
        return max((self.single / self.whole) ** 2, 1.0)

    @property
    def predicted_gain(self) -> float:
        """Evaluations of restarted `PDHG` over those of restarted variance-reduced methods on a bilinear game.

        ``0.25 sqrt(n / (stable rank + 1))``, and the root of two less where a difference takes two evaluations. The
        power is theory's; gains measured on games of 50 to 300 components lie a factor of 1.3 below in the median.
        Below 1 sampling loses. Against anchored methods, which need about twice PDHG's evaluations, it pays earlier.
        """
        return 0.25 * math.sqrt(self.count / (self.evaluations * (self.stable_rank + 1.0)))

    @property
    def batch(self) -> int:
        """The largest batch that costs nothing, the stable rank; at most the root of n."""
        return min(max(round(self.stable_rank), 1), math.ceil(math.sqrt(self.count)))

    def lipschitz(self, batch: int) -> float:
        """The root mean square constant of batches: single draws averaged."""
        if batch >= self.count:
            return self.whole
        return math.sqrt((1.0 - 1.0 / batch) * self.whole**2 + self.single**2 / batch)
