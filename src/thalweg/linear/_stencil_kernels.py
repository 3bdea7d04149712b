"""Red-black relaxation of the five-point stencil without a matrix.

Red points (i + j even) see black neighbours only and the other way round. One pass over the grid does both
colours and the residual: while row i is updated in red, row i - 1 has all it needs for black, and row i - 2
for the residual of its red points, so every number is read from memory once.
"""

from __future__ import annotations

from numba import njit

_FAST = {"contract", "reassoc", "nsz"}


@njit(cache=True, fastmath=_FAST, inline="always")
def _neighbours(row, up, down, j, last):
    total = up[j] + down[j]
    if j > 0:
        total += row[j - 1]
    if j < last:
        total += row[j + 1]
    return total


@njit(cache=True, fastmath=_FAST)
def _relax_row(u, b, i, first, center, neighbour, omega, zeros):
    """Relax the points ``first, first + 2, ...`` of row i; returns the squared residuals before, summed."""
    rows, columns = u.shape
    up = u[i - 1] if i > 0 else zeros
    down = u[i + 1] if i < rows - 1 else zeros
    row, rhs, last = u[i], b[i], columns - 1
    weight, total = omega / center, 0.0
    if first == 0:
        r = rhs[0] - center * row[0] - neighbour * _neighbours(row, up, down, 0, last)
        row[0] += weight * r
        total += r * r
    for j in range(2 - first if first == 0 else first, last, 2):
        r = rhs[j] - center * row[j] - neighbour * (up[j] + down[j] + row[j - 1] + row[j + 1])
        row[j] += weight * r
        total += r * r
    if last > 0 and (last - first) % 2 == 0:
        r = rhs[last] - center * row[last] - neighbour * _neighbours(row, up, down, last, last)
        row[last] += weight * r
        total += r * r
    return total


@njit(cache=True, fastmath=_FAST)
def _residual_row(u, b, i, first, center, neighbour, zeros):
    """Sum of the squared residuals of the points ``first, first + 2, ...`` of row i."""
    rows, columns = u.shape
    up = u[i - 1] if i > 0 else zeros
    down = u[i + 1] if i < rows - 1 else zeros
    row, rhs, last = u[i], b[i], columns - 1
    total = 0.0
    if first == 0:
        r = rhs[0] - center * row[0] - neighbour * _neighbours(row, up, down, 0, last)
        total += r * r
    for j in range(2 - first if first == 0 else first, last, 2):
        r = rhs[j] - center * row[j] - neighbour * (up[j] + down[j] + row[j - 1] + row[j + 1])
        total += r * r
    if last > 0 and (last - first) % 2 == 0:
        r = rhs[last] - center * row[last] - neighbour * _neighbours(row, up, down, last, last)
        total += r * r
    return total


@njit(cache=True, fastmath=_FAST)
def red_black_sweep(u, b, center, neighbour, omega, zeros):
    """One red and one black half-sweep in place; returns ``|b - A u|^2`` of the new ``u``.

    A black residual after its own relaxation is (1 - omega) times the one before.
    """
    rows = u.shape[0]
    red, black = 0.0, 0.0
    for i in range(rows + 2):
        if i < rows:
            _relax_row(u, b, i, i % 2, center, neighbour, omega, zeros)
        if 1 <= i <= rows:
            black += _relax_row(u, b, i - 1, i % 2, center, neighbour, omega, zeros)
        if i >= 2:
            red += _residual_row(u, b, i - 2, i % 2, center, neighbour, zeros)
    return red + (1.0 - omega) ** 2 * black
