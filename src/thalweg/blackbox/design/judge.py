"""A judge of proposals that nothing designs on: kernel ridge regression on the distance of sequences."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from thalweg.blackbox.design.space import Codes, distances
from thalweg.core.seeding import generator

Array = NDArray[np.float64]
#: Rows that it learns from, half of them the best.
SEEN = 600
#: Shares of the length over which the kernel falls to 1/e, and noise over signal, among which it chooses.
SCALES, NOISES = (0.05, 0.1, 0.2, 0.5), (1e-3, 1e-2, 1e-1, 1.0)


class Judge:
    """Scores by a Gaussian process with the kernel ``exp(-distance / scale)``, tuned by the likelihood.

    It learns from at most 600 rows: half of them the best, the others drawn. It is a model like others, and far from
    the table it says the mean. Cost: ``O(m^3)`` once for m rows and each of 16 settings, then ``O(m length)`` a sequence.
    """

    def __init__(self, codes: Codes, scores: Array) -> None:
        order = np.argsort(-scores, kind="stable")
        rest = order[SEEN // 2 :]
        drawn = generator(0, 0x05, 1).permutation(len(rest))[: SEEN - SEEN // 2]
        rows = np.concatenate([order[: SEEN // 2], rest[drawn]])
        self._codes, y = codes[rows], scores[rows]
        self._mean, self._std = float(y.mean()), float(y.std()) or 1.0
        y = (y - self._mean) / self._std
        apart = distances(self._codes, self._codes)
        best = -np.inf
        for scale in SCALES:
            values, vectors = np.linalg.eigh(np.exp(-apart / (scale * codes.shape[1])))
            inside = (vectors.T @ y) ** 2
            for noise in NOISES:
                spectrum = np.maximum(values, 0) + noise
                height = float((inside / spectrum).mean())  # the signal's variance that the data make likeliest
                likely = -len(y) * np.log(height) - float(np.log(spectrum).sum())
                if likely > best:
                    best, self._scale = likely, scale * codes.shape[1]
                    self._weights = vectors @ ((vectors.T @ y) / spectrum)

    def __call__(self, codes: Codes) -> Array:
        """Scores in the table's unit, shape (n,)."""
        kernel = np.exp(-distances(codes, self._codes) / self._scale)
        found: Array = self._mean + self._std * (kernel @ self._weights)
        return found
