"""04: test problems and optimal control against SLSQP, trust-constr and Ipopt, to the same accuracy."""

from __future__ import annotations

import importlib.util
import time
import warnings
from collections.abc import Callable, Iterator
from typing import Any

import numpy as np
from scipy.optimize import minimize

from benchmarks.race import Row
from thalweg import Status, Stop, solve
from thalweg.constrained import (
    COLLECTION,
    EqualityConstrained,
    NewtonSQP,
    PoissonControl,
    SketchedNewton,
    named_problem,
)
from thalweg.core import recommended
from thalweg.numerics.sketch import BlockKaczmarz
from thalweg.studies.sketched_sqp import target

KKT = 1e-6
#: Tolerances tried for peers, loosest first: the first that reaches the KKT residual is timed.
TRIES = (1e-4, 1e-6, 1e-8, 1e-10, 1e-12)


def rows() -> Iterator[Row]:
    """The test problems of three sizes of peer, then control; Ipopt where cyipopt is installed."""
    yield from collection()
    yield from control()


def timed(call: Callable[[], Any]) -> tuple[float, Any]:
    """The best of three, with dependent constraints untold."""
    best, found = np.inf, None
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        for _ in range(3):
            start = time.perf_counter()
            found = call()
            best = min(best, time.perf_counter() - start)
    return best, found


def ours(problem: EqualityConstrained, method: Any) -> tuple[float, bool, float, int]:
    """Seconds, whether it is solved, the residual, evaluations."""
    seconds, found = timed(
        lambda: solve(problem, method, stop=Stop(below={"kkt": KKT}, steps=300, seconds=60.0))
    )
    return seconds, found.status is Status.CONVERGED, found.metrics["kkt"], found.calls


def theirs(problem: EqualityConstrained, peer: str) -> tuple[float, bool, float, int]:
    """The same for a peer at the loosest tolerance that reaches the residual."""
    if problem.m == problem.n and peer == "trust-constr":
        return np.nan, False, np.inf, 0  # it refuses as many equations as unknowns
    for tolerance in TRIES:
        try:
            seconds, found = timed(lambda tolerance=tolerance: _peer(problem, peer, tolerance))
        except (ValueError, np.linalg.LinAlgError):
            continue
        residual = problem.metrics(found.x)["kkt"]
        if residual <= KKT:
            return seconds, True, residual, int(found.nfev)
    return np.nan, False, np.inf, 0


def _peer(problem: EqualityConstrained, peer: str, tolerance: float) -> Any:
    equations = {"type": "eq", "fun": problem.constraints, "jac": problem.jacobian}
    if peer == "ipopt":
        from cyipopt import minimize_ipopt

        if not hasattr(problem.jacobian(problem.x0), "tocsr"):
            equations["hess"] = lambda x, v: problem.hessian(x, v) - problem.hessian(x, np.zeros(problem.m))
        options = {"tol": tolerance, "max_iter": 500, "print_level": 0}
        hess = (lambda x: problem.hessian(x, np.zeros(problem.m))) if "hess" in equations else None
        return minimize_ipopt(
            problem.value,
            problem.x0,
            jac=problem.gradient,
            hess=hess,
            constraints=equations,
            options=options,
        )
    options = {"maxiter": 1000}
    if peer == "SLSQP":
        return minimize(
            problem.value,
            problem.x0,
            jac=problem.gradient,
            method=peer,
            constraints=equations,
            options={**options, "ftol": tolerance * 1e-3},
        )
    from scipy.optimize import NonlinearConstraint

    m = np.zeros(problem.m)
    equality = NonlinearConstraint(
        problem.constraints,
        0.0,
        0.0,
        jac=problem.jacobian,
        hess=lambda x, v: problem.hessian(x, v) - problem.hessian(x, m),
    )
    return minimize(
        problem.value,
        problem.x0,
        jac=problem.gradient,
        hess=lambda x: problem.hessian(x, m),
        method=peer,
        constraints=equality,
        options={**options, "gtol": tolerance, "xtol": 1e-14},
    )


def collection() -> Iterator[Row]:
    """Sums over the problems that both solve; the counts are in the workload's name."""
    peers = ["SLSQP", "trust-constr"] + (["ipopt"] if importlib.util.find_spec("cyipopt") else [])
    methods = {
        "sketched, rows": SketchedNewton(),
        "sketched, blocks": SketchedNewton(BlockKaczmarz()),
        "Newton": NewtonSQP(),
    }
    mine = {(m, n): ours(named_problem(n), method) for m, method in methods.items() for n in COLLECTION}
    for peer in peers:
        other = {n: theirs(named_problem(n), peer) for n in COLLECTION}
        for method in methods:
            both = [n for n in COLLECTION if mine[method, n][1] and other[n][1]]
            solved = [
                sum(r[1] for r in rs) for rs in ([mine[method, n] for n in COLLECTION], list(other.values()))
            ]
            calls = [np.median([r[n][3] for n in both]) for r in ({n: mine[method, n] for n in both}, other)]
            yield Row(
                "04",
                f"{method}: {solved[0]} and {solved[1]} of {len(COLLECTION)} test problems; "
                f"median evaluations {calls[0]:.0f} and {calls[1]:.0f}",
                sum(mine[method, n][0] for n in both),
                peer,
                sum(other[n][0] for n in both),
                accuracy_ours=max(mine[method, n][2] for n in both),
                accuracy_peer=max(other[n][2] for n in both),
            )


def control() -> Iterator[Row]:
    """Optimal control with 2592 and 10 368 unknowns."""
    for side in (36, 72):
        problem = PoissonControl(target(side)).problem
        seconds, _, residual, _ = ours(problem, recommended(problem))
        direct, _, exact, _ = ours(problem, NewtonSQP())
        workload = f"control, {problem.n} unknowns"
        yield Row(
            "04", workload, seconds, "own direct Newton", direct, accuracy_ours=residual, accuracy_peer=exact
        )
        peer, solved, theirs_residual, _ = theirs(problem, "trust-constr")
        if solved:
            yield Row(
                "04",
                workload,
                seconds,
                "trust-constr",
                peer,
                accuracy_ours=residual,
                accuracy_peer=theirs_residual,
            )
