"""Streams to learn a basis from: sparse codes of a known basis, and an array in minibatches."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, field

import numpy as np
from numpy.typing import ArrayLike, NDArray

from thalweg.core.errors import InvalidProblem
from thalweg.core.seeding import generator
from thalweg.core.validation import as_real, is_real, is_whole, require
from thalweg.matrix.dictionary_alignment import random_orthogonal

Matrix = NDArray[np.float64]


@dataclass(frozen=True, eq=False)
class SparseStream:
    """Samples ``y = D x`` of a basis D that is known, x Bernoulli-Gaussian: the model under which recovery is proved.

    Args:
        n: entries of a sample, >= 1.
        share: theta, the probability with which a code is not zero, in (0, 1]. At 1 samples are Gaussian, and no
            basis is better than another.
        condition: of the basis. 1, the default, makes it orthogonal; more, complete with singular values spaced
            evenly in the logarithm from 1 to ``1/condition``.
        seed: makes basis and samples repeatable.

    ``basis``, shape (n, n), has the atoms as columns.

    Raises:
        InvalidParameter: an argument outside its range.

    >>> batch = next(SparseStream(n=5, share=0.4, seed=1).batches(3))
    >>> batch.shape
    (3, 5)
    """

    n: int
    share: float
    condition: float = 1.0
    seed: int = 0
    basis: Matrix = field(init=False, repr=False)

    def __post_init__(self) -> None:
        require(is_whole(self.n) and self.n >= 1, "SparseStream needs n >= 1", got=self.n)
        require(
            is_real(self.share) and 0 < self.share <= 1, "SparseStream needs 0 < share <= 1", got=self.share
        )
        usable = is_real(self.condition) and 1 <= self.condition < float("inf")
        require(usable, "SparseStream needs a finite condition >= 1", got=self.condition)
        random = generator(self.seed, 0)
        basis = random_orthogonal(self.n, random)
        if self.condition > 1:
            basis = (basis * np.geomspace(1.0, 1.0 / self.condition, self.n)) @ random_orthogonal(
                self.n, random
            )
        object.__setattr__(self, "basis", basis)

    def batches(self, size: int, count: int | None = None) -> Iterator[Matrix]:
        """Minibatches, shape (size, n) each: ``count`` of them, or without end. Always the same ones."""
        require(is_whole(size) and size >= 1, "SparseStream.batches needs size >= 1", got=size)
        random = generator(self.seed, 1)
        made = 0
        while count is None or made < count:
            made += 1
            codes = random.standard_normal((size, self.n))
            codes *= random.random((size, self.n)) < self.share
            yield codes @ self.basis.T


def minibatches(X: ArrayLike, size: int, *, epochs: int = 1, seed: int | None = None) -> Iterator[Matrix]:
    """Rows of X in minibatches, ``epochs`` times over: in their order, or shuffled afresh each time by ``seed``.

    The last one of an epoch may be smaller.

    Raises:
        InvalidProblem: X is no table of numbers, or holds no rows.
        InvalidParameter: a size or a number of epochs below 1.

    >>> [len(batch) for batch in minibatches(np.ones((5, 2)), 2)]
    [2, 2, 1]
    """
    rows = as_real("X", X)
    if rows.ndim != 2 or not rows.size:
        raise InvalidProblem(
            f"minibatches: X has shape {rows.shape}; expected (samples, n), one sample or more."
        )
    require(is_whole(size) and size >= 1, "minibatches needs size >= 1", got=size)
    require(is_whole(epochs) and epochs >= 1, "minibatches needs epochs >= 1", got=epochs)
    return _minibatches(rows, size, epochs, None if seed is None else generator(seed))


def _minibatches(
    rows: Matrix, size: int, epochs: int, random: np.random.Generator | None
) -> Iterator[Matrix]:
    for _ in range(epochs):
        order = np.arange(len(rows)) if random is None else random.permutation(len(rows))
        for first in range(0, len(rows), size):
            yield rows[order[first : first + size]]
