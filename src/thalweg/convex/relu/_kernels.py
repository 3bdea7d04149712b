"""Loops over rows and patterns: gates, cones and hinges, without temporaries."""

import numpy as np
from numba import njit


@njit(cache=True, fastmath=False)
def gated_outputs(H, D, patches, f):
    """``f = mean over patches of D (H[0] - H[1])``, summed over patterns; H (2, P, k, N), D (P, N), f (k, n)."""
    f[:] = 0.0
    for i in range(D.shape[0]):
        for c in range(f.shape[0]):
            if patches == 1:
                for j in range(D.shape[1]):
                    f[c, j] += D[i, j] * (H[0, i, c, j] - H[1, i, c, j])
            else:
                for j in range(D.shape[1]):
                    f[c, j // patches] += D[i, j] * (H[0, i, c, j] - H[1, i, c, j])
    if patches > 1:
        f /= patches


@njit(cache=True)
def rectified_outputs(H, patches, f):
    """``f = mean over patches of (H[0])_+ - (H[1])_+``, summed over patterns."""
    f[:] = 0.0
    for i in range(H.shape[1]):
        for c in range(f.shape[0]):
            for j in range(H.shape[3]):
                f[c, j // patches] += max(H[0, i, c, j], 0.0) - max(H[1, i, c, j], 0.0)
    if patches > 1:
        f /= patches


@njit(cache=True)
def spread(v, D, patches, out):
    """``out[i, c] = D_i v_c / patches`` over rows; out (P, k, N)."""
    share = 1.0 / patches
    for i in range(D.shape[0]):
        for c in range(v.shape[0]):
            if patches == 1:
                for j in range(D.shape[1]):
                    out[i, c, j] = D[i, j] * v[c, j]
            else:
                for j in range(D.shape[1]):
                    out[i, c, j] = D[i, j] * v[c, j // patches] * share


@njit(cache=True)
def cone_step(H, D, p, relaxation, out):
    """Slack and multiplier of the cones in one: ``p = s + nu`` before them, ``s = p_+``, ``nu = p_-``; out = E (s - nu)."""
    rest = 1.0 - relaxation
    for b in range(2):
        for i in range(D.shape[0]):
            for c in range(H.shape[2]):
                for j in range(D.shape[1]):
                    e = 2.0 * D[i, j] - 1.0
                    old = p[b, i, c, j]
                    new = relaxation * e * H[b, i, c, j] + rest * max(old, 0.0) + min(old, 0.0)
                    p[b, i, c, j] = new
                    out[b, i, c, j] = e * abs(new)


@njit(cache=True)
def multiplied(theta, D, p, rho, row_weights, patches, out):
    """``+-D theta / patches + E a`` with the cones' multipliers ``a = rho w (-p)_+``; out (2, P, k, N)."""
    share = 1.0 / patches
    for b in range(2):
        sign = share if b == 0 else -share
        for i in range(D.shape[0]):
            for c in range(theta.shape[0]):
                for j in range(D.shape[1]):
                    a = rho * row_weights[j] * max(-p[b, i, c, j], 0.0)
                    gate = D[i, j]
                    out[b, i, c, j] = sign * gate * theta[c, j // patches] + (2.0 * gate - 1.0) * a


@njit(cache=True)
def worst_violation(H, D):
    """The largest ``-E H`` and the largest ``|H|``."""
    worst, largest = 0.0, 0.0
    for b in range(2):
        for i in range(D.shape[0]):
            for c in range(H.shape[2]):
                for j in range(D.shape[1]):
                    h = H[b, i, c, j]
                    worst = max(worst, -h if D[i, j] else h)
                    largest = max(largest, abs(h))
    return worst, largest

