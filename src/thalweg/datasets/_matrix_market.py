"""Matrix Market files, ``.mtx``: what SciPy's reader would take in silence is looked at first.

Boisvert, Pozo and Remington (1996), "The Matrix Market exchange formats: initial design", NIST IR 5935.
"""

from __future__ import annotations

import io
import re
from pathlib import Path

import numpy as np
import scipy.io
import scipy.sparse as sp
from numpy.typing import NDArray

from thalweg.core import InvalidProblem, UnreadableFile
from thalweg.datasets._arrays import as_real
from thalweg.datasets._cells import EXACT, refuse_losses
from thalweg.datasets._text import read_bytes

_FIELDS = ("real", "double", "integer", "unsigned-integer", "pattern", "complex")
_SYMMETRIES = ("general", "symmetric", "skew-symmetric", "hermitian")
_VALUE = rb"[+-]?(?:\d+\.?\d*|\.\d+|(?i:nan|inf|infinity))(?:[eEdD][+-]?\d+)?"


def read_matrix_market(path: Path, name: str) -> sp.coo_array | NDArray[np.float64]:
    """The matrix of a ``.mtx`` file: sparse from ``coordinate``, dense from ``array``.

    Raises:
        InvalidProblem: complex numbers; a symmetric file that stores both triangles; lost digits.
        UnreadableFile: no Matrix Market file, or a line that is not as the header says.
    """
    content = read_bytes(path)
    header = content.split(b"\n", 1)[0].decode().split()
    words = [word.lower() for word in header]
    if len(words) != 5 or words[0] != "%%matrixmarket" or words[1] != "matrix":
        raise UnreadableFile(
            f"{path} could not be read as Matrix Market: its first line is {' '.join(header)[:60]!r}, not as "
            "'%%MatrixMarket matrix coordinate real general'."
        )
    _, _, layout, field, symmetry = words
    for word, known in ((layout, ("coordinate", "array")), (field, _FIELDS), (symmetry, _SYMMETRIES)):
        if word not in known:
            raise UnreadableFile(
                f"{path} could not be read as Matrix Market: {word!r} in its first line is none of {', '.join(known)}."
            )
    if field == "complex" or symmetry == "hermitian":
        raise InvalidProblem(f"{path}: {name} is complex; only real systems are solved here.")
    _check_lines(path, content, layout, field)
    if layout == "array":
        whole = scipy.io.mmread(io.BytesIO(_with_header(content, layout, field, symmetry)))
        values = as_real(path, name, np.asarray(whole))
        _check_digits(path, content, values)
        return values
    stored = sp.coo_array(scipy.io.mmread(io.BytesIO(_with_header(content, layout, field, "general"))))
    if 0 in stored.shape:
        raise UnreadableFile(f"{path}: {name} has shape {stored.shape}: it holds no numbers.")
    data = as_real(path, name, stored.data) if stored.nnz else np.zeros(0)
    _check_digits(path, content, data)
    stored = sp.coo_array((data, stored.coords), shape=stored.shape)
    return stored if symmetry == "general" else _mirrored(path, stored, symmetry)


def _with_header(content: bytes, layout: str, field: str, symmetry: str) -> bytes:
    """The file with another first line, and Fortran's exponents (1.5D+01) as SciPy's reader knows them."""
    rest = content[content.index(b"\n") :].translate(bytes.maketrans(b"Dd", b"Ee"))
    return f"%%MatrixMarket matrix {layout} {field} {symmetry}".encode() + rest


def _check_lines(path: Path, content: bytes, layout: str, field: str) -> None:
    """Refuse the first line of entries that holds anything but what the header promises.

    SciPy's reader stops at the first character that it does not know: "1 1 1,5" would be 1, "1.5D+01" 1.5.
    """
    places, value = rb"\d+[ \t]+\d+", b"" if field == "pattern" else _VALUE
    entry = value if layout == "array" else places + (rb"[ \t]+" + value if value else b"")
    faulty = re.compile(rb"^(?![ \t]*(?:" + entry + rb")?[ \t]*$|%).+$", re.M)
    size = re.compile(rb"^(?!%)[^\n]*\S[^\n]*$", re.M).search(content, content.find(b"\n") + 1)
    if b"\n" not in content or size is None:
        raise UnreadableFile(f"{path} could not be read as Matrix Market: it has no line with the sizes.")
    found = faulty.search(content, size.end())
    if found:
        line = content.count(b"\n", 0, found.start()) + 1
        expected = " and ".join(["row, column"] * (layout != "array") + ["value"] * bool(value))
        raise UnreadableFile(
            f"{path} could not be read as Matrix Market: line {line} is {found[0].decode().strip()[:60]!r}; expected "
            f"{expected}."
        )
    sizes = size[0].split()
    if layout == "coordinate" and len(sizes) == 3 and all(word.isdigit() for word in sizes):
        rows, _, entries = (int(word) for word in sizes)
        if rows > 10**8 and entries < rows // 100:
            raise UnreadableFile(f"{path} could not be read: it says {rows} rows for {entries} entries.")


def _check_digits(path: Path, content: bytes, values: NDArray[np.float64]) -> None:
    if (np.abs(values) >= EXACT).any():
        refuse_losses(path, content)


def _mirrored(path: Path, stored: sp.coo_array, symmetry: str) -> sp.coo_array:
    """The whole matrix of which one triangle is stored."""
    rows, columns = stored.coords
    if stored.shape[0] != stored.shape[1]:
        raise InvalidProblem(f"{path} is called {symmetry} but is {stored.shape[0]} x {stored.shape[1]}.")
    off = rows != columns
    keys = rows.astype(np.int64) * stored.shape[1] + columns
    mirrors = columns.astype(np.int64) * stored.shape[1] + rows
    twice = np.flatnonzero(off & (rows < columns) & np.isin(mirrors, keys[rows > columns]))
    if len(twice):
        i, j = int(rows[twice[0]]) + 1, int(columns[twice[0]]) + 1
        raise InvalidProblem(
            f"{path} is called {symmetry} and stores both entries ({i}, {j}) and ({j}, {i}), counted from 1: the "
            "format wants the lower triangle only, and both would be added. Remove the upper ones, or call it general."
        )
    sign = 1.0
    if symmetry == "skew-symmetric":
        sign = -1.0
        diagonal = np.flatnonzero(~off & (stored.data != 0))
        if len(diagonal):
            i = int(rows[diagonal[0]]) + 1
            raise InvalidProblem(
                f"{path} is called skew-symmetric but its entry ({i}, {i}), counted from 1, is not 0."
            )
    data = np.concatenate([stored.data, sign * stored.data[off]])
    places = (np.concatenate([rows, columns[off]]), np.concatenate([columns, rows[off]]))
    return sp.coo_array((data, places), shape=stored.shape)
