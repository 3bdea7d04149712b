"""Numba loops of block coordinate descent: sparse moves, block subproblems, forests, a heap for greedy choices.

Rows are sliced before the loops over their entries: a loop from zero spares the test for negative indices.
"""

from __future__ import annotations

import numpy as np
from numba import njit

from thalweg.numerics._disjoint_kernels import root


@njit(cache=True)
def scatter_rows(data, indices, indptr, block, d, out):
    """``out += H[:, block] d`` for a symmetric CSR matrix H."""
    for k in range(len(block)):
        i, step = block[k], d[k]
        entries, places = data[indptr[i] : indptr[i + 1]], indices[indptr[i] : indptr[i + 1]]
        for e in range(len(entries)):
            out[places[e]] += entries[e] * step


@njit(cache=True)
def box_l1_block(H, g, x, low, high, weight, tolerance, sweeps):
    """The minimiser d of ``g'd + d'H d/2 + sum weight |x + d|`` with ``low <= x + d <= high``, by its own sweeps."""
    n = len(g)
    d = np.zeros(n)
    r = g.copy()  # g + H d
    for _ in range(sweeps):
        largest = 0.0
        for i in range(n):
            curvature = H[i, i]
            if curvature <= 0.0:
                continue
            old = x[i] + d[i]
            u = old - r[i] / curvature
            t = weight[i] / curvature
            new = u - t if u > t else (u + t if u < -t else 0.0)
            new = min(max(new, low[i]), high[i])
            step = new - old
            if step != 0.0:
                d[i] += step
                for j in range(n):
                    r[j] += H[i, j] * step
                largest = max(largest, abs(step) * np.sqrt(curvature))
        if largest <= tolerance:
            break
    return d


@njit(cache=True)
def grow_forest(indptr, indices, order, allowed):
    """The nodes of ``order`` that can be taken, one after another, without closing a cycle; ascending."""
    n = len(indptr) - 1
    parent = np.arange(n)
    taken = np.zeros(n, np.bool_)
    roots = np.empty(n, np.int64)
    for v in order:
        if not allowed[v]:
            continue
        found, fits = 0, True
        for e in range(indptr[v], indptr[v + 1]):
            u = indices[e]
            if u != v and taken[u]:
                top = root(parent, u)
                for k in range(found):
                    if roots[k] == top:
                        fits = False
                        break
                if not fits:
                    break
                roots[found] = top
                found += 1
        if fits:
            taken[v] = True
            for k in range(found):
                parent[roots[k]] = v
    return np.flatnonzero(taken)


@njit(cache=True)
def elimination_order(indptr, indices, block, position):
    """Nodes of a forest, parents before children, with each one's parent (-1 for roots), as places in ``block``.

    ``position`` holds each node's place in the block, or -1. Returns a flag that is False where there is a cycle.
    """
    b = len(block)
    order, parent = np.empty(b, np.int64), np.full(b, -2, np.int64)
    done = 0
    for start in range(b):
        if parent[start] != -2:
            continue
        parent[start] = -1
        order[done] = start
        head, done = done, done + 1
        while head < done:
            k = order[head]
            head += 1
            v = block[k]
            for e in range(indptr[v], indptr[v + 1]):
                j = position[indices[e]]
                if j < 0 or j == k or j == parent[k]:
                    continue
                if parent[j] != -2:
                    return order, parent, False
                parent[j] = k
                order[done] = j
                done += 1
    return order, parent, True


@njit(cache=True)
def solve_forest(data, indices, indptr, block, position, order, parent, g, diagonal, d):
    """``H_bb d = -g`` by elimination from the leaves to the roots and back; O(entries of the rows).

    Returns False where a pivot is not positive.
    """
    b = len(block)
    link = np.zeros(b)
    for k in range(b):
        v = block[k]
        diagonal[k] = 0.0
        d[k] = -g[k]
        entries, places = data[indptr[v] : indptr[v + 1]], indices[indptr[v] : indptr[v + 1]]
        for e in range(len(entries)):
            j = position[places[e]]
            if j == k:
                diagonal[k] = entries[e]
            elif j >= 0 and j == parent[k]:
                link[k] = entries[e]
    for t in range(b - 1, -1, -1):
        k = order[t]
        if diagonal[k] <= 0.0:
            return False
        p = parent[k]
        if p >= 0:
            ratio = link[k] / diagonal[k]
            diagonal[p] -= ratio * link[k]
            d[p] -= ratio * d[k]
    for t in range(b):
        k = order[t]
        p = parent[k]
        if p >= 0:
            d[k] -= link[k] * d[p]
        d[k] /= diagonal[k]
    return True


@njit(cache=True)
def _sift_up(heap, place, key, i):
    while i > 0:
        above = (i - 1) // 2
        if key[heap[above]] >= key[heap[i]]:
            break
        heap[above], heap[i] = heap[i], heap[above]
        place[heap[above]], place[heap[i]] = above, i
        i = above
    return i


@njit(cache=True)
def _sift_down(heap, place, key, i):
    n = len(heap)
    while True:
        best, left = i, 2 * i + 1
        if left < n and key[heap[left]] > key[heap[best]]:
            best = left
        if left + 1 < n and key[heap[left + 1]] > key[heap[best]]:
            best = left + 1
        if best == i:
            return
        heap[best], heap[i] = heap[i], heap[best]
        place[heap[best]], place[heap[i]] = best, i
        i = best


@njit(cache=True)
def heap_make(key):
    """A max-heap of coordinates by ``key``, and each coordinate's place in it."""
    n = len(key)
    heap = np.arange(n)
    place = np.arange(n)
    for i in range(n // 2 - 1, -1, -1):
        _sift_down(heap, place, key, i)
    return heap, place


@njit(cache=True)
def greedy_steps(data, indices, indptr, lipschitz, weights, x, g, key, heap, place, steps):
    """``steps`` exact greedy coordinate steps on a quadratic with sparse H; a step costs a column and its sifts.

    ``key`` is ``(g_i weights_i)^2``. Stops early where the gradient is zero; returns the steps done.
    """
    for done in range(steps):
        i = heap[0]
        if key[i] == 0.0:
            return done
        step = -g[i] / lipschitz[i]
        x[i] += step
        entries, places = data[indptr[i] : indptr[i + 1]], indices[indptr[i] : indptr[i + 1]]
        for e in range(len(entries)):
            j = places[e]
            g[j] += entries[e] * step
            if j == i:
                g[j] = 0.0
            key[j] = (g[j] * weights[j]) ** 2
            at = place[j]
            if _sift_up(heap, place, key, at) == at:
                _sift_down(heap, place, key, at)
    return steps
