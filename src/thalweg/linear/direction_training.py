"""Training of direction networks, without solutions: the loss asks how much one step shrinks a residual.

Kaneda et al. (2023), "A deep conjugate direction method", sections 4 and 5: loss (9), data from Ritz vectors.
"""

from __future__ import annotations

import dataclasses
import math
from dataclasses import dataclass
from functools import cached_property
from typing import Any, ClassVar

import numpy as np
import torch
from torch import Tensor

from thalweg.core import Method, Problem, Result, State, Status, Stop, recommended, solve
from thalweg.core.seeding import generator
from thalweg.core.validation import require
from thalweg.linear.direction_network import DirectionNetwork, SymmetricDirection
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
    """Learn ``f(r)`` close to a multiple of ``A^-1 r`` for Poisson grids with obstacles never seen before.

    A residual is ``sum_i c_i q_i`` over Ritz vectors q_i of the box *without* obstacles, c_i normal, nine times larger
    for the lower half of the Ritz values (the paper's weights), plus a random share of white noise, which Ritz vectors
    of a few hundred steps lack. It is then cut to the fluid of a random grid.

    Args:
        dimensions: 2 or 3.
        sides: of the training grids; each batch draws one. Networks may be used at other sizes.
        cells: about so many cells a batch holds.
        ritz_vectors: Lanczos steps for each side.
        emphasis: c_i's deviation for the lower half. Default 9.
        seed: batch t depends on the seed and t alone.

    Metrics: ``loss``, ``|b - alpha A f(b)|^2`` at its best alpha, averaged over held-out batches; 1 is no help at all.
    """

    dimensions: int
    sides: tuple[int, ...] = (64, 128)
    cells: int = 65_536
    ritz_vectors: int = 400
    emphasis: float = 9.0
    seed: int = 0

    def __post_init__(self) -> None:
        require(self.dimensions in (2, 3), "DirectionLearning needs dimensions 2 or 3", got=self.dimensions)
        require(
            bool(self.sides) and min(self.sides) >= 4, "DirectionLearning needs sides >= 4", got=self.sides
        )

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
        """Batch t; negative numbers are the held-out ones."""
        rng = generator(self.seed, *((1, -t) if t < 0 else (0, t)))
        side = int(rng.choice(self.sides))
        shape = (side,) * self.dimensions
        size = max(1, self.cells // side**self.dimensions)
        grids = [PoissonGrid(random_cells(shape, rng)) for _ in range(size)]
        vectors = self.spectra[side]
        c = rng.standard_normal((size, len(vectors))).astype(np.float32)
        c[:, : len(vectors) // 2] *= self.emphasis
        noise = torch.from_numpy(rng.standard_normal((size, side**self.dimensions)).astype(np.float32))
        share = torch.from_numpy(rng.random((size, 1)).astype(np.float32)) ** 2
        b = torch.nn.functional.normalize(torch.from_numpy(c) @ vectors)
        b = b + share * torch.nn.functional.normalize(noise)
        rows = []
        for row, grid in zip(b.numpy().astype(np.float64), grids):
            row = grid.project(row * grid.fluid.ravel())
            rows.append(row / (np.linalg.norm(row) or 1.0))

        def stacked(parts: list[Any]) -> Tensor:
            return torch.from_numpy(np.stack(parts).astype(np.float32)).reshape(size, 1, *shape)

        fluid, air = stacked([g.fluid for g in grids]), stacked([g.cells == AIR for g in grids])
        return Samples(stacked(rows), fluid, air, stacked([g.counts for g in grids]))

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

    def metrics(self, x: DirectionNetwork) -> dict[str, float]:
        device = next(x.parameters()).device
        with torch.no_grad():
            held_out = [self.loss(x, moved(self.batch(-t), device)) for t in range(1, 1 + HELD_OUT)]
        return {"loss": float(torch.stack(held_out).mean())}


#: Batches held out for the final loss.
HELD_OUT = 8
#: A loss above this after so many steps is the plateau at 1, where f tells nothing about b.
PLATEAU, PATIENCE = 0.97, 1000


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
        if state.t == PATIENCE and state.metrics["loss"] > PLATEAU:
            state.status = Status.STALLED
            state.message = "The loss has not left 1: a smaller step_size, or more halvings, may help."
        return state


@dataclass(frozen=True)
class Recipe:
    """How a shipped network was made, seed 0."""

    sides: tuple[int, ...]
    steps: int


RECIPES = {2: Recipe((32, 64, 128), 8000), 3: Recipe((16, 32), 6000)}


def train_direction(
    dimensions: int,
    *,
    network: DirectionNetwork | None = None,
    sides: tuple[int, ...] | None = None,
    steps: int | None = None,
    step_size: float = 2e-3,
    seed: int = 0,
    **options: Any,  # noqa: ANN401 -- passed on to DirectionLearning
) -> Result[DirectionNetwork]:
    """Train a direction network from scratch: the recipe of the shipped ones, with its defaults.

    Args:
        dimensions: 2 or 3.
        network: trained in place; a new `SymmetricDirection` by default.
        sides: of the training grids; (32, 64, 128) in 2-D, (16, 32) in 3-D.
        steps, step_size: of `AdamTraining`; 8000 steps in 2-D and 6000 in 3-D. Half an hour each on one core.
        seed: of the weights and of all batches.
        options: of `solve`: ``callbacks``, ``stop``, ``resume``, ``progress``.

    >>> train_direction(2, sides=(8,), steps=3).steps
    3
    """
    require(dimensions in RECIPES, "train_direction needs dimensions 2 or 3", got=dimensions)
    if network is None:
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(seed)
            network = SymmetricDirection(dimensions)
    sides, steps = sides or RECIPES[dimensions].sides, steps or RECIPES[dimensions].steps
    problem = DirectionLearning(dimensions, sides, seed=seed)
    options = {"stop": Stop(steps=steps), **options}
    return solve(problem, AdamTraining(network, steps, step_size), seed=seed, **options)


# Here, since the area's recommended.py does without torch.
@recommended.register
def for_learning_directions(problem: DirectionLearning) -> AdamTraining:
    """Adam on a `SymmetricDirection`."""
    return AdamTraining(SymmetricDirection(problem.dimensions))
