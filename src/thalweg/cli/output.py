"""What commands write: answers into files, outcomes as JSON."""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    import numpy as np


def array_of(x: object) -> np.ndarray:
    """An answer as one NumPy array."""
    import numpy as np

    detach = getattr(x, "detach", None)
    return np.asarray(detach().cpu().numpy() if detach is not None else x)


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
