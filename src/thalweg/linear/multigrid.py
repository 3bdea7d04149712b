"""A geometric multigrid cycle with learned weights for Poisson grids, as a preconditioner.

Trottenberg, Oosterlee and Schueller (2001), "Multigrid", chapters 2, 5 and 7, for the cycle, red-black relaxation and
multigrid as a preconditioner; Vanek, Mandel and Brezina (1996) for transfers that are smoothed once. The weights'
networks and their training are this library's.
"""

from __future__ import annotations

import json
import math
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any, ClassVar

import numpy as np
import scipy.sparse as sp
from numpy.typing import NDArray
from scipy.sparse.linalg import LinearOperator

from thalweg.core import InvalidProblem, UnreadableFile
from thalweg.core.validation import require
from thalweg.datasets.networks import load_tensors, shipped
from thalweg.linear import _aggregation_kernels as parts
from thalweg.linear import _coarsening_kernels as coarsening
from thalweg.linear import _cycle_kernels as kernels
from thalweg.linear.aggregation import AggregationCycle
from thalweg.linear.poisson import PoissonGrid

Single = NDArray[np.float32]

#: The levels end where no side is longer.
COARSEST = 4
#: An eigenvalue of the coarsest matrix under this share of the largest is that of a closed pool's constant: zero.
SINGULAR = 1e-10
#: Along walls a block that falls apart has one neighbour before it, and in 3-D two, that does so too; the share of them
#: that makes a wall. Cells that are solid at random, one in three, reach it; with fewer, parts cost more time than they
#: save.
BESIDE = 2 / 3
#: Where walls are found, blocks of the finest level get their parts too if more than this share of them falls apart.
SCATTERED = 0.05
#: What the networks for coarse faces and coarse air give is a logarithm within plus and minus this.
RANGE = 3.0
#: Hidden neurons of each network; inputs and outputs of those for relaxation, faces and air.
NEURONS, INPUTS, OUTPUTS = 8, (5, 8, 6), (3, 1, 1)
#: Shipped weights, by dimensions: file, and SHA-256 of its bytes.
PRETRAINED: dict[int, tuple[str, str]] = {
    2: ("poisson-2d.safetensors", "732aa522b37a6026e3f3bbb0897440daf4321124fcce360fe8beae581f969014"),
    3: ("poisson-3d.safetensors", "33ca65a198d0ca6bd63b3dac56d960ff8cf0a84375fdea92621e3c6b43dafd9a"),
}


@dataclass(frozen=True, eq=False)
class CycleWeights:
    """The numbers that make a `MultigridCycle`: three networks of one hidden layer, 221 parameters.

    Args:
        dimensions: 2 or 3, of the grids that they are for.
        networks: for relaxation and transfers, for coarse faces, and for coarse conductances to the air; each as
            (weights, biases, weights, biases) of its two layers, float32.

    Raises:
        InvalidProblem: arrays of other shapes, or not finite.

    >>> CycleWeights.hand_set(2).networks[0][0].shape
    (8, 5)
    """

    names: ClassVar[tuple[str, ...]] = ("smooth", "edge", "air")

    dimensions: int
    networks: tuple[tuple[Single, Single, Single, Single], ...]

    def __post_init__(self) -> None:
        require(self.dimensions in (2, 3), "CycleWeights needs dimensions 2 or 3", got=self.dimensions)
        expected = [
            ((NEURONS, i), (NEURONS,), (o, NEURONS), (o,)) for i, o in zip(INPUTS, OUTPUTS, strict=True)
        ]
        found = [tuple(np.shape(part) for part in network) for network in self.networks]
        require(
            found == expected,
            f"CycleWeights: networks of shapes {found}; expected {expected}",
            error=InvalidProblem,
        )
        kept = tuple(tuple(np.ascontiguousarray(a, np.float32) for a in network) for network in self.networks)
        finite = all(np.isfinite(part).all() for network in kept for part in network)
        require(finite, "CycleWeights: a weight is NaN or infinite", error=InvalidProblem)
        object.__setattr__(self, "networks", kept)

    @classmethod
    def hand_set(cls, dimensions: int) -> CycleWeights:
        """What no training has touched: relaxation factors of 1, transfer factors of 1/4, mean faces."""
        shapes = [
            ((NEURONS, i), (NEURONS,), (o, NEURONS), (o,)) for i, o in zip(INPUTS, OUTPUTS, strict=True)
        ]
        networks = tuple(tuple(np.zeros(shape, np.float32) for shape in network) for network in shapes)
        return cls(dimensions, networks)  # type: ignore[arg-type]

    @classmethod
    def load(cls, path: str | Path) -> CycleWeights:
        """The weights of a `CycleDirection` in a file of `save_direction`; read without torch.

        Raises:
            UnreadableFile: absent, damaged, or of another network.
        """

        def build(about: dict[str, str], tensors: dict[str, Any]) -> CycleWeights:
            if about["kind"] != "CycleDirection":
                raise ValueError(f"it holds a {about['kind']}")
            parts = ("0.weight", "0.bias", "2.weight", "2.bias")
            networks = tuple(tuple(tensors[f"{name}.{part}"] for part in parts) for name in cls.names)
            return cls(int(json.loads(about["settings"])["dimensions"]), networks)

        try:
            return load_tensors(path, build, "no cycle. save_direction() writes them", framework="np")
        except InvalidProblem as error:
            raise UnreadableFile(f"{path} is no cycle. ({error})") from error

    @classmethod
    def pretrained(cls, dimensions: int) -> CycleWeights:
        """The weights shipped with the library, read once; `train_direction` has their recipe."""
        require(
            dimensions in PRETRAINED, f"There are weights for {sorted(PRETRAINED)} dimensions", got=dimensions
        )
        return _shipped(*PRETRAINED[dimensions])


@cache
def _shipped(name: str, checksum: str) -> CycleWeights:
    with shipped("thalweg.linear", name, checksum) as path:
        return CycleWeights.load(path)


@dataclass(frozen=True, eq=False)
class Parts:
    """What is below a level whose blocks fall apart: the unknown of each of its cells, and a cycle for them."""

    owner: NDArray[np.int32]  # the level's layout; -1 without an unknown
    cells: Single  # (2, the level's layout): what the level gives, and what it gets
    cycle: AggregationCycle

    def solve(self, scale: float) -> None:
        """From a residual, ``cells[0]``, to a correction, ``cells[1]``."""
        parts.restrict(self.cells[kernels.B], self.owner, scale, self.cycle.b)
        parts.prolong(self.cycle.solve(), self.owner, self.cells[kernels.X])


class MultigridCycle(LinearOperator):
    """One multigrid V-cycle as an approximate inverse of a `PoissonGrid`, for `ConjugateGradient`'s ``preconditioner``.

    The choice for pressure on grids on a CPU, from about 64 x 64 cells on: past obstacles 4 to 7 iterations to a
    residual of 1e-4 and 8 to 12 to 1e-8, whatever the size; between walls of one cell 8 and 14, in mazes of channels
    one cell wide 14 and 26.

    One red-black sweep on the way down and its mirror image on the way up; blocks of two cells a side, with transfers
    smoothed once; on coarse levels again a five- or seven-point matrix, whose faces are means of the finer ones'. It is
    symmetric positive definite by its form, whatever the weights. Learning adjusts relaxation, transfers and coarse
    faces to what surrounds them; it saves 15 to 25 % of the iterations of the hand-set weights in 2-D, about a tenth in
    3-D, and no more: the form does the rest.

    A coarse cell that holds both sides of a wall would couple them. So where blocks that fall apart lie side by side,
    as along a wall, each of their parts becomes an unknown, and the levels below are graphs (`AggregationCycle`).
    Elsewhere nothing is different: blocks that fall apart here and there do little harm, and graphs are slower than
    grids.

    Args:
        grid: 2-D or 3-D, of any shape; levels are halved, rounded up, until no side is longer than four cells.
        learned: True for the shipped weights, False for the hand-set ones, or `CycleWeights` of one's own.
        split: whether blocks may have an unknown for each of their parts. False is the cycle of `CycleDirection`.

    In cells without fluid it is the identity; in closed pools the constant, which A maps to zero, is projected out. One
    object holds the room that an application works in: give each thread its own.

    Raises:
        InvalidParameter: ``learned`` or ``split`` is something else.
        InvalidProblem: not a `PoissonGrid`; weights for another number of dimensions.

    Cost: 43 bytes kept a cell in 2-D, 37 in 3-D; an application moves about 70 bytes and does about 110 operations a
    cell (2-D), in float32, on one core. Setting up costs as much as three or four applications; with parts an
    application takes two to five times as long, and setting up as much as ten of them.

    >>> from thalweg import solve
    >>> from thalweg.linear import ConjugateGradient, LinearSystem, MultigridCycle, PoissonGrid
    >>> from thalweg.linear.obstacles import box_of_fluid
    >>> grid = PoissonGrid(box_of_fluid((64, 64)))
    >>> system = LinearSystem(grid, grid.fluid.ravel().astype(float))
    >>> solve(system, ConjugateGradient(MultigridCycle(grid))).steps < 12
    True
    """

    def __init__(self, grid: PoissonGrid, learned: bool | CycleWeights = True, *, split: bool = True) -> None:
        if not isinstance(grid, PoissonGrid):
            raise InvalidProblem(
                f"MultigridCycle takes the grid, a PoissonGrid, which knows which cells are neighbours; got a "
                f"{type(grid).__name__}."
            )
        dimensions = grid.cells.ndim
        require(
            isinstance(learned, bool | CycleWeights),
            "MultigridCycle: learned is True, False, or CycleWeights",
            got=learned,
        )
        require(isinstance(split, bool), "MultigridCycle: split is True or False", got=split)
        if not isinstance(learned, CycleWeights):
            learned = CycleWeights.pretrained(dimensions) if learned else CycleWeights.hand_set(dimensions)
        require(
            learned.dimensions == dimensions,
            f"The weights are for {learned.dimensions}-D grids; this grid has shape {grid.cells.shape}",
            error=InvalidProblem,
        )
        self.grid, self.weights, self.split = grid, learned, split
        volume = grid.cells.shape if dimensions == 3 else (grid.cells.shape[0], 1, grid.cells.shape[1])
        self._halving, self._scale = (2, np.float32(0.5)) if dimensions == 3 else (1, np.float32(1.0))
        self._levels, self._bottom = self._built(volume)
        columns = np.arange(volume[2] + 2)
        self._colour = np.stack([(columns + 1) % 2, columns % 2]).astype(np.float32)
        self._rooms = [np.zeros((2, 4, *level.shape[2:]), np.float32) for level in self._levels]
        super().__init__(np.dtype(np.float64), grid.shape)  # type: ignore[call-arg]

    def _built(self, volume: tuple[int, ...]) -> tuple[list[Single], Single | Parts]:
        """The levels, finest first, and what solves below them."""
        dimensions, limit = self.grid.cells.ndim, np.float32(RANGE)
        smooth, edge, opening = self.weights.networks
        (share, air), table = self._surroundings(volume), self._table()
        levels: list[Single] = []
        scattered = None
        here = np.zeros((kernels.FIELDS, *share.shape), np.float32)
        coarsening.faces(share, here)
        while True:
            finest = not levels
            levels.append(here)
            coarsening.weigh(here, finest, dimensions, *smooth, table, air, share)
            if max(volume) <= COARSEST:
                return levels, self._coarsest_inverse(here, air)
            blocks, apart, pairs = parts.count_apart(here, self._halving) if self.split else (0, 0, 0)
            walls = not finest and self._are_walls(blocks, apart, pairs)
            if walls and scattered is not None:
                return levels[:1], self._parts(*scattered)
            volume = (-(-volume[0] // 2), -(-volume[1] // self._halving), -(-volume[2] // 2))
            shape = (volume[0] + 2, volume[1], volume[2] + 2)
            crossing, inner = np.zeros((2, 3, *shape), np.float32)
            mean, series, above, coarse_share = np.zeros((4, *shape), np.float32)
            coarsening.gather(here, dimensions, air, share, crossing, inner, mean, series, coarse_share)
            here = np.zeros((kernels.FIELDS, *shape), np.float32)
            for axis in (0, 2) if dimensions == 2 else (0, 1, 2):
                seen = (limit, finest, crossing, inner, mean, coarse_share)
                coarsening.couple(axis, dimensions, *edge, *seen, here)
            coarsening.open_to_air(
                dimensions, *opening, limit, finest, crossing, inner, mean, series, coarse_share, above
            )
            shared = (levels[-1], air, crossing, here, series, above)
            if walls:
                return levels, self._parts(*shared)
            scattered = shared if finest and apart > SCATTERED * blocks else None
            air, share = above, coarse_share

    def _are_walls(self, blocks: int, apart: int, pairs: int) -> bool:
        """Whether blocks that fall apart make lines, in 3-D sheets, as long together as a quarter of the grid's side.

        Along a wall each has neighbours that fall apart; those that obstacles make here and there do no harm.
        """
        dimensions = self.grid.cells.ndim
        return pairs > BESIDE * apart * (dimensions - 1) and apart > blocks ** (1 - 1 / dimensions) / 4

    def _parts(
        self, level: Single, air: Single, crossing: Single, coarse: Single, series: Single, above: Single
    ) -> Parts:
        """The parts of a level's blocks, with the faces and the air of the level below shared out among them."""
        owner = np.empty(level.shape[1:], np.int32)
        places = np.empty((level[kernels.DIAGONAL].size, 3), np.int32)
        n = parts.number_parts(level, self._halving, owner, places)
        faces = np.count_nonzero(level[kernels.LAYER_FACE :])
        ends, weights, opening = np.empty((2, faces), np.int32), np.empty(faces), np.zeros(n)
        count = 2.0 ** (self.grid.cells.ndim - 1)
        found = parts.couplings(
            level, self._halving, count, air, owner, crossing, coarse, series, above, ends, weights, opening
        )
        (i, j), w = ends[:, :found], weights[:found]
        diagonal = opening + np.bincount(i, w, n) + np.bincount(j, w, n)
        number = np.arange(n)
        rows, columns = np.concatenate([number, i, j]), np.concatenate([number, j, i])
        A = sp.csr_array(sp.coo_array((np.concatenate([diagonal, -w, -w]), (rows, columns)), shape=(n, n)))
        cells = np.zeros((2, *owner.shape), np.float32)
        return Parts(owner, cells, AggregationCycle(A, opening, places[:n], self.grid.cells.ndim))

    def _surroundings(self, volume: tuple[int, ...]) -> tuple[Single, Single]:
        """Fluid, and how many neighbours are air, in the layout of the finest level."""
        fluid, air = (np.zeros((volume[0] + 2, volume[1], volume[2] + 2), np.float32) for _ in range(2))
        inner = (slice(1, -1), slice(None), slice(1, -1))
        fluid[inner] = self.grid.fluid.reshape(volume)
        beside = self.grid.counts.reshape(volume).astype(np.float32)
        beside -= fluid[:-2, :, 1:-1] + fluid[2:, :, 1:-1] + fluid[1:-1, :, :-2] + fluid[1:-1, :, 2:]
        beside[:, 1:] -= fluid[1:-1, :-1, 1:-1]
        beside[:, :-1] -= fluid[1:-1, 1:, 1:-1]
        air[inner] = beside * fluid[inner]
        return fluid, air

    def _table(self) -> Single:
        """Relaxation factors (red, black) and transfer factors of the finest level, by fluid and air neighbours."""
        first, first_bias, last, last_bias = (part.astype(np.float64) for part in self.weights.networks[0])
        fluid, air = np.meshgrid(np.arange(7.0), np.arange(7.0), indexing="ij")
        share = fluid / (2 * self.grid.cells.ndim)
        seen = np.stack([share, share, air / 2, np.ones_like(air), np.ones_like(air)], axis=-1)
        out = np.maximum(seen @ first.T + first_bias, 0.0) @ last.T + last_bias
        return (np.array([2.0, 2.0, 0.5]) / (1.0 + np.exp(-out))).astype(np.float32)

    @staticmethod
    def _coarsest_inverse(level: Single, air: Single) -> Single:
        """The pseudo-inverse of a level's matrix, from its faces and its ``air``."""
        level, air = level[:, 1:-1, :, 1:-1], air[1:-1, :, 1:-1]
        number = np.arange(air.size).reshape(air.shape)
        matrix = np.diag(air.ravel().astype(np.float64))
        for axis in range(3):
            low, high = (np.moveaxis(number, axis, 0)[s].ravel() for s in (slice(None, -1), slice(1, None)))
            weight = np.moveaxis(level[kernels.LAYER_FACE + axis], axis, 0)[:-1].ravel().astype(np.float64)
            for i, j in ((low, high), (high, low)):
                matrix[i, i] += weight
                matrix[i, j] -= weight
        return np.linalg.pinv(matrix, rcond=SINGULAR, hermitian=True).astype(np.float32)

    def _matvec(self, x: NDArray[np.float64]) -> NDArray[np.float64]:
        r = np.ascontiguousarray(x, dtype=np.float64).reshape(-1)
        if self.grid.closed:
            r = self.grid.project(r.copy())
        finest, exponent = self._levels[0], math.frexp(kernels.largest(r))[1]
        exponent = min(max(exponent, -1000), 1000)  # two to it, and to its negative, are numbers
        kernels.pack(r, math.ldexp(1.0, -exponent), finest)  # near one, whatever the units
        self._cycle(0)
        z = np.empty_like(r)
        kernels.unpack(finest, math.ldexp(1.0, exponent), r, z)
        return self.grid.project(z).reshape(np.shape(x))

    def _cycle(self, depth: int) -> None:
        """From B of a level to its X, by way of the levels below it."""
        here, bottom, last = self._levels[depth], self._bottom, depth + 1 == len(self._levels)
        if last and not isinstance(bottom, Parts):
            inner = here[:, 1:-1, :, 1:-1]
            inner[kernels.X] = (bottom @ inner[kernels.B].ravel()).reshape(inner.shape[1:])
            return
        below = bottom if last and isinstance(bottom, Parts) else None
        coarse, halving = (below.cells, 0) if below else (self._levels[depth + 1], self._halving)
        room, row, finest = self._rooms[depth], np.zeros(here.shape[3], np.float32), depth == 0
        kernels.descend(here, coarse, finest, self._colour, room, row, halving, self._scale)
        if below:
            below.solve(float(self._scale))
        else:
            self._cycle(depth + 1)
        kernels.ascend(here, coarse, finest, self._colour, room, row, halving)

    def _adjoint(self) -> MultigridCycle:
        return self

    def tree(self) -> tuple[Any, ...]:
        """What makes this operator."""
        return (self.grid.cells, self.weights.dimensions, self.weights.networks, self.split)
