"""Features of a width: random ones, columns of a table of yours, or any function."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Literal

import numpy as np
from numpy.typing import NDArray

from thalweg.core import InvalidProblem
from thalweg.core.seeding import generator
from thalweg.core.validation import as_real, is_real, is_whole, require

Array = NDArray[np.float64]

#: Called with rows to train on, rows to test on, a width and a seed; returns the features of both.
FeatureMap = Callable[[Array, Array, int, int], tuple[Array, Array]]


@dataclass(frozen=True)
class RandomFeatures:
    """Random features of a width p, of which the last layer alone is trained.

    Args:
        kind: ``"relu"``: ``max(X W, 0)/sqrt(p)``; ``"fourier"``: ``sqrt(2/p) cos(X W + b)``. W has entries of variance
            1/d, b is uniform on [0, 2 pi].
        centred: subtract each feature's mean over the rows to train on. With p = n features the rank is then n - 1.
        standardised: divide by its standard deviation, too (and then by sqrt(p)).
        spread: the inputs' columns are scaled from 1 down to ``1/spread``, evenly in the logarithm: worse conditioned
            features. Default 1, none.

    Features of one seed are nested: a narrower width has the first of a wider one's, so that the loss on the training
    rows falls with the width.

    Source: Rahimi and Recht (2007); Liu and Flanigan (2023), section 3.

    >>> train, test = RandomFeatures()(np.ones((5, 2)), np.ones((3, 2)), width=7, seed=0)
    >>> train.shape, test.shape
    ((5, 7), (3, 7))
    """

    kind: Literal["relu", "fourier"] = "relu"
    centred: bool = False
    standardised: bool = False
    spread: float = 1.0

    def __post_init__(self) -> None:
        require(
            self.kind in ("relu", "fourier"), "RandomFeatures: kind is 'relu' or 'fourier'", got=self.kind
        )
        require(is_real(self.spread) and self.spread >= 1, "RandomFeatures: spread is >= 1", got=self.spread)

    def __call__(self, X: Array, X_test: Array, width: int, seed: int) -> tuple[Array, Array]:
        d = X.shape[1]
        W = generator(seed, 0).standard_normal((width, d)) / np.sqrt(d)
        scales = np.logspace(0.0, -np.log10(self.spread), d)
        shift = generator(seed, 1).uniform(0.0, 2.0 * np.pi, width)
        train, test = ((rows * scales) @ W.T for rows in (X, X_test))
        if self.kind == "relu":
            train, test = (np.maximum(f, 0.0) / np.sqrt(width) for f in (train, test))
        else:
            train, test = (np.sqrt(2.0 / width) * np.cos(f + shift) for f in (train, test))
        if self.centred or self.standardised:
            mean = train.mean(0)
            train, test = train - mean, test - mean
        if self.standardised:
            deviation = train.std(0)
            # a unit that fires on no row has no deviation, and stays zero
            scale = np.divide(1.0, deviation, out=np.zeros_like(deviation), where=deviation > 0)
            train, test = (f * scale / np.sqrt(width) for f in (train, test))
        return train, test


@dataclass(frozen=True)
class Columns:
    """The columns of X themselves: as many as the width, in an order drawn by the seed.

    For a table of features that are there already, e.g. a pretrained network's.

    >>> train, test = Columns()(np.arange(6.0).reshape(2, 3), np.ones((1, 3)), width=2, seed=0)
    >>> train.shape
    (2, 2)
    """

    def __call__(self, X: Array, X_test: Array, width: int, seed: int) -> tuple[Array, Array]:
        if width > X.shape[1]:
            raise InvalidProblem(f"X has {X.shape[1]} columns; width {width} needs as many.")
        chosen = generator(seed).permutation(X.shape[1])[:width]
        return X[:, chosen], X_test[:, chosen]


def features_of(family: FeatureMap, X: Array, X_test: Array, width: int, seed: int) -> tuple[Array, Array]:
    """What a feature map returns, looked at."""
    require(is_whole(width) and width >= 1, "A width is a whole number >= 1", got=width)
    found = family(X, X_test, int(width), seed)
    name = getattr(family, "__name__", type(family).__name__)
    if not isinstance(found, tuple) or len(found) != 2:
        raise InvalidProblem(
            f"{name} has to return features of the training and of the test rows, two arrays."
        )
    train, test = (as_real(f"{name}'s features", f) for f in found)
    expected = (len(X), len(X_test))
    if (
        train.ndim != 2
        or test.ndim != 2
        or (len(train), len(test)) != expected
        or train.shape[1] != test.shape[1]
    ):
        raise InvalidProblem(
            f"{name} returned shapes {train.shape} and {test.shape}; expected {expected[0]} and {expected[1]} rows "
            "with as many columns."
        )
    return train, test
