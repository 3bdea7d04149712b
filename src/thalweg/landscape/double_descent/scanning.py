"""Is my setting threatened by a peak of the test error, where, and what helps?"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import ArrayLike, NDArray

from thalweg.core import Figure, InvalidParameter, Series
from thalweg.core.figure import Surface
from thalweg.core.validation import as_real, is_whole, require
from thalweg.landscape.double_descent.data import Data, Rows, as_data
from thalweg.landscape.double_descent.families import Family, FeatureModels, Measured, as_family
from thalweg.landscape.double_descent.features import FeatureMap

if TYPE_CHECKING:
    import pandas as pd

Array = NDArray[np.float64]

#: A peak is so many times as high as the error of wide models, and as the least error of narrower ones.
PEAK, RISE = 1.5, 1.2
#: Widths around the threshold among which a peak is looked for, as shares of it.
AROUND = (0.5, 2.0)


@dataclass(frozen=True, eq=False)
class Scan:
    """What a scan over widths found; numbers are medians over the seeds.

    Args:
        measured: for each width, ascending.
        threshold: the width at which a model can first fit all rows.
        steps: of the optimizer.
        effects: test errors at the peak's width under other treatments, (seeds,) each.

    Print it for the verdict and the advice; `figure`, `to_frame` for more.
    """

    measured: Sequence[Measured]
    threshold: float
    steps: int
    effects: dict[str, Array] = field(default_factory=dict)

    @property
    def widths(self) -> list[int]:
        """Ascending."""
        return [m.width for m in self.measured]

    @cached_property
    def train(self) -> Array:
        """Median training error of each width."""
        return np.array([np.median(m.train) for m in self.measured])

    @cached_property
    def test(self) -> Array:
        """Median test error of each width."""
        return np.array([np.median(m.test) for m in self.measured])

    @property
    def _place(self) -> int:
        near = around(self.widths, self.threshold)
        return int(near[np.argmax(self.test[near])])

    @property
    def peak_width(self) -> int:
        """Where the test error is largest between half the threshold and twice."""
        return self.widths[self._place]

    @property
    def peak(self) -> float:
        """The test error there."""
        return float(self.test[self._place])

    @property
    def ratio(self) -> float:
        """The peak over the test error of the width nearest to eight thresholds (the widest where none is so wide)."""
        wide = np.asarray(self.widths, dtype=np.float64)
        far = int(np.argmin(np.abs(np.log(wide / (8.0 * self.threshold)))))
        at = float(self.test[far])
        return self.peak / at if at > 0 else (math.inf if self.peak > 0 else 1.0)

    @property
    def rise(self) -> float:
        """The peak over the least test error of narrower widths; below 1 the error only falls. NaN without any."""
        narrower = self.test[: self._place]
        return math.nan if not narrower.size else float(self.peak / max(narrower.min(), 1e-300))

    @property
    def threatened(self) -> bool:
        """Whether there is a peak: 1.5 times the error of wide models, and 1.2 times that of some narrower one."""
        return self.ratio >= PEAK and not self.rise < RISE

    def to_frame(self) -> pd.DataFrame:
        """A row a width, as a pandas DataFrame: errors, size of the weights, condition, and what is left to learn."""
        import pandas as pd

        return pd.DataFrame([_row(m) for m in self.measured])

    def figure(self) -> Figure:
        """Training and test error over the widths, with the range over seeds."""
        series = []
        for name in ("train", "test"):
            values = np.array([getattr(m, name) for m in self.measured])
            finite = bool(np.isfinite(values).all())
            low, high = (values.min(1).tolist(), values.max(1).tolist()) if finite else (None, None)
            series.append(
                Series(name, [float(w) for w in self.widths], getattr(self, name).tolist(), low, high)
            )
        caption = f"Medians over the seeds, band: their range. All rows can be fitted from width {self.threshold:g} on."
        return Figure("Error by width", caption, "width", "error", series, log_x=True, log_y=True)

    def advice(self) -> list[str]:
        """The verdict in words, and what helps, by what was measured."""
        told = [
            f"Largest test error near the threshold ({self.threshold:g}): {self.peak:.3g} at width {self.peak_width}, "
            f"{self.ratio:.2g} times that of wide models; training error there {self.train[self._place]:.3g}."
        ]
        best = int(self.test.argmin())
        told.append(f"Least test error: {self.test[best]:.3g}, at width {self.widths[best]}.")
        if not self.threatened:
            told.append("No peak threatens this setting.")
            worse = self.effects.get("10 times the steps")
            if worse is not None and np.median(worse) > 1.5 * self.peak:
                told.append(
                    f"Ten times the steps would raise it to {np.median(worse):.3g}: the optimizer stops short of it."
                )
            return told
        told.append(
            "A peak: wider models are better here, and so is what keeps the optimizer from the minimum."
        )
        told += [
            f"{name.capitalize()}: {np.median(values):.3g}."
            for name, values in sorted(self.effects.items(), key=lambda item: float(np.median(item[1])))
        ]
        return told

    def __str__(self) -> str:
        return "\n".join(self.advice())


def around(widths: Sequence[int], threshold: float) -> NDArray[np.int64]:
    """Places of the widths between half the threshold and twice."""
    wide = np.asarray(widths, dtype=np.float64)
    return np.flatnonzero((wide >= AROUND[0] * threshold) & (wide <= AROUND[1] * threshold))


def _row(m: Measured) -> dict[str, float]:
    row = {
        "width": m.width,
        "train": np.median(m.train),
        "test": np.median(m.test),
        "size": np.median(m.size),
    }
    if m.conditions:
        row |= {
            name: float(np.median([getattr(c, name) for c in m.conditions]))
            for name in ("number", "smallest", "rank", "effective_rank", "dead")
        }
    for name in ("unlearned", "steps_to_fit", "best_on_the_way"):
        values = getattr(m, name)
        if not np.isnan(values).all():
            row[name] = float(np.median(values))
    return row


def scan(
    family: Family | FeatureMap,
    data: Data | Rows | tuple[ArrayLike, ...],
    widths: Sequence[int],
    *,
    steps: int = 10_000,
    seeds: int = 5,
    effects: bool = True,
    tell: Callable[[float, str], None] = lambda share, what: None,
) -> Scan:
    """Train a family of models at every width, find the peak of the test error, and try what helps.

    Model-wise double descent shows only where the optimizer comes close to a minimum: with this optimizer and as many
    steps, is there a peak near the width at which all rows can be fitted? When not: for one model, a validation curve
    says more.

    Args:
        family: `FeatureModels` of a feature map with an optimizer of the last layer, `Networks` of a function that
            makes a module of a width, or a feature map alone, for gradient descent.
        data: ``(X, y, X_test, y_test)``, `Split` of a table, `LinearTeacher`, or a function of a seed.
        widths: different, at least one between half the threshold and twice; take some up to eight times it.
        steps: of the optimizer. Default 10 000.
        seeds: how many draws of data, features and start. Default 5.
        effects: of features, at the peak's width: ten times the steps, half the noise, standardised features, early
            stopping and ridge regression.
        tell: called with the share done and what is being done.

    Raises:
        InvalidParameter: empty or repeated widths, none near the threshold, steps that are not whole.
        InvalidProblem, NotFinite: rows that do not fit together, fewer than 10, NaN.

    Source: Liu and Flanigan (2023), "Understanding the role of optimization in double descent", arXiv 2312.03951.

    >>> from thalweg.landscape.double_descent import scan
    >>> from thalweg.landscape.double_descent import LinearTeacher, RandomFeatures
    >>> found = scan(RandomFeatures(), LinearTeacher(rows=40, columns=10), [10, 40, 320], steps=100_000)
    >>> found.peak_width, found.threatened
    (40, True)
    """
    models, drawn = as_family(family), as_data(data)
    wanted = checked_widths(widths)
    require(is_whole(steps) and steps >= 1, "scan needs steps >= 1, a whole number", got=steps)
    require(is_whole(seeds) and seeds >= 1, "scan needs seeds >= 1", got=seeds)
    numbers = range(seeds)
    draws = [drawn(seed) for seed in numbers]
    threshold = models.threshold(draws[0])
    if not len(around(wanted, threshold)):
        raise InvalidParameter(
            f"All rows can be fitted from width {threshold:g} on; widths need one between "
            f"{AROUND[0] * threshold:g} and {AROUND[1] * threshold:g}, got {list(widths)}."
        )
    measured = []
    for i, width in enumerate(wanted):
        tell(i / (len(wanted) + 1), f"width {width}")
        measured.append(models.measure(width, draws, steps, numbers))
    found = Scan(measured, threshold, steps)
    tried = models.effects(found.peak_width, draws, steps, numbers) if effects else {}
    at_peak = measured[found.widths.index(found.peak_width)].best_on_the_way
    if effects and not np.isnan(at_peak).any():
        tried = {**tried, "the best moment on the way": at_peak}
    return Scan(measured, threshold, steps, tried)


def checked_widths(widths: Sequence[int]) -> list[int]:
    """Widths in ascending order: whole, >= 1, each once."""
    require(isinstance(widths, Iterable), "Widths are given as a list", got=widths)
    found = list(widths)
    require(len(found) > 0, "At least one width is needed")
    require(all(is_whole(w) and w >= 1 for w in found), "Widths are whole numbers >= 1", got=found)
    require(len(set(found)) == len(found), "Each width is given once", got=found)
    return sorted(int(w) for w in found)


@dataclass(frozen=True, eq=False)
class DescentMap:
    """Errors of gradient descent at every width, step size and number of steps.

    Args:
        widths, step_sizes (multiples of ``1/s_1^2``), steps: the axes.
        train, test: mean squared errors, shape (widths, step sizes, steps, seeds).
    """

    widths: list[int]
    step_sizes: list[float]
    steps: list[int]
    train: Array
    test: Array

    def figure(self, step_size: int = 0) -> Figure:
        """Median test error by width and number of steps, as contours; ``step_size`` is a place in `step_sizes`."""
        z = np.log10(np.median(self.test[:, step_size], axis=-1)).T
        surface = Surface(
            [math.log10(w) for w in self.widths], [math.log10(max(t, 0.5)) for t in self.steps], z.tolist()
        )
        return Figure(
            "Test error of gradient descent",
            "Decimal logarithms of the median test error.",
            "log10 width",
            "log10 steps",
            [],
            surface=surface,
        )


def descent_map(
    family: FeatureMap | FeatureModels,
    data: Data | Rows | tuple[ArrayLike, ...],
    widths: Sequence[int],
    steps: Sequence[int],
    *,
    step_sizes: Sequence[float] = (1.0,),
    seeds: int = 5,
) -> DescentMap:
    """Training and test errors of gradient descent by width, step size and steps, in closed form.

    Args:
        family, data, widths, seeds: as in `scan`; the family's optimizer is not used.
        steps: whole numbers >= 0.
        step_sizes: multiples of ``1/s_1^2``, in (0, 2].

    Cost: one singular value decomposition a width and seed; each pair of steps and step size then costs a product.

    >>> from thalweg.landscape.double_descent import LinearTeacher, RandomFeatures
    >>> found = descent_map(RandomFeatures(), LinearTeacher(rows=30), [15, 30, 60], [10, 100_000], seeds=2)
    >>> found.test.shape
    (3, 1, 2, 2)
    """
    models = as_family(family)
    if not isinstance(models, FeatureModels):
        raise InvalidParameter(
            "descent_map has a closed form for features with a trained last layer; use scan."
        )
    wanted, drawn = checked_widths(widths), as_data(data)
    counts, sizes = as_real("steps", steps), as_real("step_sizes", step_sizes)
    require(
        counts.ndim == 1 and sizes.ndim == 1 and counts.size > 0 and sizes.size > 0,
        "descent_map needs lists of steps and step sizes",
    )
    require(
        bool(((sizes > 0) & (sizes <= 2)).all()),
        "Step sizes are multiples of 1/s_1^2 in (0, 2]",
        got=step_sizes,
    )
    require(is_whole(seeds) and seeds >= 1, "descent_map needs seeds >= 1", got=seeds)
    shape = (len(wanted), len(sizes), len(counts), seeds)
    train, test = np.empty(shape), np.empty(shape)
    for k in range(seeds):
        rows = drawn(k)
        for i, width in enumerate(wanted):
            (problem,), (features,) = models.problems(width, [rows], [k])
            filters = problem.descent(counts[None, :], sizes[:, None] * problem.step_limit / 2)
            train[i, ..., k] = problem.train_error(filters)
            test[i, ..., k] = problem.test_error(features, rows.y_test, filters)
    return DescentMap(wanted, sizes.tolist(), counts.astype(int).tolist(), train, test)
