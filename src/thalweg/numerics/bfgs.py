"""BFGS in a box, for many starts at once.

Nocedal and Wright (2006), "Numerical optimization", chapter 6; the projection of its steps is Bertsekas' (1982).
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch import Tensor

from thalweg.numerics.tensor_checks import divisor

#: Takes points, shape (b, p), and the numbers of the starts they belong to, shape (b,); gives values and gradients.
Function = Callable[[Tensor, Tensor], tuple[Tensor, Tensor]]

ARMIJO, BACKTRACKS, SHRINK = 1e-4, 12, 0.3


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
    max_steps: int = 100,
    tol: float = 1e-6,
    flat: float = 1e-10,
) -> Minima:
    """Minimise a smooth function from every row of ``x0``, shape (b, p), inside ``[low, high]``.

    All starts move together, each with its own curvature and step; those that have converged leave the batch.
    For tens of variables: each start keeps a p x p matrix, and one iteration is a dozen tensor operations.

    Args:
        function: values and gradients of some points.
        x0: where to start.
        low, high: the box; numbers, or shape (p,).
        max_steps: at most.
        tol: a start ends when its projected gradient is at most this,
        flat: or its value falls by less than this times one plus its size.

    Cost per iteration: one call of ``function`` in the usual case, 6 b p^2 operations beside it.

    >>> target = torch.tensor([[2.0, -3.0]], dtype=torch.float64)
    >>> def bowl(x, starts):
    ...     return (x - target).square().sum(1), 2 * (x - target)
    >>> minimize_many(bowl, torch.zeros(2, 2, dtype=torch.float64), low=-1.0, high=1.0).x
    tensor([[ 1., -1.],
            [ 1., -1.]], dtype=torch.float64)
    """
    p = x0.shape[-1]
    low, high = (torch.as_tensor(v, dtype=x0.dtype, device=x0.device).expand(p) for v in (low, high))
    x = x0.clamp(low, high)
    alive = torch.arange(len(x), device=x.device)
    f, g = function(x, alive)
    found, values = x.clone(), f.clone()
    inverse: Tensor | None = None  # the inverse Hessian's approximation, (b, p, p)
    for _ in range(max_steps):
        free = ~(((x <= low) & (g > 0)) | ((x >= high) & (g < 0)))
        steepest = torch.where(free, -g, 0.0)
        if inverse is None:
            size = steepest.abs().amax(1, keepdim=True)
            direction = steepest / size.clamp_min(1.0)
        else:
            direction = torch.where(free, (inverse @ steepest[..., None])[..., 0], 0.0)
            uphill = (direction * steepest).sum(1, keepdim=True) <= 0
            direction = torch.where(uphill, steepest, direction)
        new, new_f, new_g, moved = _line_search(function, x, f, g, direction, low, high, alive)
        inverse = _updated(inverse, new - x, new_g - g)
        stays = (f - new_f).abs() <= flat * (1.0 + f.abs())
        x, f, g = new, new_f, new_g
        found[alive], values[alive] = x, f
        projected = (x - (x - g).clamp(low, high)).abs().amax(1)
        going = moved & ~stays & (projected > tol)
        left = int(going.sum())
        if left == 0:
            break
        if left < len(going):
            x, f, g, alive, inverse = x[going], f[going], g[going], alive[going], inverse[going]
    return Minima(found, values)


def _updated(inverse: Tensor | None, s: Tensor, y: Tensor) -> Tensor:
    """The BFGS update, eq. (6.17), scaled at first by eq. (6.20); steps without positive curvature change nothing."""
    curvature = (s * y).sum(1)
    squares = y.square().sum(1)
    good = curvature > 1e-12 * squares
    if inverse is None:
        scale = torch.where(good, curvature / divisor(squares), 1.0)
        inverse = torch.diag_embed(scale[:, None].expand_as(s))
    rho = torch.where(good, 1.0 / torch.where(good, curvature, 1.0), 0.0)[:, None]
    bent = (inverse @ y[..., None])[..., 0]
    along = (rho * (1.0 + rho * (y * bent).sum(1, keepdim=True)) * s - rho * bent)[..., None]
    return inverse + along * s[:, None] - s[..., None] * (rho * bent)[:, None]


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
    new = (x + direction).clamp(low, high)
    new_f, new_g = function(new, alive)
    slope = (g * (new - x)).sum(1)
    good = (new_f <= f + ARMIJO * slope) & (slope < 0)
    if bool(good.all()):
        return new, new_f, new_g, good
    todo, size = (~good).nonzero()[:, 0], 1.0
    for _ in range(BACKTRACKS):
        size *= SHRINK
        trial = (x[todo] + size * direction[todo]).clamp(low, high)
        value, gradient = function(trial, alive[todo])
        slope = (g[todo] * (trial - x[todo])).sum(1)
        took = (value <= f[todo] + ARMIJO * slope) & (slope < 0)
        new[todo], new_f[todo], new_g[todo] = trial, value, gradient
        good[todo] = took
        todo = todo[~took]
        if not len(todo):
            break
    new[todo], new_f[todo], new_g[todo] = x[todo], f[todo], g[todo]
    return new, new_f, new_g, good
