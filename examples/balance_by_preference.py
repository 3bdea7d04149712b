"""A pole is balanced by someone who only says which of two attempts went better; needs gymnasium.

python examples/balance_by_preference.py
"""

from __future__ import annotations

import numpy as np

from thalweg import Stop, solve
from thalweg.bilevel.alignment import Episodes, LinearReward, PreferenceTask, SampledAPARL, ScriptedTeacher


def features(observations, actions):
    """One, and the squares of place, speed, angle and angular speed."""
    return np.concatenate([np.ones_like(observations[..., :1]), observations**2], axis=-1)


def main(steps: int = 12) -> tuple[float, float, int]:
    """Print the steps that the pole stands, and return those at the beginning, at the end, and the questions asked."""
    world = Episodes("CartPole-v1", horizon=50)
    task = PreferenceTask(world, LinearReward(features, size=5), ScriptedTeacher(), length=20, entropy=0.01)
    method = SampledAPARL(step_size=0.05, policy_step=0.03, inner_steps=4, episodes=8, pairs=8)
    found = solve(task, method, stop=Stop(steps=steps))
    stood, used = found.history["return"], found.history["used"]
    for k in range(steps):
        print(
            f"{8 * (k + 1)} questions: stands {stood[k]:.0f} of 50 steps, term {'used' if used[k] else 'left out'}"
        )
    return float(stood[0]), float(found.metrics["return"]), found.calls


if __name__ == "__main__":
    main()
