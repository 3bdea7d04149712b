"""Small patches of pictures: taken apart, put together again, and freed of noise by a basis of patches."""

from __future__ import annotations

import math
from collections.abc import Iterator
from typing import Literal

import numpy as np
from numpy.typing import ArrayLike, NDArray
from scipy.fft import dct

from thalweg.core.errors import InvalidProblem
from thalweg.core.seeding import generator
from thalweg.core.validation import as_real, check_finite, is_real, is_whole, require

Matrix = NDArray[np.float64]

#: Codes below so many standard deviations of the noise are taken for noise: the usual factor of hard thresholds.
FACTOR = 2.7


def patches(image: ArrayLike, side: int = 8, stride: int = 1) -> Matrix:
    """Square patches of a grey image, shape (height, width), a row each: (patches, side^2), from above left on.

    The last ones of each direction touch the border, whatever the stride.

    Raises:
        InvalidProblem: no image of two dimensions, or smaller than a patch. NotFinite: NaN or infinity.
        InvalidParameter: side or stride below 1.

    >>> patches(np.arange(9.0).reshape(3, 3), side=2)[0]
    array([0., 1., 3., 4.])
    """
    picture, rows, columns = _grid(image, side, stride)
    windows = np.lib.stride_tricks.sliding_window_view(picture, (side, side))
    return windows[np.ix_(rows, columns)].reshape(-1, side * side)


def from_patches(rows: ArrayLike, shape: tuple[int, int], side: int = 8, stride: int = 1) -> Matrix:
    """The image of which `patches` gave these rows: each pixel the mean of all patches that hold it.

    Raises:
        InvalidProblem: more or fewer rows, or of another length, than an image of this shape has.

    >>> image = np.arange(30.0).reshape(5, 6)
    >>> bool(np.allclose(from_patches(patches(image, 3, 2), image.shape, 3, 2), image))
    True
    """
    _, down, across = _grid(np.zeros(shape), side, stride)
    values = as_real("rows", rows)
    if values.shape != (len(down) * len(across), side * side):
        raise InvalidProblem(
            f"from_patches: rows have shape {values.shape}; expected ({len(down) * len(across)}, {side * side})."
        )
    values = values.reshape(len(down), len(across), side, side)
    total, count = np.zeros(shape), np.zeros(shape)
    for i in range(side):
        for j in range(side):
            at = np.ix_(down + i, across + j)
            total[at] += values[:, :, i, j]
            count[at] += 1.0
    covered = count > 0
    return np.where(covered, total / np.where(covered, count, 1.0), 0.0)


def patch_stream(
    images: ArrayLike, size: int, count: int, *, side: int = 8, seed: int = 0
) -> Iterator[Matrix]:
    """``count`` minibatches of ``size`` patches at random places of grey images, each less its own mean.

    Args:
        images: shape (images, height, width), or one image.

    Raises:
        InvalidProblem: other shapes, or images smaller than a patch. NotFinite: NaN or infinity.

    >>> next(patch_stream(np.eye(20), size=4, count=1)).shape
    (4, 64)
    """
    stack = as_real("images", images)
    stack = stack[None] if stack.ndim == 2 else stack
    if stack.ndim != 3 or not len(stack):
        raise InvalidProblem(
            f"patch_stream: images have shape {stack.shape}; expected (images, height, width)."
        )
    check_finite("images", stack)
    _grid(stack[0], side, 1)
    require(is_whole(size) and size >= 1, "patch_stream needs size >= 1", got=size)
    return _drawn(
        np.lib.stride_tricks.sliding_window_view(stack, (side, side), axis=(1, 2)), size, count, seed
    )


def _drawn(windows: NDArray[np.float64], size: int, count: int, seed: int) -> Iterator[Matrix]:
    random = generator(seed)
    for _ in range(count):
        at = tuple(random.integers(length, size=size) for length in windows.shape[:3])
        rows = windows[at].reshape(size, -1)
        yield rows - rows.mean(1, keepdims=True)


def denoise(
    image: ArrayLike, basis: ArrayLike, noise: float, *, factor: float = FACTOR, stride: int = 1
) -> Matrix:
    """A grey image less its noise: every patch's codes above ``factor * noise`` alone are kept, and patches averaged.

    Args:
        image: shape (height, width).
        basis: orthonormal columns, shape (side^2, side^2): ``OnlineDictionary().components_.T``, or `cosines`.
        noise: the noise's standard deviation, in the image's units, > 0.
        factor: default 2.7.
        stride: between patches. Default 1, which averages most and costs most.

    A patch's mean is kept as it is.

    Raises:
        InvalidProblem: shapes that do not fit. NotFinite: NaN or infinity. InvalidParameter: noise not above 0.

    Cost: ``4 side^4`` operations a patch.

    >>> flat = np.full((9, 9), 3.0)
    >>> bool(np.allclose(denoise(flat, cosines(4), noise=1.0), flat))
    True
    """
    D = as_real("basis", basis)
    side = math.isqrt(len(D)) if D.ndim == 2 else 0
    if D.ndim != 2 or D.shape != (side * side, side * side) or not side:
        raise InvalidProblem(f"denoise: the basis has shape {D.shape}; expected (side^2, side^2).")
    check_finite("basis", D)
    require(is_real(noise) and 0 < noise < math.inf, "denoise needs a finite noise > 0", got=noise)
    require(is_real(factor) and 0 <= factor < math.inf, "denoise needs a finite factor >= 0", got=factor)
    rows = patches(image, side, stride)
    means = rows.mean(1, keepdims=True)
    codes = (rows - means) @ D
    codes[np.abs(codes) < factor * noise] = 0.0
    height, width = np.shape(image)
    return from_patches(codes @ D.T + means, (height, width), side, stride)


def cosines(side: int) -> Matrix:
    """The discrete cosine transform of patches, shape (side^2, side^2), columns the atoms.

    >>> cosines(2).round(1).tolist()[0]
    [0.5, 0.5, 0.5, 0.5]
    """
    require(is_whole(side) and side >= 1, "cosines needs side >= 1", got=side)
    rows = dct(np.eye(side), norm="ortho", axis=0)
    return np.asarray(np.kron(rows, rows).T)


def psnr(image: ArrayLike, truth: ArrayLike, *, peak: float = 255.0) -> float:
    """Peak signal-to-noise ratio in decibels, ``10 log10(peak^2 / mean square error)``; infinite for equal images.

    Raises:
        InvalidProblem: images of other shapes. NotFinite: NaN or infinity.

    >>> round(psnr([[1.0]], [[0.0]]), 2)
    48.13
    """
    x, y = as_real("image", image), as_real("truth", truth)
    if x.shape != y.shape or not x.size:
        raise InvalidProblem(f"psnr: the images have shapes {x.shape} and {y.shape}; expected the same.")
    check_finite("image", x)
    check_finite("truth", y)
    error = float(np.mean((x - y) ** 2))
    return math.inf if error == 0 else 10.0 * math.log10(peak * peak / error)


def grey_photographs(part: Literal["all", "left", "right"] = "all") -> Matrix:
    """The two photographs that come with scikit-learn in grey, shape (2, 427, 640), 0 to 255; or their halves.

    >>> grey_photographs("left").shape
    (2, 427, 320)
    """
    from thalweg.datasets import load

    require(part in ("all", "left", "right"), "grey_photographs: part is all, left or right", got=part)
    grey = np.asarray(load("images").X, dtype=np.float64) @ np.array([0.299, 0.587, 0.114])
    middle = grey.shape[2] // 2
    return np.ascontiguousarray(
        {"all": grey, "left": grey[:, :, :middle], "right": grey[:, :, middle:]}[part]
    )


def _grid(image: ArrayLike, side: int, stride: int) -> tuple[Matrix, NDArray[np.intp], NDArray[np.intp]]:
    """The image, and the rows and columns where patches begin."""
    picture = as_real("image", image)
    require(is_whole(side) and side >= 1, "Patches need side >= 1", got=side)
    require(is_whole(stride) and stride >= 1, "Patches need stride >= 1", got=stride)
    if picture.ndim != 2 or min(picture.shape) < side:
        raise InvalidProblem(
            f"The image has shape {picture.shape}; expected (height, width), {side} or more each."
        )
    check_finite("image", picture)
    down, across = (np.unique([*range(0, length - side, stride), length - side]) for length in picture.shape)
    return picture, down, across
