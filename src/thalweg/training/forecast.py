"""What a loss will be later, from its course so far: a robust exponential fit.

Jin, Zhou, Zhao, Zhu, Guo, Canini and Krishnamurthy (2021), "AutoLRS: automatic learning-rate schedule by Bayesian
optimization on the fly", arXiv 2105.10762, section 4.2.
"""

from __future__ import annotations

import math
import warnings
from dataclasses import dataclass

import numpy as np
from numpy.typing import ArrayLike, NDArray
from scipy.interpolate import UnivariateSpline
from scipy.optimize import minimize_scalar

from thalweg.core import InvalidProblem
from thalweg.core.validation import check_finite, require

Vector = NDArray[np.float64]
#: Residuals of a normal distribution have this many median absolute deviations in a standard deviation.
MAD = 1.4826
#: Tukey's biweight: residuals of more standard deviations than this have no say; rounds of reweighting.
TUKEY, REWEIGHTINGS = 4.685, 12
#: Share of the points that judges a start of the search.
TRUSTED = 0.9
#: Decay rates looked at, from one over this many series' lengths to one over a step.
HORIZONS, GRID = 20.0, 120
#: How far a refinement looks around a rate, in its logarithm: three points of the grid.
REACH = 0.2


@dataclass(frozen=True)
class ExponentialFit:
    """``L(t) = a exp(b t) + c``, b < 0.

    Args:
        a, b, c: of the formula.
        is_identified: False where c lies at the floor, or b at the slow end of what is looked at: the series does not
            tell where it ends, and a forecast many times its length ahead is a guess.
    """

    a: float
    b: float
    c: float
    is_identified: bool = True

    def __call__(self, t: ArrayLike) -> Vector:
        """The fitted loss at each time."""
        return np.asarray(self.a * np.exp(self.b * np.asarray(t, dtype=np.float64)) + self.c)


@dataclass(frozen=True)
class LossForecaster:
    """Fit ``a exp(b t) + c`` to a series of losses, spikes left out.

    The worst points beside a smoothing spline of degree two are dropped, in the first half of the series only, over
    several rounds; what is left is fitted by least squares in a and c for each b, the best b found by a search on a
    line, with the weights of Tukey's biweight against outliers in the second half. The fit is to the points and not
    to the spline, which an exact exponential would not survive.

    Args:
        drop: share of the points that a round drops.
        rounds: 10 for training losses; the paper has 1 for the fewer and smoother validation losses.
        floor: no forecast lies below it: c is at least this. The default is 0 for losses that are never negative, and
            none for others. Without it a short series of a falling loss is soon forecast to be negative.

    Cost: milliseconds for a thousand losses.

    >>> t = np.arange(100.0)
    >>> fit = LossForecaster().fit(2.0 * np.exp(-t / 40) + 0.5)
    >>> round(float(fit(1000.0)), 6)
    0.5
    """

    drop: float = 0.03
    rounds: int = 10
    floor: float | None = None

    def __post_init__(self) -> None:
        require(0 <= self.drop < 0.5, "LossForecaster needs drop in [0, 0.5)", got=self.drop)
        require(self.rounds >= 0, "LossForecaster needs rounds >= 0", got=self.rounds)

    def fit(self, losses: ArrayLike, times: ArrayLike | None = None) -> ExponentialFit:
        """The fit to losses, shape (n,), at rising times, 0, 1, ... by default.

        Raises:
            InvalidProblem: fewer than four losses, times that do not rise.
            NotFinite: NaN or infinity among them.
        """
        y = np.asarray(losses, dtype=np.float64)
        t = np.arange(len(y), dtype=np.float64) if times is None else np.asarray(times, dtype=np.float64)
        if y.ndim != 1 or y.shape != t.shape or len(y) < 4 or not (np.diff(t) > 0).all():
            raise InvalidProblem(
                f"A forecast needs at least four losses at rising times; got shapes {y.shape}, {t.shape}."
            )
        check_finite("losses", y)
        keep = self._kept(t, y)
        floor = self.floor if self.floor is not None else (0.0 if (y >= 0).all() else -np.inf)
        return _fit(t[keep], y[keep], floor)

    def _kept(self, t: Vector, y: Vector) -> NDArray[np.bool_]:
        keep = np.ones(len(y), dtype=bool)
        middle = t[(len(t) - 1) // 2]
        for _ in range(self.rounds):
            count = round(self.drop * keep.sum()) if self.rounds > 1 else 1
            index = np.flatnonzero(keep)
            if count == 0 or len(index) - count < 8:
                break
            residual = np.abs(y[index] - _spline(t[index], y[index]))
            worst = index[np.argsort(residual)[-count:]]
            # Points no further off than rounding are none to drop.
            spread = 1e-12 * max(1.0, float(np.abs(y).max()))
            worst = worst[(t[worst] < middle) & (np.abs(residual).max() > spread)]
            keep[worst] = False
        return keep


def _spline(t: Vector, y: Vector) -> Vector:
    """A smoothing spline of degree two whose residuals are as large as the noise between neighbours."""
    noise = MAD * float(np.median(np.abs(np.diff(y, 2)))) / np.sqrt(6.0)
    noise = max(noise, 1e-6 * float(np.ptp(y)), 1e-300)
    with warnings.catch_warnings():
        warnings.simplefilter(
            "ignore"
        )  # FITPACK reaches the smoothness only nearly: that is good enough here
        return np.asarray(UnivariateSpline(t, y, k=2, s=len(y) * noise**2)(t))


def _fit(t: Vector, y: Vector, floor: float) -> ExponentialFit:
    start, length = t[0], t[-1] - t[0]
    shape = (t - start) / length  # in [0, 1], for the sake of the numbers
    rates = np.geomspace(1.0 / HORIZONS, max(length, 2.0 / HORIZONS), GRID)
    rate, a, c = _least_absolute(rates, shape, y, floor)
    for _ in range(REWEIGHTINGS):
        size = np.abs(y - a * np.exp(-rate * shape) - c)
        spread = MAD * float(np.median(size))
        if spread <= 1e-13 * max(1.0, float(np.abs(y).max())):
            break
        weights = np.square(np.clip(1.0 - np.square(size / (TUKEY * spread)), 0.0, None))
        rate, a, c = _weighted_fit(rate, shape, y, weights, floor)
    b = -rate / length
    slow = rate <= rates[1] * math.exp(REACH)
    return ExponentialFit(float(a * np.exp(-b * start)), b, c, is_identified=not (slow or c <= floor))


def _least_absolute(rates: Vector, shape: Vector, y: Vector, floor: float) -> tuple[float, float, float]:
    """The fit of least absolute residuals for each rate of the grid, of the rate with the least sum of its smaller
    ones: outliers do not lead it astray, not even the first point.
    """
    basis = np.exp(-np.outer(rates, shape))
    weights = np.ones_like(basis)
    for _ in range(REWEIGHTINGS):
        a, c = _amplitudes(basis, y, weights, floor)
        size = np.abs(y - a[:, None] * basis - c[:, None])
        weights = 1.0 / np.maximum(size, 1e-2 * size.mean(1, keepdims=True) + 1e-300)
    inner = np.sort(size, axis=1)[:, : math.ceil(TRUSTED * len(y))]
    best = int(inner.sum(1).argmin())
    return float(rates[best]), float(a[best]), float(c[best])


def _weighted_fit(
    rate: float, shape: Vector, y: Vector, weights: Vector, floor: float
) -> tuple[float, float, float]:
    """Rate, a and c of the least weighted squares, the rate searched for around ``rate``."""

    def fit(log_rate: float) -> tuple[float, Vector, Vector]:
        basis = np.exp(-np.exp(log_rate) * shape)[None]
        a, c = _amplitudes(basis, y, weights[None], floor)
        return float(np.square(y - a[0] * basis[0] - c[0]) @ weights), a, c

    middle = np.log(rate)
    bounds = (float(middle) - REACH, float(middle) + REACH)
    found = minimize_scalar(lambda u: fit(u)[0], bounds=bounds, method="bounded", options={"xatol": 1e-9}).x
    _, a, c = fit(float(found))
    return float(np.exp(found)), float(a[0]), float(c[0])


def _amplitudes(basis: Vector, y: Vector, weights: Vector, floor: float) -> tuple[Vector, Vector]:
    """The best a and c >= floor for each row of the basis, by weighted least squares; weights of its shape."""
    total = weights.sum(1)
    mean, target = (basis * weights).sum(1) / total, weights @ y / total
    centred = basis - mean[:, None]
    a = (centred * weights * (y - target[:, None])).sum(1) / np.maximum(
        (np.square(centred) * weights).sum(1), 1e-300
    )
    c = target - a * mean
    low = c < floor
    if low.any():
        alone = (basis * weights * (y - floor)).sum(1) / np.maximum(
            (np.square(basis) * weights).sum(1), 1e-300
        )
        a, c = np.where(low, alone, a), np.where(low, floor, c)
    return a, c
