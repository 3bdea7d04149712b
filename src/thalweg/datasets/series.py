"""One quantity over the steps of a run, from the files that runs leave behind."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from thalweg.core import MissingExtra, UnknownName, UnreadableFile
from thalweg.datasets.files import reading

#: Columns that count steps or time, and are never what is looked for.
COUNTERS = ("step", "epoch", "iteration", "_step", "_runtime", "_timestamp", "wall_time", "time")


def load_series(path: str | Path, column: str | None = None) -> NDArray[np.float64]:
    """A series, shape (steps,), from ``.csv`` (with or without a header), ``.npz``, ``.npy`` or TensorBoard's events.

    Weights & Biases exports ``.csv`` and TensorBoard writes files called ``events.out.tfevents...``; the folder they
    lie in does as well.

    Args:
        column: name of the column, array or tag; not needed where there is one only.

    Raises:
        UnreadableFile: the file is absent, damaged or of another kind, or there are several columns to choose from.
        UnknownName: no such column.
        MissingExtra: for TensorBoard's events, ``pip install "thalweg[track]"``.
    """
    path = Path(path)
    if path.is_dir() or "tfevents" in path.name:
        return _from_events(path, column)
    with reading(path, "a series in .csv, .npz, .npy or TensorBoard's events"):
        if path.suffix == ".csv":
            columns: dict[str, Any] = _csv_columns(path)
        elif path.suffix == ".npz":
            with np.load(path, allow_pickle=False) as archive:
                columns = dict(archive)
        elif path.suffix == ".npy":
            columns = {"values": np.load(path, allow_pickle=False)}
        else:
            raise UnreadableFile(
                f"{path} has an unknown ending; expected .csv, .npz, .npy or an events file."
            )
        chosen = np.asarray(columns[_chosen(path, list(columns), column)], dtype=np.float64)
    if chosen.ndim != 1:
        raise UnreadableFile(f"{path} holds an array of shape {chosen.shape}; expected (steps,).")
    return chosen


def _csv_columns(path: Path) -> dict[str, Any]:
    frame = pd.read_csv(path)
    try:
        [float(name) for name in frame.columns]
    except ValueError:
        pass  # names, as they should be
    else:
        frame = pd.read_csv(path, header=None)
        frame.columns = pd.Index([f"column {i + 1}" for i in range(frame.shape[1])])
    return {str(name): frame[name] for name in frame.columns if pd.api.types.is_numeric_dtype(frame[name])}


def _chosen(path: Path, names: list[str], column: str | None) -> str:
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
