"""Codes in an orthonormal basis: which entries of ``z = D'y`` are kept, and how much room that saves."""

from __future__ import annotations

import math
from typing import Literal

import numpy as np
import scipy.sparse as sp
from numpy.typing import NDArray

from thalweg.core.errors import InvalidProblem
from thalweg.core.validation import as_real, is_real, is_whole, require

Matrix = NDArray[np.float64]
Coding = Literal["full", "top-k", "soft", "hard"]

#: Rounds of filling, and the share of the largest code that is the last of their falling thresholds.
ROUNDS, LAST = 16, 0.05


def largest(Z: Matrix, k: int) -> Matrix:
    """The k largest entries of each row by size, zeros elsewhere: the best k-term code in an orthonormal basis.

    >>> largest(np.array([[1.0, -3.0, 2.0]]), 2)
    array([[ 0., -3.,  2.]])
    """
    if k >= Z.shape[1]:
        return Z.copy()
    at = np.argpartition(np.abs(Z), -k, axis=1)[:, -k:]
    kept = np.zeros_like(Z)
    np.put_along_axis(kept, at, np.take_along_axis(Z, at, 1), 1)
    return kept


def coded(Z: Matrix, coding: Coding, n_nonzero: int | None, threshold: float | None) -> Matrix:
    """Codes kept by one of the four rules, with the numbers that `check_coding` has seen."""
    if coding == "full":
        return Z
    if coding == "top-k":
        return largest(Z, n_nonzero or 1)
    level = threshold or 0.0
    if coding == "hard":
        return np.where(np.abs(Z) > level, Z, 0.0)
    return np.sign(Z) * np.maximum(np.abs(Z) - level, 0.0)


def check_coding(coding: Coding, n_nonzero: int | None, threshold: float | None, n: int) -> None:
    """Refuse a rule without its number, or with one that it cannot use."""
    if coding == "top-k":
        require(
            is_whole(n_nonzero) and 1 <= n_nonzero <= n,
            f"coding='top-k' needs n_nonzero, how many codes to keep, 1 to {n}",
            got=n_nonzero,
        )
    elif coding in ("soft", "hard"):
        usable = is_real(threshold) and 0 <= threshold < math.inf
        require(
            usable,
            f"coding={coding!r} needs threshold, a number >= 0 in the units of the data",
            got=threshold,
        )


def filled(Y: Matrix, analysis: Matrix, synthesis: Matrix) -> Matrix:
    """Samples with NaN for missing entries, completed by codes: ``Y @ analysis``, and ``codes @ synthesis`` back.

    Codes are thresholded, missing entries are what they give, and the threshold falls from the largest code to a
    twentieth of it: morphological component analysis (Elad, Starck, Querre and Donoho, 2005) with one basis.

    Cost: 64 n^2 operations a sample.

    >>> filled(np.array([[1.0, np.nan]]), np.eye(2), np.eye(2))
    array([[1., 0.]])
    """
    missing = np.isnan(Y)
    whole = np.where(missing, 0.0, Y)
    top = np.abs(whole @ analysis).max(1, keepdims=True)
    for share in np.geomspace(1.0, LAST, ROUNDS):
        Z = whole @ analysis
        whole = np.where(missing, np.where(np.abs(Z) >= share * top, Z, 0.0) @ synthesis, whole)
    return whole


def compression_ratio(codes: Matrix | sp.csr_array, bits: int = 32) -> float:
    """Bits of the samples over bits of their codes: a value and its place for each that is not zero.

    Args:
        codes: shape (samples, n), dense or sparse, as many entries as the samples have.
        bits: of one value, in samples and codes alike. Default 32.

    A place takes ``log2 n`` bits, and each sample says how many codes it has. Infinite for no codes at all in samples
    of one entry; the basis itself, which both sides know, is not counted.

    Raises:
        InvalidProblem: codes of another shape. InvalidParameter: bits that are no number >= 1.

    >>> round(compression_ratio(np.array([[5.0, 0.0, 0.0, 0.0]]), bits=32), 2)
    3.46
    """
    require(is_whole(bits) and bits >= 1, "compression_ratio needs bits >= 1", got=bits)
    codes = codes if sp.issparse(codes) else as_real("codes", codes)
    if codes.ndim != 2 or not min(codes.shape):
        raise InvalidProblem(f"Codes have shape {codes.shape}; expected (samples, n).")
    rows, n = codes.shape
    kept = int(np.count_nonzero(codes) if isinstance(codes, np.ndarray) else codes.count_nonzero())
    place, count = math.ceil(math.log2(n)) if n > 1 else 0, math.ceil(math.log2(n + 1))
    return rows * n * bits / (kept * (bits + place) + rows * count)
