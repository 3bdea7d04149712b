"""The continuous-time limit of Lion-K, and the Lyapunov function that proves what it converges to.

Chen, Liu, Liang and Liu (2024), "Lion secretly solves constrained optimization", section 3, equation (9).
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field, replace

import torch
from torch import Tensor

from thalweg.core import Method, NotFinite, Problem, State, Stop
from thalweg.core.validation import require, require_positive
from thalweg.training.convex_functions import L1, ConvexFunction


@dataclass(frozen=True, eq=False)
class SmoothFunction(Problem):
    """A differentiable ``f`` of one tensor, minimised from ``x0``.

    Args:
        f: takes a tensor of the shape of ``x0``, returns a scalar tensor.
        x0: where to start.

    The metric is ``value``, f(x).

    >>> SmoothFunction(lambda x: (x**2).sum(), torch.ones(2)).metrics(torch.ones(2))
    {'value': 2.0}
    """

    f: Callable[[Tensor], Tensor]
    x0: Tensor

    def __post_init__(self) -> None:
        if not bool(torch.isfinite(self.x0).all()):
            raise NotFinite("x0 holds NaN or infinity; the flow has to start from numbers.")

    def recommended_stop(self) -> Stop:
        """A thousand steps, ten units of the flow's time: there is no measure of being solved."""
        return Stop(steps=1000)

    def metrics(self, x: Tensor) -> dict[str, float]:
        """``{"value": f(x)}``."""
        return {"value": float(self.f(x))}

    def value_and_gradient(self, x: Tensor) -> tuple[Tensor, Tensor]:
        """f(x) and its gradient."""
        point = x.detach().requires_grad_(True)
        value = self.f(point)
        (gradient,) = torch.autograd.grad(value, point)
        return value.detach(), gradient


@dataclass(kw_only=True)
class FlowState(State):
    """A point of the flow."""

    x: Tensor  # position
    m: Tensor  # momentum, of x's shape


@dataclass(frozen=True)
class LionKFlow(Method[SmoothFunction, FlowState]):
    """Lion-K as a differential equation, integrated by explicit Euler: a tool to watch the theory at work.

    ``m' = -a grad f(x) - c m`` and ``x' = dK(m - e (a grad f + c m)) - lam x``. Metrics of a step:
    ``value``; ``lyapunov``, which does not rise along the exact flow when ``e c <= 1`` and is infinite until
    x is inside; ``excess``, how far ``lam x`` is outside the domain of K*, which shrinks as ``exp(-lam t)``.

    Args:
        K: a `ConvexFunction`.
        weight_decay: lam > 0.
        a, c, e: coefficients of the flow, a, c > 0, 0 <= e <= 1/c.
        dt: time of a step.

    Cost per step: one gradient.

    >>> from thalweg import Stop, solve
    >>> problem = SmoothFunction(lambda x: ((x - 2) ** 2).sum(), torch.zeros(3))
    >>> result = solve(problem, LionKFlow(dt=0.01), stop=Stop(steps=2000))
    >>> bool((result.x - 1).abs().max() < 0.02)  # the bound, 1/lam
    True
    """

    K: ConvexFunction = field(default_factory=L1)
    weight_decay: float = 1.0
    a: float = 1.0
    c: float = 1.0
    e: float = 0.5
    dt: float = 0.01

    def __post_init__(self) -> None:
        require_positive(self, "weight_decay", "a", "c", "dt")
        require_positive(self, "e", zero=True)
        require(0 <= self.e * self.c <= 1, "LionKFlow needs 0 <= e c <= 1", got=self.e * self.c)

    def init(self, problem: SmoothFunction, seed: int) -> FlowState:
        x = problem.x0.clone()
        m = torch.zeros_like(x)
        value, _ = problem.value_and_gradient(x)
        return FlowState(x=x, m=m, metrics=self._metrics(value, x, m))

    def step(self, problem: SmoothFunction, state: FlowState) -> FlowState:
        x, m = state.x, state.m
        _, gradient = problem.value_and_gradient(x)
        drift = self.a * gradient + self.c * m
        x = x + self.dt * (self.K.subgradient(m - self.e * drift) - self.weight_decay * x)
        m = m - self.dt * drift
        if not bool(torch.isfinite(x).all() and torch.isfinite(m).all()):
            raise NotFinite(
                f"LionKFlow: position or momentum are not finite after {state.calls + 1} steps of "
                f"dt = {self.dt:g}. Lower dt."
            )
        return replace(state, x=x, m=m, calls=state.calls + 1, metrics=self._metrics(problem.f(x), x, m))

    def lyapunov(self, value: Tensor, x: Tensor, m: Tensor) -> Tensor:
        """``H = a f + (c/lam) K*(lam x) + (1 - e c)/(1 + e lam) (K*(lam x) + K(m) - lam <m, x>)``."""
        lam, scaled = self.weight_decay, self.weight_decay * x
        conjugate = self.K.conjugate(scaled)
        gap = conjugate + self.K.value(m) - (m * scaled).sum()
        return self.a * value + self.c / lam * conjugate + (1 - self.e * self.c) / (1 + self.e * lam) * gap

    def _metrics(self, value: Tensor, x: Tensor, m: Tensor) -> dict[str, float]:
        return {
            "value": float(value),
            "lyapunov": float(self.lyapunov(value, x, m)),
            "excess": max(float(self.K.excess(self.weight_decay * x)), 0.0),
        }
