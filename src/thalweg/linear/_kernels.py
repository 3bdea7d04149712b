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
def sor_two_sweeps(data, indices, indptr, diag, omega, b, x, out, out2, partial, block):
    """Two SOR sweeps, ``x`` to ``out`` to ``out2``, on two threads; returns both squared residual norms.

    The second sweep follows two blocks of rows behind the first, where the values it needs are final and the
    matrix is still in cache. The same bits as two calls of `sor_sweep` but for the order in which the norms
    are summed. ``block`` is at least the upper bandwidth of the matrix.
    """
    n = len(b)
    blocks = (n + block - 1) // block
    norms = np.zeros((2, blocks))
    for phase in range(blocks + 2):
        for thread in prange(2):
            if thread == 0:
                if phase < blocks:
                    low = phase * block
                    high = min(n, low + block)
                    norms[0, phase] = _sor_rows(
                        data, indices, indptr, diag, omega, b, x, out, partial, low, high
                    )
            elif phase >= 2:
                low = (phase - 2) * block
                high = min(n, low + block)
                norms[1, phase - 2] = _sor_rows(
                    data, indices, indptr, diag, omega, b, out, out2, partial, low, high
                )
    return norms[0].sum(), norms[1].sum()


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


@njit(cache=True, fastmath={"contract"})
def ssor_precondition(data, indices, indptr, diag, omega, r, z):
    """``z = W^-1 r`` with ``W = (D/omega + L) D^-1 (D/omega + L)' omega/(2 - omega)``; returns ``r . z``.

    A is symmetric: the transposed solve reads the upper half row by row.
    """
    n = len(r)
    for i in range(n):
        total = r[i]
        for k in range(indptr[i], diag[i]):
            total -= data[k] * z[indices[k]]
        z[i] = total * omega / data[diag[i]]
    scale = (2.0 - omega) / omega
    product = 0.0
    for i in range(n - 1, -1, -1):
        d = data[diag[i]]
        total = scale * d * z[i]
        for k in range(diag[i] + 1, indptr[i + 1]):
            total -= data[k] * z[indices[k]]
        z[i] = total * omega / d
        product += z[i] * r[i]
    return product


@njit(cache=True, fastmath={"contract"})
def ssor_cg_step(data, indices, indptr, diag, omega, x, r, z, p, q, rz):
    """One iteration of SSOR-preconditioned CG in place.

    Returns the new ``r . z``, the squared residual norm, and the curvature ``p . A p``, which is not positive
    only if A is not positive definite; x is then left as it was.
    """
    n = len(x)
    curvature = 0.0
    for i in range(n):
        total = 0.0
        for k in range(indptr[i], indptr[i + 1]):
            total += data[k] * p[indices[k]]
        q[i] = total
        curvature += total * p[i]
    if not curvature > 0.0:
        return rz, 0.0, curvature
    alpha = rz / curvature
    norm = 0.0
    for i in range(n):
        x[i] += alpha * p[i]
        r[i] -= alpha * q[i]
        norm += r[i] * r[i]
    new = ssor_precondition(data, indices, indptr, diag, omega, r, z)
    beta = new / rz
    for i in range(n):
        p[i] = z[i] + beta * p[i]
    return new, norm, curvature


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
    x, r, z, q = x0.copy(), b.copy(), np.empty(n), np.empty(n)
    for i in range(n):
        for k in range(indptr[i], indptr[i + 1]):
            r[i] -= data[k] * x0[indices[k]]
    target = tolerance * tolerance * (b @ b)
    if r @ r <= target:
        return 0
    rz = ssor_precondition(data, indices, indptr, diag, omega, r, z)
    p = z.copy()
    for k in range(1, cap + 1):
        rz, norm, _ = ssor_cg_step(data, indices, indptr, diag, omega, x, r, z, p, q, rz)
        if norm <= target:
            return k
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
