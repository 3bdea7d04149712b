"""Numba loops over polytopes of parameters: what the answers leave on one support, and what it promises."""

from __future__ import annotations

import numpy as np
from numba import njit

#: What is nearer than this to a constraint's plane, relative to the numbers in it, lies on it.
ON = 1e-9


@njit(cache=True)
def _side(row, sign, bound, vertex, radius):
    """-1 inside ``sign row . v <= bound``, 0 on its plane, 1 outside; and by how much it is exceeded."""
    value, size = -bound, abs(bound)
    for j in range(len(row)):
        value += sign * row[j] * vertex[j]
        size += abs(row[j]) * radius
    if abs(value) <= ON * size:
        return 0, value
    return (1 if value > 0 else -1), value


@njit(cache=True)
def _share_an_edge(first, second, rows, pairs, basis):
    """Whether two vertices lie on planes with s - 1 independent normals: then the line between them is an edge.

    Planes are counted by rank and not by number: where some coincide, a count would take any two vertices for an edge.
    """
    s = rows.shape[1]
    rank = 0
    for p in range(pairs):
        if rank >= s - 1:
            return True
        if not ((first[2 * p] and second[2 * p]) or (first[2 * p + 1] and second[2 * p + 1])):
            continue
        whole = 0.0
        for j in range(s):
            basis[rank, j] = rows[p - s, j] if p >= s else 1.0 * (j == p)
            whole += basis[rank, j] * basis[rank, j]
        for _ in range(2):  # Gram and Schmidt, twice: that is orthogonal to rounding
            for q in range(rank):
                along = 0.0
                for j in range(s):
                    along += basis[rank, j] * basis[q, j]
                for j in range(s):
                    basis[rank, j] -= along * basis[q, j]
        left = 0.0
        for j in range(s):
            left += basis[rank, j] * basis[rank, j]
        if left > 1e-14 * whole:
            for j in range(s):
                basis[rank, j] /= np.sqrt(left)
            rank += 1
    return rank >= s - 1


@njit(cache=True)
def polytope_vertices(rows, rewards, tolerance, radius):
    """Vertices of ``{t : |t_j| <= radius, |rows t - rewards| <= tolerance}``, shape (V, s); none where it is empty.

    The box is cut by one half-space after the other: vertices outside go, and each edge that the plane meets leaves a
    new one. Widths (``tolerance``) far below 1e-7 of the rewards are lost in rounding.
    """
    k, s = rows.shape
    pairs = s + k
    count = 1 << s
    vertices = np.empty((count, s))
    tight = np.zeros((count, 2 * pairs), dtype=np.bool_)
    for v in range(count):
        for j in range(s):
            up = (v >> j) & 1
            vertices[v, j] = radius if up else -radius
            tight[v, 2 * j + 1 - up] = True
    sides, values, basis = np.empty(count, dtype=np.int64), np.empty(count), np.empty((s, s))
    for i in range(k):
        for half in range(2):
            sign = 1.0 if half == 0 else -1.0
            bound = sign * rewards[i] + tolerance
            here = 2 * (s + i) + half
            if len(sides) < count:
                sides, values = np.empty(2 * count, dtype=np.int64), np.empty(2 * count)
            inside = outside = 0
            for v in range(count):
                sides[v], values[v] = _side(rows[i], sign, bound, vertices[v], radius)
                tight[v, here] = sides[v] == 0
                inside += sides[v] < 0
                outside += sides[v] > 0
            if outside == 0:
                continue
            kept = count - outside
            if kept == 0:
                return np.empty((0, s))
            room = kept + inside * outside
            fresh, marks = np.empty((room, s)), np.zeros((room, 2 * pairs), dtype=np.bool_)
            found = 0
            for v in range(count):
                if sides[v] <= 0:
                    fresh[found], marks[found] = vertices[v], tight[v]
                    found += 1
            old = found
            for v in range(count):
                if sides[v] >= 0:
                    continue
                for w in range(count):
                    if sides[w] <= 0 or not _share_an_edge(tight[v], tight[w], rows, s + i + 1, basis):
                        continue
                    share = values[v] / (values[v] - values[w])
                    for j in range(s):
                        fresh[found, j] = vertices[v, j] + share * (vertices[w, j] - vertices[v, j])
                    known = False
                    for u in range(old, found):
                        apart = 0.0
                        for j in range(s):
                            apart = max(apart, abs(fresh[u, j] - fresh[found, j]))
                        known = known or apart <= ON * radius
                    if known:
                        continue
                    for j in range(s):
                        marks[found, 2 * j] = fresh[found, j] >= radius * (1 - ON)
                        marks[found, 2 * j + 1] = fresh[found, j] <= -radius * (1 - ON)
                    for q in range(i + 1):
                        for side in range(2):
                            if q == i and side > half:
                                continue
                            e = 1.0 if side == 0 else -1.0
                            on, _ = _side(rows[q], e, e * rewards[q] + tolerance, fresh[found], radius)
                            marks[found, 2 * (s + q) + side] = on == 0
                    marks[found, here] = True
                    found += 1
            vertices, tight, count = fresh[:found].copy(), marks[:found].copy(), found
    return vertices[:count]


@njit(cache=True)
def polytope_promise(columns, vertices, radius, where):
    """The largest over actions of ``min(max <phi_M(a), t>, radius |phi_M(a)|)``, over the vertices t; and its action.

    ``columns`` (s, n); the vertex of that action is written to ``where`` (s,).
    """
    s, n = columns.shape
    best, action = -np.inf, 0
    for a in range(n):
        norm = 0.0
        for j in range(s):
            norm += columns[j, a] * columns[j, a]
        norm = radius * np.sqrt(norm)
        if norm <= best:
            continue
        most, at = -np.inf, 0
        for v in range(len(vertices)):
            value = 0.0
            for j in range(s):
                value += columns[j, a] * vertices[v, j]
            if value > most:
                most, at = value, v
        most = min(most, norm)
        if most > best:
            best, action = most, a
            for j in range(s):
                where[j] = vertices[at, j]
    return best, action


@njit(cache=True)
def ball_promises(supports, columns, radius, bounds, actions, points):
    """What each support promises before any answer: ``radius max |phi_M(a)|``, its action and its parameter."""
    s, n = supports.shape[1], columns.shape[1]
    squares = np.empty(n)
    for c in range(len(supports)):
        squares[:] = 0.0
        for j in range(s):
            column = columns[supports[c, j]]
            for a in range(n):
                squares[a] += column[a] * column[a]
        best = np.argmax(squares)
        norm = np.sqrt(squares[best])
        bounds[c], actions[c] = radius * norm, best
        for j in range(s):
            points[c, j] = radius * columns[supports[c, j], best] / norm if norm > 0 else 0.0


@njit(cache=True)
def most_promising(
    order, supports, columns, asked, rewards, tolerance, radius, bounds, actions, points, seen
):
    """The support whose polytope promises most, -1 where all are empty; bounds are brought up to date as needed.

    Supports come in falling ``order`` of their bounds, which answers only lower: the first that cannot beat the best so
    far ends the search. A bound stands while the parameter that gave it (``points``) fits all answers since (``seen``).
    """
    best, found, s = -np.inf, -1, supports.shape[1]
    k = len(asked)
    rows, part = np.empty((k, s)), np.empty((s, columns.shape[1]))
    for c in order:
        if bounds[c] <= best:
            break
        for i in range(k):
            for j in range(s):
                rows[i, j] = columns[supports[c, j], asked[i]]
        stands = True
        for i in range(seen[c], k):
            value = 0.0
            for j in range(s):
                value += rows[i, j] * points[c, j]
            if abs(value - rewards[i]) > tolerance:
                stands = False
                break
        if not stands:
            # The latest answers first: what they leave of the box is often nothing.
            vertices = polytope_vertices(rows[::-1], rewards[::-1], tolerance, radius)
            if len(vertices) == 0:
                bounds[c] = -np.inf
                continue
            for j in range(s):
                part[j] = columns[supports[c, j]]
            bounds[c], actions[c] = polytope_promise(part, vertices, radius, points[c])
        seen[c] = k
        if bounds[c] > best:
            best, found = bounds[c], c
    return found
