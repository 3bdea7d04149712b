"""Anderson acceleration for the inner problem."""

from __future__ import annotations

from dataclasses import dataclass, replace
from itertools import pairwise

import torch
from torch import Tensor

from thalweg.bilevel.composite import Composite, InnerMethod, InnerState
from thalweg.core.validation import require_counts, require_positive


@dataclass(kw_only=True)
class AndersonState(InnerState):
    """As `InnerState`, with the last few images of the map, and how far each was from its point."""

    images: list[Tensor]  # each (size of x,)
    gaps: list[Tensor]


@dataclass(frozen=True)
class Anderson(InnerMethod[AndersonState]):
    """Anderson acceleration of proximal gradient steps (Walker and Ni, 2011): the best mix of the last few.

    Args:
        step_size: of the map that is accelerated; at most one over f's curvature.
        depth: how many earlier points are mixed.
        ridge: of the least-squares problem, relative to its size.

    Cost per step: one gradient, one proximal operator, depth^2 n operations.

    >>> from thalweg import Stop, solve
    >>> A = torch.diag(torch.tensor([1.0, 10.0, 100.0]))
    >>> problem = Composite(lambda x, b: 0.5 * x @ A @ x - b @ x, torch.zeros(3), torch.ones(3))
    >>> solve(problem, Anderson(0.01), stop=Stop(below={"residual": 1e-5})).steps < 20
    True
    """

    step_size: float
    depth: int = 5
    ridge: float = 1e-10

    def __post_init__(self) -> None:
        require_positive(self, "step_size")
        require_counts(self, "depth")
        require_positive(self, "ridge", zero=True)

    def init(self, problem: Composite, seed: int) -> AndersonState:
        return AndersonState(**vars(self._begun(problem)), images=[], gaps=[])

    def step(self, problem: Composite, state: AndersonState) -> AndersonState:
        gradient, value = problem.gradient(state.at)
        image = problem.proximal(state.at - self.step_size * gradient, self.step_size)
        gap = image - state.at
        images = [*state.images, image][-self.depth - 1 :]
        gaps = [*state.gaps, gap][-self.depth - 1 :]
        new = image
        if len(gaps) > 1:
            changes = torch.stack([b - a for a, b in pairwise(gaps)])
            gram = changes @ changes.T
            # square and definite: least squares would square its condition in the derivative
            level = self.ridge * gram.diagonal().max() + torch.finfo(gram.dtype).tiny
            gram = gram + level * torch.eye(len(gram), dtype=gram.dtype, device=gram.device)
            weights = torch.linalg.solve(gram, changes @ gap)
            new = image - weights @ torch.stack([b - a for a, b in pairwise(images)])
        after = replace(state, images=images, gaps=gaps)
        return self._moved(problem, after, new, value, gap.abs().max() / self.step_size)
