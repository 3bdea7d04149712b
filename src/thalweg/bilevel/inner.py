"""The inner problem, ``min_x f(x, theta_f) + g(x, theta_g)``, and solvers for it that can be differentiated."""

from __future__ import annotations

import functools
import math
from collections.abc import Callable
from dataclasses import dataclass, field
from itertools import pairwise
from typing import Any

import torch
from torch import Tensor
from torch.utils import _pytree as pytree

from thalweg.bilevel._root import Condition, ravel, unravel
from thalweg.bilevel.implicit import custom_root
from thalweg.bilevel.optimality import newton, proximal_gradient
from thalweg.core import InvalidProblem, Method, NotFinite, Problem, State, Stop, solve
from thalweg.core.validation import require
from thalweg.numerics.torch_krylov import LinearSolver

#: Backtracking: what a step is divided by, and how often at most.
SHRINK, TRIALS = 2.0, 60


def _nothing(y: Any, theta: Any, scale: float) -> Any:
    """The proximal operator of zero."""
    return y


@dataclass(frozen=True, eq=False)
class Composite(Problem):
    """``min_x f(x, theta_f) + g(x, theta_g)``: f smooth, g with a proximal operator, x a pytree of tensors.

    Args:
        f: gives a scalar tensor.
        init: where to start.
        theta_f: f's parameters, a pytree.
        prox: ``prox(y, theta_g, scale)``, of `thalweg.numerics.prox`, or a projection; by default g is zero.
        theta_g: g's parameters.

    The metrics of an answer are ``objective``, f alone, and ``residual``, the largest entry of
    ``x - prox(x - grad f(x))``, zero at a solution.

    Raises:
        InvalidProblem: init holds no floating-point tensors.
    """

    f: Callable[..., Tensor]
    init: Any
    theta_f: Any = None
    prox: Callable[..., Any] = _nothing
    theta_g: Any = None

    def __post_init__(self) -> None:
        leaves = pytree.tree_leaves(self.init)
        if not leaves or not all(isinstance(t, Tensor) and t.is_floating_point() for t in leaves):
            raise InvalidProblem("Composite needs init to be floating-point tensors, or a pytree of them.")

    @functools.cached_property
    def _parts(self) -> tuple[list[Tensor], Any]:
        return pytree.tree_flatten(self.init)

    @property
    def start(self) -> Tensor:
        """Init as one vector."""
        return ravel(self._parts[0])

    def tree(self, x: Tensor) -> Any:
        """A vector as a pytree like init."""
        return pytree.tree_unflatten(unravel(x, self._parts[0]), self._parts[1])

    def value(self, x: Tensor) -> Tensor:
        """f at a vector."""
        return self.f(self.tree(x), self.theta_f)

    def gradient(self, x: Tensor) -> tuple[Tensor, Tensor]:
        """Gradient of f at a vector, and f."""
        gradient, value = torch.func.grad_and_value(self.value)(x)
        return gradient, value

    def proximal(self, y: Tensor, scale: Any) -> Tensor:
        """The proximal operator at a vector."""
        return ravel(pytree.tree_leaves(self.prox(self.tree(y), self.theta_g, scale)))

    def recommended_stop(self) -> Stop:
        """A residual of the square root of the dtype's rounding: 1.5e-8 in float64."""
        return Stop(below={"residual": float(torch.finfo(self.start.dtype).eps) ** 0.5})

    def metrics(self, x: Any) -> dict[str, float]:
        """``objective`` and ``residual``."""
        at = ravel(pytree.tree_leaves(x))
        gradient, value = self.gradient(at)
        gap = at - self.proximal(at - gradient, 1.0)
        return {"objective": float(value.detach()), "residual": float(gap.detach().abs().max())}


@dataclass(kw_only=True)
class InnerState(State):
    """``x`` is the answer as a pytree, ``at`` as a vector; ``extra`` is the method's own."""

    at: Tensor
    extra: dict[str, Any] = field(default_factory=dict)


def made_state(
    problem: Composite, at: Tensor, extra: dict[str, Any], value: Tensor, residual: Tensor, calls: int
) -> InnerState:
    metrics = {"objective": float(value.detach()), "residual": float(residual.detach())}
    if not math.isfinite(metrics["objective"]):
        raise NotFinite(f"The inner objective is {metrics['objective']} after {calls} gradients.")
    return InnerState(x=problem.tree(at), at=at, extra=extra, metrics=metrics, calls=calls)


def slack(value: Tensor) -> float:
    """What rounding may add to a difference of values: a search that does not allow for it never ends."""
    return 10.0 * torch.finfo(value.dtype).eps * (1.0 + abs(float(value.detach())))


@dataclass(frozen=True)
class ProximalGradient(Method[Composite, InnerState]):
    """Proximal gradient descent, accelerated (FISTA; Beck and Teboulle, 2009) and restarted (O'Donoghue, Candes, 2015).

    With a projection for ``prox`` it is projected gradient descent, with none gradient descent.

    Args:
        step: a number; by default found by backtracking, from one on.
        accelerated: False for the plain method.

    Cost per step: one gradient; with backtracking values of f and proximal operators as needed.

    >>> problem = Composite(lambda x, y: 0.5 * (x - y).square().sum(), torch.zeros(2), torch.ones(2))
    >>> solve(problem, ProximalGradient(), stop=Stop(below={"residual": 1e-6})).x
    tensor([1., 1.])
    """

    step_size: float | None = None
    accelerated: bool = True

    def __post_init__(self) -> None:
        require(
            self.step_size is None or self.step_size > 0,
            "ProximalGradient needs step_size > 0",
            got=self.step_size,
        )

    def init(self, problem: Composite, seed: int) -> InnerState:
        at = problem.start
        extra = {"ahead": at, "momentum": 1.0, "step": self.step_size or 1.0}
        return made_state(problem, at, extra, problem.value(at), at.new_tensor(math.inf), 0)

    def step(self, problem: Composite, state: InnerState) -> InnerState:
        ahead, size = state.extra["ahead"], state.extra["step"]
        gradient, value = problem.gradient(ahead)
        for _ in range(TRIALS):
            new = problem.proximal(ahead - size * gradient, size)
            move = new - ahead
            if self.step_size is not None:
                break
            model = value + gradient @ move + move.square().sum() / (2.0 * size)
            if float((problem.value(new) - model).detach()) <= slack(value):
                break
            size /= SHRINK
        momentum = state.extra["momentum"]
        following = 0.5 * (1.0 + math.sqrt(1.0 + 4.0 * momentum**2)) if self.accelerated else 1.0
        push = (momentum - 1.0) / following if self.accelerated else 0.0
        if self.accelerated and float((-move @ (new - state.at)).detach()) > 0.0:
            following, push = 1.0, 0.0  # it goes the wrong way: start over
        extra = {"ahead": new + push * (new - state.at), "momentum": following, "step": size}
        return made_state(problem, new, extra, value, move.abs().max() / size, state.calls + 1)


@dataclass(frozen=True)
class MirrorDescent(Method[Composite, InnerState]):
    """Exponentiated gradient: mirror descent over simplices (of the last axis), in the Kullback-Leibler geometry.

    Args:
        step_size: a number; by default found by backtracking on the bound that the divergence gives.

    Cost per step: one gradient; with backtracking values of f as needed.

    >>> costs, start = torch.tensor([1.0, 0.5, 2.0]), torch.full((3,), 1.0 / 3.0)
    >>> problem = Composite(lambda p, c: c @ p + 0.1 * (p * p.log()).sum(), start, costs)
    >>> found = solve(problem, MirrorDescent(), stop=Stop(below={"residual": 1e-6}))
    >>> torch.allclose(found.x, (-costs / 0.1).softmax(0), atol=1e-4)
    True
    """

    step_size: float | None = None

    def __post_init__(self) -> None:
        require(
            self.step_size is None or self.step_size > 0,
            "MirrorDescent needs step_size > 0",
            got=self.step_size,
        )

    def init(self, problem: Composite, seed: int) -> InnerState:
        for leaf in pytree.tree_leaves(problem.init):
            inside = bool((leaf > 0).all()) and bool((leaf.sum(-1) - 1.0).abs().max() < 1e-5)
            require(
                inside,
                "MirrorDescent starts inside the simplex: positive, summing to one",
                error=InvalidProblem,
            )
        at = problem.start
        extra = {"logs": at.log(), "step": self.step_size or 1.0}
        return made_state(problem, at, extra, problem.value(at), at.new_tensor(math.inf), 0)

    def step(self, problem: Composite, state: InnerState) -> InnerState:
        logs, size = state.extra["logs"], state.extra["step"]
        gradient, value = problem.gradient(state.at)
        for _ in range(TRIALS):
            moved = pytree.tree_map(lambda t: t.log_softmax(-1), problem.tree(logs - size * gradient))
            new_logs = ravel(pytree.tree_leaves(moved))
            new = new_logs.exp()
            if self.step_size is not None:
                break
            model = value + gradient @ (new - state.at) + (new * (new_logs - logs)).sum() / size
            if float((problem.value(new) - model).detach()) <= slack(value):
                break
            size /= SHRINK
        extra = {"logs": new_logs, "step": size}
        return made_state(problem, new, extra, value, (new - state.at).abs().max() / size, state.calls + 1)


@dataclass(frozen=True)
class Newton(Method[Composite, InnerState]):
    """Newton's method with the whole Hessian, its steps halved until f falls; for smooth problems of tens of unknowns.

    Cost per step: the Hessian and a solve, n^3 operations.

    >>> problem = Composite(lambda x, a: (x.exp() - a * x).sum(), torch.zeros(2), torch.tensor([1.0, 2.0]))
    >>> solve(problem, Newton(), stop=Stop(below={"residual": 1e-6})).x
    tensor([0.0000, 0.6931])
    """

    def init(self, problem: Composite, seed: int) -> InnerState:
        require(problem.prox is _nothing, "Newton is for smooth problems, without prox", error=InvalidProblem)
        at = problem.start
        gradient, value = problem.gradient(at)
        return made_state(problem, at, {}, value, gradient.abs().max(), 0)

    def step(self, problem: Composite, state: InnerState) -> InnerState:
        gradient, value = problem.gradient(state.at)
        # twice in reverse: forward mode within autograd's forward mode is not to be had
        hessian = torch.func.jacrev(torch.func.jacrev(problem.value))(state.at)
        direction = torch.linalg.solve(hessian, gradient)
        if float((direction @ gradient).detach()) <= 0.0:
            direction = gradient  # not convex here
        size = 1.0
        for _ in range(TRIALS):
            new = state.at - size * direction
            lower = problem.value(new) <= value - 1e-4 * size * (direction @ gradient)
            if bool(lower.detach()) or float((size * direction).detach().abs().max()) < 1e-14:
                break
            size /= SHRINK
        slope, value = problem.gradient(new)
        return made_state(problem, new, {}, value, slope.abs().max(), state.calls + 1)


@dataclass(frozen=True)
class Anderson(Method[Composite, InnerState]):
    """Anderson acceleration of proximal gradient steps (Walker and Ni, 2011): the best mix of the last few.

    Args:
        step_size: of the map that is accelerated; at most one over f's curvature.
        depth: how many earlier points are mixed.
        ridge: of the least-squares problem, relative to its size.

    Cost per step: one gradient, one proximal operator, depth^2 n operations.

    >>> A = torch.diag(torch.tensor([1.0, 10.0, 100.0]))
    >>> problem = Composite(lambda x, b: 0.5 * x @ A @ x - b @ x, torch.zeros(3), torch.ones(3))
    >>> solve(problem, Anderson(0.01), stop=Stop(below={"residual": 1e-5})).steps < 20
    True
    """

    step_size: float
    depth: int = 5
    ridge: float = 1e-10

    def __post_init__(self) -> None:
        require(self.step_size > 0, "Anderson needs step_size > 0", got=self.step_size)
        require(self.depth >= 1, "Anderson needs depth >= 1", got=self.depth)
        require(self.ridge >= 0, "Anderson needs ridge >= 0", got=self.ridge)

    def init(self, problem: Composite, seed: int) -> InnerState:
        at = problem.start
        return made_state(
            problem, at, {"images": [], "gaps": []}, problem.value(at), at.new_tensor(math.inf), 0
        )

    def step(self, problem: Composite, state: InnerState) -> InnerState:
        gradient, value = problem.gradient(state.at)
        image = problem.proximal(state.at - self.step_size * gradient, self.step_size)
        gap = image - state.at
        images = [*state.extra["images"], image][-self.depth - 1 :]
        gaps = [*state.extra["gaps"], gap][-self.depth - 1 :]
        new = image
        if len(gaps) > 1:
            changes = torch.stack([b - a for a, b in pairwise(gaps)])
            gram = changes @ changes.T
            # square and definite: least squares would square its condition in the derivative
            level = self.ridge * gram.diagonal().max() + torch.finfo(gram.dtype).tiny
            gram = gram + level * torch.eye(len(gram), dtype=gram.dtype, device=gram.device)
            weights = torch.linalg.solve(gram, changes @ gap)
            new = image - weights @ torch.stack([b - a for a, b in pairwise(images)])
        extra = {"images": images, "gaps": gaps}
        return made_state(problem, new, extra, value, gap.abs().max() / self.step_size, state.calls + 1)


def differentiable(
    method: Method[Composite, InnerState],
    f: Callable[..., Tensor],
    prox: Callable[..., Any] | None = None,
    *,
    stop: Stop | None = None,
    unroll: bool = False,
    condition: Condition | None = None,
    linear: LinearSolver | None = None,
) -> Callable[..., Any]:
    """``solver(init, theta_f, theta_g=None)`` of ``f + g`` by this method, differentiable in both thetas.

    Args:
        method: `ProximalGradient`, `MirrorDescent`, `Newton`, `Anderson`.
        f, prox: as for `Composite`.
        stop: when the solver ends; by default at a residual of 1e-8 or after 10 000 steps.
        unroll: differentiate through the iterations instead: memory grows with them, and a stopped solver's derivative
            is that of what it did. For a fixed number of steps, ``stop=Stop(steps=n)``.
        condition: a fixed-point map ``T(x, theta_f, theta_g)``; by default proximal gradient's, and Newton's for
            `Newton`.
        linear: of the derivative's linear system.

    >>> from thalweg.numerics import prox
    >>> y = torch.tensor([3.0, -0.5], dtype=torch.float64)
    >>> lasso = differentiable(ProximalGradient(), lambda x, y: 0.5 * (x - y).square().sum(), prox.lasso)
    >>> torch.func.jacrev(lasso, argnums=2)(torch.zeros_like(y), y, torch.tensor(1.0, dtype=torch.float64))
    tensor([-1.,  0.], dtype=torch.float64)
    """
    operator = _nothing if prox is None else prox
    ends = stop if stop is not None else Stop(below={"residual": 1e-8})

    def run(init: Any, theta_f: Any = None, theta_g: Any = None) -> Any:
        return solve(Composite(f, init, theta_f, operator, theta_g), method, stop=ends, progress=False).x

    if unroll:
        return run
    if condition is None and isinstance(method, Newton):
        moved = newton(torch.func.grad(f))

        def condition(x: Any, theta_f: Any, theta_g: Any) -> Any:
            return moved(x, theta_f)

    T = condition if condition is not None else proximal_gradient(f, operator)

    def gap(x: Any, theta_f: Any = None, theta_g: Any = None) -> Any:
        return pytree.tree_map(torch.sub, T(x, theta_f, theta_g), x)

    return custom_root(gap, solve=linear)(run)
