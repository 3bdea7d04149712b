"""DiffPIR: plug-and-play restoration, the data step a proximal map.

Zhu et al. (2023), "Denoising diffusion models for plug-and-play image restoration", algorithm 1.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

from torch import Tensor

from thalweg.core.validation import is_real, is_whole, require
from thalweg.inverse.conjugate import batched_cg
from thalweg.inverse.diffusion import Diffusion, DiffusionState, Levels
from thalweg.inverse.problem import InverseProblem

#: Noise, as a share of |y| over the root of its numbers, that stands in where a problem has none.
LEAST = 1e-3


@dataclass(frozen=True, eq=False)
class DiffPIR(Diffusion):
    """The x with the smallest ``|y - A x|^2 / (2 sigma^2) + weight |x - x0|^2 / (2 r^2)``, r the noise over the signal.

    The weight of the data rises from time to time by itself; `DDS` keeps it and cuts the solve short instead.

    Args:
        denoiser, operator, steps, schedule, seeds: as for `Diffusion`.
        eta: share of new noise; the rest is the noise that the restored image leaves. Default 0.85.
        weight: of the denoised image; default 8.
        cg: conjugate gradient steps of the proximal map; default 20.

    Raises:
        InvalidParameter: weight or cg out of range. InvalidProblem: what `Diffusion` says.

    Cost per step: one evaluation of the denoiser, at most ``cg + 1`` products with A and its adjoint.

    >>> from thalweg.inverse import GaussianPrior, Inpainting
    >>> import torch
    >>> prior = GaussianPrior(torch.zeros(2, 2), torch.eye(4))
    >>> DiffPIR(prior, Inpainting(torch.ones(2, 2)), steps=5).solve(torch.ones(2, 2)).converged
    True
    """

    weight: float = 8.0
    cg: int = 20

    def __post_init__(self) -> None:
        super().__post_init__()
        fits = is_real(self.weight) and 0 < self.weight < math.inf
        require(fits, "DiffPIR needs weight > 0, finite", got=self.weight)
        require(is_whole(self.cg) and self.cg >= 1, "DiffPIR needs cg >= 1", got=self.cg)

    def consistent(
        self, problem: InverseProblem, state: DiffusionState, x0: Tensor, now: Levels
    ) -> tuple[Tensor, dict[str, Tensor]]:
        A = problem.operator
        size = float(problem.data.abs().square().mean()) ** 0.5
        sigma = max(problem.sigma, LEAST * size) or LEAST
        rate = (now.noise / now.signal / sigma) ** 2 / self.weight
        right = x0 + rate * A._adjoint_of(problem.data)
        return batched_cg(lambda p: p + rate * A.gram(p), right, x0, steps=self.cg, tol=1e-4).x, {}

    def renoised(
        self, problem: InverseProblem, state: DiffusionState, x0: Tensor, eps: Tensor, now: Levels
    ) -> Tensor:
        left = (state.noisy - now.signal * x0) / now.noise
        return super().renoised(problem, state, x0, left, now)
