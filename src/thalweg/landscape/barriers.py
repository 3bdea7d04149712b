"""What a barrier between two networks can be told by, without walking from one to the other; and which layers make it.

Singh, Adilova, Kamp, Fischer, Schoelkopf, Hofmann (2024), "Landscaping linear mode connectivity", arXiv 2406.16300.
Layers: Adilova, Andriushchenko, Kamp, Fischer, Jaggi (2023), "Layer-wise linear mode connectivity", arXiv 2307.06966.
"""

from __future__ import annotations

import itertools
import warnings
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from thalweg.core.validation import is_real, is_whole, require
from thalweg.landscape.curvature import along, has_kinks
from thalweg.landscape.surface import LossSurface, Place, between, by_layer, length, require_surface

if TYPE_CHECKING:
    import pandas as pd

Array = NDArray[np.float64]


class Kinks(UserWarning):
    """Second derivatives were asked of a piecewise linear network, whose curvature sits in its kinks."""


def barrier_by_ends(surface: LossSurface, a: Place, b: Place, points: int = 25) -> tuple[Array, Array]:
    """The barrier's curve by slopes and curvatures at both ends: places and values, (points,) each.

    ``B(t) = t (1 - t) (g_a - g_b)'d + t (1 - t) (t d'H_a d + (1 - t) d'H_b d)/2``, second-order expansions from each
    end weighted by nearness. It is exact for a quadratic, whose barrier is negative. Otherwise it is too large, often
    twice, and its maximum is good for ranking pairs.

    Cost: two nested forward products at each end.
    """
    require_surface(surface)
    require(is_whole(points) and points >= 3, "barrier_by_ends needs points >= 3", got=points)
    first, last = surface.theta(a), surface.theta(b)
    d = last - first
    _, slope_a, bend_a = along(surface, first, d)
    _, slope_b, bend_b = along(surface, last, d)
    t = np.linspace(0.0, 1.0, points)
    weight = t * (1.0 - t)
    return t, weight * (slope_a - slope_b) + 0.5 * weight * (t * bend_a + (1.0 - t) * bend_b)


def barrier_by_midpoint(surface: LossSurface, a: Place, b: Place, *, step: float | None = None) -> float:
    """The barrier at the middle by the curvature there: ``-(1/8) d'H(theta(1/2)) d``.

    Args:
        step: of central differences along the chord, as a share of it, in place of second derivatives: they see kinks,
            too. Default None, second derivatives.

    For smooth networks. On piecewise linear ones derivatives do not see the curvature, and a warning says so.
    """
    require_surface(surface)
    first, last = surface.theta(a), surface.theta(b)
    d, middle = last - first, between(first, last, 0.5)
    if step is None:
        if has_kinks(surface):
            warnings.warn(
                "The network is piecewise linear: second derivatives miss its kinks. Give step=, e.g. 0.1, or use "
                "barrier_by_ends.",
                Kinks,
                stacklevel=2,
            )
        return -along(surface, middle, d)[2] / 8.0
    require(is_real(step) and 0 < step <= 0.5, "barrier_by_midpoint needs 0 < step <= 0.5", got=step)
    low, centre, high = surface.values(middle + t * d for t in (-step, 0.0, step))
    return float(-(low - 2.0 * centre + high) / step**2 / 8.0)


def barrier_by_curvature(surface: LossSurface, a: Place, b: Place, at: float = 0.5, nodes: int = 16) -> float:
    """The barrier's curve at a place by the curvature along the whole chord; exact where the loss is smooth.

    ``B(at) = -int_0^1 G(at, t) d'H(theta(t)) d dt`` with ``G(at, t) = min(at, t) (1 - max(at, t))``: a barrier is
    negative curvature somewhere on the way. By Gauss-Legendre on the two pieces.

    Args:
        at: in [0, 1].
        nodes: on each piece. Default 16.
    """
    require_surface(surface)
    require(is_real(at) and 0 <= at <= 1, "barrier_by_curvature needs 0 <= at <= 1", got=at)
    require(is_whole(nodes) and nodes >= 1, "barrier_by_curvature needs nodes >= 1", got=nodes)
    first, last = surface.theta(a), surface.theta(b)
    d = last - first
    x, w = np.polynomial.legendre.leggauss(nodes)
    total = 0.0
    for low, high in ((0.0, at), (at, 1.0)):
        for node, weight in zip(low + (high - low) * (x + 1) / 2, w * (high - low) / 2, strict=True):
            kernel = min(at, node) * (1.0 - max(at, node))
            if weight * kernel != 0.0:
                total -= weight * kernel * along(surface, between(first, last, float(node)), d)[2]
    return total


@dataclass(frozen=True, eq=False)
class LayerTable:
    """What each layer does on the way from one network halfway to another.

    Args:
        layers: names, from the input on.
        alone: rise of the loss where this layer alone moves halfway, (layers,).
        predicted: the same by slope and curvature at the start, ``g'd_l/2 + d_l'H d_l/8``.
        from_input, from_output: rise where this and all layers before it, or after it, move halfway.
        distance: how far apart the two networks' layers are.
    """

    layers: list[str]
    alone: Array
    predicted: Array
    from_input: Array
    from_output: Array
    distance: Array

    def to_frame(self) -> pd.DataFrame:
        """A row a layer, as a pandas DataFrame."""
        import pandas as pd

        names = ("alone", "predicted", "from_input", "from_output", "distance")
        return pd.DataFrame({"layer": self.layers, **{name: getattr(self, name) for name in names}})


def layer_table(surface: LossSurface, a: Place, b: Place) -> LayerTable:
    """Move one layer, and growing sets of layers, halfway from a to b: which of them raise the loss?

    Cost: three values of the surface and two forward products for each layer.
    """
    require_surface(surface)
    first, last = surface.theta(a), surface.theta(b)
    d = last - first
    layers = list(by_layer(surface.names))
    start = float(surface.values([first])[0])
    own = {name: torch.zeros_like(d, dtype=torch.bool) for name, _ in layers}
    place = 0
    for name, piece in surface.named(d).items():
        layer = next(layer for layer, names in layers if name in names)
        own[layer][place : place + piece.numel()] = True
        place += piece.numel()
    alone = [torch.where(mask, d, 0.0) for mask in own.values()]
    before = list(itertools.accumulate(alone))
    after = list(itertools.accumulate(reversed(alone)))[::-1]

    def rise(directions: list[Tensor]) -> Array:
        return surface.values(first + 0.5 * direction for direction in directions) - start

    predicted = []
    for direction in alone:
        _, slope, bend = along(surface, first, direction)
        predicted.append(0.5 * slope + 0.125 * bend)
    return LayerTable(
        [name for name, _ in layers],
        rise(alone),
        np.array(predicted),
        rise(before),
        rise(after),
        np.array([length(direction) for direction in alone]),
    )
