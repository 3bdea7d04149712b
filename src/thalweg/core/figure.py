"""Figures as plain data: curves and bars with the words around them. `thalweg.workbench` draws them."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

import numpy as np
from numpy.typing import ArrayLike


@dataclass(frozen=True)
class Series:
    """A curve, with an optional band around it; ``dots`` leaves its points unconnected."""

    name: str
    x: list[float]
    y: list[float]
    low: list[float] | None = None
    high: list[float] | None = None
    dots: bool = False

    @classmethod
    def of(cls, name: str, x: ArrayLike, y: ArrayLike, points: int = 200) -> Series:
        """A curve of at most ``points`` points; two-dimensional ``y``, (runs, points), gives mean and range."""
        xs, ys = np.asarray(x, dtype=float), np.asarray(y, dtype=float)
        pick = np.unique(np.linspace(0, len(xs) - 1, min(points, len(xs))).astype(int))
        if ys.ndim == 1:
            return cls(name, xs[pick].tolist(), ys[pick].tolist())
        mean, low, high = ys.mean(0), ys.min(0), ys.max(0)
        return cls(name, *(v[pick].tolist() for v in (xs, mean, low, high)))


@dataclass(frozen=True)
class Surface:
    """A function of two numbers on a grid, drawn as contours: ``z`` has a row for each of ``y``; NaN is a gap."""

    x: list[float]
    y: list[float]
    z: list[list[float]]


@dataclass(frozen=True)
class Figure:
    """Curves, or bars where ``kind`` says so, over a ``surface`` if there is one, with the words around them.

    The kind ``"relief"`` draws the surface alone, in three dimensions.
    """

    title: str
    caption: str
    x_label: str
    y_label: str
    series: Sequence[Series]
    kind: Literal["lines", "bars", "steps", "relief"] = "lines"
    log_x: bool = False
    log_y: bool = False
    categories: Sequence[str] = ()
    surface: Surface | None = None
