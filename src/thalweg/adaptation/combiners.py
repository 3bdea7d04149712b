"""One direction out of several gradients: the interface, fixed weights, and linear programmes along a preference.

Lv et al. (2021), "Pareto domain adaptation"; Mahapatra and Rajan (2020), "Multi-task learning with user preferences:
gradient descent with controlled ascent in Pareto optimization" (EPO), where the programme is from.
"""

from __future__ import annotations

import functools
import itertools
from abc import ABC, abstractmethod
from collections.abc import Sequence
from dataclasses import dataclass
from typing import ClassVar, Literal, NamedTuple

import numpy as np
import scipy.optimize
from numpy.typing import ArrayLike, NDArray

from thalweg.adaptation._kernels import best_vertex
from thalweg.core import InvalidProblem, NotFinite
from thalweg.core.validation import as_real, check_vector, is_real, require, require_positive

Vector = NDArray[np.float64]
Mode = Literal["balance", "descent", "descent, guide dropped", ""]
#: Objectives up to which the vertices of the programme are listed; HiGHS solves larger ones.
LISTED = 6


class Combination(NamedTuple):
    """Weights of the gradients, what the combiner did, and objectives without a usable gradient."""

    weights: Vector
    mode: Mode = ""
    dropped: tuple[int, ...] = ()


class GradientCombiner(ABC):
    """Weights of m gradients from their Gram matrix; the step goes along ``-sum_i a_i g_i``.

    All that is looked at is ``C = G G'``, shape (m, m), so a combiner serves any loop with several losses, on all
    parameters or on some of them; `combined_backward` does it on tensors. An objective whose gradient is zero or not
    finite gets weight zero and is named in ``dropped``.

    ``guided`` says that a combiner needs the guide: ``c = G g``, shape (m,), for the gradient g of a loss that steers.
    """

    guided: ClassVar[bool] = False

    def weights(
        self,
        C: ArrayLike,
        c: ArrayLike | None = None,
        losses: ArrayLike | None = None,
        reached: float = 0.0,
    ) -> Vector:
        """The weights alone, shape (m,); see `combine`."""
        return self.combine(C, c, losses, reached).weights

    def combine(
        self,
        C: ArrayLike,
        c: ArrayLike | None = None,
        losses: ArrayLike | None = None,
        reached: float = 0.0,
    ) -> Combination:
        """Weights for one step.

        Args:
            C: products of the gradients, shape (m, m), symmetric.
            c: their products with the guide's gradient, shape (m,); for guided combiners.
            losses: their values, shape (m,); for those that look at them.
            reached: which share of its best value the guide has come to, in [0, 1].

        Raises:
            InvalidProblem: shapes that do not fit, a C that is not symmetric, no guide where one is needed.
            NotFinite: no objective has a gradient that is finite; a guide's product that is not.
        """
        C = as_real("C", C)
        if C.ndim != 2 or C.shape[0] != C.shape[1] or not len(C):
            raise InvalidProblem(f"C has shape {C.shape}; expected (m, m), the products of m gradients.")
        m = len(C)
        diagonal = np.diag(C)
        if np.isnan(diagonal).all() or not np.isfinite(diagonal).any():
            raise NotFinite(
                "No objective has a finite gradient. Lower the learning rate, or look at the losses."
            )
        usable = np.isfinite(diagonal) & (diagonal > 0)
        if losses is not None:
            losses = as_real("losses", losses)
            if losses.shape != (m,):
                raise InvalidProblem(
                    f"losses have shape {losses.shape}; expected ({m},), one for each gradient."
                )
            usable &= np.isfinite(losses)
        dropped = tuple(int(i) for i in np.flatnonzero(~usable))
        kept = np.flatnonzero(usable)
        if not len(kept):
            return Combination(np.zeros(m), "", dropped)
        inner = C[np.ix_(kept, kept)]
        if not np.isfinite(inner).all() or np.abs(inner - inner.T).max() > 1e-5 * inner.diagonal().max():
            raise InvalidProblem("C is not symmetric; expected C = G G'.")
        if self.guided and c is None:
            raise InvalidProblem(
                f"{type(self).__name__} needs c = G g, with g the gradient of the loss that guides."
            )
        along = None
        if c is not None:
            c = as_real("c", c)
            if c.shape != (m,):
                raise InvalidProblem(f"c has shape {c.shape}; expected ({m},), a product for each gradient.")
            along = check_vector("c", np.where(usable, c, 0.0), m)[kept]
        values = None if losses is None else losses[kept]
        require(0 <= reached <= 1, f"{type(self).__name__} needs 0 <= reached <= 1", got=reached)
        found, mode = self._combined((inner + inner.T) / 2, along, values, reached, kept)
        weights = np.zeros(m)
        weights[kept] = found
        return Combination(weights, mode, dropped)

    @abstractmethod
    def _combined(
        self, C: Vector, c: Vector | None, losses: Vector | None, reached: float, kept: NDArray[np.int64]
    ) -> tuple[Vector, Mode]:
        """Weights of the objectives ``kept``, all with a gradient that is finite and not zero."""


@dataclass(frozen=True)
class FixedWeights(GradientCombiner):
    """Fixed weights: the gradient of a weighted sum of the losses.

    Use it where good weights are known. One backward pass does.

    Args:
        fixed: a weight for each objective, >= 0.

    >>> FixedWeights((1.0, 0.3)).weights(np.eye(2))
    array([1. , 0.3])
    """

    fixed: tuple[float, ...]

    def __post_init__(self) -> None:
        weights = as_real("FixedWeights", self.fixed)
        good = (
            weights.ndim == 1 and len(weights) > 0 and bool(np.isfinite(weights).all()) and weights.min() >= 0
        )
        require(good, "FixedWeights needs one finite weight >= 0 for each objective", got=self.fixed)
        object.__setattr__(self, "fixed", tuple(float(w) for w in weights))

    def _combined(
        self, C: Vector, c: Vector | None, losses: Vector | None, reached: float, kept: NDArray[np.int64]
    ) -> tuple[Vector, Mode]:
        if kept[-1] >= len(self.fixed):
            raise InvalidProblem(
                f"FixedWeights has {len(self.fixed)} weights; objective {kept[-1]} has none."
            )
        return np.array(self.fixed)[kept], ""


@dataclass(frozen=True)
class PreferenceLP(GradientCombiner):
    """Weights on the simplex from a linear programme that follows a guide and lets no objective rise needlessly.

    Use it where a loss that is not trained on, such as one of held-out data, says how objectives are to be traded.
    Until ``reached`` is ``1 - tau`` it *balances*: it goes along the guide, and objectives that speak for it may rise.
    From there on it *descends*: as steep as it can without a rise of any objective, nor of the guide; where that
    cannot be, the guide's row is left out ("descent, guide dropped"): the point of least norm fulfils the others.

    Args:
        tau: the guide is met at ``1 - tau`` of its best value, 0 <= tau <= 1. Default 0.1; 1 never balances.

    Of several optima it takes the mean. Exact up to rounding: all vertices are looked at, up to six objectives.

    Cost: 21 vertices for three objectives, microseconds. Source: Lv et al. (2021).

    >>> C = np.array([[1.0, -0.5], [-0.5, 1.0]])
    >>> PreferenceLP().weights(C, c=[1.0, -0.2])
    array([0.8, 0.2])
    >>> PreferenceLP().combine(C, c=[1.0, -0.2], reached=0.95).mode
    'descent'
    """

    guided: ClassVar[bool] = True
    tau: float = 0.1

    def __post_init__(self) -> None:
        require(is_real(self.tau) and 0 <= self.tau <= 1, "PreferenceLP needs 0 <= tau <= 1", got=self.tau)

    def _combined(
        self, C: Vector, c: Vector | None, losses: Vector | None, reached: float, kept: NDArray[np.int64]
    ) -> tuple[Vector, Mode]:
        c = np.zeros(len(C)) if c is None else c
        if reached < 1 - self.tau:
            return balancing(C, c), "balance"
        return descending(C, c)


@dataclass(frozen=True)
class EPO(GradientCombiner):
    """Exact Pareto optimal search: come to the point of the front where ``r_i * loss_i`` are all alike.

    Use it where the trade is known as a ray: r = (2, 1) asks for a first loss half the second. It needs losses that
    are positive. While the losses are off the ray it balances, on the ray it descends.

    Args:
        ray: r, a positive number for each objective.
        tol: the ray is met where the non-uniformity ``KL(r * loss / sum || 1/m)`` is at most this. Default 1e-3.

    Source: Mahapatra and Rajan (2020), algorithm 1.

    >>> EPO((1.0, 1.0)).weights(np.eye(2), losses=[2.0, 1.0])
    array([1., 0.])
    """

    ray: tuple[float, ...]
    tol: float = 1e-3

    def __post_init__(self) -> None:
        ray = as_real("EPO's ray", self.ray)
        good = ray.ndim == 1 and len(ray) > 0 and bool(np.isfinite(ray).all()) and ray.min() > 0
        require(good, "EPO needs a ray of finite numbers > 0", got=self.ray)
        require_positive(self, "tol")
        object.__setattr__(self, "ray", tuple(float(r) for r in ray))

    def _combined(
        self, C: Vector, c: Vector | None, losses: Vector | None, reached: float, kept: NDArray[np.int64]
    ) -> tuple[Vector, Mode]:
        if losses is None or losses.min() <= 0:
            raise InvalidProblem(f"EPO needs losses > 0; got {losses}.")
        if kept[-1] >= len(self.ray):
            raise InvalidProblem(f"EPO has a ray of {len(self.ray)} numbers; objective {kept[-1]} has none.")
        r = np.array(self.ray)[kept]
        share, mu = non_uniformity(losses, r)
        if mu > self.tol:
            return balancing(C, C @ (r * (np.log(share * len(r)) - mu))), "balance"
        return descending(C, None)


def non_uniformity(losses: Vector, ray: Vector) -> tuple[Vector, float]:
    """Shares of ``ray * losses``, and their Kullback-Leibler divergence from equal ones.

    >>> non_uniformity(np.array([1.0, 2.0]), np.array([2.0, 1.0]))[1]
    0.0
    """
    share = ray * losses / (ray * losses).sum()
    return share, max(float((share * np.log(share * len(share))).sum()), 0.0)


def balancing(C: Vector, c: Vector) -> Vector:
    """Maximise ``c' a``; where c_j <= 0, (C a)_j >= c_j; of the largest c_j, >= 0; if no c_j > 0, all >= 0.

    >>> balancing(np.eye(2), np.array([1.0, -1.0]))
    array([1., 0.])
    """
    ascent = c > 0
    if not ascent.any():
        rows, bounds = C, np.zeros(len(c))
    else:
        bounds = np.where(ascent, 0.0, c)
        needed = ~ascent
        needed[int(np.argmax(c))] = True
        rows, bounds = C[needed], bounds[needed]
    found = programme(c, rows, bounds)
    return _least_norm(C) if found is None else found


def descending(C: Vector, c: Vector | None) -> tuple[Vector, Mode]:
    """Maximise ``sum (C a)_j`` with ``C a >= 0`` and ``c' a >= min(max c, 0)``; the last is dropped if it must be.

    >>> descending(np.eye(2), None)[0]
    array([0.5, 0.5])
    """
    total = C.sum(0)
    zero = np.zeros(len(C))
    if c is not None:
        found = programme(total, np.vstack([C, c]), np.append(zero, min(float(c.max()), 0.0)))
        if found is not None:
            return found, "descent"
    found = programme(total, C, zero)
    return _least_norm(C) if found is None else found, "descent" if c is None else "descent, guide dropped"


def programme(objective: Vector, rows: Vector, bounds: Vector) -> Vector | None:
    """Maximise ``objective @ a`` over the simplex with ``rows @ a >= bounds``; None where nothing is feasible.

    Rows are scaled to one first, so that the sizes of gradients do not count.

    >>> programme(np.array([1.0, 0.0]), np.array([[-1.0, 1.0]]), np.zeros(1))
    array([0.5, 0.5])
    """
    m = len(objective)
    sizes = np.abs(rows).max(1)
    live = sizes > 0
    if (bounds[~live] > 0).any():
        return None
    rows, bounds = rows[live] / sizes[live, None], bounds[live] / sizes[live]
    objective = objective / (np.abs(objective).max() or 1.0)
    if m > LISTED:
        return _by_highs(objective, rows, bounds)
    everything = np.vstack([np.eye(m), rows])
    limits = np.concatenate([np.zeros(m), bounds])
    feasible, found = best_vertex(objective, everything, limits, _subsets(len(limits), m - 1))
    return found if feasible else None


def _by_highs(objective: Vector, rows: Vector, bounds: Vector) -> Vector | None:
    ones = np.ones((1, len(objective)))
    found = scipy.optimize.linprog(
        -objective, A_ub=-rows, b_ub=-bounds, A_eq=ones, b_eq=[1.0], method="highs"
    )
    if found.x is None:
        return None
    a: Vector = np.maximum(np.asarray(found.x), 0.0)
    return a / a.sum()


@functools.cache
def _subsets(n: int, size: int) -> NDArray[np.int64]:
    listed: Sequence[tuple[int, ...]] = list(itertools.combinations(range(n), size))
    return np.array(listed, dtype=np.int64).reshape(len(listed), size)


def root(C: Vector) -> Vector:
    """R with ``R' R = C``, shape (m, m), for a C that rounding may have left slightly indefinite.

    >>> bool(np.allclose(root(np.diag([4.0, 9.0])).T @ root(np.diag([4.0, 9.0])), np.diag([4.0, 9.0])))
    True
    """
    values, vectors = np.linalg.eigh(C)
    found: Vector = np.sqrt(np.maximum(values, 0.0))[:, None] * vectors.T
    return found


def _least_norm(C: Vector) -> Vector:
    """The point of the simplex with the least ``a' C a``.

    Over ``x = t a`` the least of ``x' C x + (sum x - 1)^2`` is ``a' C a / (1 + a' C a)``, which rises with a' C a: the
    problem is one of least squares with x >= 0.
    """
    m = len(C)
    scaled = C / np.trace(C) * m
    x, _ = scipy.optimize.nnls(np.vstack([root(scaled), np.ones(m)]), np.append(np.zeros(m), 1.0))
    return np.asarray(x / x.sum())
