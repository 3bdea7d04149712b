"""Posterior sampling through the network's gradient: DPS, and MCG with a projection.

Chung et al. (2023), "Diffusion posterior sampling for general noisy inverse problems", algorithm 1; Chung, Sim, Ryu and
Ye (2022), "Improving diffusion models for inverse problems using manifold constraints".
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import torch
from torch import Tensor

from thalweg.core.validation import is_real, require
from thalweg.inverse.denoisers import noise_in
from thalweg.inverse.diffusion import Diffusion, DiffusionState, Levels
from thalweg.inverse.problem import InverseProblem
from thalweg.numerics.tensor_checks import divisor


@dataclass(frozen=True, eq=False)
class DPS(Diffusion):
    """An unconditional step, less the gradient of ``|y - A x0(x_t)|`` with respect to x_t.

    It differentiates the denoiser and needs about a thousand steps; `DDS` needs neither. A baseline, and for operators
    that are barely linear.

    Args:
        denoiser, operator, schedule, seeds: as for `Diffusion`.
        steps: default 1 000.
        eta: of DDIM; default 1, ancestral sampling.
        step_size: of the gradient, in units of ``1 / |A|``; default 1.

    Raises:
        InvalidParameter: step_size <= 0. InvalidProblem: what `Diffusion` says.

    Cost per step: the denoiser's value and gradient, one product with A and one with its adjoint.

    >>> from thalweg.inverse import GaussianPrior, Inpainting
    >>> prior = GaussianPrior(torch.zeros(2, 2), torch.eye(4))
    >>> DPS(prior, Inpainting(torch.ones(2, 2)), steps=100).solve(torch.ones(2, 2)).steps
    100
    """

    steps: int = 1000
    eta: float = 1.0
    step_size: float = 1.0

    def __post_init__(self) -> None:
        super().__post_init__()
        fits = is_real(self.step_size) and 0 < self.step_size < math.inf
        require(fits, f"{type(self).__name__} needs step_size > 0, finite", got=self.step_size)

    def consistent(
        self, problem: InverseProblem, state: DiffusionState, x0: Tensor, now: Levels
    ) -> tuple[Tensor, dict[str, Tensor]]:
        """The estimate is the denoised image: the data enter by the gradient alone."""
        return x0, {}

    def step(self, problem: InverseProblem, state: DiffusionState) -> DiffusionState:
        now, A = self.now(state.done), problem.operator
        noisy = state.noisy.detach().requires_grad_(True)
        with torch.enable_grad():
            eps = noise_in(self.denoiser, noisy, now.t, A)
            x0 = (noisy - now.noise * eps) / now.signal
        with torch.no_grad():
            gap = problem.data - A._forward(x0.detach())
            size = divisor(torch.linalg.vector_norm(gap.flatten(1), dim=1))
            pull = A._adjoint_of(gap) / size.view(-1, *(1,) * (x0.ndim - 1))
        (slope,) = torch.autograd.grad(x0, noisy, pull)
        with torch.no_grad():
            x0, eps = x0.detach(), eps.detach()
            fresh = self._unconditional(state, x0, eps, now)
            going = fresh + self.step_size / A.norm() * slope
            x0, going = self.projected(problem, state, x0, going, now)
        return self.advanced(problem, state, x0, going, {})

    def projected(
        self, problem: InverseProblem, state: DiffusionState, x0: Tensor, going: Tensor, now: Levels
    ) -> tuple[Tensor, Tensor]:
        """The estimate and what goes on, as they are; the last step's answer has its gradient step too."""
        return (going if now.next_noise == 0 else x0), going

    def _unconditional(self, state: DiffusionState, x0: Tensor, eps: Tensor, now: Levels) -> Tensor:
        """A step of DDIM."""
        ratio = now.signal / now.next_signal
        variance = max(now.noise**2 - (ratio * now.next_noise) ** 2, 0.0)
        sigma = self.eta * now.next_noise / now.noise * math.sqrt(variance)
        kept = math.sqrt(max(now.next_noise**2 - sigma**2, 0.0))
        z = self.drawn(x0, state.seeds, state.done + 1)
        return now.next_signal * x0 + kept * eps + sigma * z


@dataclass(frozen=True, eq=False)
class MCG(DPS):
    """`DPS`, and what goes on is projected onto data with as much noise as the time has.

    Without noise in the data its answer meets them; with noise in the data it takes that noise for truth.

    Args:
        denoiser, operator, steps, eta, schedule, seeds, step_size: as for `DPS`.
        cutoff: of the pseudo-inverse; default 1e-3.

    Cost per step: as `DPS`, and one pseudo-inverse.

    >>> from thalweg.inverse import GaussianPrior, Inpainting
    >>> prior = GaussianPrior(torch.zeros(2, 2), torch.eye(4))
    >>> MCG(prior, Inpainting(torch.ones(2, 2)), steps=20).solve(torch.ones(2, 2)).metrics
    {'residual': 0.0}
    """

    cutoff: float = 1e-3

    def projected(
        self, problem: InverseProblem, state: DiffusionState, x0: Tensor, going: Tensor, now: Levels
    ) -> tuple[Tensor, Tensor]:
        A = problem.operator
        wanted = now.next_signal * problem.data
        if now.next_noise > 0:
            z = self.drawn(x0, state.seeds, self.steps + state.done + 1)  # a stream of its own
            wanted = wanted + now.next_noise * A._forward(z)
        going = going + A.pinv(wanted - A._forward(going), self.cutoff)
        return (going if now.next_noise == 0 else x0), going
