"""15: half-steps and sweeps of matrix completion against exact ones, implicit, SoftImpute and Surprise."""

from __future__ import annotations

import time
import tracemalloc
from collections.abc import Callable, Iterator
from typing import Any

import numpy as np
import scipy.sparse as sp

from benchmarks.race import Row, race
from thalweg.core import Stop, solve
from thalweg.matrix import AltMin, CGAltMin, Completion, ExactAltMin, MatrixCompletion


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
    """A whole fit beside SoftImpute's and Surprise's, with the error that each reaches on cells set apart."""
    i, j, values = entries(2000, 1000, 400_000, 8)
    test = np.random.default_rng(1).random(len(values)) < 0.1
    seen = (i[~test], j[~test], values[~test])

    def error(predicted: Any) -> float:
        return float(np.sqrt(np.mean((predicted - values[test]) ** 2)))

    def ours() -> float:
        model = MatrixCompletion(8, ridge=0.01).fit(seen, shape=(2000, 1000))
        return error(model.predict(i[test], j[test]))

    mine, reached = _once(ours)
    for name, peer in (("fancyimpute SoftImpute", _soft_impute), ("Surprise SVD", _surprise)):
        run = peer(seen, (i[test], j[test]))
        if run is not None:
            seconds, found = _once(lambda run=run: error(run()))
            yield Row(
                "15",
                f"fit, 2000 x 1000, {len(seen[0]) / 1e6:.2f} M entries",
                mine,
                name,
                seconds,
                reached,
                found,
            )


def _once(run: Callable[[], float]) -> tuple[float, float]:
    run()
    start = time.perf_counter()
    found = run()
    return time.perf_counter() - start, found


def _soft_impute(seen: Any, wanted: Any) -> Callable[[], Any] | None:
    try:
        from fancyimpute import SoftImpute
    except (ImportError, TypeError):
        return None
    table = np.full((2000, 1000), np.nan)
    table[seen[0], seen[1]] = seen[2]

    def run() -> Any:
        return SoftImpute(max_rank=8, verbose=False).fit_transform(table.copy())[wanted]

    try:
        SoftImpute(max_iters=1, verbose=False).fit_transform(table[:20, :20].copy())
    except TypeError:  # beside newer versions of scikit-learn
        return None
    return run


def _surprise(seen: Any, wanted: Any) -> Callable[[], Any] | None:
    try:
        import pandas as pd
        from surprise import SVD, Dataset, Reader
    except ImportError:
        return None
    frame = pd.DataFrame({"u": seen[0], "i": seen[1], "r": seen[2]})
    reader = Reader(rating_scale=(float(seen[2].min()), float(seen[2].max())))
    train = Dataset.load_from_df(frame, reader).build_full_trainset()

    def run() -> Any:
        model = SVD(n_factors=8, n_epochs=60, lr_all=0.02, reg_all=0.01, random_state=0).fit(train)
        return np.array([model.predict(u, v).est for u, v in zip(*wanted, strict=True)])

    return run


def bytes_an_entry(count: int = 10_000_000) -> float:
    """Memory that a problem and two sweeps take at their most, over the entries (numba's own is not seen)."""
    given = entries(100_000, 10_000, count, 8)
    tracemalloc.start()
    problem = Completion(given, rank=8, ridge=0.1, held_out=0.05, dtype=np.float32)
    solve(problem, CGAltMin(), stop=Stop(below={}, steps=2), progress=False)
    _, most = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    return most / len(given[0])
