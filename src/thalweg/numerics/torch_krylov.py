"""Linear systems given by products with torch vectors: no matrix, any device.

SciPy's solvers (`thalweg.numerics.krylov`) leave the device and the graph; these stay. Saad (2003), "Iterative methods
for sparse linear systems".
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass
from typing import Literal

import torch
from torch import Tensor

from thalweg.core.errors import InvalidParameter, UnknownName
from thalweg.core.validation import require

Product = Callable[[Tensor], Tensor]
MethodName = Literal["auto", "dense", "cg", "normal-cg", "gmres", "bicgstab"]
METHODS = ("auto", "dense", "cg", "normal-cg", "gmres", "bicgstab")
#: Words of torch about a product that looks at numbers, or leaves torch, or has no rule for many vectors at once.
WITHOUT_RULE = ("vmap", "atching rule", "have storage", "functorch")
#: Unknowns up to which ``"auto"`` makes the matrix and factors it.
DENSE = 256


@dataclass(frozen=True)
class LinearSolution:
    """What a solver found.

    Args:
        x: shape (n,).
        residual: ``|b - A x| / |b|``, zero for b = 0.
        products: with A and its transpose.
    """

    x: Tensor
    residual: float
    products: int


@dataclass(frozen=True)
class LinearSolver:
    """How to solve ``(A + ridge I) x = b``.

    Args:
        method: ``"cg"`` for symmetric A, positive or negative definite; ``"normal-cg"`` for any, its condition squared;
            ``"gmres"``, ``"bicgstab"`` for any; ``"dense"`` makes the matrix by n products and factors it, by least
            squares if it is singular; ``"auto"``, the default, is dense up to 256 unknowns and GMRES above.
        tol: of the relative residual.
        max_steps: products; by default ten times the unknowns.
        ridge: added to the diagonal, for singular or badly conditioned A.
        restart: Krylov vectors that GMRES keeps.
        preconditioner: an approximation of the inverse of A; for ``"cg"`` symmetric positive definite.

    >>> A = torch.tensor([[2.0, 1.0], [0.0, 3.0]], dtype=torch.float64)
    >>> LinearSolver("gmres")(lambda v: A @ v, torch.ones(2, dtype=torch.float64)).x
    tensor([0.3333, 0.3333], dtype=torch.float64)
    """

    method: MethodName = "auto"
    tol: float = 1e-10
    max_steps: int | None = None
    ridge: float = 0.0
    restart: int = 30
    preconditioner: Product | None = None

    def __post_init__(self) -> None:
        if self.method not in METHODS:
            raise UnknownName("linear solver", self.method, METHODS)
        require(self.tol >= 0, "LinearSolver needs tol >= 0", got=self.tol)
        require(self.ridge >= 0, "LinearSolver needs ridge >= 0", got=self.ridge)
        require(self.restart >= 1, "LinearSolver needs restart >= 1", got=self.restart)

    @torch.no_grad()
    def __call__(
        self, A: Product, b: Tensor, transposed: Product | None = None, x0: Tensor | None = None
    ) -> LinearSolution:
        """Solve with products ``A(v)``; ``transposed(v)`` is needed by ``"normal-cg"`` only."""

        def product(v: Tensor) -> Tensor:
            return A(v) + self.ridge * v if self.ridge else A(v)

        method = self.method
        if method == "auto":
            method = "dense" if len(b) <= DENSE else "gmres"
        most = self.max_steps if self.max_steps is not None else 10 * len(b)
        size = float(torch.linalg.vector_norm(b))
        if size == 0.0:
            return LinearSolution(torch.zeros_like(b), 0.0, 0)
        start = (torch.zeros_like(b), b, 0) if x0 is None else (x0, b - product(x0), 1)
        if method == "dense":
            x, gap = _dense(product, b)
            products = len(b)
        elif method == "normal-cg":
            if transposed is None:
                raise InvalidParameter("'normal-cg' needs products with the transpose.")

            def normal(v: Tensor) -> Tensor:
                w = product(v)
                return transposed(w) + self.ridge * w

            right = transposed(b) + self.ridge * b
            gap_normal = right if x0 is None else right - normal(x0)
            x, _, products = _cg(normal, right, (start[0], gap_normal, 1), self.tol, most, None)
            gap = float(torch.linalg.vector_norm(b - product(x)))
        elif method == "cg":
            x, gap, products = _cg(product, b, start, self.tol, most, self.preconditioner)
        elif method == "gmres":
            x, gap, products = _gmres(product, b, start, self.tol, most, self.restart, self.preconditioner)
        else:
            x, gap, products = _bicgstab(product, b, start, self.tol, most, self.preconditioner)
        return LinearSolution(x, gap / size, products)


#: Where a Krylov method starts: x, its residual, and the products that took.
Start = tuple[Tensor, Tensor, int]


def _dense(A: Product, b: Tensor) -> tuple[Tensor, float]:
    matrix = _matrix(A, b)
    x = _solved(matrix, b)
    return x, float(torch.linalg.vector_norm(b - matrix @ x))


def _matrix(A: Product, b: Tensor) -> Tensor:
    """Of all products at once, where torch can; one after the other where it cannot."""
    basis = torch.eye(len(b), dtype=b.dtype, device=b.device)
    try:
        return torch.func.vmap(A)(basis).T
    except RuntimeError as error:
        if not any(word in str(error) for word in WITHOUT_RULE):
            raise
        return torch.stack([A(e) for e in basis], 1)


def _solved(matrix: Tensor, b: Tensor) -> Tensor:
    x, info = torch.linalg.solve_ex(matrix, b)
    eps = torch.finfo(b.dtype).eps
    if int(info) == 0 and bool(torch.isfinite(x).all()):
        residual = torch.linalg.vector_norm(matrix @ x - b)
        if float(residual) <= 1e3 * len(b) * eps * float(matrix.abs().max() * x.abs().max() + b.abs().max()):
            condition = float(torch.linalg.cond(matrix, 1)) if len(b) <= DENSE else 0.0
            if condition < eps**-0.75:
                return x
    # rounding leaves a singular matrix with singular values of some hundred eps: they are no information
    return torch.linalg.pinv(matrix, rtol=eps**0.75) @ b


def _cg(
    A: Product, b: Tensor, start: Start, tol: float, most: int, M: Product | None
) -> tuple[Tensor, float, int]:
    x, r, products = start
    z = r if M is None else M(r)
    p, rz, sign = z, torch.dot(r, z), 0.0
    target, rr = tol * float(torch.linalg.vector_norm(b)), float(torch.dot(r, r))
    while products < most and rr > target**2:
        Ap = A(p)
        products += 1
        curvature = torch.dot(p, Ap)
        along = float(curvature)
        sign = sign or math.copysign(1.0, along)
        if sign * along <= 0.0:
            break  # not definite: the residual tells
        alpha = rz / curvature
        x, r = torch.addcmul(x, alpha, p), torch.addcmul(r, alpha, Ap, value=-1.0)
        z = r if M is None else M(r)
        new = torch.dot(r, z)
        rr = float(new) if M is None else float(torch.dot(r, r))
        p, rz = torch.addcmul(z, new / rz, p), new
    return x, math.sqrt(rr), products


def _gmres(
    A: Product, b: Tensor, start: Start, tol: float, most: int, restart: int, M: Product | None
) -> tuple[Tensor, float, int]:
    """Preconditioned from the right, so that the residual is the system's own; orthogonalised twice."""
    target = tol * float(torch.linalg.vector_norm(b))
    x, r, products = start
    while True:
        beta = float(torch.linalg.vector_norm(r))
        if beta <= target or products >= most:
            return x, beta, products
        basis, H, k = [r / beta], b.new_zeros(restart + 1, restart), 0
        for k in range(min(restart, max(most - products, 1))):
            v = basis[k] if M is None else M(basis[k])
            w = A(v)
            products += 1
            V = torch.stack(basis)
            for _ in range(2):
                h = V @ w
                w, H[: k + 1, k] = w - h @ V, H[: k + 1, k] + h
            H[k + 1, k] = torch.linalg.vector_norm(w)
            y, gap = _least_squares(H[: k + 2, : k + 1], beta)
            if gap <= target or float(H[k + 1, k]) <= 1e-14 * beta:
                break
            basis.append(w / H[k + 1, k])
        step = y @ torch.stack(basis[: k + 1])
        x = x + (step if M is None else M(step))
        if gap <= target or gap > 0.999 * beta:
            return x, gap, products  # done, or it stands still
        r = b - A(x)
        products += 1


def _least_squares(H: Tensor, beta: float) -> tuple[Tensor, float]:
    right = H.new_zeros(len(H))
    right[0] = beta
    y = torch.linalg.pinv(H) @ right
    return y, float(torch.linalg.vector_norm(right - H @ y))


def _bicgstab(
    A: Product, b: Tensor, start: Start, tol: float, most: int, M: Product | None
) -> tuple[Tensor, float, int]:
    x, r, products = start
    shadow = r.clone()
    rho = alpha = omega = torch.ones((), dtype=b.dtype, device=b.device)
    v = p = torch.zeros_like(b)
    target = tol * float(torch.linalg.vector_norm(b))
    while products < most and float(torch.linalg.vector_norm(r)) > target:
        new = torch.dot(shadow, r)
        if float(new.abs()) == 0.0 or float(omega.abs()) == 0.0:
            break
        p = r + new / rho * (alpha / omega) * (p - omega * v)
        q = p if M is None else M(p)
        v, rho = A(q), new
        alpha = rho / torch.dot(shadow, v)
        s = r - alpha * v
        z = s if M is None else M(s)
        t = A(z)
        products += 2
        omega = torch.dot(t, s) / torch.dot(t, t).clamp_min(1e-300)
        x, r = x + alpha * q + omega * z, s - omega * t
    return x, float(torch.linalg.vector_norm(r)), products
