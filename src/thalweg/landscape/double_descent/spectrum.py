"""The last layer's least squares by singular vectors: every step count and step size of gradient descent at once.

Liu and Flanigan (2023), "Understanding the role of optimization in double descent" (arXiv 2312.03951), study models
whose last layer alone is trained; the filter is classical (Engl, Hanke and Neubauer, 1996, chapter 6).
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from functools import cached_property

import numpy as np
from numpy.typing import ArrayLike, NDArray

from thalweg.core import InvalidParameter, InvalidProblem
from thalweg.core.validation import as_real, check_finite, is_real, require

Array = NDArray[np.float64]

#: Largest singular values between which squares are numbers.
SMALLEST, LARGEST = 1e-140, 1e140

#: Most steps that `Spectrum.steps_to` looks at.
MOST_STEPS = 10**15


@dataclass(frozen=True)
class Condition:
    """How hard a least-squares problem is for a gradient method.

    Args:
        number: largest over smallest non-zero singular value.
        largest, smallest: those.
        rank: how many singular values are not zero up to rounding.
        effective_rank: exponential of the entropy of their squares (Roy and Vetterli, 2007).
        dead: columns that are zero on every row, as those of rectified units that never fire.
    """

    number: float
    largest: float
    smallest: float
    rank: int
    effective_rank: float
    dead: int


@dataclass(frozen=True, eq=False)
class Spectrum:
    """``min 1/2 |Phi w - y|^2`` from ``start``, by the singular value decomposition of Phi.

    One decomposition gives gradient descent after any number of steps with any step size, ridge regression for any
    penalty, and the exact minimiser: ``w = start + V diag(f/s) U'(y - Phi start)`` with a filter f for each.

    Args:
        features: Phi, shape (n, p).
        targets: y, shape (n,) or (n, k).
        start: w_0, shape (p,) or (p, k). Default zero. Its part outside the rows' span stays for ever.

    Raises:
        InvalidProblem, NotFinite: shapes, no column that is not zero, NaN.

    Cost: one decomposition, ``O(n p min(n, p))``; then ``O(r (m + p))`` for each filter and m rows predicted.

    >>> problem = Spectrum([[1.0, 0.0], [0.0, 0.1]], [1.0, 1.0])
    >>> problem.weights(problem.descent(steps=10, step_size=1.0)).round(3)
    array([1.   , 0.956])
    """

    features: ArrayLike
    targets: ArrayLike
    start: ArrayLike | None = None

    def __post_init__(self) -> None:
        features = as_real("features", self.features)
        if features.ndim != 2 or 0 in features.shape:
            raise InvalidProblem(f"Spectrum needs features of shape (n, p); got {features.shape}.")
        check_finite("features", features)
        targets = as_real("targets", self.targets)
        if targets.ndim not in (1, 2) or len(targets) != len(features) or targets.size == 0:
            raise InvalidProblem(
                f"Spectrum: features have {len(features)} rows; targets need shape ({len(features)},) or "
                f"({len(features)}, k), got {targets.shape}."
            )
        check_finite("targets", targets)
        columns = targets.reshape(len(targets), -1)
        p, k = features.shape[1], columns.shape[1]
        start = np.zeros((p, k)) if self.start is None else as_real("start", self.start).reshape(-1, k)
        if start.shape != (p, k):
            raise InvalidProblem(f"Spectrum: start needs shape ({p},) or ({p}, {k}); got {start.shape}.")
        check_finite("start", start)
        vars(self).update(features=features, targets=targets, start=start)

    @property
    def is_flat(self) -> bool:
        """Whether targets were given as one column, shape (n,)."""
        return np.ndim(self.targets) == 1

    @cached_property
    def _parts(self) -> tuple[Array, Array, Array, Array, Array]:
        """U (n, r), s (r,), V (p, r), ``U'(y - Phi start)`` (r, k) and what lies outside U's span, (n, k)."""
        features, targets = np.asarray(self.features), np.asarray(self.targets)
        U, s, Vt = np.linalg.svd(features, full_matrices=False)
        if s[0] > 0 and not SMALLEST <= s[0] <= LARGEST:
            raise InvalidProblem(
                f"Spectrum: the largest singular value is {s[0]:.3g}, whose square a float64 does not hold well. "
                "Divide the features by their size."
            )
        kept = s > max(features.shape) * np.finfo(np.float64).eps * s[0]
        if not kept.any():
            raise InvalidProblem("Spectrum: every feature is zero on every row.")
        U, s, V = U[:, kept], s[kept], Vt[kept].T
        residual = targets.reshape(len(targets), -1) - features @ np.asarray(self.start)
        along = U.T @ residual
        return U, s, V, along, residual - U @ along

    @property
    def singular_values(self) -> Array:
        """Those that are not zero up to rounding, descending, shape (r,)."""
        return self._parts[1]

    @property
    def step_limit(self) -> float:
        """Gradient descent diverges beyond this step size: ``2/s_1^2``."""
        return float(2.0 / self.singular_values[0] ** 2)

    @cached_property
    def condition(self) -> Condition:
        """Condition number, rank and effective rank."""
        s = self.singular_values
        share = s**2 / (s**2).sum()
        entropy = -float((share * np.log(share)).sum())
        dead = int((~np.asarray(self.features).any(0)).sum())
        return Condition(float(s[0] / s[-1]), float(s[0]), float(s[-1]), len(s), math.exp(entropy), dead)

    def descent(self, steps: ArrayLike, step_size: ArrayLike | None = None) -> Array:
        """The filters of gradient descent, ``1 - (1 - step_size s^2)^steps``.

        Args:
            steps: whole numbers >= 0, any shape.
            step_size: in (0, 2/s_1^2], of a shape that goes with that of steps. Default ``1/s_1^2``.

        Raises:
            InvalidParameter: a step size beyond the limit, which it tells; steps that are not whole.

        Returns:
            Shape (..., r).
        """
        counts = as_real("steps", steps).reshape(np.shape(steps))
        if not ((counts >= 0) & (counts <= 2.0**53) & (counts == np.floor(counts))).all():
            raise InvalidParameter(
                f"Gradient descent takes whole numbers of steps >= 0, up to 2^53; got {steps!r}."
            )
        wanted = self.step_limit / 2 if step_size is None else step_size
        sizes = as_real("step_size", wanted).reshape(np.shape(wanted))
        if not ((sizes > 0) & (sizes <= self.step_limit * (1 + 1e-12))).all():
            raise InvalidParameter(
                f"Gradient descent converges here for step sizes in (0, {self.step_limit:.6g}], 2/s_1^2; "
                f"got {step_size!r}."
            )
        x = sizes[..., None] * self.singular_values**2
        T = counts[..., None]
        with np.errstate(divide="ignore", invalid="ignore"):
            small = -np.expm1(T * np.log1p(-np.minimum(x, 1.0)))
            sign = np.where(T % 2 == 0, 1.0, -1.0)
            large = 1.0 - sign * np.exp(T * np.log(np.maximum(x - 1.0, 0.0)))
        return np.where(T == 0, 0.0, np.where(x <= 1.0, small, large))

    def ridge(self, penalty: ArrayLike) -> Array:
        """The filters of ``|Phi w - y|^2 + penalty |w - start|^2``, shape (..., r); penalties >= 0."""
        values = as_real("penalty", penalty).reshape(np.shape(penalty)).reshape(np.shape(penalty))
        require(bool((values >= 0).all()), "Ridge regression needs penalties >= 0", got=penalty)
        squares = self.singular_values**2
        return squares / (squares + values[..., None])

    def exact(self) -> Array:
        """The filter of the minimiser nearest to start: ones, shape (r,)."""
        return np.ones_like(self.singular_values)

    def weights(self, filters: Array) -> Array:
        """w for filters of shape (..., r): shape (..., p), or (..., p, k) for k targets."""
        _, s, V, along, _ = self._parts
        found = V @ ((filters / s)[..., None] * along) + np.asarray(self.start)
        return found[..., 0] if self.is_flat else found

    @property
    def along(self) -> Array:
        """``U'(y - Phi start)``, shape (r, k)."""
        return self._parts[3]

    def lifted(self, z: Array) -> Array:
        """``start + V z`` for coordinates z of shape (r, k): shape (p, k)."""
        return self._parts[2] @ z + np.asarray(self.start)

    def leave_one_out(self, filters: Array) -> Array:
        """Mean squared error of each row by a fit to the others, shape (...); exact for ridge filters from zero.

        ``(residual_i/(1 - h_i))^2`` with the leverages ``h = diag(U f U')`` (Allen, 1974); infinite where one is 1.
        """
        U, _, _, along, outside = self._parts
        residual = U @ ((1.0 - filters)[..., None] * along) + outside
        room = 1.0 - filters @ (U**2).T
        found = np.divide(
            residual, room[..., None], out=np.full_like(residual, np.inf), where=room[..., None] > 1e-10
        )
        return np.square(found).mean((-2, -1))

    def predictions(self, features: ArrayLike, filters: Array) -> Array:
        """``features @ w`` for each filter, shape (..., m) or (..., m, k), without forming w."""
        rows = as_real("features", features)
        _, s, V, along, _ = self._parts
        if rows.ndim != 2 or rows.shape[1] != len(V):
            raise InvalidProblem(f"The features to predict need {len(V)} columns; got shape {rows.shape}.")
        found = (rows @ V) @ ((filters / s)[..., None] * along) + rows @ np.asarray(self.start)
        return found[..., 0] if self.is_flat else found

    def train_error(self, filters: Array) -> Array:
        """Mean squared residual on the rows, shape (...)."""
        *_, along, outside = self._parts
        left = ((1.0 - filters)[..., None] * along) ** 2
        return np.asarray((left.sum((-2, -1)) + (outside**2).sum()) / outside.size)

    def test_error(self, features: ArrayLike, targets: ArrayLike, filters: Array) -> Array:
        """Mean squared error on other rows, shape (...)."""
        wanted = as_real("targets", targets)
        found = self.predictions(features, filters)
        if wanted.shape != found.shape[filters.ndim - 1 :]:
            raise InvalidProblem(
                f"The targets to compare with need shape {found.shape[filters.ndim - 1 :]}; got {wanted.shape}."
            )
        return np.square(found - wanted).mean(tuple(range(filters.ndim - 1, found.ndim)))

    def unlearned(self, filters: Array) -> Array:
        """The share of the residual that lies in directions less than half learned, shape (...); 0 of no residual."""
        *_, along, outside = self._parts
        left = np.square((1.0 - filters)[..., None] * along).sum(-1)
        whole = left.sum(-1) + (outside**2).sum()
        low = np.where(filters < 0.5, left, 0.0).sum(-1)
        return np.divide(low, whole, out=np.zeros_like(whole), where=whole > 0)

    def steps_to(self, loss: float, step_size: float | None = None) -> float:
        """How many steps of gradient descent bring the mean squared residual to a loss; infinite where none do.

        Args:
            step_size: at most ``1/s_1^2``, so that the loss falls with every step. That is the default.
        """
        require(is_real(loss) and loss >= 0, "steps_to needs a loss >= 0", got=loss)
        eta = self.step_limit / 2 if step_size is None else step_size
        require(
            is_real(eta) and 0 < eta <= self.step_limit / 2 * (1 + 1e-12),
            f"steps_to needs a step size in (0, {self.step_limit / 2:.6g}], 1/s_1^2",
            got=step_size,
        )

        def reached(steps: int) -> bool:
            return bool(self.train_error(self.descent(steps, eta)) <= loss)

        high = 1
        while not reached(high):
            high *= 2
            if high > MOST_STEPS:
                return math.inf
        low = high // 2  # bisection between a count that is too small and one that is not
        if reached(0):
            return 0.0
        while high - low > 1:
            middle = (low + high) // 2
            low, high = (low, middle) if reached(middle) else (middle, high)
        return float(high)
