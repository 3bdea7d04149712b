"""L-BFGS in a box, for many starts at once.

Liu and Nocedal (1989), "On the limited memory BFGS method"; the projection of its steps is Bertsekas' (1982).
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch import Tensor

#: Takes points, shape (b, p), and the numbers of the starts they belong to, shape (b,); gives values and gradients.
Function = Callable[[Tensor, Tensor], tuple[Tensor, Tensor]]

ARMIJO, HALVINGS = 1e-4, 12


@dataclass
class Minima:
    """What `minimize_many` found.

    Args:
        x: shape (b, p).
        values: shape (b,).
    """

    x: Tensor
    values: Tensor


def minimize_many(
    function: Function,
    x0: Tensor,
    low: Tensor | float = -torch.inf,
    high: Tensor | float = torch.inf,
    *,
    iterations: int = 100,
    tolerance: float = 1e-6,
    history: int = 8,
) -> Minima:
    """Minimise a smooth function from every row of ``x0``, shape (b, p), inside ``[low, high]``.

    All starts move together, each with its own curvature and step; those that have converged leave the batch.
    A start ends when its projected gradient is at most ``tolerance`` or its value stops falling.

    Cost per iteration: one call of ``function`` in the usual case, 4 * history * b * p operations beside it.

    >>> target = torch.tensor([[2.0, -3.0]], dtype=torch.float64)
    >>> def bowl(x, starts):
    ...     return (x - target).square().sum(1), 2 * (x - target)
    >>> minimize_many(bowl, torch.zeros(2, 2, dtype=torch.float64), low=-1.0, high=1.0).x
    tensor([[ 1., -1.],
            [ 1., -1.]], dtype=torch.float64)
    """
    low, high = (torch.as_tensor(v, dtype=x0.dtype).expand(x0.shape[-1]) for v in (low, high))
    x = x0.clamp(low, high)
    alive = torch.arange(len(x))
    f, g = function(x, alive)
    found, values = x.clone(), f.clone()
    steps: list[Tensor] = []
    changes: list[Tensor] = []
    for _ in range(iterations):
        free = ~(((x <= low) & (g > 0)) | ((x >= high) & (g < 0)))
        free_gradient = torch.where(free, g, 0.0)
        direction = -torch.where(free, _two_loops(free_gradient, steps, changes), 0.0)
        uphill = (direction * free_gradient).sum(1) >= 0
        direction = torch.where(uphill[:, None], -free_gradient, direction)
        if not steps:
            size = direction.abs().amax(1, keepdim=True)
            direction = direction * torch.where(size > 1.0, 1.0 / size, 1.0)
        new, new_f, new_g, moved = _line_search(function, x, f, g, direction, low, high, alive)
        steps.append(new - x)
        changes.append(new_g - g)
        del steps[:-history], changes[:-history]
        flat = (f - new_f).abs() <= 1e-10 * (1.0 + f.abs())
        x, f, g = new, new_f, new_g
        found[alive], values[alive] = x, f
        projected = (x - (x - g).clamp(low, high)).abs().amax(1)
        going = moved & ~flat & (projected > tolerance)
        if not bool(going.any()):
            break
        if not bool(going.all()):
            x, f, g, alive = x[going], f[going], g[going], alive[going]
            steps, changes = [s[going] for s in steps], [c[going] for c in changes]
    return Minima(found, values)


def _two_loops(g: Tensor, steps: list[Tensor], changes: list[Tensor]) -> Tensor:
    """The inverse Hessian's approximation times g; pairs without positive curvature count for nothing."""
    q, kept = g, []
    for s, y in zip(reversed(steps), reversed(changes), strict=True):
        curvature = (s * y).sum(1, keepdim=True)
        good = curvature > 1e-12 * y.square().sum(1, keepdim=True)
        rho = torch.where(good, 1.0 / torch.where(good, curvature, 1.0), 0.0)
        a = rho * (s * q).sum(1, keepdim=True)
        q = q - a * y
        kept.append((s, y, rho, a))
    if kept:
        s, y, rho, _ = kept[0]
        norm = y.square().sum(1, keepdim=True)
        q = q * torch.where(rho > 0, 1.0 / torch.where(rho > 0, rho * norm, 1.0), 1.0)
    for s, y, rho, a in reversed(kept):
        q = q + s * (a - rho * (y * q).sum(1, keepdim=True))
    return q


def _line_search(
    function: Function,
    x: Tensor,
    f: Tensor,
    g: Tensor,
    direction: Tensor,
    low: Tensor,
    high: Tensor,
    alive: Tensor,
) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    """Backtrack along the projected path, each start by itself; those that find nothing lower stay."""
    new, new_f, new_g = x.clone(), f.clone(), g.clone()
    todo = torch.arange(len(x))
    size = torch.ones(len(x), 1, dtype=x.dtype)
    for _ in range(HALVINGS):
        trial = (x[todo] + size[todo] * direction[todo]).clamp(low, high)
        value, gradient = function(trial, alive[todo])
        slope = (g[todo] * (trial - x[todo])).sum(1)
        good = (value <= f[todo] + ARMIJO * slope) & (slope < 0)
        took = todo[good]
        new[took], new_f[took], new_g[took] = trial[good], value[good], gradient[good]
        todo = todo[~good]
        if not len(todo):
            break
        size[todo] *= 0.3
    moved = torch.ones(len(x), dtype=torch.bool)
    moved[todo] = False
    return new, new_f, new_g, moved
