"""Single-loop methods: y, the linear system's solution v and x move together, a step each."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, ClassVar

import torch
from torch import Tensor

from thalweg.bilevel.hypergradient import LowerCurvature, Neumann, hypergradient
from thalweg.bilevel.problem import (
    Bilevel,
    BilevelMethod,
    BilevelState,
    Minibatches,
    Rate,
    length,
    rate,
    require_free_lower,
    require_rates,
)
from thalweg.core import InvalidProblem
from thalweg.core.seeding import torch_generator
from thalweg.core.validation import require


@dataclass(frozen=True)
class MASOBA(BilevelMethod):
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
        require(0 <= self.momentum < 1, "MASOBA needs 0 <= momentum < 1", got=self.momentum)

    def begin(self, problem: Bilevel, state: BilevelState) -> dict[str, Any]:
        require_free_lower(problem, self)
        return {"v": torch.zeros_like(state.at_y), "h": None}

    def step(self, problem: Bilevel, state: BilevelState) -> BilevelState:
        x, y, v, random = state.at_x, state.at_y, state.extra["v"], state.stream()
        gamma = rate(self.inner_step_size, state.step)
        lower = LowerCurvature(problem, x, y, problem.batch("lower", random))
        f_x, f_y = problem.gradients("upper", x, y, problem.batch("upper", random))
        direction = f_x - lower.xy(v)
        h = state.extra["h"]
        h = direction if h is None else self.momentum * h + (1.0 - self.momentum) * direction
        return self.moved(
            problem,
            state,
            problem.project("x", x - rate(self.step_size, state.step) * h),
            y - gamma * lower.gradient,
            calls=4,
            metrics={"hypergradient": length(direction), "lower_gap": length(lower.gradient)},
            extra={"v": v - gamma * (lower.yy(v) - f_y), "h": h},
        )


@dataclass(frozen=True)
class SABA(BilevelMethod):
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

    def begin(self, problem: Bilevel, state: BilevelState) -> dict[str, Any]:
        require_free_lower(problem, self)
        for name in ("upper_batches", "lower_batches"):
            sampler = getattr(problem, name)
            if sampler is not None and not isinstance(sampler, Minibatches):
                raise InvalidProblem(f"SABA needs finite sums: {name} has to be Minibatches, or absent.")
        v = torch.zeros_like(state.at_y)
        upper = [self._upper(problem, state.at_x, state.at_y, j) for j in range(_blocks(problem, "upper"))]
        lower = [self._lower(problem, state.at_x, state.at_y, v, i) for i in range(_blocks(problem, "lower"))]
        state.calls += len(upper) + 3 * len(lower)
        tables = {"upper": torch.stack(upper), "lower": torch.stack(lower)}
        return {
            "v": v,
            **tables,
            "upper mean": tables["upper"].mean(0),
            "lower mean": tables["lower"].mean(0),
        }

    def step(self, problem: Bilevel, state: BilevelState) -> BilevelState:
        x, y, v, random = state.at_x, state.at_y, state.extra["v"], state.stream()
        j = int(torch.randint(_blocks(problem, "upper"), (1,), generator=random))
        i = int(torch.randint(_blocks(problem, "lower"), (1,), generator=random))
        upper, upper_mean = _saga(state.extra, "upper", j, self._upper(problem, x, y, j))
        lower, lower_mean = _saga(state.extra, "lower", i, self._lower(problem, x, y, v, i))
        f_x, f_y = upper.split([len(x), len(y)])
        g_y, curved, cross = lower.split([len(y), len(y), len(x)])
        gamma = rate(self.inner_step_size, state.step)
        return self.moved(
            problem,
            state,
            problem.project("x", x - rate(self.step_size, state.step) * (f_x - cross)),
            y - gamma * g_y,
            calls=4,
            metrics={"hypergradient": length(f_x - cross), "lower_gap": length(g_y)},
            extra={
                **state.extra,
                "v": v - gamma * (curved - f_y),
                "upper mean": upper_mean,
                "lower mean": lower_mean,
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


def _blocks(problem: Bilevel, level: str) -> int:
    sampler = getattr(problem, f"{level}_batches")
    return sampler.blocks if isinstance(sampler, Minibatches) else 1


def _saga(extra: dict[str, Any], level: str, i: int, new: Tensor) -> tuple[Tensor, Tensor]:
    """The direction without the block's old noise, and the table's new mean; the table is overwritten."""
    table, mean = extra[level], extra[f"{level} mean"]
    change = new - table[i]
    table[i] = new
    return change + mean, mean + change / len(table)


@dataclass(frozen=True)
class MRBO(BilevelMethod):
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
    inverse: Neumann = Neumann()

    def __post_init__(self) -> None:
        require_rates(self, "step_size", "inner_step_size")
        require(0 <= self.momentum < 1, "MRBO needs 0 <= momentum < 1", got=self.momentum)

    def begin(self, problem: Bilevel, state: BilevelState) -> dict[str, Any]:
        require_free_lower(problem, self)
        return {"before": None}

    def step(self, problem: Bilevel, state: BilevelState) -> BilevelState:
        x, y, before = state.at_x, state.at_y, state.extra["before"]
        g_y, direction, calls = self._directions(problem, x, y, state)
        if before is not None:
            old_y, old_direction, more = self._directions(problem, before["x"], before["y"], state)
            g_y = g_y + self.momentum * (before["g_y"] - old_y)
            direction = direction + self.momentum * (before["direction"] - old_direction)
            calls += more
        return self.moved(
            problem,
            state,
            problem.project("x", x - rate(self.step_size, state.step) * direction),
            y - rate(self.inner_step_size, state.step) * g_y,
            calls=calls,
            metrics={"hypergradient": length(direction), "lower_gap": length(g_y)},
            extra={"before": {"x": x, "y": y, "g_y": g_y, "direction": direction}},
        )

    def _directions(
        self, problem: Bilevel, x: Tensor, y: Tensor, state: BilevelState
    ) -> tuple[Tensor, Tensor, int]:
        """The two gradients on the step's own batches: the same ones at every place asked for."""
        random = torch_generator(state.seed, state.step, 0x3B0)
        (g_y,) = problem.gradients("lower", x, y, problem.batch("lower", random), "y")
        found = hypergradient(problem, x, y, self.inverse, random)
        return g_y, found.gradient, found.calls + 1
