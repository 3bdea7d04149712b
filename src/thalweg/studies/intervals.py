"""What seeds say about a number: medians, their 90 % intervals, paired ratios and differences, slopes.

**Which interval, and why.** Scores over seeds are few (five to twenty), skewed (iterations, errors) and sometimes
infinite (a run that failed). The interval is the sign test's: between two order statistics of the sample, symmetric
from its ends, chosen so that it holds the median with probability at least 90 % *whatever* the distribution. It needs
no mean, no variance and no resampling, and an infinite score simply lies at its end. A bootstrap of the median looks
finer, but it never leaves the sample's range and so cannot reach its level on few seeds; a t-interval reaches it only
for scores that are normal.

**What few seeds allow.** The whole range of n scores holds the median with probability 1 - 2^(1 - n): 50 % of 2 seeds,
75 % of 3, 87.5 % of 4, 93.75 % of 5. So five seeds are the least that give a 90 % interval (their range); eight allow
to leave the two outermost out. With fewer than five the interval is the whole line, and a verdict stays open.
"""

from __future__ import annotations

import math
from collections.abc import Sequence

import numpy as np
from numpy.typing import ArrayLike, NDArray
from scipy.stats import binom

from thalweg.core import InvalidProblem
from thalweg.core.validation import require

Scores = NDArray[np.float64]
LEVEL = 0.9


def median(values: ArrayLike) -> float:
    """The median, infinities included; NaN where a value is NaN.

    Of an even number of values the mean of the middle two, or the larger where one of them is infinite.

    >>> median([1.0, 2.0, float("inf")])
    2.0
    """
    ordered = _ordered(values)
    if np.isnan(ordered).any():
        return math.nan
    low, high = float(ordered[(len(ordered) - 1) // 2]), float(ordered[len(ordered) // 2])
    return low + 0.5 * (high - low) if math.isfinite(low) and math.isfinite(high) else high


def median_interval(values: ArrayLike, level: float = LEVEL) -> tuple[float, float]:
    """A distribution-free interval for the median of what ``values`` were drawn from, independently.

    Args:
        values: shape (seeds,), infinities allowed.
        level: the least probability with which the interval holds the median.

    Returns:
        two of the values; (-inf, inf) where so few cannot reach the level; (NaN, NaN) where one is NaN.

    Source: the sign test; David and Nagaraja (2003), "Order statistics", section 7.1.

    >>> median_interval([3.0, 1.0, 2.0, 5.0, 4.0])
    (1.0, 5.0)
    >>> median_interval([3.0, 1.0, 2.0])
    (-inf, inf)
    """
    require(0 < level < 1, "median_interval needs 0 < level < 1", got=level)
    ordered = _ordered(values)
    if np.isnan(ordered).any():
        return math.nan, math.nan
    n = len(ordered)
    # Leaving out k values at each end, the interval misses when at most k of n fair coins show heads, or tails.
    misses = 2.0 * binom.cdf(np.arange((n + 1) // 2), n, 0.5)
    left_out = int((misses <= 1.0 - level + 1e-12).sum()) - 1
    if left_out < 0:
        return -math.inf, math.inf
    return float(ordered[left_out]), float(ordered[n - 1 - left_out])


def paired_ratio(ours: ArrayLike, rival: ArrayLike, both_failed: float = math.inf) -> Scores:
    """``ours / rival``, seed by seed: infinite where ours failed, 0 where the rival did, 1 for two zeros.

    Args:
        both_failed: what stands where both are infinite; by default infinity, which counts against ours.

    Raises:
        InvalidProblem: a negative score, of which no ratio says anything.

    >>> paired_ratio([1.0, 0.0, np.inf, 3.0], [2.0, 0.0, 1.0, np.inf])
    array([0.5, 1. , inf, 0. ])
    """
    a, b = _pair(ours, rival)
    if (a < 0).any() or (b < 0).any():
        raise InvalidProblem("A ratio needs scores >= 0; compare by difference where scores may be negative.")
    with np.errstate(divide="ignore", invalid="ignore", over="ignore"):
        ratio = np.where((a == 0) & (b == 0), 1.0, a / b)
    return np.where(np.isinf(a) & np.isinf(b), both_failed, ratio)


def paired_difference(ours: ArrayLike, rival: ArrayLike, both_failed: float = math.inf) -> Scores:
    """``ours - rival``, seed by seed: infinite where ours failed, minus infinity where the rival did.

    >>> paired_difference([1.0, np.inf, 3.0], [2.0, 1.0, np.inf])
    array([ -1.,  inf, -inf])
    """
    a, b = _pair(ours, rival)
    with np.errstate(invalid="ignore"):
        difference = a - b
    return np.where(np.isinf(a) & np.isinf(b), both_failed, difference)


def worst_of(samples: Sequence[ArrayLike]) -> tuple[float, tuple[float, float]]:
    """The largest median of several samples, and an interval for the largest of their true medians.

    Each end is the largest of the samples' own. The true largest median is above the upper end with probability at most
    (1 - level)/2, however many samples there are, so that a claim ``<=`` that holds has been shown of every one. The
    lower end is too high somewhat more often, the more samples there are: it errs against the claim.

    >>> worst_of([[1.0, 2.0, 3.0, 4.0, 5.0], [0.0, 0.0, 0.0, 0.0, 9.0]])
    (3.0, (1.0, 9.0))
    """
    medians = [median(values) for values in samples]
    if any(math.isnan(value) for value in medians):
        return math.nan, (math.nan, math.nan)
    lows, highs = zip(*(median_interval(values) for values in samples), strict=True)
    return max(medians), (max(lows), max(highs))


def log_slope(x: ArrayLike, y: ArrayLike) -> float:
    """The power p of ``y ~ x^p`` by least squares on logarithms; NaN where a y is not positive and finite.

    >>> round(log_slope([1, 10, 100], [2, 200, 20_000]), 12)
    2.0
    """
    a, b = _pair(x, y)
    if not ((a > 0) & np.isfinite(a)).all() or len(np.unique(a)) < 2:
        raise InvalidProblem(f"log_slope needs at least two different positive x; got {a.tolist()}.")
    if not ((b > 0) & np.isfinite(b)).all():
        return math.nan
    centred = np.log(a) - np.log(a).mean()
    return float(centred @ np.log(b) / (centred @ centred))


def _ordered(values: ArrayLike) -> Scores:
    array = np.sort(np.asarray(values, dtype=np.float64))
    if array.ndim != 1 or not len(array):
        raise InvalidProblem(f"A median needs a vector of at least one score; got shape {array.shape}.")
    return array


def _pair(first: ArrayLike, second: ArrayLike) -> tuple[Scores, Scores]:
    a, b = np.asarray(first, dtype=np.float64), np.asarray(second, dtype=np.float64)
    if a.ndim != 1 or a.shape != b.shape:
        raise InvalidProblem(f"Two vectors of one length are needed; got shapes {a.shape} and {b.shape}.")
    return a, b
