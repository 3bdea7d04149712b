"""What commands write: answers into files, outcomes as JSON."""

from __future__ import annotations

import json
import os
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    import numpy as np


#: Endings of pages.
PAGES = (".html", ".htm")


def array_of(x: object) -> np.ndarray:
    """An answer as one NumPy array."""
    import numpy as np

    detach = getattr(x, "detach", None)
    return np.asarray(detach().cpu().numpy() if detach is not None else x)


def check_outputs(targets: Sequence[tuple[Path | None, Sequence[str]]], sources: Iterable[object]) -> None:
    """Refuse, before any work, files that cannot be written, that are read as well, or that are written twice.

    ``targets`` are files with the endings that they may have, each None where it is not asked for; of ``sources``,
    paths and lists of paths count.
    """
    from thalweg.core import InvalidParameter
    from thalweg.core.files import check_target

    read = {_place(path) for source in sources for path in _paths(source)}
    written = set[str]()
    for path, endings in targets:
        if path is None:
            continue
        check_target(path, endings)
        if path.exists() and not path.is_file():
            continue  # a terminal, a pipe, /dev/null
        place = _place(path)
        if place in read:
            raise InvalidParameter(
                f"{path} is read here, and would be overwritten. Name another file to write."
            )
        if place in written:
            raise InvalidParameter(f"{path} is to be written twice. Give each output a file of its own.")
        written.add(place)


def _paths(source: object) -> list[Path]:
    if isinstance(source, Path):
        return [source]
    return [part for part in source if isinstance(part, Path)] if isinstance(source, list | tuple) else []


def _place(path: Path) -> str:
    return os.path.realpath(path)


def write_arrays(path: Path, arrays: Mapping[str, np.ndarray]) -> None:
    """Write answers by the ending of ``path``: all by name into ``.npz``, the first into ``.npy`` or ``.csv``."""
    from thalweg.core.files import atomic_write, save_array

    if path.suffix.lower() != ".npz":
        save_array(path, next(iter(arrays.values())))
        return
    import numpy as np

    with atomic_write(path) as file:
        np.savez(file, allow_pickle=False, **arrays)


def strict_json(value: object) -> str:
    """JSON as every reader takes it (RFC 8259): NaN and infinity are null."""
    return json.dumps(_plain(value), allow_nan=False)


def _plain(value: object) -> object:
    if isinstance(value, Mapping):
        return {str(k): _plain(v) for k, v in value.items()}
    if isinstance(value, list | tuple):
        return [_plain(v) for v in value]
    if hasattr(value, "tolist"):
        return _plain(value.tolist())
    if isinstance(value, float) and not (abs(value) < float("inf")):
        return None
    return value
