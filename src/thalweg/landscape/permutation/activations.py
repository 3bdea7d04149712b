"""Matching with data: by activations, and through the loss at the midpoint.

Ainsworth, Hayase and Srinivasa (2023), "Git re-basin" (arXiv 2209.04836), sections 3.1 and 3.3.
"""

from __future__ import annotations

import copy
import dataclasses
import math
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn
from torch.func import functional_call

from thalweg.core import InvalidProblem, Method, NotFinite, State, Status
from thalweg.core.seeding import generator
from thalweg.core.validation import is_real, is_whole, require
from thalweg.landscape.permutation.matching import assign, best_order
from thalweg.landscape.permutation.problem import Rebasin
from thalweg.landscape.permutation.specification import Order
from thalweg.training.task import Loss, cross_entropy


def needed(problem: Rebasin, method: str) -> tuple[nn.Module, tuple[Tensor, ...]]:
    """Module and data of a problem; refused where they are missing."""
    if problem.module is None or problem.data is None:
        raise InvalidProblem(f"{method} looks at data: Rebasin needs module= and data=.")
    for part in problem.data:
        if part.is_floating_point() and not bool(torch.isfinite(part).all()):
            raise NotFinite(f"{method}: the data holds NaN or infinity.")
    return problem.module, tuple(problem.data)


@dataclass(frozen=True)
class ActivationMatching(Method[Rebasin, State]):
    """Units that are active on the same examples are matched: an assignment for each layer, independent of the others.

    Use it where weights alone do not tell, and data is at hand. Permutations inside heads stay as they are.

    Args:
        correlation: compare correlations rather than inner products.

    A permutation is judged at the first submodule whose output it moves.

    Cost: a forward pass of each network over the data, and an assignment for each permutation; one step.

    Raises:
        InvalidProblem: no module or data; a permutation that no submodule's output shows.
    """

    correlation: bool = False

    def init(self, problem: Rebasin, seed: int) -> State:
        needed(problem, "ActivationMatching")
        x = problem.spec.identity()
        return State(x=x, metrics=problem.metrics(x))

    def step(self, problem: Rebasin, state: State) -> State:
        module, data = needed(problem, "ActivationMatching")
        spec, orders = problem.spec, problem.spec.identity()
        places = {name: _place(problem, name) for name in spec.tops}
        wanted = set(places.values())
        one, two = (_activations(module, s, data[0], wanted) for s in (problem.first, problem.second))
        for name, path in places.items():
            n = spec.permutations[name].size
            za, zb = (_by_unit(z[path], n) for z in (one, two))
            if self.correlation:
                za, zb = (_standardised(z) for z in (za, zb))
            orders[name] = assign((za @ zb.T).cpu().numpy())
        message = "Every layer is matched."
        return State(x=orders, metrics=problem.metrics(orders), status=Status.CONVERGED, message=message)


def _place(problem: Rebasin, name: str) -> str:
    """The submodule whose output a permutation moves: that of the first weight with it along the first axis."""
    for use in problem.spec.uses[name]:
        axis = problem.spec.axes[use.tensor][use.axis]
        if use.axis == 0 and len(axis) == 1 and len(axis[0]) == 1:
            return use.tensor.rpartition(".")[0]
    raise InvalidProblem(
        f"ActivationMatching: no submodule's output shows '{name}' alone. Use WeightMatching."
    )


def _activations(
    module: nn.Module, state: dict[str, Tensor], inputs: Tensor, paths: set[str]
) -> dict[str, Tensor]:
    own, found = copy.deepcopy(module).eval(), {}
    own.load_state_dict(state)

    def keep(path: str) -> Any:  # noqa: ANN401 -- a hook
        def hook(layer: nn.Module, given: object, out: Tensor) -> None:
            found[path] = out.detach().movedim(1 if isinstance(layer, CHANNELS) else -1, 0)

        return hook

    for path in paths:
        own.get_submodule(path).register_forward_hook(keep(path))
    with torch.no_grad():
        own(inputs)
    return found


#: Layers whose units are the second axis of what they give.
CHANNELS = (nn.Conv1d, nn.Conv2d, nn.Conv3d, nn.BatchNorm2d, nn.GroupNorm)


def _by_unit(values: Tensor, n: int) -> Tensor:
    return values.reshape(n, -1).double()


def _standardised(z: Tensor) -> Tensor:
    size = z.abs().amax(1, keepdim=True)
    z = z / torch.where(size > 0, size, 1.0)  # of its own size: a small unit is no silent one
    z = z - z.mean(1, keepdim=True)
    return z / z.norm(dim=1, keepdim=True).clamp_min(1e-12)


@dataclass(kw_only=True)
class StraightThroughState(State):
    """The weights that are followed, the optimizer's momentum, and the best orders so far."""

    theta: dict[str, Tensor]
    momentum: dict[str, Tensor]
    second: dict[str, Tensor]
    current: dict[str, Order]
    best: float
    steps: int
    generator: np.random.Generator


@dataclass(frozen=True)
class StraightThrough(Method[Rebasin, StraightThroughState]):
    """Orders that lower the loss at the midpoint, its gradient passed through the matching to weights it follows.

    Each step: match b to the weights theta; the loss at ``(a + P b) / 2`` on a batch; Adam moves theta as if that were
    ``(a + theta) / 2``. Begin at random: from a the first step is weight matching.

    Args:
        rate: of Adam. batch_size: examples a step. sweeps: of the matching, warm-started.
        steps: after which it ends.
        from_a: begin at a rather than at a random permutation of b.
        loss: ``loss(model, *batch)``.

    Metrics: those of `Rebasin` for the best orders, and ``midpoint``, the loss there over the data.

    Cost per step: a backward pass, a forward pass over the data, and a sweep of weight matching.
    """

    rate: float = 1e-2
    batch_size: int = 64
    sweeps: int = 1
    steps: int = 300
    from_a: bool = False
    loss: Loss = field(default=cross_entropy)

    def __post_init__(self) -> None:
        require(
            is_real(self.rate) and 0 < self.rate < math.inf, "StraightThrough needs rate > 0", got=self.rate
        )
        for name in ("batch_size", "sweeps", "steps"):
            value = getattr(self, name)
            require(is_whole(value) and value >= 1, f"StraightThrough needs {name} >= 1", got=value)

    def init(self, problem: Rebasin, seed: int) -> StraightThroughState:
        needed(problem, "StraightThrough")
        x = problem.spec.identity() if self.from_a else problem.spec.random(seed)
        start = problem.first if self.from_a else problem.spec.apply(problem.second, x)
        theta = {n: start[n].clone() for n in problem.compared}
        zeros = {n: torch.zeros_like(v) for n, v in theta.items()}
        return StraightThroughState(
            x=x,
            metrics={**problem.metrics(x), "midpoint": math.inf},
            theta=theta,
            momentum=zeros,
            second={n: v.clone() for n, v in zeros.items()},
            current=x,
            best=math.inf,
            steps=0,
            generator=generator(seed, 0x57E),
        )

    def step(self, problem: Rebasin, state: StraightThroughState) -> StraightThroughState:
        module, data = needed(problem, "StraightThrough")
        module = copy.deepcopy(module).eval()
        module.load_state_dict(problem.first)
        followed = dataclasses.replace(problem, a={**problem.first, **state.theta})
        current = dict(state.current)
        for _ in range(self.sweeps):
            for k in state.generator.permutation(len(problem.spec.tops)):
                current.update(best_order(followed, current, problem.spec.tops[k]) or {})
        middle = {
            n: torch.lerp(problem.first[n], problem.spec.moved(n, problem.second[n], current), 0.5)
            for n in problem.compared
        }
        rows = torch.from_numpy(state.generator.permutation(len(data[0]))[: self.batch_size])
        leaves = {n: v.requires_grad_() for n, v in middle.items()}
        value = self._at(module, leaves, tuple(part[rows] for part in data))
        gradients = dict(zip(leaves, torch.autograd.grad(value, list(leaves.values())), strict=True))
        with torch.no_grad():
            whole = float(self._at(module, {n: v.detach() for n, v in middle.items()}, data))
        if not math.isfinite(whole):
            raise NotFinite("StraightThrough: the loss at the midpoint is no number.")
        t, theta, momentum, second = state.steps + 1, {}, {}, {}
        for n, g in gradients.items():
            g = g / 2
            momentum[n] = 0.9 * state.momentum[n] + 0.1 * g
            second[n] = 0.999 * state.second[n] + 0.001 * g * g
            scale = (second[n] / (1 - 0.999**t)).sqrt() + 1e-8
            theta[n] = state.theta[n] - self.rate * momentum[n] / (1 - 0.9**t) / scale
        better = whole < state.best
        x = current if better else state.x
        metrics = problem.metrics(x) if better else state.metrics
        return StraightThroughState(
            x=x,
            metrics={**metrics, "midpoint": min(whole, state.best)},
            theta=theta,
            momentum=momentum,
            second=second,
            current=current,
            best=min(whole, state.best),
            steps=t,
            generator=state.generator,
            calls=state.calls + 1,
            status=Status.CONVERGED if t >= self.steps else None,
            message=f"{t} steps done." if t >= self.steps else "",
        )

    def _at(self, module: nn.Module, weights: dict[str, Tensor], batch: tuple[Tensor, ...]) -> Tensor:
        def model(x: Tensor) -> object:
            return functional_call(module, weights, (x,))

        return self.loss(model, *batch)
