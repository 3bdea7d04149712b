"""Points, one a row: from tables, from NumPy's files, and from AnnData."""

from __future__ import annotations

from pathlib import Path
from typing import NamedTuple

import numpy as np
import scipy.sparse as sp
from numpy.typing import NDArray

from thalweg.core import InvalidProblem, MissingExtra, UnreadableFile
from thalweg.core.validation import check_finite
from thalweg.datasets import _arrays
from thalweg.datasets.frames import load_frame


class Points(NamedTuple):
    """A cloud, shape (n, D), and its columns' names; none where the file has none."""

    values: NDArray[np.float64]
    names: tuple[str, ...]


def load_points(path: str | Path, *, key: str = "", header: bool | None = None) -> Points:
    """Points from ``.csv``, ``.tsv``, ``.txt`` (also ``.gz``), ``.npy``, ``.npz`` or ``.h5ad``.

    Args:
        key: which array of a ``.npz``; which of ``obsm`` in a ``.h5ad``, such as ``X_pca``. Default: the only one, or
            ``X``.
        header: whether the first line of a table names the columns; by default seen from it.

    Raises:
        UnreadableFile: absent, damaged, no such array. NotFinite: NaN.
        InvalidProblem: words, no table of numbers; a key for a file that holds one table.
        MissingExtra: a ``.h5ad`` without anndata.
    """
    path = Path(path)
    kind = path.suffix.lower()
    if key and kind not in (".npz", ".h5ad"):
        raise InvalidProblem(f"{path} holds one table, and key= (--key) names none of it. Leave it out.")
    if kind in (".npz", ".npy", ".h5ad"):
        if not path.is_file():
            raise UnreadableFile(f"No file {path}.")
        values, names = _annotated(path, key) if kind == ".h5ad" else (_array(path, key), ())
    else:
        table = load_frame(path, header=header)
        words = [str(name) for name, dtype in table.dtypes.items() if dtype.kind != "f"]
        if words:
            raise InvalidProblem(
                f"{path}: column '{words[0]}' holds words; expected numbers only. Leave it out."
            )
        values, names = table.to_numpy(), tuple(map(str, table.columns))
        if names == tuple(
            f"column {k + 1}" for k in range(len(names))
        ):  # as a table without a header calls them
            names = ()
    if values.ndim != 2:
        raise InvalidProblem(f"{path} has shape {values.shape}; expected points one a row, (n, D).")
    found = _arrays.as_real(path, "the cloud", values)
    check_finite(str(path), found)
    return Points(found, names)


def _array(path: Path, key: str) -> NDArray[np.generic]:
    if path.suffix.lower() == ".npy":
        return _arrays.read_npy(path)
    arrays = _arrays.read_npz(path)
    name = key or ("X" if "X" in arrays else next(iter(arrays), "") if len(arrays) == 1 else "")
    if name not in arrays:
        wanted = f"no array '{name}'" if name else "several arrays and none named 'X'"
        raise UnreadableFile(
            f"{path} holds {wanted}; there are {', '.join(arrays) or 'none'}. Name one: key= (--key)."
        )
    return arrays[name]


def _annotated(path: Path, key: str) -> tuple[NDArray[np.generic], tuple[str, ...]]:
    try:
        import anndata
    except ImportError:
        raise MissingExtra("anndata", "cells") from None
    try:
        found = anndata.read_h5ad(path)
    except Exception as error:
        raise UnreadableFile(f"{path} is no .h5ad: {' '.join(str(error).split())[:200]}") from error
    if key and key not in found.obsm:
        raise UnreadableFile(f"{path} has no obsm '{key}'; there are {', '.join(found.obsm) or 'none'}.")
    values = found.obsm[key] if key else found.X
    if sp.issparse(values):
        values = sp.csr_array(values).toarray()  # type: ignore[call-overload]
    values = np.asarray(values)
    names = tuple(f"{key}{k}" for k in range(values.shape[1])) if key else tuple(map(str, found.var_names))
    return values, names
