"""Checks at the door: they raise before any work is done."""

from __future__ import annotations

import math
import numbers
from typing import TypeGuard

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


def is_real(value: object) -> TypeGuard[float]:
    """Whether ``value`` is a real number, and no truth value, text or array.

    >>> is_real(1.5), is_real(np.float32(1.5)), is_real("1.5"), is_real(True)
    (True, True, False, False)
    """
    return isinstance(value, numbers.Real) and not isinstance(value, bool)


def is_whole(value: object) -> TypeGuard[int]:
    """Whether ``value`` is a whole number, and no truth value.

    >>> is_whole(3), is_whole(3.0), is_whole(True)
    (True, False, False)
    """
    return isinstance(value, numbers.Integral) and not isinstance(value, bool)


def require_positive(owner: object, *names: str, zero: bool = False, infinite: bool = False) -> None:
    """Refuse options that are no real numbers above zero; zero and infinity pass where they are said to."""
    for name in names:
        given = getattr(owner, name)
        fits = is_real(given) and (given > 0 or (zero and given == 0)) and (infinite or given < math.inf)
        told = f"{type(owner).__name__} needs {name} {'>=' if zero else '>'} 0"
        require(fits, told if is_real(given) else f"{told}, a number", got=given)


def require_counts(owner: object, *names: str, least: int = 1) -> None:
    """Refuse options that are no whole numbers, or below the least."""
    for name in names:
        given = getattr(owner, name)
        told = f"{type(owner).__name__} needs {name} >= {least}, a whole number"
        require(is_whole(given) and given >= least, told, got=given)


def as_real(name: str, values: object) -> NDArray[np.float64]:
    """``values`` as a float64 array, or `InvalidProblem` where that would lose something or cannot be done.

    Takes what NumPy makes numbers of: arrays of whole and floating-point numbers, lists, tables and columns of pandas,
    tensors. Refuses complex numbers, text, masked entries, whole numbers with more digits than a float64 holds, and
    sparse matrices, which have readers of their own.

    >>> as_real("b", [1, 2])
    array([1., 2.])
    """
    if hasattr(values, "tocsr"):
        raise InvalidProblem(f"{name} is a sparse matrix; pass an array, such as {name}.toarray().")
    if np.ma.is_masked(values):
        raise InvalidProblem(f"{name} has masked entries; fill them first, with {name}.filled(value).")
    detach = getattr(values, "detach", None)
    try:
        given = np.asarray(values if detach is None else detach().cpu())
        if given.dtype == object:
            given = np.asarray(given, dtype=_widest(given))
    except (TypeError, ValueError, OverflowError, RuntimeError) as error:
        raise InvalidProblem(f"{name} is no array of numbers: {' '.join(str(error).split())}.") from error
    if given.dtype.kind == "c":
        raise InvalidProblem(
            f"{name} is complex; only real numbers are taken here. Pass its real part if that is meant."
        )
    if given.dtype.kind not in "buif":
        raise InvalidProblem(f"{name} holds {given.dtype}; expected numbers.")
    with np.errstate(over="ignore"):  # infinity is told by those who look for it
        found = np.ascontiguousarray(given, dtype=np.float64)
    if given.dtype.kind in "iu" and given.dtype.itemsize == 8 and given.size and not _is_held(given, found):
        raise InvalidProblem(
            f"{name} holds whole numbers beyond 2^53, whose last digits a float64 does not hold. Scale them down, or "
            f"round them with {name}.astype(float)."
        )
    return found


def _widest(given: NDArray[np.object_]) -> type[float] | type[complex]:
    return complex if any(isinstance(v, complex | np.complexfloating) for v in given.flat) else float


def _is_held(whole: NDArray[np.int64] | NDArray[np.uint64], found: NDArray[np.float64]) -> bool:
    """Whether each whole number is that of its float64."""
    limit = 2**53
    if -limit <= int(whole.min()) and int(whole.max()) <= limit:
        return True
    return all(int(a) == int(b) for a, b in zip(whole.flat, found.flat, strict=True))


def check_vector(name: str, values: object, length: int) -> NDArray[np.float64]:
    """Return ``values`` as a finite float64 vector, shape (length,), or raise `InvalidProblem`."""
    array = values if type(values) is np.ndarray and values.dtype == np.float64 else as_real(name, values)
    array = np.ascontiguousarray(array)
    if array.shape != (length,):
        raise InvalidProblem(f"{name} has shape {array.shape}; expected ({length},).")
    check_finite(name, array)
    return array
