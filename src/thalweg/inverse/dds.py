"""The decomposed diffusion sampler: a few conjugate gradient steps on the denoised image, and no backpropagation.

Chung, Lee and Ye (2024), "Decomposed diffusion sampler for accelerating large-scale inverse problems" (arXiv
2303.05754), algorithms 1 to 4.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import cast

import torch
from torch import Tensor

from thalweg.core import InvalidProblem
from thalweg.core.validation import is_real, is_whole, require
from thalweg.inverse.conjugate import batched_cg
from thalweg.inverse.diffusion import Diffusion, DiffusionState, Levels
from thalweg.inverse.problem import InverseProblem
from thalweg.numerics.tensor_checks import divisor


@dataclass(kw_only=True)
class DDSState(DiffusionState):
    """`DiffusionState`, with the splitting of the differences along z; empty without total variation."""

    split: Tensor  # w, shape of a batch of volumes
    dual: Tensor  # u


@dataclass(frozen=True, eq=False)
class DDS(Diffusion):
    """Denoise, take a few conjugate gradient steps towards the data from there, add noise again.

    Use it where A and its adjoint are all that is known of the measurement, and an unconditional denoiser of such
    images is there: tomography and magnetic resonance with few measurements. With an exact pseudo-inverse and no noise
    `DDNM` is as good. Quality is the denoiser's: it is no use for images unlike those that it has learned.

    Args:
        denoiser, operator, steps, eta, schedule, seeds: as for `Diffusion`. 50 steps and eta 0.85 by default; 20 steps
            lose little.
        cg: conjugate gradient steps at each time; default 5. An image stops by itself once its residual is rounding.
        gamma: weight of the data against the denoised image where there is noise, in units of ``1 / |A|^2``: steps go
            to the solution of ``(I + gamma A^H A / |A|^2) x = x0 + gamma A^H y / |A|^2``. Default 10. Large for little
            noise; without noise it is not used, and steps go to ``A^H A x = A^H y``.
        tv: of volumes: weight of the total variation along z, in units of A scaled to norm one; one sweep of ADMM at
            each time, kept from time to time. Default 0: slices do not know of one another.
        rho: penalty of that ADMM, in the same units; default 0.02. Differences below ``tv / rho`` are flattened.

    Images are in the range that the denoiser has learned, [-1, 1] for most; scale y so that they are. Complex images
    are two channels of the denoiser. The run ends CONVERGED if the residual is that of the noise.

    Raises:
        InvalidParameter: cg, gamma, tv or rho out of range. InvalidProblem: tv on images that are no volumes; an
        operator whose adjoint is not exact, when conjugate gradients break down; what `Diffusion` says.

    Cost per step: one evaluation of the denoiser, ``cg + 1`` products with A and its adjoint; memory for five images.

    >>> import torch
    >>> from thalweg.inverse import DDS
    >>> from thalweg.inverse import GaussianPrior, Inpainting
    >>> prior = GaussianPrior(torch.zeros(4, 4), torch.ones(16, 16) + 0.01 * torch.eye(16))  # nearly constant images
    >>> mask = torch.zeros(4, 4)
    >>> mask[:, :2] = 1
    >>> result = DDS(prior, Inpainting(mask), steps=20).solve(0.5 * mask.double())
    >>> result.converged, bool((result.x - 0.5).abs().max() < 0.3)
    (True, True)
    """

    cg: int = 5
    gamma: float = 10.0
    tv: float = 0.0
    rho: float = 0.02

    def __post_init__(self) -> None:
        super().__post_init__()
        require(is_whole(self.cg) and self.cg >= 1, "DDS needs cg >= 1", got=self.cg)
        for name in ("gamma", "rho"):
            value = getattr(self, name)
            require(is_real(value) and 0 < value < math.inf, f"DDS needs {name} > 0, finite", got=value)
        require(is_real(self.tv) and 0 <= self.tv < math.inf, "DDS needs tv >= 0, finite", got=self.tv)

    def init(self, problem: InverseProblem, seed: int) -> DDSState:
        if self.tv > 0 and problem.operator.layout != "slices":
            raise InvalidProblem(
                f"DDS: tv flattens along the depth of volumes; the images have shape {problem.operator.image_shape}. "
                "Measure volumes by a SliceStack, or leave tv out."
            )
        require(
            problem.operator.norm() > 0,
            "DDS: the operator is zero: nothing is measured",
            error=InvalidProblem,
        )
        return cast(DDSState, super().init(problem, seed))

    def _state(self, x: Tensor, noisy: Tensor, seeds: tuple[int, ...]) -> DDSState:
        empty = torch.zeros_like(noisy) if self.tv > 0 else noisy[:, :0]
        return DDSState(x=x, noisy=noisy, seeds=seeds, split=empty, dual=empty.clone())

    def consistent(
        self, problem: InverseProblem, state: DiffusionState, x0: Tensor, now: Levels
    ) -> tuple[Tensor, dict[str, Tensor]]:
        A, scale = problem.operator, problem.operator.norm() ** -2
        right = scale * A._adjoint_of(problem.data)
        if self.tv > 0:
            return self._flattened(problem, cast(DDSState, state), x0, right, scale)
        if problem.sigma > 0:
            x = batched_cg(
                lambda p: p + self.gamma * scale * A.gram(p), x0 + self.gamma * right, x0, steps=self.cg
            ).x
        else:
            x = batched_cg(lambda p: scale * A.gram(p), right, x0, steps=self.cg).x
        return x, {}

    def _flattened(
        self, problem: InverseProblem, state: DDSState, x0: Tensor, right: Tensor, scale: float
    ) -> tuple[Tensor, dict[str, Tensor]]:
        """One sweep of ADMM (section 4.3): ``A^T A x + rho D^T D x = A^T y + rho D^T (w - u)``, D periodic along z."""
        A, rho, w, u = problem.operator, self.rho, state.split, state.dual
        x = batched_cg(
            lambda p: scale * A.gram(p) + rho * difference_adjoint(difference(p)),
            right + rho * difference_adjoint(w - u),
            x0,
            steps=self.cg,
        ).x
        Dx = difference(x)
        w = shrunk(Dx + u, self.tv / rho)
        return x, {"split": w, "dual": u + Dx - w}


def difference(x: Tensor) -> Tensor:
    """``x_{z+1} - x_z`` of volumes (batch, depth, ...), the first slice after the last."""
    return x.roll(-1, 1) - x


def difference_adjoint(w: Tensor) -> Tensor:
    """The adjoint of `difference`."""
    return w.roll(1, 1) - w


def shrunk(w: Tensor, by: float) -> Tensor:
    """Magnitudes less ``by``, zero where they are smaller."""
    size = w.abs()
    return torch.where(size > by, w * (1 - by / divisor(size)), 0)
