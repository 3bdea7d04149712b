"""Training of direction networks, without solutions: the loss asks how much steps along them shrink a residual.

Kaneda et al. (2023), "A deep conjugate direction method", sections 4 and 5: loss (9), data from Ritz vectors, for
`OneStepLearning`; `UnrolledLearning` is this library's.
"""

from __future__ import annotations

import dataclasses
import math
from abc import abstractmethod
from dataclasses import dataclass
from functools import cached_property
from typing import Any, ClassVar

import numpy as np
import torch
from numpy.typing import NDArray
from scipy.ndimage import gaussian_filter
from torch import Tensor

from thalweg.core import Method, Problem, Result, State, Status, Stop, recommended, solve
from thalweg.core.seeding import generator
from thalweg.core.validation import require
from thalweg.linear.cycle_direction import CycleDirection
from thalweg.linear.direction_network import DirectionNetwork, ResidualDirection
from thalweg.linear.obstacles import box_of_fluid, random_cells
from thalweg.linear.poisson import AIR, PoissonGrid
from thalweg.linear.poisson_tensors import poisson_product
from thalweg.numerics.lanczos import ritz


@dataclass(frozen=True)
class Samples:
    """Residuals to learn from: ``b`` of unit norm, and the cells, each of shape (batch, 1, *grid)."""

    b: Tensor
    fluid: Tensor
    air: Tensor
    counts: Tensor


@dataclass(frozen=True, eq=False)
class DirectionLearning(Problem):
    """Learn directions for Poisson grids with obstacles never seen before; its kinds say from what, and by which loss.

    Args:
        dimensions: 2 or 3.
        sides: of the training grids; each batch draws one. Networks may be used at other sizes.
        cells: about so many cells a batch holds.
        seed: batch t depends on the seed and t alone.

    Metrics: ``loss``, averaged over held-out batches.
    """

    #: A loss above this after `PATIENCE` steps is a network that learns nothing; None where no loss tells so.
    plateau: ClassVar[float | None] = None

    dimensions: int
    sides: tuple[int, ...] = (64, 128)
    cells: int = 65_536
    seed: int = 0

    def __post_init__(self) -> None:
        kind = type(self).__name__
        require(self.dimensions in (2, 3), f"{kind} needs dimensions 2 or 3", got=self.dimensions)
        require(bool(self.sides) and min(self.sides) >= 4, f"{kind} needs sides >= 4", got=self.sides)

    @abstractmethod
    def batch(self, t: int) -> Samples:
        """Batch t; negative numbers are the held-out ones."""

    @abstractmethod
    def loss(self, network: DirectionNetwork, samples: Samples) -> Tensor:
        """What training lowers, the mean over the batch."""

    def metrics(self, x: DirectionNetwork) -> dict[str, float]:
        device = next(x.parameters()).device
        with torch.no_grad():
            held_out = [self.loss(x, moved(self.batch(-t), device)) for t in range(1, 1 + HELD_OUT)]
        return {"loss": float(torch.stack(held_out).mean())}

    def _draw(self, t: int, most: int | None = None) -> tuple[np.random.Generator, int, int]:
        """The generator of batch t, its side and how many grids it has."""
        rng = generator(self.seed, *((1, -t) if t < 0 else (0, t)))
        side = int(rng.choice(self.sides))
        size = max(1, self.cells // side**self.dimensions)
        return rng, side, min(size, most or size)


@dataclass(frozen=True, eq=False)
class OneStepLearning(DirectionLearning):
    """The paper's: ``f(r)`` close to a multiple of ``A^-1 r``, by what one line search along it leaves of the residual.

    A residual is ``sum_i c_i q_i`` over Ritz vectors q_i of the box *without* obstacles, c_i normal, nine times larger
    for the lower half of the Ritz values (the paper's weights), plus a random share of white noise, which Ritz vectors
    of a few hundred steps lack. It is then cut to the fluid of a random grid.

    Args:
        ritz_vectors: Lanczos steps for each side.
        emphasis: c_i's deviation for the lower half. Default 9.

    The loss is ``|b - alpha A f(b)|^2`` at its best alpha; 1 is no help at all.
    """

    plateau: ClassVar[float | None] = 0.97

    ritz_vectors: int = 400
    emphasis: float = 9.0

    @cached_property
    def spectra(self) -> dict[int, Tensor]:
        """Ritz vectors by side, ascending, shape (k, n), float32."""
        found = {}
        for side in self.sides:
            grid = PoissonGrid(box_of_fluid((side,) * self.dimensions))
            steps = min(self.ritz_vectors, grid.cells.size // 4)
            start = generator(self.seed, side).standard_normal(grid.cells.size) * grid.fluid.ravel()
            found[side] = torch.from_numpy(ritz(grid, steps, start)[1]).float()
        return found

    def batch(self, t: int) -> Samples:
        rng, side, size = self._draw(t)
        shape = (side,) * self.dimensions
        grids = [PoissonGrid(random_cells(shape, rng)) for _ in range(size)]
        vectors = self.spectra[side]
        c = rng.standard_normal((size, len(vectors))).astype(np.float32)
        c[:, : len(vectors) // 2] *= self.emphasis
        noise = torch.from_numpy(rng.standard_normal((size, side**self.dimensions)).astype(np.float32))
        share = torch.from_numpy(rng.random((size, 1)).astype(np.float32)) ** 2
        b = torch.nn.functional.normalize(torch.from_numpy(c) @ vectors)
        b = b + share * torch.nn.functional.normalize(noise)
        return _samples(grids, list(b.numpy().astype(np.float64)))

    def loss(self, network: DirectionNetwork, samples: Samples) -> Tensor:
        """``mean |b - alpha A f(b)|^2``, alpha = f.b / f.Af."""
        b, fluid = samples.b, samples.fluid
        axes = tuple(range(1, b.ndim))
        scale = fluid.sum(axes, keepdim=True).sqrt()
        f = network(scale * b, network.prepare(fluid, samples.air)) * fluid
        Af = poisson_product(f.float(), fluid, samples.counts, self.dimensions)
        curvature = (f * Af).sum(axes, keepdim=True)
        alpha = (f * b).sum(axes, keepdim=True) / curvature.clamp_min(1e-30)
        return (b - alpha * Af).square().sum(axes).mean()


@dataclass(frozen=True, eq=False)
class UnrolledLearning(DirectionLearning):
    """This library's: directions that make conjugate gradients fast, by what ``steps`` of them leave of the residual.

    For networks that are linear, symmetric and positive definite (`CycleDirection`). A loss of one step weighs the high
    modes of the residual, which any smoother damps; several steps of conjugate gradients ask for a narrow spectrum, its
    low end included. Residuals are white noise, smoothed by a random width half the time, with an offset now and then.

    Args:
        steps: of preconditioned conjugate gradients, unrolled. Default 7, as many as a solve to 1e-4 or 1e-6 takes.

    The loss is ``log |r_steps|^2 / steps`` for ``|r_0| = 1``: the logarithm of what a step leaves of ``|r|^2``.
    """

    steps: int = 7

    def batch(self, t: int) -> Samples:
        rng, side, size = self._draw(t, most=8)
        shape = (side,) * self.dimensions
        axis, flipped = int(rng.integers(self.dimensions)), rng.random() < 0.5
        grids, rows = [], []
        for _ in range(size):
            cells = np.swapaxes(random_cells(shape, rng, most=int(rng.choice([5, 5, 12]))), 0, axis)
            grids.append(PoissonGrid(np.flip(cells, axis) if flipped else cells))
            b = rng.standard_normal(shape)
            if rng.random() < 0.5:
                b = gaussian_filter(b, 2.0 ** rng.uniform(-1.0, 3.0))
                b /= b.std()
            if rng.random() < 0.3:
                b += 2.0 * rng.standard_normal()
            rows.append(b.ravel())
        return _samples(grids, rows)

    def loss(self, network: DirectionNetwork, samples: Samples) -> Tensor:
        """``mean log |r_steps|^2 / steps``."""
        r, fluid = samples.b, samples.fluid
        prepared = network.prepare(fluid, samples.air)
        p, rz = torch.zeros_like(r), torch.ones(())
        for k in range(self.steps):
            z = network(r, prepared) * fluid
            rz, before = _dot(r, z), rz
            p = z + (rz / (before + 1e-30) * p if k else 0.0)
            q = poisson_product(p, fluid, samples.counts, self.dimensions)
            r = r - rz / (_dot(p, q) + 1e-30) * q
        return (_dot(r, r).clamp_min(1e-13).log() / self.steps).mean()


def _dot(x: Tensor, y: Tensor) -> Tensor:
    """Inner products in each grid of a batch, shape (batch, 1, 1, ...)."""
    return (x * y).sum(tuple(range(1, x.ndim)), keepdim=True)


def _samples(grids: list[PoissonGrid], rows: list[NDArray[np.float64]]) -> Samples:
    """Each row cut to the fluid of its grid, consistent, and of unit norm."""
    b = []
    for grid, row in zip(grids, rows, strict=True):
        row = grid.project(row * grid.fluid.ravel())
        b.append(row / (np.linalg.norm(row) or 1.0))

    def stacked(parts: list[Any]) -> Tensor:
        return torch.from_numpy(np.stack(parts).astype(np.float32)).reshape(
            len(grids), 1, *grids[0].cells.shape
        )

    fluid, air = stacked([g.fluid for g in grids]), stacked([g.cells == AIR for g in grids])
    return Samples(stacked(b), fluid, air, stacked([g.counts for g in grids]))


#: Batches held out for the final loss.
HELD_OUT = 8
#: Steps after which a loss still on its plateau ends the training.
PATIENCE = 1000


def moved(samples: Samples, device: torch.device) -> Samples:
    """``samples`` on ``device``."""
    parts = {f.name: getattr(samples, f.name).to(device) for f in dataclasses.fields(samples)}
    return Samples(**parts)


@dataclass(kw_only=True)
class DirectionTrainingState(State):
    """``x`` is the network."""

    optimizer: torch.optim.Adam
    t: int = 0


@dataclass(frozen=True, eq=False)
class AdamTraining(Method[DirectionLearning, DirectionTrainingState]):
    """Adam on fresh batches, its step falling to zero along a cosine.

    Args:
        network: trained in place, on the device where it is.
        steps: of the schedule; training goes on at a hundredth of the step size after them.
        step_size: default 2e-3; the paper's network wants 1e-4.
        clip: largest norm of a gradient.
        mixed_precision: run the network in bfloat16 under autocast (worth it on GPUs).

    Ends as STALLED when the loss is still at its plateau of 1 after a thousand steps.
    """

    in_place: ClassVar[bool] = True

    network: DirectionNetwork
    steps: int = 10_000
    step_size: float = 2e-3
    clip: float = 1.0
    mixed_precision: bool = False

    def __post_init__(self) -> None:
        require(self.steps >= 1 and self.step_size > 0, "AdamTraining needs steps >= 1 and step_size > 0")

    def init(self, problem: DirectionLearning, seed: int) -> DirectionTrainingState:
        require(
            self.network.dimensions == problem.dimensions,
            f"The network is {self.network.dimensions}-D, the grids are {problem.dimensions}-D",
        )
        adam = torch.optim.Adam(self.network.train().parameters(), self.step_size)
        return DirectionTrainingState(x=self.network, optimizer=adam)

    def step(self, problem: DirectionLearning, state: DirectionTrainingState) -> DirectionTrainingState:
        network, adam = state.x, state.optimizer
        device = next(network.parameters()).device
        share = min(1.0, state.t / self.steps)
        adam.param_groups[0]["lr"] = self.step_size * (0.01 + 0.99 * 0.5 * (1.0 + math.cos(math.pi * share)))
        with torch.autocast(device.type, torch.bfloat16, enabled=self.mixed_precision):
            loss = problem.loss(network, moved(problem.batch(state.t), device))
        adam.zero_grad()
        torch.autograd.backward(loss)
        torch.nn.utils.clip_grad_norm_(network.parameters(), self.clip)
        adam.step()
        state.t, state.metrics = state.t + 1, {"loss": float(loss.detach())}
        if problem.plateau and state.t == PATIENCE and state.metrics["loss"] > problem.plateau:
            state.status = Status.STALLED
            state.message = "The loss has not left 1: a smaller step_size, or more halvings, may help."
        return state


@dataclass(frozen=True)
class Recipe:
    """How a network is made from seed 0: its problem, sides, cells a batch, steps, first step size."""

    learning: type[DirectionLearning]
    sides: dict[int, tuple[int, ...]]
    cells: int
    steps: dict[int, int]
    step_size: float


RECIPES: dict[type[DirectionNetwork], Recipe] = {
    CycleDirection: Recipe(
        UnrolledLearning,
        {2: (32, 64, 100, 128, 256), 3: (16, 24, 32, 40)},
        65_536,
        {2: 2000, 3: 1500},
        step_size=1e-2,
    ),
    ResidualDirection: Recipe(
        OneStepLearning,
        {2: (32, 64, 128), 3: (16, 32)},
        65_536,
        {2: 8000, 3: 6000},
        step_size=1e-4,
    ),
}


def train_direction(
    dimensions: int,
    *,
    network: DirectionNetwork | None = None,
    sides: tuple[int, ...] | None = None,
    steps: int | None = None,
    step_size: float | None = None,
    seed: int = 0,
    **options: Any,  # noqa: ANN401 -- passed on to solve
) -> Result[DirectionNetwork]:
    """Train a direction network from scratch: the recipe of the shipped ones, with its defaults.

    Args:
        dimensions: 2 or 3.
        network: trained in place; a new `CycleDirection` by default. A `CycleDirection` learns by `UnrolledLearning`,
            a `ResidualDirection` by `OneStepLearning`, the paper's.
        sides: of the training grids; for a `CycleDirection` 32 to 256 in 2-D and 16 to 40 in 3-D.
        steps, step_size: of `AdamTraining`. A `CycleDirection` takes 2000 steps in 2-D and 1500 in 3-D, ten minutes
            or so on one core; a `ResidualDirection` 8000 and 6000, of the paper's size 1e-4.
        seed: of the weights and of all batches.
        options: of `solve`: ``callbacks``, ``stop``, ``resume``, ``progress``.

    Raises:
        InvalidParameter: other dimensions, or a network without a recipe.

    >>> train_direction(2, sides=(8,), steps=3).steps
    3
    """
    require(dimensions in (2, 3), "train_direction needs dimensions 2 or 3", got=dimensions)
    if network is None:
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(seed)
            network = CycleDirection(dimensions)
    require(
        type(network) in RECIPES,
        f"train_direction has recipes for {', '.join(kind.__name__ for kind in RECIPES)}; for others solve a "
        "DirectionLearning by AdamTraining",
        got=type(network).__name__,
    )
    recipe = RECIPES[type(network)]
    steps = steps or recipe.steps[dimensions]
    problem = recipe.learning(dimensions, sides or recipe.sides[dimensions], recipe.cells, seed)
    options = {"stop": Stop(steps=steps), **options}
    return solve(problem, AdamTraining(network, steps, step_size or recipe.step_size), seed=seed, **options)


# Here, since the area's recommended.py does without torch.
@recommended.register
def for_learning_directions(problem: UnrolledLearning) -> AdamTraining:
    """Adam on a `CycleDirection`."""
    return AdamTraining(CycleDirection(problem.dimensions), step_size=RECIPES[CycleDirection].step_size)


@recommended.register
def for_learning_one_step(problem: OneStepLearning) -> AdamTraining:
    """Adam on a `ResidualDirection`."""
    return AdamTraining(ResidualDirection(problem.dimensions), step_size=RECIPES[ResidualDirection].step_size)
