"""Slices of a loss surface: the segment between two networks, planes, rays, random directions.

Li, Xu, Taylor, Studer and Goldstein (2018), "Visualizing the loss landscape of neural nets", for filter-normalised
directions; Frankle et al. (2020), "Linear mode connectivity and the lottery ticket hypothesis", for barriers.
"""

from __future__ import annotations

import math
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Literal

import numpy as np
import torch
from numpy.typing import ArrayLike, NDArray
from torch import Tensor

from thalweg.core import Figure, InvalidProblem, Series
from thalweg.core.figure import Surface
from thalweg.core.seeding import torch_generator
from thalweg.core.validation import as_real, is_real, is_whole, require
from thalweg.landscape.surface import LossSurface, Place, between, length, require_surface

Array = NDArray[np.float64]


@dataclass(frozen=True, eq=False)
class Line:
    """Losses along a line.

    Args:
        at: places, (points,): from 0, the first network, to 1, the second; or radii.
        values: losses there; infinite where they are no numbers.
        distance: between the networks.
    """

    at: Array
    values: Array
    distance: float

    @property
    def curve(self) -> Array:
        """How far the loss lies above the chord between its ends, ``phi(t) - (1 - t) phi(0) - t phi(1)``."""
        t = (self.at - self.at[0]) / (self.at[-1] - self.at[0])
        return self.values - (1.0 - t) * self.values[0] - t * self.values[-1]

    @property
    def barrier(self) -> float:
        """The largest of `curve`: 0 where the networks are linearly connected."""
        return float(np.max(self.curve))

    def figure(self, title: str = "Loss between two networks") -> Figure:
        """The losses, and the chord."""
        series = [
            Series("loss", self.at.tolist(), _shown(self.values)),
            Series("chord", [float(self.at[0]), float(self.at[-1])], _shown(self.values[[0, -1]])),
        ]
        return Figure(title, f"The barrier is {self.barrier:.3g}.", "place", "loss", series)


def interpolate(surface: LossSurface, a: Place, b: Place, points: int = 25) -> Line:
    """Losses on the segment between two networks, and the barrier there.

    Args:
        a, b: networks or state dicts of the surface's architecture.
        points: evenly, both ends included. Default 25.

    Cost: a value of the surface for each point.

    >>> import torch
    >>> from thalweg.landscape import LossSurface, interpolate
    >>> _ = torch.manual_seed(0)
    >>> one, two = torch.nn.Linear(3, 2), torch.nn.Linear(3, 2)
    >>> surface = LossSurface(one, (torch.randn(30, 3), torch.randint(0, 2, (30,))))
    >>> interpolate(surface, one, two).barrier < 1e-6  # convex
    True
    """
    require_surface(surface)
    require(is_whole(points) and points >= 3, "interpolate needs points >= 3", got=points)
    first, last = surface.theta(a), surface.theta(b)
    at = np.linspace(0.0, 1.0, points)
    values = surface.values(between(first, last, float(t)) for t in at)
    return Line(at, values, length(last - first))


def radial(
    surface: LossSurface, origin: Place | None, toward: Place, radii: ArrayLike = (0.0, 1.5), points: int = 25
) -> Line:
    """Losses on the ray from an origin through a network; radius 1 is the network.

    Args:
        origin: a network, or None for zero weights.
        toward: the network.
        radii: two ends.
    """
    require_surface(surface)
    ends = as_real("radii", radii)
    require(ends.shape == (2,) and ends[0] < ends[1], "radial needs radii (low, high), low < high", got=radii)
    require(is_whole(points) and points >= 3, "radial needs points >= 3", got=points)
    end = surface.theta(toward)
    start = torch.zeros_like(end) if origin is None else surface.theta(origin)
    chord = end - start
    if length(chord) == 0:
        raise InvalidProblem("radial: origin and network are the same; there is no direction.")
    at = np.linspace(ends[0], ends[1], points)
    return Line(at, surface.values(start + float(t) * chord for t in at), length(chord))


@dataclass(frozen=True, eq=False)
class Plane:
    """Losses on a plane through weights.

    Args:
        x, y: coordinates along two orthonormal directions, (columns,) and (rows,).
        values: losses, (rows, columns); infinite where they are no numbers.
        spots: coordinates of the places that span it, by name.
    """

    x: Array
    y: Array
    values: Array
    spots: dict[str, tuple[float, float]]

    def figure(self, title: str = "A plane of the loss", *, relief: bool = False) -> Figure:
        """Contours, with the spots as dots; or the surface in relief. What is not finite is a gap."""
        capped = np.where(np.isfinite(self.values), self.values, np.nan)
        surface = Surface(self.x.tolist(), self.y.tolist(), capped.tolist())
        spots = [Series(name, [x], [y], dots=True) for name, (x, y) in self.spots.items()]
        caption = "Coordinates are distances in the space of weights."
        kind: Literal["relief", "lines"] = "relief" if relief else "lines"
        return Figure(
            title, caption, "along the first direction", "along the second", spots, kind=kind, surface=surface
        )


def plane(
    surface: LossSurface, origin: Place, a: Place, b: Place, *, resolution: int = 21, margin: float = 0.25
) -> Plane:
    """Losses on the plane through three networks.

    The first direction is from the origin to a, the second towards b, orthogonal to it.

    Args:
        origin, a, b: e.g. where two runs parted, and their ends.
        resolution: points along each side. Default 21.
        margin: how far the picture reaches beyond the three, as a share of their extent.

    Raises:
        InvalidProblem: three that lie on a line.

    Cost: ``resolution^2`` values of the surface.
    """
    require_surface(surface)
    zero, first, second = (surface.theta(place) for place in (origin, a, b))
    u, v = first - zero, second - zero
    size, other = length(u), length(v)
    if size == 0 or other == 0:
        raise InvalidProblem(
            "plane: two of the three networks are the same; a line is left. Use interpolate."
        )
    u = u / size
    along = _inner(u, v)
    v = v - along * u
    height = length(v)
    if height <= 1e-6 * other:
        raise InvalidProblem("plane: the three networks lie on a line. Use interpolate.")
    v = v / height
    spots = {"origin": (0.0, 0.0), "a": (size, 0.0), "b": (along, height)}
    return _grid(surface, zero, u, v, spots, resolution, margin)


def random_plane(
    surface: LossSurface, place: Place, *, span: float = 1.0, resolution: int = 21, seed: int = 0
) -> Plane:
    """Losses around a network along two random directions, each filter as long as the network's own.

    Args:
        span: how far to go on each side; 1 doubles or deletes each filter.
        resolution: points along each side.
        seed: of the directions.

    Li et al. (2018), section 4: scaling a layer's filters changes no rectified network's outputs, and no picture either
    in these coordinates. Biases and the scales of normalisation layers stay.
    """
    require_surface(surface)
    require(is_real(span) and span > 0, "random_plane needs span > 0", got=span)
    zero = surface.theta(place)
    u, v = (filter_normalised(surface, zero, seed, k) for k in range(2))
    require(is_whole(resolution) and resolution >= 2, "A plane needs resolution >= 2", got=resolution)
    at = np.linspace(-span, span, resolution)
    values = surface.values(_points(zero, u, v, at, at)).reshape(resolution, resolution)
    return Plane(at, at, values, {"network": (0.0, 0.0)})


def filter_normalised(surface: LossSurface, place: Place, *seed: int) -> Tensor:
    """A random direction, (p,): each filter (row of a matrix, output channel) as long as the network's; else zero."""
    require_surface(surface)
    theta, draws = surface.theta(place), torch_generator(*seed)
    found = []
    for value in surface.named(theta).values():
        drawn = torch.randn(value.shape, generator=draws, dtype=torch.float64).to(value)
        if value.ndim < 2:
            found.append(torch.zeros_like(value).reshape(-1))
            continue
        scale = value.flatten(1).norm(dim=1) / drawn.flatten(1).norm(dim=1)
        found.append((drawn.flatten(1) * scale[:, None]).reshape(-1))
    return torch.cat(found).to(theta.dtype)


def _points(zero: Tensor, u: Tensor, v: Tensor, x: Array, y: Array) -> Iterator[Tensor]:
    """Row by row."""
    for t in y:
        row = zero + float(t) * v
        for s in x:
            yield row + float(s) * u


def _grid(
    surface: LossSurface,
    zero: Tensor,
    u: Tensor,
    v: Tensor,
    spots: dict[str, tuple[float, float]],
    resolution: int,
    margin: float,
) -> Plane:
    require(is_whole(resolution) and resolution >= 2, "A plane needs resolution >= 2", got=resolution)
    require(is_real(margin) and margin >= 0, "A plane needs margin >= 0", got=margin)
    sides = []
    for values in zip(*spots.values(), strict=True):
        low, high = min(values), max(values)
        sides.append(np.linspace(low - margin * (high - low), high + margin * (high - low), resolution))
    x, y = sides
    losses = surface.values(_points(zero, u, v, x, y)).reshape(resolution, resolution)
    return Plane(x, y, losses, spots)


def cosine(surface: LossSurface, origin: Place, a: Place, b: Place) -> float:
    """The cosine of the angle at the origin between two networks: 1 for the same way.

    Raises:
        InvalidProblem: one that has not left the origin.
    """
    require_surface(surface)
    zero = surface.theta(origin)
    u, v = (surface.theta(place) - zero for place in (a, b))
    sizes = length(u) * length(v)
    if sizes == 0:
        raise InvalidProblem("cosine: a network that has not left the origin has no direction.")
    return _inner(u, v) / sizes


def _inner(u: Tensor, v: Tensor) -> float:
    return float(u.double() @ v.double())


def _shown(values: Array) -> list[float]:
    return [float(v) if math.isfinite(v) else math.nan for v in values]
