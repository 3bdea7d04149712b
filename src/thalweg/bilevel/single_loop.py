"""Single-loop methods: y, the linear system's solution v and x move together, a step each."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import ClassVar

import torch
from torch import Tensor

from thalweg.bilevel.batches import Minibatches
from thalweg.bilevel.hypergradient import LowerCurvature, NeumannInverse, hypergradient
from thalweg.bilevel.method import (
    BilevelMethod,
    BilevelState,
    begun,
    length,
    require_free_lower,
)
from thalweg.bilevel.problem import Bilevel, Level
from thalweg.bilevel.rates import Rate, rate, require_momentum, require_rates
from thalweg.core import InvalidProblem
from thalweg.core.seeding import torch_generator


@dataclass(kw_only=True)
class AveragedState(BilevelState):
    """As `BilevelState`, with the linear system's solution and the averaged direction."""

    v: Tensor  # (size of y,)
    h: Tensor | None = None  # (size of x,); None before the first step


@dataclass(frozen=True)
class MASOBA(BilevelMethod[AveragedState]):
    """Moving-average SOBA (Chen, Xiao and Balasubramanian, 2023); with ``momentum=0`` SOBA (Dagreou et al., 2022).

    ``y -= gamma grad_y g``, ``v -= gamma (grad_yy g v - grad_y f)``, ``x -= alpha h``, h a moving average of
    ``grad_x f - grad_xy g v``.

    Args:
        step_size: alpha, of x.
        inner_step_size: gamma, of y and v.
        momentum: how much of h stays each step.

    Cost per step: two gradients and two second-order products.
    """

    step_size: Rate = 0.1
    inner_step_size: Rate = 0.1
    momentum: float = 0.9

    def __post_init__(self) -> None:
        require_rates(self, "step_size", "inner_step_size")
        require_momentum(self)

    def init(self, problem: Bilevel, seed: int) -> AveragedState:
        require_free_lower(problem, self)
        first = begun(problem, seed)
        return AveragedState(**vars(first), v=torch.zeros_like(first.at_y))

    def step(self, problem: Bilevel, state: AveragedState) -> AveragedState:
        x, y, v, random = state.at_x, state.at_y, state.v, state.stream()
        alpha, gamma = rate(self.step_size, state.step), rate(self.inner_step_size, state.step)
        lower = LowerCurvature(problem, x, y, problem.batch("lower", random))
        f_x, f_y = problem.gradients("upper", x, y, problem.batch("upper", random))
        direction = f_x - lower.xy(v)
        h = direction if state.h is None else self.momentum * state.h + (1.0 - self.momentum) * direction
        new_x = problem.project("x", x - alpha * h)
        return self.moved(
            problem,
            replace(state, v=v - gamma * (lower.yy(v) - f_y), h=h),
            new_x,
            y - gamma * lower.gradient,
            calls=4,
            metrics={
                "hypergradient": length(direction),
                "stationarity": length(new_x - x) / alpha,
                "lower_gap": length(lower.gradient),
            },
        )


@dataclass(kw_only=True)
class MemoryState(BilevelState):
    """As `BilevelState`, with the linear system's solution and the tables of old directions."""

    v: Tensor  # (size of y,)
    upper: Tensor  # (blocks, sizes of x and y) of f
    lower: Tensor  # (blocks, sizes of y, y and x) of g
    upper_mean: Tensor
    lower_mean: Tensor


@dataclass(frozen=True)
class SABA(BilevelMethod[MemoryState]):
    """SOBA with SAGA's memory (Dagreou et al., 2022): old directions of every batch take the noise out.

    For finite sums: the samplers have to be `Minibatches`, whose fixed blocks are drawn, or absent.

    Args:
        step_size: of x.
        inner_step_size: of y and v.

    Cost per step: two gradients and two second-order products; memory of two y and an x for each of g's blocks, an x
    and a y for each of f's. The start is a pass over all blocks.
    """

    in_place: ClassVar[bool] = True  # the tables

    step_size: Rate = 0.1
    inner_step_size: Rate = 0.1

    def __post_init__(self) -> None:
        require_rates(self, "step_size", "inner_step_size")

    def init(self, problem: Bilevel, seed: int) -> MemoryState:
        require_free_lower(problem, self)
        for name in ("upper_batches", "lower_batches"):
            sampler = getattr(problem, name)
            if sampler is not None and not isinstance(sampler, Minibatches):
                raise InvalidProblem(f"SABA needs finite sums: {name} has to be Minibatches, or absent.")
        first = begun(problem, seed)
        x, y, v = first.at_x, first.at_y, torch.zeros_like(first.at_y)
        upper = torch.stack([self._upper(problem, x, y, j) for j in range(_blocks(problem, "upper"))])
        lower = torch.stack([self._lower(problem, x, y, v, i) for i in range(_blocks(problem, "lower"))])
        first = replace(first, calls=len(upper) + 3 * len(lower))
        return MemoryState(
            **vars(first), v=v, upper=upper, lower=lower, upper_mean=upper.mean(0), lower_mean=lower.mean(0)
        )

    def step(self, problem: Bilevel, state: MemoryState) -> MemoryState:
        x, y, v, random = state.at_x, state.at_y, state.v, state.stream()
        j = int(torch.randint(len(state.upper), (1,), generator=random))
        i = int(torch.randint(len(state.lower), (1,), generator=random))
        upper, upper_mean = _saga(state.upper, state.upper_mean, j, self._upper(problem, x, y, j))
        lower, lower_mean = _saga(state.lower, state.lower_mean, i, self._lower(problem, x, y, v, i))
        f_x, f_y = upper.split([len(x), len(y)])
        g_y, curved, cross = lower.split([len(y), len(y), len(x)])
        alpha, gamma = rate(self.step_size, state.step), rate(self.inner_step_size, state.step)
        new_x = problem.project("x", x - alpha * (f_x - cross))
        return self.moved(
            problem,
            replace(state, v=v - gamma * (curved - f_y), upper_mean=upper_mean, lower_mean=lower_mean),
            new_x,
            y - gamma * g_y,
            calls=4,
            metrics={
                "hypergradient": length(f_x - cross),
                "stationarity": length(new_x - x) / alpha,
                "lower_gap": length(g_y),
            },
        )

    @staticmethod
    def _upper(problem: Bilevel, x: Tensor, y: Tensor, j: int) -> Tensor:
        sampler = problem.upper_batches
        batch = sampler.block(j) if isinstance(sampler, Minibatches) else None
        return torch.cat(problem.gradients("upper", x, y, batch))

    @staticmethod
    def _lower(problem: Bilevel, x: Tensor, y: Tensor, v: Tensor, i: int) -> Tensor:
        sampler = problem.lower_batches
        batch = sampler.block(i) if isinstance(sampler, Minibatches) else None
        curvature = LowerCurvature(problem, x, y, batch)
        return torch.cat([curvature.gradient, curvature.yy(v), curvature.xy(v)])


def _blocks(problem: Bilevel, level: Level) -> int:
    sampler = problem.upper_batches if level == "upper" else problem.lower_batches
    return sampler.blocks if isinstance(sampler, Minibatches) else 1


def _saga(table: Tensor, mean: Tensor, i: int, new: Tensor) -> tuple[Tensor, Tensor]:
    """The direction without the block's old noise, and the table's new mean; the table is overwritten."""
    change = new - table[i]
    table[i] = new
    return change + mean, mean + change / len(table)


@dataclass(kw_only=True)
class RecursiveState(BilevelState):
    """As `BilevelState`, with the last places and the estimates there; None before the first step."""

    last_x: Tensor | None = None
    last_y: Tensor | None = None
    lower_slope: Tensor | None = None  # (size of y,) the estimate of grad_y g
    direction: Tensor | None = None  # (size of x,) that of the hyper-gradient


@dataclass(frozen=True)
class MRBO(BilevelMethod[RecursiveState]):
    """Momentum-based recursive bilevel optimizer (Yang, Ji and Liang, 2021): STORM on both gradients.

    Args:
        step_size: of x.
        inner_step_size: of y.
        momentum: how much of the recursive estimates stays each step.
        inverse: a Neumann series.

    Cost per step: twice ``3 + Q`` gradients and products.
    """

    step_size: Rate = 0.1
    inner_step_size: Rate = 0.1
    momentum: float = 0.9
    inverse: NeumannInverse = NeumannInverse()

    def __post_init__(self) -> None:
        require_rates(self, "step_size", "inner_step_size")
        require_momentum(self)

    def init(self, problem: Bilevel, seed: int) -> RecursiveState:
        require_free_lower(problem, self)
        return RecursiveState(**vars(begun(problem, seed)))

    def step(self, problem: Bilevel, state: RecursiveState) -> RecursiveState:
        x, y = state.at_x, state.at_y
        g_y, direction, calls = self._directions(problem, x, y, state)
        last_x, last_y, slope, before = state.last_x, state.last_y, state.lower_slope, state.direction
        if last_x is not None and last_y is not None and slope is not None and before is not None:
            old_y, old_direction, more = self._directions(problem, last_x, last_y, state)
            g_y = g_y + self.momentum * (slope - old_y)
            direction = direction + self.momentum * (before - old_direction)
            calls += more
        alpha = rate(self.step_size, state.step)
        new_x = problem.project("x", x - alpha * direction)
        return self.moved(
            problem,
            replace(state, last_x=x, last_y=y, lower_slope=g_y, direction=direction),
            new_x,
            y - rate(self.inner_step_size, state.step) * g_y,
            calls=calls,
            metrics={
                "hypergradient": length(direction),
                "stationarity": length(new_x - x) / alpha,
                "lower_gap": length(g_y),
            },
        )

    def _directions(
        self, problem: Bilevel, x: Tensor, y: Tensor, state: BilevelState
    ) -> tuple[Tensor, Tensor, int]:
        """The two gradients on the step's own batches: the same ones at every place asked for."""
        random = torch_generator(state.seed, state.step, 0x3B0)
        (g_y,) = problem.gradients("lower", x, y, problem.batch("lower", random), "y")
        found = hypergradient(problem, x, y, self.inverse, random)
        return g_y, found.gradient, found.calls + 1
