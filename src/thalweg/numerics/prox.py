"""Proximal operators, ``argmin_y |y - x|^2/2 + scale g(y)``, on torch tensors, differentiable almost everywhere.

Vectors lie along the last axis, leading axes are batches. Parikh and Boyd (2014), "Proximal algorithms", chapter 6.
"""

from __future__ import annotations

import torch
from torch import Tensor

from thalweg.core.errors import InvalidParameter
from thalweg.core.validation import require
from thalweg.numerics.tensor_checks import checked, length, real


def _strength(x: Tensor, weight: Tensor | float, scale: Tensor | float) -> Tensor:
    """``weight * scale``, refused where it is negative: there is no minimum then, or another one."""
    strength = torch.as_tensor(weight, dtype=x.dtype, device=x.device) * scale
    return checked(
        strength, strength >= 0, "A proximal operator needs a weight and a scale >= 0", InvalidParameter
    )


def lasso(x: Tensor, weight: Tensor | float = 1.0, scale: float = 1.0) -> Tensor:
    """``g(y) = sum_i weight_i |y_i|``: soft thresholding.

    >>> lasso(torch.tensor([-3.0, 0.5, 2.0]))
    tensor([-2.,  0.,  1.])
    """
    x = real(x)
    threshold = _strength(x, weight, scale)
    return x.sign() * (x.abs() - threshold).clamp_min(0.0)


def nonnegative_lasso(x: Tensor, weight: Tensor | float = 1.0, scale: float = 1.0) -> Tensor:
    """``g(y) = sum_i weight_i y_i`` for ``y >= 0``."""
    x = real(x)
    return (x - _strength(x, weight, scale)).clamp_min(0.0)


def ridge(x: Tensor, weight: Tensor | float = 1.0, scale: float = 1.0) -> Tensor:
    """``g(y) = weight |y|^2/2``."""
    x = real(x)
    return x / (1.0 + _strength(x, weight, scale))


def elastic_net(x: Tensor, l1: Tensor | float = 1.0, l2: Tensor | float = 1.0, scale: float = 1.0) -> Tensor:
    """``g(y) = l1 |y|_1 + l2 |y|^2/2``."""
    x = real(x)
    return ridge(lasso(x, l1, scale), l2, scale)


def group_lasso(x: Tensor, weight: Tensor | float = 1.0, scale: float = 1.0) -> Tensor:
    """``g(y) = weight |y|_2``, each vector of the last axis a group."""
    x = real(x)
    threshold = _strength(x, weight, scale)
    size = length(x)
    return x * (1.0 - threshold / torch.where(size > 0, size, 1.0)).clamp_min(0.0)


def log_barrier(x: Tensor, weight: Tensor | float = 1.0, scale: float = 1.0) -> Tensor:
    """``g(y) = -weight sum_i log y_i``: the positive root of ``y^2 - x y = weight scale``."""
    x = real(x)
    strength = _strength(x, weight, scale)
    root = (x.square() + 4.0 * strength).sqrt()
    # for negative x the difference would cancel
    return torch.where(x >= 0, 0.5 * (x + root), 2.0 * strength / (root - x))


def nuclear_norm(X: Tensor, weight: Tensor | float = 1.0, scale: float = 1.0) -> Tensor:
    """``g(Y) = weight`` times the sum of singular values, X of shape (..., m, n).

    Its derivative needs singular values that differ, and that lie off the threshold.
    """
    X = real(X)
    require(X.ndim >= 2, "nuclear_norm needs a matrix", got=tuple(X.shape))
    U, s, Vt = torch.linalg.svd(X, full_matrices=False)
    return (U * lasso(s, weight, scale)[..., None, :]) @ Vt
