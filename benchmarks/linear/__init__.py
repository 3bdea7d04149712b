"""02: sweeps against memory, PyAMG and SciPy; a sequence against SciPy's. 03: Poisson systems on grids."""

from __future__ import annotations

import functools
import math
from collections.abc import Iterator
from typing import Any

import numpy as np
import scipy.sparse as sp
import scipy.sparse.linalg as spla
from numba import njit, prange
from pyamg.relaxation import relaxation as pyamg_relaxation

from benchmarks.linear.grids import grids
from benchmarks.race import Row, race
from thalweg.core import Method, Problem, State, Stop, solve
from thalweg.linear import (
    SOR,
    SSORCG,
    HeatEquation,
    LinearSystem,
    RedBlackSOR,
    SequenceSolver,
    omega_grid,
    optimal_omega,
)
from thalweg.numerics import FivePointStencil
from thalweg.online import TsallisINF

TOLERANCE = 1e-8


def rows() -> Iterator[Row]:
    """All rows, the cheap ones first."""
    yield driver()
    yield from sweep_against_memory()
    yield from sor_to_tolerance()
    yield triangular_solves()
    yield from heat_sequence()
    yield from grids()


def poisson(side: int) -> LinearSystem:
    """The five-point Laplacian on a square with a random right-hand side."""
    b = np.random.default_rng(0).standard_normal(side * side)
    return LinearSystem(FivePointStencil(side, side).to_csr(), b)


class _Nothing(Problem):
    def metrics(self, x: Any) -> dict[str, float]:
        return {}


class _Count(Method[Any, Any]):
    """A step that does nothing: what is left is the driver's own time."""

    def init(self, problem: Any, seed: int) -> State:
        return State(x=0, metrics={"residual": 1.0})

    def step(self, problem: Any, state: State) -> State:
        return State(x=0, metrics={"residual": 1.0})


def driver() -> Row:
    """``solve`` over a bare loop, a hundred thousand empty steps; the difference a step must be below 3 us."""
    steps, method, problem = 100_000, _Count(), _Nothing()
    stop = Stop(below={"residual": 1e-8}, steps=steps, seconds=60)

    def bare() -> None:
        state = method.init(problem, 0)
        for _ in range(steps):
            state = method.step(problem, state)

    (ours, _), (peer, _) = race(lambda: solve(problem, method, stop=stop, progress=False), bare)
    return Row(
        "core", "driver, seconds a step (ours - peer <= 3e-6)", ours / steps, "bare loop", peer / steps
    )


def _read(data, indices, indptr):
    total = 0.0
    for k in prange(len(data)):
        total += data[k]
    whole = 0
    for k in prange(len(indices)):
        whole += indices[k]
    for i in prange(len(indptr)):
        whole += indptr[i]
    return total + whole


#: A sum over every stored number, as fast as one core, or all of them, can read.
READS = {
    "read of the matrix, one core": njit(fastmath=True)(_read),
    "read of the matrix, all cores": njit(parallel=True, fastmath=True)(_read),
}


def sweep_against_memory(side: int = 1500, sweeps: int = 20) -> Iterator[Row]:
    """One SOR sweep with its residual over reading the matrix once; a matrix several times the size of the cache."""
    system = poisson(side)
    A, method = system.csr, SOR(omega=1.9)
    state = method.init(system, 0)

    def sweep() -> None:
        nonlocal state
        for _ in range(sweeps):
            state = method.step(system, state)

    reads = [functools.partial(read, A.data, A.indices, A.indptr) for read in READS.values()]
    (ours, _), *peers = race(sweep, *reads, rounds=9)
    for name, (peer, _) in zip(READS, peers, strict=True):
        yield Row("02", f"one SOR sweep, residual included, n = {system.n}", ours / sweeps, name, peer)


def sor_to_tolerance(side: int = 400) -> Iterator[Row]:
    """SOR to 1e-8 against the same loop over PyAMG's compiled sweep, and red-black without a matrix."""
    system = poisson(side)
    omega = optimal_omega(math.cos(math.pi / (side + 1)))
    stop = Stop(below={"residual": TOLERANCE}, steps=100_000)
    stencil = LinearSystem(FivePointStencil(side, side), system.b)
    A, b = sp.csr_matrix(system.csr), system.b

    def pyamg() -> np.ndarray[Any, Any]:
        x, target = np.zeros_like(b), TOLERANCE * np.linalg.norm(b)
        while np.linalg.norm(b - A @ x) > target:
            pyamg_relaxation.sor(A, x, b, omega, iterations=1, sweep="forward")
        return x

    timed = race(
        lambda: solve(system, SOR(omega), stop=stop, progress=False).x,
        lambda: solve(stencil, RedBlackSOR(omega), stop=stop, progress=False).x,
        pyamg,
        rounds=3,
    )
    (csr, x_csr), (red_black, x_rb), (peer, x_peer) = timed
    residual = [system.metrics(x)["residual"] for x in (x_csr, x_rb, x_peer)]
    workload = f"to 1e-8, residual checks included, n = {side * side}"
    yield Row("02", f"SOR on CSR {workload}", csr, "PyAMG sor loop", peer, residual[0], residual[2])
    yield Row(
        "02",
        f"matrix-free red-black SOR {workload}",
        red_black,
        "PyAMG sor loop",
        peer,
        residual[1],
        residual[2],
    )


def triangular_solves(side: int = 300, sweeps: int = 10) -> Row:
    """Ten SOR sweeps against ten triangular solves of SciPy."""
    system, omega = poisson(side), 1.9
    A, b = system.csr, system.b
    M = sp.csr_array(sp.tril(A, -1) + sp.diags_array(A.diagonal() / omega))

    def scipy() -> np.ndarray[Any, Any]:
        x = np.zeros_like(b)
        for _ in range(sweeps):
            x += spla.spsolve_triangular(M, b - A @ x, lower=True)
        return x

    (ours, x), (peer, y) = race(
        lambda: solve(system, SOR(omega), stop=Stop(steps=sweeps), progress=False).x, scipy, rounds=3
    )
    residual = [system.metrics(v)["residual"] for v in (x, y)]
    return Row(
        "02",
        f"{sweeps} SOR sweeps, n = {side * side}",
        ours,
        "SciPy spsolve_triangular loop",
        peer,
        *residual,
    )


def heat_sequence(nx: int = 100, rounds: int = 500) -> Iterator[Row]:
    """A simulation over a whole period of its coefficient: learned SSOR-CG against what SciPy offers."""
    workload = HeatEquation(nx=nx, rounds=rounds, dt=1.0 / rounds)

    def learned() -> float:
        solver = SequenceSolver(TsallisINF(20), omega_grid(SSORCG), tol=TOLERANCE)
        return _march(workload, lambda system: solver.solve(system).x)

    def bicgstab_ilu() -> float:
        # An incomplete LU of a symmetric matrix is not symmetric: CG with it stagnates, BiCGSTAB does not.
        def one(system: LinearSystem) -> np.ndarray[Any, Any]:
            ilu = spla.spilu(system.csr.tocsc(), drop_tol=1e-3, fill_factor=5)
            M = spla.LinearOperator(system.csr.shape, ilu.solve)
            return spla.bicgstab(system.csr, system.b, x0=system.start(), rtol=TOLERANCE, M=M)[0]

        return _march(workload, one)

    def cg() -> float:
        return _march(workload, lambda s: spla.cg(s.csr, s.b, x0=s.start(), rtol=TOLERANCE)[0])

    def direct() -> float:
        return _march(workload, lambda s: spla.spsolve(s.csr.tocsc(), s.b))

    (ours, worst), *peers = race(learned, bicgstab_ilu, cg, direct, rounds=1)
    names = ("SciPy bicgstab + spilu", "SciPy cg", "SciPy spsolve")
    for name, (peer, accuracy) in zip(names, peers, strict=True):
        yield Row(
            "02",
            f"heat equation, {rounds} steps, nx = {nx}, learned SSOR-CG",
            ours,
            name,
            peer,
            worst,
            accuracy,
        )


def _march(workload: HeatEquation, one: Any) -> float:
    """Solve every system with ``one``; the largest residual."""
    u, worst = None, 0.0
    for t in range(workload.rounds):
        system = workload.system(t, u)
        u = one(system)
        worst = max(worst, system.metrics(u)["residual"])
    return worst
