"""Features with a target: from tables, svmlight files, NumPy's arrays and Matrix Market."""

from __future__ import annotations

import io
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import numpy as np
import scipy.sparse as sp
from numpy.typing import NDArray

from thalweg.core import InvalidParameter, InvalidProblem, NotFinite, UnknownName, UnreadableFile
from thalweg.datasets import _cells
from thalweg.datasets._arrays import as_real, check_shape, read_npz, refuse_nan, refuse_nan_sparse
from thalweg.datasets._text import ending, is_compressed, read_bytes, reading, title
from thalweg.datasets.matrices import load_matrix
from thalweg.datasets.tables import TABLES, Table, read_table, refuse_header

SVMLIGHT = (".svm", ".svmlight", ".libsvm")
_KINDS = "a table in .csv, .tsv, .txt, .svm, .npz or .mtx"


@dataclass(frozen=True, eq=False)
class Dataset:
    """Features ``X``, shape (examples, ...), and the target ``y``, shape (examples,), or None.

    ``X`` is a CSR array where the file is sparse, a float64 array otherwise (uint8 for images). ``y`` is as the
    file has it, numbers or words, none of them missing; `numbers` and `classes` say what it is used for.
    """

    name: str
    X: Any
    y: NDArray[Any] | None = None
    feature_names: tuple[str, ...] = ()
    target_names: tuple[str, ...] = ()

    def numbers(self, needed_by: str = "regression") -> NDArray[np.float64]:
        """The target as float64, for a regression.

        Args:
            needed_by: what needs numbers, for the message.

        Raises:
            InvalidProblem: there is no target, or it holds words or whole numbers beyond float64.

        >>> Dataset("t", np.eye(2), np.array([1, 2])).numbers()
        array([1., 2.])
        """
        y = self._target()
        if y.dtype.kind in "US":
            word = next(str(cell) for cell in y if not _cells.is_number(str(cell)))
            raise InvalidProblem(f"{self.name}: y holds words ({word!r}); {needed_by} needs numbers.")
        return as_real(Path(self.name), "y", y)

    def classes(self) -> tuple[NDArray[np.int64], NDArray[np.generic]]:
        """The target as classes 0, 1, ..., shape (examples,), and the value that each class has in the file, sorted.

        Words, whole numbers and truth values are classes; two values of any kind are as well.

        Raises:
            InvalidProblem: there is no target, or it holds more than two values that are no whole numbers.

        >>> Dataset("t", np.eye(3), np.array(["yes", "no", "yes"])).classes()
        (array([1, 0, 1]), array(['no', 'yes'], dtype='<U3'))
        """
        y = self._target()
        values, labels = np.unique(y, return_inverse=True)
        if y.dtype.kind == "f" and len(values) > 2 and (y.astype(np.float64) % 1 != 0).any():
            row = int(np.flatnonzero(y.astype(np.float64) % 1 != 0)[0])
            raise InvalidProblem(
                f"{self.name}: y holds {y[row]} (row {row}, counted from 0), which is no class: classes are words or "
                "whole numbers. Use a loss for quantities, or cut y into classes first."
            )
        return labels.astype(np.int64), values

    def _target(self) -> NDArray[np.generic]:
        if self.y is None:
            raise InvalidProblem(
                f"{self.name} holds no target. Name a column of a table, or give a .npz with X and y."
            )
        return self.y


def load_file(
    path: Path,
    target: str | None,
    header: bool | None,
    zero_based: bool | Literal["auto"],
    n_features: int | None,
) -> Dataset:
    """`load` for a file of the user's own."""
    kind = ending(path)
    with reading(path, _KINDS):
        if kind not in TABLES:
            refuse_header(path, header)
        if kind not in SVMLIGHT and (zero_based != "auto" or n_features is not None):
            raise InvalidParameter(f"zero_based and n_features are for svmlight files; {path} is none.")
        if target is not None and kind in (*SVMLIGHT, ".mtx"):
            raise InvalidParameter(f"target names a column of a table; {path} has no names.")
        if kind in TABLES:
            return _from_table(read_table(path, header=header, wanted=target), target)
        if kind in SVMLIGHT:
            return _from_svmlight(path, zero_based, n_features)
        if kind == ".mtx":
            return Dataset(title(path), load_matrix(path, name="X"))
        if kind == ".npz" and not is_compressed(path):
            return _from_npz(path, target)
        raise UnreadableFile(f"{path} has an unknown ending; expected {_KINDS}.")


def _from_table(table: Table, target: str | None) -> Dataset:
    at = None if target is None else table.column(target)
    table.refuse_numbering()
    table.refuse_doubt()
    columns = [column for column in range(len(table.names)) if column != at]
    if not columns:
        raise InvalidProblem(f"{table.path} holds no column beside the target.")
    X = table.values(None if at is None else columns)
    refuse_nan(table.path, "X", X, table.line)
    y = None if at is None else _labels(table, at)
    return Dataset(title(table.path), X, y, tuple(table.names[column] for column in columns))


def _labels(table: Table, at: int) -> NDArray[np.generic]:
    """The target's column: words, truth values, whole numbers or numbers, and no hole."""
    texts = table.texts(at)
    for row, cell in enumerate(texts):
        if cell in _cells.MISSING:
            shown = f" ({cell!r})" if cell else ""
            raise NotFinite(
                f"{table.path}: y has no value in row {row + 1} (line {table.line(row)}){shown}. "
                "Fill or drop such rows first."
            )
    if at in table.words:
        return np.array(texts)
    if _cells.booleans(texts) is not None:
        return table.numbers[:, at].astype(bool)
    if all(map(_cells.is_integer, texts)):
        whole = [int(cell) for cell in texts]
        if min(whole) >= -(2**63) and max(whole) < 2**63:
            return np.array(whole, dtype=np.int64)
    y = table.values([at])[:, 0]
    refuse_nan(table.path, "y", y, table.line)
    return y


def _from_svmlight(path: Path, zero_based: bool | Literal["auto"], n_features: int | None) -> Dataset:
    from sklearn.datasets import load_svmlight_file

    if n_features is not None and n_features < 1:
        raise InvalidParameter(f"n_features is a whole number from 1; got {n_features!r}.")
    content = read_bytes(path)
    found, y = load_svmlight_file(io.BytesIO(content), zero_based=zero_based, n_features=n_features)
    if not len(y):
        raise UnreadableFile(f"{path} holds no rows.")
    X = sp.csr_array(found)
    if X.nnz and max(np.abs(X.data).max(), np.abs(y).max()) >= _cells.EXACT:
        _cells.refuse_losses(path, content)
    refuse_nan_sparse(path, "X", sp.coo_array(X))
    refuse_nan(path, "y", y)
    return Dataset(title(path), X, y)


def _from_npz(path: Path, target: str | None) -> Dataset:
    arrays = read_npz(path)
    if "X" not in arrays:
        if "indptr" in arrays and target is None:
            return Dataset(title(path), load_matrix(path, name="X"))
        raise UnreadableFile(
            f"{path} holds the arrays {', '.join(arrays) or 'none'}; expected X and optionally y."
        )
    check_shape(path, "X", arrays["X"], 2, "(examples, features)")
    X = as_real(path, "X", arrays["X"])
    if X.ndim != 2:
        raise UnreadableFile(f"{path} holds X of shape {X.shape}; expected (examples, features).")
    refuse_nan(path, "X", X)
    name = "y" if target is None else target
    if target is not None and (target == "X" or target not in arrays):
        raise UnknownName("array", target, [known for known in arrays if known != "X"], see=f"In {path}.")
    y = _array_labels(path, name, arrays[name], len(X)) if name in arrays else None
    return Dataset(title(path), X, y)


def _array_labels(path: Path, name: str, y: NDArray[np.generic], examples: int) -> NDArray[np.generic]:
    if y.shape not in ((examples,), (examples, 1), (1, examples)):
        raise UnreadableFile(
            f"{path} holds {name} of shape {y.shape}; expected ({examples},), one for each row of X."
        )
    y = y.reshape(-1)
    if y.dtype.kind == "S":
        y = np.char.decode(y.astype(np.bytes_), "utf-8")
    if y.dtype.kind in "biu":
        return y
    if y.dtype.kind != "U":
        values = as_real(path, name, y)
        refuse_nan(path, name, values)
        return values
    missing = np.flatnonzero(np.isin(y, list(_cells.MISSING)))
    if len(missing):
        raise NotFinite(
            f"{path}: {name} has no value in row {int(missing[0])}, counted from 0 ({str(y[missing[0]])!r}). "
            "Fill or drop such rows first."
        )
    return y
