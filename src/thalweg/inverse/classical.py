"""Reconstruction without a prior: pseudo-inverse, filtered back-projection, conjugate gradients from zero.

Pruessmann et al. (2001), "Advances in sensitivity encoding with arbitrary k-space trajectories", for CG-SENSE; Kak and
Slaney (1988), "Principles of computerized tomographic imaging", section 3.3.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import torch
from torch import Tensor

from thalweg.core import InvalidProblem, Method, State, Status
from thalweg.core.validation import is_real, require, require_counts
from thalweg.inverse.conjugate import batched_cg
from thalweg.inverse.operators.radon import Radon
from thalweg.inverse.operators.slices import SliceStack
from thalweg.inverse.problem import InverseProblem


@dataclass(frozen=True)
class PseudoInverse(Method[InverseProblem, State]):
    """The image of least norm that fits the data best, in one step.

    Args:
        cutoff: singular values below this share of the largest count as zero; default 1e-3.

    Cost: a singular value decomposition where it has a fast form or the matrix is small; else 200 conjugate gradient
    steps.

    >>> from thalweg import solve
    >>> from thalweg.inverse import SuperResolution
    >>> solve(InverseProblem(SuperResolution((2, 2), 2), [[3.0]]), PseudoInverse()).x.round(decimals=6)
    tensor([[3., 3.],
            [3., 3.]], dtype=torch.float64)
    """

    cutoff: float = 1e-3

    def __post_init__(self) -> None:
        fits = is_real(self.cutoff) and 0 <= self.cutoff < 1
        require(fits, "PseudoInverse needs 0 <= cutoff < 1", got=self.cutoff)

    def init(self, problem: InverseProblem, seed: int) -> State:
        return State(
            x=problem.answer(problem.start()), metrics={"residual": problem.residual(problem.start())}
        )

    def step(self, problem: InverseProblem, state: State) -> State:
        return _done(problem, problem.operator.pinv(problem.data, self.cutoff), "The pseudo-inverse.")


@dataclass(frozen=True)
class FilteredBackProjection(Method[InverseProblem, State]):
    """The inversion formula of parallel tomography, discretised: a ramp filter and the adjoint, in one step.

    It is exact in the limit of many views, and streaks with few. Of a limited angle, only what is seen comes back.

    Raises:
        InvalidProblem: the operator is no `Radon`, nor a `SliceStack` of one.

    Cost: a Fourier transform a view and one adjoint.

    >>> from thalweg import solve
    >>> from thalweg.inverse import peak_signal_noise_ratio
    >>> from thalweg.inverse.phantoms import shepp_logan
    >>> A, image = Radon(32, 90), shepp_logan(32) + 1
    >>> peak_signal_noise_ratio(solve(InverseProblem(A, A.A(image)), FilteredBackProjection()).x, image) > 20
    True
    """

    def init(self, problem: InverseProblem, seed: int) -> State:
        _parallel(problem)
        return State(
            x=problem.answer(problem.start()), metrics={"residual": problem.residual(problem.start())}
        )

    def step(self, problem: InverseProblem, state: State) -> State:
        A, radon = problem.operator, _parallel(problem)
        detectors = radon.data_shape[1]
        filtered = ramp_filtered(problem.data, max(64, 2 ** math.ceil(math.log2(2 * detectors))))
        weight = math.radians(radon.span) / radon.data_shape[0] * min(1.0, 180.0 / radon.span)
        return _done(problem, weight * A._adjoint_of(filtered), "The views are filtered and put back.")


def _parallel(problem: InverseProblem) -> Radon:
    """The operator of a slice, where it measures along parallel rays."""
    A = problem.operator
    inner = A.operator if isinstance(A, SliceStack) else A
    if not isinstance(inner, Radon):
        raise InvalidProblem(
            f"FilteredBackProjection inverts parallel rays; the operator is a {type(inner).__name__}. Use TVADMM."
        )
    return inner


def ramp_filtered(y: Tensor, size: int) -> Tensor:
    """Rows filtered by the ramp, whose values in space keep the mean right (Kak and Slaney, equation 61)."""
    n = torch.arange(size)
    n = torch.minimum(n, size - n).double()
    kernel = torch.where(n % 2 == 1, -1 / (math.pi * n.clamp(min=1)) ** 2, 0.0)
    kernel[0] = 0.25
    response = torch.fft.rfft(kernel).real.to(y.device, y.dtype)
    return torch.fft.irfft(torch.fft.rfft(y, size, dim=-1) * response, size, dim=-1)[..., : y.shape[-1]]


@dataclass(kw_only=True)
class CGState(State):
    """``x`` in the form that y has, and as a batch."""

    batch: Tensor


@dataclass(frozen=True)
class CGSense(Method[InverseProblem, CGState]):
    """Conjugate gradients from zero on ``(A^H A / |A|^2 + ridge I) x = A^H y / |A|^2``; of any operator.

    Args:
        ridge: default 0. With noise, either a ridge or few steps.
        cg: conjugate gradient steps a step, restarted; default 10.
        tol: the run ends CONVERGED at this relative residual of the normal equations; default 1e-4.

    Raises:
        InvalidParameter: one of them out of range.

    Cost per step: ``cg + 1`` products with A and its adjoint.

    >>> from thalweg import solve
    >>> from thalweg.inverse import Blur
    >>> A = Blur((4, 4), [[0.2, 0.6, 0.2]])
    >>> torch.allclose(solve(InverseProblem(A, A.A(torch.eye(4))), CGSense(tol=1e-6)).x, torch.eye(4), atol=1e-4)
    True
    """

    ridge: float = 0.0
    cg: int = 10
    tol: float = 1e-4

    def __post_init__(self) -> None:
        require(
            is_real(self.ridge) and 0 <= self.ridge < math.inf, "CGSense needs ridge >= 0", got=self.ridge
        )
        require(is_real(self.tol) and 0 < self.tol < math.inf, "CGSense needs tol > 0", got=self.tol)
        require_counts(self, "cg")

    def init(self, problem: InverseProblem, seed: int) -> CGState:
        x = problem.start()
        metrics = {"residual": problem.residual(x), "normal": 1.0}
        return CGState(x=problem.answer(x), batch=x, metrics=metrics)

    def step(self, problem: InverseProblem, state: CGState) -> CGState:
        A, scale = problem.operator, problem.operator.norm() ** -2
        right = scale * A._adjoint_of(problem.data)
        found = batched_cg(
            lambda p: scale * A.gram(p) + self.ridge * p, right, state.batch, steps=self.cg, tol=self.tol
        )
        normal = float(found.residuals.max())
        metrics = {"residual": problem.residual(found.x), "normal": normal}
        state = CGState(x=problem.answer(found.x), batch=found.x, metrics=metrics)
        if normal <= self.tol:
            state.status, state.message = Status.CONVERGED, "The normal equations are solved."
        return state


def _done(problem: InverseProblem, batch: Tensor, message: str) -> State:
    metrics = {"residual": problem.residual(batch)}
    return State(x=problem.answer(batch), metrics=metrics, status=Status.CONVERGED, message=message)
