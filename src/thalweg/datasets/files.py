"""Matrices and vectors from the user's files."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np
import scipy.io
import scipy.sparse as sp
from numpy.typing import NDArray

from thalweg.core import ThalwegError, UnreadableFile


@contextmanager
def reading(path: Path, kinds: str) -> Iterator[None]:
    """Turn whatever a reader raises into an `UnreadableFile` that names the file and what was expected."""
    if not path.is_file():
        raise UnreadableFile(f"No file {path}. Expected {kinds}.")
    try:
        yield
    except ThalwegError:
        raise
    except (OSError, ValueError, KeyError, TypeError, IndexError, StopIteration, EOFError) as error:
        raise UnreadableFile(f"{path} could not be read as {kinds}: {error}.") from error


def load_matrix(path: str | Path) -> sp.csr_array:
    """A matrix from ``.mtx`` (Matrix Market), ``.npz`` (SciPy's, or one array), ``.npy`` or ``.csv``.

    Raises:
        UnreadableFile: the file is absent, damaged, or of another kind.
    """
    path = Path(path)
    kinds = "a matrix in .mtx, .npz, .npy or .csv"
    with reading(path, kinds):
        if path.name.endswith((".mtx", ".mtx.gz")):
            return sp.csr_array(scipy.io.mmread(path))
        if path.suffix == ".npz":
            return _matrix_from_npz(path)
        return sp.csr_array(np.atleast_2d(_plain_array(path, kinds)))


def load_vector(path: str | Path) -> NDArray[np.float64]:
    """A vector from ``.mtx`` (one row or column), ``.npy``, ``.npz`` with one array, ``.csv`` or ``.txt``.

    Raises:
        UnreadableFile: the file is absent, damaged, of another kind, or holds a matrix.
    """
    path = Path(path)
    kinds = "a vector in .mtx, .npy, .npz, .csv or .txt"
    with reading(path, kinds):
        if path.name.endswith((".mtx", ".mtx.gz")):
            array = scipy.io.mmread(path)
            array = array.toarray() if sp.issparse(array) else array
        elif path.suffix == ".npz":
            array = _only_array(path)
        else:
            array = _plain_array(path, kinds)
        array = np.asarray(array, dtype=np.float64)
        if array.size != max(array.shape, default=1):
            raise UnreadableFile(f"{path} holds an array of shape {array.shape}; expected {kinds}.")
        return array.reshape(-1)


def _matrix_from_npz(path: Path) -> sp.csr_array:
    try:
        return sp.csr_array(sp.load_npz(path))
    except ValueError:
        return sp.csr_array(_only_array(path))


def _only_array(path: Path) -> NDArray[Any]:
    with np.load(path, allow_pickle=False) as archive:
        names = list(archive)
        if len(names) != 1:
            raise UnreadableFile(f"{path} holds the arrays {', '.join(names)}; expected one.")
        array: NDArray[Any] = archive[names[0]]
        return array


def _plain_array(path: Path, kinds: str) -> NDArray[np.float64]:
    if path.suffix == ".npy":
        return np.asarray(np.load(path, allow_pickle=False), dtype=np.float64)
    if path.suffix == ".csv":
        return np.loadtxt(path, delimiter=",")
    if path.suffix == ".txt":
        return np.loadtxt(path)
    raise UnreadableFile(f"{path} has an unknown ending; expected {kinds}.")
