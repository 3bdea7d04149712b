"""Orders found by gradient descent: permutations relaxed to doubly stochastic matrices.

Pena, Medeiros, Dubail, Aminbeidokhti, Granger and Pedersoli (2023), "Re-basin via implicit Sinkhorn differentiation"
(arXiv 2212.12042); the derivative here is that of the iterations.
"""

from __future__ import annotations

import copy
import math
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Literal

import torch
from torch import Tensor
from torch.func import functional_call

from thalweg.core import InvalidProblem, Method, NotFinite, State, Status
from thalweg.core.seeding import torch_generator
from thalweg.core.validation import is_real, is_whole, require
from thalweg.landscape.permutation.activations import needed
from thalweg.landscape.permutation.matching import assign
from thalweg.landscape.permutation.problem import Rebasin
from thalweg.landscape.permutation.specification import Order, PermutationSpec, width
from thalweg.training.task import Loss, cross_entropy


@dataclass(kw_only=True)
class SinkhornState(State):
    """Logits of each permutation, (n, n), Adam's moments, and the best orders so far."""

    logits: dict[str, Tensor]
    momentum: dict[str, Tensor]
    second: dict[str, Tensor]
    best: float
    done: int


@dataclass(frozen=True)
class SinkhornMatching(Method[Rebasin, SinkhornState]):
    """Gradient ascent over all orders at once, each relaxed to a doubly stochastic matrix.

    When: a differentiable loss of yours is to be lowered (``goal="midpoint"``) and `StraightThrough` wanders. When not:
    for weights alone `WeightMatching` is faster and ends nearer. Orders inside heads are not relaxed: such networks are
    refused.

    Args:
        goal: ``"weights"``, the inner product of a and P b; ``"midpoint"``, the loss at ``(a + P b)/2`` over the data.
        rate: of Adam on the logits.
        temperature: of the relaxation: small ones are near to orders, and have small gradients far from them.
        iterations: of Sinkhorn, rows and columns in turn.
        steps: after which it ends.
        loss: ``loss(model, *batch)``, for the midpoint.

    Metrics: those of `Rebasin` for the best orders so far (by the goal), and ``goal``, its value there.

    Cost per step: ``iterations`` times n^2, and products of n^2 with the other axes, forward and backward, for each
    permutation; an assignment each.

    >>> from torch import nn
    >>> from thalweg import solve
    >>> from thalweg.landscape.permutation import trace_permutations
    >>> _ = torch.manual_seed(0)
    >>> net = nn.Sequential(nn.Linear(4, 6), nn.ReLU(), nn.Linear(6, 2))
    >>> spec = trace_permutations(net)
    >>> moved = spec.apply(net.state_dict(), spec.random(3))
    >>> solve(Rebasin(net, moved, spec), SinkhornMatching(steps=60)).metrics["distance"]
    0.0
    """

    goal: Literal["weights", "midpoint"] = "weights"
    rate: float = 0.1
    temperature: float = 0.5
    iterations: int = 20
    steps: int = 200
    loss: Loss = field(default=cross_entropy)

    def __post_init__(self) -> None:
        require(
            self.goal in ("weights", "midpoint"),
            "SinkhornMatching: goal is weights or midpoint",
            got=self.goal,
        )
        for name in ("rate", "temperature"):
            value = getattr(self, name)
            require(is_real(value) and 0 < value < math.inf, f"SinkhornMatching needs {name} > 0", got=value)
        for name in ("iterations", "steps"):
            value = getattr(self, name)
            require(is_whole(value) and value >= 1, f"SinkhornMatching needs {name} >= 1", got=value)

    def init(self, problem: Rebasin, seed: int) -> SinkhornState:
        inner = [name for name, p in problem.spec.permutations.items() if p.under is not None]
        if inner:
            raise InvalidProblem(
                f"SinkhornMatching relaxes no orders inside heads, such as '{inner[0]}'. Use WeightMatching, or hold "
                "that submodule's units with trace_permutations(..., hold=)."
            )
        if self.goal == "midpoint":
            needed(problem, "SinkhornMatching")
        draws = torch_generator(seed, 0x51)
        logits = {
            name: 1e-2 * torch.randn(p.size, p.size, generator=draws, dtype=torch.float64)
            for name, p in problem.spec.permutations.items()
        }
        x = problem.spec.identity()
        return SinkhornState(
            x=x,
            metrics={**problem.metrics(x), "goal": math.inf},
            logits=logits,
            momentum={n: torch.zeros_like(v) for n, v in logits.items()},
            second={n: torch.zeros_like(v) for n, v in logits.items()},
            best=math.inf,
            done=0,
        )

    def step(self, problem: Rebasin, state: SinkhornState) -> SinkhornState:
        leaves = {n: v.clone().requires_grad_() for n, v in state.logits.items()}
        soft = {n: doubly_stochastic(v / self.temperature, self.iterations) for n, v in leaves.items()}
        gradients = torch.autograd.grad(self._value(problem, soft), list(leaves.values()))
        t, logits, momentum, second = state.done + 1, {}, {}, {}
        for n, g in zip(leaves, gradients, strict=True):
            if not bool(torch.isfinite(g).all()):
                raise NotFinite("SinkhornMatching: the gradient is no number. Scale the weights down.")
            momentum[n] = 0.9 * state.momentum[n] + 0.1 * g
            second[n] = 0.999 * state.second[n] + 0.001 * g * g
            scale = (second[n] / (1 - 0.999**t)).sqrt() + 1e-12
            logits[n] = state.logits[n] - self.rate * momentum[n] / (1 - 0.9**t) / scale
        orders = {n: assign(v.detach().numpy()) for n, v in soft.items()}
        with torch.no_grad():
            hard = {n: torch.eye(len(o), dtype=torch.float64)[torch.from_numpy(o)] for n, o in orders.items()}
            value = float(self._value(problem, hard))
        x: dict[str, Order] = orders if value < state.best else state.x
        best = min(value, state.best)
        return SinkhornState(
            x=x,
            metrics={**(problem.metrics(x) if value < state.best else state.metrics), "goal": best},
            logits=logits,
            momentum=momentum,
            second=second,
            best=best,
            done=t,
            calls=state.calls + 1,
            status=Status.CONVERGED if t >= self.steps else None,
            message=f"{t} steps done." if t >= self.steps else "",
        )

    def _value(self, problem: Rebasin, matrices: Mapping[str, Tensor]) -> Tensor:
        """What is to be lowered, at soft or hard orders."""
        moved = {n: moved_softly(problem.spec, n, problem.second[n], matrices) for n in problem.compared}
        if self.goal == "weights":
            inner = sum((problem.first[n].double() * v.double()).sum() for n, v in moved.items())
            return -torch.as_tensor(inner) / problem.norms
        module, data = needed(problem, "SinkhornMatching")
        module = copy.deepcopy(module).eval()
        module.load_state_dict(problem.first)
        middle = {n: torch.lerp(problem.first[n], v.to(problem.first[n]), 0.5) for n, v in moved.items()}

        def model(x: Tensor) -> object:
            return functional_call(module, middle, (x,))

        return self.loss(model, *data).double()


def doubly_stochastic(logits: Tensor, iterations: int) -> Tensor:
    """Sinkhorn's iterations in logarithms: rows and columns of the exponentials are brought to sum one, in turn.

    >>> found = doubly_stochastic(torch.tensor([[0.0, 2.0], [1.0, 0.0]], dtype=torch.float64), 50)
    >>> bool(((found.sum(0) - 1).abs() < 1e-9).all() and ((found.sum(1) - 1).abs() < 1e-6).all())
    True
    """
    for _ in range(iterations):
        logits = logits - torch.logsumexp(logits, 1, keepdim=True)
        logits = logits - torch.logsumexp(logits, 0, keepdim=True)
    return logits.exp()


def moved_softly(spec: PermutationSpec, tensor: str, value: Tensor, matrices: Mapping[str, Tensor]) -> Tensor:
    """A tensor with each permutation's matrix along its axes; that of an order is `PermutationSpec.moved`."""
    found = value.double()
    for axis, segments in enumerate(spec.axes[tensor]):
        parts = []
        for segment, part in zip(
            segments, torch.split(found, [width(s) for s in segments], dim=axis), strict=True
        ):
            shape = part.shape
            opened = part.reshape(*shape[:axis], *(f.size for f in segment), *shape[axis + 1 :])
            for k, factor in enumerate(segment):
                if factor.permutation is not None:
                    S = matrices[factor.permutation].to(opened.device)
                    opened = torch.tensordot(S, opened, dims=([1], [axis + k])).movedim(0, axis + k)
            parts.append(opened.reshape(shape))
        found = torch.cat(parts, dim=axis)
    return found
