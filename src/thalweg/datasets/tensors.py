"""Arrays of any number of dimensions, real or complex: images, volumes, measurements."""

from __future__ import annotations

from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from thalweg.core import NotFinite, UnreadableFile
from thalweg.datasets._arrays import as_real, only_array, read_npy
from thalweg.datasets._text import ending, reading
from thalweg.datasets.matrices import load_matrix

Array = NDArray[np.float64] | NDArray[np.complex128]


def load_tensor(path: str | Path, *, name: str = "the array") -> Array:
    """An array from ``.npy`` or ``.npz`` (one array) as float64 or complex128; a table of numbers has two dimensions.

    Raises:
        UnreadableFile: the file is absent, damaged, of another kind, or empty.
        NotFinite: NaN or infinity. InvalidProblem: whole numbers whose last digits would be lost.

    >>> import tempfile
    >>> with tempfile.TemporaryDirectory() as folder:
    ...     np.save(Path(folder, "k.npy"), np.ones((2, 3, 4), complex))
    ...     load_tensor(Path(folder, "k.npy")).shape
    (2, 3, 4)
    """
    path = Path(path)
    if ending(path) not in (".npy", ".npz"):
        return np.asarray(load_matrix(path, name=name).toarray())
    with reading(path, "an array in .npy or .npz"):
        found = read_npy(path) if ending(path) == ".npy" else only_array(path)
        if found.dtype.kind != "c":
            values: Array = as_real(path, name, found)
        elif found.size:
            values = found.astype(np.complex128)
        else:
            raise UnreadableFile(f"{path}: {name} has shape {found.shape}: it holds no numbers.")
    bad = ~np.isfinite(values)
    if bad.any():
        first = tuple(int(i) for i in np.argwhere(bad)[0])
        raise NotFinite(f"{path}: {name} holds {int(bad.sum())} NaN or infinities (first at index {first}).")
    return values
