"""Numba loops on matrices of some hundred rows: exponentials, Cholesky factor, inverse. No LAPACK, and so no threads.

Floating-point sums may be reordered in what is marked `sums`, and nowhere else. NaN and infinity keep their meaning.
"""

from __future__ import annotations

import math

import numpy as np
from llvmlite import ir
from numba import njit, types
from numba.extending import intrinsic

exact = njit(cache=True, nogil=True, error_model="numpy")
steady = njit(cache=True, nogil=True, error_model="numpy", fastmath={"contract"})
sums = njit(cache=True, nogil=True, error_model="numpy", fastmath={"contract", "reassoc", "nsz", "arcp"})

#: What is left of a variance of one after subtractions, at least; less is rounding.
PIVOT = 1e-14


@intrinsic
def _bits(typing, x):
    return types.int64(types.float64), lambda _, builder, __, args: builder.bitcast(args[0], ir.IntType(64))


@intrinsic
def _number(typing, x):
    return types.float64(types.int64), lambda _, builder, __, args: builder.bitcast(args[0], ir.DoubleType())


@steady
def exp_below(x):
    """``exp(x)`` for x <= 0 to the last digit or two, without a branch: loops over it become vector instructions.

    ``x = k log 2 + r``; the Taylor polynomial of r to the twelfth power, with k added to its exponent.
    """
    x = max(x, -700.0)
    shifted = x * 1.4426950408889634 + 6755399441055744.0  # 1.5 * 2^52: the last bits hold k
    k = shifted - 6755399441055744.0
    r = x - k * 0.6931471803691238 - k * 1.9082149292705877e-10
    p = 1.0 / 479001600.0
    p = p * r + 1.0 / 39916800.0
    p = p * r + 1.0 / 3628800.0
    p = p * r + 1.0 / 362880.0
    p = p * r + 1.0 / 40320.0
    p = p * r + 1.0 / 5040.0
    p = p * r + 1.0 / 720.0
    p = p * r + 1.0 / 120.0
    p = p * r + 1.0 / 24.0
    p = p * r + 1.0 / 6.0
    p = p * r + 0.5
    p = p * r + 1.0
    p = p * r + 1.0
    return _number(_bits(p) + (_bits(shifted) << 52))


@exact
def copy(source, target):
    """Numbers from one vector to another; a slice assignment takes a second to compile."""
    for i in range(len(source)):
        target[i] = source[i]


@exact
def order_of(values):
    """Indices of some hundred numbers, smallest first."""
    order = np.empty(len(values), np.int64)
    for i in range(len(values)):
        j = i
        while j > 0 and values[order[j - 1]] > values[i]:
            order[j] = order[j - 1]
            j -= 1
        order[j] = i
    return order


@sums
def dot(a, b, n):
    """The inner product of the first n numbers."""
    total = 0.0
    for j in range(n):
        total += a[j] * b[j]
    return total


@sums
def cholesky(K, n):
    """The lower Cholesky factor in place of the lower part; returns half the log determinant, NaN where there is none.

    Four rows at once: each row above is read once for four inner products. Cost: n^3/3.
    """
    half_log = 0.0
    i = 0
    while i < n:
        rows = min(4, n - i)
        if rows == 4:
            r0, r1, r2, r3 = K[i], K[i + 1], K[i + 2], K[i + 3]
            for j in range(i):
                above = K[j]
                s0 = s1 = s2 = s3 = 0.0
                for k in range(j):
                    t = above[k]
                    s0 += r0[k] * t
                    s1 += r1[k] * t
                    s2 += r2[k] * t
                    s3 += r3[k] * t
                t = 1.0 / above[j]
                r0[j] = (r0[j] - s0) * t
                r1[j] = (r1[j] - s1) * t
                r2[j] = (r2[j] - s2) * t
                r3[j] = (r3[j] - s3) * t
        for a in range(i, i + rows):
            row = K[a]
            for j in range(i if rows == 4 else 0, a):
                row[j] = (row[j] - dot(row, K[j], j)) / K[j, j]
            left = row[a] - dot(row, row, a)
            if not left > PIVOT:
                return np.nan
            row[a] = math.sqrt(left)
            half_log += math.log(row[a])
        i += rows
    return half_log


@sums
def inverse_lower(L, M, n):
    """``M = L^-1``, both lower triangular; M's rows are zero right of the diagonal up to n. Cost: n^3/3."""
    for i in range(n):
        out, row = M[i], L[i]
        for j in range(n):
            out[j] = 0.0
        k = 0
        while k + 4 <= i:
            a0, a1, a2, a3 = row[k], row[k + 1], row[k + 2], row[k + 3]
            m0, m1, m2, m3 = M[k], M[k + 1], M[k + 2], M[k + 3]
            for j in range(k + 4):
                out[j] += a0 * m0[j] + a1 * m1[j] + a2 * m2[j] + a3 * m3[j]
            k += 4
        while k < i:
            a0, m0 = row[k], M[k]
            for j in range(k + 1):
                out[j] += a0 * m0[j]
            k += 1
        t = 1.0 / row[i]
        for j in range(i):
            out[j] *= -t
        out[i] = t


@sums
def gram(M, Q, n):
    """The lower part of ``Q = M' M`` for a lower triangular M. Cost: n^3/3."""
    for i in range(n):
        q = Q[i]
        for j in range(i + 1):
            q[j] = 0.0
        k = i
        while k + 4 <= n:
            m0, m1, m2, m3 = M[k], M[k + 1], M[k + 2], M[k + 3]
            a0, a1, a2, a3 = m0[i], m1[i], m2[i], m3[i]
            for j in range(i + 1):
                q[j] += a0 * m0[j] + a1 * m1[j] + a2 * m2[j] + a3 * m3[j]
            k += 4
        while k < n:
            m0 = M[k]
            a0 = m0[i]
            for j in range(i + 1):
                q[j] += a0 * m0[j]
            k += 1
