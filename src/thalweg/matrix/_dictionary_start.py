"""Where the search for a stream's basis starts."""

from __future__ import annotations

import numpy as np
from numpy.typing import ArrayLike
from scipy.fft import dct

from thalweg.core import InvalidProblem
from thalweg.core.validation import as_real
from thalweg.matrix._dictionary_steps import Matrix

#: How far from orthogonal a given start may be.
ORTHOGONAL = 1e-6


def first_basis(start: str | ArrayLike, X: Matrix, random: np.random.RandomState) -> Matrix:
    """D, shape (n, n): random, cosines, eigenvectors of the second moment of X, shape (samples, n), or as given."""
    n = X.shape[1]
    if not isinstance(start, str):
        given = as_real("start", start)
        if given.shape != (n, n) or not np.abs(given.T @ given - np.eye(n)).max() <= ORTHOGONAL:
            raise InvalidProblem(
                f"OnlineDictionary: start has shape {given.shape}; expected orthonormal columns, ({n}, {n})."
            )
        return given
    if start == "dct":
        return np.asarray(dct(np.eye(n), norm="ortho", axis=1))
    if start == "pca":
        whole = X[~np.isnan(X).any(1)]
        whole = whole / (float(np.abs(whole).max(initial=0.0)) or 1.0)
        return np.asarray(np.linalg.eigh(whole.T @ whole)[1][:, ::-1])
    Q, R = np.linalg.qr(random.standard_normal((n, n)))
    return np.asarray(Q * np.sign(np.diag(R)))
