"""Checks at the door: they raise before any work is done."""

from __future__ import annotations

import math

import numpy as np
from numpy.typing import ArrayLike, NDArray

from thalweg.core.errors import InvalidParameter, InvalidProblem, NotFinite, ThalwegError

_NOTHING = object()


def require(
    condition: bool, message: str, got: object = _NOTHING, error: type[ThalwegError] = InvalidParameter
) -> None:
    """Raise ``error(message)`` unless ``condition`` holds.

    >>> require(1.5 < 2, "SOR needs 0 < omega < 2", got=1.5)
    """
    if not condition:
        raise error(message if got is _NOTHING else f"{message}; got {got!r}.")


def check_finite(name: str, values: ArrayLike) -> None:
    """Raise `NotFinite` naming how many entries of ``values`` are NaN or infinite, and the first."""
    array = np.asarray(values)
    # One pass without a temporary in the usual case; an overflowing sum falls through to the exact test.
    with np.errstate(over="ignore", invalid="ignore"):
        if math.isfinite(float(np.sum(array))):
            return
    bad = ~np.isfinite(array)
    count = int(bad.sum())
    if count:
        first = np.argwhere(bad)[0]
        index = int(first[0]) if first.size == 1 else tuple(int(i) for i in first)
        kind = "NaN" if np.isnan(array[bad]).all() else "non-finite entries"
        raise NotFinite(
            f"{name} holds {count} {kind} (first at index {index}). Remove or impute them before solving."
        )


def check_vector(name: str, values: ArrayLike, length: int) -> NDArray[np.float64]:
    """Return ``values`` as a finite float64 vector, shape (length,), or raise `InvalidProblem`."""
    array = np.ascontiguousarray(values, dtype=np.float64)
    if array.shape != (length,):
        raise InvalidProblem(f"{name} has shape {array.shape}; expected ({length},).")
    check_finite(name, array)
    return array
