"""What may come: a bounded polytope of scenarios, with samples, vertices and moves inside it."""

from __future__ import annotations

import math
from dataclasses import dataclass, field
from itertools import combinations

import numpy as np
from numpy.typing import ArrayLike, NDArray
from torch import Tensor

from thalweg.core import InvalidProblem
from thalweg.core.validation import as_real, check_finite, check_vector, is_real, is_whole, require
from thalweg.numerics.projections import polyhedron
from thalweg.robust.milp import Array, Model

#: A scenario may violate a row of its set by this much, relative to the row's size.
INSIDE = 1e-9


@dataclass(frozen=True, eq=False)
class UncertaintySet:
    """``{xi : lower <= xi <= upper, A xi <= b}``, not empty and bounded.

    Args:
        lower, upper: shape (d,), finite.
        A, b: shapes (rows, d) and (rows,); no rows by default.

    Raises:
        InvalidProblem, NotFinite: wrong shapes, an empty set, a side without a limit.

    >>> budget_set(4, 1.5).vertices(2, np.random.default_rng(0)).sum(1)
    array([1.5, 1.5])
    """

    lower: ArrayLike
    upper: ArrayLike
    A: ArrayLike | None = None
    b: ArrayLike | None = None
    #: A scenario of the set that is used where any will do.
    centre: Array = field(init=False)

    def __post_init__(self) -> None:
        lower = as_real("UncertaintySet: lower", self.lower)
        if lower.ndim != 1 or not len(lower):
            raise InvalidProblem(f"UncertaintySet: lower has shape {lower.shape}; expected (d,), d >= 1.")
        d = len(lower)
        lower = check_vector("UncertaintySet: lower", lower, d)
        upper = check_vector("UncertaintySet: upper", self.upper, d)
        A = np.zeros((0, d)) if self.A is None else as_real("UncertaintySet: A", self.A)
        if A.ndim != 2 or A.shape[1] != d:
            raise InvalidProblem(f"UncertaintySet: A has shape {A.shape}; expected (rows, {d}).")
        check_finite("UncertaintySet: A", A)
        b = check_vector("UncertaintySet: b", np.zeros(0) if self.b is None else self.b, len(A))
        for name, value in (("lower", lower), ("upper", upper), ("A", A), ("b", b)):
            object.__setattr__(self, name, value)
        if (lower > upper).any():
            i = int(np.argmax(lower > upper))
            raise InvalidProblem(
                f"UncertaintySet is empty: lower is {lower[i]:g} and upper {upper[i]:g} at coordinate {i}."
            )
        object.__setattr__(self, "centre", self._centre())

    @property
    def dimension(self) -> int:
        """d."""
        return len(self.ends[0])

    @property
    def ends(self) -> tuple[Array, Array]:
        """lower and upper as arrays."""
        return np.asarray(self.lower), np.asarray(self.upper)

    @property
    def system(self) -> tuple[Array, Array]:
        """A and b as arrays."""
        return np.asarray(self.A), np.asarray(self.b)

    @property
    def widths(self) -> Array:
        """``upper - lower``, and 1 where they are equal: the units of the coordinates."""
        low, high = self.ends
        return np.where(high > low, high - low, 1.0)

    def apart(self, scenarios: Array, xi: Array) -> Array:
        """The largest difference of each row of ``scenarios`` from ``xi``, in units of the coordinates."""
        return np.asarray((np.abs(scenarios - xi) / self.widths).max(-1))

    def contains(self, xi: ArrayLike) -> NDArray[np.bool_]:
        """Whether each row of ``xi``, shape (count, d), lies in the set, up to rounding."""
        (low, high), (A, b), points = self.ends, self.system, np.atleast_2d(as_real("xi", xi))
        if points.ndim != 2 or points.shape[1] != self.dimension:
            raise InvalidProblem(f"xi has shape {np.shape(xi)}; expected (count, {self.dimension}).")
        edge = INSIDE * np.maximum(np.abs(low), np.abs(high))
        room = INSIDE * np.abs(b) + np.abs(A) @ edge
        in_box = ((points >= low - edge) & (points <= high + edge)).all(1)
        return np.asarray(in_box & (points @ A.T <= b + room).all(1))

    def add_to(self, model: Model) -> NDArray[np.intp]:
        """The columns of a scenario of the set in ``model``."""
        (low, high), (A, b) = self.ends, self.system
        columns = model.columns(self.dimension, low, high)
        if len(A):
            model.rows([(columns, A)], upper=b)
        return columns

    def vertices(self, count: int, rng: np.random.Generator) -> Array:
        """Random ends of the set, shape (count, d): coordinates in random order go to their ends as far as rows allow.

        Vertices of a box or a budget set; of other sets points of the boundary.
        """
        (low, high), (A, b) = self.ends, self.system
        order = rng.random((count, self.dimension)).argsort(1)
        if self._grows:
            found = np.repeat(low[None], count, axis=0)
            aim = np.repeat(high[None], count, axis=0)
        else:
            found = np.repeat(self.centre[None], count, axis=0)
            aim = np.where(rng.random(found.shape) < 0.5, low, high)
        slack = b - found @ A.T
        for k in range(self.dimension):
            at = (np.arange(count), order[:, k])
            move = aim[at] - found[at]
            rate = A.T[order[:, k]]  # (count, rows)
            with np.errstate(divide="ignore", invalid="ignore"):
                room = np.where(rate * np.sign(move)[:, None] > 0, slack / np.abs(rate), np.inf)
            share = np.minimum(np.abs(move), room.min(1, initial=np.inf).clip(min=0.0)) * np.sign(move)
            found[at] += share
            slack -= rate * share[:, None]
        return found

    def all_vertices(self, most: int) -> Array | None:
        """Every vertex of a box or a budget set, shape (count, d); None of other sets and where there are more."""
        (low, high), (A, b), d = self.ends, self.system, self.dimension
        free = np.flatnonzero(high > low)
        if not len(A):
            if 2.0 ** len(free) > most:
                return None
            found = np.repeat(low[None], 2 ** len(free), axis=0)
            bits = np.arange(len(found))[:, None] >> np.arange(len(free)) & 1
            found[:, free] += bits * (high - low)[free]
            return found
        if not (len(A) == 1 and (A == 1).all() and (low == 0).all() and (high == 1).all()):
            return None
        whole, rest = int(b[0]), b[0] - int(b[0])
        count = sum(math.comb(d, k) for k in range(whole + 1)) + (rest > 0) * math.comb(d, whole) * (
            d - whole
        )
        if count > most:
            return None
        rows = []
        for size in range(whole + 1):
            for ones in combinations(range(d), size):
                row = np.zeros(d)
                row[list(ones)] = 1.0
                rows.append(row)
                if size == whole and rest > 0:
                    rows.extend(row + rest * (np.arange(d) == i) for i in np.flatnonzero(row == 0))
        return np.array(rows)

    def sample(self, count: int, rng: np.random.Generator) -> Array:
        """Random scenarios, shape (count, d): half of them vertices, half inside.

        Inside means a random share of the way from the set's lower end, or its centre, to a random direction's end.
        """
        outer = self.vertices((count + 1) // 2, rng)
        (low, high), (A, b) = self.ends, self.system
        start = low if self._grows else self.centre
        aim = low + rng.random((count // 2, self.dimension)) * (high - low)
        move = aim - start
        with np.errstate(divide="ignore", invalid="ignore"):
            room = np.where(move @ A.T > 0, (b - A @ start) / (move @ A.T), np.inf).min(1, initial=np.inf)
        share = np.minimum(1.0, room * rng.random(count // 2))
        return np.concatenate([outer, start + share[:, None] * move])

    def moves(self, xi: Array) -> Array:
        """Neighbours of a scenario: two coordinates exchange their places in their ranges, or one goes to an end."""
        low, high = self.ends
        width = self.widths
        place = (xi - low) / width
        i, j = np.triu_indices(self.dimension, 1)
        differ = np.abs(place[i] - place[j]) > 1e-12
        i, j = i[differ], j[differ]
        swapped = np.repeat(xi[None], len(i), axis=0)
        rows = np.arange(len(i))
        swapped[rows, i], swapped[rows, j] = (
            (low + place[j][:, None] * width)[rows, i],
            (low + place[i][:, None] * width)[rows, j],
        )
        ends = np.repeat(xi[None], 2 * self.dimension, axis=0)
        at = np.arange(self.dimension)
        ends[at, at], ends[self.dimension + at, at] = low, high
        found = np.concatenate([swapped, ends])
        return found[self.contains(found)]

    def project(self, xi: Tensor) -> Tensor:
        """The nearest scenarios of the set, row by row."""
        import torch

        (low, high), (A, b) = self.ends, self.system
        low_t, high_t = torch.from_numpy(low), torch.from_numpy(high)
        inside = torch.minimum(torch.maximum(xi, low_t), high_t)
        if not len(A) or bool((inside @ torch.from_numpy(A).T <= torch.from_numpy(b)).all()):
            return inside
        eye = np.eye(self.dimension)
        G, h = (torch.from_numpy(v) for v in (np.r_[A, eye, -eye], np.r_[b, high, -low]))
        return torch.stack([polyhedron(row, G, h) for row in xi])

    @property
    def _grows(self) -> bool:
        """Whether rows only limit from above, with the lower end inside: budgets."""
        A, b = self.system
        return bool(len(A)) and bool((A >= 0).all()) and bool((A @ self.ends[0] <= b).all())

    def _centre(self) -> Array:
        (low, high), (A, b) = self.ends, self.system
        middle = (low + high) / 2
        if not len(A) or bool((A @ middle <= b).all()):
            return middle
        model, rows = Model(), A * self.widths
        place = model.columns(len(low), 0.0, (high > low).astype(float))
        depth = model.columns(1, 0.0, 1.0, cost=-1.0)
        model.rows([(place, rows), (depth, np.linalg.norm(rows, axis=1)[:, None])], upper=b - A @ low)
        found = model.minimize()
        if found.x is None:
            raise InvalidProblem(
                "UncertaintySet is empty: no scenario between lower and upper meets A xi <= b."
            )
        return np.asarray(low + found.x[: len(low)] * self.widths)


def budget_set(n: int, gamma: float) -> UncertaintySet:
    """``{xi in [0, 1]^n : sum xi <= gamma}``: at most gamma of n things go wrong.

    Raises:
        InvalidProblem: gamma below 0 (an empty set) or above n.

    >>> budget_set(5, 2).contains([[1, 1, 0, 0, 0], [1, 1, 1, 0, 0]])
    array([ True, False])
    """
    require(is_whole(n) and n >= 1, "budget_set needs n >= 1", got=n)
    fits = is_real(gamma) and math.isfinite(gamma) and 0 <= gamma <= n
    require(fits, f"budget_set needs 0 <= gamma <= n = {n}", got=gamma, error=InvalidProblem)
    return UncertaintySet(np.zeros(n), np.ones(n), np.ones((1, n)), np.array([float(gamma)]))


def box_set(lower: ArrayLike, upper: ArrayLike) -> UncertaintySet:
    """``{xi : lower <= xi <= upper}``: each coordinate by itself.

    >>> box_set([-1.0], [1.0]).dimension
    1
    """
    return UncertaintySet(lower, upper)
