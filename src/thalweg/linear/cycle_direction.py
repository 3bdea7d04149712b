"""A learned multigrid cycle in torch: what `train_direction` trains, and what runs on a GPU.

Trottenberg, Oosterlee and Schueller (2001), "Multigrid", chapters 2, 5 and 7, for the cycle and red-black smoothing;
Vanek, Mandel and Brezina (1996) for transfers that are smoothed once. The learned weights are this library's.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional as F  # noqa: N812

from thalweg.core.validation import require
from thalweg.linear.direction_network import DirectionNetwork
from thalweg.linear.multigrid import COARSEST, INPUTS, NEURONS, OUTPUTS, RANGE, SINGULAR
from thalweg.linear.poisson_tensors import neighbour_sum


@dataclass(frozen=True)
class Level:
    """One level of the cycle; every tensor has the shape (batch, 1, *cells of the level)."""

    faces: list[Tensor]  # conductance of the face to the next cell along each axis
    diagonal: Tensor  # zero where there is no unknown
    live: Tensor  # 1 where there is one
    red: Tensor  # relaxation factor over the diagonal in red cells, zero in black ones
    black: Tensor  # the other way round
    transfer: Tensor  # factor of the residual in smoothed transfers
    inverse: Tensor | None  # pseudo-inverse of the coarsest matrix, (batch, n, n)

    def product(self, x: Tensor) -> Tensor:
        """This level's matrix times x."""
        total = self.diagonal * x
        for axis, w in enumerate(self.faces, 2):
            total = total - w * _next(x, axis) - _previous(w * x, axis)
        return total


class CycleDirection(DirectionNetwork):
    """A V-cycle whose relaxation, transfers and coarse matrices come from three small networks, as in `MultigridCycle`.

    The networks see how many faces of a cell, and of the cells beneath it, are fluid or air; all levels share them, so
    a larger grid has more levels and no more parameters. Relaxation factors lie in (0, 2), and the way up is the
    transpose of the way down: whatever the parameters, the direction is linear in the residual, symmetric and positive
    definite. Untrained, it is the hand-set cycle.

    On a CPU take `MultigridCycle`, the same numbers by compiled loops; take this on a GPU, with
    `DeepConjugateDirection`, and to train. Blocks that a wall divides keep one unknown here (``split=False`` there), so
    iterations grow with the size of mazes and porous media.

    Args:
        dimensions: 2 or 3. 221 parameters in both.

    >>> network = CycleDirection(2)
    >>> sum(p.numel() for p in network.parameters())
    221
    """

    def __init__(self, dimensions: int) -> None:
        super().__init__()
        require(dimensions in (2, 3), "CycleDirection needs dimensions 2 or 3", got=dimensions)
        self.dimensions = dimensions
        self.smooth, self.edge, self.air = (_network(i, o) for i, o in zip(INPUTS, OUTPUTS, strict=True))

    def settings(self) -> dict[str, Any]:
        return {"dimensions": self.dimensions}

    def prepare(self, fluid: Tensor, air: Tensor) -> list[Level]:
        """The levels, finest first."""
        faces = [fluid * _next(fluid, axis) for axis in self._axes]
        beside = neighbour_sum(air, self.dimensions) * fluid
        share = fluid
        levels: list[Level] = []
        while True:
            finest = torch.full_like(share, float(not levels))
            last = max(share.shape[2:]) <= COARSEST
            levels.append(self._level(faces, beside, share, finest, last))
            if last:
                return levels
            faces, beside, share = self._coarser(faces, beside, share, finest)

    @property
    def _axes(self) -> range:
        return range(2, 2 + self.dimensions)

    def _level(self, faces: list[Tensor], beside: Tensor, share: Tensor, finest: Tensor, last: bool) -> Level:
        total = _sum([w + _previous(w, axis) for axis, w in zip(self._axes, faces, strict=True)])
        squares = _sum([w * w + _previous(w * w, axis) for axis, w in zip(self._axes, faces, strict=True)])
        diagonal = total + beside
        live = (diagonal > 0).to(diagonal.dtype)
        count = 2 * self.dimensions
        seen = torch.stack([total / count, squares / count, beside / 2, share, finest], -1)
        red, black, transfer = torch.sigmoid(self.smooth(seen)).unbind(-1)
        over = live / torch.where(diagonal > 0, diagonal, 1.0)
        parity = _parity(share.shape[2:], share)
        return Level(
            faces,
            diagonal,
            live,
            2.0 * red * over * (1.0 - parity),
            2.0 * black * over * parity,
            0.5 * transfer * live,
            _inverse(faces, beside) if last else None,
        )

    def _coarser(
        self, faces: list[Tensor], beside: Tensor, share: Tensor, finest: Tensor
    ) -> tuple[list[Tensor], Tensor, Tensor]:
        """Faces, air and fluid share of the level above."""
        d, count = self.dimensions, 2 ** (self.dimensions - 1)
        crossing, inner = (
            [_children(w, axis, side) / count for axis, w in zip(self._axes, faces, strict=True)]
            for side in (1, 0)
        )
        share, air = _pooled(share) / 2**d, _pooled(beside) / count
        series = 2.0 * _pooled(beside / (1.0 + 0.5 * beside)) / count  # half a cell and its air, in series
        inside, flag = _sum(inner), _cropped(finest, share)
        coarse = []
        for axis, w, within in zip(self._axes, crossing, inner, strict=True):
            across = inside - within
            seen = [
                w,
                share + _next(share, axis),
                (share - _next(share, axis)).abs(),
                within + _next(within, axis),
                (within - _next(within, axis)).abs(),
                (across + _next(across, axis)) / (d - 1),
                (air + _next(air, axis)) / 2,
                flag,
            ]
            coarse.append(w * self._factor_of(self.edge, seen))
        seen = [air, series, share, inside / d, _sum(crossing) / d, flag]
        return coarse, series * self._factor_of(self.air, seen), share

    @staticmethod
    def _factor_of(network: nn.Module, seen: Sequence[Tensor]) -> Tensor:
        found: Tensor = network(torch.stack(list(seen), -1))[..., 0].clamp(-RANGE, RANGE).exp()
        return found

    def forward(self, r: Tensor, prepared: list[Level]) -> Tensor:
        here = prepared[0]
        if here.inverse is not None:
            return (here.inverse @ r.double().flatten(1).unsqueeze(-1)).reshape(r.shape).to(r.dtype)
        x = here.red * r
        x = x + here.black * (r - here.product(x))
        left = r - here.product(x)
        left = here.live * (left - here.product(here.transfer * left))
        coarse = self(_pooled(left) / 2.0 ** (self.dimensions - 2), prepared[1:])
        e = here.live * _cropped(_repeated(coarse), r)
        x = x + e - here.transfer * here.product(e)
        x = x + here.black * (r - here.product(x))
        return x + here.red * (r - here.product(x))


def _network(inputs: int, outputs: int) -> nn.Sequential:
    last = nn.Linear(NEURONS, outputs)
    nn.init.zeros_(last.weight)
    nn.init.zeros_(last.bias)
    return nn.Sequential(nn.Linear(inputs, NEURONS), nn.ReLU(), last)


def _sum(parts: Sequence[Tensor]) -> Tensor:
    return torch.stack(list(parts)).sum(0)


def _next(x: Tensor, axis: int) -> Tensor:
    """What the next cell along the axis has; zero beyond the last."""
    return torch.cat([x.narrow(axis, 1, x.shape[axis] - 1), torch.zeros_like(x.narrow(axis, 0, 1))], axis)


def _previous(x: Tensor, axis: int) -> Tensor:
    return torch.cat([torch.zeros_like(x.narrow(axis, 0, 1)), x.narrow(axis, 0, x.shape[axis] - 1)], axis)


def _even(x: Tensor) -> Tensor:
    """``x`` with dry cells after the last where a side is odd."""
    odd = [part for side in reversed(x.shape[2:]) for part in (0, side % 2)]
    return F.pad(x, odd) if any(odd) else x


def _halved(x: Tensor, axis: int) -> Tensor:
    return x.reshape(*x.shape[:axis], x.shape[axis] // 2, 2, *x.shape[axis + 1 :])


def _pooled(x: Tensor) -> Tensor:
    """Sums over blocks of two cells a side."""
    x = _even(x)
    for axis in range(2, x.ndim):
        x = _halved(x, axis).sum(axis + 1)
    return x


def _children(x: Tensor, axis: int, side: int) -> Tensor:
    """Sums over the first or second half, along the axis, of each block."""
    x = _even(x)
    for a in range(2, x.ndim):
        halves = _halved(x, a)
        x = halves.select(a + 1, side) if a == axis else halves.sum(a + 1)
    return x


def _repeated(x: Tensor) -> Tensor:
    for axis in range(2, x.ndim):
        x = x.repeat_interleave(2, axis)
    return x


def _cropped(x: Tensor, like: Tensor) -> Tensor:
    for axis in range(2, x.ndim):
        x = x.narrow(axis, 0, like.shape[axis])
    return x


def _parity(shape: Sequence[int], like: Tensor) -> Tensor:
    """0 in red cells, 1 in black ones."""
    total = torch.zeros((), device=like.device, dtype=like.dtype)
    for axis, side in enumerate(shape):
        index = torch.arange(side, device=like.device, dtype=like.dtype)
        total = total + index.reshape([-1 if a == axis else 1 for a in range(len(shape))])
    return total % 2


def _inverse(faces: list[Tensor], air: Tensor) -> Tensor:
    """The pseudo-inverse of a level's matrix, float64, (batch, n, n): zero where there is no unknown."""
    n = math.prod(air.shape[2:])
    number = torch.arange(n, device=air.device).reshape(air.shape[2:])
    matrix = torch.diag_embed(air.double().flatten(1))
    for axis, w in enumerate(faces):
        length = air.shape[axis + 2] - 1
        i = number.narrow(axis, 0, length).flatten()
        j = number.narrow(axis, 1, length).flatten()
        values = w.double().narrow(axis + 2, 0, length).flatten(1)
        off, ends = torch.zeros_like(matrix), torch.zeros_like(matrix)
        off[:, i, j] = values
        ends[:, i, i] += values
        ends[:, j, j] += values
        matrix = matrix + ends - off - off.mT
    return torch.linalg.pinv(matrix, rtol=SINGULAR, hermitian=True)
