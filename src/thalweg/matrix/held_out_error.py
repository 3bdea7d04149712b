"""How good a completed matrix is: the error on entries that nobody has looked at, with its interval."""

from __future__ import annotations

import math
from dataclasses import dataclass

from scipy.stats import t as student

from thalweg.core.validation import is_real, require
from thalweg.matrix.observations import Reals
from thalweg.matrix.problem import Completion


@dataclass(frozen=True)
class HeldOutError:
    """The error on entries that were set apart before everything else.

    Args:
        error: root mean square error, in the entries' unit; of implicit feedback the mean share of columns ranked above
            a held-out one. NaN without entries.
        low, high: the interval's ends.
        entries: how many it is of.
        level: how often such intervals hold the error over all entries.
    """

    error: float
    low: float
    high: float
    entries: int
    level: float


def held_out_error(problem: Completion, x: Reals, *, level: float = 0.95) -> HeldOutError:
    """The error of factors on the entries of ``problem`` that were set apart by ``test=``.

    These are a random sample of the entries seen, drawn before any fit, so that the mean of their squared errors has
    Student's interval about it, for the mean over all that might have been seen in their place. It says nothing of
    places that are never seen for reasons of their own (films that nobody would watch).

    Args:
        problem: with ``test > 0``.
        x: an answer of its.
        level: in (0, 1).

    >>> import numpy as np
    >>> rng = np.random.default_rng(0)
    >>> problem = Completion(rng.standard_normal((50, 40)), rank=1, held_out=0.0, test=0.2)
    >>> found = held_out_error(problem, problem.start(1))
    >>> found.low < 1.0 < found.high
    True
    """
    require(is_real(level) and 0 < level < 1, "held_out_error needs 0 < level < 1", got=level)
    losses = problem.losses(x, "test")
    n = len(losses)
    if n < 2:
        return HeldOutError(problem.error(x, "test"), 0.0, math.inf, n, level)
    mean = float(losses.mean())
    half = float(student.ppf(0.5 + level / 2, n - 1)) * float(losses.std(ddof=1)) / math.sqrt(n)
    ends = max(mean - half, 0.0), mean + half
    if problem.confidence is not None:
        return HeldOutError(mean, ends[0], min(ends[1], 1.0), n, level)
    low, error, high = (problem.unit * math.sqrt(v) for v in (ends[0], mean, ends[1]))
    return HeldOutError(error, low, high, n, level)
