"""09: microseconds of an episode, against the same algorithms written with NumPy's arrays."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any

import numpy as np

from benchmarks.race import Row, race
from thalweg.core.seeding import generator
from thalweg.online.mdp import (
    AdversarialMDP,
    EpisodicMethod,
    LogBarrier,
    MagnitudeReduced,
    fixed_losses,
    random_linear_mdp,
)

EPISODES = 500


def rows() -> Iterator[Row]:
    """12 states, 4 actions, d = 4, 4 layers; and 32 actions."""
    for actions in (4, 32):
        for method in (MagnitudeReduced(), LogBarrier()):
            yield episodes(method, actions)


def episodes(method: EpisodicMethod, actions: int) -> Row:
    """Seconds of one episode; accuracy is the regret after all of them, of 500."""
    world = random_linear_mdp(12, actions, 4, 4)
    problem = AdversarialMDP(dynamics=world, losses=fixed_losses(world, EPISODES))

    def ours() -> float:
        learner, policies = method.learner(world, EPISODES, 0), np.empty(problem.losses.shape)
        return float(learner.run(problem.losses, generator(0, 1), policies).sum()) - problem.best()[1]

    (seconds, regret), (theirs, other) = race(ours, _in_numpy(problem, method), rounds=3)
    return Row(
        "09",
        f"an episode, {method.name}, S = 12, A = {actions}, d = 4, H = 4",
        seconds / EPISODES,
        "the same in NumPy",
        theirs / EPISODES,
        regret,
        other,
    )


def _in_numpy(problem: AdversarialMDP, method: EpisodicMethod) -> Callable[[], float]:
    """An episode as one writes it down: a matrix product wherever there is one, all states at once."""
    world, reduced = problem.dynamics, isinstance(method, MagnitudeReduced)
    H, S, A, d = world.features.shape
    rows, moves = world.features.reshape(H, S * A, d), world.transitions
    known = method.learner(world, problem.episodes).constants

    def policies(cumulative: Any) -> Any:
        x = known.eta * (cumulative - cumulative.min(-1, keepdims=True))
        if reduced:
            p = np.exp(-x)
        else:
            lam = np.ones((H, S, 1))
            for _ in range(30):
                inverse = 1.0 / (x + lam)
                off = inverse.sum(-1, keepdims=True) - 1.0
                lam += off / (inverse**2).sum(-1, keepdims=True)
                if off.max() < 1e-12:
                    break
            p = 1.0 / (x + lam)
        return p / p.sum(-1, keepdims=True)

    def run() -> float:
        cumulative, total = np.zeros((H, S, A)), 0.0
        rng, nature = generator(0), generator(0, 1)
        for losses in problem.losses:
            policy, chances = policies(cumulative), world.start
            weights, state, path = np.empty((H, S * A)), 0, []
            for h in range(H):
                weights[h] = (chances[:, None] * policy[h]).ravel()
                chances = weights[h] @ moves[h].reshape(S * A, S)
                action = int(rng.choice(A, p=policy[h, state]))
                path.append((state * A + action, losses[h, state, action]))
                state = int(nature.choice(S, p=moves[h, state, action]))
            total += float((weights * losses.reshape(H, S * A)).sum())
            lost, bonus = 0.0, np.zeros(S)
            for h in range(H - 1, -1, -1):
                played, loss = path[h]
                lost += loss
                S_plus = np.linalg.inv(known.gamma * np.eye(d) + (rows[h].T * weights[h]) @ rows[h])
                lifted = rows[h] @ S_plus
                u = lifted @ rows[h][played]
                Q = u * lost
                if reduced:
                    Q += (H - h) * (np.minimum(lifted @ rows[h].T, 0.0) @ weights[h] - np.minimum(u, 0.0))
                norms = (lifted * rows[h]).sum(1).reshape(S, A)
                local = known.beta * (norms + (policy[h] * norms).sum(1, keepdims=True))
                B = local + (1.0 + 1.0 / H) * (moves[h] @ bonus)
                bonus = (policy[h] * B).sum(1)
                cumulative[h] += Q.reshape(S, A) - B
        return total - problem.best()[1]

    return run
