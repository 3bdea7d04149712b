"""Powers of two that bring numbers near one, so that no square of theirs overflows or is flushed to zero."""

from __future__ import annotations

import math

import numpy as np
from numpy.typing import NDArray

#: Powers of two within which the largest entry of A and of b may lie: squares and products keep all their digits.
MODERATE = 200
#: The power of two above which the smallest entry is held, so that scaling rounds nothing away.
LEAST = -1000


def balancing(values: NDArray[np.float64]) -> int:
    """The power of two that brings the largest of ``values`` near one, 0 where they need none.

    >>> balancing(np.array([2.0, 1e10])), balancing(np.array([0.0, 2.0**-800])), balancing(np.zeros(2))
    (0, -799, 0)
    """
    largest = max(float(values.max(initial=0.0)), -float(values.min(initial=0.0)))
    if largest == 0 or abs(math.frexp(largest)[1]) <= MODERATE:
        return 0
    sizes = np.abs(values)
    least = math.frexp(float(sizes[sizes > 0].min()))[1]
    return min(math.frexp(largest)[1], least - LEAST)
