"""Gradient codes: each worker sends one linear combination of partial gradients, and any n - s of them give the sum.

Tandon, Lei, Dimakis and Karampatziakis (2017), "Gradient coding"; Raviv, Tamo, Tandon and Dimakis (2020), "Gradient
coding from cyclic MDS codes and expander graphs".
"""

from __future__ import annotations

from dataclasses import dataclass, field
from functools import lru_cache
from typing import Literal

import numpy as np
from numpy.typing import ArrayLike, NDArray

from thalweg.core import InvalidProblem
from thalweg.core.seeding import generator
from thalweg.core.validation import is_whole, require

Vector = NDArray[np.float64]
Construction = Literal["repetition", "circulant", "random"]


#: The largest error of a coefficient of the decoded sum.
EXACT = 1e-8


class TooManyStragglers(InvalidProblem):
    """Fewer results than the code needs."""


@dataclass(frozen=True)
class GradientCode:
    """The (n, s) gradient code: data in n parts, worker i holds s + 1 of them, any n - s results decode the sum.

    Args:
        n: workers.
        s: stragglers tolerated, ``0 <= s < n``.
        construction: by default repetition where it fits, random elsewhere; `amplification` tells what rounding is
            multiplied by. ``"repetition"``, where s + 1 divides n: groups of s + 1 workers hold the same, and decoding
            only adds. ``"random"``, for any n and s: Tandon's algorithm 2; coefficients are decoded to 1e-9 and better
            for up to 256 workers. ``"circulant"``, where n - s is odd: rows are shifts of a polynomial whose roots are
            the s roots of unity about -1; decoding is a Vandermonde system on the unit circle, which loses all digits
            where some thirty stragglers are neighbours, and is refused there.

    The load, relative to all data, is ``(s + 1) / n``.

    Raises:
        InvalidParameter: n or s that are not whole, s outside its range, a construction that does not fit.

    >>> code = GradientCode(5, 2)
    >>> parts = np.arange(5.0)  # partial gradients, here numbers
    >>> results = code.encoding @ parts
    >>> arrived = [0, 2, 3]
    >>> round(float(code.decoding(arrived) @ results[arrived]), 8)
    10.0
    """

    n: int
    s: int
    construction: Construction | None = None
    encoding: Vector = field(init=False, repr=False, compare=False)

    def __post_init__(self) -> None:
        n, s = self.n, self.s
        require(is_whole(n) and is_whole(s), "GradientCode needs whole numbers n and s", got=(n, s))
        require(n >= 1 and 0 <= s < n, "GradientCode needs 0 <= s < n", got=(n, s))
        fits = {"repetition": n % (s + 1) == 0, "circulant": (n - s) % 2 == 1, "random": True}
        kind = self.construction or ("repetition" if fits["repetition"] else "random")
        require(kind in fits, "GradientCode.construction is repetition, circulant or random", got=kind)
        require(fits[kind], f"GradientCode({n}, {s}) has no {kind} construction; leave it out")
        object.__setattr__(self, "construction", kind)
        object.__setattr__(
            self, "encoding", {"repetition": _repetition, "circulant": _circulant}.get(kind, _random)(n, s)
        )

    @property
    def load(self) -> float:
        """Share of the data that each worker goes through."""
        return (self.s + 1) / self.n

    def parts(self, worker: int) -> list[int]:
        """The parts that a worker holds."""
        return np.flatnonzero(self.encoding[worker]).tolist()

    def decoding(self, arrived: ArrayLike) -> Vector:
        """The vector a with ``a @ encoding[arrived] = 1``.

        Args:
            arrived: numbers of workers, from 0, each once, in any order.

        Raises:
            TooManyStragglers: fewer than n - s results.
            InvalidParameter: what is no worker's number, or one twice.
            InvalidProblem: rounding leaves an error above 1e-8 in a coefficient.

        Cost: a least-squares problem of shape (n, results), kept for patterns seen before.
        """
        given = self._numbers(arrived)
        if len(given) < self.n - self.s:
            raise TooManyStragglers(
                f"{len(given)} results of {self.n}; the code needs {self.n - self.s}. Wait for more."
            )
        return _decoding(self, tuple(np.sort(given).tolist()))[np.argsort(np.argsort(given))]

    def _numbers(self, arrived: ArrayLike) -> NDArray[np.int64]:
        given = np.asarray(arrived)
        whole = given.ndim == 1 and (given.dtype.kind in "iu" or not given.size)
        require(whole, "Results come from workers, a list of whole numbers", got=arrived)
        for i, worker in enumerate(given.tolist()):
            require(
                0 <= worker < self.n,
                f"Result {i} (from 0) is of a worker outside 0 .. {self.n - 1}",
                got=worker,
            )
        require(len(set(given.tolist())) == len(given), "A worker's result stands twice", got=arrived)
        return given.astype(np.int64)

    def approximate(self, arrived: ArrayLike) -> Vector:
        """The a that brings ``a @ encoding[arrived]`` nearest to ones, for any number of results."""
        rows = self.encoding[self._numbers(arrived)]
        return np.asarray(np.linalg.lstsq(rows.T, np.ones(self.n), rcond=None)[0], dtype=np.float64)

    def amplification(self, patterns: int = 100, seed: int = 0) -> tuple[float, float]:
        """Median and largest factor on rounding, ``max_j sum_i |a_i B_ij|``, over random and consecutive stragglers."""
        random, sizes = generator(seed, 0x20), []
        for k in range(patterns):
            late = random.permutation(self.n)[: self.s] if k % 2 else (k + np.arange(self.s)) % self.n
            arrived = np.setdiff1d(np.arange(self.n), late)
            sizes.append(float((np.abs(self.decoding(arrived)) @ np.abs(self.encoding[arrived])).max()))
        return float(np.median(sizes)), max(sizes)


@lru_cache(maxsize=4096)
def _decoding(code: GradientCode, workers: tuple[int, ...]) -> Vector:
    a = _unchecked(code, workers)
    error = float(np.abs(a @ code.encoding[list(workers)] - 1.0).max())
    if not error <= EXACT:
        raise InvalidProblem(
            f"The {code.construction} code of {code.n} workers cannot be decoded without the late ones: rounding "
            f"leaves an error of {error:.1g} in a coefficient of the sum. Wait for more results, or take "
            'construction="random", which is steady whoever is late.'
        )
    return a


def _unchecked(code: GradientCode, workers: tuple[int, ...]) -> Vector:
    if code.construction == "repetition":
        a = np.zeros(len(workers))
        seen: set[int] = set()
        for k, worker in enumerate(workers):
            group = worker // (code.s + 1)
            if group not in seen:
                seen.add(group)
                a[k] = 1.0
        return a
    return code.approximate(workers)


def _repetition(n: int, s: int) -> Vector:
    groups = np.arange(n) // (s + 1)
    return (groups[:, None] == groups).astype(np.float64)


def _circulant(n: int, s: int) -> Vector:
    """Row i has the polynomial's coefficients at i .. i + s; its zeros are conjugate pairs, so that it is real."""
    exponents = (n - s + 1) // 2 + np.arange(s)
    polynomial = np.real(np.poly(np.exp(2j * np.pi * exponents / n))) if s else np.ones(1)
    first = np.zeros(n)
    first[: s + 1] = polynomial / np.abs(polynomial).max()
    return np.stack([np.roll(first, i) for i in range(n)])


def _random(n: int, s: int) -> Vector:
    """H with ``H 1 = 0`` and any s columns independent; row i in its null space, with support i .. i + s."""
    if s == 0:
        return np.eye(n)
    H = generator(n, s, 0x21).standard_normal((s, n))
    H[:, -1] = -H[:, :-1].sum(1)
    B = np.zeros((n, n))
    for i in range(n):
        support = (i + np.arange(s + 1)) % n
        B[i, support[0]] = 1.0
        B[i, support[1:]] = -np.linalg.solve(H[:, support[1:]], H[:, support[0]])
    return B
