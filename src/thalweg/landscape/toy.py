"""A mountainside with ridges in the plane, where barriers can be seen and counted.

A function of our own with the shape that Singh et al. (2024) describe: a slope common to all, and farther out valleys
between ridges whose height grows with the radius.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import ArrayLike, NDArray

from thalweg.core import Figure
from thalweg.core.figure import Surface
from thalweg.core.seeding import generator
from thalweg.core.validation import is_whole, require, require_counts, require_positive

Array = NDArray[np.float64]


@dataclass(frozen=True)
class Mountainside:
    """``c/2 (r - R)^2 + A (r/R)^q (1 - cos(m phi))/2`` in polar coordinates: m valleys at the radius R.

    Args:
        radius: R.
        slope: c.
        height: A, of the ridges at R.
        power: q, how fast they rise.
        valleys: m.

    >>> Mountainside().value([[10.0, 0.0]])
    array([0.])
    """

    radius: float = 10.0
    slope: float = 0.2
    height: float = 4.0
    power: float = 2.0
    valleys: int = 12

    def __post_init__(self) -> None:
        require_positive(self, "radius", "slope", "height", "power")
        require(self.power >= 1, "Mountainside needs power >= 1", got=self.power)
        require_counts(self, "valleys")

    def value(self, x: ArrayLike) -> Array:
        """At points (..., 2)."""
        r, phi = _polar(np.asarray(x, dtype=np.float64))
        ridge = self.height * (r / self.radius) ** self.power * (1.0 - np.cos(self.valleys * phi)) / 2.0
        return np.asarray(0.5 * self.slope * (r - self.radius) ** 2 + ridge)

    def gradient(self, x: ArrayLike) -> Array:
        """At points (..., 2) other than the origin."""
        points = np.asarray(x, dtype=np.float64)
        r, phi = _polar(points)
        share = (r / self.radius) ** self.power
        outward = (
            self.slope * (r - self.radius)
            + self.height * self.power * share / r * (1.0 - np.cos(self.valleys * phi)) / 2.0
        )
        around = self.height * share * self.valleys * np.sin(self.valleys * phi) / 2.0 / r
        radial = points / r[..., None]
        tangent = np.stack([-radial[..., 1], radial[..., 0]], axis=-1)
        return outward[..., None] * radial + around[..., None] * tangent

    def valley(self, x: ArrayLike) -> NDArray[np.int64]:
        """The number of the valley that points (..., 2) lie in, from 0."""
        _, phi = _polar(np.asarray(x, dtype=np.float64))
        return np.rint(phi * self.valleys / (2.0 * np.pi)).astype(np.int64) % self.valleys

    def barrier(self, a: ArrayLike, b: ArrayLike, points: int = 101) -> Array:
        """The largest rise above the chord between pairs of points (..., 2)."""
        first, last = np.asarray(a, dtype=np.float64), np.asarray(b, dtype=np.float64)
        lead = (slice(None),) + (None,) * (first.ndim - 1)
        t = np.linspace(0.0, 1.0, points)[lead]
        values = self.value((1.0 - t[..., None]) * first + t[..., None] * last)
        return np.asarray((values - (1.0 - t) * values[0] - t * values[-1]).max(0))

    def spawned(
        self,
        shared: int,
        pairs: int,
        *,
        steps: int = 400,
        rate: float = 0.05,
        noise: float = 0.8,
        seed: int = 0,
    ) -> tuple[Array, Array, Array]:
        """Pairs of noisy descents that share their first steps: roots, ends of one, ends of the other, (pairs, 2) each.

        Args:
            shared: steps in common, at most ``steps``.
            steps: in all; the noise falls to zero over them.
            rate: step size.
            noise: standard deviation a step over ``sqrt(rate)``, at first.

        They start on a ridge, half a unit from the origin.
        """
        require(
            is_whole(shared) and 0 <= shared <= steps, f"spawned needs 0 <= shared <= {steps}", got=shared
        )
        require(is_whole(pairs) and pairs >= 1, "spawned needs pairs >= 1", got=pairs)
        angle = np.pi / self.valleys
        x = np.tile(0.5 * np.array([np.cos(angle), np.sin(angle)]), (pairs, 1))
        root = self._descended(x, 0, shared, steps, rate, noise, generator(seed, 0))
        ends = [
            self._descended(root, shared, steps, steps, rate, noise, generator(seed, shared, j))
            for j in (1, 2)
        ]
        return root, ends[0], ends[1]

    def _descended(
        self,
        x: Array,
        first: int,
        last: int,
        steps: int,
        rate: float,
        noise: float,
        draws: np.random.Generator,
    ) -> Array:
        for t in range(first, last):
            size = noise * np.sqrt(rate) * (1.0 - t / steps)
            x = x - rate * self.gradient(x) + size * draws.standard_normal(x.shape)
        return x

    def figure(self, resolution: int = 81) -> Figure:
        """Contours of the function."""
        side = np.linspace(-1.3 * self.radius, 1.3 * self.radius, resolution)
        X, Y = np.meshgrid(side, side)
        values = self.value(np.stack([X, Y], axis=-1))
        surface = Surface(side.tolist(), side.tolist(), values.tolist())
        return Figure("Mountainside and ridges", "", "x", "y", [], surface=surface)


def _polar(points: Array) -> tuple[Array, Array]:
    return np.hypot(points[..., 0], points[..., 1]), np.arctan2(points[..., 1], points[..., 0])
