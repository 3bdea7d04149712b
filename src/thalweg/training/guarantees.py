"""What theory guarantees of the last iterate of SGD under a learning-rate schedule, from its gradient norms.

Defazio, Cutkosky, Mehta and Mishchenko (2023), "When, why and how much? Adaptive learning rate scheduling by
refinement", arXiv 2310.07831.
"""

from __future__ import annotations

import math
import warnings
from collections.abc import Callable

import numpy as np
from numba import njit
from numpy.typing import ArrayLike, NDArray
from scipy.optimize import minimize_scalar

from thalweg.core import InvalidProblem, NotFinite
from thalweg.core.validation import as_real, is_real, require

Vector = NDArray[np.float64]
#: Weights further apart than this, in their natural logarithm, are not multiplied with one another.
SPREAD = 300.0


class NormsLeftOut(UserWarning):
    """Some recorded norms are zero or not finite, and were filled in from their neighbours."""


def from_weights(weights: ArrayLike) -> Vector:
    """``w_t sum_{s > t} w_s``, its highest value one: the schedule that turns weights of a regret bound into a
    guarantee for the last iterate (theorem 1). Shape (steps,).
    """
    w = np.asarray(weights, dtype=np.float64)
    tail = np.cumsum(w[::-1])[::-1]
    rates = w * np.append(tail[1:], 0.0)
    return np.asarray(rates / rates.max())


def from_powers(norms: Vector, power: float) -> Vector:
    """`from_weights` of ``norms ** -power``, in logarithms where these would leave the range of numbers."""
    logs = -power * np.log(norms)
    if np.ptp(logs) < SPREAD:
        return from_weights((norms / np.median(norms)) ** -power)
    tails = np.logaddexp.accumulate(logs[::-1])[::-1]
    rates = logs + np.append(tails[1:], -np.inf)
    return np.asarray(np.exp(rates - rates.max()))


def bound(schedule: ArrayLike, norms: ArrayLike, distance: float = 1.0, *, tuned: bool = True) -> float:
    """What is guaranteed of the last iterate's loss above the best, for SGD with this schedule and these l2 norms.

    Args:
        schedule: rates, shape (steps,). The last one does not move the last iterate; the best value is used in it.
        norms: shape (steps,), positive.
        distance: from the start to a minimiser.
        tuned: at the best multiple of the schedule, which compares shapes; False takes the rates as they are.

    Raises:
        InvalidProblem: shapes that do not fit, rates that are negative or all zero.

    Cost: some tens of passes over the steps.

    Source: theorem 10, the last sum in parts: ``D^2/(2 S_1) + 1/2 (sum_{t<T} a_t/S_{t+1} + a_T/S_T)`` with
    ``S_t`` the sum of the rates from t on and ``a_t = eta_t^2 G_t^2``.

    >>> constant, linear = np.ones(100), np.linspace(1, 0, 100)
    >>> bound(linear, np.ones(100)) < bound(constant, np.ones(100))
    True
    """
    check = is_real(distance) and 0 < distance < math.inf
    require(check, "bound needs a finite distance > 0", got=distance)
    rates, squares, rate, norm = _rates_and_squares(schedule, norms)
    if tuned:
        far, noise = terms(with_best_last(rates, squares), squares)
        return 2.0 * distance * norm * math.sqrt(far * noise)
    return distance * norm * _at_best_last(rates, squares, rate * (norm / distance))


def conversion_bound(schedule: ArrayLike, norms: ArrayLike, distance: float = 1.0) -> float:
    """What theorem 1 guarantees of the last iterate, at the schedule's best multiple: ``D |w G|_2 / |w|_1``.

    The weights w are those that `from_weights` makes the schedule of; one of them, the last, is free, and the best is
    used. Of all schedules the one that `refine` finds without smoothing has the least: ``D / sqrt(sum G^-2)``. For
    linear decay and constant norms it is half of `bound`, which holds for reasons that do not need the weights.

    Args, errors and cost as for `bound`.

    >>> round(conversion_bound(np.linspace(1, 0, 100), np.ones(100)), 6)  # 1/sqrt(100)
    0.1
    """
    require(is_real(distance) and 0 < distance < math.inf, "A finite distance > 0 is needed", got=distance)
    rates, squares, _, norm = _rates_and_squares(schedule, norms)
    scale = math.sqrt(rates.max())

    def at(log_last: float) -> float:
        w = weights_of(rates, scale * math.exp(log_last))
        return float(np.sqrt((w**2 * squares).sum()) / w.sum())

    middle = min(np.linspace(-20.0, 10.0, 61), key=at)  # there can be several valleys
    found = minimize_scalar(
        at, bounds=(middle - 0.5, middle + 0.5), method="bounded", options={"xatol": 1e-9}
    )
    return distance * norm * float(found.fun)


@njit(cache=True)
def weights_of(rates: Vector, last: float) -> Vector:
    """Weights whose schedule is proportional to ``rates``, the last of them given: inverse of `from_weights`."""
    weights, tail = np.empty_like(rates), last
    weights[-1] = last
    for t in range(len(rates) - 2, -1, -1):
        weights[t] = rates[t] / tail
        tail += weights[t]
    return weights


def checked_norms(norms: ArrayLike) -> Vector:
    """The norms as a vector of at least two positive numbers, or a refusal."""
    G = as_real("Gradient norms", norms).copy()
    if G.ndim != 1 or len(G) < 2:
        raise InvalidProblem(f"Gradient norms have shape {G.shape}; expected (steps,), at least 2 steps.")
    good = np.isfinite(G) & (G > 0)
    if good.all():
        return G
    if not good.any():
        raise NotFinite(
            "No gradient norm is positive and finite: there is nothing to refine a schedule from."
        )
    warnings.warn(
        f"{int((~good).sum())} of {len(G)} gradient norms are zero, negative or not finite (the first is number "
        f"{int(np.flatnonzero(~good)[0])}, counted from 0); they are filled in from their neighbours.",
        NormsLeftOut,
        stacklevel=3,
    )
    steps = np.arange(len(G))
    G[~good] = np.interp(steps[~good], steps[good], G[good])
    return G


def _rates_and_squares(schedule: ArrayLike, norms: ArrayLike) -> tuple[Vector, Vector, float, float]:
    """Rates and squared norms up to the last step that moves the last iterate, and one more, both with highest value
    one; the highest rate and norm.
    """
    rates, G = as_real("A schedule", schedule), checked_norms(norms)
    if rates.shape != G.shape:
        raise InvalidProblem(f"{rates.shape} rates for {G.shape} gradient norms; expected as many.")
    if not (np.isfinite(rates).all() and (rates >= 0).all() and rates[:-1].max() > 0):
        raise InvalidProblem("A schedule's rates have to be finite, not negative, and not all zero.")
    last = int(np.flatnonzero(rates[:-1])[-1]) + 2
    rates, G = rates[:last], G[:last]
    rate, norm = float(rates[:-1].max()), float(G.max())
    return np.minimum(rates / rate, 1.0), (G / norm) ** 2, rate, norm


def with_best_last(rates: Vector, squares: Vector) -> Vector:
    """The rates with the last one, which moves nothing, such that the tuned bound is least."""
    return _searched_last(rates, lambda whole: math.prod(terms(whole, squares)))


def _at_best_last(rates: Vector, squares: Vector, size: float) -> float:
    def value(whole: Vector) -> float:
        far, noise = terms(whole, squares)
        return far / size + noise * size

    return value(_searched_last(rates, value))


def _searched_last(rates: Vector, value: Callable[[Vector], float]) -> Vector:
    def whole(log_last: float) -> Vector:
        return np.append(rates[:-1], math.exp(log_last))

    middle = math.log(rates[:-1].mean())
    bounds = (middle - 30.0, middle + 15.0)
    return whole(float(minimize_scalar(lambda x: value(whole(x)), bounds=bounds, method="bounded").x))


def terms(rates: Vector, squares: Vector) -> tuple[float, float]:
    """The bound's two terms at distance one: what falls and what grows with the rates."""
    tails = np.cumsum(rates[::-1])[::-1]
    a = rates**2 * squares
    return 0.5 / float(tails[0]), 0.5 * float((a[:-1] / tails[1:]).sum() + a[-1] / tails[-1])


def bound_and_gradient(rates: Vector, squares: Vector) -> tuple[float, Vector]:
    """The bound at distance one, and its gradient in the rates; ``squares`` are the squared norms. O(steps)."""
    tails = np.cumsum(rates[::-1])[::-1]
    below = np.append(tails[1:], tails[-1])
    a = rates**2 * squares
    value = 0.5 / tails[0] + 0.5 * (a / below).sum()
    # d/d tails_s, then every rate is in the tails up to its own
    slope = np.zeros_like(rates)
    slope[1:] = -0.5 * a[:-1] / tails[1:] ** 2
    slope[-1] -= 0.5 * a[-1] / tails[-1] ** 2
    slope[0] -= 0.5 / tails[0] ** 2
    return float(value), rates * squares / below + np.cumsum(slope)
