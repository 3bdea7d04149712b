"""Tables: features and, where there is one, a target."""

from __future__ import annotations

import gzip
import io
import tarfile
from collections.abc import Callable
from pathlib import Path
from typing import Literal

import numpy as np

from thalweg.core import InvalidParameter, UnknownName, UnreadableFile
from thalweg.datasets.download import CALIFORNIA_HOUSING, COVERTYPE, fetch
from thalweg.datasets.labelled import Dataset, load_file


def load(
    name: str | Path,
    *,
    target: str | None = None,
    header: bool | None = None,
    zero_based: bool | Literal["auto"] = "auto",
    n_features: int | None = None,
) -> Dataset:
    """Load a named data set, or a file of your own.

    Args:
        name: one of `DATASETS`, or the path of a ``.csv``, ``.tsv`` or ``.txt`` table in any dialect, of an
            svmlight file (``.svm``, ``.svmlight``, ``.libsvm``), of a ``.mtx`` file, each also compressed (``.gz``,
            ``.bz2``, ``.xz``), or of a ``.npz`` (arrays ``X`` and optionally ``y``).
        target: the column of a table that is the target (``column 3`` where there is no header), or the array of a
            ``.npz``, by default ``y``. Default for a table: none.
        header: whether the first line of a table holds names. Default: decided from that line.
        zero_based: whether an svmlight file counts columns from 0. ``"auto"`` takes a file without an entry in
            column 0 for one that counts from 1, which it cannot know.
        n_features: columns of an svmlight file. Default: as many as it has entries in; give it so that training
            and test data agree.

    ``digits``, ``breast_cancer``, ``diabetes``, ``wine`` and ``images`` come with scikit-learn;
    ``california_housing`` and ``covertype`` are downloaded once and checked, into ``THALWEG_DATA`` or the
    cache folder.

    Raises:
        UnknownName: no data set, column or array of that name.
        UnreadableFile: a file that is absent, damaged or of another kind; a download without a network.
        InvalidProblem: columns that are no numbers, complex numbers, whole numbers beyond float64.
        NotFinite: missing values in ``X`` or ``y``; says where.
        InvalidParameter: an option that this kind of file does not have.

    >>> load("digits").X.shape
    (1797, 64)
    """
    text = str(name)
    if text in DATASETS:
        if (target, header, zero_based, n_features) != (None, None, "auto", None):
            raise InvalidParameter(f"{text!r} is a named data set: it takes no options of files.")
        return DATASETS[text]()
    path = Path(name)
    if not path.suffix and not path.is_dir():
        raise UnknownName(
            "data set", text, DATASETS, see="A file needs its ending: .csv, .svm, .npz or .mtx."
        )
    return load_file(path, target, header, zero_based, n_features)


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
