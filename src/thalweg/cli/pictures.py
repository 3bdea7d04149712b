"""Grey pictures as PNG files (ISO/IEC 15948), written without a library of pictures."""

from __future__ import annotations

import struct
import zlib
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray


def side_by_side(values: NDArray[np.generic]) -> NDArray[np.float64]:
    """Images, shape (..., height, width), in one row; magnitudes of complex ones."""
    import numpy as np

    real = np.abs(values) if np.iscomplexobj(values) else values
    planes = np.asarray(real, dtype=np.float64).reshape(-1, *values.shape[-2:])
    return np.concatenate(list(planes), axis=1)


def png(values: NDArray[np.float64], low: float, high: float) -> bytes:
    """A picture of shape (height, width): ``low`` and less is black, ``high`` and more is white.

    >>> import numpy as np
    >>> png(np.zeros((2, 3)), 0.0, 1.0)[:8]
    b'\\x89PNG\\r\\n\\x1a\\n'
    """
    import numpy as np

    share = np.clip((values - low) / (high - low), 0.0, 1.0)
    grey = np.round(255 * share).astype(np.uint8)
    rows = np.concatenate([np.zeros((len(grey), 1), np.uint8), grey], axis=1)  # no filter before each row
    header = struct.pack(">IIBBBBB", grey.shape[1], grey.shape[0], 8, 0, 0, 0, 0)
    chunks = ((b"IHDR", header), (b"IDAT", zlib.compress(rows.tobytes(), 9)), (b"IEND", b""))
    return b"\x89PNG\r\n\x1a\n" + b"".join(_chunk(kind, content) for kind, content in chunks)


def _chunk(kind: bytes, content: bytes) -> bytes:
    return struct.pack(">I", len(content)) + kind + content + struct.pack(">I", zlib.crc32(kind + content))
