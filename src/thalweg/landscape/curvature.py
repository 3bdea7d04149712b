"""Curvature of a loss surface: Hessian products, largest eigenvalues, trace, and forms along a direction.

Pearlmutter (1994), "Fast exact multiplication by the Hessian"; Hutchinson (1990) for the trace.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from scipy.linalg import eigh_tridiagonal
from scipy.sparse.linalg import LinearOperator
from torch import Tensor, nn
from torch.func import grad, jvp, vmap

from thalweg.core import InvalidProblem
from thalweg.core.seeding import torch_generator
from thalweg.core.validation import is_real, is_whole, require
from thalweg.landscape.surface import LossSurface, Place, require_surface
from thalweg.numerics.lanczos import lanczos

Array = NDArray[np.float64]

#: Activations whose curvature sits in kinks, where derivatives do not see it.
KINKED = (
    nn.ReLU,
    nn.LeakyReLU,
    nn.PReLU,
    nn.RReLU,
    nn.ReLU6,
    nn.Hardtanh,
    nn.Threshold,
    nn.MaxPool1d,
    nn.MaxPool2d,
)


def hessian(surface: LossSurface, place: Place) -> LinearOperator:
    """The Hessian at a network as an operator, shape (p, p): a product costs about two gradients.

    Kinks of piecewise linear activations have no Hessian; the products see the smooth part alone.

    >>> _ = torch.manual_seed(0)
    >>> network = nn.Linear(2, 1, bias=False).double()
    >>> X, y = torch.tensor([[1.0, 0.0], [0.0, 2.0]], dtype=torch.float64), torch.zeros(2, 1, dtype=torch.float64)
    >>> surface = LossSurface(network, (X, y), lambda model, X, y: 0.5 * (model(X) - y).square().mean())
    >>> hessian(surface, network) @ np.eye(2)
    array([[0.5, 0. ],
           [0. , 2. ]])
    """
    require_surface(surface)
    _smooth_statistics(surface)
    theta = surface.theta(place).clone().requires_grad_()
    kept: dict[int, Tensor] = {}

    def slope(k: int) -> Tensor:
        """The gradient of a batch with its graph, which is kept where there is one batch only."""
        if k not in kept:
            found = torch.autograd.grad(surface.at(theta, *surface.batches[k]), theta, create_graph=True)[0]
            if len(surface.batches) > 1:
                return found
            kept[k] = found
        return kept[k]

    def product(vector: Array) -> Array:
        direction = torch.from_numpy(np.ascontiguousarray(vector)).reshape(-1).to(theta)
        total = np.zeros(surface.size)
        for k, batch in enumerate(surface.batches):
            bend = torch.autograd.grad(slope(k), theta, direction, retain_graph=len(surface.batches) == 1)[0]
            total += bend.double().cpu().numpy() * (len(batch[0]) / surface.examples)
        return total

    return LinearOperator((surface.size, surface.size), matvec=product, rmatvec=product, dtype=np.float64)


def gradient(surface: LossSurface, place: Place) -> Array:
    """The gradient at a network, shape (p,)."""
    require_surface(surface)
    _smooth_statistics(surface)
    theta = surface.theta(place)
    total = np.zeros(surface.size)
    for batch in surface.batches:
        slope = grad(lambda theta, batch=batch: surface.at(theta, *batch))(theta)
        total += slope.double().cpu().numpy() * (len(batch[0]) / surface.examples)
    return total


@dataclass(frozen=True, eq=False)
class Eigenpairs:
    """Largest eigenvalues of a Hessian.

    Args:
        values: descending, (k,).
        vectors: (k, p).
        products: Hessian products used.
        errors: bounds of the values' errors, (k,): some eigenvalue lies so near.
    """

    values: Array
    vectors: Array
    products: int
    errors: Array


def top_eigenvalues(
    surface: LossSurface,
    place: Place,
    k: int = 1,
    *,
    tol: float = 1e-3,
    max_products: int = 200,
    seed: int = 0,
) -> Eigenpairs:
    """The k largest eigenvalues of the Hessian, by Lanczos with full reorthogonalisation.

    Args:
        tol: the values' errors as a share of the largest. The bound for an eigenvalue that stands apart is the squared
            residual over the gap; where gaps are small it is the residual. With k > 1 further starts look for
            eigenvalues that are there several times.
        max_products: Hessian products at most; `Eigenpairs.errors` says how far it came.
        seed: of the start.

    Memory: a float64 vector of all weights for each product.

    Source: Parlett (1998), theorems 4.5.1 and 11.7.1 for the bounds.
    """
    require_surface(surface)
    require(is_whole(k) and 1 <= k <= surface.size, f"top_eigenvalues needs 1 <= k <= {surface.size}", got=k)
    require(is_real(tol) and 0 < tol < 1, "top_eigenvalues needs 0 < tol < 1", got=tol)
    require(
        is_whole(max_products) and max_products >= k,
        "top_eigenvalues needs max_products >= k",
        got=max_products,
    )
    operator = hessian(surface, place)
    values, vectors, errors, used = _largest(operator, k, tol, max_products, seed)
    while k > 1 and used < max_products and len(values) < surface.size:
        # a Krylov space holds each eigenvalue once: is there another copy beside those found?
        rest, vector, error, more = _largest(
            _without(operator, vectors, values), 1, tol, max_products - used, seed + 1
        )
        used += more
        if len(values) == k and rest[0] <= values[-1] + errors[-1]:
            break
        order = np.argsort(np.append(values, rest))[::-1][:k]
        values, errors = np.append(values, rest)[order], np.append(errors, error)[order]
        vectors = np.concatenate([vectors, vector])[order]
    return Eigenpairs(values, vectors, used, errors)


def _without(operator: LinearOperator, vectors: Array, values: Array) -> LinearOperator:
    """The operator on the complement of orthonormal eigenvectors; on their span below all that is looked for."""
    low = 2.0 * float(np.abs(values).max())

    def product(v: Array) -> Array:
        given = np.asarray(v).ravel()
        inside = vectors @ given
        image = np.asarray(operator.matvec(given - vectors.T @ inside), dtype=np.float64)
        return image - vectors.T @ (vectors @ image) - low * (vectors.T @ inside)

    return LinearOperator(operator.shape, matvec=product, dtype=np.float64)


def _largest(
    operator: LinearOperator, k: int, tol: float, most: int, seed: int
) -> tuple[Array, Array, Array, int]:
    """The k largest eigenvalues of a Krylov space, their vectors and error bounds, and the products used."""
    size = operator.shape[0]
    last = [0.0]

    def until(diagonal: Array, beside: Array) -> bool:
        last[0] = float(beside[-1])
        if len(diagonal) <= k:
            return False
        values, errors = _bounds(diagonal, beside[:-1], last[0], k)
        return bool((errors <= tol * max(abs(values[0]), 1e-300)).all())

    Q, diagonal, beside = lanczos(operator, min(most, size), seed=seed, until=until)
    exhausted = len(diagonal) == size
    values, errors = _bounds(diagonal, beside, 0.0 if exhausted else last[0], min(k, len(diagonal)))
    _, V = eigh_tridiagonal(diagonal, beside)
    vectors = np.asarray(V, dtype=np.float64).T[::-1][: len(values)] @ Q
    return values, vectors, errors, len(diagonal)


def _bounds(diagonal: Array, beside: Array, last: float, k: int) -> tuple[Array, Array]:
    """The k largest Ritz values, descending, and bounds of their errors."""
    values, V = eigh_tridiagonal(diagonal, beside)
    residuals = last * np.abs(np.asarray(V)[-1])
    ritz, residuals = np.asarray(values, dtype=np.float64)[::-1], residuals[::-1]
    errors = residuals.copy()
    for i in range(min(k, len(ritz))):
        others = np.delete(ritz, i)
        if others.size:
            gap = float((np.abs(others - ritz[i]) - np.delete(residuals, i)).min())
            if gap > residuals[i]:
                errors[i] = min(errors[i], residuals[i] ** 2 / gap)
    return ritz[:k], errors[:k]


@dataclass(frozen=True)
class Trace:
    """An estimate of a trace and its standard error."""

    value: float
    error: float


def trace(surface: LossSurface, place: Place, samples: int = 32, seed: int = 0) -> Trace:
    """The Hessian's trace by Hutchinson's estimator with random signs; a Hessian product a sample.

    >>> _ = torch.manual_seed(0)
    >>> network = nn.Linear(2, 1, bias=False).double()
    >>> X, y = torch.tensor([[1.0, 0.0], [0.0, 2.0]], dtype=torch.float64), torch.zeros(2, 1, dtype=torch.float64)
    >>> surface = LossSurface(network, (X, y), lambda model, X, y: 0.5 * (model(X) - y).square().mean())
    >>> trace(surface, network).value  # a diagonal Hessian: no error
    2.5
    """
    require_surface(surface)
    require(is_whole(samples) and samples >= 2, "trace needs samples >= 2", got=samples)
    operator, generator = hessian(surface, place), torch_generator(seed, 0x7A)
    found = []
    for _ in range(samples):
        signs = torch.randint(0, 2, (surface.size,), generator=generator).double().numpy() * 2.0 - 1.0
        found.append(float(signs @ operator.matvec(signs)))
    return Trace(float(np.mean(found)), float(np.std(found, ddof=1) / math.sqrt(samples)))


def along(surface: LossSurface, place: Place, direction: Tensor) -> tuple[float, float, float]:
    """``phi(0), phi'(0), phi''(0)`` of ``phi(t) = L(theta + t d)``, by two nested forward products."""
    require_surface(surface)
    _smooth_statistics(surface)
    theta = surface.theta(place)
    totals = np.zeros(3)
    for batch in surface.batches:
        zero = theta.new_zeros(())
        one = torch.ones_like(zero)

        def value(t: Tensor, batch: tuple[Tensor, ...] = batch) -> Tensor:
            return surface.at(theta + t * direction, *batch)

        def slope(t: Tensor, value: Callable[[Tensor], Tensor] = value, one: Tensor = one) -> Any:  # noqa: ANN401
            return jvp(value, (t,), (one,))

        found: Any = jvp(slope, (zero,), (one,))
        (first, second), (_, third) = found
        totals += np.array([float(first), float(second), float(third)]) * (len(batch[0]) / surface.examples)
    return float(totals[0]), float(totals[1]), float(totals[2])


def fisher_form(surface: LossSurface, place: Place, direction: Tensor) -> float:
    """``d' F d`` with the empirical Fisher matrix: the mean over examples of the squared slope of its loss along d.

    Non-negative, and without second derivatives.
    """
    require_surface(surface)
    _smooth_statistics(surface)
    theta = surface.theta(place)
    total = 0.0
    for batch in surface.batches:

        def slope(*example: Tensor) -> Tensor:
            one = tuple(part[None] for part in example)
            found: Tensor = jvp(lambda at: surface.at(at, *one), (theta,), (direction,))[1]
            return found

        total += float(vmap(slope)(*batch).double().square().sum())
    return total / surface.examples


def has_kinks(surface: LossSurface) -> bool:
    """Whether the network has piecewise linear modules, whose curvature derivatives do not see."""
    require_surface(surface)
    return any(isinstance(module, KINKED) for module in surface.module.modules())


def _smooth_statistics(surface: LossSurface) -> None:
    if surface.statistics is not None:
        raise InvalidProblem(
            "Derivatives with batch normalisation are not taken here: its statistics change with the weights. Fold it "
            "into the layers before, or use layer or group normalisation."
        )
