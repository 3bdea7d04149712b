"""Conjugate gradients for many systems at once, each with its own step and its own end.

Hestenes and Stiefel (1952). Inner products are Hermitian: with complex images the unconjugated product has no minimum
to go to.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch import Tensor

from thalweg.core import InvalidProblem
from thalweg.core.validation import is_real, is_whole, require

#: Residuals below so many roundings of the start are zero.
ROUNDINGS = 10.0


@dataclass(frozen=True, eq=False)
class BatchedSolution:
    """What `batched_cg` found.

    Args:
        x: shape of the start.
        residuals: ``|b - A x| / |b|`` of each system, shape (batch,); the recurrence's.
        steps: of each system until it stopped, shape (batch,).
    """

    x: Tensor
    residuals: Tensor
    steps: Tensor


def batched_cg(
    product: Callable[[Tensor], Tensor], b: Tensor, x0: Tensor, *, steps: int, tol: float = 0.0
) -> BatchedSolution:
    """Solve ``A x_i = b_i`` for each i of a batch, A Hermitian and positive semidefinite.

    A system stops, and its x stays, once its residual is at most ``tol |b|`` or is rounding; the others go on. A whole
    batch takes the same products as one system.

    Args:
        product: ``A x`` of a batch.
        b: shape (batch, ...), real or complex.
        x0: the starts, shape of b.
        steps: at most.
        tol: of the relative residual; default 0.

    Raises:
        InvalidProblem: ``p^H A p`` is negative, or zero along a residual: A is not positive semidefinite, or b is not
            in its range.

    Cost: a product with A a step, and one more; three arrays of the shape of b.

    >>> A = torch.tensor([2.0, 4.0], dtype=torch.float64)
    >>> batched_cg(lambda x: A * x, torch.ones(1, 2, dtype=torch.float64), torch.zeros(1, 2).double(), steps=2).x
    tensor([[0.5000, 0.2500]], dtype=torch.float64)
    """
    require(is_whole(steps) and steps >= 0, "batched_cg needs steps >= 0", got=steps)
    require(is_real(tol) and tol >= 0, "batched_cg needs tol >= 0", got=tol)
    if b.shape != x0.shape or b.ndim < 2:
        raise InvalidProblem(
            f"batched_cg: b has shape {tuple(b.shape)} and x0 {tuple(x0.shape)}; expected one shape, (batch, ...)."
        )
    Ax = product(x0)
    r = b - Ax
    size = _square(b)
    eps = ROUNDINGS * torch.finfo(b.dtype).eps
    least = torch.maximum(tol**2 * size, eps**2 * torch.maximum(size, _square(Ax)))
    x, p, rr = x0, r, _square(r)
    count = torch.zeros(len(b), dtype=torch.int64, device=b.device)
    spread = (-1, *(1,) * (b.ndim - 1))
    for _ in range(steps):
        going = rr > least
        if not bool(going.any()):
            break
        Ap = product(p)
        curvature = _inner(p, Ap)
        if bool((going & ~(curvature > 0)).any()):
            worst = int((going & ~(curvature > 0)).nonzero()[0, 0])
            if not bool(torch.isfinite(curvature[worst])):
                raise InvalidProblem(
                    f"Conjugate gradients met NaN or infinity in system {worst} of the batch."
                )
            raise InvalidProblem(
                f"Conjugate gradients broke down: p^H A p is {float(curvature[worst]):.3g} in system {worst} of the "
                "batch. A is not positive semidefinite, or its adjoint is not exact; look at operator.mismatch()."
            )
        alpha = torch.where(going, rr / torch.where(going, curvature, 1), 0)
        x = torch.addcmul(x, alpha.view(spread), p)
        r = torch.addcmul(r, alpha.view(spread), Ap, value=-1)
        new = torch.where(going, _square(r), rr)
        beta = torch.where(going, new / torch.where(going, rr, 1), 0)
        p = torch.addcmul(r, beta.view(spread), p)  # of those that stand still it is not used again
        rr = new
        count += going
    relative = (rr / torch.where(size > 0, size, 1)).sqrt()
    return BatchedSolution(x, relative, count)


def _inner(u: Tensor, v: Tensor) -> Tensor:
    """The real part of ``u_i^H v_i``, shape (batch,)."""
    u, v = u.flatten(1), v.to(u.dtype).flatten(1)
    if u.is_complex():
        u, v = torch.view_as_real(u).flatten(1), torch.view_as_real(v).flatten(1)
    return (u * v).sum(1)  # in one order for one row and for many: an image is the same in any batch


def _square(u: Tensor) -> Tensor:
    return _inner(u, u)
