"""What elimination assumes of rewards, and how many draws make noise small."""

from __future__ import annotations

import math

from thalweg.core import InvalidParameter
from thalweg.core.validation import is_real, is_whole, require


def check_size(name: str, value: float | None, method: str, *, positive: bool = False) -> None:
    """Refuse an ``eps``, ``eta``, ... that is no finite number >= 0 (> 0), or None where it has a default."""
    right = value is None or (is_real(value) and 0 <= value < math.inf and not (positive and value == 0))
    require(right, f"{method} needs {name} {'>' if positive else '>='} 0, or None", got=value)


def check_assumptions(
    sparsity: int, eps: float | None, radius: float, accuracy: float | None, delta: float, method: str
) -> None:
    """Refuse options of an elimination that lie outside their ranges."""
    require(is_whole(sparsity) and sparsity >= 0, f"{method} needs a whole sparsity >= 0", got=sparsity)
    check_size("eps", eps, method)
    check_size("accuracy", accuracy, method, positive=True)
    require(is_real(radius) and 0 < radius < math.inf, f"{method} needs a radius > 0, of theta", got=radius)
    require(is_real(delta) and 0 < delta < 1, f"{method} needs 0 < delta < 1", got=delta)


def check_probes(probes: int | None, method: str) -> None:
    """Refuse a number of probes that is none."""
    right = probes is None or (is_whole(probes) and probes >= 0)
    require(right, f"{method} needs a whole number of probes >= 0, or None", got=probes)


def probes_for(probes: int | None, sparsity: int, given: bool) -> int:
    """How many actions are queried at random before an elimination: none by default where eps is given.

    >>> probes_for(None, 2, given=True), probes_for(None, 2, given=False), probes_for(7, 2, given=False)
    (0, 20, 7)
    """
    if probes is not None:
        return probes
    return 0 if given else 10 + 5 * sparsity


def draws_for(noise: float, accuracy: float, actions: int, delta: float) -> int:
    """Rewards to observe of each action so that all means are within ``accuracy``, with probability 1 - delta.

    ``ceil(2 noise^2 ln(2 n / delta) / accuracy^2)`` for noise that is sub-Gaussian of that size; 1 without noise.

    Raises:
        InvalidParameter: noise, and no accuracy to bring it down to.

    >>> draws_for(0.1, 0.1, actions=500, delta=0.05)
    20
    """
    if noise == 0:
        return 1
    if accuracy <= 0:
        raise InvalidParameter(
            f"Rewards have noise {noise:g}; say how near their means must come: accuracy > 0."
        )
    return math.ceil(2 * noise**2 * math.log(2 * actions / delta) / accuracy**2)
