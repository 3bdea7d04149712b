"""Images whose every pixel is known: random ellipses, stacks of ellipsoids, the Shepp-Logan head, maps of coils.

All lie in [-1, 1]; -1 is empty.
"""

from __future__ import annotations

import math

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from thalweg.core import InvalidProblem
from thalweg.core.seeding import generator
from thalweg.core.validation import is_whole, require

Array = NDArray[np.float64]

#: Inner ellipses of a random phantom, at most.
MOST = 5
#: Shepp and Logan (1974), with Toft's contrasts: intensity, half axes, centre, angle in degrees.
HEAD = (
    (1.0, 0.69, 0.92, 0.0, 0.0, 0.0),
    (-0.8, 0.6624, 0.874, 0.0, -0.0184, 0.0),
    (-0.2, 0.11, 0.31, 0.22, 0.0, -18.0),
    (-0.2, 0.16, 0.41, -0.22, 0.0, 18.0),
    (0.1, 0.21, 0.25, 0.0, 0.35, 0.0),
    (0.1, 0.046, 0.046, 0.0, 0.1, 0.0),
    (0.1, 0.046, 0.046, 0.0, -0.1, 0.0),
    (0.1, 0.046, 0.023, -0.08, -0.605, 0.0),
    (0.1, 0.023, 0.023, 0.0, -0.606, 0.0),
    (0.1, 0.023, 0.046, 0.06, -0.605, 0.0),
)


def ellipses(count: int, side: int = 32, seed: int | tuple[int, ...] = 0) -> Tensor:
    """Random phantoms, shape (count, side, side), float64: a body with two to five ellipses inside.

    The shipped denoiser has learned these. Edges are one pixel wide. ``seed`` is one integer or several.

    >>> ellipses(2, 16).shape, bool(ellipses(2, 16).abs().max() <= 1)
    (torch.Size([2, 16, 16]), True)
    """
    _check_side(side)
    require(is_whole(count) and count >= 1, "ellipses needs count >= 1", got=count)
    drawn = generator(*((seed,) if isinstance(seed, int) else seed), 0x34)
    shapes = _drawn(drawn, count)
    value = _painted(shapes[..., 0], shapes[..., 1:3], shapes[..., 3:5], shapes[..., 5], side)
    return torch.from_numpy(2 * np.clip(value, 0, 1) - 1)


def ellipsoids(depth: int, side: int = 32, seed: int | tuple[int, ...] = 0) -> Tensor:
    """A volume of slices, shape (depth, side, side), float64: a body through all of it, and ellipsoids inside.

    Slices change smoothly and each looks like one of `ellipses`.

    >>> ellipsoids(6, 16).shape
    torch.Size([6, 16, 16])
    """
    _check_side(side)
    require(is_whole(depth) and depth >= 1, "ellipsoids needs depth >= 1", got=depth)
    drawn = generator(*((seed,) if isinstance(seed, int) else seed), 0x35)
    shapes = np.repeat(_drawn(drawn, 1), depth, 0)
    z = (np.arange(depth) + 0.5) / depth * 2 - 1
    count = shapes.shape[1]
    centre, height = (drawn.uniform(low, high, (count,)) for low, high in ((-0.8, 0.8), (0.3, 1.2)))
    centre[0], height[0] = 0.0, 3.0
    thin = 1 - ((z[:, None] - centre) / height) ** 2
    scale = np.sqrt(np.clip(thin, 1e-6, None))
    value = _painted(
        shapes[..., 0] * (thin > 0),
        shapes[..., 1:3] * scale[..., None],
        shapes[..., 3:5],
        shapes[..., 5],
        side,
    )
    return torch.from_numpy(2 * np.clip(value, 0, 1) - 1)


def shepp_logan(side: int = 64) -> Tensor:
    """The head of Shepp and Logan, shape (side, side), float64.

    >>> round(float(shepp_logan(64).max()), 1)
    1.0
    """
    _check_side(side)
    table = np.array(HEAD)[None]
    value = _painted(table[..., 0], table[..., 1:3], table[..., 3:5], np.deg2rad(table[..., 5]), side)
    return torch.from_numpy(2 * np.clip(value[0], 0, 1) - 1)


def birdcage(coils: int, side: int, *, radius: float = 1.5) -> Tensor:
    """Maps of coils on a circle round the image, shape (coils, side, side), complex128, ``sum |map|^2 = 1``.

    Args:
        coils: one or more.
        side: pixels.
        radius: of the circle, in half sides; default 1.5.

    >>> bool(torch.allclose(birdcage(4, 8).abs().square().sum(0), torch.ones(8, 8, dtype=torch.float64)))
    True
    """
    _check_side(side)
    require(is_whole(coils) and coils >= 1, "birdcage needs coils >= 1", got=coils)
    require(radius > 0, "birdcage needs radius > 0", got=radius)
    x, y = _grid(side)
    angle = 2 * math.pi * np.arange(coils)[:, None, None] / coils
    away_x, away_y = x - radius * np.cos(angle), y - radius * np.sin(angle)
    maps = np.exp(1j * (angle + np.arctan2(away_y, -away_x))) / np.sqrt(away_x**2 + away_y**2 + 1e-3)
    return torch.from_numpy(maps / np.sqrt((np.abs(maps) ** 2).sum(0)))


def photo_patches(count: int, side: int = 32, seed: int | tuple[int, ...] = 0) -> Tensor:
    """Grey patches of the two photographs that scikit-learn brings, shape (count, side, side), for training.

    Photographs are halved first. Needs Pillow, which scikit-learn reads them with.

    >>> photo_patches(2, 16).shape
    torch.Size([2, 16, 16])
    """
    _check_side(side)
    require(is_whole(count) and count >= 1, "photo_patches needs count >= 1", got=count)
    drawn = generator(*((seed,) if isinstance(seed, int) else seed), 0x36)
    photographs = _photographs()
    largest = min(min(photograph.shape) for photograph in photographs)
    require(side <= largest, f"photo_patches needs side <= {largest}", got=side, error=InvalidProblem)
    found: Array = np.empty((count, side, side))
    for k in range(count):
        photograph = photographs[drawn.integers(len(photographs))]
        top, left = (drawn.integers(length - side + 1) for length in photograph.shape)
        patch = photograph[top : top + side, left : left + side]
        found[k] = patch[:, ::-1] if drawn.random() < 0.5 else patch
    return torch.from_numpy(found)


def _photographs() -> list[Array]:
    from sklearn.datasets import load_sample_images

    found = []
    for image in load_sample_images().images:
        grey = image @ np.array([0.299, 0.587, 0.114]) / 127.5 - 1
        rows, columns = (length // 2 * 2 for length in grey.shape)
        found.append(grey[:rows, :columns].reshape(rows // 2, 2, columns // 2, 2).mean((1, 3)))
    return found


def _check_side(side: int) -> None:
    require(is_whole(side) and side >= 4, "A phantom needs side >= 4", got=side)


def _grid(side: int) -> tuple[Array, Array]:
    """x to the right and y upwards, in half sides."""
    line = (np.arange(side) + 0.5) / side * 2 - 1
    return line[None, :], -line[:, None]


def _drawn(drawn: np.random.Generator, count: int) -> Array:
    """Intensity, half axes, centre and angle of the body and of those inside, shape (count, 1 + MOST, 6)."""
    shapes = np.empty((count, 1 + MOST, 6))
    shapes[:, 0, 0] = drawn.uniform(0.25, 0.55, count)
    shapes[:, 0, 1:3] = drawn.uniform(0.6, 0.92, (count, 2))
    shapes[:, 0, 3:5] = drawn.uniform(-0.05, 0.05, (count, 2))
    inside = shapes[:, 1:]
    sign = np.where(drawn.random((count, MOST)) < 0.35, -1.0, 1.0)
    inside[..., 0] = sign * drawn.uniform(0.1, 0.4, (count, MOST))
    inside[..., 0] *= np.arange(MOST) < drawn.integers(2, MOST + 1, (count, 1))
    inside[..., 1:3] = drawn.uniform(0.12, 0.4, (count, MOST, 2))
    away, turn = 0.6 * np.sqrt(drawn.random((count, MOST))), 2 * math.pi * drawn.random((count, MOST))
    inside[..., 3] = away * np.cos(turn) * shapes[:, :1, 1]
    inside[..., 4] = away * np.sin(turn) * shapes[:, :1, 2]
    shapes[..., 5] = math.pi * drawn.random((count, 1 + MOST))
    shapes[:, 0, 5] = 0.0
    return shapes


def _painted(intensity: Array, axes: Array, centre: Array, angle: Array, side: int) -> Array:
    """Sums of ellipses with edges a pixel wide, shape (count, side, side)."""
    x, y = _grid(side)
    x, y = x[None, None], y[None, None]
    a, b, cx, cy = (
        values[..., None, None] for values in (axes[..., 0], axes[..., 1], centre[..., 0], centre[..., 1])
    )
    cos, sin = np.cos(angle)[..., None, None], np.sin(angle)[..., None, None]
    u, v = ((x - cx) * cos + (y - cy) * sin) / a, ((y - cy) * cos - (x - cx) * sin) / b
    r = np.sqrt(u * u + v * v) + 1e-12
    slope = np.sqrt((u / a) ** 2 + (v / b) ** 2) / r + 1e-12
    inside = np.clip(0.5 + (1 - r) / slope * side / 2, 0, 1)
    return np.asarray((intensity[..., None, None] * inside).sum(1))
