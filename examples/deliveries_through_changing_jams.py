"""A courier crosses a town where jams move from day to day: its regret against the best fixed route in hindsight.

python examples/deliveries_through_changing_jams.py [page.html]
"""

from __future__ import annotations

import sys

import numpy as np

from thalweg import compare
from thalweg.online.mdp import AdversarialMDP, MagnitudeReduced, UniformPolicy, grid


def town(days: int = 2000, side: int = 3, seed: int = 0) -> AdversarialMDP:
    """A day is an episode of five moves from the north-western corner; arriving in the opposite one ends the toil.

    A move costs 0.4, and 1 from within a jam. Jams sit on one of the two ways round the middle, and change sides now
    and then; the northern way is the better one on two days of three.
    """
    rng = np.random.default_rng(seed)
    world = grid(side, layers=5, slip=0.05)
    north, south = list(range(1, side)), [side * row for row in range(1, side)]
    losses = np.full((days, 5, side * side, 4), 0.4)
    jammed_north = np.repeat(rng.random(days // 20 + 1) < 1 / 3, 20)[:days]
    for states, days_of in ((north, jammed_north), (south, ~jammed_north)):
        for s in states:
            losses[days_of, :, s] = 1.0
    losses[:, :, -1] = 0.0
    return AdversarialMDP(dynamics=world, losses=losses)


def main(page: str | None = None, days: int = 2000) -> tuple[float, float]:
    """Print what learning saves and return the regrets, ours and that of moves at random."""
    problem = town(days)
    found = compare(problem, {"learns": MagnitudeReduced(), "moves at random": UniformPolicy()}, seeds=(0,))
    ours, random = (float(row["regret"]) for row in found.rows)
    route, best = problem.best()
    print(f"The best fixed route costs {best / days:.2f} a day; its first move is {'NESW'[route[0, 0]]}.")
    print(f"Learning costs {ours / days:.2f} a day more, moves at random {random / days:.2f}.")
    if page is not None:
        found.report(page)
    return ours, random


if __name__ == "__main__":
    main(*sys.argv[1:])
