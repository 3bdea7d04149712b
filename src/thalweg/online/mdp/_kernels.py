"""Numba loops of episodic control: leaders, occupancies, covariances, estimates, bonuses, and whole episodes.

Arrays of layers are (H, S, A) unless said: H layers, S states, A actions. ``features`` are (H, S, A, d), transitions
and their running ``sums`` (H, S, A, S), or with one layer in place of H where all are alike.
"""

from __future__ import annotations

import numpy as np
from numba import njit

LOG_BARRIER, ENTROPY, UNIFORM = 0, 1, 2
EXACT, MONTE_CARLO, RESAMPLING = 0, 1, 2
#: The step of matrix geometric resampling.
STEP = 0.5


@njit(cache=True)
def log_barrier_row(losses, eta, p):
    """Fill p with ``1 / (x + lam)``, ``x = eta (losses - min)``, summing to one.

    Newton on the harmonic mean ``1 / sum 1/(x + lam)``, concave and rising in lam: from lam = 1, where it is at most
    one, steps never pass the root, and a row of ties is done after one.
    """
    least, lam = losses.min(), 1.0
    for _ in range(100):
        first, second = 0.0, 0.0
        for loss in losses:
            inverse = 1.0 / (eta * (loss - least) + lam)
            first += inverse
            second += inverse * inverse
        step = first * (first - 1.0) / second
        if not step > 4e-16 * lam:
            break
        lam += step
    total = 0.0
    for a in range(len(losses)):
        p[a] = 1.0 / (eta * (losses[a] - least) + lam)
        total += p[a]
    for a in range(len(losses)):
        p[a] /= total


@njit(cache=True)
def entropy_row(losses, eta, p):
    """Fill p with the softmax of ``-eta losses``."""
    least, total = losses.min(), 0.0
    for a in range(len(losses)):
        p[a] = np.exp(-eta * (losses[a] - least))
        total += p[a]
    for a in range(len(losses)):
        p[a] /= total


@njit(cache=True)
def leaders(kind, losses, eta, p):
    """The regularised leader of each row of ``losses``, shape (rows, A), into p."""
    for i in range(len(losses)):
        if kind == LOG_BARRIER:
            log_barrier_row(losses[i], eta, p[i])
        elif kind == ENTROPY:
            entropy_row(losses[i], eta, p[i])
        else:
            p[i] = 1.0 / losses.shape[1]


@njit(cache=True)
def occupy(transitions, first, policy, chances):
    """Fill ``chances`` (H, S) with those of being in each state of each layer."""
    layers, states, actions = policy.shape
    chances[0] = first
    for h in range(layers - 1):
        moves = transitions[h % len(transitions)]
        chances[h + 1] = 0.0
        for s in range(states):
            for a in range(actions):
                weight = chances[h, s] * policy[h, s, a]
                if weight > 0.0:
                    for t in range(states):
                        chances[h + 1, t] += weight * moves[s, a, t]


@njit(cache=True)
def expected_losses(transitions, first, policies, losses, found):
    """Fill ``found`` (K,) with the expected loss of each episode, NaN where its policy is to come."""
    chances = np.empty(policies.shape[1:3])
    for k in range(len(policies)):
        if np.isnan(policies[k, 0, 0, 0]):
            found[k] = np.nan
            continue
        occupy(transitions, first, policies[k], chances)
        total = 0.0
        for h in range(losses.shape[1]):
            for s in range(losses.shape[2]):
                if chances[h, s] > 0.0:
                    for a in range(losses.shape[3]):
                        total += chances[h, s] * policies[k, h, s, a] * losses[k, h, s, a]
        found[k] = total


@njit(cache=True)
def best_policy(transitions, first, losses, choice):
    """Fill ``choice`` (H, S) with the actions of least total loss, (H, S, A), and return that total."""
    layers, states, actions = losses.shape
    after, now = np.zeros(states), np.zeros(states)
    for h in range(layers - 1, -1, -1):
        moves = transitions[h % len(transitions)]
        for s in range(states):
            least = np.inf
            for a in range(actions):
                worth = losses[h, s, a]
                if h < layers - 1:
                    for t in range(states):
                        worth += moves[s, a, t] * after[t]
                if worth < least:
                    least, choice[h, s] = worth, a
            now[s] = least
        after, now = now, after
    return (first * after).sum()


@njit(cache=True)
def dilate(transitions, policy, local, factor, found):
    """Fill ``found`` with ``B = local + factor E[B of the next state and action]``, zero after the last layer."""
    layers, states, actions = policy.shape
    after = np.zeros(states)
    for h in range(layers - 1, -1, -1):
        moves = transitions[h % len(transitions)]
        for s in range(states):
            for a in range(actions):
                ahead = 0.0
                if h < layers - 1:
                    for t in range(states):
                        ahead += moves[s, a, t] * after[t]
                found[h, s, a] = local[h, s, a] + factor * ahead
        after = (policy[h] * found[h]).sum(axis=1)


@njit(cache=True)
def counted(rng, weights, samples):
    """Shares of ``samples`` draws from ``weights`` (n,) that sum to one: a multinomial, by binomials."""
    found, left, rest = np.zeros(len(weights)), samples, 1.0
    for i in range(len(weights)):
        if left == 0:
            break
        if weights[i] <= 0.0:
            continue
        chance = weights[i] / rest
        drawn = left if chance >= 1.0 else rng.binomial(left, chance)
        found[i] = drawn / samples
        left -= drawn
        rest -= weights[i]
        if rest <= 0.0:
            break
    return found


@njit(cache=True)
def inverse_covariance(rows, weights, gamma):
    """``(gamma I + sum weights rows rows^T)^-1``, rows (n, d)."""
    weighted = rows * weights.reshape(-1, 1)
    sigma = np.dot(weighted.T, rows)
    for j in range(len(sigma)):
        sigma[j, j] += gamma
    found = np.linalg.inv(sigma)
    return 0.5 * (found + found.T)


@njit(cache=True)
def geometric_resampling(rows, gamma):
    """``c sum_{n=0}^N prod_{j<=n} (I - c (gamma I + row_j row_j^T))``, c = 1/2, rows (N, d)."""
    d = rows.shape[1]
    product, total = np.eye(d), np.eye(d)
    for n in range(len(rows)):
        lifted = np.dot(product, rows[n])
        for i in range(d):
            for j in range(d):
                product[i, j] += -STEP * gamma * product[i, j] - STEP * lifted[i] * rows[n, j]
        total += product
    return STEP * total


@njit(cache=True)
def resampled(rng, rows, weights, gamma, length, repeats):
    """The mean of ``repeats`` geometric resamplings of ``length`` rows drawn by their weights, made symmetric."""
    cumulative = np.cumsum(weights)
    total = np.zeros((rows.shape[1], rows.shape[1]))
    drawn = np.empty((length, rows.shape[1]))
    for _ in range(repeats):
        for n in range(length):
            drawn[n] = rows[draw(rng, cumulative)]
        total += geometric_resampling(drawn, gamma)
    return 0.5 * (total + total.T) / repeats


@njit(cache=True)
def draw(rng, cumulative):
    """A number drawn with the chances whose sums are ``cumulative``."""
    return min(np.searchsorted(cumulative, rng.random() * cumulative[-1], side="right"), len(cumulative) - 1)


@njit(cache=True)
def negative_mean(rows, inverse, weights):
    """``sum_i weights_i min(rows_j^T inverse rows_i, 0)`` for each j, rows (n, d)."""
    products = np.dot(np.dot(rows, inverse), rows.T)
    found = np.zeros(len(rows))
    for i in range(len(rows)):
        if weights[i] > 0.0:
            for j in range(
                len(rows)
            ):  # without a branch and a sum over j: the processor does several at once
                found[j] += weights[i] * min(products[i, j], 0.0)
    return found


@njit(cache=True)
def estimates(rows, inverse, played, total, most, reduced, mean, found):
    """Fill ``found`` (n,) with estimates of Q from one episode, rows (n, d).

    ``u total``, ``u = rows^T inverse rows[played]``; reduced: ``- most (u)_- + most mean`` beside it.
    """
    u = np.dot(rows, np.dot(inverse, rows[played]))
    for i in range(len(rows)):
        found[i] = u[i] * total
        if reduced:
            found[i] += most * (mean[i] - min(u[i], 0.0))


@njit(cache=True)
def take_in(
    features, onehot, transitions, policy, chances, states, actions, tails, gamma, beta, reduced, covariance,
    samples, length, rng, cumulative, least,
):  # fmt: skip
    """Add what one episode tells, ``Q - B``, to ``cumulative``; ``least`` (1,) keeps the smallest Q.

    Inverse covariances and the mean of negatives are exact, or of samples of the policy's own visits.
    """
    layers, n_states, n_actions = policy.shape
    d = features.shape[3]
    pairs = n_states * n_actions
    local = np.zeros((layers, n_states, n_actions))
    found, mean = np.empty(pairs), np.zeros(pairs)
    for h in range(layers):
        rows = features[h % len(features)].reshape(pairs, d)
        weights = (chances[h].reshape(-1, 1) * policy[h]).reshape(pairs)
        played = states[h] * n_actions + actions[h]
        seen = weights if covariance == EXACT else counted(rng, weights, samples)
        if onehot and covariance != RESAMPLING:  # the covariance is diagonal, and nothing is negative
            norms = 1.0 / (gamma + seen)
            found[:] = 0.0
            found[played] = tails[h] * norms[played]
        else:
            if covariance == RESAMPLING:
                inverse = resampled(rng, rows, weights, gamma, length, max(samples // length, 1))
            else:
                inverse = inverse_covariance(rows, seen, gamma)
            if reduced:
                fresh = weights if covariance == EXACT else counted(rng, weights, samples)
                mean = negative_mean(rows, inverse, fresh)
            estimates(rows, inverse, played, tails[h], layers - h, reduced, mean, found)
            # Resampled inverses can have small negative values; a norm has none.
            norms = np.maximum((np.dot(rows, inverse) * rows).sum(axis=1), 0.0)
        least[0] = min(least[0], found.min())
        for s in range(n_states):
            own = 0.0
            for a in range(n_actions):
                own += policy[h, s, a] * norms[s * n_actions + a]
            for a in range(n_actions):
                local[h, s, a] = beta * (norms[s * n_actions + a] + own)
                cumulative[h, s, a] += found[s * n_actions + a]
    if beta > 0.0:
        bonus = np.empty_like(local)
        dilate(transitions, policy, local, 1.0 + 1.0 / layers, bonus)
        cumulative -= bonus


@njit(cache=True)
def play_episodes(
    features, onehot, transitions, sums, first, losses, kind, eta, gamma, beta, reduced, covariance, samples,
    length, rng, world, cumulative, least, policies, expected,
):  # fmt: skip
    """Play episodes with losses (K, H, S, A): fill ``policies`` and their expected losses, and learn.

    ``sums`` are the running sums of the transitions. The learner draws from ``rng``, the world from ``world``.
    """
    layers, n_states, n_actions = cumulative.shape
    chances = np.empty((layers, n_states))
    states, actions = np.empty(layers, dtype=np.int64), np.empty(layers, dtype=np.int64)
    tails, start = np.empty(layers), np.cumsum(first)
    for k in range(len(losses)):
        policy = policies[k]
        for h in range(layers):
            leaders(kind, cumulative[h], eta, policy[h])
        occupy(transitions, first, policy, chances)
        expected[k] = 0.0
        for h in range(layers):
            for s in range(n_states):
                for a in range(n_actions):
                    expected[k] += chances[h, s] * policy[h, s, a] * losses[k, h, s, a]
        state = draw(world, start)
        for h in range(layers):
            states[h], actions[h] = state, draw(rng, np.cumsum(policy[h, state]))
            if h < layers - 1:
                state = draw(world, sums[h % len(sums), state, actions[h]])
        total = 0.0
        for h in range(layers - 1, -1, -1):
            total += losses[k, h, states[h], actions[h]]
            tails[h] = total
        if kind != UNIFORM:
            take_in(
                features, onehot, transitions, policy, chances, states, actions, tails, gamma, beta, reduced,
                covariance, samples, length, rng, cumulative, least,
            )  # fmt: skip
