"""What a loss will be later, from its course so far: a robust exponential fit.

Jin, Zhou, Zhao, Zhu, Guo, Canini and Krishnamurthy (2021), "AutoLRS: automatic learning-rate schedule by Bayesian
optimization on the fly", arXiv 2105.10762, section 4.2.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np
from numpy.typing import ArrayLike, NDArray
from scipy.interpolate import splev, splrep

from thalweg.core import InvalidProblem
from thalweg.core.validation import check_finite, require
from thalweg.training import _forecast_kernels

Vector = NDArray[np.float64]
#: Decay rates looked at, from one over this many series' lengths to one over a step.
HORIZONS, GRID = 20.0, 120


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
        check_finite("times", t)
        # In units near one: squares of losses of 1e200 are no numbers, and rates are looked at for steps of one.
        unit, step = math.frexp(float(np.abs(y).max()))[1], float(np.median(np.diff(t)))
        y, t = np.ldexp(y, -unit), t / step
        keep = self._kept(t, y)
        least = self.floor if self.floor is not None else (0.0 if (y >= 0).all() else -math.inf)
        found = _fit(t[keep], y[keep], float(np.ldexp(least, -unit)))
        a, c = (float(np.ldexp(value, unit)) for value in (found.a, found.c))
        return ExponentialFit(a, found.b / step, c, found.is_identified)

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
    noise = _forecast_kernels.MAD * float(np.median(np.abs(np.diff(y, 2)))) / np.sqrt(6.0)
    noise = max(noise, 1e-6 * float(np.ptp(y)), 1e-300)
    # quiet: FITPACK reaches the smoothness only nearly, which is good enough here
    knots, *_ = splrep(t, y, k=2, s=len(y) * noise**2, full_output=True, quiet=1)
    return np.asarray(splev(t, knots))


def _fit(t: Vector, y: Vector, floor: float) -> ExponentialFit:
    start, length = t[0], t[-1] - t[0]
    shape = (t - start) / length  # in [0, 1], for the sake of the numbers
    rates = np.geomspace(1.0 / HORIZONS, max(length, 2.0 / HORIZONS), GRID)
    rate, a, c = _forecast_kernels.fit(rates, shape, y, floor)
    b = -rate / length
    slow = rate <= rates[1] * math.exp(_forecast_kernels.REACH)
    return ExponentialFit(float(a * np.exp(-b * start)), b, c, is_identified=not (slow or c <= floor))
