"""15: half-steps and sweeps of matrix completion against exact ones, implicit, SoftImpute and Surprise."""

from __future__ import annotations

import itertools
import time
import tracemalloc
from collections.abc import Callable, Iterator
from typing import Any

import numpy as np
import scipy.sparse as sp

from benchmarks.matrix.soft_impute import largest_penalty, soft_impute
from benchmarks.race import Row, race
from thalweg.core import Stop, solve
from thalweg.matrix import AltMin, AutomaticAltMin, CGAltMin, Completion, ExactAltMin

#: Seconds after which an iteration that has not reached an error is given up.
PATIENCE = 120.0
#: Passes of Surprise's stochastic gradients.
EPOCHS = 40


def rows() -> Iterator[Row]:
    """All rows."""
    for rank in (64, 128):
        yield sweeps(rank)
    for rank in (32, 64, 128):
        found = against_implicit(rank)
        if found is not None:
            yield found
    yield from to_an_error()


def entries(m: int, n: int, count: int, rank: int, noise: float = 0.1) -> tuple[Any, Any, Any]:
    """Rows, columns and values of a low-rank matrix with noise, each place at most once."""
    rng = np.random.default_rng(0)
    places = np.unique(rng.integers(m * n, size=count))
    i, j = places // n, places % n
    U, V = rng.standard_normal((m, rank)), rng.standard_normal((n, rank)) / np.sqrt(rank)
    return i, j, np.einsum("ij,ij->i", U[i], V[j]) + noise * rng.standard_normal(len(i))


def _sweep(problem: Completion, method: AltMin) -> Callable[[], float]:
    """One sweep from the start; the state is made beforehand."""
    state = method.init(problem, 0)
    return lambda: float(method.step(problem, state).metrics["gradient"])


def sweeps(rank: int) -> Row:
    """A sweep by four steps of conjugate gradients, and an exact one; one thread."""
    problem = Completion(entries(3000, 2000, 1_700_000, rank), rank=rank, ridge=0.1, held_out=0.0)
    (ours, _), (exact, _) = race(
        _sweep(problem, CGAltMin(cg_steps=4)), _sweep(problem, ExactAltMin()), rounds=3
    )
    return Row(
        "15",
        f"sweep, 3000 x 2000, {len(problem.entries) / 1e6:.2f} M entries, k = {rank}",
        ours,
        "exact",
        exact,
    )


def against_implicit(rank: int) -> Row | None:
    """A sweep in float32 beside `implicit`'s with its conjugate gradients; it fits what was not seen as well."""
    try:
        from implicit.cpu.als import AlternatingLeastSquares
    except ImportError:
        return None
    i, j, values = entries(5000, 3000, 1_500_000, rank)
    problem = Completion((i, j, values), rank=rank, ridge=0.1, held_out=0.0, dtype=np.float32)
    counts = sp.csr_array((np.abs(values).astype(np.float32), (i, j)), shape=(5000, 3000))

    def theirs() -> None:
        model = AlternatingLeastSquares(rank, iterations=1, num_threads=1, use_cg=True, random_state=0)
        model.fit(sp.csr_matrix(counts), show_progress=False)

    (ours, _), (peer, _) = race(_sweep(problem, CGAltMin(cg_steps=3)), theirs, rounds=3)
    return Row(
        "15", f"sweep, 5000 x 3000, {len(values) / 1e6:.2f} M entries, k = {rank}", ours, "implicit, CG", peer
    )


def to_an_error() -> Iterator[Row]:
    """Seconds from the entries to within 1 % of the best error on cells set apart, beside SoftImpute's and Surprise's.

    Ours and SoftImpute are asked after each iteration, with the clock stopped; Surprise has no iterations to ask.
    """
    m, n, rank = 10_000, 5_000, 32
    i, j, values = entries(m, n, 5_000_000, rank)
    test = np.random.default_rng(1).random(len(values)) < 0.1
    seen, wanted = (i[~test], j[~test], values[~test]), (i[test], j[test])

    def error(predicted: Any) -> float:
        return float(np.sqrt(np.mean((predicted - values[test]) ** 2)))

    def ours() -> Iterator[Any]:
        options: dict[str, Any] = {"ridge": 1e-3, "ridge_by_count": True, "standardize": True}
        problem, method = Completion(seen, rank, shape=(m, n), dtype=np.float32, **options), AutomaticAltMin()
        state = method.init(problem, 0)
        while True:
            state = method.step(problem, state)
            yield problem.predict(state.x, *wanted)

    def soft() -> Iterator[Any]:
        problem = Completion(seen, rank, shape=(m, n), held_out=0.0, dtype=np.float32)
        top = largest_penalty(problem)  # of paths of one to five penalties, the fastest to this error
        for found in soft_impute(problem, rank, [top / 10, 3e-4 * top], tol=1e-2):
            yield found.predict(*wanted)

    goal = 1.01 * min(error(found) for found in itertools.islice(ours(), 6))
    workload = f"to 1.01 of the best error, {m} x {n}, {len(seen[0]) / 1e6:.2f} M entries, k = {rank}"
    mine, reached = _until(ours(), error, goal)
    seconds, found = _until(soft(), error, goal)
    yield Row("15", workload, mine, "SoftImpute, ALS", seconds, reached, found)
    theirs = _surprise(seen, wanted, rank)
    if theirs is not None:
        yield Row("15", workload, mine, "Surprise SVD", theirs[0], reached, error(theirs[1]))


def _until(iterates: Iterator[Any], error: Callable[[Any], float], goal: float) -> tuple[float, float]:
    """Seconds until an iterate's error is below ``goal``, and that error; without the time to measure it."""
    seconds, start = 0.0, time.perf_counter()
    for found in iterates:
        seconds += time.perf_counter() - start
        reached = error(found)
        if reached <= goal or seconds > PATIENCE:
            break
        start = time.perf_counter()
    return seconds, reached


def _surprise(seen: Any, wanted: Any, rank: int) -> tuple[float, Any] | None:
    """Seconds from the entries to the fitted model, and what it predicts."""
    try:
        import pandas as pd
        from surprise import SVD, Dataset, Reader
    except ImportError:
        return None
    frame = pd.DataFrame({"u": seen[0], "i": seen[1], "r": seen[2]})
    reader = Reader(rating_scale=(float(seen[2].min()), float(seen[2].max())))
    start = time.perf_counter()
    train = Dataset.load_from_df(frame, reader).build_full_trainset()
    model = SVD(n_factors=rank, n_epochs=EPOCHS, lr_all=0.02, reg_all=0.01, random_state=0).fit(train)
    seconds = time.perf_counter() - start
    return seconds, np.array([model.predict(u, v).est for u, v in zip(*wanted, strict=True)])


def bytes_an_entry(count: int = 10_000_000) -> float:
    """Memory that a problem and two sweeps take at their most, over the entries (numba's own is not seen)."""
    given = entries(100_000, 10_000, count, 8)
    tracemalloc.start()
    problem = Completion(given, rank=8, ridge=0.1, held_out=0.05, dtype=np.float32)
    solve(problem, CGAltMin(), stop=Stop(below={}, steps=2), progress=False)
    _, most = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    return most / len(given[0])
