"""A light bridge by stages: first at larger eps, each answer the start of the next."""

from __future__ import annotations

import dataclasses
import math

from thalweg.core import Result, solve
from thalweg.core.validation import is_real, is_whole, require
from thalweg.transport.light_bridge import LightSB
from thalweg.transport.problem import EntropicTransport


def annealed(
    problem: EntropicTransport,
    method: LightSB | None = None,
    *,
    stages: int = 2,
    factor: float = 3.0,
    seed: int = 0,
) -> Result:
    """Solve at ``eps factor^(stages - 1)``, ..., ``eps factor``, eps, with an equal share of the steps each.

    Use it where eps is about a tenth of the clouds' spreads in eight dimensions or more: on known plans in 16
    dimensions the error falls to a quarter, at the same cost. For larger and for smaller eps, and in few dimensions, it
    gains nothing; on curved targets at small eps it loses.

    Args:
        method: default `LightSB` with 600 steps.
        stages: >= 1. factor: > 1.

    >>> import numpy as np
    >>> x0, x1 = np.random.default_rng(0).standard_normal((2, 500, 2))
    >>> annealed(EntropicTransport(x0, x1, 0.1, 3), LightSB(steps=200)).steps  # of the last stage
    100
    """
    require(is_whole(stages) and stages >= 1, "annealed needs stages >= 1", got=stages)
    require(is_real(factor) and 1 < factor < math.inf, "annealed needs factor > 1", got=factor)
    method, x, before = method or LightSB(), None, problem.eps
    steps = max(1, method.steps // stages)
    for k in reversed(range(stages)):
        here = dataclasses.replace(problem, eps=problem.eps * factor**k) if k else problem
        start = method.x0 if x is None else here.answer_at(before, x)
        stage = dataclasses.replace(method, steps=steps, x0=start)
        result = solve(here, stage, seed=seed, progress=False)
        x, before = result.x, here.eps
    return result
