"""``min f(x) with c(x) = 0``: what is given, its derivatives, and how good an answer is."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import ClassVar, Self

import numpy as np
import scipy.sparse as sp
import scipy.sparse.linalg as spla
from numpy.typing import ArrayLike, NDArray

from thalweg.constrained._arrays import (
    Matrix,
    Vector,
    adjoint,
    as_matrix,
    dense,
    divided,
    product,
    real,
    row_sizes,
)
from thalweg.constrained._derivatives import (
    UNCONSTRAINED,
    TensorFunction,
    formula_callbacks,
    stacked,
    torch_callbacks,
    with_slacks,
)
from thalweg.constrained.curvature import reduced_curvature, smallest_square
from thalweg.core import InvalidProblem, NotFinite, Problem, Stop
from thalweg.core.seeding import generator
from thalweg.core.validation import as_real, check_vector, require
from thalweg.numerics.operators import is_sparse

#: Functions whose derivatives at x0 lie between are taken in the units that they are given in.
SMALL, LARGE = 2.0**-10, 2.0**24
#: The kkt residual, in gradients, from which on a point may be called a saddle; the curvature, as a share of the
#: Hessian's largest entry, that is rounding.
NEAR, FLAT = 1e-4, 1e-6
#: Constraints depend on each other where G G' has an eigenvalue under this share of G's largest entry's square.
DEPENDENT = 1e-8


class RankDeficient(UserWarning):
    """The Jacobian of the constraints has dependent rows: multipliers are not unique."""


@dataclass(frozen=True)
class Point:
    """x with the values and first derivatives there: ``f``, its gradient g (n,), c (m,) and its Jacobian G (m, n).

    f and g are in units of ``unit``, c and the rows of G in those of the problem's ``units``.
    """

    x: Vector
    f: float
    g: Vector
    c: Vector
    G: Matrix
    unit: float = 1.0

    @property
    def value(self) -> float:
        """f in the user's unit."""
        return self.unit * self.f

    def lagrangian(self, multipliers: Vector) -> Vector:
        """``g + G'lambda``, the gradient of the Lagrangian in x."""
        return self.g + adjoint(self.G, multipliers)

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
        x0: where to begin, shape (n,).
        multipliers: lambda to begin with, shape (m,); zeros by default.
        blocks: equations of the Newton system (n of the gradient, m of the constraints) that belong together, for
            `BlockKaczmarz`, where the problem knows them.

    `from_torch` and `from_formulas` make the derivatives themselves. The metrics of an answer, with the multipliers
    that fit it best: ``kkt``, ``|(f' + G'lambda, c)|``; ``stationarity`` and ``feasibility``, its two parts; ``value``.

    The three residuals are absolute, but for functions far from 1: where the derivatives of f at x0, or those of a
    constraint, are all below 2^-10, or one is above 2^24, that function is measured in a unit of its own, the power of
    two near the largest (``unit`` and ``units``). So f in nanometres and in light years are solved alike.

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
    jacobian: Callable[[Vector], Matrix]
    hessian: Callable[[Vector, Vector], Matrix]
    x0: Vector
    multipliers: Vector | None = None
    blocks: Sequence[NDArray[np.int64]] | None = None
    n: int = field(init=False)
    m: int = field(init=False)
    unit: float = field(init=False, default=1.0)
    units: Vector = field(init=False)

    def __post_init__(self) -> None:
        x0 = as_real("x0", self.x0).copy()
        require(x0.ndim == 1 and x0.size > 0, "x0 must be a vector", got=x0.shape, error=InvalidProblem)
        x0 = check_vector("x0", x0, x0.size)
        n, m = x0.size, np.asarray(self.constraints(x0)).size
        for name, value in {"x0": x0, "n": n, "m": m}.items():
            object.__setattr__(self, name, value)
        if m == 0:
            raise InvalidProblem(UNCONSTRAINED)
        if m > n:
            raise InvalidProblem(
                f"There are {m} constraints on {n} unknowns; between 1 and {n} can be met in general. "
                + "Drop or combine some."
            )
        if self.multipliers is not None:
            object.__setattr__(self, "multipliers", check_vector("multipliers", self.multipliers, m))
        _check_output("value", self.value(x0), ())
        _check_output("gradient", self.gradient(x0), (n,))
        _check_output("constraints", self.constraints(x0), (m,))
        _check_output("jacobian", self.jacobian(x0), (m, n))
        given = np.zeros(m) if self.multipliers is None else self.multipliers
        _check_output("hessian", self.hessian(x0, given), (n, n))
        for name, unit in zip(("unit", "units"), self._measured(), strict=True):
            object.__setattr__(self, name, unit)

    def _measured(self) -> tuple[float, Vector]:
        """The units of f and of the constraints, by their derivatives at x0."""
        x, none = self.x0, np.zeros(self.m)
        bend = as_matrix(self.hessian(x, none))
        steep = max(_largest(np.asarray(self.gradient(x))[None]), _largest(bend))
        sizes = row_sizes(as_matrix(self.jacobian(x)))
        sizes = np.where(sizes < SMALL, np.maximum(sizes, np.abs(self.constraints(x))), sizes)
        for i in np.flatnonzero(sizes < SMALL)[:50]:  # flat at x0 only, or everywhere?
            alone = none.copy()
            alone[i] = 1.0
            sizes[i] = max(sizes[i], _largest(as_matrix(as_matrix(self.hessian(x, alone)) - bend)))
        return float(_units(np.array([steep]))[0]), _units(sizes)

    @property
    def first_multipliers(self) -> Vector:
        """lambda to begin with, in the units of `at`: as given, else zeros."""
        return np.zeros(self.m) if self.multipliers is None else self.multipliers * self.units / self.unit

    @classmethod
    def from_torch(
        cls,
        f: TensorFunction,
        c: TensorFunction | None,
        x0: ArrayLike,
        *,
        at_most_zero: TensorFunction | None = None,
        multipliers: Vector | None = None,
        blocks: Sequence[NDArray[np.int64]] | None = None,
    ) -> Self:
        """f and c written in torch, of a float64 vector; dense derivatives by automatic differentiation.

        ``at_most_zero`` is a vector of functions ``g(x) <= 0``: each becomes ``g_i(x) + s_i^2 = 0`` with an unknown
        s_i of its own, after those of x. Squared slacks keep the problem smooth and equality-constrained; where an
        inequality is active with a small multiplier they make it degenerate, and a solver for inequalities is the
        better choice.

        >>> import torch
        >>> p = EqualityConstrained.from_torch(lambda x: x.sum(), lambda x: (x @ x - 2)[None], [-1.5, -0.5])
        >>> p.gradient(p.x0)
        array([1., 1.])
        """
        x = as_real("x0", x0)
        if at_most_zero is None:
            found = torch_callbacks(f, c)
        else:
            both, slack = torch_callbacks(f, stacked(c, at_most_zero)), torch_callbacks(f, at_most_zero)
            found, x = with_slacks(both, x, slack.constraints)
        return cls(*found, x, multipliers, blocks)

    @classmethod
    def from_formulas(
        cls,
        minimize: str,
        subject_to: Sequence[str],
        x0: ArrayLike,
        *,
        at_most_zero: Sequence[str] = (),
        multipliers: Vector | None = None,
        blocks: Sequence[NDArray[np.int64]] | None = None,
    ) -> Self:
        """f and the c_i as text in ``x1, x2, ...``, e.g. ``"x1*sin(x2)"``; derivatives by SymPy, compiled to NumPy.

        ``at_most_zero`` are formulas ``g(x) <= 0``, made equations by squared slacks as in `from_torch`.

        A formula holds numbers, ``x1 ... xn``, pi, E, ``+ - * / **`` and smooth functions (sin, cos, tan, their
        inverses and hyperbolic kin, exp, log, sqrt). It is read as data, never evaluated as Python: text of
        strangers is safe.

        Raises:
            InvalidProblem: a formula that holds anything else, is not twice differentiable (abs, max), or is no
                expression (``x1 + x2 = 1``: write ``x1 + x2 - 1``).

        >>> EqualityConstrained.from_formulas("abs(x1)", ["x1 - 1"], [2.0])
        Traceback (most recent call last):
        ...
        thalweg.core.errors.InvalidProblem: The formula 'abs(x1)' is not twice differentiable: abs(x1).
        """
        for name, texts in {"subject_to": subject_to, "at_most_zero": at_most_zero}.items():
            require(
                not isinstance(texts, str),
                f"{name} is a list of formulas: write [{texts!r}]",
                error=InvalidProblem,
            )
        x, given, more = as_real("x0", x0), tuple(subject_to), tuple(at_most_zero)
        found = formula_callbacks(minimize, given + more, x.size)
        if more:
            found, x = with_slacks(found, x, formula_callbacks(minimize, more, x.size).constraints)
        return cls(*found, x, multipliers, blocks)

    def at(self, x: Vector) -> Point:
        """Values and first derivatives at x, f's in ``unit``, those of the constraints in ``units``."""
        f, g = float(real(self.value(x))), real(self.gradient(x))
        c, G = real(self.constraints(x)), as_matrix(self.jacobian(x))
        if self.unit != 1.0:
            f, g = f / self.unit, g / self.unit
        if (self.units != 1.0).any():
            c = c / self.units
            G = divided(G, self.units)
        return Point(x, f, g, c, G, self.unit)

    def curvature(self, x: Vector, multipliers: Vector) -> Matrix:
        """The Lagrangian's Hessian in the units of `at`, the multipliers' included."""
        if self.unit == 1.0 and (self.units == 1.0).all():
            return as_matrix(self.hessian(x, multipliers))
        found = as_matrix(self.hessian(x, multipliers * self.unit / self.units))
        return divided(found, np.full(self.n, self.unit))

    def best_multipliers(self, x: ArrayLike) -> Vector:
        """The lambda of least ``|f'(x) + G(x)'lambda|``, of least norm where G's rows depend on each other."""
        return fitted_multipliers(self.at(check_vector("x", x, self.n))) * self.unit / self.units

    def metrics(self, x: ArrayLike) -> dict[str, float]:
        """``kkt``, ``stationarity``, ``feasibility``, ``value``."""
        point = self.at(check_vector("x", x, self.n))
        return residuals(point, fitted_multipliers(point)) | {"value": point.value}

    def objection(self, x: ArrayLike) -> str:
        """What there is to say of a saddle or a maximum along the constraints, whose kkt residual is zero too.

        Cost: a Hessian, and up to 1000 unknowns a dense eigenvalue.
        """
        point = self.at(check_vector("x", x, self.n))
        multipliers = fitted_multipliers(point)
        if not residuals(point, multipliers)["kkt"] <= NEAR * (1.0 + float(np.linalg.norm(point.g))):
            return ""  # curvature says something only where the rest holds
        if self.m and not smallest_square(point.G) > DEPENDENT * _largest(point.G) ** 2:
            return ""  # several multipliers fit, and each has a curvature of its own
        H = self.curvature(point.x, multipliers)
        least = reduced_curvature(H, point.G)
        if not least < -FLAT * max(1.0, _largest(H)):
            return ""
        return (
            "The optimality conditions hold, but this is no minimum: along the constraints the curvature is "
            f"{least:.3g} in some direction. Start elsewhere, or a little beside this point."
        )

    def recommended_stop(self) -> Stop:
        """A kkt residual of 1e-8."""
        return Stop(below={"kkt": 1e-8})

    def derivative_error(self, x: ArrayLike | None = None, seed: int = 0) -> dict[str, float]:
        """How far ``gradient``, ``jacobian`` and ``hessian`` are from central differences along a random direction.

        Relative to the size of each; about 1e-9 where they are right. At the start by default.
        """
        x = self.x0 if x is None else check_vector("x", x, self.n)
        random = generator(seed, 0x04)
        d, lam = random.standard_normal(self.n), random.standard_normal(self.m)
        h = 1e-5 * (1.0 + float(np.linalg.norm(x))) / float(np.linalg.norm(d))
        ahead, behind, here = self.at(x + h * d), self.at(x - h * d), self.at(x)
        along: dict[str, tuple[ArrayLike, ArrayLike]] = {
            "gradient": ((ahead.f - behind.f) / (2 * h), here.g @ d),
            "jacobian": ((ahead.c - behind.c) / (2 * h), product(here.G, d)),
            "hessian": (
                (ahead.lagrangian(lam) - behind.lagrangian(lam)) / (2 * h),
                product(self.curvature(x, lam), d),
            ),
        }
        return {
            name: float(np.linalg.norm(np.subtract(differences, mine))) / (1.0 + float(np.linalg.norm(mine)))
            for name, (differences, mine) in along.items()
        }


def _check_output(name: str, found: Matrix | float, shape: tuple[int, ...]) -> None:
    """Refuse what a function of the problem gives at the start, where it has another shape or is not finite."""
    entries = as_real(f"What {name} gives", sp.csr_array(found).data if sp.issparse(found) else found)
    given = found.shape if sp.issparse(found) else np.shape(found)
    if given != shape:
        raise InvalidProblem(f"{name} gives shape {given}; expected {shape}.")
    if not np.isfinite(entries).all():
        raise NotFinite(f"{name} is not finite at the start. Start elsewhere.")


def _largest(entries: Matrix) -> float:
    """Of their sizes."""
    return float(row_sizes(entries).max(initial=0.0))


def _units(sizes: Vector) -> Vector:
    """1 for sizes from `SMALL` to `LARGE` and for zero, the power of two near them for others."""
    exponents = np.clip(np.frexp(sizes)[1], -1000, 1000)
    moderate = (sizes == 0.0) | ((sizes >= SMALL) & (sizes <= LARGE))
    return np.where(moderate, 1.0, np.ldexp(1.0, exponents))


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
        fit = spla.lsmr(point.G.T, -point.g, atol=1e-14, btol=1e-14, maxiter=10 * len(point.c))
        return np.asarray(fit[0], dtype=np.float64)
    return np.asarray(np.linalg.lstsq(dense(point.G).T, -point.g, rcond=1e-10)[0], dtype=np.float64)
