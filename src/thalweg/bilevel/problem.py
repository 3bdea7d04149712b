"""The bilevel problem: ``min_{x in X} f(x, y)`` over the solutions y of ``min_{z in Y} g(x, z)``."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass, field
from functools import cached_property
from typing import Literal, NamedTuple, TypeAlias

import torch
from torch import Tensor, nn
from torch.utils import _pytree as pytree

from thalweg.bilevel._trees import Tree, TreeFunction, ravel, unravel, vector
from thalweg.bilevel.batches import Sampler
from thalweg.core import InvalidProblem, NotFinite, Problem, Stop

Level: TypeAlias = Literal["upper", "lower"]
Name: TypeAlias = Literal["x", "y"]


class Pair(NamedTuple):
    """An answer: the upper variable and the lower one, pytrees."""

    x: Tree
    y: Tree


@dataclass(frozen=True, eq=False)
class Bilevel(Problem):
    """``min_{x in X} f(x, y)`` with y among the solutions of ``min_{z in Y} g(x, z)``.

    Args:
        upper, lower: ``f(x, y)`` and ``g(x, y)``, scalar tensors; with a sampler ``f(x, y, batch)``.
        x0, y0: where to begin: pytrees of floating-point tensors, or modules, whose named parameters are taken;
            functions then call ``torch.func.functional_call(module, y, inputs)``.
        x_set, y_set: projections on the sets, ``projection(pytree)``; by default everything is allowed.
        upper_batches, lower_batches: samplers for stochastic gradients, e.g. `Minibatches`.
        judge: more numbers about an answer, ``judge(x, y) -> {name: number}``: a test accuracy, say.

    The metrics of an answer, a `Pair`, are ``upper`` and ``lower``, the two values on all the data, and judge's.
    Whether y solves the lower level well is told by `penalty_certificate`.

    Raises:
        InvalidProblem: x0 or y0 hold no floating-point tensors, or of several types; a projection that gives another
            structure, or whose result it moves again: it is none, or the set is empty.

    >>> zero = torch.tensor(0.0)
    >>> problem = Bilevel(lambda x, y: (y - 1).square(), lambda x, y: (y - x).square(), zero, zero)
    >>> problem.metrics(Pair(torch.tensor(1.0), torch.tensor(1.0)))
    {'upper': 0.0, 'lower': 0.0}
    """

    upper: Callable[..., Tensor]
    lower: Callable[..., Tensor]
    x0: Tree
    y0: Tree
    x_set: TreeFunction | None = None
    y_set: TreeFunction | None = None
    upper_batches: Sampler | None = None
    lower_batches: Sampler | None = None
    judge: Callable[[Tree, Tree], dict[str, float]] | None = None
    _parts: dict[str, tuple[list[Tensor], pytree.TreeSpec]] = field(init=False, repr=False, compare=False)

    def __post_init__(self) -> None:
        parts = {}
        for name in ("x", "y"):
            given = getattr(self, f"{name}0")
            if isinstance(given, nn.Module):
                given = dict(given.named_parameters())
            leaves, structure = pytree.tree_flatten(given)
            if not leaves or not all(isinstance(t, Tensor) and t.is_floating_point() for t in leaves):
                raise InvalidProblem(f"Bilevel.{name}0 needs floating-point tensors, or a pytree of them.")
            if len({(t.dtype, t.device) for t in leaves}) > 1:
                raise InvalidProblem(f"Bilevel.{name}0 needs tensors of one type on one device.")
            leaves = [t.detach().clone() for t in leaves]
            object.__setattr__(self, f"{name}0", pytree.tree_unflatten(leaves, structure))
            parts[name] = (leaves, structure)
        object.__setattr__(self, "_parts", parts)
        self._check_set("x")
        self._check_set("y")

    def _check_set(self, name: Name) -> None:
        once = self.project(name, self.vector0(name))
        if not bool(torch.isfinite(once).all()):
            raise InvalidProblem(f"Bilevel.{name}_set gives NaN or infinity: the set may be empty.")
        moved = float((self.project(name, once) - once).abs().max())
        if moved > 1e-3 * (1.0 + float(once.abs().max())):
            raise InvalidProblem(
                f"Bilevel.{name}_set moves its own result by {moved:.3g}: it is no projection, or the set is empty."
            )

    def vector0(self, name: Name) -> Tensor:
        """Where to begin, x0 or y0, as one vector."""
        return ravel(self._parts[name][0])

    def tree(self, name: Name, at: Tensor) -> Tree:
        """A vector as a pytree like x or y."""
        leaves, structure = self._parts[name]
        return pytree.tree_unflatten(unravel(at, leaves), structure)

    def project(self, name: Name, at: Tensor) -> Tensor:
        """The nearest point of the set."""
        projection = self.x_set if name == "x" else self.y_set
        if projection is None:
            return at
        leaves, structure = pytree.tree_flatten(projection(self.tree(name, at)))
        expected, of_it = self._parts[name]
        if structure != of_it or [t.shape for t in leaves] != [t.shape for t in expected]:
            raise InvalidProblem(
                f"Bilevel.{name}_set gives {structure}, shapes {[tuple(t.shape) for t in leaves]}; expected "
                f"{of_it}, {[tuple(t.shape) for t in expected]}."
            )
        return ravel(leaves)

    def batch(self, level: Level, generator: torch.Generator | None) -> Tree:
        """A batch of the level's sampler; all of its data without a generator; None without a sampler."""
        sampler = self.upper_batches if level == "upper" else self.lower_batches
        if sampler is None:
            return None
        return sampler.whole if generator is None else sampler(generator)

    def value(self, level: Level, x: Tensor, y: Tensor, batch: Tree = None) -> Tensor:
        """f or g at two vectors."""
        function = self.upper if level == "upper" else self.lower
        arguments = (self.tree("x", x), self.tree("y", y))
        value = function(*arguments) if batch is None else function(*arguments, batch)
        if not isinstance(value, Tensor) or value.numel() != 1:
            raise InvalidProblem(f"Bilevel.{level} has to give a scalar tensor; got {type(value).__name__}.")
        return value.reshape(())

    def gradients(
        self, level: Level, x: Tensor, y: Tensor, batch: Tree = None, wrt: str = "xy"
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

    def recommended_stop(self) -> Stop:
        """A ``stationarity`` and a ``lower_gap`` of 1e-4; after 1000 steps where gradients are stochastic.

        Where the gradients at the start have entries below one only, 1e-4 of the largest: small units are no solution.
        """
        if self.upper_batches is not None or self.lower_batches is not None:
            return Stop(steps=1000)
        upper, lower = self._start_slopes
        return Stop(below={"stationarity": 1e-4 * min(1.0, upper), "lower_gap": 1e-4 * min(1.0, lower)})

    @cached_property
    def _start_slopes(self) -> tuple[float, float]:
        """Largest entries of f's gradient and of g's in y at the start; one where they are zero or not finite."""
        x, y = self.vector0("x"), self.vector0("y")
        try:
            upper = torch.cat(self.gradients("upper", x, y))
            lower = self.gradients("lower", x, y, wrt="y")[0]
        except NotFinite:
            return 1.0, 1.0
        sizes = [float(g.abs().max()) for g in (upper, lower)]
        return sizes[0] or 1.0, sizes[1] or 1.0

    @torch.no_grad()
    def metrics(self, x: Pair) -> dict[str, float]:
        """``upper``, ``lower`` and what ``judge`` says."""
        at_x, at_y = (vector(part) for part in x)
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
