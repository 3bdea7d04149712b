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
from thalweg.numerics.tensor_checks import checked, found_by, length, real, seen

#: Halvings of an interval: to the last digit of float64.
HALVINGS = 100
NEWTON, SMALL, EDGE = 200, 1e-12, 1e-9


def nonnegative(x: Tensor) -> Tensor:
    """``x >= 0``.

    >>> nonnegative(torch.tensor([-1.0, 2.0]))
    tensor([0., 2.])
    """
    x = real(x)
    return x.clamp_min(0.0)


def box(x: Tensor, low: Tensor | float, high: Tensor | float) -> Tensor:
    """``low <= x <= high``."""
    x = real(x)
    low, high = (torch.as_tensor(v, dtype=x.dtype, device=x.device) for v in (low, high))
    return checked(torch.minimum(torch.maximum(x, low), high), low <= high, "box needs low <= high")


def simplex(x: Tensor, size: Tensor | float = 1.0) -> Tensor:
    """``x >= 0, sum x = size``, by sorting. O(n log n).

    >>> simplex(torch.tensor([0.5, 1.5, -1.0]))
    tensor([0., 1., 0.])
    """
    x = real(x)
    ordered = x.sort(-1, descending=True).values
    counts = torch.arange(1, x.shape[-1] + 1, dtype=x.dtype, device=x.device)
    shifts = (ordered.cumsum(-1) - size) / counts
    inside = (ordered - shifts > 0).sum(-1, keepdim=True).clamp_min(1)
    return checked((x - shifts.gather(-1, inside - 1)).clamp_min(0.0), size >= 0, "simplex needs size >= 0")


def l1_sphere(x: Tensor, radius: Tensor | float = 1.0) -> Tensor:
    """``|x|_1 = radius``."""
    x = real(x)
    signs = torch.where(x >= 0, 1.0, -1.0).to(x.dtype)
    return signs * simplex(x.abs(), radius)


def l1_ball(x: Tensor, radius: Tensor | float = 1.0) -> Tensor:
    """``|x|_1 <= radius``."""
    x = real(x)
    nearest = l1_sphere(x, radius)
    return torch.where(x.abs().sum(-1, keepdim=True) <= radius, x, nearest)


def l2_sphere(x: Tensor, radius: Tensor | float = 1.0) -> Tensor:
    """``|x|_2 = radius``; every point is nearest to zero, which is left where it is."""
    x = real(x)
    size = length(x)
    nearest = radius * (x / torch.where(size > 0, size, 1.0))
    return checked(nearest, radius >= 0, "l2_sphere needs radius >= 0")


def l2_ball(x: Tensor, radius: Tensor | float = 1.0) -> Tensor:
    """``|x|_2 <= radius``."""
    x = real(x)
    nearest = l2_sphere(x, radius)
    return torch.where(length(x) <= radius, x, nearest)


def linf_ball(x: Tensor, radius: Tensor | float = 1.0) -> Tensor:
    """``|x|_inf <= radius``."""
    x = real(x)
    radius = torch.as_tensor(radius, dtype=x.dtype, device=x.device)
    nearest = torch.minimum(torch.maximum(x, -radius), radius)
    return checked(nearest, radius >= 0, "linf_ball needs radius >= 0")


def hyperplane(x: Tensor, a: Tensor, b: Tensor | float) -> Tensor:
    """``a'x = b``."""
    x = real(x)
    size = length(a)
    normal = a / torch.where(size > 0, size, 1.0)
    nearest = x - ((x * normal).sum(-1, keepdim=True) - b / size) * normal
    return checked(nearest, size > 0, "hyperplane needs an a other than zero")


def halfspace(x: Tensor, a: Tensor, b: Tensor | float) -> Tensor:
    """``a'x <= b``."""
    x = real(x)
    size = length(a)
    normal = a / torch.where(size > 0, size, 1.0)
    excess = ((x * normal).sum(-1, keepdim=True) - b / size).clamp_min(0.0)
    return checked(x - excess * normal, size > 0, "halfspace needs an a other than zero")


def affine_set(x: Tensor, A: Tensor, b: Tensor) -> Tensor:
    """``A x = b`` with A of shape (m, n), full rank or not; an empty set is refused."""
    x = real(x)
    A, b = _unit_rows(A, b)
    inverse = torch.linalg.pinv(A)
    nearest = x - (x @ A.T - b) @ inverse.T
    if len(b) == 0:
        return nearest
    gap = (A @ (inverse @ b) - b).abs().amax()
    return checked(nearest, gap <= 1e-6 * b.abs().amax(), "affine_set: A x = b has no solution")


def _unit_rows(A: Tensor, b: Tensor) -> tuple[Tensor, Tensor]:
    """The same equations or inequalities with the largest entry of each row 1: whatever units they are given in."""
    size = A.detach().abs().amax(-1) if A.numel() else torch.ones_like(b)
    size = torch.where(size > 0, size, torch.ones_like(size))
    return A / size[:, None], b / size


def box_section(x: Tensor, low: Tensor | float, high: Tensor | float, a: Tensor, b: Tensor | float) -> Tensor:
    """``low <= x <= high, a'x = b`` for one vector x, shape (n,), a > 0: by bisection on the multiplier.

    >>> box_section(torch.tensor([2.0, 0.0, 0.0]), 0.0, 1.0, torch.ones(3), 1.5)
    tensor([1.0000, 0.2500, 0.2500])
    """
    x = real(x)
    low, high = (torch.as_tensor(v, dtype=x.dtype, device=x.device).expand_as(x) for v in (low, high))
    with torch.no_grad():
        below, above = ((x - high) / a).min(), ((x - low) / a).max()
        for _ in range(HALVINGS):
            middle = 0.5 * (below + above)
            larger = (a * _between(x - middle * a, low, high)).sum() > b
            below, above = torch.where(larger, middle, below), torch.where(larger, above, middle)
        multiplier = 0.5 * (below + above)
        free = ((x - multiplier * a > low) & (x - multiplier * a < high)).to(x.dtype)
    # One step of Newton's method, exact on this piece, carries the derivatives.
    excess = (a * _between(x - multiplier * a, low, high)).sum() - b
    slope = (free * a.square()).sum()
    nearest = _between(x - (multiplier + excess / torch.where(slope > 0, slope, 1.0)) * a, low, high)
    ends = (a * low).sum(), (a * high).sum()
    nearest = checked(nearest, (a > 0).all() & (low <= high).all(), "box_section needs a > 0 and low <= high")
    return checked(
        nearest,
        (ends[0] <= b) & (ends[1] >= b),
        f"box_section: a'x = {_number(b)} is met by no point: it lies within [{_number(ends[0])}, {_number(ends[1])}]",
    )


def _between(x: Tensor, low: Tensor, high: Tensor) -> Tensor:
    return torch.minimum(torch.maximum(x, low), high)


def _number(value: Tensor | float) -> str:
    """A number for a message, where it can be read."""
    values = seen(value) if isinstance(value, Tensor) else torch.as_tensor(value)
    return "?" if values is None else f"{float(values):.6g}"


def transport(X: Tensor, rows: Tensor, columns: Tensor) -> Tensor:
    """Matrices with ``P >= 0``, row sums ``rows`` and column sums ``columns``: the nearest to X, shape (m, n).

    Semi-smooth Newton steps on the dual, (m + n)^3 operations each, a dozen or so.
    """
    X = real(X)
    fits = _marginals_fit(X, rows, columns)
    X, rows, columns = checked(X, fits, SUMS), rows.to(X), columns.to(X)
    dual = found_by(_transport_multipliers, X, rows, columns)
    a, b = dual[: len(rows)], dual[len(rows) :]
    # One more step, exact on this piece, carries the derivatives; entries at the edge of the support have none.
    support = (X + a[:, None] + b[None] > EDGE * (1.0 + X.abs().amax())).detach()
    da, db, _ = _transport_step(X, a, b, rows, columns, support)
    nearest = torch.where(support, (X + (a + da)[:, None] + (b + db)[None]).clamp_min(0.0), 0.0)
    return checked(nearest, fits, SUMS)


def birkhoff(X: Tensor) -> Tensor:
    """Doubly stochastic matrices, shape (n, n)."""
    X = real(X)
    ones = X.new_ones(X.shape[0])
    return transport(X, ones, ones)


def transport_kl(X: Tensor, rows: Tensor, columns: Tensor, iterations: int = 1000) -> Tensor:
    """The matrix with these sums nearest to ``exp(X)`` in the Kullback-Leibler divergence: Sinkhorn's, on logarithms.

    For the entropic transport plan of cost C at temperature e, ``X = -C/e``. Differentiated through its iterations.
    """
    X = real(X)
    fits = _marginals_fit(X, rows, columns) & (rows > 0).all() & (columns > 0).all()
    checked(X, fits, f"{SUMS}; transport_kl needs positive ones")
    rows, columns = rows.to(X), columns.to(X)
    log_rows, log_columns = rows.log(), columns.log()
    a, b = torch.zeros_like(log_rows), torch.zeros_like(log_columns)
    for _ in range(iterations):
        a = log_rows - (X + b[None]).logsumexp(1)
        new = log_columns - (X + a[:, None]).logsumexp(0)
        change, b = seen((new - b).abs().amax()), new
        if (
            change is not None and float(change) <= 1e-13
        ):  # under vmap samples end together, at the last iteration
            break
    return checked((X + a[:, None] + b[None]).exp(), fits, SUMS)


def polyhedron(x: Tensor, G: Tensor, h: Tensor, A: Tensor | None = None, b: Tensor | None = None) -> Tensor:
    """``G x <= h, A x = b`` for one vector x, shape (n,): least distance programming by non-negative least squares.

    Raises:
        InvalidProblem: the polyhedron is empty.
    """
    x = real(x)
    A = x.new_zeros(0, len(x)) if A is None else A
    b = x.new_zeros(0) if b is None else b
    (G, h), (A, b) = _unit_rows(G, h), _unit_rows(A, b)
    on = torch.cat([torch.ones_like(b), found_by(_active, x, G, h, A, b)])
    held, level = on[:, None] * torch.cat([A, G]), on * torch.cat([b, h])
    return x - torch.linalg.pinv(held) @ (held @ x - level)


def second_order_cone(x: Tensor) -> Tensor:
    """``|x[..., :-1]|_2 <= x[..., -1]``."""
    x = real(x)
    y, t = x[..., :-1], x[..., -1:]
    size = length(y)
    share = 0.5 * (1.0 + t / torch.where(size > 0, size, 1.0))
    edge = torch.cat([share * y, share * size], -1)
    return torch.where(size <= t, x, torch.where(size <= -t, torch.zeros_like(x), edge))


def psd_cone(X: Tensor) -> Tensor:
    """Positive semidefinite matrices, of the symmetric part of X, shape (..., n, n); repeated eigenvalues are no
    trouble. Once differentiable.
    """
    X = real(X)
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


#: What the sums of a transport have to be.
SUMS = "Sums of rows and columns have to be non-negative, and equal in total, and X finite"


def _marginals_fit(X: Tensor, rows: Tensor, columns: Tensor) -> Tensor:
    if rows.shape != X.shape[:1] or columns.shape != X.shape[1:]:
        raise InvalidProblem(
            f"X has shape {tuple(X.shape)}, rows {tuple(rows.shape)} and columns {tuple(columns.shape)}; expected "
            "(m, n), (m,), (n,)."
        )
    total = rows.sum()
    same = (total - columns.sum()).abs() <= 1e-6 * total.abs()
    return same & (rows >= 0).all() & (columns >= 0).all() & X.isfinite().all()


def _transport_multipliers(X: Tensor, rows: Tensor, columns: Tensor) -> Tensor:
    """The multipliers of the rows' and the columns' sums, shape (m + n,); zeros for an X that is not finite."""
    m, n = X.shape
    a, b = X.new_zeros(m), X.new_zeros(n)
    if not bool(X.isfinite().all()):
        return torch.cat([a, b])
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
    return torch.cat([a, b])


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


def _active(x: Tensor, G: Tensor, h: Tensor, A: Tensor, b: Tensor) -> Tensor:
    """`_active_set` of tensors, as zeros and ones."""
    active = _active_set(*(t.double().cpu().numpy() for t in (x, G, h, A, b)))
    return torch.from_numpy(active).to(x)


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
            bool(np.abs(A @ y0 - b).max() <= 1e-6 * np.abs(b).max() + 1e-12 * np.abs(x).max()),
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
