"""Denoising diffusion null-space model: the denoised image keeps its null-space part and takes its range from the data.

Wang, Yu and Zhang (2023), "Zero-shot image restoration using denoising diffusion null-space model", equations 13 and
17 to 19.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import torch
from torch import Tensor

from thalweg.inverse.diffusion import Diffusion, DiffusionState, Levels
from thalweg.inverse.problem import InverseProblem
from thalweg.numerics.tensor_checks import divisor


@dataclass(frozen=True, eq=False)
class DDNM(Diffusion):
    """``x0 + A^+ (y - A x0)`` at each time; with noise, singular values are corrected no more than the noise allows.

    Use it where the pseudo-inverse is exact and cheap: inpainting, blur, fewer pixels, one coil, small tomography. With
    noise it needs a singular value decomposition.

    Args:
        denoiser, operator, steps, eta, schedule, seeds: as for `Diffusion`.
        cutoff: singular values below this share of the largest count as zero; default 1e-3.

    Raises:
        InvalidProblem: noise, and an operator without a decomposition; what `Diffusion` says.

    Cost per step: one evaluation of the denoiser and one pseudo-inverse.

    >>> from thalweg.inverse import GaussianPrior, Inpainting
    >>> prior = GaussianPrior(torch.zeros(2, 2), torch.eye(4))
    >>> DDNM(prior, Inpainting(torch.ones(2, 2)), steps=5).solve(torch.ones(2, 2)).metrics
    {'residual': 0.0}
    """

    cutoff: float = 1e-3

    def consistent(
        self, problem: InverseProblem, state: DiffusionState, x0: Tensor, now: Levels
    ) -> tuple[Tensor, dict[str, Tensor]]:
        A = problem.operator
        if problem.sigma == 0:
            return x0 + A.pinv(problem.data - A._forward(x0), self.cutoff), {}
        svd = A.svd()
        s = svd.values.to(x0.device, x0.real.dtype)
        keep = s > self.cutoff * s.max()
        bound = now.next_signal * problem.sigma / divisor(s)  # noise of a full correction
        share = torch.where(keep, (now.next_noise / divisor(bound)).clamp(max=1.0), 0)
        if now.next_noise == 0:
            share = torch.where(keep, last_share(now, problem.sigma, s), 0)
        gap = torch.where(keep, svd.measured(problem.data - A._forward(x0)) / divisor(s), 0)
        return x0 + A.real_if_real(svd.back(share * gap)), {}

    def renoised(
        self, problem: InverseProblem, state: DiffusionState, x0: Tensor, eps: Tensor, now: Levels
    ) -> Tensor:
        if problem.sigma == 0 or now.next_noise == 0:
            return super().renoised(problem, state, x0, eps, now)
        A, svd = problem.operator, problem.operator.svd()
        s = svd.values.to(x0.device, x0.real.dtype)
        keep = s > self.cutoff * s.max()
        carried = torch.where(keep, now.next_signal * problem.sigma / divisor(s), 0)
        # the data's own noise is in the image already: what is added makes up for the rest
        left = (1 - (carried / now.next_noise).clamp(max=1.0) ** 2).sqrt()
        z = self.drawn(x0, state.seeds, state.done + 1)
        mixed = svd.into(self.eta * z + math.sqrt(1 - self.eta**2) * eps)
        return now.next_signal * x0 + now.next_noise * A.real_if_real(svd.back(left * mixed))


def last_share(now: Levels, sigma: float, s: Tensor) -> Tensor:
    """Of the last step, which adds no noise: the share of a correction whose noise the denoised image's would be."""
    own = now.noise / now.signal
    return own**2 / (own**2 + (sigma / divisor(s)) ** 2)
