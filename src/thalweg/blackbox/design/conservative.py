"""Conservative objective models: a score model held down where it rises without data.

Trabucco, Kumar, Geng and Levine (2021), arXiv 2107.06882.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor
from torch.nn import functional

from thalweg.blackbox.design.problem import SequenceTable
from thalweg.blackbox.design.space import Codes, one_hot
from thalweg.core import Method, NotFinite, State, Status
from thalweg.core.seeding import torch_generator
from thalweg.core.validation import is_real, is_whole, require

BATCH, UNITS = 128, 256


@dataclass(kw_only=True)
class AscentState(State):
    """``points`` are soft letters, shape (n, length x letters), of which ``x`` are the largest."""

    x: Codes
    points: Tensor
    start: float
    seed: int = 0
    steps: int = 0


@dataclass(frozen=True, kw_only=True)
class ConservativeAscent(Method[SequenceTable, AscentState]):
    """Ascent on a conservative model: trained to give no more than data do to points that ascent finds.

    A network of one hidden layer on one-hot letters. While it trains, points found by ascent from the rows are pressed
    down, with a weight that keeps their lead at ``lead``. Designs then ascend as far as training did.

    Args:
        steps: of ascent, default 50. step_size: over the root of the number of letters, default 0.05.
        training: steps, default 300. lead: in deviations of the score, default 0.5.

    Cost: training takes ``steps`` + 2 passes a step; then one pass a step.
    """

    steps: int = 50
    step_size: float = 0.05
    training: int = 300
    lead: float = 0.5

    def __post_init__(self) -> None:
        for name in ("steps", "training"):
            value = getattr(self, name)
            require(is_whole(value) and value >= 1, f"ConservativeAscent needs {name} >= 1", got=value)
        for name in ("step_size", "lead"):
            value = getattr(self, name)
            usable = is_real(value) and 0 < value < math.inf
            require(usable, f"ConservativeAscent needs {name} > 0", got=value)

    def init(self, problem: SequenceTable, seed: int) -> AscentState:
        starts = problem.starts()
        points = torch.from_numpy(one_hot(starts, problem.space.letters)).float().flatten(1)
        start = float(_told(self._model(problem, seed), points).mean())
        return AscentState(x=starts, points=points, start=start, seed=seed)

    def step(self, problem: SequenceTable, state: AscentState) -> AscentState:
        space, parts = problem.space, self._model(problem, state.seed)
        points = _risen(parts, state.points, self._rate(problem), 1)
        logits = points.view(len(points), space.positions, space.letters).numpy()
        codes = space.within(np.where(space.table, logits, -np.inf).argmax(2), problem.starts())
        told = float(_told(parts, points).mean())
        if not math.isfinite(told):
            raise NotFinite("The model's score is not finite; try a smaller step_size.")
        after = AscentState(
            x=codes,
            points=points,
            start=state.start,
            seed=state.seed,
            steps=state.steps + 1,
            metrics={"loss": -told},
        )
        if after.steps >= self.steps:
            risen = told > state.start
            after.status = Status.CONVERGED if risen else Status.STALLED
            after.message = f"{self.steps} steps of ascent" + ("." if risen else " that did not ascend.")
        return after

    def _rate(self, problem: SequenceTable) -> float:
        return self.step_size * math.sqrt(problem.space.positions)

    def _model(self, problem: SequenceTable, seed: int) -> list[Tensor]:
        return problem.made((self, seed), lambda: self._trained(problem, seed))

    def _trained(self, problem: SequenceTable, seed: int) -> list[Tensor]:
        drawn = torch_generator(seed, 0x05, 6)
        X = torch.from_numpy(one_hot(problem.codes, problem.space.letters)).float().flatten(1)
        y = torch.from_numpy((problem.values - problem.values.mean()) / problem.values.std()).float()
        D = X.shape[1]
        parts = [
            torch.randn(D, UNITS, generator=drawn) * math.sqrt(2 / D),
            torch.zeros(UNITS),
            torch.randn(UNITS, 1, generator=drawn) * math.sqrt(1 / UNITS),
            torch.zeros(1),
        ]
        for part in parts:
            part.requires_grad_()
        adam, weight = torch.optim.Adam(parts, lr=1e-3), 0.1
        for _ in range(self.training):
            rows = torch.randint(len(X), (min(BATCH, len(X)),), generator=drawn)
            found = _risen(parts, X[rows], self._rate(problem), self.steps)
            inside = _told(parts, X[rows])
            lead = _told(parts, found).mean() - inside.mean()
            loss = (inside - y[rows]).square().mean() + weight * lead
            adam.zero_grad()
            loss.backward()  # type: ignore[no-untyped-call]
            adam.step()
            weight = max(0.0, weight + 0.01 * (float(lead.detach()) - self.lead))
        return [part.detach() for part in parts]


def _told(parts: list[Tensor], x: Tensor) -> Tensor:
    first, bias, second, last = parts
    return (functional.leaky_relu(x @ first + bias, 0.3) @ second + last)[:, 0]


def _risen(parts: list[Tensor], x: Tensor, rate: float, steps: int) -> Tensor:
    """Points after steps of a fixed length up the model; the slope is written out, no graph is kept."""
    first, bias, second, _ = (part.detach() for part in parts)
    for _ in range(steps):
        slope = torch.where(x @ first + bias > 0, 1.0, 0.3) * second[:, 0] @ first.T
        x = x + rate * functional.normalize(slope, dim=1)
    return x
