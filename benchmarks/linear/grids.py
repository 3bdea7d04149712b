"""03: Poisson systems on grids to 1e-4 by the clock: learned directions against CG, IC(0)-CG and PyAMG."""

from __future__ import annotations

import time
import warnings
from collections.abc import Iterator
from typing import Any

import numpy as np
import pyamg
import scipy.sparse as sp

from benchmarks.race import Row
from thalweg.core import Stop, solve
from thalweg.linear import (
    AIR,
    SOLID,
    ConjugateGradient,
    DeepConjugateDirection,
    LinearSystem,
    PoissonGrid,
    incomplete_cholesky,
    pretrained_direction,
)
from thalweg.linear.obstacles import box_of_fluid, bunny

TOLERANCE = 1e-4


def grids() -> Iterator[Row]:
    """Set-up (factors, hierarchy, the network's view of the grid) is part of every time."""
    for shape in ((256, 256), (512, 512), (32, 32, 32), (64, 64, 64)):
        cells = box_of_fluid(shape)
        cells[bunny(shape) & (cells != AIR)] = SOLID
        grid = PoissonGrid(cells)
        b = np.random.default_rng(0).standard_normal(cells.size) * grid.fluid.ravel()
        network = pretrained_direction(len(shape))
        ours = _timed(grid, b, lambda system, f=network: DeepConjugateDirection(f))
        peers = {
            "CG": _timed(grid, b, lambda system: ConjugateGradient()),
            "IC(0)-CG": _timed(grid, b, lambda system: ConjugateGradient(incomplete_cholesky(system))),
            "PyAMG": _amg(grid, b),
        }
        told = f"Poisson to 1e-4, {' x '.join(map(str, shape))}"
        for peer, (seconds, residual, steps) in peers.items():
            workload = f"{told}, {ours[2]} iterations against {steps}"
            yield Row("03", workload, ours[0], peer, seconds, ours[1], residual)


def _timed(grid: PoissonGrid, b: Any, make: Any) -> tuple[float, float, int]:
    """Best of three: seconds, residual, iterations."""
    best = float("inf")
    for _ in range(3):
        start = time.perf_counter()
        system = LinearSystem(grid, b)
        stop = Stop(below={"residual": TOLERANCE}, steps=20_000)
        result = solve(system, make(system), stop=stop, progress=False)
        best = min(best, time.perf_counter() - start)
    return best, result.metrics["residual"], result.steps


def _amg(grid: PoissonGrid, b: Any) -> tuple[float, float, int]:
    best, residuals = float("inf"), []
    for _ in range(3):
        start = time.perf_counter()
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            A = sp.csr_matrix(grid.to_csr())
            residuals = []
            x = pyamg.ruge_stuben_solver(A).solve(b, tol=TOLERANCE, accel="cg", residuals=residuals)
        best = min(best, time.perf_counter() - start)
    return best, float(np.linalg.norm(b - A @ x) / np.linalg.norm(b)), len(residuals) - 1
