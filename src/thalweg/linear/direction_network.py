"""Networks that propose a search direction from a residual on a grid.

Kaneda, Akar, Chen, Kala, Hyde and Teran (2023), "A deep conjugate direction method for iteratively solving linear
systems", section 5, for `ResidualDirection`; `SymmetricDirection` is this library's.
"""

from __future__ import annotations

import json
import math
from abc import abstractmethod
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn import functional as F  # noqa: N812

from thalweg.core import InvalidProblem
from thalweg.core.validation import require
from thalweg.datasets.networks import load_tensors, save_tensors, shipped
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

    @property
    @abstractmethod
    def depth(self) -> int | None:
        """Levels of halving, or None where they grow with the grid."""

    @abstractmethod
    def settings(self) -> dict[str, Any]:
        """The constructor's arguments, for files."""

    def levels(self, shape: Sequence[int]) -> int:
        """Levels of resolution for a grid of this shape, the finest included."""
        if self.depth:
            return self.depth
        longest = max(2, math.ceil(math.log2(max(shape))) - 1)
        return min(
            longest, 3 + math.floor(math.log2(min(shape)))
        )  # a short side is padded to four times at most

    def padded(self, shape: Sequence[int]) -> list[int]:
        """``shape`` with each side rounded up to what the levels halve."""
        unit = 2 ** (self.levels(shape) - 1)
        return [-(-side // unit) * unit for side in shape]

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


class SymmetricDirection(DirectionNetwork):
    """A learned multigrid cycle: ``f(r) = r + sum_l E_l' B' B E_l r``, linear in r and positive definite by its form.

    E_l are convolutions with halvings between them, one set of weights at all levels, so that a larger grid has more
    levels and no more parameters; what a second small network sees of fluid, solid and air gates them. Whatever the
    weights, the directions make a symmetric positive definite preconditioner of the grid, and two directions kept make
    the method conjugate gradients'. It differs from the paper's in form, and in that it sees the cells.

    Args:
        dimensions: 2 or 3.
        channels: default 12.
        convolutions: at each level; default 2.
    """

    depth = None

    def __init__(self, dimensions: int, channels: int = 12, convolutions: int = 2) -> None:
        super().__init__()
        require(dimensions in (2, 3), "SymmetricDirection needs dimensions 2 or 3", got=dimensions)
        require(channels >= 1 and convolutions >= 1, "SymmetricDirection needs channels, convolutions >= 1")
        self.dimensions, self.channels, self.convolutions = dimensions, channels, convolutions
        convolution: Any = (nn.Conv2d, nn.Conv3d)[dimensions - 2]
        self.cells = nn.Sequential(
            convolution(2, channels, 3, padding=1),
            nn.ReLU(),
            convolution(channels, channels, 3, padding=1),
            nn.ReLU(),
        )
        self.gates = convolution(channels, channels * (convolutions + 1), 1)
        nn.init.zeros_(self.gates.weight)
        nn.init.ones_(self.gates.bias)
        self.first = self._weight(channels, 1, 3, 1.0)
        self.smooth = nn.ParameterList(
            [self._weight(channels, channels, 3, 0.3) for _ in range(convolutions)]
        )
        self.down = self._weight(channels, channels, 1, 0.1)
        self.out = self._weight(channels, channels, 1, 0.3)
        with torch.no_grad():
            self.down.view(channels, channels).diagonal().add_(0.7)

    def _weight(self, out: int, into: int, side: int, gain: float) -> nn.Parameter:
        shape = (out, into, *(side,) * self.dimensions)
        return nn.Parameter(gain * torch.randn(shape) / math.sqrt(math.prod(shape[1:])))

    def settings(self) -> dict[str, Any]:
        return {"dimensions": self.dimensions, "channels": self.channels, "convolutions": self.convolutions}

    def prepare(self, fluid: Tensor, air: Tensor) -> list[tuple[Tensor, ...]]:
        """The gates of each level, finest first."""
        pool = (F.avg_pool2d, F.avg_pool3d)[self.dimensions - 2]
        shape = fluid.shape[2:]
        halvings = min(
            (side & -side).bit_length() - 1 for side in shape
        )  # `padded` may have made a short side longer
        gates = []
        for level in range(min(self.levels(shape), halvings + 1)):
            if level:
                fluid, air = pool(fluid, 2), pool(air, 2)
            found = self.gates(self.cells(torch.cat([fluid, air], 1))) * (fluid > 0)
            gates.append(found.chunk(self.convolutions + 1, 1))
        return gates

    def forward(self, r: Tensor, prepared: list[tuple[Tensor, ...]]) -> Tensor:
        pool = (F.avg_pool2d, F.avg_pool3d)[self.dimensions - 2]
        half = 2.0 ** (self.dimensions / 2)  # makes the halving's transpose its right inverse
        h, features = _convolved(r, self.first), []
        for level, gates in enumerate(prepared):
            for weight, gate in zip(self.smooth, gates):
                h = h + gate * _convolved(h, weight)
            features.append(_convolved(gates[-1] * h, self.out))
            if level + 1 < len(prepared):
                h = half * pool(_convolved(h, self.down), 2)
        a = torch.zeros_like(h)
        for level, gates in reversed(list(enumerate(prepared))):
            if level + 1 < len(prepared):
                a = _transposed(F.interpolate(a, scale_factor=2) / half, self.down)
            a = a + gates[-1] * _transposed(features[level], self.out)
            for weight, gate in reversed(list(zip(self.smooth, gates))):
                a = a + _transposed(gate * a, weight)
        return r + _transposed(a, self.first)


#: On CPUs torch leaves a single 3-D example below this size to a kernel twenty times slower than oneDNN's.
SMALL = 20_480


def _convolved(x: Tensor, weight: Tensor) -> Tensor:
    """Convolution with as many outputs as inputs a side."""
    convolution = (F.conv2d, F.conv3d)[x.ndim - 4]
    if x.ndim == 5 and len(x) == 1 and x.device.type == "cpu" and x.shape[1:4].numel() <= SMALL:
        return convolution(x.expand(2, *x.shape[1:]), weight, padding=weight.shape[-1] // 2)[:1]
    return convolution(x, weight, padding=weight.shape[-1] // 2)


def _transposed(x: Tensor, weight: Tensor) -> Tensor:
    """The transpose of `_convolved`; written as a convolution, which is faster than torch's transposed one."""
    return _convolved(x, weight.transpose(0, 1).flip(tuple(range(2, weight.ndim))))


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

    @property
    def depth(self) -> int:
        return self.halvings + 1

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


KINDS = {"SymmetricDirection": SymmetricDirection, "ResidualDirection": ResidualDirection}
#: Shipped networks, by dimensions: file, and SHA-256 of its bytes.
PRETRAINED: dict[int, tuple[str, str]] = {
    2: ("poisson-2d.safetensors", "0ada7ba744acbe465c4b1c4fdd4563db7530b90325af76bcc2c19bc116e02425"),
    3: ("poisson-3d.safetensors", "494ecd9038ae1353f4fe4e6411b2051399b9c7a865904096f3aaa9187adf9d87"),
}


def save_direction(path: str | Path, network: DirectionNetwork, recipe: dict[str, Any] | None = None) -> None:
    """Write a network as safetensors; its settings and the ``recipe`` that made it stand in the file's header."""
    kind = type(network).__name__
    about = {"kind": kind, "settings": json.dumps(network.settings()), "recipe": json.dumps(recipe or {})}
    save_tensors(path, network.state_dict(), about)


def load_direction(path: str | Path, device: str | torch.device = "cpu") -> DirectionNetwork:
    """A network that `save_direction` wrote.

    Raises:
        UnreadableFile: absent, damaged, or not such a file.
    """

    def build(about: dict[str, str], tensors: dict[str, Tensor]) -> DirectionNetwork:
        network: DirectionNetwork = KINDS[about["kind"]](**json.loads(about["settings"]))
        network.load_state_dict(tensors)
        return network

    return load_tensors(path, build, "no direction network. save_direction() writes them").to(device).eval()


def pretrained_direction(dimensions: int, device: str | torch.device = "cpu") -> DirectionNetwork:
    """The network shipped with the library, for 2-D or 3-D grids; `train_direction` has the recipe.

    >>> sum(p.numel() for p in pretrained_direction(2).parameters()) < 10_000
    True
    """
    require(
        dimensions in PRETRAINED, f"There are networks for {sorted(PRETRAINED)} dimensions", got=dimensions
    )
    name, checksum = PRETRAINED[dimensions]
    with shipped("thalweg.linear", name, checksum) as path:
        return load_direction(path, device)
