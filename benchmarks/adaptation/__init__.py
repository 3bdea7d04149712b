"""01: the programme against HiGHS, a step against its own passes and two forward passes, weights against torchjd."""

from __future__ import annotations

import copy
import math
from collections.abc import Iterator
from typing import Any

import numpy as np
import torch
from scipy.optimize import linprog
from torch import nn
from torch.nn import functional

from benchmarks.adaptation import weights
from benchmarks.race import Row, race
from thalweg.adaptation import Adapt, AdaptationTask, mutual_information
from thalweg.adaptation.combiners import programme

INSTANCES, STEPS = 200, 10


def instances() -> list[tuple[np.ndarray, np.ndarray, np.ndarray]]:
    """Descent programmes of three gradients."""
    rng = np.random.default_rng(0)
    found = []
    for _ in range(INSTANCES):
        G, g = rng.standard_normal((3, 6)), rng.standard_normal(6)
        C, c = G @ G.T, G @ g
        found.append((C.sum(0), np.vstack([C, c]), np.append(np.zeros(3), min(float(c.max()), 0.0))))
    return found


def ours(problems: list[Any]) -> float:
    """The vertices listed."""
    answers = [(o, programme(o, rows, bounds)) for o, rows, bounds in problems]
    return sum(float(o @ a) for o, a in answers if a is not None)


def highs(problems: list[Any]) -> float:
    """SciPy's HiGHS."""
    total = 0.0
    for objective, rows, bounds in problems:
        found = linprog(-objective, -rows, -bounds, np.ones((1, 3)), [1.0], method="highs")
        total -= found.fun if found.status == 0 else 0.0
    return total


class Passes:
    """The same network, with the backward passes that one asks for and no more."""

    def __init__(self, width: int, batch: int) -> None:
        torch.manual_seed(0)
        self.X, self.y = torch.randn(1200, 64), torch.arange(1200) % 10
        self.task = AdaptationTask(
            lambda: nn.Sequential(
                nn.Linear(64, width),
                nn.ReLU(),
                nn.Linear(width, width),
                nn.ReLU(),
                nn.Linear(width, width),
                nn.ReLU(),
            ),
            lambda: nn.Linear(width, 10),
            (self.X, self.y),
            (self.X + 0.5,),
            steps=10**6,
            batch_size=batch,
        )
        self.method = Adapt(hidden=64, judge_every=10**6)
        self.state = self.method.init(self.task, 0)
        self.model, self.heads = copy.deepcopy((self.state.x, self.state.heads))
        self.batch, self.rows = batch, [d.draw() for d in self.task.draws(0)]

    def step(self) -> float:
        for _ in range(STEPS):
            self.state = self.method.step(self.task, self.state)
        return self.state.metrics["source"]

    def bare(self) -> float:
        """One forward pass of the three batches and four backward passes to the backbone's parameters."""
        shared = list(self.model.backbone.parameters())
        x = torch.cat([r[0] for r in self.rows])
        for _ in range(STEPS):
            z = self.model.backbone(x)
            along = torch.ones_like(z)
            for _ in range(4):
                found = torch.autograd.grad(z, shared, along, retain_graph=True)
        return float(found[0].sum())

    def losses(self) -> list[torch.Tensor]:
        (X, y), (t,), (v,) = self.rows
        n = self.batch
        z = self.model.backbone(torch.cat([X, t, v]))
        logits = self.model.head(z)
        align = self.heads["alignment"].loss(z[:n], z[n : 2 * n], logits[:n], logits[n : 2 * n], y, 0.5)
        refiner = self.heads["refiner"]
        q = [refiner.refined(z[s], logits[s]) for s in (slice(n, 2 * n), slice(2 * n, None))]
        own = refiner.loss(z[:n], y, z[n : 2 * n], q[0].exp())
        top = math.log(10)
        return [
            functional.cross_entropy(logits[:n], y),
            align,
            *[top - mutual_information(k) for k in q],
            own,
        ]

    def twice(self) -> float:
        """A forward and four backward passes for the weights, then another forward and two backward passes."""
        shared, everything = (
            list(self.model.backbone.parameters()),
            [*self.model.parameters(), *self.heads.parameters()],
        )
        sgd = torch.optim.SGD(everything, lr=1e-4, momentum=0.9, nesterov=True)
        for _ in range(STEPS):
            losses = self.losses()
            G = torch.stack(
                [
                    torch.cat([g.flatten() for g in torch.autograd.grad(loss, shared, retain_graph=True)])
                    for loss in losses[:4]
                ]
            )
            C = (G @ G.T).double().numpy()
            linprog(-C[:3].sum(0)[:3], -C[:3, :3], np.zeros(3), np.ones((1, 3)), [1.0], method="highs")
            losses = self.losses()
            sgd.zero_grad()
            sum(losses[:3]).backward(retain_graph=True)  # type: ignore[union-attr]
            losses[4].backward()
            sgd.step()
        return float(losses[0].detach())


def rows() -> Iterator[Row]:
    """Two hundred programmes; ten steps of narrow and wide networks; weights of other combiners."""
    problems = instances()
    (fast, a), (slow, b) = race(lambda: ours(problems), lambda: highs(problems), rounds=3)
    yield Row("01", f"{INSTANCES} programmes of 3", fast, "SciPy's HiGHS", slow, a, b)
    for width, batch in ((256, 64), (1024, 64)):
        one = Passes(width, batch)
        (step, _), (bare, _), (twice, _) = race(one.step, one.bare, one.twice, rounds=3)
        yield Row("01", f"{STEPS} steps, width {width}", step, "1 forward + 4 backward passes alone", bare)
        yield Row("01", f"{STEPS} steps, width {width}", step, "2 forward + 6 backward passes, HiGHS", twice)
    yield from weights.rows()
