"""A box around the best point that grows with success and shrinks without.

Eriksson, Pearce, Gardner, Turner and Poloczek (2019), "Scalable global optimization via local Bayesian optimization".
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

#: Side of the box at first, at most, and the least before it opens again; successes before it doubles.
FIRST, LARGEST, SMALLEST, SUCCESSES = 0.8, 1.6, 0.5**7, 3


@dataclass
class TrustRegion:
    """The state of one box; values are to be maximised.

    Args:
        dimension: of the cube.
    """

    dimension: int
    side: float = FIRST
    successes: int = 0
    failures: int = 0
    best: float = -torch.inf

    def see(self, value: float) -> None:
        """Take in one more value."""
        margin = 1e-3 * abs(self.best) if self.best > -torch.inf else 0.0
        if value > self.best + margin:
            self.successes, self.failures = self.successes + 1, 0
        else:
            self.successes, self.failures = 0, self.failures + 1
        self.best = max(self.best, value)
        if self.successes == SUCCESSES:
            self.side, self.successes = min(2.0 * self.side, LARGEST), 0
        elif self.failures >= max(4, self.dimension):
            self.side, self.failures = self.side / 2.0, 0
        if self.side < SMALLEST:
            self.side = FIRST

    def box(self, center: Tensor, lengthscales: Tensor) -> tuple[Tensor, Tensor]:
        """Low and high corner, long in the coordinates along which the function changes slowly."""
        shape = lengthscales / torch.exp(torch.log(lengthscales).mean())
        half = 0.5 * self.side * shape.clamp(0.1, 10.0)
        return (center - half).clamp(0.0, 1.0), (center + half).clamp(0.0, 1.0)

    def state_dict(self) -> dict[str, float]:
        """Plain data."""
        return dict(vars(self))

    def load_state_dict(self, state: dict[str, float]) -> None:
        """Inverse of `state_dict`."""
        vars(self).update(state)
