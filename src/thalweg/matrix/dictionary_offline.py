"""Orthonormal bases of data that are all there: what learning from a stream is measured against.

Zhai, Yang, Liao, Wright and Ma (2020), "Complete dictionary learning via l4-norm maximization over the orthogonal
group", algorithm 1; Engan, Aase and Husoy (1999) for the method of optimal directions, here with orthogonal updates.
"""

from __future__ import annotations

from abc import abstractmethod
from dataclasses import dataclass
from typing import ClassVar, Literal

import numpy as np
from numpy.typing import ArrayLike, NDArray

from thalweg.core import InvalidProblem, Method, Problem, State, Stop
from thalweg.core.seeding import generator
from thalweg.core.validation import as_real, check_finite, is_whole, require
from thalweg.matrix._dictionary_steps import Loss, Rule, slope
from thalweg.matrix.dictionary_alignment import random_orthogonal
from thalweg.matrix.dictionary_codes import largest
from thalweg.numerics.polar import polar_and_values
from thalweg.numerics.scaling import balancing

Matrix = NDArray[np.float64]


@dataclass(frozen=True, eq=False)
class BasisProblem(Problem):
    """An orthogonal D, shape (n, n), of samples Y, shape (samples, n), that is a fixed point of a polar factor.

    ``correlation(D)`` is the matrix whose polar factor D has to be; ``gap``, the metric, is
    ``1 - <correlation, D> / |correlation|_*``: 0 at a fixed point, never negative in the spectral ball.
    """

    Y: Matrix

    objective: ClassVar[str | None] = None

    def __post_init__(self) -> None:
        name = type(self).__name__
        Y = as_real(f"{name}: Y", self.Y)
        if Y.ndim != 2 or not Y.size:
            raise InvalidProblem(f"{name}: Y has shape {Y.shape}; expected (samples, n), one sample or more.")
        check_finite(f"{name}: Y", Y)
        if not Y.any():
            raise InvalidProblem(f"{name}: Y is zeros; no basis is better than another.")
        object.__setattr__(self, "Y", np.ldexp(Y, -balancing(Y)))

    @property
    def n(self) -> int:
        """Entries of a sample."""
        return int(self.Y.shape[1])

    @abstractmethod
    def correlation(self, D: Matrix) -> Matrix:
        """The matrix whose polar factor a solution is, shape (n, n)."""

    def metrics(self, x: ArrayLike) -> dict[str, float]:
        """``gap`` of D, an array of shape (n, n)."""
        D = as_real("x", x)
        if D.shape != (self.n, self.n):
            raise InvalidProblem(f"x has shape {D.shape}; expected ({self.n}, {self.n}).")
        check_finite("x", D)
        return {"gap": gap_of(self.correlation(D), D)[0]}

    def recommended_stop(self) -> Stop:
        """A gap of 1e-8, in a thousand steps at most."""
        return Stop(below={"gap": 1e-8}, steps=1000)


def gap_of(G: Matrix, D: Matrix) -> tuple[float, Matrix]:
    """The gap of D, and the polar factor of G."""
    largest_entry = float(np.abs(G).max())
    if largest_entry == 0.0:
        return 0.0, D
    G = G / largest_entry
    S, values = polar_and_values(G, near=D)
    return 1.0 - float(np.vdot(G, D)) / float(values.sum()), S


@dataclass(frozen=True, eq=False)
class SparsestBasis(BasisProblem):
    """Orthogonal D that maximises ``sum |Y D|^4`` or another function that is largest at sparse codes.

    Args:
        Y: shape (samples, n), finite.
        loss: ``"l4"``, the default, ``"l3"``, or ``"smooth-l1"``, as of `OnlineDictionary`.

    Raises:
        InvalidProblem: Y is no table of numbers, empty, or zeros. NotFinite: it holds NaN or infinity.

    >>> from thalweg import solve
    >>> from thalweg.matrix import SparseStream, recovery_error
    >>> stream = SparseStream(n=6, share=0.3, seed=0)
    >>> Y = next(stream.batches(4000))
    >>> result = solve(SparsestBasis(Y), MatchingStretchingProjection())
    >>> result.converged, recovery_error(result.x, stream.basis) < 0.01
    (True, True)
    """

    loss: Loss = "l4"

    def __post_init__(self) -> None:
        known = self.loss in ("l3", "l4", "smooth-l1")
        require(known, "SparsestBasis: loss is l3, l4 or smooth-l1", got=self.loss)
        super().__post_init__()

    def correlation(self, D: Matrix) -> Matrix:
        """``Y' slope(Y D)``."""
        square = float(np.vdot(self.Y, self.Y)) / self.Y.size  # that of the codes, in any orthogonal basis
        return np.asarray(self.Y.T @ slope(self.Y @ D, Rule(self.loss), square))


@dataclass(frozen=True, eq=False)
class KTermBasis(BasisProblem):
    """Orthogonal D in which the codes of ``n_nonzero`` terms leave least: ``min |Y - Z D'|_F``, rows of Z k-sparse.

    Args:
        Y: shape (samples, n), finite.
        n_nonzero: k, 1 to n.

    Raises:
        InvalidProblem: Y is no table of numbers, empty, or zeros. NotFinite: it holds NaN or infinity.
        InvalidParameter: k outside its range.

    The metric ``residual`` is ``|Y - Z D'|_F / |Y|_F`` with the best codes, beside ``gap``.

    >>> KTermBasis(np.eye(3), 1).metrics(np.eye(3))
    {'gap': 0.0, 'residual': 0.0}
    """

    n_nonzero: int = 1

    def __post_init__(self) -> None:
        super().__post_init__()
        usable = is_whole(self.n_nonzero) and 1 <= self.n_nonzero <= self.n
        require(usable, f"KTermBasis needs 1 <= n_nonzero <= {self.n}", got=self.n_nonzero)

    def correlation(self, D: Matrix) -> Matrix:
        """``Y' Z`` with the best codes Z."""
        return np.asarray(self.Y.T @ largest(self.Y @ D, self.n_nonzero))

    def metrics(self, x: ArrayLike) -> dict[str, float]:
        """``gap`` and ``residual`` of D, an array of shape (n, n)."""
        found = super().metrics(x)
        D = as_real("x", x)
        left = self.Y - largest(self.Y @ D, self.n_nonzero) @ D.T
        return {**found, "residual": float(np.linalg.norm(left) / np.linalg.norm(self.Y))}


@dataclass(kw_only=True)
class FixedPointState(State):
    """The basis, and the polar factor that is the next one."""

    x: Matrix  # (n, n)
    next: Matrix  # (n, n)


@dataclass(frozen=True)
class _PolarFixedPoint(Method[BasisProblem, FixedPointState]):
    start: Literal["random", "identity"] = "random"

    def __post_init__(self) -> None:
        known = self.start in ("random", "identity")
        require(known, f"{type(self).__name__}: start is random or identity", got=self.start)

    def init(self, problem: BasisProblem, seed: int) -> FixedPointState:
        D = np.eye(problem.n) if self.start == "identity" else random_orthogonal(problem.n, generator(seed))
        return self._at(problem, D)

    def step(self, problem: BasisProblem, state: FixedPointState) -> FixedPointState:
        return self._at(problem, state.next)

    def _at(self, problem: BasisProblem, D: Matrix) -> FixedPointState:
        gap, following = gap_of(problem.correlation(D), D)
        return FixedPointState(x=D, next=following, metrics={"gap": gap})


@dataclass(frozen=True)
class MatchingStretchingProjection(_PolarFixedPoint):
    """``D <- polar(Y' (Y D)^3)``: match, stretch, project. For `SparsestBasis`.

    Use it where all data fit into memory: a dozen or two of steps reach a fixed point to rounding. From a stream, learn
    with `OnlineDictionary`.

    Args:
        start: ``"random"``, the default, or ``"identity"``.

    Cost per step: ``4 samples n^2`` operations and one singular value decomposition.

    Source: Zhai et al. (2020), algorithm 1.

    >>> MatchingStretchingProjection().name
    'MatchingStretchingProjection()'
    """

    @classmethod
    def solves(cls) -> tuple[type[Problem], ...]:
        """Bases with the sparsest codes."""
        return (SparsestBasis,)


@dataclass(frozen=True)
class OrthogonalMOD(_PolarFixedPoint):
    """Optimal directions with orthogonal D: best k-term codes, then ``D <- polar(Y'Z)``. For `KTermBasis`.

    Each half is exact, so that the residual never rises; it ends at a local minimum.

    Args:
        start: ``"random"``, the default, or ``"identity"``.

    Cost per step: ``4 samples n^2`` operations and one singular value decomposition.

    Source: Engan, Aase and Husoy (1999), with the orthogonal update of Lesage et al. (2005).

    >>> OrthogonalMOD(start="identity").name
    'OrthogonalMOD(start=identity)'
    """

    @classmethod
    def solves(cls) -> tuple[type[Problem], ...]:
        """Bases with the least error of k-term codes."""
        return (KTermBasis,)
