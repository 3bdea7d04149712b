"""Nearest points of sets, on torch tensors, differentiable where they can be.

Vectors lie along the last axis, and leading axes are batches, unless a function says otherwise. Derivatives are those
of the set's active part: exact almost everywhere, in both modes.

Held, Wolfe and Crowder (1974) for the simplex; Duchi et al. (2008) for the l1 ball; Lawson and Hanson (1974), chapter
23, for polyhedra; Blondel et al. (2022), appendix C, for what else there is.
"""

from __future__ import annotations

from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from scipy.optimize import nnls
from torch import Tensor

from thalweg.core.errors import InvalidProblem
from thalweg.core.validation import require

#: Halvings of an interval: to the last digit of float64.
HALVINGS = 100
NEWTON, SMALL, EDGE = 200, 1e-12, 1e-9


def nonnegative(x: Tensor) -> Tensor:
    """``x >= 0``.

    >>> nonnegative(torch.tensor([-1.0, 2.0]))
    tensor([0., 2.])
    """
    return x.clamp_min(0.0)


def box(x: Tensor, low: Tensor | float, high: Tensor | float) -> Tensor:
    """``low <= x <= high``."""
    low, high = (torch.as_tensor(v, dtype=x.dtype, device=x.device) for v in (low, high))
    require(bool((low <= high).all()), "box needs low <= high", error=InvalidProblem)
    return torch.minimum(torch.maximum(x, low), high)


def simplex(x: Tensor, size: float = 1.0) -> Tensor:
    """``x >= 0, sum x = size``, by sorting. O(n log n).

    >>> simplex(torch.tensor([0.5, 1.5, -1.0]))
    tensor([0., 1., 0.])
    """
    require(size > 0, "simplex needs size > 0", got=size, error=InvalidProblem)
    ordered = x.sort(-1, descending=True).values
    counts = torch.arange(1, x.shape[-1] + 1, dtype=x.dtype, device=x.device)
    shifts = (ordered.cumsum(-1) - size) / counts
    inside = (ordered - shifts > 0).sum(-1, keepdim=True).clamp_min(1)
    return (x - shifts.gather(-1, inside - 1)).clamp_min(0.0)


def l1_sphere(x: Tensor, radius: float = 1.0) -> Tensor:
    """``|x|_1 = radius``."""
    signs = torch.where(x >= 0, 1.0, -1.0).to(x.dtype)
    return signs * simplex(x.abs(), radius)


def l1_ball(x: Tensor, radius: float = 1.0) -> Tensor:
    """``|x|_1 <= radius``."""
    inside = x.abs().sum(-1, keepdim=True) <= radius
    return torch.where(inside, x, l1_sphere(x, radius))


def l2_sphere(x: Tensor, radius: float = 1.0) -> Tensor:
    """``|x|_2 = radius``; every point is nearest to zero, which is left where it is."""
    require(radius > 0, "l2_sphere needs radius > 0", got=radius, error=InvalidProblem)
    squares = x.square().sum(-1, keepdim=True)
    return radius * x / torch.where(squares > 0, squares, 1.0).sqrt()


def l2_ball(x: Tensor, radius: float = 1.0) -> Tensor:
    """``|x|_2 <= radius``."""
    inside = x.square().sum(-1, keepdim=True) <= radius**2
    return torch.where(inside, x, l2_sphere(x, radius))


def linf_ball(x: Tensor, radius: float = 1.0) -> Tensor:
    """``|x|_inf <= radius``."""
    require(radius > 0, "linf_ball needs radius > 0", got=radius, error=InvalidProblem)
    return x.clamp(-radius, radius)


def hyperplane(x: Tensor, a: Tensor, b: Tensor | float) -> Tensor:
    """``a'x = b``."""
    return x - ((x * a).sum(-1, keepdim=True) - b) / a.square().sum(-1, keepdim=True) * a


def halfspace(x: Tensor, a: Tensor, b: Tensor | float) -> Tensor:
    """``a'x <= b``."""
    excess = ((x * a).sum(-1, keepdim=True) - b).clamp_min(0.0)
    return x - excess / a.square().sum(-1, keepdim=True) * a


def affine_set(x: Tensor, A: Tensor, b: Tensor) -> Tensor:
    """``A x = b`` with A of shape (m, n), full rank or not; an empty set is refused."""
    inverse = torch.linalg.pinv(A)
    gap = (A @ (inverse @ b) - b).abs().max() if len(b) else b.new_zeros(())
    require(
        float(gap.detach()) <= 1e-6 * (1.0 + float(b.detach().abs().max()) if len(b) else 1.0),
        "affine_set: A x = b has no solution",
        error=InvalidProblem,
    )
    return x - (x @ A.T - b) @ inverse.T


def box_section(x: Tensor, low: Tensor | float, high: Tensor | float, a: Tensor, b: float) -> Tensor:
    """``low <= x <= high, a'x = b`` for one vector x, shape (n,), a > 0: by bisection on the multiplier.

    >>> box_section(torch.tensor([2.0, 0.0, 0.0]), 0.0, 1.0, torch.ones(3), 1.5)
    tensor([1.0000, 0.2500, 0.2500])
    """
    low, high = (torch.as_tensor(v, dtype=x.dtype, device=x.device).expand_as(x) for v in (low, high))
    require(bool((a > 0).all()), "box_section needs a > 0", error=InvalidProblem)
    ends = float((a * low).sum().detach()), float((a * high).sum().detach())
    require(
        ends[0] <= b <= ends[1],
        f"box_section: no point has a'x = b within [{ends[0]:.6g}, {ends[1]:.6g}]",
        got=b,
        error=InvalidProblem,
    )
    with torch.no_grad():
        below, above = ((x - high) / a).min(), ((x - low) / a).max()
        for _ in range(HALVINGS):
            middle = 0.5 * (below + above)
            if float((a * box(x - middle * a, low, high)).sum()) > b:
                below = middle
            else:
                above = middle
        multiplier = 0.5 * (below + above)
        free = ((x - multiplier * a > low) & (x - multiplier * a < high)).to(x.dtype)
    # One step of Newton's method, exact on this piece, carries the derivatives.
    excess = (a * box(x - multiplier * a, low, high)).sum() - b
    slope = (free * a.square()).sum()
    return box(x - (multiplier + excess / torch.where(slope > 0, slope, 1.0)) * a, low, high)


def transport(X: Tensor, rows: Tensor, columns: Tensor) -> Tensor:
    """Matrices with ``P >= 0``, row sums ``rows`` and column sums ``columns``: the nearest to X, shape (m, n).

    Semi-smooth Newton steps on the dual, (m + n)^3 operations each, a dozen or so.
    """
    _check_marginals(X, rows, columns)
    m, n = X.shape
    with torch.no_grad():
        a, b = X.new_zeros(m), X.new_zeros(n)
        value = _transport_dual(X, a, b, rows, columns)
        for _ in range(NEWTON):
            da, db, gap = _transport_step(X, a, b, rows, columns)
            if float(gap) <= SMALL * (1.0 + float(X.abs().max())):
                break
            size = 1.0
            while size > 1e-8:
                new = _transport_dual(X, a + size * da, b + size * db, rows, columns)
                promised = size * float(da @ (rows - _sums(X, a, b, 1)) + db @ (columns - _sums(X, a, b, 0)))
                if float(new) <= float(value) - 1e-4 * promised + 1e-14 * abs(float(value)):
                    break
                size *= 0.5
            a, b, value = a + size * da, b + size * db, new
    # One more step, exact on this piece, carries the derivatives; entries at the edge of the support have none.
    support = (X + a[:, None] + b[None] > EDGE * (1.0 + X.abs().max())).detach()
    da, db, _ = _transport_step(X, a, b, rows, columns, support)
    return torch.where(support, (X + (a + da)[:, None] + (b + db)[None]).clamp_min(0.0), 0.0)


def birkhoff(X: Tensor) -> Tensor:
    """Doubly stochastic matrices, shape (n, n)."""
    ones = X.new_ones(X.shape[0])
    return transport(X, ones, ones)


def transport_kl(X: Tensor, rows: Tensor, columns: Tensor, iterations: int = 1000) -> Tensor:
    """The matrix with these sums nearest to ``exp(X)`` in the Kullback-Leibler divergence: Sinkhorn's, on logarithms.

    For the entropic transport plan of cost C at temperature e, ``X = -C/e``. Differentiated through its iterations.
    """
    _check_marginals(X, rows, columns)
    require(
        bool((rows > 0).all() and (columns > 0).all()),
        "transport_kl needs positive sums",
        error=InvalidProblem,
    )
    log_rows, log_columns = rows.log(), columns.log()
    a, b = torch.zeros_like(log_rows), torch.zeros_like(log_columns)
    for _ in range(iterations):
        a = log_rows - (X + b[None]).logsumexp(1)
        new = log_columns - (X + a[:, None]).logsumexp(0)
        done = float((new - b).detach().abs().max()) <= 1e-13
        b = new
        if done:
            break
    return (X + a[:, None] + b[None]).exp()


def polyhedron(x: Tensor, G: Tensor, h: Tensor, A: Tensor | None = None, b: Tensor | None = None) -> Tensor:
    """``G x <= h, A x = b`` for one vector x, shape (n,): least distance programming by non-negative least squares.

    Raises:
        InvalidProblem: the polyhedron is empty.
    """
    A = x.new_zeros(0, len(x)) if A is None else A
    b = x.new_zeros(0) if b is None else b
    active = _active_set(*(t.detach().double().cpu().numpy() for t in (x, G, h, A, b)))
    rows = torch.from_numpy(np.flatnonzero(active)).to(x.device)
    held, level = torch.cat([A, G[rows]]), torch.cat([b, h[rows]])
    if not len(held):
        return x + 0.0 * (G.sum() + h.sum())
    return x - torch.linalg.pinv(held) @ (held @ x - level)


def second_order_cone(x: Tensor) -> Tensor:
    """``|x[..., :-1]|_2 <= x[..., -1]``."""
    y, t = x[..., :-1], x[..., -1:]
    squares = y.square().sum(-1, keepdim=True)
    size = torch.where(squares > 0, squares, 1.0).sqrt() * (squares > 0)
    share = 0.5 * (1.0 + t / torch.where(size > 0, size, 1.0))
    edge = torch.cat([share * y, share * size], -1)
    return torch.where(size <= t, x, torch.where(size <= -t, torch.zeros_like(x), edge))


def psd_cone(X: Tensor) -> Tensor:
    """Positive semidefinite matrices, of the symmetric part of X, shape (..., n, n); repeated eigenvalues are no
    trouble. Once differentiable."""
    found: Tensor = _PSD.apply(0.5 * (X + X.mT))  # type: ignore[no-untyped-call]
    return found


class _PSD(torch.autograd.Function):
    """The derivative is ``V (O * V'HV) V'`` with O their divided differences of max(., 0); it is its own transpose."""

    generate_vmap_rule = True

    @staticmethod
    def forward(X: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        values, V = torch.linalg.eigh(X)
        return (V * values.clamp_min(0.0)[..., None, :]) @ V.mT

    @staticmethod
    def setup_context(ctx, inputs, output):  # type: ignore[no-untyped-def]
        ctx.save_for_backward(*inputs)
        ctx.save_for_forward(*inputs)

    @staticmethod
    def _derivative(X: Tensor, H: Tensor) -> Tensor:
        values, V = torch.linalg.eigh(X)
        positive = values.clamp_min(0.0)
        gap = values[..., :, None] - values[..., None, :]
        same = gap.abs() <= 1e-12 * values.abs().amax(-1)[..., None, None]
        rises = positive[..., :, None] - positive[..., None, :]
        slopes = torch.where(
            same, (values > 0).to(X.dtype)[..., :, None].expand_as(gap), rises / torch.where(same, 1.0, gap)
        )
        return V @ (slopes * (V.mT @ H @ V)) @ V.mT

    @staticmethod
    def backward(ctx, cotangent):  # type: ignore[no-untyped-def]
        (X,) = ctx.saved_tensors
        return _PSD._derivative(X, cotangent)

    @staticmethod
    def jvp(ctx, tangent):  # type: ignore[no-untyped-def]
        (X,) = ctx.saved_tensors
        return _PSD._derivative(X, tangent)


def _check_marginals(X: Tensor, rows: Tensor, columns: Tensor) -> None:
    if rows.shape != X.shape[:1] or columns.shape != X.shape[1:]:
        raise InvalidProblem(
            f"X has shape {tuple(X.shape)}, rows {tuple(rows.shape)} and columns {tuple(columns.shape)}; expected "
            "(m, n), (m,), (n,)."
        )
    totals = float(rows.detach().sum()), float(columns.detach().sum())
    fits = bool((rows >= 0).all() and (columns >= 0).all()) and abs(totals[0] - totals[1]) <= 1e-6 * abs(
        totals[0]
    )
    require(
        fits,
        "Sums of rows and columns have to be non-negative, and equal in total",
        got=totals,
        error=InvalidProblem,
    )


def _transport_dual(X: Tensor, a: Tensor, b: Tensor, rows: Tensor, columns: Tensor) -> Tensor:
    return 0.5 * (X + a[:, None] + b[None]).clamp_min(0.0).square().sum() - rows @ a - columns @ b


def _sums(X: Tensor, a: Tensor, b: Tensor, axis: int) -> Tensor:
    return (X + a[:, None] + b[None]).clamp_min(0.0).sum(axis)


def _transport_step(
    X: Tensor, a: Tensor, b: Tensor, rows: Tensor, columns: Tensor, support: Tensor | None = None
) -> tuple[Tensor, Tensor, Tensor]:
    """Newton's step of the dual, damped on the way to the ``support``, and the largest error of the sums."""
    Z = X + a[:, None] + b[None]
    S = ((Z > 0) if support is None else support).to(X.dtype).detach()
    P = Z * S
    gap = torch.cat([rows - P.sum(1), columns - P.sum(0)])
    H = torch.cat([torch.cat([S.sum(1).diag(), S], 1), torch.cat([S.T, S.sum(0).diag()], 1)])
    worst = gap.abs().max()
    if support is None:  # rows and columns without support have no curvature
        damping = worst.clamp(1e-10, 1e-2) * (1.0 + H.diagonal().max())
        step = torch.linalg.solve(H + damping * torch.eye(len(H), dtype=H.dtype, device=H.device), gap)
    else:
        step = torch.linalg.pinv(H, hermitian=True, rtol=1e-11) @ gap
    return step[: len(rows)], step[len(rows) :], worst


def _active_set(
    x: NDArray[Any],
    G: NDArray[Any],
    h: NDArray[Any],
    A: NDArray[Any],
    b: NDArray[Any],
) -> NDArray[Any]:
    """Which inequalities hold as equations at the nearest point, with positive multipliers.

    On ``y = y0 + Z w``, Z a basis of A's kernel, the nearest point is that of least norm in ``-G Z w >= G y0 - h``: its
    multipliers solve a non-negative least-squares problem.
    """
    y0 = x - np.linalg.pinv(A) @ (A @ x - b) if len(A) else x
    if len(A):
        require(
            bool(np.abs(A @ y0 - b).max() <= 1e-6 * (1 + np.abs(b).max())),
            "polyhedron: A x = b has no solution",
            error=InvalidProblem,
        )
        _, s, Vt = np.linalg.svd(A)
        Z = Vt[int((s > 1e-10 * s.max()).sum()) :].T
    else:
        Z = np.eye(len(x))
    E, f = -(G @ Z), G @ y0 - h
    scale = np.abs(f).max(initial=0.0)
    if scale == 0.0 or (f <= 0).all():
        return np.zeros(len(h), dtype=bool)
    right = np.zeros(E.shape[1] + 1)
    right[-1] = 1.0
    u, left = nnls(np.vstack([E.T, (f / scale)[None]]), right, maxiter=50 * len(f) + 100)
    require(
        bool(left > 1e-9), "polyhedron: no point satisfies all of G x <= h, A x = b", error=InvalidProblem
    )
    return np.asarray(u > 1e-12 * u.max())
