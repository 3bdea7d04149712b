"""Numba loops over the rows of a CSR matrix.

A relaxation sweep is bound by reading the matrix, so each kernel below reads every entry once and gets the
residual from sums it needs anyway: the part right of the diagonal that sweep k + 1 forms is the part that
the residual after sweep k lacks.
"""

from __future__ import annotations

import numpy as np
from numba import njit, prange


@njit(cache=True)
def diagonal_positions(indptr, indices):
    """Position of each diagonal entry in ``data``; -1 where a row stores none. Columns are sorted."""
    n = len(indptr) - 1
    positions = np.full(n, -1, dtype=np.int32)
    for i in range(n):
        for k in range(indptr[i], indptr[i + 1]):
            if indices[k] == i:
                positions[i] = k
                break
    return positions


@njit(cache=True)
def lower_residual(data, indices, indptr, diag, b, x, partial):
    """``partial = b - (L + D) x``."""
    for i in range(len(b)):
        total = b[i]
        for k in range(indptr[i], diag[i] + 1):
            total -= data[k] * x[indices[k]]
        partial[i] = total


@njit(cache=True, fastmath={"contract"})
def _sor_rows(data, indices, indptr, diag, omega, b, x, out, partial, low, high):
    """Rows low to high of one SOR sweep from ``x`` into ``out``; returns their share of ``|b - A x|^2``.

    The left neighbour, which the row before has just written, enters last: one multiply-add is then all
    that one row waits for from another. Indices are unsigned, which spares Numba's test for negative ones.
    """
    one = np.uint64(1)
    norm, begin = 0.0, indptr[low]
    before = out[low - 1] if low > 0 else 0.0
    for i in range(np.uint64(low), np.uint64(high)):
        middle, end = diag[i], indptr[i + one]
        upper = 0.0
        for k in range(middle + np.uint32(1), end):
            upper += data[k] * x[indices[k]]
        residual = partial[i] - upper
        norm += residual * residual
        last, left = middle, 0.0
        if middle > begin and indices[middle - np.uint32(1)] == i - one:
            last = middle - np.uint32(1)
            left = data[last]
        rest = b[i]
        for k in range(begin, last):
            rest -= data[k] * out[indices[k]]
        d, old = data[middle], x[i]
        weight = omega / d
        new = (old + weight * (rest - upper - d * old)) - (weight * left) * before
        out[i] = new
        partial[i] = (rest - left * before) - d * new
        before, begin = new, end
    return norm


@njit(cache=True)
def sor_sweep(data, indices, indptr, diag, omega, b, x, out, partial):
    """One SOR sweep from ``x`` into ``out``; returns ``|b - A x|^2`` of the vector it started from.

    ``diag`` are the positions of the diagonal entries, and all indices are unsigned. ``partial`` holds
    ``b - (L + D) x`` on entry and the same of ``out`` on exit.
    """
    return _sor_rows(data, indices, indptr, diag, omega, b, x, out, partial, 0, len(b))


@njit(cache=True, parallel=True)
def sor_wavefront(data, indices, indptr, diag, omega, b, iterates, first, partial, block):
    """Several SOR sweeps in one pass over memory on two threads; returns ``|b - A x|^2`` before each of them.

    Sweep s goes from row ``first + s`` of ``iterates`` to the next, rows counted cyclically. Each follows a block
    of matrix rows behind the one before, where the values it needs are final and the matrix is still in cache;
    one more between the threads, which work side by side. The same bits as calls of `sor_sweep` but for the order
    in which the norms are summed. ``block`` is at least the upper bandwidth of the matrix.
    """
    n, kept = len(b), len(iterates)
    blocks, sweeps = (n + block - 1) // block, kept - 1
    norms = np.zeros((sweeps, blocks))
    for phase in range(blocks + sweeps):
        for thread in prange(2):
            for s in range(thread * sweeps // 2, (thread + 1) * sweeps // 2):
                k = phase - s - thread
                if 0 <= k < blocks:
                    x, out = iterates[(first + s) % kept], iterates[(first + s + 1) % kept]
                    low, high = k * block, min(n, (k + 1) * block)
                    norms[s, k] = _sor_rows(data, indices, indptr, diag, omega, b, x, out, partial, low, high)
    return norms.sum(axis=1)


@njit(cache=True, fastmath={"contract"})
def ssor_sweep(data, indices, indptr, diag, omega, b, x, rest, upper):
    """One forward and one backward sweep in place; returns ``|b - A x|^2`` of the new ``x``.

    ``upper`` holds the products of x with the part right of the diagonal, on entry and on exit; ``rest``
    carries ``b - L x`` from the forward to the backward sweep, which then reads the upper half only.
    """
    n = len(b)
    for i in range(n):
        total = b[i]
        for k in range(indptr[i], diag[i]):
            total -= data[k] * x[indices[k]]
        rest[i] = total
        d = data[diag[i]]
        x[i] += (omega / d) * (total - upper[i] - d * x[i])
    for i in range(n - 1, -1, -1):
        total = 0.0
        for k in range(diag[i] + 1, indptr[i + 1]):
            total += data[k] * x[indices[k]]
        upper[i] = total
        d = data[diag[i]]
        x[i] += (omega / d) * (rest[i] - total - d * x[i])
    norm = 0.0
    for i in range(n):
        total = b[i] - upper[i]
        for k in range(indptr[i], diag[i] + 1):
            total -= data[k] * x[indices[k]]
        norm += total * total
    return norm


@njit(cache=True)
def upper_product(data, indices, indptr, diag, x, upper):
    """``upper = U x``, U the part right of the diagonal."""
    for i in range(len(x)):
        total = 0.0
        for k in range(diag[i] + 1, indptr[i + 1]):
            total += data[k] * x[indices[k]]
        upper[i] = total


@njit(cache=True, fastmath={"contract"})
def jacobi_sweep(data, indices, indptr, weights, b, x, residual):
    """``x += weights residual``, then ``residual = b - A x``; returns its squared norm."""
    n = len(b)
    for i in range(n):
        x[i] += weights[i] * residual[i]
    norm = 0.0
    for i in range(n):
        total = b[i]
        for k in range(indptr[i], indptr[i + 1]):
            total -= data[k] * x[indices[k]]
        residual[i] = total
        norm += total * total
    return norm


# Preconditioned CG by Eisenstat's trick (1981): with ``M = D/omega + L`` and ``c = (2 - omega)/omega`` the SSOR
# matrix is ``W = M D^-1 M' / c`` and ``A = M + M' - c D``. Carrying ``s = M^-1 r`` and ``g = M' p`` instead of
# W^-1 r, one backward and one forward solve give the product with A too, so that an iteration reads the matrix
# once. As in `_sor_rows` the neighbour just computed enters last.


@njit(cache=True, fastmath={"contract"})
def lower_solve(data, indices, indptr, diag, omega, r, s):
    """``s = M^-1 r``; returns ``r . W^-1 r = c s . D s``."""
    one = np.uint64(1)
    begin, before, total = indptr[0], 0.0, 0.0
    for i in range(np.uint64(len(r))):
        middle = diag[i]
        last, left = middle, 0.0
        if middle > begin and indices[middle - np.uint32(1)] == i - one:
            last = middle - np.uint32(1)
            left = data[last]
        rest = r[i]
        for k in range(begin, last):
            rest -= data[k] * s[indices[k]]
        d = data[middle]
        weight = omega / d
        before = weight * rest - (weight * left) * before
        s[i] = before
        total += d * before * before
        begin = indptr[i + one]
    return (2.0 - omega) / omega * total


@njit(cache=True, fastmath={"contract"})
def upper_solve(data, indices, indptr, diag, omega, s, beta, g, p):
    """``g = c D s + beta g``, then ``p = M'^-1 g``; A is symmetric, so M' is read row by row."""
    n, one = np.uint64(len(s)), np.uint64(1)
    c = (2.0 - omega) / omega
    end, after = indptr[n], 0.0
    for j in range(n):
        i = n - one - j
        middle = diag[i]
        d = data[middle]
        rest = c * d * s[i] + beta * g[i]
        g[i] = rest
        first, right = middle + np.uint32(1), 0.0
        if first < end and indices[first] == i + one:
            right = data[first]
            first += np.uint32(1)
        for k in range(first, end):
            rest -= data[k] * p[indices[k]]
        weight = omega / d
        after = weight * rest - (weight * right) * after
        p[i] = after
        end = indptr[i]


@njit(cache=True, fastmath={"contract"})
def _product(data, indices, indptr, diag, omega, g, p, y, q):
    """``y = M^-1 A p - p`` and ``q = A p`` from ``g = M' p``; returns ``p . A p``."""
    one = np.uint64(1)
    c = (2.0 - omega) / omega
    begin, before, curvature = indptr[0], 0.0, 0.0
    for i in range(np.uint64(len(p))):
        middle = diag[i]
        last, left, lower = middle, 0.0, 0.0
        if middle > begin and indices[middle - np.uint32(1)] == i - one:
            last = middle - np.uint32(1)
            left = data[last]
            lower = left * p[i - one]
        solved = 0.0
        for k in range(begin, last):
            column = indices[k]
            lower += data[k] * p[column]
            solved += data[k] * y[column]
        d = data[middle]
        weight = omega / d
        rest = g[i] - c * d * p[i]
        before = weight * (rest - solved) - (weight * left) * before
        y[i] = before
        q[i] = d / omega * p[i] + lower + rest
        curvature += g[i] * (p[i] + before)
        begin = indptr[i + one]
    return curvature


@njit(cache=True, fastmath={"contract"})
def ssor_cg_step(data, indices, indptr, diag, omega, x, r, s, g, p, y, q, rz, beta):
    """One iteration of SSOR-preconditioned CG in place.

    Returns the new ``r . W^-1 r``, the squared residual norm, and the curvature ``p . A p``, which is not
    positive only if A is not positive definite; x is then left as it was.
    """
    upper_solve(data, indices, indptr, diag, omega, s, beta, g, p)
    curvature = _product(data, indices, indptr, diag, omega, g, p, y, q)
    if not curvature > 0.0:
        return rz, 0.0, curvature
    alpha = rz / curvature
    norm, total = 0.0, 0.0
    for i in range(np.uint64(len(x))):
        x[i] += alpha * p[i]
        s[i] -= alpha * (p[i] + y[i])
        r[i] -= alpha * q[i]
        norm += r[i] * r[i]
        total += data[diag[i]] * s[i] * s[i]
    return (2.0 - omega) / omega * total, norm, curvature


@njit(cache=True)
def sor_iterations(data, indices, indptr, diag, b, omega, tolerance, cap):
    """Sweeps of SOR from zero until ``|r| <= tolerance |b|``; ``cap`` when it takes more."""
    n = len(b)
    x, out, partial = np.zeros(n), np.empty(n), b.copy()
    target = tolerance * tolerance * (b @ b)
    for k in range(cap):
        if sor_sweep(data, indices, indptr, diag, omega, b, x, out, partial) <= target:
            return k
        x, out = out, x
    return cap


@njit(cache=True)
def ssor_cg_iterations(data, indices, indptr, diag, b, x0, omega, tolerance, cap):
    """Iterations of SSOR-preconditioned CG from ``x0`` until ``|r| <= tolerance |b|``; ``cap`` when more."""
    n = len(b)
    x, r, s, y, q = x0.copy(), b.copy(), np.empty(n), np.empty(n), np.empty(n)
    g, p = np.zeros(n), np.empty(n)
    for i in range(n):
        for k in range(indptr[i], indptr[i + 1]):
            r[i] -= data[k] * x0[indices[k]]
    target = tolerance * tolerance * (b @ b)
    if r @ r <= target:
        return 0
    rz, beta = lower_solve(data, indices, indptr, diag, omega, r, s), 0.0
    for k in range(1, cap + 1):
        new, norm, _ = ssor_cg_step(data, indices, indptr, diag, omega, x, r, s, g, p, y, q, rz, beta)
        if norm <= target:
            return k
        rz, beta = new, new / rz
    return cap


@njit(cache=True, parallel=True)
def sor_cost_table(data, indices, indptr, diag, offsets, b, omegas, tolerance, cap):
    """Iterations of SOR for every system ``(A + offset_t I) x = b_t`` and every omega: shape (T, d)."""
    costs = np.empty((len(offsets), len(omegas)), dtype=np.int64)
    for t in prange(len(offsets)):
        shifted = data.copy()
        for i in range(len(diag)):
            shifted[diag[i]] += offsets[t]
        for a in range(len(omegas)):
            costs[t, a] = sor_iterations(shifted, indices, indptr, diag, b[t], omegas[a], tolerance, cap)
    return costs


@njit(cache=True, parallel=True)
def ssor_cg_costs(data, indices, indptr, diag, b, x0, omegas, tolerance, cap):
    """Iterations of SSOR-preconditioned CG on one system for every omega: shape (d,)."""
    costs = np.empty(len(omegas), dtype=np.int64)
    for a in prange(len(omegas)):
        costs[a] = ssor_cg_iterations(data, indices, indptr, diag, b, x0, omegas[a], tolerance, cap)
    return costs
