"""Numba loops over the cells of a Poisson grid; a 2-D grid has one layer."""

from __future__ import annotations

from numba import njit


@njit(cache=True, fastmath={"contract", "reassoc", "nsz"})
def poisson_product(p, mask, counts, out):
    """``out = A p``; mask is 1 in fluid cells, counts holds their diagonal."""
    layers, rows, columns = p.shape
    for k in range(layers):
        for i in range(rows):
            row, fluid, count, target = p[k, i], mask[k, i], counts[k, i], out[k, i]
            for j in range(columns):
                target[j] = count[j] * row[j]
            for j in range(1, columns):
                target[j] -= fluid[j - 1] * row[j - 1]
            for j in range(columns - 1):
                target[j] -= fluid[j + 1] * row[j + 1]
            if i > 0:
                for j in range(columns):
                    target[j] -= mask[k, i - 1, j] * p[k, i - 1, j]
            if i + 1 < rows:
                for j in range(columns):
                    target[j] -= mask[k, i + 1, j] * p[k, i + 1, j]
            if k > 0:
                for j in range(columns):
                    target[j] -= mask[k - 1, i, j] * p[k - 1, i, j]
            if k + 1 < layers:
                for j in range(columns):
                    target[j] -= mask[k + 1, i, j] * p[k + 1, i, j]
            for j in range(columns):
                if fluid[j] == 0:
                    target[j] = row[j]


@njit(cache=True)
def remove_means(v, cells, ends):
    """Take its mean from each of the groups ``cells[ends[k] : ends[k + 1]]`` of v."""
    for k in range(len(ends) - 1):
        total = 0.0
        for c in range(ends[k], ends[k + 1]):
            total += v[cells[c]]
        mean = total / (ends[k + 1] - ends[k])
        for c in range(ends[k], ends[k + 1]):
            v[cells[c]] -= mean
