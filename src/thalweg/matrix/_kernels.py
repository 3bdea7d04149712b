"""Half-steps of alternating minimisation over some rows of a matrix: every row is a small least-squares problem.

Row j has entries e with columns ``indices[e]``, targets ``t_e`` and weights ``w_e``; its factor x minimises
``sum_e w_e (d_e x)^2 - 2 t_e d_e x`` plus ``x'Gx`` and ``ridge |x|^2``, d_e a row of the other side's factors D and G
the Gram matrix of what is seen everywhere (implicit feedback), or empty. The rows of D that a row needs are gathered
once into a buffer that stays in cache; rows that are longer are taken in pieces.
"""

from __future__ import annotations

import numpy as np
from numba import njit

from thalweg.numerics._sketch_kernels import householder, osnap

#: Sums may be taken in any order, so that they fill vector registers; NaN and infinity keep their meaning.
FAST = {"reassoc", "contract", "nsz", "arcp"}
#: Width from which a library's matrix product beats loops.
WIDE = 12


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
    q = len(p)
    weighted = len(weights) > 0
    e = 0
    while e + 4 <= count:
        s0 = p[0] * A[e, 0]
        s1 = p[0] * A[e + 1, 0]
        s2 = p[0] * A[e + 2, 0]
        s3 = p[0] * A[e + 3, 0]
        for c in range(1, q):
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
        s0 = p[0] * A[e, 0]
        for c in range(1, q):
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
def _product(D, indices, A, held, weights, first, count, gram, lift, p, out):
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
def _right(D, indices, A, targets, first, count, b):
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
def _dot(a, b):
    s = a[0] * b[0]
    for c in range(1, len(a)):
        s += a[c] * b[c]
    return s


@njit(cache=True, nogil=True, fastmath=FAST)
def _conjugate(D, indices, A, held, weights, first, count, gram, lift, steps, least, x, r, p, w):
    """Conjugate gradients from x with residual r in place; returns ``|r|^2`` at the end.

    A direction along which there is next to no curvature is left alone: of a singular system only rounding remains.
    """
    rr, steepest = _dot(r, r), 0.0
    for c in range(len(x)):
        p[c] = r[c]
    for _ in range(steps):
        if rr <= least:
            break
        held = _product(D, indices, A, held, weights, first, count, gram, lift, p, w)
        along = _dot(p, w)
        slope = along / _dot(p, p)
        steepest = max(steepest, slope)
        if not slope > 32.0 * np.finfo(x.dtype).eps * steepest:
            break
        a = rr / along
        for c in range(len(x)):
            x[c] += a * p[c]
            r[c] -= a * w[c]
        new = _dot(r, r)
        b = new / rr
        rr = new
        for c in range(len(x)):
            p[c] = r[c] + b * p[c]
    return rr


@njit(cache=True, nogil=True, fastmath=FAST)
def cg_rows(indptr, indices, targets, weights, D, gram, ridge, by_count, steps, start, X, slopes, rights, A):
    """``steps`` of conjugate gradients a row from where X stands; X[j] is row ``start + j``.

    ``slopes`` and ``rights`` get ``|b - N x|^2`` before and ``|b|^2``. Cost: ``4 (steps + 1) k`` flops an entry.
    """
    q = D.shape[1]
    r, p, w, b = np.empty(q, D.dtype), np.empty(q, D.dtype), np.empty(q, D.dtype), np.empty(q, D.dtype)
    rounding = np.finfo(D.dtype).eps
    for j in range(len(X)):
        first = indptr[start + j]
        count = indptr[start + j + 1] - first
        x = X[j]
        if count == 0:
            x[:] = 0.0
            slopes[j] = rights[j] = 0.0
            continue
        lift = ridge * count if by_count else ridge
        held = _right(D, indices, A, targets, first, count, b)
        held = _product(D, indices, A, held, weights, first, count, gram, lift, x, w)
        for c in range(q):
            r[c] = b[c] - w[c]
        slopes[j], rights[j] = _dot(r, r), _dot(b, b)
        least = (16.0 * rounding) ** 2 * rights[j]
        _conjugate(D, indices, A, held, weights, first, count, gram, lift, steps, least, x, r, p, w)


@njit(cache=True, nogil=True, fastmath=FAST)
def _add_gram(A, n, weights, first, scaled, N):
    """``N += A' W A`` over the buffer's rows, four at a time."""
    q = N.shape[0]
    if q >= WIDE:
        if len(weights):
            for e in range(n):
                for c in range(q):
                    scaled[e, c] = weights[first + e] * A[e, c]
            N += np.dot(scaled[:n].T, A[:n])
        else:
            N += np.dot(A[:n].T, A[:n])
        return
    e = 0
    while e + 4 <= n:
        w0 = weights[first + e] if len(weights) else 1.0
        w1 = weights[first + e + 1] if len(weights) else 1.0
        w2 = weights[first + e + 2] if len(weights) else 1.0
        w3 = weights[first + e + 3] if len(weights) else 1.0
        for i in range(q):
            s0, s1, s2, s3 = w0 * A[e, i], w1 * A[e + 1, i], w2 * A[e + 2, i], w3 * A[e + 3, i]
            for c in range(q):
                N[i, c] += s0 * A[e, c] + s1 * A[e + 1, c] + s2 * A[e + 2, c] + s3 * A[e + 3, c]
        e += 4
    while e < n:
        w0 = weights[first + e] if len(weights) else 1.0
        for i in range(q):
            s0 = w0 * A[e, i]
            for c in range(q):
                N[i, c] += s0 * A[e, c]
        e += 1


@njit(cache=True, nogil=True, fastmath=FAST)
def _normal_matrix(D, indices, A, scaled, targets, weights, first, count, gram, lift, b, N):
    """``N = A' W A + G + lift``, its lower half at least, and ``b = A' t``; returns the piece in the buffer."""
    q = len(b)
    b[:] = 0.0
    if len(gram):
        N[:, :] = gram
    else:
        N[:, :] = 0.0
    size, held = len(A), -1
    for piece in range(0, count, size):
        n = min(size, count - piece)
        gather(D, indices, first + piece, n, A)
        held = piece
        right_side(A, n, targets, first + piece, b)
        _add_gram(A, n, weights, first + piece, scaled, N)
    for c in range(q):
        N[c, c] += lift
    return held


@njit(cache=True, nogil=True, fastmath=FAST)
def _cholesky(N):
    """The lower factor in the place of N's lower half; False where N is singular to rounding."""
    q = len(N)
    largest = 0.0
    for i in range(q):
        largest = max(largest, N[i, i])
    least = 32.0 * q * np.finfo(N.dtype).eps * largest
    for i in range(q):
        for j in range(i):
            s = N[i, j]
            for c in range(j):
                s -= N[i, c] * N[j, c]
            N[i, j] = s / N[j, j]
        s = N[i, i]
        for c in range(i):
            s -= N[i, c] * N[i, c]
        if not s > least:
            return False
        N[i, i] = np.sqrt(s)
    return True


@njit(cache=True, nogil=True, fastmath=FAST)
def _back(L, x):
    """``x = (L L')^-1 x``."""
    q = len(x)
    for i in range(q):
        s = x[i]
        for c in range(i):
            s -= L[i, c] * x[c]
        x[i] = s / L[i, i]
    for i in range(q - 1, -1, -1):
        x[i] /= L[i, i]
        s = x[i]
        for c in range(i):
            x[c] -= L[i, c] * s


@njit(cache=True, nogil=True, fastmath=FAST)
def _lower_times(N, x, out):
    """``out = N x`` from N's lower half."""
    q = len(x)
    out[:] = 0.0
    for i in range(q):
        s = N[i, i] * x[i]
        for c in range(i):
            s += N[i, c] * x[c]
            out[c] += N[i, c] * x[i]
        out[i] += s


@njit(cache=True, nogil=True, fastmath=FAST)
def exact_rows(indptr, indices, targets, weights, D, gram, ridge, by_count, start, X, slopes, rights, A):
    """Each row's least-squares problem solved: normal equations and Cholesky; arguments as `cg_rows`.

    Where they are singular, conjugate gradients from zero give the solution of least norm. Cost: ``k^2`` flops an entry
    and ``k^3/3`` a row.
    """
    q = D.shape[1]
    N, L, b, w = (
        np.empty((q, q), D.dtype),
        np.empty((q, q), D.dtype),
        np.empty(q, D.dtype),
        np.empty(q, D.dtype),
    )
    r, p = np.empty(q, D.dtype), np.empty(q, D.dtype)
    scaled = np.empty(A.shape if len(weights) and q >= WIDE else (0, q), D.dtype)
    rounding = np.finfo(D.dtype).eps
    for j in range(len(X)):
        first = indptr[start + j]
        count = indptr[start + j + 1] - first
        x = X[j]
        if count == 0:
            x[:] = 0.0
            slopes[j] = rights[j] = 0.0
            continue
        lift = ridge * count if by_count else ridge
        held = _normal_matrix(D, indices, A, scaled, targets, weights, first, count, gram, lift, b, N)
        _lower_times(N, x, w)
        slopes[j], rights[j] = 0.0, _dot(b, b)
        for c in range(q):
            slopes[j] += (b[c] - w[c]) * (b[c] - w[c])
        L[:, :] = N
        if (count >= q or lift > 0.0 or len(gram) > 0) and _cholesky(L):
            x[:] = b
            _back(L, x)
        else:
            x[:] = 0.0
            r[:] = b
            least = (16.0 * rounding) ** 2 * rights[j]
            _conjugate(D, indices, A, held, weights, first, count, gram, lift, 4 * q + 20, least, x, r, p, w)


@njit(cache=True, nogil=True, fastmath=FAST)
def coordinate_rows(
    indptr, indices, targets, weights, D, gram, ridge, by_count, passes, free, start, X, slopes, rights, A
):
    """``passes`` of coordinate descent with ``x >= 0`` but for the last ``free`` coordinates; arguments as `cg_rows`.

    Cost: ``k^2`` flops an entry and ``passes k^2`` a row.
    """
    q = D.shape[1]
    N, b, w = np.empty((q, q), D.dtype), np.empty(q, D.dtype), np.empty(q, D.dtype)
    scaled = np.empty(A.shape if len(weights) and q >= WIDE else (0, q), D.dtype)
    for j in range(len(X)):
        first = indptr[start + j]
        count = indptr[start + j + 1] - first
        x = X[j]
        if count == 0:
            x[:] = 0.0
            slopes[j] = rights[j] = 0.0
            continue
        lift = ridge * count if by_count else ridge
        _normal_matrix(D, indices, A, scaled, targets, weights, first, count, gram, lift, b, N)
        for i in range(q):
            for c in range(i):
                N[c, i] = N[i, c]
        slopes[j], rights[j] = 0.0, _dot(b, b)
        for c in range(q):
            w[c] = b[c] - _dot(N[c], x)
            if x[c] > 0.0 or w[c] > 0.0 or c >= q - free:
                slopes[j] += w[c] * w[c]
        for _ in range(passes):
            for c in range(q):
                if not N[c, c] > 0.0:
                    continue
                new = x[c] + w[c] / N[c, c]
                if c < q - free and new < 0.0:
                    new = 0.0
                step = new - x[c]
                if step != 0.0:
                    x[c] = new
                    for i in range(q):
                        w[i] -= step * N[c, i]


@njit(cache=True, nogil=True, fastmath=FAST)
def _solve_upper(R, x):
    """``x = R^-1 x``."""
    for i in range(len(x) - 1, -1, -1):
        s = x[i]
        for c in range(i + 1, len(x)):
            s -= R[i, c] * x[c]
        x[i] = s / R[i, i]


@njit(cache=True, nogil=True, fastmath=FAST)
def _solve_upper_transposed(R, x):
    """``x = R^-T x``."""
    for i in range(len(x)):
        x[i] /= R[i, i]
        s = x[i]
        for c in range(i + 1, len(x)):
            x[c] -= R[i, c] * s


@njit(cache=True, nogil=True, fastmath=FAST)
def _sketch_row(D, indices, A, weights, first, count, lift, seed, B):
    """A sketch of a row's design and the ridge's rows into B, or the design where it is no longer; rows of B used."""
    q = D.shape[1]
    limit = len(B) - q
    size, held = len(A), -1
    exact = count <= limit
    rows = count if exact else limit
    B[: rows + q] = 0.0
    for piece in range(0, count, size):
        n = min(size, count - piece)
        gather(D, indices, first + piece, n, A)
        held = piece
        if not exact:
            osnap(A, n, weights, first + piece, seed, first + piece, B[:rows])
            continue
        for e in range(n):
            root = np.sqrt(weights[first + piece + e]) if len(weights) else 1.0
            for c in range(q):
                B[piece + e, c] = root * A[e, c]
    root = np.sqrt(lift)
    for c in range(q):
        B[rows + c, c] = root
    return rows + q, held


@njit(cache=True, nogil=True, fastmath=FAST)
def _preconditioned(D, indices, A, held, weights, first, count, lift, R, steps, least, x, r, p, w, z, gram):
    """Conjugate gradients on ``R^-T N R^-1`` from x, with r = R^-T (b - N x) in place."""
    q = len(x)
    rr = _dot(r, r)
    p[:] = r
    z[:] = 0.0  # R times the step so far
    goal = least * rr
    step = np.empty(q, x.dtype)
    for _ in range(steps):
        if rr <= goal or rr == 0.0:
            break
        step[:] = p
        _solve_upper(R, step)
        held = _product(D, indices, A, held, weights, first, count, gram, lift, step, w)
        _solve_upper_transposed(R, w)
        along = _dot(p, w)
        if along <= 0.0:
            break
        a = rr / along
        for c in range(q):
            z[c] += a * p[c]
            r[c] -= a * w[c]
        new = _dot(r, r)
        b = new / rr
        rr = new
        for c in range(q):
            p[c] = r[c] + b * p[c]
    _solve_upper(R, z)
    for c in range(q):
        x[c] += z[c]


@njit(cache=True, nogil=True, fastmath=FAST)
def sketched_rows(
    indptr, indices, targets, weights, D, gram, ridge, by_count, steps, shrink, rows, only, seed, start, X, slopes,
    rights, A,
):  # fmt: skip
    """Conjugate gradients preconditioned by a sketch of each row's design; arguments as `cg_rows`.

    The sketch has ``rows`` rows; a row ends after ``steps`` or when its residual has shrunk to ``shrink`` of what it
    was, in the preconditioned norm. Rows with ``only[j]`` False are left alone, ``only`` empty means all. Where R is
    singular, plain conjugate gradients give the solution of least norm. Cost: ``2 k`` flops an entry,
    ``2 rows k^2`` a row, and ``4 k`` an entry and step.
    """
    q = D.shape[1]
    r, p, w, b = np.empty(q, D.dtype), np.empty(q, D.dtype), np.empty(q, D.dtype), np.empty(q, D.dtype)
    z, B = np.empty(q, D.dtype), np.empty((rows + q, q), D.dtype)
    rounding = np.finfo(D.dtype).eps
    for j in range(len(X)):
        if len(only) and not only[j]:
            continue
        first = indptr[start + j]
        count = indptr[start + j + 1] - first
        x = X[j]
        if count == 0:
            x[:] = 0.0
            slopes[j] = rights[j] = 0.0
            continue
        lift = ridge * count if by_count else ridge
        held = _right(D, indices, A, targets, first, count, b)
        held = _product(D, indices, A, held, weights, first, count, gram, lift, x, w)
        for c in range(q):
            r[c] = b[c] - w[c]
        if not len(only):
            slopes[j], rights[j] = _dot(r, r), _dot(b, b)
        used, held = _sketch_row(D, indices, A, weights, first, count, lift, seed, B)
        householder(B, used)
        largest, smallest = 0.0, np.inf
        for c in range(q):
            largest, smallest = max(largest, abs(B[c, c])), min(smallest, abs(B[c, c]))
        if used >= q and smallest > q * rounding * largest:
            _solve_upper_transposed(B[:q], r)
            parts = (B[:q], steps, shrink * shrink, x, r, p, w, z, gram)
            _preconditioned(D, indices, A, held, weights, first, count, lift, *parts)
        else:
            x[:] = 0.0
            r[:] = b
            least = (16.0 * rounding) ** 2 * _dot(b, b)
            _conjugate(D, indices, A, held, weights, first, count, gram, lift, 4 * q + 20, least, x, r, p, w)


@njit(cache=True, nogil=True, fastmath=FAST)
def predictions(rows, columns, U, V, out):
    """``out[e] = U[rows[e]] . V[columns[e]]``."""
    q = U.shape[1]
    for e in range(len(out)):
        u, v = U[rows[e]], V[columns[e]]
        s = u[0] * v[0]
        for c in range(1, q):
            s += u[c] * v[c]
        out[e] = s


@njit(cache=True, nogil=True, fastmath=FAST)
def row_products(indptr, indices, U, V, start, stop, out):
    """`predictions` for the entries of the rows ``start`` to ``stop`` of a CSR pattern."""
    q = U.shape[1]
    for i in range(start, stop):
        u = U[i]
        for e in range(indptr[i], indptr[i + 1]):
            v = V[indices[e]]
            s = u[0] * v[0]
            for c in range(1, q):
                s += u[c] * v[c]
            out[e] = s


@njit(cache=True, nogil=True, fastmath=FAST)
def sparse_times(indptr, indices, values, D, start, out):
    """``out[j] = sum_e values[e] D[indices[e]]`` over the entries of row ``start + j``."""
    q = D.shape[1]
    for j in range(len(out)):
        for c in range(q):
            out[j, c] = 0.0
        for e in range(indptr[start + j], indptr[start + j + 1]):
            v, i = values[e], indices[e]
            for c in range(q):
                out[j, c] += v * D[i, c]


@njit(cache=True, nogil=True)
def counting_order(keys, order, n):
    """A stable sort of ``order`` by ``keys[order]``, whole numbers below n; also where each key's run starts."""
    starts = np.zeros(n + 1, np.int64)
    for key in keys:
        starts[key + 1] += 1
    for i in range(n):
        starts[i + 1] += starts[i]
    place = starts[:-1].copy()
    out = np.empty(len(order), np.int64)
    for e in order:
        key = keys[e]
        out[place[key]] = e
        place[key] += 1
    return out, starts
