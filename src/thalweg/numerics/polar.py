"""Polar factors, ``A = Q H`` with Q orthogonal and H positive semidefinite; linear minimization on the spectral ball.

Q is the orthogonal matrix nearest to A (Fan and Hoffman, 1955), and ``<A, Q>`` is A's nuclear norm, the most that any
matrix of spectral norm 1 reaches. Higham (2008), "Functions of matrices", chapter 8.
"""

from __future__ import annotations

import math
from typing import TYPE_CHECKING, TypeVar

import numpy as np
from numpy.typing import NDArray

from thalweg.core.errors import InvalidProblem
from thalweg.core.validation import as_real, check_finite, is_real, is_whole, require

if TYPE_CHECKING:
    from torch import Tensor

Matrix = NDArray[np.float64]
ArrayOrTensor = TypeVar("ArrayOrTensor", NDArray[np.float64], "Tensor")

#: Steps of Newton and Schulz that bring singular values of 1e-3 of the largest to one: each multiplies them by 1.5.
STEPS = 24


def polar_factor(A: Matrix, near: Matrix | None = None) -> Matrix:
    """The orthogonal matrix nearest to A, shape (n, n), by singular values.

    Where A is singular many are equally near; of these the one nearest to ``near``, by default the identity, is
    taken. So the answer never hangs on how a library orders null vectors, and turns with A and ``near``.

    Raises:
        InvalidProblem: A is not square or complex, or ``near`` is of another shape.
        NotFinite: A holds NaN or infinity.

    Cost: one singular value decomposition, about 20 n^3 operations.

    >>> polar_factor(np.array([[2.0, 0.0], [0.0, -3.0]]))
    array([[ 1.,  0.],
           [ 0., -1.]])
    """
    A = as_real("The matrix", A)
    _check_square(A)
    check_finite("The matrix", A)
    return polar_and_values(A, near)[0]


def polar_and_values(A: Matrix, near: Matrix | None = None) -> tuple[Matrix, Matrix]:
    """`polar_factor` of a finite square matrix, and its singular values, descending, shape (n,)."""
    U, s, Vt = np.linalg.svd(A)
    rank = int((s > len(s) * np.finfo(float).eps * s[0]).sum())
    if rank < len(s):
        middle = U[:, rank:].T @ (Vt[rank:].T if near is None else near @ Vt[rank:].T)
        P, _, Qt = np.linalg.svd(middle)
        U[:, rank:] = U[:, rank:] @ (P @ Qt)
    return U @ Vt, s


def newton_schulz(A: ArrayOrTensor, steps: int = STEPS) -> ArrayOrTensor:
    """Polar factors by products alone: ``X <- 1.5 X - 0.5 X X' X`` from A over its spectral norm's bound.

    Args:
        A: shape (..., m, n), arrays or tensors on any device; leading axes are batches.
        steps: each multiplies small singular values by 1.5. Default 24: those above 1e-3 of the bound come to one
            within rounding. Smaller ones stay between 0 and 1, null ones at 0, so that the result always lies in
            the spectral ball.

    Use it for batches and on a GPU. One matrix on a CPU is faster, and exact, by `polar_factor`.

    Raises:
        InvalidProblem: A is no matrix.
        InvalidParameter: ``steps`` is not a number >= 1.

    Cost: 4 n^3 operations a step.

    >>> import torch
    >>> newton_schulz(torch.tensor([[2.0, 0.0], [0.0, -3.0]]))
    tensor([[ 1.,  0.],
            [ 0., -1.]])
    """
    require(A.ndim >= 2, "newton_schulz needs a matrix or a batch of them", tuple(A.shape), InvalidProblem)
    require(is_whole(steps) and steps >= 1, "newton_schulz needs steps >= 1", got=steps)
    X = _into_the_ball(A)
    is_wide = X.shape[-2] <= X.shape[-1]
    for _ in range(steps):
        Xt = X.swapaxes(-1, -2)
        X = 1.5 * X - 0.5 * ((X @ Xt) @ X if is_wide else X @ (Xt @ X))
    return X


def _into_the_ball(A: ArrayOrTensor) -> ArrayOrTensor:
    """A over a bound of its spectral norm, ``|A'A|_F^(1/2)``, which is at most n^(1/4) too large."""
    if isinstance(A, np.ndarray):
        largest = np.abs(A).max((-2, -1), keepdims=True)
        A = A / np.where(largest > 0, largest, 1.0)
        G = np.swapaxes(A, -1, -2) @ A
        bound = np.sqrt(np.linalg.norm(G, axis=(-2, -1), keepdims=True))
        return A / np.where(bound > 0, bound, 1.0)
    import torch  # here alone, for it is slow to load

    largest = A.abs().amax((-2, -1), keepdim=True)
    A = A / torch.where(largest > 0, largest, 1.0)
    G = A.mT @ A
    bound = torch.linalg.matrix_norm(G, keepdim=True).sqrt()
    return A / torch.where(bound > 0, bound, 1.0)


def spectral_ball(G: Matrix, radius: float = 1.0, near: Matrix | None = None) -> Matrix:
    """The S of least ``<G, S>`` among matrices of spectral norm at most ``radius``: ``-radius`` times G's polar factor.

    The least value is ``-radius`` times G's nuclear norm. Many S reach it where G is singular; the orthogonal one
    nearest to ``near`` is taken.

    Raises:
        InvalidProblem: G is not square. NotFinite: it holds NaN or infinity. InvalidParameter: a radius < 0.

    >>> spectral_ball(np.diag([3.0, -1.0]))
    array([[-1.,  0.],
           [ 0.,  1.]])
    """
    usable = is_real(radius) and 0 <= radius < math.inf
    require(usable, "spectral_ball needs a finite radius >= 0", got=radius)
    return radius * polar_factor(-as_real("G", G), near)


def _check_square(A: Matrix) -> None:
    if A.ndim != 2 or A.shape[0] != A.shape[1] or not len(A):
        raise InvalidProblem(f"A polar factor needs a square matrix; got shape {A.shape}.")
