"""One row's least-squares problem: the rows of the design that it needs, gathered, and products with them.

Row j has entries e with columns ``indices[e]``, targets ``t_e`` and weights ``w_e``; its factor x minimises
``sum_e w_e (d_e x)^2 - 2 t_e d_e x`` plus ``x'Gx`` and ``ridge |x|^2``, d_e a row of the other side's factors D and G
the Gram matrix of what is seen everywhere (implicit feedback), or empty. The rows of D that a row needs are gathered
once into a buffer that stays in cache; rows that are longer are taken in pieces.
"""

from __future__ import annotations

from numba import njit

#: Sums may be taken in any order, so that they fill vector registers; NaN and infinity keep their meaning.
FAST = {"reassoc", "contract", "nsz", "arcp"}


@njit(cache=True, nogil=True, fastmath=FAST)
def gather(D, indices, first, count, A):
    """``A[:count] = D[indices[first:first + count]]``."""
    q = D.shape[1]
    for e in range(count):
        i = indices[first + e]
        for c in range(q):
            A[e, c] = D[i, c]


@njit(cache=True, nogil=True, fastmath=FAST)
def curvature(A, count, p, weights, first, out):
    """``out += A' W A p`` over the buffer's rows, four at a time; weights empty where all are one."""
    q, zero = len(p), p.dtype.type(0)  # sums that begin at column 0 keep to whole vector registers
    weighted = len(weights) > 0
    e = 0
    while e + 4 <= count:
        s0 = s1 = s2 = s3 = zero
        for c in range(q):
            s0 += p[c] * A[e, c]
            s1 += p[c] * A[e + 1, c]
            s2 += p[c] * A[e + 2, c]
            s3 += p[c] * A[e + 3, c]
        if weighted:
            s0 *= weights[first + e]
            s1 *= weights[first + e + 1]
            s2 *= weights[first + e + 2]
            s3 *= weights[first + e + 3]
        for c in range(q):
            out[c] += s0 * A[e, c] + s1 * A[e + 1, c] + s2 * A[e + 2, c] + s3 * A[e + 3, c]
        e += 4
    while e < count:
        s0 = zero
        for c in range(q):
            s0 += p[c] * A[e, c]
        if weighted:
            s0 *= weights[first + e]
        for c in range(q):
            out[c] += s0 * A[e, c]
        e += 1


@njit(cache=True, nogil=True, fastmath=FAST)
def right_side(A, count, targets, first, out):
    """``out += A' t`` over the buffer's rows."""
    q = len(out)
    e = 0
    while e + 4 <= count:
        t0, t1, t2, t3 = (
            targets[first + e],
            targets[first + e + 1],
            targets[first + e + 2],
            targets[first + e + 3],
        )
        for c in range(q):
            out[c] += t0 * A[e, c] + t1 * A[e + 1, c] + t2 * A[e + 2, c] + t3 * A[e + 3, c]
        e += 4
    while e < count:
        t0 = targets[first + e]
        for c in range(q):
            out[c] += t0 * A[e, c]
        e += 1


@njit(cache=True, nogil=True, fastmath=FAST)
def product(D, indices, A, held, weights, first, count, gram, lift, p, out):
    """``out = (A' W A + G + lift) p`` for a whole row, whose piece ``held`` may still lie in the buffer."""
    q = len(p)
    for c in range(q):
        out[c] = lift * p[c]
    if len(gram):
        for i in range(q):
            for c in range(q):
                out[c] += gram[i, c] * p[i]
    size = len(A)
    for piece in range(0, count, size):
        n = min(size, count - piece)
        if piece != held:
            gather(D, indices, first + piece, n, A)
            held = piece
        curvature(A, n, p, weights, first + piece, out)
    return held


@njit(cache=True, nogil=True, fastmath=FAST)
def right(D, indices, A, targets, first, count, b):
    """``b = A' t`` for a whole row; returns the piece that lies in the buffer."""
    b[:] = 0.0
    size, held = len(A), -1
    for piece in range(0, count, size):
        n = min(size, count - piece)
        gather(D, indices, first + piece, n, A)
        held = piece
        right_side(A, n, targets, first + piece, b)
    return held


@njit(cache=True, nogil=True, fastmath=FAST)
def dot(a, b):
    s = a.dtype.type(0)
    for c in range(len(a)):
        s += a[c] * b[c]
    return s


@njit(cache=True, nogil=True)
def opened(indptr, row, ridge, by_count):
    """Where a row's entries begin, how many they are, and its ridge."""
    first = indptr[row]
    count = indptr[row + 1] - first
    return first, count, ridge * count if by_count else ridge


@njit(cache=True, nogil=True, fastmath=FAST)
def residual(D, indices, A, targets, weights, first, count, gram, lift, x, b, w, r):
    """``b = A' t`` and ``r = b - N x``, N a row's normal matrix; returns the piece that lies in the buffer."""
    held = right(D, indices, A, targets, first, count, b)
    held = product(D, indices, A, held, weights, first, count, gram, lift, x, w)
    for c in range(len(x)):
        r[c] = b[c] - w[c]
    return held
