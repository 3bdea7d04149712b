"""Images as patches: the rows of a convolution with global average pooling."""

from __future__ import annotations

import numpy as np
from numpy.typing import ArrayLike

from thalweg.convex.datafits import Vector
from thalweg.core import InvalidProblem
from thalweg.core.validation import as_real, is_whole, require


def image_patches(images: ArrayLike, size: int, *, stride: int = 1, bias: bool = False) -> Vector:
    """Square patches of images, shape (n, patches, channels size^2), in the order of `torch.nn.Conv2d`'s weights.

    A network on them is ``Conv2d(channels, m, size, stride), ReLU, global average, Linear``, trained by `ConvexReLU`
    with the same convex program. Ergen and Pilanci (2020), "Implicit convex regularizers of CNN architectures".

    Args:
        images: shape (n, height, width) or (n, channels, height, width).
        size: pixels of a side.
        stride: pixels between patches. Default 1.
        bias: append a column of ones.

    >>> image_patches(np.arange(9.0).reshape(1, 3, 3), 2, stride=1)[0, 0]
    array([0., 1., 3., 4.])
    """
    data = as_real("images", images)
    if data.ndim == 3:
        data = data[:, None]
    if data.ndim != 4 or 0 in data.shape:
        raise InvalidProblem(
            f"images have shape {data.shape}; expected (n, height, width) or (n, channels, ...)."
        )
    require(
        is_whole(size) and 1 <= size <= min(data.shape[2:]),
        "image_patches needs 1 <= size <= the images'",
        got=size,
    )
    require(is_whole(stride) and stride >= 1, "image_patches needs stride >= 1", got=stride)
    windows = np.lib.stride_tricks.sliding_window_view(data, (size, size), axis=(2, 3))
    windows = windows[:, :, ::stride, ::stride].transpose(0, 2, 3, 1, 4, 5)
    rows = windows.reshape(len(data), -1, data.shape[1] * size * size)
    return (
        np.concatenate([rows, np.ones((*rows.shape[:2], 1))], axis=2) if bias else np.ascontiguousarray(rows)
    )
