"""BFGS in a box by reverse communication: the caller evaluates, `advance` says where next.

Nocedal and Wright (2006), "Numerical optimization", chapter 6; the projection of its steps is Bertsekas' (1982).

A climb is a matrix of vectors, shape (8, p), the inverse Hessian's approximation H, shape (p, p), and a few numbers.
"""

from __future__ import annotations

import numpy as np

from thalweg.numerics.gaussian_process._dense_kernels import copy, dot, exact, sums

#: Rows of the vectors: where it stands with its gradient, where to evaluate with the gradient there, and its workings.
X, SLOPE, TRIAL, TRIAL_SLOPE, DIRECTION, STEEPEST, MOVED, BENT = range(8)
#: Places of the numbers: value where it stands, size of the step, steps done, cuts of it, fall expected, is H scaled.
VALUE, SIZE, STEPS, BACK, FALL, SCALED = range(6)

ARMIJO, BACKTRACKS = 1e-4, 10


@exact
def begin(x0, low, high, vectors, numbers):
    """A climb that is to be evaluated at ``x0`` first; H has its scale if it comes from another climb."""
    for i in range(len(x0)):
        vectors[TRIAL, i] = min(max(x0[i], low[i]), high[i])
    numbers[STEPS] = -1.0


@exact
def advance(value, vectors, H, low, high, cap, numbers, most, tol, flat):
    """Take the value and the gradient at the trial point; True if there is another one to evaluate.

    Args:
        cap: longest step of each coordinate, shape (p,).
        most: steps at most.
        tol: it ends when the projected gradient is at most this,
        flat: or the value falls by less than this times one plus its size.
    """
    p = len(low)
    x, slope, trial, trial_slope = vectors[X], vectors[SLOPE], vectors[TRIAL], vectors[TRIAL_SLOPE]
    if numbers[STEPS] >= 0.0:
        expected = 0.0
        for i in range(p):
            expected += slope[i] * (trial[i] - x[i])
        if not (value <= numbers[VALUE] + ARMIJO * expected and expected < 0.0):
            numbers[BACK] += 1.0
            if numbers[BACK] >= BACKTRACKS:
                return False
            excess = value - numbers[VALUE] - expected
            share = -0.5 * expected / excess if excess > 0.0 and excess < np.inf else 0.1
            numbers[SIZE] *= min(max(share, 0.1), 0.5)
            _place(vectors, low, high, numbers[SIZE])
            return True
        for i in range(p):
            vectors[MOVED, i] = trial[i] - x[i]
            vectors[BENT, i] = trial_slope[i] - slope[i]
        _update(H, vectors[MOVED], vectors[BENT], vectors[STEEPEST], numbers)
    fall = numbers[VALUE] - value
    first = numbers[STEPS] < 0.0
    numbers[VALUE] = value
    numbers[STEPS] += 1.0
    copy(trial, x)
    copy(trial_slope, slope)
    if numbers[STEPS] >= most or not (first or fall > flat * (1.0 + abs(value))):
        return False
    return _aim(vectors, H, low, high, cap, numbers, tol)


@exact
def _place(vectors, low, high, size):
    for i in range(len(low)):
        vectors[TRIAL, i] = min(max(vectors[X, i] + size * vectors[DIRECTION, i], low[i]), high[i])


@sums
def _aim(vectors, H, low, high, cap, numbers, tol):
    """The quasi-Newton direction in the box, and the trial point a whole step along it; False at a stationary point."""
    p = len(low)
    x, slope, steepest, direction = vectors[X], vectors[SLOPE], vectors[STEEPEST], vectors[DIRECTION]
    projected = 0.0
    for i in range(p):
        projected = max(projected, abs(x[i] - min(max(x[i] - slope[i], low[i]), high[i])))
        bound = (x[i] <= low[i] and slope[i] > 0) or (x[i] >= high[i] and slope[i] < 0)
        steepest[i] = 0.0 if bound else -slope[i]
    if projected <= tol:
        return False
    fall = 0.0
    for i in range(p):
        direction[i] = dot(H[i], steepest, p) if steepest[i] != 0.0 else 0.0
        fall += direction[i] * steepest[i]
    if not fall > 0.0:
        for i in range(p):
            direction[i] = steepest[i] * (H[i, i] if H[i, i] > 0 else 1.0)
            fall += direction[i] * steepest[i]
    longest = 1.0
    for i in range(p):
        longest = max(longest, abs(direction[i]) / cap[i])
    for i in range(p):
        direction[i] /= longest
    numbers[FALL], numbers[SIZE], numbers[BACK] = fall, 1.0, 0.0
    _place(vectors, low, high, 1.0)
    return True


@sums
def _update(H, s, y, work, numbers):
    """The BFGS update, eq. (6.17); a metric that is a guess gets its scale first, eq. (6.20)."""
    p = len(s)
    sy, yy = dot(s, y, p), dot(y, y, p)
    if not sy > 1e-12 * yy:
        return
    for i in range(p):
        work[i] = dot(H[i], y, p)
    yhy = dot(work, y, p)
    if numbers[SCALED] == 0.0 and yhy > 0.0:
        scale = sy / yhy
        for i in range(p):
            work[i] *= scale
            for j in range(p):
                H[i, j] *= scale
        yhy *= scale
        numbers[SCALED] = 1.0
    rho = 1.0 / sy
    along = rho * (1.0 + rho * yhy)
    for i in range(p):
        for j in range(p):
            H[i, j] += along * s[i] * s[j] - rho * (s[i] * work[j] + work[i] * s[j])
