"""The parts of a two-stage problem: first decisions, the second stage, and both as functions of the scenario."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import ArrayLike, NDArray

from thalweg.core import InvalidProblem
from thalweg.core.validation import as_real, check_finite
from thalweg.robust.milp import Array, Columns, Model

Flags = NDArray[np.bool_]

#: What breaks a row by less than this, relative to the row's size, counts as feasible.
TOLERANCE = 1e-6


@dataclass(frozen=True)
class FirstStage:
    """``X = {lower <= x <= upper, A x <= b}``, with x_i whole where ``integer[i]``; shapes (n,), (rows, n), (rows,).

    ``lower`` and ``upper`` may be infinite.

    Raises:
        InvalidProblem, NotFinite: no decision, shapes that do not fit, NaN.
    """

    lower: Array
    upper: Array
    integer: Flags
    A: Array
    b: Array

    def __post_init__(self) -> None:
        for name in ("lower", "upper", "A", "b"):
            object.__setattr__(self, name, as_real(f"FirstStage: {name}", getattr(self, name)))
        object.__setattr__(self, "integer", as_flags("FirstStage: integer", self.integer))
        n, rows = self.lower.size, self.b.size
        if not n:
            raise InvalidProblem("FirstStage: lower is empty; expected one decision or more.")
        shapes = {"lower": (n,), "upper": (n,), "integer": (n,), "A": (rows, n), "b": (rows,)}
        for name, shape in shapes.items():
            if np.shape(getattr(self, name)) != shape:
                raise InvalidProblem(
                    f"FirstStage: {name} has shape {np.shape(getattr(self, name))}; expected {shape}, for n = {n} "
                    f"decisions and {rows} rows."
                )
        check_finite("FirstStage: A", self.A)
        check_finite("FirstStage: b", self.b)
        for name in ("lower", "upper"):
            check_finite(
                f"FirstStage: {name}", np.where(np.isinf(getattr(self, name)), 0.0, getattr(self, name))
            )

    @classmethod
    def binary(cls, n: int, A: ArrayLike | None = None, b: ArrayLike | None = None) -> FirstStage:
        """n yes-or-no decisions."""
        rows = np.zeros((0, n)) if A is None else np.atleast_2d(np.asarray(A, dtype=np.float64))
        ends = np.zeros(0) if b is None else np.atleast_1d(np.asarray(b, dtype=np.float64))
        return cls(np.zeros(n), np.ones(n), np.ones(n, dtype=bool), rows, ends)

    def rounded(self, x: Array) -> Array:
        """A solver's x with its whole entries whole, and no -0."""
        found: Array = np.where(self.integer, np.round(x), x) + 0.0
        return found

    def sizes(self, x: Array) -> Array:
        """What is not small in each entry of x: 1, or less where the limits, or else x's own entries, are less."""
        limits = np.maximum(np.abs(self.lower), np.abs(self.upper))
        largest = np.abs(x).max(initial=0.0, where=~self.integer)
        own = np.where(np.isfinite(limits), limits, largest)
        return np.where(self.integer, 1.0, np.minimum(own, 1.0))

    def is_over(self, x: Array, sizes: Array) -> Flags:
        """Which rows x breaks, shapes (..., n) and (..., rows), by more than a share of their terms of these sizes."""
        room = TOLERANCE * (np.abs(self.b) + sizes @ np.abs(self.A).T)
        return np.asarray(x @ self.A.T > self.b + room)

    def add_to(self, model: Model, cost: ArrayLike = 0.0, relaxed: bool = False) -> Columns:
        """The columns of x in ``model``."""
        whole = self.integer & (not relaxed)
        columns = model.columns(len(self.lower), self.lower, self.upper, integer=whole, cost=cost)
        if len(self.A):
            model.rows([(columns, self.A)], upper=self.b)
        return columns


@dataclass(frozen=True)
class Recourse:
    """The second stage at one scenario: ``min c'x + d'y`` over ``W y + T x <= h``, ``0 <= y <= upper``.

    ``c`` (n,), ``d`` (m,), ``W`` (rows, m), ``T`` (rows, n), ``h`` (rows,), ``upper`` (m,), all finite; y_j is whole
    where ``integer[j]``.
    """

    c: Array
    d: Array
    W: Array
    T: Array
    h: Array
    upper: Array
    integer: Flags

    @classmethod
    def of(cls, who: str, given: Recourse) -> Recourse:
        """``given`` with arrays for what may be lists; `InvalidProblem` where that is no second stage."""
        if not isinstance(given, cls):
            raise InvalidProblem(f"{who} gave {type(given).__name__}; expected a Recourse.")
        numbers = {
            name: as_real(f"{who}: {name}", getattr(given, name))
            for name in ("c", "d", "W", "T", "h", "upper")
        }
        return cls(**numbers, integer=as_flags(f"{who}: integer", given.integer))


def as_flags(name: str, values: ArrayLike) -> Flags:
    """Truth values, also from 0 and 1; `InvalidProblem` for anything else."""
    given = as_real(name, values)
    if not np.isin(given, (0.0, 1.0)).all():
        raise InvalidProblem(f"{name} holds something else than true and false.")
    return given.astype(np.bool_)


@dataclass(frozen=True)
class Affine:
    """The second stage as a function of the scenario: of each part its value at zero and its slopes, last axis d."""

    at_zero: Recourse
    c: Array  # (n, d)
    d: Array  # (m, d)
    W: Array  # (rows, m, d)
    T: Array  # (rows, n, d)
    h: Array  # (rows, d)

    @property
    def has_certain_rows(self) -> bool:
        """Whether only costs are uncertain."""
        return not (self.W.any() or self.T.any() or self.h.any())

    def at(self, xi: Array) -> Recourse:
        """The second stage at a scenario."""
        base = self.at_zero
        return Recourse(
            base.c + self.c @ xi,
            base.d + self.d @ xi,
            base.W + self.W @ xi,
            base.T + self.T @ xi,
            base.h + self.h @ xi,
            base.upper,
            base.integer,
        )

    def cost(self, x: Array, y: Array) -> tuple[float, Array]:
        """Cost of a plan as ``a + g'xi``."""
        return float(self.at_zero.c @ x + self.at_zero.d @ y), x @ self.c + y @ self.d

    def excess(self, x: Array, y: Array) -> tuple[Array, Array]:
        """``W y + T x - h`` as ``a + G xi``, shapes (rows,) and (rows, d)."""
        base = self.at_zero
        slopes = np.einsum("rmd,m->rd", self.W, y) + np.einsum("rnd,n->rd", self.T, x) - self.h
        return base.W @ y + base.T @ x - base.h, slopes


@dataclass(frozen=True)
class WorstCase:
    """What a decision costs in the worst case.

    ``value`` is proved to be at least the worst cost, up to the tolerance of feasible plans; ``lower`` is a cost that
    occurs, at ``xi``. Both are infinite where some scenario, ``xi``, leaves no feasible plan.
    """

    value: float
    lower: float
    xi: Array
    rounds: int = 1


@dataclass(frozen=True)
class Pieces:
    """What keeping one plan costs, over the scenarios: the largest of ``a + G xi``, shapes (k,) and (k, d).

    The plan cannot be kept where one of ``breaks_a + breaks_g xi`` is above its ``room``.
    """

    a: Array
    G: Array
    breaks_a: Array
    breaks_g: Array
    room: Array
