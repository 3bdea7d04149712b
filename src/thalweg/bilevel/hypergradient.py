"""Hyper-gradients, ``grad_x f - grad_xy g [grad_yy g]^-1 grad_y f``, and the ways to apply the inverse."""

from __future__ import annotations

import math
import warnings
from collections.abc import Callable
from dataclasses import dataclass
from typing import Protocol, TypeAlias

import torch
from torch import Tensor

from thalweg.bilevel._call import SolveInaccurate
from thalweg.bilevel._trees import Tree
from thalweg.bilevel.implicit import root_vjp
from thalweg.bilevel.problem import Bilevel, slopes
from thalweg.core import InvalidParameter
from thalweg.core.validation import require_counts, require_positive
from thalweg.numerics.torch_krylov import LinearSolver

Product: TypeAlias = Callable[[Tensor], Tensor]


class NegativeCurvature(UserWarning):
    """The lower level curves downwards along a vector: it is not strongly convex, its inverse means nothing."""


class LowerCurvature:
    """Products with the second derivatives of g at a point, on one batch: the first derivative is taken once.

    Cost: one gradient, then about two gradients a product; memory that of one gradient's graph.
    """

    def __init__(self, problem: Bilevel, x: Tensor, y: Tensor, batch: Tree = None) -> None:
        self._x, self._y = x.detach().requires_grad_(), y.detach().requires_grad_()
        with torch.enable_grad():
            value = problem.value("lower", self._x, self._y, batch)
            (self._slope,) = slopes(value, [self._y], create_graph=True)
        self.gradient = self._slope.detach()

    def yy(self, v: Tensor) -> Tensor:
        """``grad_yy g v``."""
        return self._pull(self._y, v)

    def xy(self, v: Tensor) -> Tensor:
        """``grad_xy g v``, shape of x."""
        return self._pull(self._x, v)

    def _pull(self, at: Tensor, v: Tensor) -> Tensor:
        if not self._slope.requires_grad:
            return torch.zeros_like(at)
        (found,) = torch.autograd.grad(
            self._slope, at, v, retain_graph=True, allow_unused=True, materialize_grads=True
        )
        return found


class Inverse(Protocol):
    """How ``[grad_yy g]^-1 b`` is found: from products on a fresh batch each, given by ``curvature()``."""

    def __call__(
        self, curvature: Callable[[], Product], b: Tensor, generator: torch.Generator
    ) -> tuple[Tensor, int]:
        """The vector, and the number of products it took."""


@dataclass(frozen=True)
class DirectInverse:
    """The matrix, made by as many products as y has entries, and factored; by pseudo-inverse where it is singular."""

    ridge: float = 0.0

    def __post_init__(self) -> None:
        require_positive(self, "ridge", zero=True)

    def __call__(
        self, curvature: Callable[[], Product], b: Tensor, generator: torch.Generator
    ) -> tuple[Tensor, int]:
        """See `Inverse`."""
        found = LinearSolver("dense", ridge=self.ridge)(curvature(), b)
        return found.x, found.products


@dataclass(frozen=True)
class CGInverse:
    """Conjugate gradients, a few of them, on one batch.

    Args:
        max_steps: each one product.
        tol: of the relative residual.
        ridge: added to the Hessian.
    """

    max_steps: int = 10
    tol: float = 1e-10
    ridge: float = 0.0

    def __post_init__(self) -> None:
        require_counts(self, "max_steps")
        require_positive(self, "tol")
        require_positive(self, "ridge", zero=True)

    def __call__(
        self, curvature: Callable[[], Product], b: Tensor, generator: torch.Generator
    ) -> tuple[Tensor, int]:
        """See `Inverse`."""
        product = _watched(curvature())
        found = LinearSolver("cg", self.tol, self.max_steps, self.ridge)(product, b)
        return found.x, found.products


@dataclass(frozen=True)
class NeumannInverse:
    """The Neumann series ``s sum_q (I - s H)^q b``, each factor on a fresh batch (Ghadimi and Wang, 2018).

    Args:
        terms: Q. The bias falls as ``(1 - s mu)^Q``, mu the strong convexity.
        step_size: s, at most one over the largest curvature.
        randomised: one product of a random number of factors, times Q, instead of the sum: as unbiased, with half
            the products and more noise.

    >>> problem = Bilevel(lambda x, y: y.sum(), lambda x, y: (y * y - x * y).sum(), torch.ones(1), torch.zeros(1))
    >>> hypergradient(problem, torch.ones(1), torch.full((1,), 0.5), NeumannInverse(40, 0.25)).gradient
    tensor([0.5000])
    """

    terms: int = 10
    step_size: float = 0.1
    randomised: bool = False

    def __post_init__(self) -> None:
        require_counts(self, "terms")
        require_positive(self, "step_size")

    def __call__(
        self, curvature: Callable[[], Product], b: Tensor, generator: torch.Generator
    ) -> tuple[Tensor, int]:
        """See `Inverse`."""
        if self.randomised:
            length = int(torch.randint(self.terms, (1,), generator=generator))
            term, scale = b, self.step_size * self.terms
        else:
            length, term, scale = self.terms - 1, b, self.step_size
        total = term
        for _ in range(length):
            term = term - self.step_size * _watched(curvature())(term)
            total = total + term
        found = scale * (term if self.randomised else total)
        if not math.isfinite(float(found.sum())):
            raise InvalidParameter(
                f"The Neumann series diverged: step_size {self.step_size:g} is too long for the lower level's "
                "curvature."
            )
        return found, length


@dataclass(frozen=True)
class FixedPointInverse:
    """Gradient steps on the linear system, ``v - s (H v - b)``, on one batch (Grazzi et al., 2020).

    Args:
        steps: how many, each one product.
        step_size: s, at most two over the largest curvature.
    """

    steps: int = 10
    step_size: float = 0.1

    def __post_init__(self) -> None:
        require_counts(self, "steps")
        require_positive(self, "step_size")

    def __call__(
        self, curvature: Callable[[], Product], b: Tensor, generator: torch.Generator
    ) -> tuple[Tensor, int]:
        """See `Inverse`."""
        product, v = _watched(curvature()), self.step_size * b
        for _ in range(self.steps - 1):
            v = v - self.step_size * (product(v) - b)
        return v, self.steps - 1


@dataclass(frozen=True)
class HyperGradient:
    """A hyper-gradient and what it took.

    Args:
        gradient: in x, a vector.
        direct: ``grad_x f``, the part of it that does not go through y.
        response: v, ``[grad_yy g]^-1 grad_y f``.
        lower_gradient: ``grad_y g``, on the batch of the last product.
        calls: gradients and second-order products.
    """

    gradient: Tensor
    direct: Tensor
    response: Tensor
    lower_gradient: Tensor
    calls: int


def hypergradient(
    problem: Bilevel, x: Tensor, y: Tensor, inverse: Inverse, generator: torch.Generator | None = None
) -> HyperGradient:
    """``grad_x f - grad_xy g v`` with ``v = [grad_yy g]^-1 grad_y f`` at two vectors.

    Args:
        inverse: `DirectInverse`, `CGInverse`, `NeumannInverse`, `FixedPointInverse`.
        generator: for batches; without one, all the data are used.
    """
    upper_x, upper_y = problem.gradients("upper", x, y, problem.batch("upper", generator))

    fixed = None  # the same data every time: one graph serves all products
    if generator is None or problem.lower_batches is None:
        fixed = LowerCurvature(problem, x, y, problem.batch("lower", None))

    def curvature() -> LowerCurvature:
        return fixed or LowerCurvature(problem, x, y, problem.batch("lower", generator))

    random = generator if generator is not None else torch.Generator()
    v, products = inverse(lambda: curvature().yy, upper_y, random)
    last = curvature()
    return HyperGradient(upper_x - last.xy(v), upper_x, v, last.gradient, 2 + products)


def explicit_hypergradient(problem: Bilevel, x: Tensor, y: Tensor, step_size: float = 1.0) -> Tensor:
    """The exact hyper-gradient at a solution y of the lower level, by dense algebra: for checking.

    Where solutions are not unique the Hessian's pseudo-inverse takes the inverse's place, and on the boundary of Y
    everything is projected to the tangent space of the active constraints: both come from differentiating
    ``y = P_Y(y - s grad_y g)``, s the step size. Kwon et al. (2024), section 3. Cost: y's size squared of memory, cubed
    of time.
    """

    def condition(y: Tensor, x: Tensor) -> Tensor:
        def at(y: Tensor) -> Tensor:
            return problem.value("lower", x, y, problem.batch("lower", None))

        return problem.project("y", y - step_size * torch.func.grad(at)(y)) - y

    upper_x, upper_y = problem.gradients("upper", x, y, problem.batch("upper", None))
    with warnings.catch_warnings():
        # a singular system is expected, and its least-norm solution meant
        warnings.simplefilter("ignore", SolveInaccurate)
        (through_y,) = root_vjp(
            condition, y.detach(), (x.detach(),), upper_y, solve=LinearSolver("dense", tol=1e-8)
        )
    total: Tensor = upper_x + through_y
    return total


def _watched(product: Product) -> Product:
    def watched(v: Tensor) -> Tensor:
        curved = product(v)
        along, size = float(torch.dot(v, curved)), float(torch.dot(v, v))
        if along < -1e-6 * math.sqrt(size * float(torch.dot(curved, curved))):
            # the same words every time, so that Python says them once
            warnings.warn(
                "The lower level curves downwards along a vector: it is not strongly convex there. Add a regulariser "
                "to it, or use Penalty, which needs no second derivatives.",
                NegativeCurvature,
                stacklevel=2,
            )
        return curved

    return watched
