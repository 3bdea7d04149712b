"""LightSB-M: the light bridge fitted by matching the drift of Brownian bridges.

Gushchin, Kholkin, Burnaev and Korotin (2024), "Light and optimal Schrodinger bridge matching" (arXiv 2402.03207),
section 3.2.
"""

from __future__ import annotations

import dataclasses
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from thalweg.transport._parameters import Gradient
from thalweg.transport.bridge import Bridge
from thalweg.transport.light_bridge import LightSB
from thalweg.transport.problem import EntropicTransport

#: Times at which the drift is matched end here: its target grows as ``1 / (1 - t)``.
LAST = 0.99
#: Times in a batch.
TIMES = 16


@dataclass(frozen=True)
class BridgeMatching(LightSB):
    """`LightSB` by another loss: ``E |g(x_t, t) - (x1 - x_t) / (1 - t)|^2`` over Brownian bridges between random pairs.

    Its minimum in the family is the same bridge, whatever the pairs are. Use it to look at a fit from a second side, or
    where a loss of drifts is to be added to others. When not: for the bridge alone; the gradient has the noise of
    times and of pairs, and goes through autograd: it is several times dearer than `LightSB`, and less exact.

    Args:
        those of `LightSB`.

    Cost per step: as `LightSB`'s, with a bridge's law at each of 16 times, and autograd's way back.

    >>> from thalweg import solve
    >>> rng = np.random.default_rng(0)
    >>> problem = EntropicTransport(rng.standard_normal((2000, 1)), 3 + rng.standard_normal((2000, 1)), 1.0, 1)
    >>> result = solve(problem, BridgeMatching(steps=120))
    >>> abs(float(problem.bridge(result.x).S[0, 0]) - (5**0.5 - 1) / 2) < 0.1
    True
    """

    def gradient(
        self,
        problem: EntropicTransport,
        x: Tensor,
        first: tuple[Tensor, Tensor],
        second: tuple[Tensor, Tensor],
        drawn: np.random.Generator,
    ) -> Gradient:
        """LightSB's terms, with the gradient of the matching loss."""
        found = super().gradient(problem, x, first, second, drawn)
        x0, x1 = self._pairs(first, drawn), self._pairs(second, drawn)
        leaf = x.clone().requires_grad_()
        log_a, R, root = problem.family.split(leaf)
        S = root @ root.mT if problem.family.is_full else root * root
        bridge, eps, loss = Bridge(problem.scaled_eps, log_a, R, S), problem.scaled_eps, x.new_zeros(())
        times = (
            LAST * (np.arange(TIMES) + drawn.random()) / TIMES
        )  # one in each of as many pieces of [0, LAST]
        for t, a, b in zip(times, x0.chunk(TIMES), x1.chunk(TIMES), strict=False):
            t = float(t)
            noise = torch.from_numpy(drawn.standard_normal(tuple(a.shape))).to(a)
            place = (1 - t) * a + t * b + (eps * t * (1 - t)) ** 0.5 * noise
            wanted = (b - place) / (1 - t)
            loss = loss + ((bridge.drift(place, t) - wanted) ** 2).sum() / len(x0)
        (gradient,) = torch.autograd.grad(loss, leaf)
        return dataclasses.replace(found, gradient=gradient / (2 * eps))

    def _pairs(self, cloud: tuple[Tensor, Tensor], drawn: np.random.Generator) -> Tensor:
        """``batch_size`` points by their masses."""
        points, mass = cloud
        levels = mass.double().cumsum(0).cpu().numpy()
        rows = np.searchsorted(levels, drawn.random(self.batch_size) * levels[-1], side="right")
        return points[torch.from_numpy(np.minimum(rows, len(points) - 1)).to(points.device)]
