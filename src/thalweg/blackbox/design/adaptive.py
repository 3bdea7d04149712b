"""How much of the backward loss, and how long a step: set on the way by what a second model says."""

from __future__ import annotations

import math
from dataclasses import dataclass

import torch
from torch import Tensor

from thalweg.core.validation import is_real, require, require_positive


def moments_step(gradient: Tensor, first: Tensor, second: Tensor, t: int) -> tuple[Tensor, Tensor, Tensor]:
    """Adam's direction, and its two moments, after gradient ``t``, from 1."""
    first = torch.lerp(first, gradient, 0.1)
    second = torch.lerp(second, gradient * gradient, 1e-3)
    direction = (first / (1 - 0.9**t)) / ((second / (1 - 0.999**t)).sqrt() + 1e-8)
    return direction, first, second


def inner(a: Tensor, b: Tensor) -> Tensor:
    """The inner product of each design's logits, shape (batch,)."""
    return (a * b).flatten(1).sum(1)


@dataclass(frozen=True)
class AdaptiveGamma:
    """The weight of the forward loss, each design's own, raised where an auxiliary model gains by it.

    A step ``theta - eta (gamma g_f + (1 - gamma) g_b)`` changes the auxiliary score F of the new design by
    ``dF/dgamma = -eta grad F . (g_f - g_b)``, which Adam ascends. That is exact for one plain gradient step and grad F
    at the new design; here grad F is taken at the old one and logits move by Adam: an approximation, as in the paper.

    Args:
        start: first gamma, default 0.5. step_size: default 0.1. Gamma is kept between 0 and 1.

    Source: Chen et al. (2023), arXiv 2301.02931, section 3.3.
    """

    start: float = 0.5
    step_size: float = 0.1

    def __post_init__(self) -> None:
        inside = is_real(self.start) and 0 <= self.start <= 1
        require(inside, "AdaptiveGamma needs 0 <= start <= 1", got=self.start)
        usable = is_real(self.step_size) and 0 < self.step_size < math.inf
        require(usable, "AdaptiveGamma needs step_size > 0", got=self.step_size)

    @staticmethod
    def hypergradient(eta: Tensor | float, score: Tensor, forward: Tensor, backward: Tensor) -> Tensor:
        """``dF/dgamma`` of each design from gradients in its logits, shape (batch,)."""
        return -eta * inner(score, forward - backward)

    def ascended(
        self, gamma: Tensor, slope: Tensor, first: Tensor, second: Tensor, t: int
    ) -> tuple[Tensor, Tensor, Tensor]:
        """Gamma and its moments after one step of Adam."""
        direction, first, second = moments_step(slope, first, second, t)
        return (gamma + self.step_size * direction).clamp(0, 1), first, second


@dataclass(frozen=True)
class AdaptiveEta:
    """The length of a step, each design's own, longer where the auxiliary score rises along it.

    ``eta = clamp(centre - rate grad F . d, least, most)`` with Adam's direction d, along which logits go by ``-eta d``.
    It is always around the centre and is not accumulated. F is standardised here. Wraps any descent in letters.

    Args:
        centre: default 0.1. rate: default 0.01. least, most: default 1e-4 and 0.5.

    Source: Chen et al. (2023), arXiv 2301.02931, appendix.
    """

    centre: float = 0.1
    rate: float = 0.01
    least: float = 1e-4
    most: float = 0.5

    def __post_init__(self) -> None:
        require_positive(self, "least", "centre", "most")
        require_positive(self, "rate", zero=True)
        ordered = self.least <= self.centre <= self.most
        require(ordered, "AdaptiveEta needs 0 < least <= centre <= most", got=self)

    def length(self, score: Tensor, direction: Tensor) -> Tensor:
        """The step sizes, shape (batch,), from the score's gradient and the direction, in the logits."""
        return (self.centre - self.rate * inner(score, direction)).clamp(self.least, self.most)
