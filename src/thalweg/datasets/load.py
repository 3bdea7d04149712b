"""Tables: features and, where there is one, a target."""

from __future__ import annotations

import gzip
import io
import tarfile
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import scipy.sparse as sp
from numpy.typing import NDArray

from thalweg.core import InvalidProblem, UnknownName, UnreadableFile
from thalweg.core.validation import check_finite
from thalweg.datasets.download import CALIFORNIA_HOUSING, COVERTYPE, fetch
from thalweg.datasets.files import load_matrix, reading


@dataclass(frozen=True, eq=False)
class Dataset:
    """Features ``X``, shape (examples, ...), and the target ``y``, shape (examples,), or None.

    ``X`` is a CSR array where the file is sparse, a float64 array otherwise (uint8 for images).
    """

    name: str
    X: Any
    y: NDArray[Any] | None = None
    feature_names: tuple[str, ...] = ()
    target_names: tuple[str, ...] = ()


def load(name: str | Path, *, target: str | None = None) -> Dataset:
    """Load a named data set, or a file of your own.

    Args:
        name: one of `DATASETS`, or the path of a ``.csv``, ``.svm`` / ``.svmlight`` / ``.libsvm``, ``.npz``
            (arrays ``X`` and optionally ``y``) or ``.mtx`` file.
        target: for a ``.csv``, the column that is the target. Default: none.

    ``digits``, ``breast_cancer``, ``diabetes``, ``wine`` and ``images`` come with scikit-learn;
    ``california_housing`` and ``covertype`` are downloaded once and checked, into ``THALWEG_DATA`` or the
    cache folder.

    Raises:
        UnknownName: no data set of that name.
        UnreadableFile: a file that is absent, damaged or of another kind; a download without a network.
        InvalidProblem: columns that are no numbers, missing values.

    >>> load("digits").X.shape
    (1797, 64)
    """
    text = str(name)
    if text in DATASETS:
        return DATASETS[text]()
    path = Path(name)
    if not path.suffix:
        raise UnknownName(
            "data set", text, DATASETS, see="A file needs its ending: .csv, .svm, .npz or .mtx."
        )
    return _from_file(path, target)


def _packaged(name: str) -> Callable[[], Dataset]:
    def loader() -> Dataset:
        from sklearn import datasets

        bunch = getattr(datasets, f"load_{name}")()
        targets = tuple(str(t) for t in getattr(bunch, "target_names", ()))
        features = tuple(str(f) for f in bunch.feature_names)
        return Dataset(name, np.asarray(bunch.data, dtype=np.float64), bunch.target, features, targets)

    return loader


def _images() -> Dataset:
    from sklearn.datasets import load_sample_images

    bunch = load_sample_images()
    names = tuple(Path(f).stem for f in bunch.filenames)
    return Dataset("images", np.stack(bunch.images), None, (), names)


def _california_housing() -> Dataset:
    with tarfile.open(fetch(CALIFORNIA_HOUSING)) as archive:
        member = archive.extractfile("CaliforniaHousing/cal_housing.data")
        if member is None:
            raise UnreadableFile(f"{CALIFORNIA_HOUSING.file} holds no cal_housing.data.")
        table = np.loadtxt(io.BytesIO(member.read()), delimiter=",")
    names = ("longitude", "latitude", "age", "rooms", "bedrooms", "population", "households", "income")
    return Dataset("california_housing", table[:, :-1], table[:, -1], names, ("value",))


def _covertype() -> Dataset:
    with gzip.open(fetch(COVERTYPE)) as file:
        table = np.loadtxt(file, delimiter=",")
    return Dataset("covertype", table[:, :-1], table[:, -1].astype(np.int64))


DATASETS: dict[str, Callable[[], Dataset]] = {
    "digits": _packaged("digits"),
    "breast_cancer": _packaged("breast_cancer"),
    "diabetes": _packaged("diabetes"),
    "wine": _packaged("wine"),
    "images": _images,
    "california_housing": _california_housing,
    "covertype": _covertype,
}


def _from_file(path: Path, target: str | None) -> Dataset:
    kinds = "a .csv, .svm, .npz or .mtx file"
    with reading(path, kinds):
        if path.suffix == ".csv":
            data = _from_csv(path, target)
        elif path.suffix in (".svm", ".svmlight", ".libsvm"):
            from sklearn.datasets import load_svmlight_file

            X, y = load_svmlight_file(str(path))
            data = Dataset(path.stem, sp.csr_array(X), y)
        elif path.suffix == ".npz":
            data = _from_npz(path)
        elif path.name.endswith((".mtx", ".mtx.gz")):
            data = Dataset(path.stem, load_matrix(path))
        else:
            raise UnreadableFile(f"{path} has an unknown ending; expected {kinds}.")
    values: Any = data.X
    check_finite(f"X of {path}", values if isinstance(values, np.ndarray) else values.data)
    return data


def _from_csv(path: Path, target: str | None) -> Dataset:
    import pandas as pd

    table = pd.read_csv(path)
    if target is not None and target not in table.columns:
        raise UnknownName("column", target, [str(c) for c in table.columns], see=f"In {path}.")
    features = table if target is None else table.drop(columns=target)
    words = [str(c) for c in features.columns if not pd.api.types.is_numeric_dtype(features[c])]
    if words:
        raise InvalidProblem(
            f"{path}: column {', '.join(map(repr, words[:3]))} holds no numbers. Encode or drop it first."
        )
    if features.empty:
        raise InvalidProblem(f"{path} holds no rows.")
    y = None if target is None else table[target].to_numpy()
    return Dataset(path.stem, features.to_numpy(dtype=np.float64), y, tuple(map(str, features.columns)))


def _from_npz(path: Path) -> Dataset:
    with np.load(path, allow_pickle=False) as archive:
        names = list(archive)
        if "X" in names:
            return Dataset(path.stem, archive["X"], archive["y"] if "y" in names else None)
    if "indptr" in names:
        return Dataset(path.stem, load_matrix(path))
    raise UnreadableFile(f"{path} holds the arrays {', '.join(names)}; expected X and optionally y.")
