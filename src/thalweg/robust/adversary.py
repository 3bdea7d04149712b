"""The scenario that a network finds dearest for a decision.

Dumouchelle et al. (2024), section 4.3 and appendix J: a program, gradient ascent, or the best of many samples. Here
samples and vertices, and then exchanges of coordinates while they help.
"""

from __future__ import annotations

import math
from typing import Literal, get_args

import numpy as np
import torch

from thalweg.core import UnknownName
from thalweg.robust.embedding import worst_by_program
from thalweg.robust.milp import Array
from thalweg.robust.value_network import ValueSurrogate

Adversary = Literal["swaps", "gradient", "milp"]

#: Rounds of exchanges, starts and steps of the gradient, its rate in widths of the set.
SWAPS, STARTS, STEPS, RATE = 50, 5, 100, 0.02


def dearest(
    surrogate: ValueSurrogate,
    x: Array,
    rng: np.random.Generator,
    *,
    how: Adversary = "swaps",
    samples: int = 1000,
    seconds: float = 60.0,
    known: Array | None = None,
) -> tuple[float, Array]:
    """The largest predicted label found for x, and its scenario.

    Args:
        how: ``"swaps"``: half the samples vertices, then exchanges. ``"gradient"``: projected gradient ascent by Adam
            from the best samples. ``"milp"``: a program, exact for the network and slow; from its scenario or the
            samples' best, whichever is dearer.
        samples: of the set.
        seconds: most time of the program.
        known: scenarios that are looked at beside the samples, shape (s, d): those of the main problem, so that the
            adversary is never below it.

    Cost: ``samples rows`` passes through the item MLP; a round of exchanges has up to ``d (d + 3) / 2`` of ``rows``.
    """
    if how not in get_args(Adversary):
        raise UnknownName("adversary", how, get_args(Adversary))
    scenarios = surrogate.problem.uncertainty
    points = scenarios.sample(samples, rng)
    if known is not None:
        points = np.vstack([known, points])
    values = surrogate.predict(x, points)[0]
    best = int(values.argmax())
    value, xi = float(values[best]), points[best]
    if how == "gradient":
        found, at = _ascended(surrogate, x, points[values.argsort()[::-1][:STARTS]])
        return (found, at) if found > value else (value, xi)
    if how == "milp":
        found, at = worst_by_program(surrogate, scenarios, x, seconds)
        return (found, at) if found > value else (value, xi)
    for _ in range(SWAPS):
        near = scenarios.moves(xi)
        if not len(near):
            break
        values = surrogate.predict(x, near)[0]
        best = int(values.argmax())
        if values[best] <= value + 1e-9 * abs(value):
            break
        value, xi = float(values[best]), near[best]
    return value, xi


def _ascended(surrogate: ValueSurrogate, x: Array, starts: Array) -> tuple[float, Array]:
    """Adam on the scenario, projected to the set after each step."""
    scenarios, decision = surrogate.problem.uncertainty, surrogate.decisions(x)
    low, width = torch.from_numpy(scenarios.ends[0]), torch.from_numpy(scenarios.widths)
    place = (
        (torch.from_numpy(starts) - low) / width
    ).requires_grad_()  # Adam's rate is one for all coordinates
    adam = torch.optim.Adam([place], RATE, maximize=True)
    best, at = -math.inf, starts[0]
    for _ in range(STEPS):
        xi = low + place * width
        values = surrogate.scaled(surrogate.network(decision, surrogate.scenarios(xi)))[0]
        top = int(values.argmax())
        if float(values[top].detach()) > best:
            best, at = float(values[top].detach()), xi[top].detach().numpy().copy()
        adam.zero_grad()
        torch.autograd.backward(values.sum())
        adam.step()
        with torch.no_grad():
            place.copy_((scenarios.project(low + place * width) - low) / width)
    return best, at
