"""Bases compared up to the order and the signs of their atoms, and two learners made one."""

from __future__ import annotations

import numpy as np
from numpy.typing import ArrayLike, NDArray
from scipy.optimize import linear_sum_assignment

from thalweg.core.errors import InvalidProblem
from thalweg.core.validation import as_real, check_finite

Matrix = NDArray[np.float64]


def random_orthogonal(n: int, random: np.random.Generator) -> Matrix:
    """An orthogonal matrix, shape (n, n), drawn evenly (Haar's measure)."""
    Q, R = np.linalg.qr(random.standard_normal((n, n)))
    return np.asarray(Q * np.sign(np.diag(R)))


def recovery_error(basis: ArrayLike, truth: ArrayLike) -> float:
    """``|1 - |D'T|_3^3 / n|`` of two orthogonal matrices, columns their atoms: 0 for the same atoms in any order.

    Signs do not count either. Near 1 - 1.6 / sqrt(n) for two that have nothing to do with each other.

    Raises:
        InvalidProblem: no square matrices of one size. NotFinite: NaN or infinity.

    >>> recovery_error([[0, 1], [-1, 0]], [[1, 0], [0, 1]])
    0.0
    """
    D, T = _pair(basis, truth)
    return abs(1.0 - float((np.abs(D.T @ T) ** 3).sum()) / len(D))


def match_atoms(basis: ArrayLike, reference: ArrayLike) -> tuple[NDArray[np.intp], Matrix, Matrix]:
    """The order and the signs under which atoms, columns of ``basis``, are nearest to those of ``reference``.

    Returns:
        order and signs, shape (n,) each, so that ``basis[:, order] * signs`` is near ``reference``; and the size of
        the cosine of each pair, shape (n,).

    Raises:
        InvalidProblem: no square matrices of one size, or an atom of zeros. NotFinite: NaN or infinity.

    Cost: an assignment, about n^3 operations.

    >>> order, signs, cosines = match_atoms([[0, -1], [1, 0]], [[1, 0], [0, 1]])
    >>> order.tolist(), signs.tolist(), cosines.tolist()
    ([1, 0], [-1.0, 1.0], [1.0, 1.0])
    """
    D, T = _pair(basis, reference)
    sizes = np.linalg.norm(D, axis=0), np.linalg.norm(T, axis=0)
    if not (sizes[0] > 0).all() or not (sizes[1] > 0).all():
        raise InvalidProblem("match_atoms: an atom is zero.")
    cosines = (T / sizes[1]).T @ (D / sizes[0])
    _, order = linear_sum_assignment(-np.abs(cosines))
    found = cosines[np.arange(len(D)), order]
    return order, np.where(found < 0, -1.0, 1.0), np.abs(found)


def _pair(basis: ArrayLike, truth: ArrayLike) -> tuple[Matrix, Matrix]:
    D, T = as_real("basis", basis), as_real("reference", truth)
    if D.ndim != 2 or D.shape[0] != D.shape[1] or D.shape != T.shape or not len(D):
        raise InvalidProblem(f"Bases have shapes {D.shape} and {T.shape}; expected (n, n) both.")
    check_finite("basis", D)
    check_finite("reference", T)
    return D, T
