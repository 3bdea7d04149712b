"""Find the point with the largest acquisition: many points looked at, the best of them climbed from, all at once.

Frazier (2018), section 4.1; mixed spaces by alternating climbs and single steps of the discrete parameters.
"""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor

from thalweg.blackbox.space import Space
from thalweg.numerics.bfgs import minimize_many
from thalweg.numerics.quasirandom import sobol

#: Points looked at, and climbed from; rounds of steps of discrete parameters.
LOOKS, CLIMBS, ROUNDS = 256, 6, 8

Score = Callable[[Tensor], Tensor]


def maximize(
    score: Score,
    space: Space,
    *,
    near: Tensor | None = None,
    box: tuple[Tensor, Tensor] | None = None,
    fixed: dict[int, float] | None = None,
    seed: int = 0,
) -> tuple[Tensor, Tensor]:
    """Points of the space, best first, shape (k, dimension), and their scores, shape (k,).

    Args:
        score: takes points, b x 1 x d, gives b numbers with a gradient.
        near: good points known already, shape (m, d); some points are looked at around them.
        box: low and high corner of the part of the cube to look at.
        fixed: coordinates with a given value.
    """
    d = space.dimension
    low, high = (
        box if box is not None else (torch.zeros(d, dtype=torch.float64), torch.ones(d, dtype=torch.float64))
    )
    for index, value in (fixed or {}).items():
        low, high = low.clone(), high.clone()
        low[index] = high[index] = value
    looked = _looks(space, near, low, high, seed)
    with torch.no_grad():
        scores = score(looked[:, None])
    first = looked[torch.topk(scores, min(CLIMBS, len(scores))).indices]

    def fall(points: Tensor, which: Tensor) -> tuple[Tensor, Tensor]:
        leaf = points.detach().requires_grad_(True)
        with torch.enable_grad():
            value = -score(leaf[:, None])
            (gradient,) = torch.autograd.grad(value.sum(), leaf)
        return value.detach(), torch.nan_to_num(gradient)

    # Where the next evaluation comes from need not be found to many digits: the model moves with it.
    iterations = 12 + 2 * d
    found = minimize_many(fall, first, low, high, max_steps=iterations, tol=1e-4, flat=1e-5)
    points = space.snap(found.x)
    if space.continuous and space.allowed is None:
        values = -found.values
    else:
        points = torch.cat([points, first])
        if not space.continuous:
            points = _stepped(score, space, points, fixed or {})
        points = points[space.permitted(points)] if space.allowed is not None else points
        with torch.no_grad():
            values = score(points[:, None])
    order = values.argsort(descending=True)
    return points[order], values[order]


def _looks(space: Space, near: Tensor | None, low: Tensor, high: Tensor, seed: int) -> Tensor:
    spread = low + (high - low) * sobol(LOOKS, space.dimension, seed)
    if near is not None and len(near):
        generator = torch.Generator().manual_seed(seed)
        around = near[torch.randint(len(near), (LOOKS // 4,), generator=generator)]
        normal = torch.randn(around.shape, generator=generator, dtype=around.dtype)
        scales = 10.0 ** (-1.0 - 2.0 * torch.rand(len(around), 1, generator=generator, dtype=around.dtype))
        spread = torch.cat([spread, (around + scales * normal).clamp(low, high), near.clamp(low, high)])
    looked = space.snap(spread)
    permitted = space.permitted(looked)
    return looked[permitted] if bool(permitted.any()) else space.design(LOOKS // 4, seed)


def _stepped(score: Score, space: Space, points: Tensor, fixed: dict[int, float]) -> Tensor:
    """The best points after single steps of their discrete parameters, as long as those help."""
    with torch.no_grad():
        values = score(points[:, None])
        best = points[values.argmax()]
        value = float(values.max())
        visited = [points]
        for _ in range(ROUNDS):
            others = space.neighbours(best)
            for index, held in fixed.items():
                others = others[others[:, index] == held]
            if space.allowed is not None and len(others):
                others = others[space.permitted(others)]
            if not len(others):
                break
            scores = score(others[:, None])
            visited.append(others)
            if float(scores.max()) <= value:
                break
            best, value = others[scores.argmax()], float(scores.max())
    return torch.cat(visited)
