"""07, convex problems: logistic regressions by Adam, all schedules, learning rates and seeds of a problem at once."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from thalweg.core import Method, Problem, Run, State, Stop, solve
from thalweg.core.seeding import torch_generator
from thalweg.datasets import load
from thalweg.studies.contest import contest
from thalweg.studies.evidence import Tell
from thalweg.studies.standings import Standings
from thalweg.training import Refined, refine
from thalweg.training.profiles import Constant, Cosine, InverseSqrt, InverseTime, Linear, Profile, Step

Vector = NDArray[np.float64]
BATCH, RATES = 16, (0.003, 0.01, 0.03, 0.1, 0.3)
DECAY1, DECAY2, SMALL = 0.9, 0.999, 1e-8  # Adam's


@dataclass(frozen=True, eq=False)
class Convex(Problem):
    """Logistic regression: standardised features with a one, shape (n, d), and labels, shape (n,).

    ``parted``: whether a plane (nearly) parts the classes. Weights of many runs, shape (..., seeds, d, classes), are
    judged at once; the metric is their largest loss.
    """

    name: str
    X: Tensor
    y: Tensor
    parted: bool = False

    def losses(self, W: Tensor, X: Tensor, y: Tensor) -> Tensor:
        """Mean cross-entropy of each run, shape (profiles, rates, seeds); X (seeds, b, d), y (seeds, b)."""
        logits = torch.einsum("sbd,prsdc->prsbc", X, W)
        picked = torch.gather(logits.log_softmax(-1), -1, y.expand(*logits.shape[:-1])[..., None])
        return -picked[..., 0].mean(-1)

    def whole(self, W: Tensor) -> Tensor:
        """The loss of each run on all of the data."""
        seeds = W.shape[2]
        return self.losses(W, self.X.expand(seeds, *self.X.shape), self.y.expand(seeds, len(self.y)))

    def metrics(self, x: Tensor) -> dict[str, float]:
        return {"loss": float(self.whole(x).max())}

    def rows(self, apart: bool) -> Convex:
        """Every third row, set apart for tuning; or the others."""
        chosen = (torch.arange(len(self.y)) % 3 == 0) == apart
        return replace(self, X=self.X[chosen], y=self.y[chosen])


@dataclass(kw_only=True)
class AdamState(State):
    """``x``, the moments and the last l1 norms of all runs."""

    x: Tensor
    first: Tensor
    second: Tensor
    norms: Tensor  # (profiles, rates, seeds)
    generators: list[torch.Generator]
    step: int = 0


@dataclass(frozen=True, eq=False)
class Together(Method[Convex, AdamState]):
    """Adam on batches, for every profile, rate and seed at once."""

    profiles: Sequence[Profile]
    steps: int
    seeds: Sequence[int]
    factors: Tensor = field(init=False)  # (profiles, rates, steps)

    def __post_init__(self) -> None:
        shares = np.stack([p(np.arange(self.steps) / self.steps) for p in self.profiles])
        factors = torch.tensor(shares[:, None, :] * np.array(RATES)[None, :, None], dtype=torch.float32)
        object.__setattr__(self, "factors", factors)

    def init(self, problem: Convex, seed: int) -> AdamState:
        runs = (len(self.profiles), len(RATES), len(self.seeds))
        W = torch.zeros(*runs, problem.X.shape[1], int(problem.y.max()) + 1)
        generators = [torch_generator(s, 7) for s in self.seeds]
        moments = torch.zeros_like(W), torch.zeros_like(W)
        return AdamState(
            x=W, first=moments[0], second=moments[1], norms=torch.zeros(runs), generators=generators
        )

    def step(self, problem: Convex, state: AdamState) -> AdamState:
        n, t = len(problem.y), state.step
        batch = torch.stack([torch.randint(n, (BATCH,), generator=g) for g in state.generators])
        W = state.x.requires_grad_()
        (g,) = torch.autograd.grad(problem.losses(W, problem.X[batch], problem.y[batch]).sum(), W)
        first = torch.lerp(state.first, g, 1.0 - DECAY1)
        second = torch.lerp(state.second, g.square(), 1.0 - DECAY2)
        size = (second / (1.0 - DECAY2 ** (t + 1))).sqrt() + SMALL
        move = self.factors[:, :, t, None, None, None] * first / ((1.0 - DECAY1 ** (t + 1)) * size)
        norms = g.abs().sum((-2, -1))
        return replace(state, x=W.detach() - move, first=first, second=second, norms=norms, step=t + 1)


def _trained(
    problem: Convex, profiles: Sequence[Profile], steps: int, seeds: Sequence[int]
) -> tuple[Vector, Vector]:
    """Final losses, (profiles, rates, seeds), and l1 norms of each step's gradient, (steps, profiles, rates, seeds)."""
    norms: list[Tensor] = []

    def look(run: Run) -> None:
        norms.append(run.state.norms)

    method = Together(profiles, steps, seeds)
    W = solve(problem, method, stop=Stop(steps=steps), callbacks=[look], progress=False).x
    return problem.whole(W).double().numpy(), torch.stack(norms).double().numpy()


def _fixed(steps: int) -> dict[str, Profile]:
    return {
        "linear": Linear(),
        "flat": Constant(),
        "1/t": InverseTime(rate=float(steps)),
        "1/sqrt t": InverseSqrt(rate=float(steps)),
        "step": Step(),
        "cosine": Cosine(),
    }


def race(
    problems: Sequence[Convex], steps: int, seeds: tuple[int, ...], tell: Tell
) -> tuple[Standings, dict[str, Refined]]:
    """All schedules on all problems, and the refined schedule of each problem."""
    fixed = _fixed(steps)
    names, refined = [*fixed, "refined"], {}
    losses: dict[tuple[str, int], Vector] = {}  # (profiles, rates) by problem and seed
    for i, problem in enumerate(problems):
        tell(i / len(problems), f"logistic regression, {problem.name}")
        apart = problem.rows(True)
        tuned, norms = _trained(apart, list(fixed.values()), steps, (0,))
        refined[problem.name] = refine(
            norms[:, 0, int(np.nan_to_num(tuned[0, :, 0], nan=np.inf).argmin()), 0], "l1"
        )
        more, _ = _trained(apart, [refined[problem.name]], steps, (0,))
        losses[problem.name, 0] = np.concatenate([tuned, more])[..., 0]
        profiles = [*fixed.values(), refined[problem.name]]
        judged, _ = _trained(problem.rows(False), profiles, steps, seeds)
        losses |= {(problem.name, seed): judged[..., k] for k, seed in enumerate(seeds)}

    def entry(profile: int, rate: int) -> Callable[[str, int], float]:
        return lambda name, seed: float(losses[name, seed][profile, rate])

    def named(name: str) -> Callable[[int], str]:
        return lambda seed: name

    found = contest(
        {p.name: named(p.name) for p in problems},
        {n: {f"rate {r:g}": entry(k, j) for j, r in enumerate(RATES)} for k, n in enumerate(names)},
        ours="linear",
        what="loss",
        judging_seeds=seeds,
        needs_convergence=False,
    )
    return found, refined


def problems(files: Sequence[Path]) -> list[Convex]:
    """Three sets whose classes a plane parts, three whose classes overlap, and the user's."""
    packaged = [_convex(name) for name in ("breast_cancer", "digits", "wine")]
    overlap = [_diabetes(), _flipped(packaged[0], 0.1), _flipped(packaged[1], 0.2)]
    return [*packaged, *overlap, *map(_convex, files)]


def _convex(name: str | Path) -> Convex:
    data = load(name)
    assert data.y is not None
    X = np.asarray(data.X.toarray() if hasattr(data.X, "toarray") else data.X, dtype=np.float32)
    X = (X - X.mean(0)) / np.maximum(X.std(0), 1e-8)
    _, y = np.unique(data.y, return_inverse=True)
    ones = np.ones((len(X), 1), dtype=np.float32)
    order = torch.randperm(len(y), generator=torch_generator(0, 9))
    features, labels = torch.tensor(np.hstack([X, ones]))[order], torch.tensor(y, dtype=torch.int64)[order]
    return Convex(f"logistic regression, {data.name}", features, labels, parted=isinstance(name, str))


def _diabetes() -> Convex:
    """Whether the disease progresses faster than in half of the patients."""
    data = load("diabetes")
    assert data.y is not None
    X = (data.X - data.X.mean(0)) / data.X.std(0)
    X = torch.tensor(np.hstack([X, np.ones((len(X), 1))]), dtype=torch.float32)
    y = torch.tensor(data.y > np.median(data.y), dtype=torch.int64)
    return Convex("logistic regression, diabetes", X, y)


def _flipped(problem: Convex, share: float) -> Convex:
    """The same with a share of the labels drawn anew, so that nothing fits all of them."""
    generator = torch_generator(0, 8)
    classes = int(problem.y.max()) + 1
    drawn = torch.randint(classes, problem.y.shape, generator=generator)
    hit = torch.rand(len(problem.y), generator=generator) < share
    return Convex(f"{problem.name}, noisy", problem.X, torch.where(hit, drawn, problem.y))
