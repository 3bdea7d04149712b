"""A judge of proposals that nothing designs on: kernel ridge regression on the letters that sequences share."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from thalweg.blackbox.design.space import Codes, distances
from thalweg.core.seeding import generator

Array = NDArray[np.float64]
#: Rows that it learns from, half of them the best.
SEEN = 600
#: Degrees of the kernel, and noise over signal, among which it chooses.
DEGREES, NOISES = (1, 2, 3, 4), (1e-3, 1e-2, 1e-1, 1.0, 10.0)
#: Added to the share of letters that agree.
OFFSET = 0.05


class Judge:
    """Scores by a Gaussian process with the kernel ``(0.05 + share of letters that agree)^degree``, set by likelihood.

    Degree 1 is a sum over letters, degree 2 has pairs as well. It learns from at most 600 rows: half of them the best,
    the others drawn. It is a model like others: it tells methods apart, and no true scores. Cost: ``O(m^3)`` once for m
    rows and each of four degrees, then ``O(m length)`` a sequence.
    """

    def __init__(self, codes: Codes, scores: Array) -> None:
        order = np.argsort(-scores, kind="stable")
        rest = order[SEEN // 2 :]
        drawn = generator(0, 0x05, 1).permutation(len(rest))[: SEEN - SEEN // 2]
        rows = np.concatenate([order[: SEEN // 2], rest[drawn]])
        self._codes, y = codes[rows], scores[rows]
        self._mean, self._std = float(y.mean()), float(y.std()) or 1.0
        y = (y - self._mean) / self._std
        alike = self._alike(self._codes)
        best = -np.inf
        for degree in DEGREES:
            values, vectors = np.linalg.eigh(alike**degree)
            inside = (vectors.T @ y) ** 2
            for noise in NOISES:
                spectrum = np.maximum(values, 0) + noise
                height = float(
                    (inside / spectrum).mean()
                )  # the signal's variance that the data make likeliest
                likely = -len(y) * np.log(height) - float(np.log(spectrum).sum())
                if likely > best:
                    best, self._degree = likely, degree
                    self._weights = vectors @ ((vectors.T @ y) / spectrum)

    def __call__(self, codes: Codes) -> Array:
        """Scores in the table's unit, shape (n,)."""
        found: Array = self._mean + self._std * (self._alike(codes) ** self._degree @ self._weights)
        return found

    def _alike(self, codes: Codes) -> Array:
        found: Array = OFFSET + 1 - distances(codes, self._codes) / codes.shape[1]
        return found
