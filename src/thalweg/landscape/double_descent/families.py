"""Models of a width: features with a last layer, or networks trained whole. Both are measured alike."""

from __future__ import annotations

import math
from abc import ABC, abstractmethod
from collections.abc import Sequence
from dataclasses import dataclass, field

import numpy as np
from numpy.typing import NDArray

from thalweg.core import InvalidProblem
from thalweg.core.validation import require
from thalweg.landscape.double_descent.data import Rows
from thalweg.landscape.double_descent.features import FeatureMap, features_of
from thalweg.landscape.double_descent.optimizers import EarlyStopping, GradientDescent, LastLayer, Ridge
from thalweg.landscape.double_descent.spectrum import Condition, Spectrum

Array = NDArray[np.float64]

#: Features of all seeds at one width may take so many bytes.
MOST_BYTES = 2**33


@dataclass(frozen=True)
class Measured:
    """What came out at a width, a number for each seed.

    Args:
        train, test: mean squared errors, or mean cross-entropies of networks that are trained by them.
        size: Euclidean norm of the trained weights.
        conditions: of the features of the last layer.
        unlearned: share of the residual in directions of the features that are less than half learned; NaN where the
            optimizer has no such filter.
        steps_to_fit: steps of gradient descent to a tenth of the targets' variance; NaN for networks.
        best_on_the_way: least test error among the checkpoints of training, NaN where there are none.
    """

    width: int
    train: Array
    test: Array
    size: Array
    conditions: Sequence[Condition]
    unlearned: Array
    steps_to_fit: Array
    best_on_the_way: Array


class Family(ABC):
    """Models by width."""

    @abstractmethod
    def measure(self, width: int, draws: Sequence[Rows], steps: int, seeds: Sequence[int]) -> Measured:
        """Train and judge a width, once for each seed."""

    @abstractmethod
    def threshold(self, rows: Rows) -> float:
        """The width at which a model can first fit all rows to train on."""

    def effects(
        self, width: int, draws: Sequence[Rows], steps: int, seeds: Sequence[int]
    ) -> dict[str, Array]:
        """Test errors, a number for each seed, of the same width treated otherwise."""
        return {}


@dataclass(frozen=True)
class FeatureModels(Family):
    """Features of a width whose last layer is trained on squared loss.

    Args:
        features: `RandomFeatures`, `Columns`, or a function ``(X, X_test, width, seed) -> (features, test features)``.
        optimizer: of the last layer. Default: gradient descent with step size ``1/s_1^2``.
        start: standard deviation of the weights at the start. Default 0. What lies outside the rows' span stays, and
            adds to the test error of wide models.
    """

    features: FeatureMap
    optimizer: LastLayer = field(default_factory=GradientDescent)
    start: float = 0.0

    def __post_init__(self) -> None:
        require(callable(self.features), "FeatureModels needs a feature map, a function", got=self.features)
        require(
            isinstance(self.optimizer, LastLayer),
            "FeatureModels: optimizer is one of thalweg.landscape.double_descent, or Torch(make)",
            got=self.optimizer,
        )

    def threshold(self, rows: Rows) -> float:
        return float(len(rows.X))

    def problems(
        self, width: int, draws: Sequence[Rows], seeds: Sequence[int]
    ) -> tuple[list[Spectrum], list[Array]]:
        """The last layer's problem of each seed, and its features of the rows to judge by."""
        size = 8 * width * sum(len(rows.X) + len(rows.X_test) for rows in draws)
        if size > MOST_BYTES:
            raise InvalidProblem(
                f"Features of width {width} take {size / 1e9:.1f} GB for {len(draws)} seeds; {MOST_BYTES / 1e9:.1f} GB "
                "are allowed. Take fewer seeds, or rows to judge by."
            )
        found, tests = [], []
        for rows, seed in zip(draws, seeds, strict=True):
            if rows.X.ndim != 2:
                raise InvalidProblem(f"FeatureModels take X of shape (n, d); got {rows.X.shape}.")
            train, test = features_of(self.features, rows.X, rows.X_test, width, seed)
            start = None
            if self.start:
                k = rows.y.shape[1] if rows.y.ndim == 2 else 1
                start = self.start * np.random.default_rng((seed, width, 0x57)).standard_normal(
                    (train.shape[1], k)
                )
            found.append(Spectrum(train, rows.y, start))
            tests.append(test)
        return found, tests

    def measure(self, width: int, draws: Sequence[Rows], steps: int, seeds: Sequence[int]) -> Measured:
        problems, tests = self.problems(width, draws, seeds)
        weights = self.optimizer.fit(problems, steps, seeds[0])
        train = [
            _error(np.asarray(p.features), rows.y, w)
            for p, rows, w in zip(problems, draws, weights, strict=True)
        ]
        unlearned = np.full(len(seeds), np.nan)
        if isinstance(self.optimizer, GradientDescent):
            sizes = [self.optimizer.step * p.step_limit / 2 for p in problems]
            unlearned = np.array(
                [p.unlearned(p.descent(steps, s)) for p, s in zip(problems, sizes, strict=True)]
            )
        to_fit = [
            p.steps_to(0.1 * float(np.var(rows.y, axis=0).mean()))
            for p, rows in zip(problems, draws, strict=True)
        ]
        return Measured(
            width,
            np.array(train),
            self._tested(tests, draws, weights),
            np.array([float(np.linalg.norm(w)) for w in weights]),
            [p.condition for p in problems],
            unlearned,
            np.array(to_fit),
            np.full(len(seeds), np.nan),
        )

    def effects(
        self, width: int, draws: Sequence[Rows], steps: int, seeds: Sequence[int]
    ) -> dict[str, Array]:
        problems, tests = self.problems(width, draws, seeds)

        def tried(optimizer: LastLayer, problems: list[Spectrum], steps: int, tests: list[Array]) -> Array:
            return self._tested(tests, draws, optimizer.fit(problems, steps, seeds[0]))

        ridge = Ridge()
        halved = []
        for problem in problems:  # ridge's residual stands for the noise
            smooth = problem.predictions(problem.features, problem.ridge(ridge.chosen(problem)))
            halved.append(
                Spectrum(problem.features, 0.5 * (np.asarray(problem.targets) + smooth), problem.start)
            )
        means = [np.asarray(p.features).mean(0) for p in problems]
        scales = [_inverse_deviation(np.asarray(p.features)) for p in problems]
        standard = [
            Spectrum((np.asarray(p.features) - m) * s, p.targets, p.start)
            for p, m, s in zip(problems, means, scales, strict=True)
        ]
        moved = [(t - m) * s for t, m, s in zip(tests, means, scales, strict=True)]
        return {
            "10 times the steps": tried(self.optimizer, problems, 10 * steps, tests),
            "half the noise": tried(self.optimizer, halved, steps, tests),
            "standardised features": tried(self.optimizer, standard, steps, moved),
            "early stopping by a quarter of the rows": tried(EarlyStopping(), problems, steps, tests),
            "ridge by leave-one-out": tried(ridge, problems, steps, tests),
        }

    def _tested(self, tests: list[Array], draws: Sequence[Rows], weights: list[Array]) -> Array:
        return np.array([_error(t, rows.y_test, w) for t, rows, w in zip(tests, draws, weights, strict=True)])


def _error(features: Array, targets: Array, weights: Array) -> float:
    with np.errstate(
        over="ignore", invalid="ignore"
    ):  # an optimizer may have diverged: its error is infinite
        value = float(np.square(features @ weights - targets.reshape(len(targets), -1)).mean())
    return value if math.isfinite(value) else math.inf


def _inverse_deviation(features: Array) -> Array:
    deviation = features.std(0)
    return np.divide(1.0, deviation, out=np.zeros_like(deviation), where=deviation > 0)


def as_family(family: object) -> Family:
    """A family, from a feature map."""
    if isinstance(family, Family):
        return family
    if callable(family):
        return FeatureModels(family)
    raise InvalidProblem(
        f"A family is FeatureModels(map), Networks(module), or a feature map; got {type(family).__name__}."
    )
