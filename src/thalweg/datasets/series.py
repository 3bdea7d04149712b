"""One quantity over the steps of a run, from the files that runs leave behind."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from thalweg.core import MissingExtra, UnknownName, UnreadableFile
from thalweg.datasets._arrays import as_real, read_npy, read_npz
from thalweg.datasets._text import ending, is_compressed, reading
from thalweg.datasets.tables import TABLES, Table, read_table, refuse_header

#: Columns that count steps or time, and are never what is looked for.
COUNTERS = ("step", "epoch", "iteration", "_step", "_runtime", "_timestamp", "wall_time", "wall time", "time")
_KINDS = "a series in .csv, .tsv, .txt, .npz, .npy or TensorBoard's events"


def load_series(
    path: str | Path, column: str | None = None, *, header: bool | None = None
) -> NDArray[np.float64]:
    """A series, shape (steps,), from a table (with or without a header), ``.npz``, ``.npy`` or TensorBoard's events.

    Tables are ``.csv``, ``.tsv`` and ``.txt`` in any dialect. Weights & Biases exports ``.csv``, and TensorBoard
    writes files called ``events.out.tfevents...``; the folder they lie in does as well. Missing values are NaN:
    a run may have lost some steps.

    Args:
        path: the file.
        column: name of the column, array or tag; not needed where there is one only. Columns of a table without a
            header are called ``column 1``, ``column 2``, ...
        header: whether the first line of a table holds names. Default: decided from that line.

    Raises:
        UnreadableFile: the file is absent, damaged or of another kind, or there are several columns to choose from.
        InvalidProblem: the column holds complex numbers, words, or whole numbers beyond float64; says the line.
        UnknownName: no such column.
        MissingExtra: for TensorBoard's events, ``pip install "thalweg[track]"``.
    """
    path = Path(path)
    if path.is_dir() or "tfevents" in path.name:
        refuse_header(path, header)
        return _from_events(path, column)
    with reading(path, _KINDS):
        kind = ending(path)
        if kind in TABLES:
            return _from_table(read_table(path, header=header, wanted=column), column)
        refuse_header(path, header)
        if is_compressed(path) or kind not in (".npz", ".npy"):
            raise UnreadableFile(f"{path} has an unknown ending; expected {_KINDS}.")
        arrays = read_npz(path) if kind == ".npz" else {"values": read_npy(path)}
        name = _chosen(path, list(arrays), column)
        if arrays[name].ndim != 1:
            raise UnreadableFile(f"{path} holds an array of shape {arrays[name].shape}; expected (steps,).")
        return as_real(path, name, arrays[name])


def _from_table(table: Table, column: str | None) -> NDArray[np.float64]:
    if column is None:
        used = enumerate(table.names[table.first_unnamed :], table.first_unnamed)
        hold = [name for at, name in used if np.isfinite(table.numbers[:, at]).any()]
        column = _chosen(table.path, hold, None)
    at = table.column(column)
    table.refuse_doubt(if_likely=True)
    return table.values([at])[:, 0]


def _chosen(path: Path, names: Sequence[str], column: str | None) -> str:
    if column is not None:
        if column not in names:
            raise UnknownName("column", column, names, see=f"They are those of {path}.")
        return column
    candidates = [name for name in names if name.lower() not in COUNTERS]
    if len(candidates) != 1:
        listed = ", ".join(candidates) or "none with numbers"
        raise UnreadableFile(f"{path} has the columns {listed}; say which one by column= or --column.")
    return candidates[0]


def _from_events(path: Path, column: str | None) -> NDArray[np.float64]:
    try:
        from tensorboard.backend.event_processing.event_accumulator import EventAccumulator
    except ImportError:
        raise MissingExtra("tensorboard", "track") from None
    if not path.exists() or (path.is_dir() and not list(path.glob("*tfevents*"))):
        raise UnreadableFile(f"No TensorBoard events at {path}.")
    events = EventAccumulator(str(path), size_guidance={"scalars": 0, "tensors": 0})
    events.Reload()
    tags = events.Tags()["scalars"]
    points = events.Scalars(_chosen(path, tags, column))
    return np.array([point.value for point in points], dtype=np.float64)
