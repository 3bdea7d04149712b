"""Whether sampling components pays, told before a run from two Lipschitz constants."""

from __future__ import annotations

import math
from dataclasses import dataclass

#: Of the predicted gain: a fit to free bilinear games of 100 to 2000 rows with the singular values i^-a, a up to 1.5.
GAIN = 0.18


@dataclass(frozen=True)
class SamplingReport:
    """What `MonotoneInclusion.sampling` tells.

    Args:
        count: n, components.
        whole: L_F, Lipschitz constant of F.
        average: L_1, root mean square Lipschitz constant of one component, as components are drawn.
        stable_rank: ``(L_1 / L_F)^2``, at least 1; ``(|A|_F / |A|_2)^2`` of a bilinear game.

    >>> report = SamplingReport(count=900, whole=1.0, average=2.0, stable_rank=4.0)
    >>> report.batch, round(report.of_batch(4), 2), round(report.predicted_gain, 2)
    (4, 1.32, 2.41)
    """

    count: int
    whole: float
    average: float
    stable_rank: float

    @property
    def batch(self) -> int:
        """Components to draw at once: the stable rank, at most the root of n.

        Up to it a larger batch takes no more evaluations; from there on the root of it more.
        """
        return max(1, min(round(self.stable_rank), math.ceil(math.sqrt(self.count))))

    @property
    def predicted_gain(self) -> float:
        """Evaluations of the best method without sampling over those with it, about ``c sqrt(n / (stable rank + 1))``.

        Without sampling: restarted `PDHG` for bilinear games, else one evaluation of F a step. Below 1 sampling does
        not pay. By the clock it pays later, where a product with all of F is one call.
        """
        return GAIN * math.sqrt(self.count / (self.stable_rank + 1.0))

    def of_batch(self, size: int) -> float:
        """L_b, root mean square Lipschitz constant of batches: ``L_b^2 = (1 - 1/b) L_F^2 + L_1^2 / b``."""
        if size >= self.count:
            return self.whole
        return math.sqrt((1.0 - 1.0 / size) * self.whole**2 + self.average**2 / size)

    def __str__(self) -> str:
        """One line."""
        advice = "sampling pays" if self.predicted_gain >= 1.0 else "sampling does not pay"
        return (
            f"{self.count} components, stable rank {self.stable_rank:.3g}, predicted gain "
            f"{self.predicted_gain:.2g}: {advice}"
        )
