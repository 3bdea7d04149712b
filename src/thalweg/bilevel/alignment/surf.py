"""PEBBLE that also learns from pairs nobody has labelled.

Park, Seo, Shin, Lee, Abbeel and Lee (2022), "SURF" (arXiv 2203.10050).
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor
from torch.nn import functional

from thalweg.bilevel.alignment.pebble import PEBBLE, cross_entropy, drawn_pieces, members_ahead
from thalweg.bilevel.alignment.problem import PreferenceTask
from thalweg.bilevel.alignment.segments import Segments
from thalweg.core.validation import is_real, require, require_counts, require_positive


@dataclass(frozen=True)
class SURF(PEBBLE):
    """`PEBBLE` that learns from unlabelled pairs too, where it is sure, and from pieces of the labelled ones.

    Args:
        confidence: pairs whose preference probability, by a member, is above it get that label. Default 0.95.
        weight: of their loss. Default 1.
        ratio: unlabelled pairs for each labelled one. Default 1.
        crop: pieces are cut to a length up to this many steps shorter, each side from a place of its own. Default 5.

    The other options are `PEBBLE`'s.
    """

    confidence: float = 0.95
    weight: float = 1.0
    ratio: int = 1
    crop: int = 5

    def __post_init__(self) -> None:
        super().__post_init__()
        likely = is_real(self.confidence) and 0.5 <= self.confidence < 1
        require(likely, "SURF needs confidence in [0.5, 1)", got=self.confidence)
        require_positive(self, "weight", zero=True)
        require_counts(self, "ratio")
        require_counts(self, "crop", least=0)

    def _loss(
        self,
        problem: PreferenceTask,
        nu: Tensor,
        buffer: Segments,
        first: Segments,
        second: Segments,
        targets: Tensor,
        rng: np.random.Generator,
    ) -> Tensor:
        L = problem.length
        short = L - int(rng.integers(min(self.crop, L - 1) + 1))
        a, b = (_cropped(side, short, rng) for side in (first, second))
        loss = cross_entropy(members_ahead(problem, nu, a, b), targets)
        n = self.ratio * len(targets)
        nothing = np.zeros(buffer.lived.shape)
        c, d = (drawn_pieces(buffer, nothing, n, L, rng)[0] for _ in range(2))
        with torch.no_grad():
            chance = torch.sigmoid(members_ahead(problem, nu.detach(), c, d))
        sure = torch.maximum(chance, 1.0 - chance) > self.confidence
        cut, dut = (_cropped(side, short, rng) for side in (c, d))
        each = functional.binary_cross_entropy_with_logits(
            members_ahead(problem, nu, cut, dut), chance.round(), reduction="none"
        )
        return loss + self.weight * (each * sure).sum(1).sum() / n


def _cropped(side: Segments, length: int, rng: np.random.Generator) -> Segments:
    starts = rng.integers(side.length - length + 1, size=len(side))
    at = (np.arange(len(side))[:, None], starts[:, None] + np.arange(length))
    return Segments(side.observations[at], side.actions[at], side.lived[at])
