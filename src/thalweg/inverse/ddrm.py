"""Denoising diffusion restoration model: the chain runs in the operator's singular vectors.

Kawar, Elad, Ermon and Song (2022), "Denoising diffusion restoration models", equations 7 and 8.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import torch
from torch import Tensor

from thalweg.core.validation import is_real, require
from thalweg.inverse.diffusion import Diffusion, DiffusionState, Levels
from thalweg.inverse.problem import InverseProblem
from thalweg.numerics.tensor_checks import divisor


@dataclass(frozen=True, eq=False)
class DDRM(Diffusion):
    """Each singular direction gets from the data what the noise there allows, and the rest from the denoiser.

    Use it with noise, where the operator has a singular value decomposition: inpainting, blur, fewer pixels, one coil,
    small tomography.

    Args:
        denoiser, operator, steps, eta, schedule, seeds: as for `Diffusion`; 20 steps are the paper's.
        data_share: weight of the data where they are better than the current time, in [0, 1]; default 1.
        cutoff: singular values below this share of the largest count as zero; default 1e-3.

    Raises:
        InvalidProblem: an operator without a decomposition; what `Diffusion` says.

    Cost per step: one evaluation of the denoiser, two products with V.

    >>> from thalweg.inverse import GaussianPrior, Inpainting
    >>> prior = GaussianPrior(torch.zeros(2, 2), torch.eye(4))
    >>> DDRM(prior, Inpainting(torch.ones(2, 2)), steps=5).solve(torch.ones(2, 2)).converged
    True
    """

    data_share: float = 1.0
    cutoff: float = 1e-3

    def __post_init__(self) -> None:
        super().__post_init__()
        fits = is_real(self.data_share) and 0 <= self.data_share <= 1
        require(fits, "DDRM needs 0 <= data_share <= 1", got=self.data_share)

    def init(self, problem: InverseProblem, seed: int) -> DiffusionState:
        state = super().init(problem, seed)
        first = self.now(0)
        level, ratio, spread = self._spectrum(problem, first.noise / first.signal)
        z = problem.operator.svd().into(self.drawn(state.noisy, state.seeds, 0))
        start = torch.where(
            level > spread, spread * z, ratio + (spread**2 - level**2).clamp(min=0).sqrt() * z
        )
        state.noisy = first.signal * self._image(problem, start)
        return state

    def consistent(
        self, problem: InverseProblem, state: DiffusionState, x0: Tensor, now: Levels
    ) -> tuple[Tensor, dict[str, Tensor]]:
        """The last time's image: the data, where they are better than what is denoised; shrunk to them elsewhere."""
        level, ratio, own = self._spectrum(problem, now.noise / now.signal)
        c = problem.operator.svd().into(x0)
        trust = self.data_share * own**2 / (own**2 + level**2)
        return self._image(problem, c + trust * (ratio - c)), {}

    def renoised(
        self, problem: InverseProblem, state: DiffusionState, x0: Tensor, eps: Tensor, now: Levels
    ) -> Tensor:
        if now.next_noise == 0:
            return now.next_signal * x0
        svd = problem.operator.svd()
        level, ratio, spread = self._spectrum(problem, now.next_noise / now.next_signal)
        denoised = (state.noisy - now.noise * eps) / now.signal
        c, z = svd.into(denoised), svd.into(self.drawn(x0, state.seeds, state.done + 1))
        old = math.sqrt(1 - self.eta**2)
        unseen = c + spread * (old * svd.into(eps) + self.eta * z)
        noisier = c + spread * (old * (ratio - c) / divisor(level) + self.eta * z)
        b = self.data_share
        better = (1 - b) * c + b * ratio + (spread**2 - (b * level) ** 2).clamp(min=0).sqrt() * z
        found = torch.where(torch.isinf(level), unseen, torch.where(level > spread, noisier, better))
        return now.next_signal * self._image(problem, found)

    def _spectrum(self, problem: InverseProblem, spread: float) -> tuple[Tensor, Tensor, Tensor]:
        """The data's noise in each direction (infinite where it is not seen), the data there, and a noise level."""
        svd = problem.operator.svd()
        s = svd.values.to(problem.data.device, problem.data.real.dtype)
        keep = s > self.cutoff * s.max()
        safe = divisor(s)
        level = torch.where(keep, problem.sigma / safe, math.inf)
        ratio = torch.where(keep, svd.measured(problem.data) / safe, 0)
        return level, ratio, torch.full_like(s, spread)

    def _image(self, problem: InverseProblem, c: Tensor) -> Tensor:
        return problem.operator.real_if_real(problem.operator.svd().back(c))
