"""Stochastic gradient descent on least squares, compiled."""

from __future__ import annotations

import numba
import numpy as np
from numpy.typing import NDArray

Array = NDArray[np.float64]


@numba.njit(cache=True)
def sgd(Phi: Array, y: Array, w: Array, chosen: NDArray[np.int64], eta: float) -> None:
    """Steps on ``1/2 mean |phi_i w - y_i|^2``, w (p, k) in place: Phi (n, p), y (n, k), chosen rows (steps, batch)."""
    steps, batch = chosen.shape
    p, k = w.shape
    residual = np.empty((batch, k))
    for t in range(steps):
        for b in range(batch):
            i = chosen[t, b]
            for c in range(k):
                total = -y[i, c]
                for j in range(p):
                    total += Phi[i, j] * w[j, c]
                residual[b, c] = total * eta / batch
        for b in range(batch):
            i = chosen[t, b]
            for j in range(p):
                for c in range(k):
                    w[j, c] -= residual[b, c] * Phi[i, j]
