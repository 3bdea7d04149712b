"""Arrays from NumPy's files, and the checks that every number from a file passes."""

from __future__ import annotations

import warnings
import zipfile
import zlib
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import numpy as np
import scipy.sparse as sp
from numpy.typing import NDArray

from thalweg.core import InvalidProblem, NotFinite, UnreadableFile
from thalweg.datasets._cells import EXACT, refuse_loss

_REAL = "biuf"


def read_npy(path: Path) -> NDArray[np.generic]:
    """The array of a ``.npy`` file."""
    with path.open("rb") as file:
        if file.read(6) != b"\x93NUMPY":
            raise UnreadableFile(f"{path} is {_emptiness(path) or 'no .npy file: it does not begin as one'}.")
        file.seek(0)
        with _numbers_only(path):
            array: NDArray[np.generic] = np.lib.format.read_array(file, allow_pickle=False)
        if file.read(1):
            raise UnreadableFile(f"{path} holds more than one array; write each to its own file.")
    return array


def read_npz(path: Path) -> dict[str, NDArray[np.generic]]:
    """The arrays of a ``.npz`` file by their names."""
    with path.open("rb") as file:
        if file.read(4) not in (b"PK\x03\x04", b"PK\x05\x06"):
            raise UnreadableFile(f"{path} is {_emptiness(path) or 'no .npz file: it does not begin as one'}.")
        file.seek(0)
        with _numbers_only(path), np.load(file, allow_pickle=False) as archive:
            return {name: np.asarray(archive[name]) for name in archive}


@contextmanager
def _numbers_only(path: Path) -> Iterator[None]:
    try:
        with warnings.catch_warnings():
            warnings.filterwarnings("ignore", message=".*created on Python 2")  # read as well as any other
            yield
    except ValueError as error:
        if "allow_pickle" in str(error):
            raise UnreadableFile(f"{path} holds Python objects; expected numbers.") from None
        raise _damaged(path, error) from None
    except (EOFError, zipfile.BadZipFile, zlib.error) as error:
        raise _damaged(path, error) from None


def _damaged(path: Path, error: Exception) -> UnreadableFile:
    return UnreadableFile(f"{path} is damaged or cut short ({error}). Write or copy it again.")


def only_array(path: Path) -> NDArray[np.generic]:
    """The one array of a ``.npz`` file."""
    arrays = read_npz(path)
    if len(arrays) != 1:
        raise UnreadableFile(f"{path} holds the arrays {', '.join(arrays) or 'none'}; expected one.")
    return next(iter(arrays.values()))


def _emptiness(path: Path) -> str:
    return "" if path.stat().st_size else "empty"


def as_real(path: Path, name: str, array: NDArray[np.generic]) -> NDArray[np.float64]:
    """``array`` as float64, when that loses nothing but what rounding does.

    Raises:
        InvalidProblem: complex numbers; whole numbers whose last digits would be lost.
        UnreadableFile: words, dates, Python objects, fields; an array without entries.
    """
    if array.dtype.kind == "c":
        raise InvalidProblem(f"{path}: {name} is complex; only real systems are solved here.")
    if array.dtype.kind not in _REAL:
        raise UnreadableFile(f"{path}: {name} holds {_kind(array.dtype)}; expected real numbers.")
    if array.size == 0:
        raise UnreadableFile(f"{path}: {name} has shape {array.shape}: it holds no numbers.")
    with np.errstate(over="ignore"):
        real = array.astype(np.float64)
    if array.dtype.kind in "iu" and array.dtype.itemsize == 8:
        for index in np.argwhere((real >= EXACT) | (real <= -EXACT)):
            at = tuple(index)
            if int(real[at]) != int(array[at]):
                refuse_loss(f"{path}: {name}", str(array[at]))
    return real


def _kind(dtype: np.dtype[np.generic]) -> str:
    kinds = {"U": "words", "S": "words", "O": "Python objects", "V": "fields (a structured array)"}
    return kinds.get(dtype.kind, f"values of type {dtype}")


def check_shape(path: Path, name: str, array: NDArray[np.generic], dimensions: int, expected: str) -> None:
    """Refuse an array that has more dimensions than ``dimensions``."""
    if array.ndim > dimensions:
        raise UnreadableFile(f"{path} holds an array of shape {array.shape} for {name}; expected {expected}.")


def refuse_nan(
    path: Path, name: str, array: NDArray[np.float64], line: Callable[[int], int] | None = None
) -> None:
    """Refuse NaN and infinity in a vector or a matrix: how many there are, and where the first one is.

    ``line`` gives the number of the line where a row stands.
    """
    bad = ~np.isfinite(array)
    if bad.any():
        at = tuple(int(i) for i in np.argwhere(bad)[0])
        _refuse(path, name, array[bad], at, f"; this one is line {line(at[0])}" if line else "")


def refuse_nan_sparse(path: Path, name: str, array: sp.coo_array) -> None:
    """`refuse_nan` for the entries that a sparse matrix stores."""
    bad = np.flatnonzero(~np.isfinite(array.data))
    if len(bad):
        rows, columns = array.coords
        first = bad[np.lexsort((columns[bad], rows[bad]))[0]]
        _refuse(path, name, array.data[bad], (int(rows[first]), int(columns[first])), "")


def _refuse(path: Path, name: str, bad: NDArray[np.float64], at: tuple[int, ...], lines: str) -> None:
    kind = "NaN" if np.isnan(bad).all() else "non-finite entries"
    place = f"row {at[0]}" if len(at) == 1 else f"row {at[0]}, column {at[1]}"
    raise NotFinite(
        f"{path}: {name} holds {len(bad)} {kind} (first in {place}). Rows and columns count from 0{lines}. "
        "Remove or impute them before solving."
    )
