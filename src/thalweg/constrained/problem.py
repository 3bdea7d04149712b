"""``min f(x) with c(x) = 0``: what is given, its derivatives, and how good an answer is."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Any, ClassVar

import numpy as np
import scipy.sparse.linalg as spla
from numpy.typing import ArrayLike, NDArray

from thalweg.core import InvalidProblem, NotFinite, Problem, Stop
from thalweg.core.seeding import generator
from thalweg.core.validation import check_vector, require
from thalweg.numerics.operators import is_sparse

Vector = NDArray[np.float64]

#: Systems up to this many unknowns are looked at with dense factorizations.
DENSE = 1000


class RankDeficient(UserWarning):
    """The Jacobian of the constraints has dependent rows: multipliers are not unique."""


@dataclass(frozen=True)
class Point:
    """x with the values and first derivatives there: ``f``, its gradient g (n,), c (m,) and its Jacobian G (m, n)."""

    x: Vector
    f: float
    g: Vector
    c: Vector
    G: Any

    def lagrangian(self, multipliers: Vector) -> Vector:
        """``g + G'lambda``, the gradient of the Lagrangian in x."""
        out: Vector = self.g + self.G.T @ multipliers
        return out

    @property
    def finite(self) -> bool:
        """Whether all of it is."""
        sums = (self.f, float(self.g.sum()), float(self.c.sum()), float(self.G.sum()))
        return all(math.isfinite(s) for s in sums)


@dataclass(frozen=True, eq=False)
class EqualityConstrained(Problem):
    """Minimise f(x) with c(x) = 0, both twice differentiable.

    Args:
        value: ``f(x)``, a number.
        gradient: ``f'(x)``, shape (n,).
        constraints: ``c(x)``, shape (m,), ``1 <= m <= n``.
        jacobian: ``c'(x)``, shape (m, n), dense or sparse.
        hessian: ``H(x, lambda)``, that of ``f + lambda'c`` in x, shape (n, n), dense or sparse.
        start: x to start from, shape (n,).
        multipliers: lambda to start from, shape (m,); zeros by default.
        blocks: equations of the Newton system (n of the gradient, m of the constraints) that belong together, for
            `BlockKaczmarz`, where the problem knows them.

    `from_torch` and `from_formulas` make the derivatives themselves. The metrics of an answer, with the multipliers
    that fit
    it best: ``kkt``, ``|(f' + G'lambda, c)|``; ``stationarity`` and ``feasibility``, its two parts; ``value``.

    Raises:
        InvalidProblem: shapes that do not fit, more constraints than unknowns.
        NotFinite: a value or a derivative that is not finite at the start.

    >>> import numpy as np
    >>> circle = EqualityConstrained.from_formulas("x1 + x2", ["x1**2 + x2**2 - 2"], [-1.5, -0.5])
    >>> circle.metrics(np.array([-1.0, -1.0]))["kkt"] < 1e-12
    True
    """

    objective: ClassVar[str | None] = "kkt"

    value: Callable[[Vector], float]
    gradient: Callable[[Vector], Vector]
    constraints: Callable[[Vector], Vector]
    jacobian: Callable[[Vector], Any]
    hessian: Callable[[Vector, Vector], Any]
    start: Vector
    multipliers: Vector | None = None
    blocks: Sequence[NDArray[np.int64]] | None = None
    n: int = field(init=False)
    m: int = field(init=False)

    def __post_init__(self) -> None:
        start = np.array(self.start, dtype=np.float64)
        require(
            start.ndim == 1 and start.size > 0,
            "start must be a vector",
            got=start.shape,
            error=InvalidProblem,
        )
        start = check_vector("start", start, start.size)
        n, m = start.size, np.asarray(self.constraints(start)).size
        given = np.zeros(m) if self.multipliers is None else check_vector("multipliers", self.multipliers, m)
        for name, value in {"start": start, "multipliers": given, "n": n, "m": m}.items():
            object.__setattr__(self, name, value)
        if m == 0 or m > n:
            raise InvalidProblem(
                f"There are {m} constraints on {n} unknowns; between 1 and {n} can be met in general. "
                + ("Without any, use scipy.optimize.minimize." if m == 0 else "Drop or combine some.")
            )
        for name, found, shape in (
            ("value", self.value(start), ()),
            ("gradient", self.gradient(start), (n,)),
            ("constraints", self.constraints(start), (m,)),
            ("jacobian", self.jacobian(start), (m, n)),
            ("hessian", self.hessian(start, given), (n, n)),
        ):
            entries: Any = getattr(found, "data", found) if is_sparse(found) else found
            if np.shape(found) != shape:
                raise InvalidProblem(f"{name} gives shape {np.shape(found)}; expected {shape}.")
            if not np.isfinite(np.asarray(entries, dtype=np.float64)).all():
                raise NotFinite(f"{name} is not finite at the start. Start elsewhere.")

    @classmethod
    def from_torch(
        cls,
        f: Callable[[Any], Any],
        c: Callable[[Any], Any] | None,
        start: ArrayLike,
        *,
        at_most_zero: Callable[[Any], Any] | None = None,
        **options: Any,
    ) -> EqualityConstrained:
        """f and c written in torch, of a float64 vector; dense derivatives by automatic differentiation.

        ``at_most_zero`` is a vector of functions ``g(x) <= 0``: each becomes ``g_i(x) + s_i^2 = 0`` with an unknown
        s_i of its own, after those of x. Squared slacks keep the problem smooth and equality-constrained; where an
        inequality is active with a small multiplier they make it degenerate, and a solver for inequalities is the
        better choice.

        >>> import torch
        >>> p = EqualityConstrained.from_torch(lambda x: x.sum(), lambda x: (x @ x - 2)[None], [-1.5, -0.5])
        >>> p.gradient(p.start)
        array([1., 1.])
        """
        from thalweg.constrained._derivatives import stacked, torch_callbacks, with_slacks

        x = np.asarray(start, dtype=np.float64)
        if at_most_zero is None:
            return cls(**torch_callbacks(f, c), start=x, **options)
        callbacks, x = with_slacks(
            torch_callbacks(f, stacked(c, at_most_zero)), x, torch_callbacks(f, at_most_zero)
        )
        return cls(**callbacks, start=x, **options)

    @classmethod
    def from_formulas(
        cls,
        minimize: str,
        subject_to: Sequence[str],
        start: ArrayLike,
        *,
        at_most_zero: Sequence[str] = (),
        **options: Any,
    ) -> EqualityConstrained:
        """f and the c_i as text in ``x1, x2, ...``, e.g. ``"x1*sin(x2)"``; derivatives by SymPy, compiled to NumPy.

        ``at_most_zero`` are formulas ``g(x) <= 0``, made equations by squared slacks as in `from_torch`.

        The text is evaluated as Python by SymPy: use it for formulas of your own, never for those of strangers.

        Raises:
            InvalidProblem: a formula that cannot be read, or that has other names than ``x1 ... xn``.
        """
        from thalweg.constrained._derivatives import formula_callbacks, with_slacks

        x, given, more = np.asarray(start, dtype=np.float64), tuple(subject_to), tuple(at_most_zero)
        callbacks = formula_callbacks(minimize, given + more, x.size)
        if more:
            callbacks, x = with_slacks(callbacks, x, formula_callbacks(minimize, more, x.size))
        return cls(**callbacks, start=x, **options)

    def at(self, x: Vector) -> Point:
        """Values and first derivatives at x."""
        c = np.asarray(self.constraints(x), dtype=np.float64)
        return Point(
            x, float(self.value(x)), np.asarray(self.gradient(x), dtype=np.float64), c, self.jacobian(x)
        )

    def best_multipliers(self, x: ArrayLike) -> Vector:
        """The lambda of least ``|f'(x) + G(x)'lambda|``, of least norm where G's rows depend on each other."""
        return fitted_multipliers(self.at(check_vector("x", x, self.n)))

    def metrics(self, x: ArrayLike) -> dict[str, float]:
        """``kkt``, ``stationarity``, ``feasibility``, ``value``."""
        point = self.at(check_vector("x", x, self.n))
        return residuals(point, fitted_multipliers(point)) | {"value": point.f}

    def recommended_stop(self) -> Stop:
        """A kkt residual of 1e-8."""
        return Stop(below={"kkt": 1e-8})

    def derivative_error(self, x: ArrayLike | None = None, seed: int = 0) -> dict[str, float]:
        """How far ``gradient``, ``jacobian`` and ``hessian`` are from central differences along a random direction.

        Relative to the size of each; about 1e-9 where they are right. At the start by default.
        """
        x = self.start if x is None else check_vector("x", x, self.n)
        random = generator(seed, 0x04)
        d, lam = random.standard_normal(self.n), random.standard_normal(self.m)
        h = 1e-5 * (1.0 + float(np.linalg.norm(x))) / float(np.linalg.norm(d))
        ahead, behind, here = self.at(x + h * d), self.at(x - h * d), self.at(x)
        along = {
            "gradient": ((ahead.f - behind.f) / (2 * h), here.g @ d),
            "jacobian": ((ahead.c - behind.c) / (2 * h), here.G @ d),
            "hessian": (
                (ahead.lagrangian(lam) - behind.lagrangian(lam)) / (2 * h),
                self.hessian(x, lam) @ d,
            ),
        }
        return {
            name: float(np.linalg.norm(differences - mine)) / (1.0 + float(np.linalg.norm(mine)))
            for name, (differences, mine) in along.items()
        }


def residuals(point: Point, multipliers: Vector) -> dict[str, float]:
    """``kkt`` and its two parts."""
    stationarity = float(np.linalg.norm(point.lagrangian(multipliers)))
    feasibility = float(np.linalg.norm(point.c))
    return {
        "kkt": math.hypot(stationarity, feasibility),
        "stationarity": stationarity,
        "feasibility": feasibility,
    }


def fitted_multipliers(point: Point) -> Vector:
    """The lambda of least squares at a point, of least norm; zeros where something is not finite."""
    if not point.finite:
        return np.zeros(len(point.c))
    if is_sparse(point.G):
        found = spla.lsmr(point.G.T, -point.g, atol=1e-14, btol=1e-14, maxiter=10 * len(point.c))[0]
    else:
        found = np.linalg.lstsq(point.G.T, -point.g, rcond=1e-10)[0]
    return np.asarray(found, dtype=np.float64)
