"""Find the point with the largest acquisition: many points looked at, the best of them climbed from, all at once.

Frazier (2018), section 4.1; mixed spaces by alternating climbs and single steps of the discrete parameters.
"""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor

from thalweg.blackbox.space import Space
from thalweg.blackbox.suggestion import Worth, looks
from thalweg.numerics.bfgs import minimize_many
from thalweg.numerics.quasirandom import sobol

#: Coordinates that differ by no more are those of one point.
SAME = 1e-7
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
        score: takes points, b x 1 x d, gives b numbers with a gradient; or a compiled `Worth`, which climbs by itself.
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
    if isinstance(score, Worth):
        spread = looks(near if near is not None else low[None][:0], low, high, score.seed, seed)
        looked = _possible(space, spread, seed)
        first, points, values = score.climb(looked, low, high)
    else:
        looked = _possible(space, _spread(space, near, low, high, seed), seed)
        first, points, values = _climbed(score, looked, low, high)
    if not space.continuous or space.allowed is not None:
        points, values = _settled(score, space, torch.cat([space.snap(points), first]), fixed or {})
    order = values.argsort(descending=True)
    return points[order], values[order]


def _settled(score: Score, space: Space, points: Tensor, fixed: dict[int, float]) -> tuple[Tensor, Tensor]:
    """Points of the space and their scores, better by steps of the discrete parameters."""
    if not space.continuous:
        points = _stepped(score, space, points, fixed)
    points = points[space.permitted(points)] if space.allowed is not None else points
    with torch.no_grad():
        return points, score(points[:, None])


def _climbed(score: Score, looked: Tensor, low: Tensor, high: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    """The best points looked at, where climbs from them ended, and the scores there."""
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
    iterations = 12 + 2 * looked.shape[1]
    found = minimize_many(fall, first, low, high, max_steps=iterations, tol=1e-4, flat=1e-5)
    return first, found.x, -found.values


def unseen(points: Tensor, seen: Tensor, space: Space, seed: int) -> Tensor:
    """The first point, shape (d,), that is none of those seen, shape (n, d); else one far from them all."""
    if not len(seen):
        return points[0]
    for point in points:
        if float((seen - point).abs().amax(1).min()) > SAME:
            return point
    spare = space.design(64, seed)
    return spare[torch.cdist(spare, seen).amin(1).argmax()]


def _spread(space: Space, near: Tensor | None, low: Tensor, high: Tensor, seed: int) -> Tensor:
    spread = low + (high - low) * sobol(LOOKS, space.dimension, seed)
    if near is not None and len(near):
        generator = torch.Generator().manual_seed(seed)
        around = near[torch.randint(len(near), (LOOKS // 4,), generator=generator)]
        normal = torch.randn(around.shape, generator=generator, dtype=around.dtype)
        scales = 10.0 ** (-1.0 - 2.0 * torch.rand(len(around), 1, generator=generator, dtype=around.dtype))
        spread = torch.cat([spread, (around + scales * normal).clamp(low, high), near.clamp(low, high)])
    return spread


def _possible(space: Space, spread: Tensor, seed: int) -> Tensor:
    """Points moved to those of the space, without those that it does not allow."""
    looked = space.snap(spread)
    if space.allowed is None:
        return looked
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
