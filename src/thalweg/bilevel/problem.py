"""The bilevel problem: ``min_{x in X} f(x, y)`` over the solutions y of ``min_{z in Y} g(x, z)``."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any, Literal, NamedTuple, Protocol

import torch
from torch import Tensor, nn
from torch.utils import _pytree as pytree

from thalweg.bilevel._root import ravel, unravel
from thalweg.core import InvalidProblem, Method, NotFinite, Problem, State, Status
from thalweg.core.seeding import torch_generator
from thalweg.core.validation import require

#: A lower-level variable this many times its first size, plus one, has run away.
RUNAWAY = 1e8
Level = Literal["upper", "lower"]


class Sampler(Protocol):
    """Draws what one stochastic gradient is taken on; ``whole`` is what exact values are taken on."""

    def __call__(self, generator: torch.Generator) -> Any:
        """One batch."""

    @property
    def whole(self) -> Any:
        """All the data."""


@dataclass(frozen=True, eq=False)
class Minibatches:
    """Examples drawn independently, with replacement.

    Args:
        tensors: with the examples along the first axis.
        size: examples a batch.

    >>> batches = Minibatches((torch.arange(10),), 4)
    >>> batches(torch.Generator().manual_seed(0))[0].shape
    torch.Size([4])
    """

    tensors: tuple[Tensor, ...]
    size: int

    def __post_init__(self) -> None:
        lengths = {len(t) for t in self.tensors}
        if len(lengths) != 1 or 0 in lengths:
            raise InvalidProblem(
                f"Minibatches needs tensors of one length > 0; got lengths {sorted(lengths)}."
            )
        require(self.size >= 1, "Minibatches needs size >= 1", got=self.size, error=InvalidProblem)

    def __call__(self, generator: torch.Generator) -> tuple[Tensor, ...]:
        """A batch."""
        rows = torch.randint(len(self.tensors[0]), (self.size,), generator=generator)
        return tuple(t[rows.to(t.device)] for t in self.tensors)

    @property
    def whole(self) -> tuple[Tensor, ...]:
        """All examples."""
        return self.tensors

    @property
    def blocks(self) -> int:
        """Into how many fixed batches the examples fall."""
        return -(-len(self.tensors[0]) // self.size)

    def block(self, i: int) -> tuple[Tensor, ...]:
        """The i-th fixed batch; the last one may be smaller."""
        return tuple(t[i * self.size : (i + 1) * self.size] for t in self.tensors)


class Pair(NamedTuple):
    """An answer: the upper variable and the lower one, pytrees."""

    x: Any
    y: Any


@dataclass(frozen=True, eq=False)
class Bilevel(Problem):
    """``min_{x in X} f(x, y)`` with y among the solutions of ``min_{z in Y} g(x, z)``.

    Args:
        upper, lower: ``f(x, y)`` and ``g(x, y)``, scalar tensors; with a sampler ``f(x, y, batch)``.
        x, y: where to start: pytrees of floating-point tensors, or modules, whose named parameters are taken; functions
            then call ``torch.func.functional_call(module, y, inputs)``.
        x_set, y_set: projections on the sets, ``projection(pytree)``; by default everything is allowed.
        upper_batches, lower_batches: samplers for stochastic gradients, e.g. `Minibatches`.
        judge: more numbers about an answer, ``judge(x, y) -> {name: number}``: a test accuracy, say.

    The metrics of an answer, a `Pair`, are ``upper`` and ``lower``, the two values on all the data, and judge's.
    Whether y solves the lower level well is told by `certificate`.

    Raises:
        InvalidProblem: x or y hold no floating-point tensors, or of several types; a projection that gives another
            structure, or whose result it moves again: it is none, or the set is empty.

    >>> zero = torch.tensor(0.0)
    >>> problem = Bilevel(lambda x, y: (y - 1).square(), lambda x, y: (y - x).square(), zero, zero)
    >>> problem.metrics(Pair(torch.tensor(1.0), torch.tensor(1.0)))
    {'upper': 0.0, 'lower': 0.0}
    """

    upper: Callable[..., Tensor]
    lower: Callable[..., Tensor]
    x: Any
    y: Any
    x_set: Callable[[Any], Any] | None = None
    y_set: Callable[[Any], Any] | None = None
    upper_batches: Sampler | None = None
    lower_batches: Sampler | None = None
    judge: Callable[[Any, Any], dict[str, float]] | None = None
    _parts: dict[str, tuple[list[Tensor], Any]] = field(init=False, repr=False, compare=False)

    def __post_init__(self) -> None:
        parts = {}
        for name in ("x", "y"):
            given = getattr(self, name)
            if isinstance(given, nn.Module):
                given = dict(given.named_parameters())
            leaves, structure = pytree.tree_flatten(given)
            if not leaves or not all(isinstance(t, Tensor) and t.is_floating_point() for t in leaves):
                raise InvalidProblem(f"Bilevel.{name} needs floating-point tensors, or a pytree of them.")
            if len({(t.dtype, t.device) for t in leaves}) > 1:
                raise InvalidProblem(f"Bilevel.{name} needs tensors of one type on one device.")
            leaves = [t.detach().clone() for t in leaves]
            object.__setattr__(self, name, pytree.tree_unflatten(leaves, structure))
            parts[name] = (leaves, structure)
        object.__setattr__(self, "_parts", parts)
        self._check_set("x")
        self._check_set("y")

    def _check_set(self, name: Literal["x", "y"]) -> None:
        once = self.project(name, self.start(name))
        if not bool(torch.isfinite(once).all()):
            raise InvalidProblem(f"Bilevel.{name}_set gives NaN or infinity: the set may be empty.")
        moved = float((self.project(name, once) - once).abs().max())
        if moved > 1e-3 * (1.0 + float(once.abs().max())):
            raise InvalidProblem(
                f"Bilevel.{name}_set moves its own result by {moved:.3g}: it is no projection, or the set is empty."
            )

    def start(self, name: Literal["x", "y"]) -> Tensor:
        """X or y as given, one vector."""
        return ravel(self._parts[name][0])

    def tree(self, name: Literal["x", "y"], vector: Tensor) -> Any:
        """A vector as a pytree like x or y."""
        leaves, structure = self._parts[name]
        return pytree.tree_unflatten(unravel(vector, leaves), structure)

    def project(self, name: Literal["x", "y"], vector: Tensor) -> Tensor:
        """The nearest point of the set."""
        projection = self.x_set if name == "x" else self.y_set
        if projection is None:
            return vector
        leaves, structure = pytree.tree_flatten(projection(self.tree(name, vector)))
        expected, of_it = self._parts[name]
        if structure != of_it or [t.shape for t in leaves] != [t.shape for t in expected]:
            raise InvalidProblem(
                f"Bilevel.{name}_set gives {structure}, shapes {[tuple(t.shape) for t in leaves]}; expected "
                f"{of_it}, {[tuple(t.shape) for t in expected]}."
            )
        return ravel(leaves)

    def batch(self, level: Level, generator: torch.Generator | None) -> Any:
        """A batch of the level's sampler; all of its data without a generator; None without a sampler."""
        sampler = self.upper_batches if level == "upper" else self.lower_batches
        if sampler is None:
            return None
        return sampler.whole if generator is None else sampler(generator)

    def value(self, level: Level, x: Tensor, y: Tensor, batch: Any = None) -> Tensor:
        """f or g at two vectors."""
        function = self.upper if level == "upper" else self.lower
        arguments = (self.tree("x", x), self.tree("y", y))
        value = function(*arguments) if batch is None else function(*arguments, batch)
        if not isinstance(value, Tensor) or value.numel() != 1:
            raise InvalidProblem(f"Bilevel.{level} has to give a scalar tensor; got {type(value).__name__}.")
        return value.reshape(())

    def gradients(
        self, level: Level, x: Tensor, y: Tensor, batch: Any = None, wrt: str = "xy"
    ) -> tuple[Tensor, ...]:
        """Gradients of f or g at two vectors, in the order of ``wrt``. One call of the oracle.

        Raises:
            NotFinite: the value or a gradient is not finite.
        """
        at = {"x": x.detach(), "y": y.detach()}
        for name in wrt:
            at[name].requires_grad_()
        with torch.enable_grad():
            value = self.value(level, at["x"], at["y"], batch)
        found = slopes(value, [at[name] for name in wrt])
        for name, gradient in zip(wrt, found, strict=True):
            if not math.isfinite(float(gradient.sum())) and not bool(torch.isfinite(gradient).all()):
                raise NotFinite(
                    f"The {level} level's gradient in {name} is not finite; its value is {float(value.detach())}."
                )
        return found

    @torch.no_grad()
    def metrics(self, x: Pair) -> dict[str, float]:
        """``upper``, ``lower`` and what ``judge`` says."""
        at_x, at_y = (ravel(pytree.tree_leaves(part)) for part in x)
        values = {
            level: float(self.value(level, at_x, at_y, self.batch(level, None)))
            for level in ("upper", "lower")
        }
        return values | (self.judge(*x) if self.judge is not None else {})


def slopes(value: Tensor, at: list[Tensor], create_graph: bool = False) -> tuple[Tensor, ...]:
    """Gradients of a scalar; zero where it does not depend on the place."""
    if not value.requires_grad:
        return tuple(torch.zeros_like(t) for t in at)
    return torch.autograd.grad(
        value, at, create_graph=create_graph, allow_unused=True, materialize_grads=True
    )


@dataclass(frozen=True)
class Decay:
    """A parameter that falls as a power of the step, ``max(first (1 + k / delay)^-power, least)``.

    >>> Decay(1.0, 0.5)(3)
    0.5
    """

    first: float
    power: float = 0.0
    delay: float = 1.0
    least: float = 0.0

    def __post_init__(self) -> None:
        require(self.first > 0, "Decay needs first > 0", got=self.first)
        require(self.power >= 0, "Decay needs power >= 0", got=self.power)
        require(self.delay > 0, "Decay needs delay > 0", got=self.delay)

    def __call__(self, k: int) -> float:
        """Its value at step k, from zero."""
        if self.power == 0.0:
            return self.first
        return max(self.first * (1.0 + k / self.delay) ** -self.power, self.least)


Rate = float | Decay


def require_free_lower(problem: Bilevel, method: Any) -> None:
    """Refuse a constrained lower level: the hyper-gradient with the plain inverse is wrong on the boundary."""
    if problem.y_set is not None:
        raise InvalidProblem(
            f"{type(method).__name__} differentiates an unconstrained lower level; this one has y_set. "
            "Use Penalty or MomentumPenalty."
        )


def length(v: Tensor) -> float:
    """Euclidean norm."""
    return float(torch.linalg.vector_norm(v))


def rate(given: Rate, k: int) -> float:
    """A number, or a `Decay` at step k."""
    return given(k) if isinstance(given, Decay) else given


def require_rates(method: Any, *names: str) -> None:
    """Refuse step sizes and penalties that are not positive."""
    for name in names:
        given = getattr(method, name)
        require(isinstance(given, Decay) or given > 0, f"{type(method).__name__} needs {name} > 0", got=given)


@dataclass(kw_only=True)
class BilevelState(State):
    """``x`` is a `Pair` of pytrees; ``at_x`` and ``at_y`` are the same as vectors, ``extra`` is the method's own.

    Random numbers of step k come from a stream named by seed and k.
    """

    at_x: Tensor
    at_y: Tensor
    seed: int
    step: int = 0
    extra: dict[str, Any] = field(default_factory=dict)

    def stream(self) -> torch.Generator:
        """The random numbers of the coming step."""
        return torch_generator(self.seed, self.step, 0xB11E)

    def tree(self) -> dict[str, Any]:
        tree = super().tree()
        return {**tree, "x": list(tree["x"])}

    def restored(self, tree: dict[str, Any]) -> BilevelState:
        return super().restored({**tree, "x": Pair(*tree["x"])})


class BilevelMethod(Method[Bilevel, BilevelState]):
    """Base of the area's methods: where they start, and what they say after a step."""

    def init(self, problem: Bilevel, seed: int) -> BilevelState:
        """The starting points, projected."""
        at_x, at_y = (problem.project(name, problem.start(name)) for name in ("x", "y"))
        state = BilevelState(x=None, at_x=at_x, at_y=at_y, seed=seed)
        extra = self.begin(problem, state)
        state.extra = {**extra, "limit": RUNAWAY * (1.0 + float(state.at_y.abs().max()))}
        state.x = Pair(problem.tree("x", state.at_x), problem.tree("y", state.at_y))
        return state

    def begin(self, problem: Bilevel, state: BilevelState) -> dict[str, Any]:
        """What the method keeps beside x and y; it may also move the state's y, and count the calls that took."""
        return {}

    def moved(
        self,
        problem: Bilevel,
        state: BilevelState,
        x: Tensor,
        y: Tensor,
        *,
        calls: int,
        metrics: dict[str, float],
        extra: dict[str, Any],
    ) -> BilevelState:
        """The state after a step; DIVERGED when y runs away."""
        largest = float(y.abs().max())
        ran_away = not largest <= state.extra["limit"]
        message = (
            f"The lower level's variable grew to {largest:.3g}: it is unbounded below, or its step too long."
        )
        return BilevelState(
            x=Pair(problem.tree("x", x), problem.tree("y", y)),
            metrics=metrics,
            calls=state.calls + calls,
            status=Status.DIVERGED if ran_away else None,
            message=message if ran_away else "",
            at_x=x,
            at_y=y,
            seed=state.seed,
            step=state.step + 1,
            extra={**extra, "limit": state.extra["limit"]},
        )
