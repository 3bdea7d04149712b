"""Activation patterns of rectified linear units on given rows: all of them, a sample, or those of a network.

Pilanci and Ergen (2020), "Neural networks are convex regularizers", section 2; Bai, Gautam and Sojoudi (2023),
"Efficient global optimization of two-layer ReLU networks", section 3, for the sampled ones.
"""

from __future__ import annotations

import itertools
import math
from collections.abc import Iterator

import numpy as np
from numpy.typing import ArrayLike, NDArray

from thalweg.convex.datafits import Vector
from thalweg.core import InvalidProblem
from thalweg.core.validation import as_real, check_finite, is_real, is_whole, require

Patterns = NDArray[np.bool_]

#: Bytes that patterns, and the neurons they are made of, may take together unless more are allowed.
MOST_BYTES = 2**31
#: Products with a row that are zero, as a share of the lengths: rounding of null vectors stays well below.
ZERO = 1e-9
#: Entries whose squares, and sums of them, are numbers.
SMALLEST, LARGEST = 1e-140, 1e140
#: Null vectors computed together, and draws without a new pattern after which sampling ends.
CHUNK, BARREN = 4096, 1000


def count_patterns(rows: int, rank: int) -> int:
    """How many patterns rows of a rank have at most: ``2 sum_{k < rank} C(rows - 1, k)``; exact in general position.

    Cover (1965), "Geometrical and statistical properties of systems of linear inequalities", theorem 1.

    >>> count_patterns(16, 3)
    242
    """
    require(is_whole(rows) and rows >= 1, "count_patterns needs one row or more", got=rows)
    require(is_whole(rank) and rank >= 0, "count_patterns needs a rank >= 0", got=rank)
    return 2 * sum(math.comb(rows - 1, k) for k in range(rank)) if rank else 1


def patterns_needed(rows: int, failure: float, violation: float) -> int:
    """How many sampled patterns the scenario bound asks for.

    With so many, the probability over the sample is at least ``1 - failure`` that *one more* Gaussian pattern lowers
    the optimum with probability at most ``violation``. It speaks of the next draw, and says nothing of the global
    optimum.

    Args:
        rows: n.
        failure, violation: psi and xi, in (0, 1).

    Source: Bai, Gautam and Sojoudi (2023), theorem 2: ``min((n + 1)/(psi xi) - 1, 2/xi (n + 1 - log psi))``.

    >>> patterns_needed(16, 0.1, 0.1)
    387
    """
    require(is_whole(rows) and rows >= 1, "patterns_needed needs one row or more", got=rows)
    for name, value in (("failure", failure), ("violation", violation)):
        require(is_real(value) and 0 < value < 1, f"patterns_needed needs 0 < {name} < 1", got=value)
    linear = (rows + 1) / (violation * failure) - 1.0
    return math.ceil(min(linear, 2.0 / violation * (rows + 1 - math.log(failure))))


def patterns_of(X: ArrayLike, neurons: ArrayLike) -> Patterns:
    """Different patterns ``1[X u >= 0]`` of some neurons, in the order in which they first occur.

    Args:
        X: rows, shape (n, d), or (n, patches, d), whose patches count as rows.
        neurons: hidden weights u, shape (m, d).

    Returns:
        shape (P, rows), P <= m.

    >>> patterns_of([[1.0], [-2.0]], [[1.0], [3.0], [-1.0]])
    array([[ True, False],
           [False,  True]])
    """
    rows, weights = as_rows(X), as_real("neurons", neurons)
    if weights.ndim != 2 or weights.shape[1] != rows.shape[1] or not len(weights):
        raise InvalidProblem(f"neurons have shape {weights.shape}; expected (m, {rows.shape[1]}), m >= 1.")
    check_finite("neurons", weights)
    return distinct(activations(rows, weights))


def all_patterns(X: ArrayLike, *, most_bytes: int = MOST_BYTES) -> Patterns:
    """All patterns of open cells: with them the convex program's optimum is the network's global one.

    Each cell of the arrangement of the rows' hyperplanes has a ray where ``rank - 1`` independent rows vanish. The
    signs of the other rows there are the cell's; those of all rows that vanish are found the same way, one rank
    lower, so that repeated rows, integers and other rows in special position need no perturbation. Patterns on
    boundaries alone add
    nothing: the same neurons lie in the closures of cells.

    Args:
        X: rows, shape (n, d), or (n, patches, d).
        most_bytes: refuse what would take more. Default 2 GiB.

    Raises:
        InvalidProblem: too many; says how many bytes they would take.

    Cost: ``C(n, rank - 1)`` null vectors, and a product with X for each.

    >>> len(all_patterns(np.random.default_rng(0).standard_normal((16, 3))))
    242
    """
    rows = as_rows(X)
    lengths = np.linalg.norm(rows, axis=1)
    alive = lengths > 0
    unit = rows[alive] / lengths[alive, None]
    kept, where, signs = _without_parallels(unit)
    if not len(kept):
        return np.ones((1, len(rows)), dtype=bool)
    rank = int(np.linalg.matrix_rank(kept, tol=ZERO * math.sqrt(len(kept))))
    cells, rays = count_patterns(len(kept), rank), math.comb(len(kept), rank - 1)
    bytes_told = cells * (len(rows) + len(kept)) + rays * 2 ** (rank - 1) * (len(kept) // 8 + 1)
    if bytes_told > most_bytes:
        raise InvalidProblem(
            f"{len(rows)} rows of rank {rank} have up to {cells:.3g} patterns; finding all of them would take "
            f"{bytes_told:.2g} bytes of {most_bytes:.2g}. Sample some with sample_patterns, or reduce the columns."
        )
    found = distinct(_cells(kept))
    whole = np.ones((len(found), len(rows)), dtype=bool)
    whole[:, np.flatnonzero(alive)] = found[:, where] == signs
    return whole


def sample_patterns(
    X: ArrayLike,
    count: int,
    *,
    seed: int | np.random.Generator = 0,
    radius: float = 0.0,
    mask: ArrayLike | None = None,
    most_bytes: int = MOST_BYTES,
) -> Patterns:
    """Different patterns of Gaussian neurons, at most ``count``; fewer where draws stop bringing new ones.

    Args:
        X: rows, shape (n, d), or (n, patches, d).
        count: P >= 1.
        seed: a seed or a generator.
        radius: with > 0, half of the draws see the rows moved by that much, up or down, in each column of ``mask``: the
            patterns that adversarial training needs. Default 0.
        mask: which columns may be moved, shape (d,). Default: all.
        most_bytes: refuse what would take more. Default 2 GiB.

    Cost: a product with X for each ``count`` draws; drawing ends after 1000 draws without a new pattern.

    >>> len(sample_patterns([[1.0], [2.0]], 10))
    2
    """
    rows = as_rows(X)
    require(is_whole(count) and count >= 1, "sample_patterns needs one pattern or more", got=count)
    require(is_real(radius) and 0 <= radius < math.inf, "sample_patterns needs a radius >= 0", got=radius)
    told = count * (10 * len(rows) + 8 * rows.shape[1])
    if told > most_bytes:
        raise InvalidProblem(
            f"{count} patterns of {len(rows)} rows would take {told:.2g} bytes of {most_bytes:.2g} while they are "
            "drawn. Ask for fewer, or raise most_bytes."
        )
    rng = np.random.default_rng(seed)
    free = np.ones(rows.shape[1]) if mask is None else as_real("mask", mask).astype(bool).astype(np.float64)
    if free.shape != (rows.shape[1],):
        raise InvalidProblem(f"mask has shape {free.shape}; expected ({rows.shape[1]},).")
    batch = max(1, min(max(count, 64), most_bytes // (10 * len(rows))))
    seen: dict[bytes, Patterns] = {}
    barren = 0
    while len(seen) < count and barren < max(BARREN, batch):
        neurons = rng.standard_normal((batch, rows.shape[1]))
        moved = rows + radius * free * rng.choice([-1.0, 1.0], rows.shape) if radius else rows
        drawn = activations(rows, neurons)
        if radius:
            drawn[1::2] = activations(moved, neurons[1::2])
        for pattern, key in zip(drawn, np.packbits(drawn, axis=1), strict=True):
            name = key.tobytes()
            barren += 1
            if name not in seen:
                seen[name], barren = pattern, 0
                if len(seen) == count:
                    break
    return np.array(list(seen.values()))


def activations(rows: Vector, neurons: Vector) -> Patterns:
    """``1[X u >= 0]``, shape (m, n)."""
    return np.asarray(neurons @ rows.T >= 0)


def distinct(patterns: Patterns) -> Patterns:
    """The different ones, in the order in which they first occur."""
    _, first = np.unique(np.packbits(patterns, axis=1), axis=0, return_index=True)
    return np.ascontiguousarray(patterns[np.sort(first)])


def as_rows(X: ArrayLike) -> Vector:
    """X as finite rows, those of all patches one after another; a matrix of length one at least each way."""
    rows = as_real("X", X)
    if rows.ndim not in (2, 3) or 0 in rows.shape:
        raise InvalidProblem(
            f"X has shape {rows.shape}; expected (n, d), or (n, patches, d), without an empty side."
        )
    check_finite("X", rows)
    check_range("X", rows)
    return rows.reshape(-1, rows.shape[-1])


def check_range(name: str, values: Vector) -> None:
    """Refuse numbers whose squares are none."""
    largest = float(np.abs(values).max(initial=0.0))
    if not (largest == 0 or SMALLEST <= largest <= LARGEST):
        raise InvalidProblem(
            f"{name} reaches {largest:.3g}; outside [{SMALLEST:g}, {LARGEST:g}] squares are no numbers. Scale it."
        )


def _without_parallels(unit: Vector) -> tuple[Vector, NDArray[np.int64], Patterns]:
    """Rows of length one that differ up to sign; for each row its place among them, and whether it has their sign."""
    if not len(unit):
        return unit, np.zeros(0, dtype=np.int64), np.zeros(0, dtype=bool)
    kept: list[Vector] = []
    where, signs = np.empty(len(unit), dtype=np.int64), np.empty(len(unit), dtype=bool)
    for i, row in enumerate(unit):
        if kept:
            others = np.array(kept)
            product = others @ row
            nearest = int(np.argmax(np.abs(product)))
            same = bool(product[nearest] > 0)
            apart = np.linalg.norm(row - (others[nearest] if same else -others[nearest]))
            if apart <= ZERO:
                where[i], signs[i] = nearest, same
                continue
        where[i], signs[i] = len(kept), True
        kept.append(row)
    return np.array(kept), where, signs


def _cells(unit: Vector) -> Patterns:
    """Patterns of the open cells of an arrangement whose rows have length one and are not parallel."""
    n = len(unit)
    _, sizes, right = np.linalg.svd(unit, full_matrices=False)
    rank = int((sizes > ZERO * math.sqrt(n)).sum())
    if rank == n:
        return np.array(list(itertools.product([True, False], repeat=n)))
    points = unit @ right[:rank].T
    found = []
    for rays in _rays(points, rank):
        products = rays @ points.T
        for product in np.unique(np.round(np.where(np.abs(products) <= ZERO, 0.0, products), 12), axis=0):
            on = product == 0.0
            inner = _cells(points[on]) if on.any() else np.ones((1, 0), dtype=bool)
            for sign in (1.0, -1.0):
                block = np.tile(sign * product > 0, (len(inner), 1))
                block[:, on] = inner
                found.append(block)
    return distinct(np.concatenate(found))


def _rays(points: Vector, rank: int) -> Iterator[Vector]:
    """Unit vectors, in chunks, on which ``rank - 1`` independent rows vanish."""
    if rank == 1:
        yield np.ones((1, 1))
        return
    subsets = itertools.combinations(range(len(points)), rank - 1)
    while chunk := list(itertools.islice(subsets, CHUNK)):
        _, sizes, right = np.linalg.svd(points[np.array(chunk)])
        yield right[sizes[:, -1] > ZERO, -1]
