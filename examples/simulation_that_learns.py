"""A simulation that solves one linear system a time step, and learns its solver's parameter on the way.

Run it: python examples/simulation_that_learns.py
"""

from __future__ import annotations

import numpy as np
import scipy.sparse as sp

from thalweg.linear import SSORCG, ConjugateGradient, LinearSystem, SequenceSolver, omega_grid
from thalweg.numerics import FivePointStencil
from thalweg.online import Fixed, TsallisINF


def simulate(solver: SequenceSolver, steps: int, side: int = 40) -> int:
    """Heat from a source that wanders through a plate; returns the iterations of all steps."""
    laplacian = FivePointStencil(side, side).to_csr()
    identity = sp.eye_array(side * side, format="csr")
    rng = np.random.default_rng(0)
    u, iterations = np.zeros(side * side), 0
    for t in range(steps):
        conductivity = 50.0 * (1.1 + np.sin(t / 20.0))
        b = u.copy()
        b[rng.integers(side * side)] += 1.0
        result = solver.solve(LinearSystem(identity + conductivity * laplacian, b))
        u = result.x
        iterations += result.steps
    return iterations


def main(steps: int = 1000) -> tuple[int, int]:
    learned = simulate(SequenceSolver(TsallisINF(20), omega_grid(SSORCG)), steps)
    plain = simulate(SequenceSolver(Fixed(1), [ConjugateGradient()]), steps)
    print(f"iterations of {steps} steps: {learned} learned, {plain} with plain conjugate gradients")
    return learned, plain


if __name__ == "__main__":
    main()
