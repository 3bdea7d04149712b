"""Linear systems given by products with torch vectors: no matrix, any device.

SciPy's solvers (`thalweg.numerics.krylov`) leave the device and the graph; these stay. Saad (2003), "Iterative methods
for sparse linear systems".
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, Literal

import numpy as np
import torch
from numpy.typing import NDArray
from scipy.linalg import solve_triangular
from torch import Tensor

from thalweg.core.errors import InvalidParameter, UnknownName
from thalweg.core.validation import require_counts, require_positive
from thalweg.numerics.tensor_checks import divisor

Product = Callable[[Tensor], Tensor]
MethodName = Literal["auto", "dense", "cg", "normal-cg", "gmres", "bicgstab"]
METHODS = ("auto", "dense", "cg", "normal-cg", "gmres", "bicgstab")
#: Where a Krylov method starts: x, its residual, and the products that took.
Start = tuple[Tensor, Tensor, int]
#: Where it ends: x, the norm of its residual, and the products.
Found = tuple[Tensor, float, int]
#: Words of torch about a product that looks at numbers, or leaves torch, or has no rule for many vectors at once.
WITHOUT_RULE = ("vmap", "atching rule", "have storage", "functorch")
#: Unknowns up to which ``"auto"`` makes the matrix and factors it: any matrix, and one that is symmetric.
DENSE, DENSE_SYMMETRIC = 256, 64
#: Products that ``"auto"`` gives conjugate gradients, a share of the unknowns, before a matrix is the better way.
LEAST, SHARE = 20, 0.25
#: Krylov vectors that GMRES makes room for at first; twice as many whenever they are full.
FEW = 16


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
            squares if it is singular; ``"auto"``, the default, is dense up to 64 unknowns. Above, two products tell
            whether A is symmetric: then it tries conjugate gradients, else, or where they fail, it is dense up to 256
            unknowns and GMRES above.
        tol: of the relative residual.
        max_steps: products; by default ten times the unknowns.
        ridge: added to the diagonal, for singular or badly conditioned A.
        restart: Krylov vectors that GMRES keeps at most.
        preconditioner: an approximation of the inverse of A; for ``"cg"`` symmetric positive definite.

    >>> A = torch.tensor([[2.0, 1.0], [0.0, 3.0]], dtype=torch.float64)
    >>> LinearSolver("gmres")(lambda v: A @ v, torch.ones(2, dtype=torch.float64)).x
    tensor([0.3333, 0.3333], dtype=torch.float64)
    """

    method: MethodName = "auto"
    tol: float = 1e-10
    max_steps: int | None = None
    ridge: float = 0.0
    restart: int = 60
    preconditioner: Product | None = None

    def __post_init__(self) -> None:
        if self.method not in METHODS:
            raise UnknownName("linear solver", self.method, METHODS)
        require_positive(self, "tol", "ridge", zero=True)
        require_counts(self, "restart")

    @torch.no_grad()
    def __call__(
        self, A: Product, b: Tensor, transposed: Product | None = None, x0: Tensor | None = None
    ) -> LinearSolution:
        """Solve with products ``A(v)``; ``transposed(v)`` is needed by ``"normal-cg"`` only."""

        def product(v: Tensor) -> Tensor:
            return A(v) + self.ridge * v if self.ridge else A(v)

        most = self.max_steps if self.max_steps is not None else 10 * len(b)
        size = float(torch.linalg.vector_norm(b))
        if size == 0.0:
            return LinearSolution(torch.zeros_like(b), 0.0, 0)
        start = (torch.zeros_like(b), b, 0) if x0 is None else (x0, b - product(x0), 1)
        method = self.method
        if method == "auto":
            method, chosen, tried = self._chosen(product, start, self.tol * size, most)
            if tried is not None:
                return LinearSolution(tried[0], tried[1] / size, tried[2])
        else:
            chosen = product
        if method == "dense":
            x, gap = _dense(chosen, b)
            products = len(b)
        elif method == "normal-cg":
            if transposed is None:
                raise InvalidParameter("'normal-cg' needs products with the transpose.")

            def normal(v: Tensor) -> Tensor:
                w = product(v)
                return transposed(w) + self.ridge * w

            right = transposed(b) + self.ridge * b
            gap_normal = right if x0 is None else right - normal(x0)
            target = self.tol * float(torch.linalg.vector_norm(right))
            x, _, products = _cg(normal, (start[0], gap_normal, 1), target, most, None)
            gap = float(torch.linalg.vector_norm(b - product(x)))
        elif method == "cg":
            x, gap, products = _cg(product, start, self.tol * size, most, self.preconditioner)
        elif method == "gmres":
            x, gap, products = _gmres(
                chosen, b, start, self.tol * size, most, self.restart, self.preconditioner
            )
        else:
            x, gap, products = _bicgstab(product, b, start, self.tol, most, self.preconditioner)
        return LinearSolution(x, gap / size, products)

    def _chosen(
        self, A: Product, start: Start, target: float, most: int
    ) -> tuple[MethodName, Product, Found | None]:
        """The method for this matrix, its product, and the solution where conjugate gradients have found it."""
        x, r, products = start
        n = len(r)
        general: MethodName = "dense" if n <= DENSE else "gmres"
        if n <= DENSE_SYMMETRIC or self.preconditioner is not None:  # one for GMRES need not suit symmetric A
            return general, A, None
        first = A(r)
        if not _symmetric(A, r, first):
            return (
                general,
                A if general == "dense" else _beginning(A, first / torch.linalg.vector_norm(r)),
                None,
            )
        few = most if n > DENSE else min(most, max(LEAST, int(SHARE * n)))
        found = _cg(_beginning(A, first), (x, r, products + 1), target, products + few, None)
        return general, A, found if found[1] <= target else None


def _beginning(A: Product, first: Tensor) -> Product:
    """A, whose first product is there."""
    waiting = [first]
    return lambda v: waiting.pop() if waiting else A(v)


def _symmetric(A: Product, r: Tensor, Ar: Tensor) -> bool:
    """Whether ``p'A r = r'A p`` for a p without pattern; where a matrix passes by chance, its residual tells."""
    p = torch.arange(1, len(r) + 1, dtype=r.dtype, device=r.device).square_().sin_()
    Ap = A(p)
    norms = [float(torch.linalg.vector_norm(v)) for v in (p, Ar, r, Ap)]
    gap = abs(float(torch.dot(p, Ar)) - float(torch.dot(r, Ap)))
    return gap <= torch.finfo(r.dtype).eps ** 0.75 * (norms[0] * norms[1] + norms[2] * norms[3])


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
    LU, pivots, info = torch.linalg.lu_factor_ex(matrix)
    eps = torch.finfo(b.dtype).eps
    diagonal = LU.diagonal().abs()
    smallest, largest = float(diagonal.min()), float(diagonal.max())
    if int(info) == 0 and smallest > eps**0.75 * largest:
        x = torch.linalg.lu_solve(LU, pivots, b[:, None])[:, 0]
        residual = float(torch.linalg.vector_norm(matrix @ x - b))
        scale = float(matrix.abs().max()) * float(x.abs().max()) + float(b.abs().max())
        if residual <= 1e3 * len(b) * eps * scale:
            return x
    # rounding leaves a singular matrix with singular values of some hundred eps: they are no information
    return torch.linalg.pinv(matrix, rtol=eps**0.75) @ b


def _cg(A: Product, start: Start, target: float, most: int, M: Product | None) -> Found:
    """Until the residual's norm is at most ``target``. Scalars are Python's: a tensor for each costs microseconds."""
    x, r, products = start[0].clone(), start[1].clone(), start[2]
    z = r if M is None else M(r)
    p, sign = z, 0.0
    rz, rr = float(torch.dot(r, z)), float(torch.dot(r, r))
    while products < most and rr > target**2:
        Ap = A(p)
        products += 1
        along = float(torch.dot(p, Ap))
        sign = sign or math.copysign(1.0, along)
        if not sign * along > 0.0:
            break  # not definite: the residual tells
        alpha = rz / along
        x.add_(p, alpha=alpha)
        r = torch.add(r, Ap, alpha=-alpha)
        z = r if M is None else M(r)
        new = float(torch.dot(r, z))
        rr = new if M is None else float(torch.dot(r, r))
        p, rz = torch.add(z, p, alpha=new / rz), new
    return x, math.sqrt(rr), products


def _gmres(
    A: Product, b: Tensor, start: Start, target: float, most: int, restart: int, M: Product | None
) -> Found:
    """Preconditioned from the right, so that the residual is the system's own; orthogonalised twice."""
    x, r, products = start
    most_rows = min(restart, len(b), max(most, 1)) + 1
    V = b.new_empty(min(most_rows, FEW), len(b))
    while True:
        beta = float(torch.linalg.vector_norm(r))
        if beta <= target or products >= most or not math.isfinite(beta):
            return x, beta, products
        torch.mul(r, 1.0 / beta, out=V[0])
        small = _Triangle(beta)
        for k in range(min(most_rows - 1, most - products)):
            w = A(V[k] if M is None else M(V[k]))
            products += 1
            basis = V[: k + 1]
            h = basis @ w
            w = torch.addmv(w, basis.T, h, alpha=-1.0)
            again = basis @ w
            w = torch.addmv(w, basis.T, again, alpha=-1.0)
            rest = float(torch.linalg.vector_norm(w))
            gap = small.add((h + again).tolist(), rest)
            if gap <= target or not rest > 1e-14 * beta:
                break
            if k + 1 == V.shape[0]:
                V = torch.cat([V, V.new_empty(min(k + 1, most_rows - k - 1), len(b))])
            torch.mul(w, 1.0 / rest, out=V[k + 1])
        y, gap = small.solved()
        step = torch.from_numpy(y).to(b) @ V[: len(y)]
        x = x + (step if M is None else M(step))
        if gap <= target or not gap <= 0.999 * beta:
            return x, gap, products  # done, or it stands still
        r = b - A(x)
        products += 1


class _Triangle:
    """GMRES's small least-squares problem, kept triangular by rotations as its columns come."""

    def __init__(self, beta: float) -> None:
        self.columns: list[list[float]] = []
        self.turns: list[tuple[float, float]] = []
        self.right = [beta]

    def add(self, column: list[float], below: float) -> float:
        """A column of Hessenberg's matrix, and the entry below its diagonal; gives the residual's norm."""
        k = len(self.columns)
        for i, (c, s) in enumerate(self.turns):
            column[i : i + 2] = (c * column[i] + s * column[i + 1], c * column[i + 1] - s * column[i])
        length = math.hypot(column[k], below)
        c, s = (column[k] / length, below / length) if length else (1.0, 0.0)
        column[k] = length
        self.columns.append(column)
        self.turns.append((c, s))
        self.right.append(-s * self.right[k])
        self.right[k] *= c
        return abs(self.right[k + 1])

    def solved(self) -> tuple[NDArray[Any], float]:
        """The minimiser, and the residual's norm; of least norm where the triangle is singular."""
        m = len(self.columns)
        T, right = np.zeros((m, m)), np.array(self.right[:m])
        for j, column in enumerate(self.columns):
            T[: j + 1, j] = column
        diagonal = np.abs(T.diagonal())
        if diagonal.min() > 1e-14 * diagonal.max():
            return np.asarray(solve_triangular(T, right, check_finite=False)), abs(self.right[m])
        y = np.linalg.pinv(T, rcond=1e-14) @ right
        return np.asarray(y), math.hypot(float(np.linalg.norm(T @ y - right)), self.right[m])


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
        products += 1
        pivot = torch.dot(shadow, v)
        if float(pivot.abs()) == 0.0:
            break
        alpha = rho / pivot
        s = r - alpha * v
        z = s if M is None else M(s)
        t = A(z)
        products += 1
        omega = torch.dot(t, s) / divisor(torch.dot(t, t))
        x, r = x + alpha * q + omega * z, s - omega * t
    return x, float(torch.linalg.vector_norm(r)), products
