"""Rows to train on and rows to judge by, for each seed."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
from numpy.typing import ArrayLike, NDArray

from thalweg.core import InvalidProblem
from thalweg.core.seeding import generator
from thalweg.core.validation import as_real, check_finite, is_real, is_whole, require

Array = NDArray[np.float64]

#: Targets have squares up to here.
LARGEST = 1e140
#: Fewer rows have no width to speak of on either side of the threshold.
FEWEST = 10


@dataclass(frozen=True, eq=False)
class Rows:
    """Rows to train on, X of shape (n, ...) and y of shape (n,) or (n, k), and rows to judge by."""

    X: Array
    y: Array
    X_test: Array
    y_test: Array

    def __post_init__(self) -> None:
        for name in ("X", "y", "X_test", "y_test"):
            values = as_real(name, getattr(self, name))
            check_finite(name, values)
            object.__setattr__(self, name, values)
        most = max(float(np.abs(v).max(initial=0.0)) for v in (self.y, self.y_test))
        if most > LARGEST:
            raise InvalidProblem(
                f"y holds {most:.3g}, whose square is no number. Divide the targets by their size."
            )
        if len(self.X) != len(self.y) or len(self.X_test) != len(self.y_test):
            raise InvalidProblem(
                f"X has {len(self.X)} rows and y {len(self.y)}; X_test has {len(self.X_test)} and y_test "
                f"{len(self.y_test)}. Each pair needs as many."
            )
        if (
            self.X.shape[1:] != self.X_test.shape[1:]
            or self.y.shape[1:] != self.y_test.shape[1:]
            or self.y.ndim > 2
        ):
            raise InvalidProblem(
                f"Rows to train on and to judge by need one shape; got X {self.X.shape} and {self.X_test.shape}, "
                f"y {self.y.shape} and {self.y_test.shape}."
            )
        if len(self.X) < FEWEST or len(self.X_test) == 0:
            raise InvalidProblem(
                f"{FEWEST} rows to train on and one to judge by are the least; got {len(self.X)} and "
                f"{len(self.X_test)}."
            )


#: A seed's rows.
Data = Callable[[int], Rows]


@dataclass(frozen=True)
class LinearTeacher:
    """Gaussian rows, ``y = b.x + noise`` with ``|b| = 1``: what double descent is usually shown on.

    Args:
        rows, columns: n and d.
        noise: standard deviation, of the labels to train on; those to judge by have none.
        test_rows: how many.

    >>> LinearTeacher(rows=12, columns=3)(seed=0).X.shape
    (12, 3)
    """

    rows: int = 100
    columns: int = 20
    noise: float = 0.5
    test_rows: int = 1000

    def __post_init__(self) -> None:
        for name in ("rows", "columns", "test_rows"):
            value = getattr(self, name)
            require(is_whole(value) and value >= 1, f"LinearTeacher needs {name} >= 1", got=value)
        require(is_real(self.noise) and self.noise >= 0, "LinearTeacher needs noise >= 0", got=self.noise)

    def __call__(self, seed: int) -> Rows:
        rng = generator(seed, 0xDA7A)
        b = rng.standard_normal(self.columns)
        b /= np.linalg.norm(b)
        X, X_test = (rng.standard_normal((m, self.columns)) for m in (self.rows, self.test_rows))
        return Rows(X, X @ b + self.noise * rng.standard_normal(self.rows), X_test, X_test @ b)


@dataclass(frozen=True, eq=False)
class Split:
    """A table of yours: each seed trains on other rows, and judges by the rest.

    Args:
        X, y: shapes (n, ...) and (n,) or (n, k).
        rows: how many to train on.

    >>> Split(np.ones((30, 2)), np.ones(30), rows=20)(seed=1).X_test.shape
    (10, 2)
    """

    X: ArrayLike
    y: ArrayLike
    rows: int

    def __call__(self, seed: int) -> Rows:
        X, y = as_real("X", self.X), as_real("y", self.y)
        require(
            is_whole(self.rows) and 0 < self.rows < len(X),
            f"Split needs 0 < rows < {len(X)}, the rows of X",
            got=self.rows,
        )
        if len(y) != len(X):
            raise InvalidProblem(f"X has {len(X)} rows, y has {len(y)}.")
        order = generator(seed, 0x5B11).permutation(len(X))
        train, test = order[: self.rows], order[self.rows :]
        return Rows(X[train], y[train], X[test], y[test])


def as_data(data: Data | Rows | tuple[ArrayLike, ...]) -> Data:
    """A seed's rows, from what users have: a function of the seed, or the same rows for all."""
    if callable(data):
        return data
    rows = data if isinstance(data, Rows) else None
    if rows is None and isinstance(data, tuple) and len(data) == 4:
        rows = Rows(
            *(as_real(name, part) for name, part in zip(("X", "y", "X_test", "y_test"), data, strict=True))
        )
    if rows is None:
        raise InvalidProblem(
            "data is (X, y, X_test, y_test), Split(X, y, rows), LinearTeacher(...), or a function of a seed that "
            f"returns Rows; got {type(data).__name__}."
        )
    return lambda seed: rows
