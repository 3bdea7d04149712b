"""What a file holds, as far as one look tells, before anybody asks what it is for."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Literal

import numpy as np
import scipy.linalg as la
import scipy.sparse as sp
from numpy.typing import NDArray

from thalweg.core import InvalidProblem, MissingExtra, UnreadableFile
from thalweg.datasets import Dataset, load, load_arrays, load_matrix
from thalweg.datasets._text import ending, reading
from thalweg.datasets.images import ENDINGS, image_files
from thalweg.datasets.tables import TABLES, Table, read_table

Kind = Literal[
    "matrix", "table", "arrays", "examples", "weights", "letters", "cells", "instance", "pictures", "picture"
]

#: Sides up to which a Cholesky factorisation tells whether a matrix is definite.
FACTORED = 2000
#: Letters of one kind of sequences at most, and values up to which whole numbers are taken for classes.
LETTERS, CLASSES = 25, 20
_WEIGHTS = (".safetensors", ".pt", ".pth", ".ckpt")
_KINDS = (
    "a matrix (.mtx, .npz, .npy), a table (.csv, .tsv, .txt), .svm, .safetensors, .pt, .fasta, .h5ad, .json, a picture "
    "or a folder of pictures"
)


@dataclass(frozen=True)
class Column:
    """One column of a table: its name, whether it holds words, and what its values are like."""

    name: str
    words: bool
    holes: float
    whole: bool
    positive: bool
    distinct: int
    lengths: tuple[int, int] = (0, 0)
    letters: str = ""

    @property
    def is_class(self) -> bool:
        """Whether it may be a class: words or whole numbers, of few kinds."""
        return (self.words or self.whole) and 2 <= self.distinct <= CLASSES

    @property
    def is_sequence(self) -> bool:
        """Whether it may be sequences: words of at least four letters, of few kinds, hardly any twice."""
        return self.words and self.lengths[0] >= 4 and 2 <= len(self.letters) <= LETTERS


@dataclass(frozen=True)
class Sight:
    """What a file holds.

    Args:
        kind: ``matrix``: one array of numbers without names, or sparse; ``table``: columns, of words too; ``arrays``:
            several by name; ``examples``: features with a target; ``weights``: a network; ``letters``: sequences
            alone; ``cells``: an AnnData file; ``instance``: a JSON text; ``pictures``: a folder of them; ``picture``.
        rows, columns: its shape, where it has one; of a folder, how many pictures.
        density: share of entries that are not zero, of a matrix.
        symmetric, definite: of a square matrix; None where a look does not tell.
        negative: whether an entry is below zero.
        arrays: shapes by name.
        classes: folders in a folder of pictures.
        has_colour: of a picture.
    """

    path: Path
    kind: Kind
    rows: int = 0
    columns: int = 0
    density: float = 1.0
    symmetric: bool | None = None
    definite: bool | None = None
    negative: bool = False
    header: bool = False
    table: tuple[Column, ...] = ()
    arrays: dict[str, tuple[int, ...]] = field(default_factory=dict)
    classes: tuple[str, ...] = ()
    has_colour: bool = False

    @property
    def is_square(self) -> bool:
        """Whether it is a square matrix of at least two rows."""
        return self.kind in ("matrix", "table") and self.rows == self.columns >= 2 and not self.has_words

    @property
    def has_words(self) -> bool:
        """Whether a column holds words."""
        return any(column.words for column in self.table)

    @property
    def is_numeric(self) -> bool:
        """Whether it is rows of numbers, none missing."""
        whole = not any(column.words or column.holes for column in self.table)
        return self.kind in ("matrix", "table") and whole

    def said(self) -> str:
        """It in a line."""
        shape = f"{self.rows} x {self.columns}"
        if self.is_square:
            known = ", symmetric" if self.symmetric else ", not symmetric" if self.symmetric is False else ""
            known += ", positive definite" if self.definite else ""
            return f"{self.path}: a square matrix, {shape}{self._filled()}{known}."
        if self.kind == "matrix" and 1 in (self.rows, self.columns):
            return f"{self.path}: a vector of {self.rows * self.columns} numbers{self._filled()}."
        if self.kind == "matrix":
            return f"{self.path}: a matrix, {shape}{self._filled()}."
        if self.kind == "table":
            holed = sum(column.holes > 0 for column in self.table)
            wordy = sum(column.words for column in self.table)
            more = (f", {wordy} of words" if wordy else "") + (f", {holed} with holes" if holed else "")
            return f"{self.path}: a table of {self.rows} rows and {self.columns} columns{more}."
        if self.kind == "arrays":
            listed = ", ".join(f"{name} {shape}" for name, shape in list(self.arrays.items())[:6])
            return f"{self.path}: arrays {listed}."
        words: dict[str, str] = {
            "examples": f"{self.rows} examples of {self.columns} features, with a target",
            "weights": "weights of a network",
            "letters": f"{self.rows} sequences without scores",
            "cells": "cells with their measurements",
            "instance": "a text in JSON",
            "pictures": f"{self.rows} pictures"
            + (f" in {len(self.classes)} classes" if self.classes else ""),
            "picture": f"a picture of {self.rows} x {self.columns} pixels",
        }
        return f"{self.path}: {words[self.kind]}."

    def _filled(self) -> str:
        return f", {100 * self.density:.2g} % of it not zero" if self.density < 0.5 else ""


def look(path: Path, header: bool | None = None) -> Sight:
    """Look at a file, or a folder of pictures.

    Raises:
        UnreadableFile: absent, damaged, or of an ending that nothing here reads.
        InvalidProblem: nobody can know whether a table's first line holds names; complex numbers.
        NotFinite: NaN or infinity in a matrix or in features.

    Cost: reads the file once; for a square symmetric matrix a factorisation of at most 2 000 rows.
    """
    if path.is_dir():
        files = image_files(path)
        classes = sorted({name.split("/")[0] for name in files if "/" in name})
        return Sight(path, "pictures", rows=len(files), classes=tuple(classes))
    with reading(path, _KINDS):
        kind = ending(path)
        if kind in TABLES:
            return _table(path, read_table(path, header=header))
        if kind in (".mtx", ".npy"):
            return _array(path, kind)
        if kind == ".npz":
            return _npz(path)
        if kind in (".svm", ".svmlight", ".libsvm"):
            return _examples(path, load(path))
        named: dict[str, Kind] = {**dict.fromkeys(_WEIGHTS, "weights"), ".h5ad": "cells", ".json": "instance"}
        if kind in named:
            return Sight(path, named[kind])
        if kind in ENDINGS:
            return _picture(path)
        if kind in (".fa", ".fasta", ".faa", ".fna"):
            text = path.read_text(encoding="utf-8", errors="replace") if kind == path.suffix.lower() else ""
            return Sight(path, "letters", rows=sum(line.startswith(">") for line in text.splitlines()))
    raise UnreadableFile(f"{path} has an unknown ending; expected {_KINDS}.")


def _picture(path: Path) -> Sight:
    try:
        from PIL import Image, UnidentifiedImageError
    except ImportError:
        raise MissingExtra("Pillow", "images") from None
    try:
        with Image.open(path) as opened:
            width, height = opened.size
            colour = opened.mode not in ("1", "L", "I", "I;16")
    except (OSError, SyntaxError, UnidentifiedImageError, Image.DecompressionBombError) as error:
        raise UnreadableFile(f"Cannot read {path}: it is no picture, or damaged.") from error
    return Sight(path, "picture", height, width, has_colour=colour)


def _array(path: Path, kind: str) -> Sight:
    if kind == ".npy":
        array = np.load(path, mmap_mode="r", allow_pickle=False)
        if array.ndim > 2:
            return Sight(path, "arrays", arrays={path.stem: array.shape})
    return _matrix(path, load_matrix(path))


def _npz(path: Path) -> Sight:
    arrays = load_arrays(path)
    if "format" in arrays:
        return _matrix(path, load_matrix(path))
    shapes = {name: array.shape for name, array in arrays.items()}
    if {"X", "y"} <= set(shapes):
        return replace(_examples(path, load(path)), arrays=shapes)
    if len(shapes) == 1 and len(next(iter(shapes.values()))) == 2:
        return replace(_matrix(path, load_matrix(path)), arrays=shapes)
    return Sight(path, "arrays", arrays=shapes)


def _examples(path: Path, data: Dataset) -> Sight:
    n, d = data.X.shape[0], int(np.prod(data.X.shape[1:]))
    whole = data.y is not None and (data.y.dtype.kind not in "fc" or bool((data.y % 1 == 0).all()))
    distinct = 0 if data.y is None else len(np.unique(data.y))
    words = data.y is not None and data.y.dtype.kind in "US"
    target = Column("y", words, 0.0, whole, False, distinct)
    return Sight(path, "examples", n, d, table=() if data.y is None else (target,))


def _matrix(path: Path, A: sp.csr_array) -> Sight:
    rows, columns = A.shape
    sight = Sight(path, "matrix", rows, columns, A.nnz / (rows * columns), negative=bool((A.data < 0).any()))
    return _squared(sight, A) if rows == columns else sight


def _squared(sight: Sight, A: sp.csr_array) -> Sight:
    scale = float(abs(A).max()) if A.nnz else 0.0
    symmetric = bool(abs(A - A.T).max() <= 1e-10 * scale) if A.nnz else True
    return replace(sight, symmetric=symmetric, definite=_definite(A) if symmetric else None)


def _definite(A: sp.csr_array) -> bool | None:
    """Of a symmetric matrix: by its diagonal, its rows' sums, or a factorisation; None where none of them tells."""
    diagonal = A.diagonal()
    if (diagonal <= 0).any():
        return False
    if (2 * diagonal > np.asarray(abs(A).sum(axis=1)).ravel()).all():
        return True
    if len(diagonal) > FACTORED:
        return None
    try:
        la.cholesky(A.toarray(), check_finite=False)
    except la.LinAlgError:
        return False
    return True


def _table(path: Path, table: Table) -> Sight:
    rows, columns = table.numbers.shape
    described = tuple(_column(table, i) for i in range(columns))
    numbers = table.numbers
    sight = Sight(
        path,
        "table",
        rows,
        columns,
        float(np.mean(numbers != 0)),
        negative=bool((numbers < 0).any()),
        header=table.has_header,
        table=described,
    )
    if rows == columns >= 2 and sight.is_numeric:
        return _squared(sight, sp.csr_array(numbers))
    return sight


def _column(table: Table, at: int) -> Column:
    name = table.names[at]
    if at in table.words:
        texts = [text.strip() for text in table.texts(at)]
        filled = [text for text in texts if text]
        letters = "".join(sorted(set("".join(filled))))
        alphabetic = letters.isalpha() and letters.isascii()
        sizes = [len(text) for text in filled]
        return Column(
            name,
            True,
            1.0 - len(filled) / len(texts),
            False,
            False,
            len(set(filled)),
            (min(sizes), max(sizes)) if alphabetic else (0, 0),
            letters if alphabetic else "",
        )
    values: NDArray[np.float64] = table.numbers[:, at]
    here = values[~np.isnan(values)]
    return Column(
        name,
        False,
        1.0 - len(here) / len(values),
        bool((here % 1 == 0).all()),
        bool((here > 0).all()) and len(here) > 0,
        len(np.unique(here)),
    )


def look_at_all(paths: Sequence[Path], header: bool | None = None) -> list[Sight]:
    """Look at each file of a question.

    Raises:
        InvalidProblem: the same file twice, or none.
    """
    if not paths:
        raise InvalidProblem("advise needs at least one file.")
    twice = [str(path) for i, path in enumerate(paths) if path in paths[:i]]
    if twice:
        raise InvalidProblem(f"{twice[0]} is given twice.")
    return [look(path, header) for path in paths]
