"""Follow the regularised leader over actions: by the log-barrier and by the entropy, for many states at once."""

from __future__ import annotations

import numpy as np
from numpy.typing import ArrayLike, NDArray

from thalweg.core import InvalidProblem
from thalweg.core.validation import as_real, check_finite, is_real, require
from thalweg.online.mdp import _kernels as kernels


def log_barrier_probabilities(losses: ArrayLike, eta: float) -> NDArray[np.float64]:
    """Minimisers over the simplex of ``eta <p, losses> + sum ln(1/p)``, a row a problem.

    ``p_a = 1/(x_a + lam)`` with ``x = eta (losses - min losses)`` and lam in [1, A] such that they sum to one. It takes
    losses of any sign and size: one step against an estimate l costs at most ``(eta/2) sum p_a l_a^2``, where the
    entropy needs ``eta l >= -1``.

    Args:
        losses: cumulative losses, shape (..., A).
        eta: the learning rate, > 0.

    Returns:
        probabilities, shape (..., A), each row summing to one.

    Raises:
        InvalidProblem: no actions. NotFinite: NaN or infinity. InvalidParameter: eta <= 0.

    Cost: O(A) for each of some five to ten steps of Newton's method a row.

    >>> log_barrier_probabilities([0.0, 1.0, 1.0], 2.0).round(3)
    array([0.5 , 0.25, 0.25])
    """
    return _leaders("log_barrier_probabilities", kernels.LOG_BARRIER, losses, eta)


def entropy_probabilities(losses: ArrayLike, eta: float) -> NDArray[np.float64]:
    """Minimisers over the simplex of ``eta <p, losses> + sum p ln p``: the softmax of ``-eta losses``, a row a problem.

    Arguments, results and errors as `log_barrier_probabilities`.

    >>> entropy_probabilities([0.0, 1.0], np.log(3.0))
    array([0.75, 0.25])
    """
    return _leaders("entropy_probabilities", kernels.ENTROPY, losses, eta)


def _leaders(name: str, kind: int, losses: ArrayLike, eta: float) -> NDArray[np.float64]:
    table = as_real("losses", losses)
    if table.ndim == 0 or table.size == 0:
        raise InvalidProblem(f"{name}: losses has shape {table.shape}; expected (..., actions), none empty.")
    check_finite("losses", table)
    require(is_real(eta) and 0 < eta < np.inf, f"{name} needs eta > 0", got=eta)
    rows = table.reshape(-1, table.shape[-1])
    # In units of the largest, so that neither a difference nor its product with eta leaves the numbers that there are.
    found, unit = np.empty_like(rows), max(float(np.abs(rows).max()), 1e-300)
    kernels.leaders(kind, rows / unit, min(float(eta) * unit, 1e300), found)
    return found.reshape(table.shape)
