"""Which frequencies are measured: masks of 0 and 1, the zero frequency in the middle, shape (height, width).

A mask of acceleration a measures one line in a (one-dimensional ones) or one point in a, the middle included. The
middle, a share ``centre`` of the lines (of each side, for two-dimensional masks), is measured whole.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import ArrayLike, NDArray

from thalweg.core import InvalidProblem
from thalweg.core.seeding import generator
from thalweg.core.validation import is_real, is_whole, require
from thalweg.inverse._kernels import thrown

Mask = NDArray[np.float64]

#: Deviation of the Gaussian masks, in sides.
SPREAD = 1 / 6


def middle(mask: ArrayLike) -> int:
    """The side of the largest square round the zero frequency that is measured whole; 0 where that is not measured.

    >>> middle(gaussian1d((64, 64), centre=0.25)), middle(np.eye(4))
    (16, 1)
    """
    found = np.asarray(mask)
    if found.ndim != 2 or not found.size:
        raise InvalidProblem(f"middle: the mask has shape {found.shape}; expected (height, width).")
    for side in range(min(found.shape), 0, -1):
        block = tuple(slice(n // 2 - side // 2, n // 2 - side // 2 + side) for n in found.shape)
        if bool(found[block].all()):
            return side
    return 0


def uniform1d(shape: tuple[int, int], acceleration: float = 4.0, centre: float = 0.08, seed: int = 0) -> Mask:
    """Whole columns: the middle ones, and others drawn evenly.

    >>> int(uniform1d((8, 64)).sum()), bool(uniform1d((8, 64))[0, 30:34].all())
    (128, True)
    """
    return _columns(shape, _drawn(shape[1:], acceleration, centre, None, seed))


def gaussian1d(
    shape: tuple[int, int], acceleration: float = 4.0, centre: float = 0.08, seed: int = 0
) -> Mask:
    """Whole columns: the middle ones, and others drawn by a Gaussian round the middle.

    >>> int(gaussian1d((8, 64)).sum())
    128
    """
    return _columns(shape, _drawn(shape[1:], acceleration, centre, SPREAD, seed))


def uniform2d(shape: tuple[int, int], acceleration: float = 4.0, centre: float = 0.08, seed: int = 0) -> Mask:
    """Points: the middle ones, and others drawn evenly.

    >>> int(uniform2d((64, 64)).sum())
    1024
    """
    return _drawn(shape, acceleration, centre, None, seed)


def gaussian2d(
    shape: tuple[int, int], acceleration: float = 4.0, centre: float = 0.08, seed: int = 0
) -> Mask:
    """Points: the middle ones, and others drawn by a Gaussian round the middle.

    >>> int(gaussian2d((64, 64)).sum())
    1024
    """
    return _drawn(shape, acceleration, centre, SPREAD, seed)


def equispaced(
    shape: tuple[int, int], acceleration: float = 4.0, centre: float = 0.08, offset: int = 0
) -> Mask:
    """Whole columns: the middle ones, and others at even distances, the first at ``offset``.

    >>> int(equispaced((8, 64)).sum())
    128
    """
    require(is_whole(offset) and offset >= 0, "equispaced needs offset >= 0", got=offset)
    middle, count = _middle(shape[1:], acceleration, centre)
    free = np.flatnonzero(middle == 0)
    left = count - int(middle.sum())
    picked = (offset + np.floor(np.arange(left) * len(free) / max(left, 1))).astype(int) % len(free)
    middle[free[picked]] = 1
    return _columns(shape, middle)


def poisson_disc(
    shape: tuple[int, int], acceleration: float = 4.0, centre: float = 0.08, seed: int = 0
) -> Mask:
    """Points: the middle ones, and others drawn evenly but not near one another.

    >>> int(poisson_disc((64, 64)).sum())
    1024
    """
    middle, count = _middle(shape, acceleration, centre)
    order = generator(seed, 0x34).permutation(middle.size)
    low, high = 0.0, float(max(shape))
    best = middle > 0
    for _ in range(20):  # the largest distance at which enough points fit
        radius = (low + high) / 2
        taken = middle > 0
        found = int(taken.sum()) + thrown(order, *shape, radius, taken, middle > 0)
        if found >= count:
            low, best = radius, taken
        else:
            high = radius
    extra = order[(best & (middle == 0)).ravel()[order]][::-1][: int(best.sum()) - count]  # the last thrown
    mask = best.astype(np.float64)
    mask.ravel()[extra] = 0
    return mask


def _drawn(
    shape: tuple[int, ...], acceleration: float, centre: float, spread: float | None, seed: int
) -> Mask:
    mask, count = _middle(shape, acceleration, centre)
    free = np.flatnonzero(mask.ravel() == 0)
    weights = None
    if spread is not None:
        grids = np.meshgrid(*(np.arange(n) / n - (n // 2) / n for n in shape), indexing="ij")
        far = sum(grid**2 for grid in grids)
        weights = np.exp(-np.asarray(far).ravel()[free] / (2 * spread**2)) + 1e-12
        weights /= weights.sum()
    drawn = generator(seed, 0x34)
    picked = drawn.choice(free, count - int(mask.sum()), replace=False, p=weights)
    mask.ravel()[picked] = 1
    return mask


def _middle(shape: tuple[int, ...], acceleration: float, centre: float) -> tuple[Mask, int]:
    """The middle alone, and how many are to be measured in all."""
    sides = tuple(shape)
    fits = len(sides) > 0 and all(is_whole(n) and n >= 1 for n in sides)
    require(fits, "A mask needs a shape (height, width)", got=shape)
    require(is_real(acceleration) and acceleration >= 1, "A mask needs acceleration >= 1", got=acceleration)
    require(is_real(centre) and 0 <= centre <= 1, "A mask needs 0 <= centre <= 1", got=centre)
    mask = np.zeros(sides)
    mask[tuple(slice(n // 2 - k // 2, n // 2 - k // 2 + k) for n in sides for k in [round(centre * n)])] = 1
    count = round(mask.size / acceleration)
    if count < max(1, int(mask.sum())):
        raise InvalidProblem(
            f"A mask of acceleration {acceleration:g} measures {count} of {mask.size}, its middle alone "
            f"{int(mask.sum())}. Take a smaller centre or acceleration."
        )
    return mask, count


def _columns(shape: tuple[int, int], line: Mask) -> Mask:
    require(is_whole(shape[0]) and shape[0] >= 1, "A mask needs a shape (height, width)", got=shape)
    return np.repeat(line[None], shape[0], 0)


#: The kinds by name, as the command takes them.
MASKS = {
    "uniform1d": uniform1d,
    "gaussian1d": gaussian1d,
    "uniform2d": uniform2d,
    "gaussian2d": gaussian2d,
    "equispaced": equispaced,
    "poisson": poisson_disc,
}
