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
    """Slack and multiplier of cones in one: ``p = s + nu`` before, ``s = p_+``, ``nu = p_-``; out = E (s - nu)."""
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


@njit(cache=True)
def soft(value, threshold):
    """Soft thresholding of a number."""
    if value > threshold:
        return value - threshold
    if value < -threshold:
        return value + threshold
    return 0.0


@njit(cache=True)
def robust_cones(w, s, mask, radius):
    """Nearest points with ``s_j >= radius |mask w|_1`` for all j, block by block, in place; w (b, d), s (b, N).

    With gamma the multiplier, ``w = soft(w0, gamma radius)`` and ``sum_j (radius |w|_1 - s0_j)_+ = gamma``: bisection.
    """
    blocks, d = w.shape
    n = s.shape[1]
    for b in range(blocks):
        high = 0.0
        low = 0.0
        size = 0.0
        for i in range(d):
            size += mask[i] * abs(w[b, i])
        for j in range(n):
            high += max(radius * size - s[b, j], 0.0)
        if high == 0.0:
            continue
        for _ in range(60):
            middle = 0.5 * (low + high)
            size = 0.0
            for i in range(d):
                size += mask[i] * max(abs(w[b, i]) - middle * radius, 0.0)
            total = 0.0
            for j in range(n):
                total += max(radius * size - s[b, j], 0.0)
            if total > middle:
                low = middle
            else:
                high = middle
            if high - low <= 1e-15 * high:
                break
        size = 0.0
        for i in range(d):
            w[b, i] = soft(w[b, i], mask[i] * high * radius)
            size += mask[i] * abs(w[b, i])
        for j in range(n):
            s[b, j] = max(s[b, j], radius * size)


@njit(cache=True)
def robust_point(g0, x, along, shrink, mask, g):
    """``g = soft(g0 - along x, shrink mask)``; its product with x and ``|mask g|_1``."""
    product, size = 0.0, 0.0
    for i in range(len(x)):
        g[i] = soft(g0[i] - along * x[i], shrink * mask[i])
        product += g[i] * x[i]
        size += mask[i] * abs(g[i])
    return product, size


@njit(cache=True)
def robust_residual(g0, x, y, lam, rho, radius, mask, g):
    """For squares: the side sigma in [-1, 1] that ``lam (sigma (x g - y) + radius |g|_1)`` asks for, and its value."""
    shrink = lam * radius / rho
    product, size = robust_point(g0, x, lam / rho, shrink, mask, g)
    if product - y >= 0.0:
        return 1.0, product - y + radius * size
    product, size = robust_point(g0, x, -lam / rho, shrink, mask, g)
    if product - y <= 0.0:
        return -1.0, y - product + radius * size
    low, high = -1.0, 1.0
    for _ in range(50):
        side = 0.5 * (low + high)
        product, size = robust_point(g0, x, lam * side / rho, shrink, mask, g)
        if product > y:
            low = side
        else:
            high = side
    return 0.5 * (low + high), abs(product - y) + radius * size


@njit(cache=True)
def robust_prox(G, X, y, rho, radius, mask, kind, lam, side):
    """Proximal points of rows' worst-case losses, G (n, d) in place; their slopes lam, and for squares their sides.

    Kinds: 0 ``(|x g - y| + r |g|_1)^2/2``, 1 ``log(1 + exp(-y x g + r |g|_1))``, 2 ``(1 - y x g + r |g|_1)_+``. Each
    is a bisection on the loss's slope lam, in which the argument decreases.
    """
    g = np.empty(G.shape[1])
    for j in range(len(G)):
        g0, x = G[j], X[j]
        low, high = 0.0, 1.0
        if kind == 0:
            _, high = robust_residual(g0, x, y[j], 0.0, rho, radius, mask, g)
        for t in range(52):
            # the ends first: the hinge's slope is often 0 or 1
            middle = 0.5 * (low + high)
            if kind == 2 and t < 2:
                middle = float(t)
            if kind == 0:
                side[j], value = robust_residual(g0, x, y[j], middle, rho, radius, mask, g)
                above = value > middle
            else:
                product, size = robust_point(g0, x, -middle * y[j] / rho, middle * radius / rho, mask, g)
                value = -y[j] * product + radius * size
                if kind == 1:
                    above = 1.0 / (1.0 + np.exp(-value)) > middle
                else:
                    above = 1.0 + value > 0.0
                    if t == 0 and not above:
                        high = 0.0
                        break
                    if t == 1 and above:
                        low = 1.0
                        break
            if above:
                low = middle
            else:
                high = middle
        lam[j] = 0.5 * (low + high)
        if kind == 0:
            side[j], _ = robust_residual(g0, x, y[j], lam[j], rho, radius, mask, g)
        else:
            robust_point(g0, x, -lam[j] * y[j] / rho, lam[j] * radius / rho, mask, g)
        for i in range(len(g)):
            G[j, i] = g[i]
