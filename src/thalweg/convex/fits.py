"""What a linear model has come to."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from thalweg.convex.datafits import Vector


@dataclass
class Fit:
    """A model in progress, or done.

    Args:
        w: coefficients, shape (n,).
        intercept: zero where there is none.
        gap: certified distance of the objective from its minimum.
        scale: the objective at zero coefficients, which the tolerance is relative to.
        sweeps: rounds over columns.
        screened: columns proven to be zero.
        converged: whether gap <= tol * scale.
    """

    w: Vector
    intercept: float
    gap: float = np.inf
    scale: float = 1.0
    sweeps: int = 0
    screened: int = 0
    converged: bool = False
