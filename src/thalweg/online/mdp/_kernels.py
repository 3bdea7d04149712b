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
    for s in range(states):
        chances[0, s] = first[s]
    for h in range(layers - 1):
        moves = transitions[h % len(transitions)]
        for s in range(states):
            chances[h + 1, s] = 0.0
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
        for s in range(states):
            after[s] = 0.0
            for a in range(actions):
                after[s] += policy[h, s, a] * found[h, s, a]


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
    weighted = np.empty_like(rows)
    for i in range(len(rows)):
        for j in range(rows.shape[1]):
            weighted[i, j] = weights[i] * rows[i, j]
    sigma = np.dot(weighted.T, rows)
    for j in range(len(sigma)):
        sigma[j, j] += gamma
    return symmetric(np.linalg.inv(sigma), 1.0)


@njit(cache=True)
def symmetric(matrix, scale):
    """``scale (matrix + matrix^T) / 2``, row by row."""
    found = np.empty(matrix.shape)
    for i in range(len(matrix)):
        for j in range(len(matrix)):
            found[i, j] = 0.5 * scale * (matrix[i, j] + matrix[j, i])
    return found


@njit(cache=True)
def geometric_resampling(rows, gamma):
    """``c sum_{n=0}^N prod_{j<=n} (I - c (gamma I + row_j row_j^T))``, c = 1/2, rows (N, d)."""
    d = rows.shape[1]
    product, total = np.zeros((d, d)), np.zeros((d, d))
    for i in range(d):
        product[i, i], total[i, i] = 1.0, STEP
    for n in range(len(rows)):
        for i in range(d):
            lifted = 0.0
            for j in range(d):
                lifted += product[i, j] * rows[n, j]
            for j in range(d):
                product[i, j] -= STEP * (gamma * product[i, j] + lifted * rows[n, j])
                total[i, j] += STEP * product[i, j]
    return total


@njit(cache=True)
def resampled(rng, rows, weights, gamma, length, repeats):
    """The mean of ``repeats`` geometric resamplings of ``length`` rows drawn by their weights, made symmetric."""
    sums, total = weights.copy(), np.zeros((rows.shape[1], rows.shape[1]))
    for i in range(1, len(sums)):
        sums[i] += sums[i - 1]
    drawn = np.empty((length, rows.shape[1]))
    for _ in range(repeats):
        for n in range(length):
            drawn[n] = rows[draw(rng, sums)]
        total += geometric_resampling(drawn, gamma)
    return symmetric(total, 1.0 / repeats)


@njit(cache=True)
def draw(rng, sums):
    """A number drawn with the chances whose running sums are ``sums``: the first whose sum is above."""
    level, low, high = rng.random() * sums[-1], 0, len(sums) - 1
    while low < high:
        middle = (low + high) // 2
        if sums[middle] > level:
            high = middle
        else:
            low = middle + 1
    return low


@njit(cache=True)
def choose(rng, chances):
    """A number drawn with these chances."""
    total, reached = 0.0, 0.0
    for chance in chances:
        total += chance
    level = rng.random() * total
    for i in range(len(chances)):
        reached += chances[i]
        if reached > level:
            return i
    return len(chances) - 1


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
    lifted = np.dot(inverse, rows[played])
    for i in range(len(rows)):
        u = 0.0
        for j in range(len(lifted)):
            u += rows[i, j] * lifted[j]
        found[i] = u * total
        if reduced:
            found[i] += most * (mean[i] - min(u, 0.0))


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
    found, mean, norms, weights = np.empty(pairs), np.zeros(pairs), np.empty(pairs), np.empty(pairs)
    for h in range(layers):
        rows = features[h % len(features)].reshape(pairs, d)
        for i in range(pairs):
            weights[i] = chances[h, i // n_actions] * policy[h, i // n_actions, i % n_actions]
        played = states[h] * n_actions + actions[h]
        seen = weights if covariance == EXACT else counted(rng, weights, samples)
        if onehot and covariance != RESAMPLING:  # the covariance is diagonal, and nothing is negative
            for i in range(pairs):
                norms[i], found[i] = 1.0 / (gamma + seen[i]), 0.0
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
            lifted = np.dot(rows, inverse)
            for i in range(pairs):
                norms[i] = 0.0
                for j in range(d):
                    norms[i] += lifted[i, j] * rows[i, j]
                norms[i] = max(norms[i], 0.0)  # resampled inverses can have small negative values
        for s in range(n_states):
            own = 0.0
            for a in range(n_actions):
                own += policy[h, s, a] * norms[s * n_actions + a]
            for a in range(n_actions):
                local[h, s, a] = beta * (norms[s * n_actions + a] + own)
                cumulative[h, s, a] += found[s * n_actions + a]
                least[0] = min(least[0], found[s * n_actions + a])
    if beta > 0.0:
        bonus = np.empty_like(local)
        dilate(transitions, policy, local, 1.0 + 1.0 / layers, bonus)
        for h in range(layers):
            for s in range(n_states):
                for a in range(n_actions):
                    cumulative[h, s, a] -= bonus[h, s, a]


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
    tails = np.empty(layers)
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
        state = choose(world, first)
        for h in range(layers):
            states[h], actions[h] = state, choose(rng, policy[h, state])
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
