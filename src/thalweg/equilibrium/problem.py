"""``0 in F(u) + G(u)``: what is given, and how good an answer is."""

from __future__ import annotations

import math
import sys
import warnings
from collections.abc import Callable
from dataclasses import dataclass, field
from functools import cached_property
from typing import ClassVar

import torch
from numpy.typing import ArrayLike
from torch import Tensor

from thalweg.core import InvalidProblem, NotFinite, Problem, Stop
from thalweg.core.seeding import torch_generator
from thalweg.core.validation import is_real, is_whole, require
from thalweg.equilibrium._tensors import as_tensor, told
from thalweg.equilibrium.operators import Bilinear, Components
from thalweg.equilibrium.sampling import SamplingReport

#: What estimated constants are multiplied by.
SAFETY = 1.1


class NotMonotone(UserWarning):
    """``(F(u) - F(v))'(u - v)`` was negative for some pair: no method here is sure to converge."""


def _nothing(v: Tensor, step: float) -> Tensor:
    """The resolvent of zero."""
    return v


@dataclass(frozen=True, eq=False)
class MonotoneInclusion(Problem):
    """Find u with ``0 in F(u) + G(u)``, ``F = (1/n) sum F_i`` monotone, G maximally monotone with a resolvent.

    Args:
        components: the finite sum.
        x0: where to begin, shape (d,).
        resolvent: ``J(v, step) = (I + step G)^-1 v``: a projection for a set's normal cone, a proximal operator for a
            function's subgradient. By default G is zero.
        lipschitz: L, of the components on average, ``(1/n) sum |F_i(u) - F_i(v)|^2 <= L^2 |u - v|^2``; by default
            estimated by `estimate_lipschitz` where a method needs it.
        importance: positive weights, by which components are drawn. By default uniformly; a `Bilinear` then draws rows
            and columns where the difference is large.
        judge: more numbers about an answer, e.g. a game's duality gap.

    The metric is ``residual``, ``|u - J(u - F(u), 1)|``, zero at solutions only and at most the distance of 0 to
    ``F(u) + G(u)``, in F's own units; and what ``judge`` says.

    Raises:
        InvalidProblem: no components, an x0 of more than one axis, a resolvent that changes shapes or moves points
            apart (it is no resolvent), an operator that gives another shape.
        NotFinite: the operator is not finite at the start.

    Warns:
        NotMonotone: random pairs of points near the start contradict monotonicity.

    >>> from thalweg.equilibrium import Functions
    >>> problem = MonotoneInclusion(Functions(lambda u, rows: (u - rows[:, None]), 3), torch.zeros(1))
    >>> problem.metrics(torch.ones(1))
    {'residual': 0.0}
    """

    objective: ClassVar[str | None] = "residual"

    components: Components
    x0: Tensor
    resolvent: Callable[[Tensor, float], Tensor] = _nothing
    lipschitz: float | None = None
    importance: Tensor | None = None
    judge: Callable[[Tensor], dict[str, float]] | None = None
    _chances: Tensor = field(init=False, repr=False, compare=False)
    _sums: Tensor = field(init=False, repr=False, compare=False)

    def __post_init__(self) -> None:
        count = getattr(self.components, "count", None)
        if not is_whole(count):
            raise InvalidProblem(
                "MonotoneInclusion needs components first: a Bilinear, Functions(f, count), or another with a "
                f"count, `full` and `weighted`; got {told(self.components)}."
            )
        n = self.components.count
        require(n >= 1, "MonotoneInclusion needs components", got=n, error=InvalidProblem)
        object.__setattr__(self, "x0", as_tensor("x0", self.x0, "d"))
        fits = self.lipschitz is None or (is_real(self.lipschitz) and 0 < self.lipschitz < math.inf)
        require(fits, "MonotoneInclusion needs lipschitz > 0", got=self.lipschitz)
        weights = torch.ones(n) if self.importance is None else as_tensor("importance", self.importance, "n")
        if weights.shape != (n,) or not bool((weights > 0).all()):
            raise InvalidProblem(f"MonotoneInclusion needs importance to be {n} positive weights.")
        chances = (weights / weights.sum()).to(self.x0)
        object.__setattr__(self, "_chances", chances)
        object.__setattr__(self, "_sums", chances.cumsum(0))
        if isinstance(self.components, Bilinear) and self.components.linear.shape != self.x0.shape:
            raise InvalidProblem(
                f"x0 has shape {tuple(self.x0.shape)}; expected {tuple(self.components.linear.shape)}, the game's rows "
                "and columns."
            )
        value = self._like_start("operator", self.components.full(self.x0))
        if not bool(torch.isfinite(value).all()):
            raise NotFinite("The operator is not finite at the start.")
        self._look_at_pairs()

    def _like_start(self, who: str, value: object) -> Tensor:
        """``value``, if it is a tensor of x0's shape and type."""
        if not isinstance(value, Tensor) or value.shape != self.x0.shape or value.dtype != self.x0.dtype:
            raise InvalidProblem(f"The {who} gives {told(value)}; expected x0's, {told(self.x0)}.")
        return value

    def _look_at_pairs(self) -> None:
        random = torch_generator(0, 0xE0)
        for _ in range(4):
            u, v = (self.x0 + torch.randn(self.x0.shape, generator=random, dtype=self.x0.dtype) for _ in "uv")
            # a resolvent may write on what it is given; the points themselves are compared below
            a, b = (self._like_start("resolvent", self.resolvent(w.clone(), 1.0)) for w in (u, v))
            firm = float((a - b) @ (u - v) - (a - b).square().sum())
            if firm < -1e-4 * float((u - v).square().sum()):
                raise InvalidProblem(
                    "The resolvent is not firmly non-expansive: it is not that of a monotone operator. Projections on "
                    "convex sets and proximal operators of convex functions are."
                )
            at_a, at_b = self.components.full(a), self.components.full(b)
            unit = max(float(at_a.abs().max()), float(at_b.abs().max()), sys.float_info.min)
            moved = at_a / unit - at_b / unit
            rounding = 100.0 * torch.finfo(moved.dtype).eps * math.sqrt(len(moved))
            doubt = 1e-6 * float(torch.linalg.vector_norm(moved)) + rounding
            if float(moved @ (a - b)) < -doubt * float(torch.linalg.vector_norm(a - b)):
                warnings.warn(
                    "The operator is not monotone: (F(u) - F(v))'(u - v) < 0 for a random pair. Residuals still tell "
                    "the truth, but convergence is not to be expected.",
                    NotMonotone,
                    stacklevel=4,
                )
                return

    @property
    def count(self) -> int:
        """n, the components."""
        return self.components.count

    def sampled(self, size: int, random: torch.Generator) -> tuple[Tensor, Tensor]:
        """Rows of components drawn by importance, and the weights that make their weighted sum unbiased for F."""
        if self.importance is None:
            rows = torch.randint(self.count, (size,), generator=random)
            return rows, torch.full((size,), 1.0 / size, dtype=self.x0.dtype)
        drawn = torch.rand(size, generator=random, dtype=self._sums.dtype)
        rows = torch.searchsorted(self._sums, drawn).clamp_max(self.count - 1)
        return rows, 1.0 / (size * self.count * self._chances[rows])

    def change(self, u: Tensor, w: Tensor, size: int, random: torch.Generator) -> tuple[Tensor, int]:
        """An unbiased estimate of ``F(u) - F(w)`` from ``size`` components, and the evaluations that it took.

        Twice ``size``, or ``size`` where components are affine and have a ``difference`` (see `Components`). All n give
        the difference itself.
        """
        components = self.components
        if isinstance(components, Bilinear) and size >= self.count:
            return components.moved(u - w), self.count
        if isinstance(components, Bilinear) and self.importance is None:
            return components.drawn(u - w, size, random), size
        if size >= self.count:
            return components.full(u) - components.full(w), 2 * self.count
        rows, weights = self.sampled(size, random)
        difference = getattr(components, "difference", None)
        if difference is not None:
            return difference(u - w, rows, weights), size
        return components.weighted(u, rows, weights) - components.weighted(w, rows, weights), 2 * size

    @cached_property
    def sampling(self) -> SamplingReport:
        """Stable rank and predicted gain: whether sampling components pays. Sampling methods take their steps from it.

        Estimated when first asked for (`estimate_lipschitz`, that of F and that of single components); ``|A|_F`` of a
        `Bilinear` is known, and so is what ``lipschitz`` says.

        >>> from thalweg.equilibrium import Bilinear
        >>> game = MonotoneInclusion(Bilinear(torch.diag(torch.tensor([2.0, 1.0, 1.0]))), torch.ones(6))
        >>> round(game.sampling.stable_rank, 3)
        1.5
        """
        whole = estimate_lipschitz(self)
        found = whole / SAFETY
        if self.lipschitz is not None:
            average, rank = self.lipschitz, (self.lipschitz / found) ** 2
            whole = min(whole, average)
        elif isinstance(self.components, Bilinear) and self.importance is None:
            average = max(self.components.average_lipschitz(), found)
            rank = (average / found) ** 2
        else:
            average = max(estimate_lipschitz(self, 1), whole)
            rank = (average / whole) ** 2
        return SamplingReport(self.count, whole, average, max(rank, 1.0))

    def natural_residual(self, u: Tensor, value: Tensor | None = None) -> float:
        """``|u - J(u - F(u), 1)|``, F(u) given or not."""
        value = self.components.full(u) if value is None else value
        return float(torch.linalg.vector_norm(u - self.resolvent(u - value, 1.0)))

    def hopeless(self, u: Tensor) -> str:
        """Why no solution is to be found from u on, in a line for the user; nothing where there may be one."""
        return ""

    def recommended_stop(self) -> Stop:
        """A residual of 1e-6."""
        return Stop(below={"residual": 1e-6})

    def metrics(self, x: ArrayLike | Tensor) -> dict[str, float]:
        """``residual`` and what ``judge`` says of an answer of x0's shape."""
        x = torch.as_tensor(x).to(self.x0)
        if x.shape != self.x0.shape:
            raise InvalidProblem(f"x has shape {tuple(x.shape)}; expected {tuple(self.x0.shape)}.")
        return {"residual": self.natural_residual(x)} | (self.judge(x) if self.judge is not None else {})


def estimate_lipschitz(
    problem: MonotoneInclusion, batch: int | None = None, rounds: int = 30, seed: int = 0
) -> float:
    """Root mean square Lipschitz constant of minibatches, ``E |F_S(u) - F_S(v)|^2 <= L^2 |u - v|^2``, from differences.

    A power iteration on differences of F finds the direction in which it stretches most; there and in random directions
    minibatches are compared. Batches of one give the components' average L.

    Cost: ``rounds`` evaluations of F and as many of 64 minibatches.
    """
    b = problem.count if batch is None else batch
    random = torch_generator(seed, 0xE1)
    at = problem.resolvent(problem.x0, 1.0)
    d = torch.randn(at.shape, generator=random, dtype=at.dtype)
    value, most = problem.components.full(at), 0.0
    for k in range(rounds):
        d = d / torch.linalg.vector_norm(d)
        stretched = problem.components.full(at + d) - value
        squares = [float(stretched.square().sum())] if b >= problem.count else []
        for _ in range(0 if b >= problem.count else 64 // rounds + 1):
            move, _ = problem.change(at + d, at, b, random)
            squares.append(float(move.square().sum()))
        most = (
            max(most, sum(squares) / len(squares))
            if b >= problem.count
            else most + sum(squares) / len(squares)
        )
        if k == rounds // 2:  # once more from elsewhere, should the first direction have missed the largest
            d = torch.randn(at.shape, generator=random, dtype=at.dtype)
        elif float(stretched.abs().max()) > 0.0:
            d = stretched
    mean = most if b >= problem.count else most / rounds
    return SAFETY * math.sqrt(mean) if mean > 0.0 else 1.0  # constant: any step will do
