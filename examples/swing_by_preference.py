"""A two-link arm swings up for someone who only says which of two attempts came higher; needs gymnasium.

python examples/swing_by_preference.py
"""

from __future__ import annotations

import numpy as np
import torch

from thalweg import Stop, solve
from thalweg.bilevel.alignment import CallbackTeacher, Episodes, LinearReward, PreferenceTask, SampledAPARL


def height(observations):
    """Of the tip over the joint, -2 to 2; Acrobot's observation begins with cos, sin, cos, sin of its two angles."""
    cos1, sin1, cos2, sin2 = np.moveaxis(observations[..., :4], -1, 0)
    return -cos1 - (cos1 * cos2 - sin1 * sin2)


def features(observations, actions):
    """One, both angles' cosines and sines, and the squares of their speeds."""
    speeds = (observations[..., 4:] / 10.0) ** 2
    return np.concatenate([np.ones_like(observations[..., :1]), observations[..., :4], speeds], axis=-1)


def higher(first, second):
    """Whose tip was higher on average."""
    tips = [np.where(s.lived, height(s.observations), 0.0).sum(1) / s.lived.sum(1) for s in (first, second)]
    return (tips[0] > tips[1]).astype(float)


def main(steps: int = 20, seed: int = 0, term: str = "auto") -> tuple[float, float, int]:
    """Print the mean height of the tip, and return it at the beginning and at the end, and the questions asked."""
    world = Episodes("Acrobot-v1", horizon=100)
    task = PreferenceTask(
        world, LinearReward(features, size=7), CallbackTeacher(higher), length=50, entropy=0.01
    )
    method = SampledAPARL(step_size=0.05, policy_step=0.03, inner_steps=4, episodes=8, pairs=8, term=term)
    heights = []

    def look(run):
        theta = run.state.x.policy
        lives, _ = task.rollouts(torch.from_numpy(theta), 8, np.random.default_rng(0))
        heights.append(float(height(lives.observations)[lives.lived].mean()))

    found = solve(task, method, stop=Stop(steps=steps), seed=seed, callbacks=[look])
    for k in range(0, steps, max(steps // 5, 1)):
        print(f"{8 * (k + 1)} questions: mean height {heights[k]:.2f}")
    return heights[0], heights[-1], found.calls


if __name__ == "__main__":
    main()
