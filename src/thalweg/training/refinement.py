"""Learning-rate schedules from the gradient norms of an earlier run, and the guarantee of any schedule.

Defazio, Cutkosky, Mehta and Mishchenko (2023), "When, why and how much? Adaptive learning rate scheduling by
refinement", arXiv 2310.07831.
"""

from __future__ import annotations

import math
import warnings
from typing import Any, Literal

import numpy as np
from numpy.typing import ArrayLike, NDArray
from scipy.ndimage import median_filter
from scipy.optimize import minimize

from thalweg.core import InvalidProblem
from thalweg.core.figure import Figure, Series
from thalweg.core.validation import as_real, is_real, require
from thalweg.training.guarantees import (
    SPREAD,
    bound_and_gradient,
    checked_norms,
    from_powers,
    from_weights,
    terms,
    with_best_last,
)
from thalweg.training.profiles import Refined, WarmupPolynomial

Vector = NDArray[np.float64]
Geometry = Literal["l2", "l1"]
#: Norms that have grown by more than this over a run are warned of.
RISE = 2.0
#: Most points that the numerical method has variables for; longer sequences are averaged down to as many.
POINTS = 2000


class NormsRise(UserWarning):
    """The recorded norms grow: a schedule refined from them falls earlier than training can bear."""


def refine(
    norms: ArrayLike,
    geometry: Geometry = "l2",
    *,
    smoothing: float = 0.1,
    method: Literal["closed-form", "numerical"] = "closed-form",
) -> Refined:
    """The schedule with the best guarantee for a run whose gradients have these norms.

    Args:
        norms: shape (steps,), of an earlier run: `GradientNormRecorder`.
        geometry: ``"l2"`` for SGD, from l2 norms, weights ``G^-2``; ``"l1"`` for Adam and other methods that
            scale each coordinate, from l1 norms, weights ``G^-1``.
        smoothing: width of the median filter, as a share of the run; 0 for none.
        method: ``"closed-form"``, eq. 9 of the paper; ``"numerical"`` minimises `bound` by L-BFGS-B: slower, and
            for l2 only.

    Raises:
        InvalidProblem: fewer than two norms.
        NotFinite: no norm is positive and finite.

    Warns:
        NormsLeftOut: some are zero, negative or not finite.
        NormsRise: in 20 steps or more, the last tenth is more than twice the first.

    Cost: a second for ten million steps in closed form; the numerical method takes seconds.

    >>> refine([1.0, 1.0, 1.0, 1.0, 1.0], smoothing=0).values
    array([1.  , 0.75, 0.5 , 0.25, 0.  ])
    """
    require(geometry in ("l1", "l2"), "refine needs geometry 'l1' or 'l2'", got=geometry)
    require(is_real(smoothing) and 0 <= smoothing <= 1, "refine needs smoothing in [0, 1]", got=smoothing)
    require(method in ("closed-form", "numerical"), "refine knows 'closed-form' and 'numerical'", got=method)
    G = smoothed(norms, smoothing)
    _tell_of_a_rise(G)
    if method == "numerical":
        require(geometry == "l2", "The numerical method is for geometry 'l2'", got=geometry)
        if 2.0 * np.ptp(np.log(G)) > SPREAD:
            raise InvalidProblem(
                f"The norms, {G.min():.3g} to {G.max():.3g}, are too far apart for the numerical method. Use "
                "'closed-form', or leave the outliers out."
            )
        return Refined(_numerical(G / np.median(G)))  # the shape does not depend on their unit
    return Refined(from_powers(G, 2.0 if geometry == "l2" else 1.0))


def _tell_of_a_rise(G: Vector) -> None:
    tenth = len(G) // 10
    if tenth < 2:
        return
    first, last = float(np.median(G[:tenth])), float(np.median(G[-tenth:]))
    if last > RISE * first:
        warnings.warn(
            f"The gradient norms rise, from {first:.3g} in the first tenth of the run to {last:.3g} in the last: the "
            "refined schedule falls early. Linear decay is safer.",
            NormsRise,
            stacklevel=3,
        )


def smoothed(norms: ArrayLike, smoothing: float) -> Vector:
    """The norms, gaps filled in, after a median filter as wide as this share of them; its edges are held."""
    G = checked_norms(norms)
    width = 2 * (round(smoothing * len(G)) // 2) + 1
    return G if width < 3 else np.asarray(median_filter(G, size=width, mode="nearest"))


def fit_warmup_poly(schedule: Refined | ArrayLike) -> WarmupPolynomial:
    """The warm-up share and the power that come closest to a schedule, in the mean square.

    >>> fit_warmup_poly(WarmupPolynomial(0.2, 1.5)(np.linspace(0, 1, 501)))
    WarmupPolynomial(warmup=0.2, power=1.5)
    """
    values = schedule.values if isinstance(schedule, Refined) else as_real("A schedule", schedule)
    if values.ndim != 1 or len(values) < 2 or not np.isfinite(values).all() or values.max() <= 0:
        raise InvalidProblem("fit_warmup_poly needs at least two finite rates, not all zero.")
    z = np.linspace(0.0, 1.0, min(len(values), POINTS))
    target = np.interp(z, np.linspace(0.0, 1.0, len(values)), values) / values.max()

    def error(at: Vector) -> float:
        shape = WarmupPolynomial(min(max(float(at[0]), 0.0), 0.99), float(np.exp(np.clip(at[1], -4, 4))))
        return float(np.square(shape(z) - target).mean())

    starts = [(w, p) for w in np.linspace(0.0, 0.9, 19) for p in np.linspace(-1.5, 2.0, 15)]
    best = min(starts, key=lambda start: error(np.array(start)))
    options: dict[str, Any] = {
        "xatol": 1e-7,
        "fatol": 1e-14,
        "initial_simplex": np.array(best) + np.array([[0.0, 0.0], [0.03, 0.0], [0.0, 0.1]]),
    }
    found = minimize(error, np.array(best), method="Nelder-Mead", options=options).x  # type: ignore[call-overload]
    return WarmupPolynomial(round(min(max(float(found[0]), 0.0), 0.99), 4), round(float(np.exp(found[1])), 4))


def figures(norms: ArrayLike, refined: Refined, smoothing: float = 0.1) -> list[Figure]:
    """The norms with their smoothed course, and the schedule with the fit of `fit_warmup_poly` and linear decay."""
    raw, smooth = checked_norms(norms), smoothed(norms, smoothing)
    steps = np.arange(len(raw))
    z = np.linspace(0.0, 1.0, 400)
    fit = fit_warmup_poly(refined)
    curves = [
        Series.of("refined", z, refined(z)),
        Series.of(f"warm-up {fit.warmup:.0%}, power {fit.power:.2f}", z, fit(z)),
        Series.of("linear decay", z, 1.0 - z),
    ]
    courses = [Series.of("recorded", steps, raw, points=2000), Series.of("smoothed", steps, smooth)]
    return [
        Figure(
            "Gradient norms", "As recorded, and after the median filter.", "step", "norm", courses, log_y=True
        ),
        Figure(
            "The schedule",
            "Multiple of the highest rate over the share of the steps.",
            "share of the steps",
            "multiple of the highest rate",
            curves,
        ),
    ]


def _numerical(G: Vector) -> Vector:
    """Minimise the bound over the logarithms of the rates, from the closed form's; shape and highest value as it."""
    n = min(len(G), POINTS)
    edges = np.linspace(0, len(G), n + 1).astype(int)
    squares = np.add.reduceat(G**2, edges[:-1]) / np.diff(edges)
    start = with_best_last(from_weights(1.0 / squares), squares)
    far, noise = terms(start, squares)
    start = start * math.sqrt(far / noise)

    def energy(log_rates: Vector) -> tuple[float, Vector]:
        rates = np.exp(log_rates)
        value, gradient = bound_and_gradient(rates, squares)
        return value * np.sqrt(n), gradient * rates * np.sqrt(n)

    options: dict[str, Any] = {"maxiter": 2000, "maxfun": 4000, "maxcor": 30, "ftol": 1e-14, "gtol": 1e-9}
    x0 = np.log(start)
    box = [(x0.min() - 5.0, x0.max() + 5.0)] * n  # a step too far would overflow
    found = minimize(  # type: ignore[call-overload]
        energy, x0, jac=True, method="L-BFGS-B", bounds=box, options=options
    )
    rates = np.exp(found.x)
    rates[-1] = 0.0  # it does not move the last iterate
    values = np.interp(np.linspace(0.0, 1.0, len(G)), np.linspace(0.0, 1.0, n), rates)
    return np.asarray(values / values.max())
