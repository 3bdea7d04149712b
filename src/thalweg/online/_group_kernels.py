"""Numba loops of groupwise prediction: the weights of experts, linear learners, and rows in their order."""

from __future__ import annotations

import numpy as np
from numba import njit

# How proposals are combined.
MEAN, DRAW, MIXABLE, SMALLEST = 0, 1, 2, 3
# What a learner is.
RIDGE, VAW, GRADIENT, LOGISTIC = 0, 1, 2, 3


@njit(cache=True)
def log_weight(regret, magnitude):
    """``log w`` of AdaNormalHedge up to log 2; -inf where w = 0. The plain form overflows from C = 2000 on."""
    if regret <= -1.0:
        return -np.inf
    scale = 3.0 * (magnitude + 1.0)
    up = (regret + 1.0) ** 2 / scale
    down = (regret - 1.0) ** 2 / scale if regret > 1.0 else 0.0
    return up + np.log(-np.expm1(down - up))


@njit(cache=True)
def softmax(logs):
    """``exp(logs)`` to a sum of one, in place; all -inf: uniform."""
    top = logs.max()
    if top == -np.inf:
        logs[:] = 1.0 / len(logs)
        return
    total = 0.0
    for i in range(len(logs)):
        logs[i] = np.exp(logs[i] - top)
        total += logs[i]
    logs /= total


@njit(cache=True)
def hedge_weights(active, regrets, magnitudes, log_prior):
    """The weight of each active expert, shape (active,)."""
    found = np.empty(len(active))
    for i, g in enumerate(active):
        found[i] = log_weight(regrets[g], magnitudes[g]) + log_prior[g]
    softmax(found)
    return found


@njit(cache=True)
def specialist_weights(active, log_weights):
    """The weight of each active specialist, shape (active,)."""
    found = np.empty(len(active))
    for i, g in enumerate(active):
        found[i] = log_weights[g]
    softmax(found)
    return found


@njit(cache=True)
def substituted(weights, proposals):
    """The prediction that is as good as the mix of ``proposals`` for both ends of [0, 1]: square loss, eta = 2."""
    at_zero, at_one = 0.0, 0.0
    for p, z in zip(weights, proposals):
        at_zero += p * np.exp(-2.0 * z * z)
        at_one += p * np.exp(-2.0 * (1.0 - z) ** 2)
    return min(max(0.5 * (1.0 + (np.log(at_one) - np.log(at_zero)) / 2.0), 0.0), 1.0)


@njit(cache=True)
def combined(kind, weights, proposals, counts, active, uniform):
    """One prediction from the proposals of the active learners."""
    if kind == MIXABLE:
        return substituted(weights, proposals)
    if kind == SMALLEST:
        return proposals[np.argmin(counts[active])]
    if kind == DRAW:
        total = 0.0
        for i in range(len(weights)):
            total += weights[i]
            if uniform < total:
                return proposals[i]
        return proposals[len(weights) - 1]
    found = 0.0
    for p, z in zip(weights, proposals):
        found += p * z
    return found


@njit(cache=True)
def mixed(kind, active, proposals, hedge, log_weights, log_prior, counts, uniform):
    """The weights of the active learners, and the prediction."""
    if kind == MIXABLE:
        weights = specialist_weights(active, log_weights)
    else:
        weights = hedge_weights(active, hedge[0], hedge[1], log_prior)
    return weights, combined(kind, weights, proposals, counts, active, uniform)


@njit(cache=True)
def scored(kind, weights, proposals, played, y):
    """The loss that regrets are taken against: expected where the prediction is drawn."""
    if kind != DRAW:
        return (played - y) ** 2
    loss = 0.0
    for p, z in zip(weights, proposals):
        loss += p * (z - y) ** 2
    return loss


@njit(cache=True)
def learn_weights(kind, active, weights, proposals, y, loss, hedge, log_weights):
    """What experts learn from a label, in place."""
    if kind == MIXABLE:
        total = 0.0
        for p, z in zip(weights, proposals):
            total += p * np.exp(-2.0 * (z - y) ** 2)
        shift = np.log(total)
        for i, g in enumerate(active):
            log_weights[g] += -2.0 * (proposals[i] - y) ** 2 - shift
    for i, g in enumerate(active):
        regret = loss - (proposals[i] - y) ** 2
        hedge[0, g] += regret
        hedge[1, g] += abs(regret)


@njit(cache=True)
def propose(kind, x, theta, inverse):
    """What a learner predicts, before it is clipped."""
    z = 0.0
    for i in range(len(x)):
        z += x[i] * theta[i]
    if kind == VAW:
        q = 0.0
        for i in range(len(x)):
            row = 0.0
            for j in range(len(x)):
                row += inverse[i, j] * x[j]
            q += x[i] * row
        z /= 1.0 + q
    if kind == LOGISTIC:
        z = 1.0 / (1.0 + np.exp(-z))
    return z


@njit(cache=True)
def descend(kind, x, y, theta, lengths, g, count, radius):
    """A projected gradient step of size ``D / (G sqrt(t))``, in place; ``lengths[g]`` is the largest |x| so far."""
    length = np.sqrt((x * x).sum())
    lengths[g] = max(lengths[g], length)
    if lengths[g] == 0.0:
        return
    z = 0.0
    for i in range(len(x)):
        z += x[i] * theta[i]
    if kind == LOGISTIC:
        slope, steepest = 1.0 / (1.0 + np.exp(-z)) - y, lengths[g]
    else:
        slope, steepest = 2.0 * (z - y), 2.0 * lengths[g] * (radius * lengths[g] + 1.0)
    rate = 2.0 * radius / (steepest * np.sqrt(count + 1.0))
    size = 0.0
    for i in range(len(x)):
        theta[i] -= rate * slope * x[i]
        size += theta[i] * theta[i]
    if size > radius * radius:
        theta *= radius / np.sqrt(size)


@njit(cache=True)
def learn_squares(x, y, theta, inverse, work):
    """Regularised least squares with one row more, in place: Sherman-Morrison."""
    d = len(x)
    error = y
    for i in range(d):
        error -= x[i] * theta[i]
    q = 0.0
    for i in range(d):
        row = 0.0
        for j in range(d):
            row += inverse[i, j] * x[j]
        work[i] = row
        q += x[i] * row
    share = 1.0 / (1.0 + q)
    for i in range(d):
        scaled = share * work[i]
        theta[i] += scaled * error
        for j in range(d):
            inverse[i, j] -= scaled * work[j]


@njit(cache=True)
def restart(t, period, alpha, theta, inverse, lengths, hedge, counts):
    """Learners of time intervals begin anew where theirs ends, in place."""
    for g in range(len(period)):
        if period[g] > 0 and t % period[g] == 0 and counts[g] > 0:
            theta[g] = 0.0
            inverse[g] = 0.0
            for i in range(inverse.shape[1]):
                inverse[g, i, i] = 1.0 / alpha
            hedge[0, g] = 0.0
            hedge[1, g] = 0.0
            lengths[g] = 0.0
            counts[g] = 0


@njit(cache=True)
def answer(x, awake, combine, base, log_prior, uniform, theta, inverse, hedge, log_weights, counts):
    """The learners asked, what they propose, their weights, and the prediction; all learners where none is awake."""
    active = np.flatnonzero(awake)
    asleep = len(active) == 0
    if asleep:
        active = np.arange(len(awake))
    proposals = np.empty(len(active))
    for i, g in enumerate(active):
        proposals[i] = min(max(propose(base, x, theta[g], inverse[g]), 0.0), 1.0)
    if asleep:
        weights = np.full(len(active), 1.0 / len(active))
        return active, proposals, weights, combined(combine, weights, proposals, counts, active, uniform)
    weights, played = mixed(combine, active, proposals, hedge, log_weights, log_prior, counts, uniform)
    return active, proposals, weights, played


@njit(cache=True)
def predict_rows(
    X, mask, combine, base, log_prior, uniforms, theta, inverse, hedge, log_weights, counts, played, proposed
):
    """Predictions without learning; fills ``played`` (rows,) and ``proposed`` (rows, groups)."""
    for t in range(len(X)):
        active, proposals, _, played[t] = answer(
            X[t], mask[t], combine, base, log_prior, uniforms[t], theta, inverse, hedge, log_weights, counts
        )
        proposed[t][active] = proposals


@njit(cache=True)
def play_rows(
    X, y, mask, first, combine, base, alpha, radius, period, log_prior, uniforms,
    theta, inverse, lengths, hedge, log_weights, counts, played, proposed, losses,
):  # fmt: skip
    """Rows in their order: predict, see the label, learn. ``first`` is the number of rows before.

    Filled: ``played`` (rows,), ``proposed`` (rows, groups; NaN where asleep), ``losses`` (rows,) by `scored`.
    """
    work = np.empty(X.shape[1])
    for t in range(len(X)):
        x = X[t]
        restart(first + t, period, alpha, theta, inverse, lengths, hedge, counts)
        active, proposals, weights, played[t] = answer(
            x, mask[t], combine, base, log_prior, uniforms[t], theta, inverse, hedge, log_weights, counts
        )
        proposed[t][active] = proposals
        losses[t] = scored(combine, weights, proposals, played[t], y[t])
        if not mask[t].any():
            continue
        learn_weights(combine, active, weights, proposals, y[t], losses[t], hedge, log_weights)
        for g in active:
            if base >= GRADIENT:
                descend(base, x, y[t], theta[g], lengths, g, counts[g], radius)
            else:
                learn_squares(x, y[t], theta[g], inverse[g], work)
            counts[g] += 1
