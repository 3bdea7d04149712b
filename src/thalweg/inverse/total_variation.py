"""Total variation by ADMM: the classical reconstruction, without a network.

Rudin, Osher and Fatemi (1992); Goldstein and Osher (2009), "The split Bregman method for L1-regularized problems".
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import torch
from torch import Tensor

from thalweg.core import Method, State, Status
from thalweg.core.validation import is_real, is_whole, require
from thalweg.inverse.conjugate import batched_cg
from thalweg.inverse.problem import InverseProblem


@dataclass(kw_only=True)
class TVState(State):
    """``x`` in the form that y has; w and u of the gradient, shape (2, batch, *image)."""

    batch: Tensor
    split: Tensor
    dual: Tensor


@dataclass(frozen=True)
class TVADMM(Method[InverseProblem, TVState]):
    """``min |y - A x|^2 / (2 |A|^2) + tv sum |grad x|``: flat regions with sharp edges.

    Use it where no denoiser has learned such images. Differences are within a slice, zero across the border.

    Args:
        tv: weight, in units of A scaled to norm one; default 1e-3. Larger for more noise.
        rho: penalty; default 0.01. It changes the way and not the answer.
        cg: conjugate gradient steps of each iteration; default 10.
        tol: the run ends CONVERGED when x and w change by less than this, relative to x; default 1e-4.

    Raises:
        InvalidParameter: one of them out of range.

    Cost per step: ``cg + 1`` products with A and its adjoint.

    >>> from thalweg import solve
    >>> from thalweg.inverse import Inpainting
    >>> mask = torch.tensor([[1.0, 0.0, 1.0]])
    >>> solve(InverseProblem(Inpainting(mask), torch.tensor([[1.0, 0.0, 1.0]])), TVADMM()).x.round(decimals=2)
    tensor([[1., 1., 1.]])
    """

    tv: float = 1e-3
    rho: float = 0.01
    cg: int = 10
    tol: float = 1e-4

    def __post_init__(self) -> None:
        for name in ("tv", "rho", "tol"):
            value = getattr(self, name)
            require(is_real(value) and 0 < value < math.inf, f"TVADMM needs {name} > 0, finite", got=value)
        require(is_whole(self.cg) and self.cg >= 1, "TVADMM needs cg >= 1", got=self.cg)

    def init(self, problem: InverseProblem, seed: int) -> TVState:
        x = problem.start()
        empty = gradient(x)
        metrics = {"residual": problem.residual(x), "change": math.inf}
        return TVState(x=problem.answer(x), batch=x, split=empty, dual=empty.clone(), metrics=metrics)

    def step(self, problem: InverseProblem, state: TVState) -> TVState:
        A, scale, rho = problem.operator, problem.operator.norm() ** -2, self.rho
        x = batched_cg(
            lambda p: scale * A.gram(p) + rho * laplacian(p),
            scale * A._adjoint_of(problem.data) + rho * gradient_adjoint(state.split - state.dual),
            state.batch,
            steps=self.cg,
        ).x
        grad = gradient(x)
        moved = grad + state.dual
        size = moved.abs().square().sum(0).sqrt()
        w = moved * (1 - self.tv / rho / size.clamp(min=self.tv / rho))
        dual = moved - w
        norm = float(torch.linalg.vector_norm(x)) or 1.0
        change = max(
            float(torch.linalg.vector_norm(d)) / norm for d in (x - state.batch, w - state.split, grad - w)
        )
        state = TVState(
            x=problem.answer(x),
            batch=x,
            split=w,
            dual=dual,
            metrics={"residual": problem.residual(x), "change": change},
        )
        if change <= self.tol:
            state.status, state.message = Status.CONVERGED, f"Nothing changes by more than {self.tol:g}."
        return state


def gradient(x: Tensor) -> Tensor:
    """Differences to the pixel below and to the right, zero at the border, shape (2, *x.shape)."""
    down, right = torch.zeros_like(x), torch.zeros_like(x)
    down[..., :-1, :] = x[..., 1:, :] - x[..., :-1, :]
    right[..., :, :-1] = x[..., :, 1:] - x[..., :, :-1]
    return torch.stack([down, right])


def gradient_adjoint(w: Tensor) -> Tensor:
    """The adjoint of `gradient`."""
    out = torch.zeros_like(w[0])
    out[..., :-1, :] -= w[0][..., :-1, :]
    out[..., 1:, :] += w[0][..., :-1, :]
    out[..., :, :-1] -= w[1][..., :, :-1]
    out[..., :, 1:] += w[1][..., :, :-1]
    return out


def laplacian(x: Tensor) -> Tensor:
    """``gradient_adjoint(gradient(x))``, without the differences in between."""
    out = torch.zeros_like(x)
    for axis in (-2, -1):
        change, last = x.diff(dim=axis), x.shape[axis] - 1
        out.narrow(axis, 0, last).sub_(change)
        out.narrow(axis, 1, last).add_(change)
    return out
