"""How near an image is to the true one, on a range that is given and never measured from the images.

Wang, Bovik, Sheikh and Simoncelli (2004), "Image quality assessment", for SSIM.
"""

from __future__ import annotations

import math

import numpy as np
from numpy.typing import ArrayLike, NDArray
from scipy.ndimage import uniform_filter
from torch import Tensor

from thalweg.core import InvalidProblem
from thalweg.core.validation import check_finite, is_real, is_whole, require

Array = NDArray[np.float64]


def peak_signal_noise_ratio(image: ArrayLike | Tensor, truth: ArrayLike | Tensor, span: float = 2.0) -> float:
    """``10 log10(span^2 / mean |image - truth|^2)`` in decibels; of a batch, over all its numbers at once.

    Args:
        image, truth: one shape, real or complex.
        span: of the range of images; 2 for [-1, 1].

    Raises:
        InvalidProblem: shapes that differ, NaN.

    >>> round(peak_signal_noise_ratio(np.zeros(4), np.full(4, 0.2)), 6)
    20.0
    """
    a, b = _pair(image, truth, span)
    error = float((np.abs(a - b) ** 2).mean())
    return math.inf if error == 0 else 10 * math.log10(span**2 / error)


def ssim(image: ArrayLike | Tensor, truth: ArrayLike | Tensor, span: float = 2.0, window: int = 7) -> float:
    """Structural similarity in [-1, 1], the mean over uniform windows; of magnitudes where images are complex.

    Args:
        image, truth: one shape; the last two dimensions are the image's, of a batch the mean is taken.
        span: of the range of images; 2 for [-1, 1].
        window: pixels a side, odd; default 7.

    Raises:
        InvalidProblem: shapes that differ or are smaller than the window, NaN.

    >>> ssim(np.eye(8), np.eye(8))
    1.0
    """
    a, b = _pair(image, truth, span)
    require(is_whole(window) and window >= 3 and window % 2 == 1, "ssim needs an odd window >= 3", got=window)
    if a.ndim < 2 or min(a.shape[-2:]) < window:
        raise InvalidProblem(f"ssim: images have shape {a.shape}; expected sides of {window} pixels or more.")
    if np.iscomplexobj(a) or np.iscomplexobj(b):
        a, b = np.abs(a), np.abs(b)
    found = [_similarity(u, v, span, window) for u, v in zip(_planes(a), _planes(b), strict=True)]
    return float(np.mean(found))


def _similarity(u: Array, v: Array, span: float, window: int) -> float:
    count = window**2 / (window**2 - 1)
    mu, mv, uu, vv, uv = (uniform_filter(z, window) for z in (u, v, u * u, v * v, u * v))
    su, sv, suv = count * (uu - mu * mu), count * (vv - mv * mv), count * (uv - mu * mv)
    c1, c2 = (0.01 * span) ** 2, (0.03 * span) ** 2
    S = (2 * mu * mv + c1) * (2 * suv + c2) / ((mu**2 + mv**2 + c1) * (su + sv + c2))
    edge = window // 2
    return float(S[edge : S.shape[0] - edge, edge : S.shape[1] - edge].mean())


def _planes(a: Array) -> Array:
    return a.reshape(-1, *a.shape[-2:])


def _pair(image: ArrayLike | Tensor, truth: ArrayLike | Tensor, span: float) -> tuple[Array, Array]:
    require(is_real(span) and 0 < span < math.inf, "The range's span is > 0", got=span)
    a, b = (np.asarray(z.detach().cpu() if isinstance(z, Tensor) else z) for z in (image, truth))
    if a.shape != b.shape or not a.size:
        raise InvalidProblem(f"The image has shape {a.shape} and the truth {b.shape}; expected one shape.")
    for name, z in (("The image", a), ("The truth", b)):
        check_finite(name, np.abs(z))
    return tuple(z.astype(np.complex128 if z.dtype.kind == "c" else np.float64) for z in (a, b))  # type: ignore[return-value]
