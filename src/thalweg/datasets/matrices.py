"""Matrices and vectors from the user's files."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import numpy as np
import scipy.sparse as sp
from numpy.typing import NDArray

from thalweg.core import UnreadableFile
from thalweg.datasets._arrays import (
    as_real,
    check_shape,
    only_array,
    read_npy,
    read_npz,
    refuse_nan,
    refuse_nan_sparse,
)
from thalweg.datasets._matrix_market import read_matrix_market
from thalweg.datasets._text import ending, is_compressed, reading
from thalweg.datasets.tables import TABLES, read_table, refuse_header

_ENDINGS = ".mtx, .npz, .npy, .csv, .tsv or .txt"


@dataclass(frozen=True, eq=False)
class NamedMatrix:
    """A matrix with what its file calls the columns: ``values``, shape (rows, columns), and ``names``.

    ``names`` is empty where the file has no header.
    """

    values: NDArray[np.float64]
    names: tuple[str, ...] = ()


def load_matrix(path: str | Path, *, header: bool | None = None, name: str = "A") -> sp.csr_array:
    """A matrix from Matrix Market, from SciPy's or NumPy's files, or from a table of numbers.

    ``.mtx``; ``.npz`` (a sparse matrix of SciPy, or one array); ``.npy``; ``.csv``, ``.tsv`` and ``.txt`` in any
    dialect, with a header or without. Texts may be compressed: ``.mtx.gz``, ``.csv.bz2``, ``.txt.xz``. A column of
    a table is a column, a row a row; a one-dimensional array is one row.

    Args:
        path: the file.
        header: whether the first line of a table holds names. Default: decided from that line.
        name: what messages call the matrix.

    Raises:
        UnreadableFile: the file is absent, damaged, or of another kind; says the line where there are lines.
        InvalidProblem: complex numbers, words, whole numbers beyond float64, a symmetric file of both triangles.
        NotFinite: NaN or infinity; says the first place.

    >>> import tempfile
    >>> with tempfile.TemporaryDirectory() as folder:
    ...     _ = Path(folder, "A.csv").write_text("1,5;2\\n2;1,5\\n")
    ...     load_matrix(Path(folder, "A.csv")).toarray().tolist()
    [[1.5, 2.0], [2.0, 1.5]]
    """
    found = _load(Path(path), header, name, "a matrix")
    return found if isinstance(found, sp.csr_array) else sp.csr_array(found.values)


def load_named_matrix(path: str | Path, *, header: bool | None = None, name: str = "A") -> NamedMatrix:
    """`load_matrix` as a dense array, with the names that the header of a table gives its columns.

    >>> import tempfile
    >>> with tempfile.TemporaryDirectory() as folder:
    ...     _ = Path(folder, "times.csv").write_text("ann,bob\\n1,2\\n3,4\\n")
    ...     load_named_matrix(Path(folder, "times.csv")).names
    ('ann', 'bob')
    """
    found = _load(Path(path), header, name, "a matrix")
    if isinstance(found, NamedMatrix):
        return found
    try:
        return NamedMatrix(found.toarray())
    except MemoryError:
        rows, columns = found.shape
        raise UnreadableFile(f"{path} is {rows} x {columns}: too large to be held dense.") from None


def load_vector(path: str | Path, *, header: bool | None = None, name: str = "b") -> NDArray[np.float64]:
    """A vector, shape (n,), from the same files as `load_matrix`: one row, one column, or one array.

    Raises:
        UnreadableFile: the file is absent, damaged, of another kind, or holds a matrix.
        InvalidProblem, NotFinite: as `load_matrix`.
    """
    path = Path(path)
    found = _load(path, header, name, "a vector")
    shape = found.shape if isinstance(found, sp.csr_array) else found.values.shape
    if 1 not in shape:
        raise UnreadableFile(
            f"{path} holds an array of shape {shape}; expected a vector: one row or one column."
        )
    return (found.toarray() if isinstance(found, sp.csr_array) else found.values).reshape(-1)


def load_right_sides(path: str | Path, *, header: bool | None = None, name: str = "b") -> NDArray[np.float64]:
    """Right-hand sides from the same files as `load_matrix`: shape (n,) of one row or one column, else (n, k).

    Raises:
        UnreadableFile, InvalidProblem, NotFinite: as `load_matrix`.
    """
    found = load_named_matrix(path, header=header, name=name).values
    return found.reshape(-1) if 1 in found.shape else found


def load_arrays(path: str | Path) -> dict[str, NDArray[np.generic]]:
    """All arrays of a ``.npz`` file by their names.

    Raises:
        UnreadableFile: absent, damaged, of another kind, or with Python objects.
    """
    path = Path(path)
    with reading(path, "arrays in .npz"):
        return read_npz(path)


def _load(path: Path, header: bool | None, name: str, what: str) -> sp.csr_array | NamedMatrix:
    kinds = f"{what} in {_ENDINGS}"
    with reading(path, kinds):
        kind = ending(path)
        if kind in TABLES:
            table = read_table(path, header=header)
            table.refuse_numbering()
            table.refuse_doubt(if_likely=True)
            values = table.values()
            refuse_nan(path, name, values, table.line)
            return NamedMatrix(values, table.names if table.has_header else ())
        refuse_header(path, header)
        if kind == ".mtx":
            return _finished(path, read_matrix_market(path, name), name)
        if is_compressed(path) or kind not in (".npy", ".npz"):
            raise UnreadableFile(f"{path} has an unknown ending; expected {kinds}.")
        if kind == ".npz":
            sparse = _sparse(path, name)
            if sparse is not None:
                return _finished(path, sparse, name)
        array = only_array(path) if kind == ".npz" else read_npy(path)
        check_shape(path, name, array, 2, "a matrix")
        return _finished(path, np.atleast_2d(as_real(path, name, array)), name)


def _finished(path: Path, found: sp.coo_array | NDArray[np.float64], name: str) -> sp.csr_array | NamedMatrix:
    if isinstance(found, np.ndarray):
        refuse_nan(path, name, found)
        return NamedMatrix(found)
    refuse_nan_sparse(path, name, found)
    return sp.csr_array(found)


def _sparse(path: Path, name: str) -> sp.coo_array | None:
    """The sparse matrix that SciPy saved in a ``.npz``, its indices checked; None where there is none."""
    arrays = read_npz(path)
    if "format" not in arrays:
        return None
    matrix = sp.load_npz(path)
    if matrix.ndim != 2 or 0 in matrix.shape:
        raise UnreadableFile(f"{path}: {name} has shape {matrix.shape}; expected a matrix with entries.")
    if isinstance(
        matrix, sp.csr_matrix | sp.csr_array | sp.csc_matrix | sp.csc_array | sp.bsr_matrix | sp.bsr_array
    ):
        matrix.check_format(full_check=True)
    found = sp.coo_array(matrix)
    if found.nnz:
        found = sp.coo_array((as_real(path, name, found.data), found.coords), shape=found.shape)
    return found
