"""LightSB: entropic optimal transport and the Schrodinger bridge by one loss in closed form, without simulation.

Korotin, Gushchin and Burnaev (2024), "Light Schrodinger bridge" (arXiv 2310.01174), sections 3.2 and 3.4.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Literal

import numpy as np
import torch
from numpy.typing import NDArray
from sklearn.cluster import kmeans_plusplus
from torch import Tensor

from thalweg.core import Method, NotFinite, State, Status
from thalweg.core.seeding import generator
from thalweg.core.validation import is_real, is_whole, require
from thalweg.transport._parameters import Gradient
from thalweg.transport.problem import EntropicTransport

#: Standardised eps below which components begin at the points that are nearest to them.
NEAR = 0.2
#: Components with less than this share of their fair mass are dead, and are looked for so many times in a run.
DEAD, LOOKS = 0.02, 10
#: Samples among which the first centres are chosen.
SEEN = 10_000
#: Imbalance that a finished run may have.
BALANCED = 0.1


@dataclass(kw_only=True)
class LightState(State):
    """The answer, Adam's two moments, and the components' mass by a moving average."""

    x: Tensor  # (K, columns)
    first: Tensor  # (K, columns)
    second: Tensor  # (K, columns)
    mass: Tensor  # (K,)
    seed: int
    steps: int = 0


@dataclass(frozen=True)
class LightSB(Method[EntropicTransport, LightState]):
    """Adam on mini-batches of both clouds, with a rate that falls to zero as a cosine.

    Use it for clouds of tens to millions of points in up to a few hundred dimensions. Where only the coupling of few
    points is asked for, Sinkhorn's iteration on these points gives it exactly; this gives a map for points not seen.

    Args:
        steps: in all, default 600; the rate falls over them. 2 000 for hundreds of components.
        batch_size: samples of each cloud in a step, default 512.
        step_size: of the first step, in the standardised unit. Default 3e-2, or 1e-2 from the ``"near"`` start.
        x0: an answer to begin at, of as many components as the problem's; `EntropicTransport.answer_at` takes one over
            from another eps. Default: by ``start``.
        start: ``"spread"``: equal weights and S = 1 (of standardised clouds). ``"near"``: ``log a_k = -|r_k|^2 / (2
            eps)``, so that each x begins at its nearest r_k, S = 0.3, and ten times the rate for the weights. Default
            ``"auto"``: near where eps is below 0.2 of the clouds' variance; spread is better above.

    The r_k begin at samples of x1 far from each other (k-means++). In the first 60 % of a run, components that have
    died begin again where the density of x1 is least explained.

    The run ends CONVERGED if the imbalance of all samples is at most 0.1.

    Raises:
        NotFinite: the loss is not a number: the step size is too large.

    Cost per step: ``O(batch K D)`` operations (``D^2`` for full S, and ``K D^3``); memory ``O(batch (K + D) + K D)``,
    or ``O(batch (K + D^2) + K D^2)``.

    >>> from thalweg import solve
    >>> rng = np.random.default_rng(0)
    >>> problem = EntropicTransport(rng.standard_normal((2000, 1)), 3 + rng.standard_normal((2000, 1)), 1.0, 1)
    >>> result = solve(problem, LightSB(steps=300))
    >>> result.converged, abs(float(problem.bridge(result.x).S[0, 0]) - (5**0.5 - 1) / 2) < 0.05
    (True, True)
    """

    steps: int = 600
    batch_size: int = 512
    step_size: float | None = None
    x0: Tensor | None = None
    start: Literal["auto", "spread", "near"] = "auto"

    def __post_init__(self) -> None:
        for name in ("steps", "batch_size"):
            value = getattr(self, name)
            require(is_whole(value) and value >= 1, f"LightSB needs {name} >= 1", got=value)
        usable = self.step_size is None or (is_real(self.step_size) and 0 < self.step_size < math.inf)
        require(usable, "LightSB needs step_size > 0", got=self.step_size)
        known = self.start in ("auto", "spread", "near")
        require(known, "LightSB: start is auto, spread or near", got=self.start)

    def begins_near(self, problem: EntropicTransport) -> bool:
        """Whether the start is ``"near"``."""
        return self.start == "near" or (self.start == "auto" and problem.scaled_eps < NEAR)

    def init(self, problem: EntropicTransport, seed: int) -> LightState:
        if self.x0 is not None:
            return self.resumed(problem, problem.started(self.x0), seed)
        return self.resumed(problem, self.first_answer(problem, seed), seed)

    def first_answer(self, problem: EntropicTransport, seed: int) -> Tensor:
        """Components at samples of x1 far from each other."""
        points, mass = problem.parts[1]
        drawn = generator(seed, 0x19)
        some = drawn.permutation(len(points))[:SEEN]
        _, chosen = kmeans_plusplus(
            points[some].cpu().double().numpy(),
            problem.n_components,
            sample_weight=mass[some].cpu().double().numpy(),
            random_state=int(drawn.integers(2**31)),
        )
        R = points[some[chosen]]
        near = self.begins_near(problem)
        return problem.family.join(_log_a(R, problem, near), R, math.log(0.3) / 2 if near else 0.0)

    def resumed(self, problem: EntropicTransport, x: Tensor, seed: int) -> LightState:
        """The state before the first step from an answer of one's own: a warm start."""
        fair = torch.full_like(x[:, 0], 1 / len(x))
        zeros = torch.zeros_like(x)
        return LightState(x=x.clone(), first=zeros, second=zeros.clone(), mass=fair, seed=seed)

    def step(self, problem: EntropicTransport, state: LightState) -> LightState:
        t, K = state.steps + 1, len(state.x)
        near = self.begins_near(problem)
        drawn = generator(state.seed, 0x19, t)
        clouds = [self._batch(cloud, drawn) for cloud in problem.parts[:2]]
        x1 = clouds[1][0]
        found = self.gradient(problem, state.x, clouds[0], clouds[1], drawn)
        if not math.isfinite(found.loss):
            raise NotFinite(f"The loss is {found.loss} at step {t}; try a smaller step_size.")
        first = torch.lerp(state.first, found.gradient, 0.1)
        second = torch.lerp(state.second, found.gradient * found.gradient, 1e-3)
        rate = (1e-2 if near else 3e-2) if self.step_size is None else self.step_size
        rate *= (1 + math.cos(math.pi * (t - 1) / self.steps)) / 2
        change = (first / (1 - 0.9**t)) / ((second / (1 - 0.999**t)).sqrt() + 1e-8)
        if near:
            change[:, 0] *= 10
        x = state.x - rate * change
        D = problem.dimensions
        x[:, 1 + D : 1 + 2 * D].clamp_(min=problem.family.floor)
        mass = torch.lerp(state.mass, found.received, 0.1)
        if t % max(1, self.steps // LOOKS) == 0 and t <= 0.6 * self.steps:
            dead = mass < DEAD / K
            if bool(dead.any()):
                _revive(problem, near, dead, x1[found.log_v.argsort()], x)
                first[dead], second[dead], mass[dead] = 0.0, 0.0, 1 / K
        state = LightState(
            x=x, first=first, second=second, mass=mass, seed=state.seed, steps=t, metrics={"loss": found.loss}
        )
        if t >= self.steps:
            state.metrics = problem.metrics(x)
            state.status, state.message = self._end(problem, x, state.metrics["imbalance"])
        return state

    def gradient(
        self,
        problem: EntropicTransport,
        x: Tensor,
        first: tuple[Tensor, Tensor],
        second: tuple[Tensor, Tensor],
        drawn: np.random.Generator,
    ) -> Gradient:
        """The loss of a batch, points and masses of each cloud, and its gradient."""
        return problem.family.gradient(x, first[0], second[0], first[1], second[1])

    def _batch(self, cloud: tuple[Tensor, Tensor], drawn: np.random.Generator) -> tuple[Tensor, Tensor]:
        """Some of a cloud, by its masses, or all of it where it is small."""
        points, mass = cloud
        if len(points) <= self.batch_size:
            return cloud
        rows: NDArray[np.int64]
        if float(mass.max() - mass.min()) <= 1e-12 * float(mass.max()):
            rows = drawn.integers(len(points), size=self.batch_size)
        else:
            levels = mass.double().cumsum(0).cpu().numpy()
            rows = np.searchsorted(levels, drawn.random(self.batch_size) * levels[-1], side="right")
        z = points[torch.from_numpy(rows).to(points.device)]
        return z, torch.full_like(z[:, 0], 1 / len(z))

    def _end(self, problem: EntropicTransport, x: Tensor, imbalance: float) -> tuple[Status, str]:
        D = problem.dimensions
        small = (x[:, 1 + D : 1 + 2 * D] <= problem.family.floor).any(1)
        floor = f" {int(small.sum())} components are at the floor of S." if bool(small.any()) else ""
        if imbalance <= BALANCED:
            return Status.CONVERGED, f"{self.steps} steps done, imbalance {imbalance:.2g}.{floor}"
        return Status.STALLED, (
            f"After {self.steps} steps the components' masses are out of balance by {imbalance:.2g}; expected "
            f"{BALANCED:g} at most. Take more steps or fewer components.{floor}"
        )


def _log_a(R: Tensor, problem: EntropicTransport, near: bool) -> Tensor:
    """Weights of the start."""
    return (R * R).sum(1) / (-2 * problem.scaled_eps) if near else torch.zeros_like(R[:, 0])


def _revive(problem: EntropicTransport, near: bool, dead: Tensor, lonely: Tensor, x: Tensor) -> None:
    """Let dead components begin again at lonely points, at the level of the living; overwrites rows of x."""
    D, rows = problem.dimensions, dead.nonzero()[:, 0][: len(lonely)]
    living = x[~dead]
    level = (living[:, 0] - _log_a(living[:, 1 : 1 + D], problem, near)).median() if len(living) else 0.0
    R = lonely[: len(rows)]
    log_root = math.log(0.3) / 2 if near else 0.0
    x[rows] = problem.family.join(_log_a(R, problem, near) + level, R, log_root)
