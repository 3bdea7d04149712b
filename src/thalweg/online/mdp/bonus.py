"""The dilated bonus: what makes a policy go where its estimates are uncertain.

Luo, Wei and Lee (2021), "Policy optimization in adversarial MDPs: improved exploration via dilated bonuses".
"""

from __future__ import annotations

import numpy as np
from numpy.typing import ArrayLike, NDArray

from thalweg.core import InvalidProblem
from thalweg.core.validation import as_real, check_finite, is_real, require
from thalweg.online.mdp import _kernels as kernels


def dilated_bonus(
    local: ArrayLike, transitions: ArrayLike, policy: ArrayLike, factor: float | None = None
) -> NDArray[np.float64]:
    """``B(s, a) = local(s, a) + factor E[B(s', a')]``, a' by the policy; zero after the last layer.

    A layer counts ``1 + 1/H`` times more than the one before, the last at most e times more than the first: that pays
    for the bonus's own change as the policy moves. With a factor of 1 it is the policy's value of losses ``local``.

    Args:
        local: bonus of a state and an action alone, shape (H, S, A).
        transitions: shape (H, S, A, S).
        policy: shape (H, S, A).
        factor: ``1 + 1/H`` by default.

    Returns:
        shape (H, S, A).

    Raises:
        InvalidProblem: shapes that do not fit. NotFinite: NaN or infinity. InvalidParameter: a factor below zero.

    Cost: O(H S^2 A).

    >>> one = np.ones((2, 1, 1))
    >>> dilated_bonus(one, np.ones((2, 1, 1, 1)), one).ravel()
    array([2.5, 1. ])
    """
    b, moves, pi = as_real("local", local), as_real("transitions", transitions), as_real("policy", policy)
    if (
        b.ndim != 3
        or b.size == 0
        or pi.shape != b.shape
        or moves.shape != (*b.shape, b.shape[1] if b.ndim > 1 else 0)
    ):
        raise InvalidProblem(
            f"dilated_bonus: local has shape {b.shape}, policy {pi.shape}, transitions {moves.shape}; expected "
            "(H, S, A) twice, and (H, S, A, S)."
        )
    for name, array in (("local", b), ("transitions", moves), ("policy", pi)):
        check_finite(name, array)
    times = 1.0 + 1.0 / len(b) if factor is None else factor
    require(is_real(times) and 0 <= times < np.inf, "dilated_bonus needs factor >= 0", got=times)
    found = np.empty_like(b)
    kernels.dilate(moves, pi, b, float(times), found)
    return found
