"""Loops compiled by Numba."""

from numba import njit


@njit(cache=True)
def thrown(order, rows, columns, radius, taken, blocked):
    """Darts in the given order that lie no nearer than ``radius`` to one another; counts and marks them."""
    reach, count = int(radius), 0
    for place in order:
        i, j = place // columns, place % columns
        if blocked[i, j]:
            continue
        taken[i, j] = True
        count += 1
        for a in range(max(0, i - reach), min(rows, i + reach + 1)):
            for b in range(max(0, j - reach), min(columns, j + reach + 1)):
                if (a - i) ** 2 + (b - j) ** 2 < radius * radius:
                    blocked[a, b] = True
    return count
