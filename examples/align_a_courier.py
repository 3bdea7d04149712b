"""A courier learns from a person which ways are good: three teachers, the wrong objective, and labels by hand.

python examples/align_a_courier.py
"""

from __future__ import annotations

import tempfile
import warnings
from pathlib import Path

import numpy as np

from thalweg import Stop, solve
from thalweg.bilevel.alignment import (
    APARL,
    Alternation,
    LinearReward,
    PreferenceTask,
    ScriptedTeacher,
    Segments,
    TableReward,
    gridworld,
    load_preferences,
    save_preferences,
)


def by_expectation(steps: int = 60) -> dict[str, float]:
    """A yard of 5 x 5 with five holes, exact derivatives: the share of the best return, by objective."""
    yard = gridworld(5, traps=5, seed=1)
    task = PreferenceTask(yard, TableReward(25, 4), ScriptedTeacher(beta=3.0))
    methods = {
        "alternation": Alternation(penalty=1e-5),
        "log-likelihood, whole derivative": APARL("loglik", penalty=1e-5),
        "default": APARL(penalty=1e-5),
    }
    shares = {}
    for name, method in methods.items():
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # the second one warns that this is not the way to good policies
            found = solve(task, method, stop=Stop(steps=steps))
        shares[name] = found.metrics["share"]
        print(
            f"{name}: log-likelihood {found.metrics['loglik']:.3f}, share of the best return {shares[name]:.2f}"
        )
    return shares


def by_hand(rounds: int = 3, pairs: int = 25) -> float:
    """A store of labelled pairs that grows by rounds: ask about the policy's own ways, label, fit, ask again.

    The reward is of states alone: with one for each action too, so few labels would not show the way.
    """
    yard = gridworld(4, traps=[5, 6])
    policy, sides, targets = np.full((16, 4), 0.25), None, np.empty(0)
    rng = np.random.default_rng(0)
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "pairs.csv"
        for k in range(rounds):
            new = (yard.rollouts(policy, pairs, 15, rng), yard.rollouts(policy, pairs, 15, rng))
            seen = [yard.reward[side.observations, side.actions] for side in new]
            said = ScriptedTeacher(beta=0).answers(
                *seen, rng
            )  # in your hands: the column "preferred" of the file
            first, second = (
                new if sides is None else tuple(_both(a, b) for a, b in zip(sides, new, strict=True))
            )
            sides, targets = (first, second), np.append(targets, said)
            save_preferences(path, first, second, targets)
            model = LinearReward(np.eye(16), actions=4)
            task = PreferenceTask(yard, model, store=load_preferences(path))
            found = solve(task, Alternation(), stop=Stop(steps=300))
            policy = task.policy_of(found.x)
            print(
                f"round {k + 1}: {len(targets)} labels, agreement {found.metrics['agreement']:.2f}, "
                f"share of the best return {found.metrics['share']:.2f}"
            )
    return found.metrics["share"]


def _both(a, b):
    return Segments(np.concatenate([a.observations, b.observations]), np.concatenate([a.actions, b.actions]))


def main() -> tuple[dict[str, float], float]:
    """Both, and what they reached."""
    return by_expectation(), by_hand()


if __name__ == "__main__":
    main()
