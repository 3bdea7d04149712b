"""Solid shapes on grids of cells, in two and three dimensions: what fluid flows around.

Coordinates run from 0 to 1 along the longest side; all shapes are boolean arrays, True inside.
"""

from __future__ import annotations

import math
from collections.abc import Sequence

import numpy as np
from numpy.typing import ArrayLike, NDArray

from thalweg.core.validation import require
from thalweg.linear.poisson import AIR, FLUID, SOLID

Mask = NDArray[np.bool_]


def coordinates(shape: Sequence[int]) -> NDArray[np.float64]:
    """Centres of the cells, shape (dimensions, *shape)."""
    grids = np.meshgrid(*(np.arange(side) + 0.5 for side in shape), indexing="ij")
    return np.stack(grids) / max(shape)


def _columns(values: ArrayLike, shape: Sequence[int]) -> NDArray[np.float64]:
    """One number for each dimension, to be broadcast over `coordinates`."""
    one_each = np.broadcast_to(np.asarray(values, float), len(shape))
    return one_each.reshape(-1, *(1,) * len(shape))


def _from(center: ArrayLike, shape: Sequence[int]) -> NDArray[np.float64]:
    return coordinates(shape) - _columns(center, shape)


def ellipsoid(shape: Sequence[int], center: ArrayLike, radii: ArrayLike) -> Mask:
    """Points with ``sum ((x - c) / r)^2 <= 1``.

    >>> int(ellipsoid((10, 10), (0.5, 0.5), 0.2).sum())
    12
    """
    return np.asarray(((_from(center, shape) / _columns(radii, shape)) ** 2).sum(0) <= 1.0)


def block(shape: Sequence[int], center: ArrayLike, halves: ArrayLike) -> Mask:
    """Points with ``|x - c| <= h`` in every coordinate."""
    inside: Mask = np.asarray((np.abs(_from(center, shape)) <= _columns(halves, shape)).all(0))
    return inside


def cross(shape: Sequence[int], angle: float, arm: float = 0.25, width: float = 0.04) -> Mask:
    """A cross in the middle, turned by ``angle`` radians in the plane of the last two axes.

    >>> bool((cross((64, 64), 0.3) == cross((64, 64), 0.3 + math.pi / 2)).all())
    True
    """
    y = _from(np.asarray(shape) / (2.0 * max(shape)), shape)
    u = math.cos(angle) * y[-2] + math.sin(angle) * y[-1]
    v = -math.sin(angle) * y[-2] + math.cos(angle) * y[-1]
    u, v = np.round(u, 12), np.round(v, 12)
    bars = ((np.abs(u) <= arm) & (np.abs(v) <= width)) | ((np.abs(v) <= arm) & (np.abs(u) <= width))
    return np.asarray(bars & (np.abs(y[0]) <= arm))


def bunny(shape: Sequence[int], size: float = 1.0) -> Mask:
    """A rabbit of ellipsoids, upright along the first axis (upside is its end): body, head, two ears and a tail."""
    middle = [side / (2.0 * max(shape)) for side in shape]
    parts: list[tuple[tuple[float, ...], tuple[float, ...]]] = [
        ((0.0, 0.0, 0.0), (0.13, 0.11, 0.16)),
        ((0.13, 0.0, 0.13), (0.08, 0.07, 0.09)),
        ((0.25, 0.035, 0.10), (0.10, 0.022, 0.03)),
        ((0.25, -0.035, 0.13), (0.10, 0.022, 0.03)),
        ((-0.03, 0.0, -0.17), (0.045, 0.045, 0.045)),
    ]
    axes = (0, 1, 2) if len(shape) == 3 else (0, 2)
    inside = np.zeros(tuple(shape), bool)
    for offset, radii in parts:
        center = [m + size * offset[a] for m, a in zip(middle, axes)]
        inside |= ellipsoid(shape, center, [size * radii[a] for a in axes])
    return inside


def box_of_fluid(shape: Sequence[int], air: str = "top") -> NDArray[np.int8]:
    """Cells without an obstacle: air in the last layer of the first axis ("top"), at all walls ("around"), or none
    ("none": a closed box, whose pressure is known up to a constant).

    >>> int((box_of_fluid((4, 4), "around") == FLUID).sum())
    4
    """
    require(air in ("top", "around", "none"), "air is 'top', 'around' or 'none'", got=air)
    cells = np.full(tuple(shape), FLUID, np.int8)
    if air == "top":
        cells[-1] = AIR
    elif air == "around":
        for axis in range(len(shape)):
            np.moveaxis(cells, axis, 0)[[0, -1]] = AIR
    return cells


def random_cells(shape: Sequence[int], rng: np.random.Generator, most: int = 5) -> NDArray[np.int8]:
    """A box with up to ``most`` ellipsoids and blocks at random: what direction networks are trained on."""
    cells = box_of_fluid(shape, str(rng.choice(["top", "around", "none"], p=[0.7, 0.15, 0.15])))
    solid = np.zeros(tuple(shape), bool)
    for _ in range(int(rng.integers(0, most + 1))):
        form = ellipsoid if rng.random() < 0.5 else block
        solid |= form(shape, rng.random(len(shape)), rng.uniform(0.02, 0.2, len(shape)))
    if (cells[~solid] == FLUID).any():
        cells[solid] = SOLID
    return cells
