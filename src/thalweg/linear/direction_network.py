"""Networks that propose a search direction from a residual on a grid.

Kaneda, Akar, Chen, Kala, Hyde and Teran (2023), "A deep conjugate direction method for iteratively solving linear
systems", section 5, for `ResidualDirection`.
"""

from __future__ import annotations

import math
from abc import abstractmethod
from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn import functional as F  # noqa: N812

from thalweg.core import InvalidProblem
from thalweg.core.validation import require
from thalweg.linear.poisson import AIR, PoissonGrid

Direction = Callable[[Tensor], Tensor]


class DirectionNetwork(nn.Module):
    """Base of networks that map a residual on a grid to a search direction on it.

    `bind` prepares one grid; the function that it returns takes a unit residual, shape (n,), and returns a direction,
    shape (n,), both on the network's device.
    """

    dimensions: int

    @abstractmethod
    def prepare(self, fluid: Tensor, air: Tensor) -> Any:  # noqa: ANN401 -- each network its own
        """What depends on the cells alone; ``fluid`` and ``air`` are 0 or 1, shape (batch, 1, *grid)."""

    @abstractmethod
    def forward(self, r: Tensor, prepared: Any) -> Tensor:  # noqa: ANN401 -- as `prepare` gives it
        """Directions for residuals of mean square 1, shape (batch, 1, *grid)."""

    @abstractmethod
    def settings(self) -> dict[str, Any]:
        """The constructor's arguments, for files."""

    def padded(self, shape: Sequence[int]) -> list[int]:
        """The shape that the network works on for a grid of this one."""
        return list(shape)

    def bind(self, grid: PoissonGrid) -> Direction:
        """The direction function of one grid.

        Raises:
            InvalidProblem: a grid of other dimensions than the network's.
        """
        shape = grid.cells.shape
        require(
            len(shape) == self.dimensions,
            f"The network is for {self.dimensions}-D grids; this grid has shape {shape}. "
            f"pretrained_direction({len(shape)}) fits it.",
            error=InvalidProblem,
        )
        parameter = next(self.parameters())
        fluid, air = (torch.zeros(1, 1, *self.padded(shape), device=parameter.device) for _ in range(2))
        window: Any = (0, 0, *(slice(0, side) for side in shape))
        fluid[window] = torch.from_numpy(grid.fluid.astype(np.float32)).to(parameter.device)
        air[window] = torch.from_numpy((grid.cells == AIR).astype(np.float32)).to(parameter.device)
        with torch.no_grad():
            prepared = self.prepare(fluid, air)
        scale = math.sqrt(float(grid.fluid.sum()))
        held = torch.zeros_like(fluid)

        def direction(r: Tensor) -> Tensor:
            with torch.no_grad():
                held[window] = (scale * r).reshape(shape).to(held.dtype)
                return self(held * fluid, prepared)[window].reshape(-1)

        return direction


class ResidualDirection(DirectionNetwork):
    """The paper's network: ReLU residual blocks at full, half and again full resolution; it sees the residual alone.

    Args:
        dimensions: 2 or 3.
        channels: default 16, the paper's.
        blocks: before the halving, between, and after; (2, 3, 2), the paper's for 64 cells a side, (3, 5, 3) for 128.
        halvings: 1 in the paper; more carry lower frequencies.

    ``f(r) = r + net(r)``: untrained it proposes the residual, so the first directions are those of conjugate gradients.
    """

    def __init__(
        self,
        dimensions: int,
        channels: int = 16,
        blocks: tuple[int, int, int] = (2, 3, 2),
        halvings: int = 1,
    ) -> None:
        super().__init__()
        require(dimensions in (2, 3), "ResidualDirection needs dimensions 2 or 3", got=dimensions)
        require(halvings >= 1, "ResidualDirection needs halvings >= 1", got=halvings)
        self.dimensions, self.channels, self.blocks = dimensions, channels, tuple(blocks)
        self.halvings = halvings
        convolution: Any = (nn.Conv2d, nn.Conv3d)[dimensions - 2]
        self.first = convolution(1, channels, 3, padding=1)

        def stack(count: int) -> nn.Sequential:
            return nn.Sequential(*(_Block(convolution, channels) for _ in range(count)))

        self.before = nn.ModuleList([stack(blocks[0]) for _ in range(halvings)])
        self.middle = stack(blocks[1])
        self.after = nn.ModuleList([stack(blocks[2]) for _ in range(halvings)])
        self.last = convolution(channels, 1, 1)
        nn.init.zeros_(self.last.weight)
        nn.init.zeros_(self.last.bias)

    def padded(self, shape: Sequence[int]) -> list[int]:
        """``shape`` with each side rounded up to what the halvings halve."""
        unit = 2**self.halvings
        return [-(-side // unit) * unit for side in shape]

    def settings(self) -> dict[str, Any]:
        shape = {"dimensions": self.dimensions, "channels": self.channels}
        return {**shape, "blocks": list(self.blocks), "halvings": self.halvings}

    def prepare(self, fluid: Tensor, air: Tensor) -> Tensor:
        return fluid

    def forward(self, r: Tensor, prepared: Tensor) -> Tensor:
        pool = (F.avg_pool2d, F.avg_pool3d)[self.dimensions - 2]
        h, kept = self.first(r), []
        for stack in self.before:
            h = stack(h)
            kept.append(h)
            h = pool(h, 2)
        h = self.middle(h)
        for stack, skip in zip(self.after, reversed(kept)):
            h = stack(F.interpolate(h, scale_factor=2) + skip)
        return (r + self.last(h)) * prepared


class _Block(nn.Module):
    def __init__(self, convolution: type[nn.Conv2d] | type[nn.Conv3d], channels: int) -> None:
        super().__init__()
        self.one = convolution(channels, channels, 3, padding=1)
        self.two = convolution(channels, channels, 3, padding=1)

    def forward(self, h: Tensor) -> Tensor:
        return torch.relu(h + self.two(torch.relu(self.one(h))))
