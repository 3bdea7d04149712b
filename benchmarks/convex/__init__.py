"""10: sparse linear models to a duality gap of 1e-6 against its peers; forests. 21: ReLU networks."""

from __future__ import annotations

import functools
import time
import warnings
from collections.abc import Callable, Iterator
from typing import Any

import celer
import numpy as np
import scipy.sparse as sp
import skglm
from scipy.sparse.linalg import splu
from sklearn import linear_model

from benchmarks.convex import networks
from benchmarks.race import Row
from thalweg.convex import (
    AcceleratedProximalGradient,
    GroupPenalized,
    Lasso,
    LeastSquares,
    LogisticRegression,
    lasso_path,
    lattice,
    random_forest,
    solve_forest,
)
from thalweg.core import Stop, solve

#: Duality gap to reach, as a share of the loss at zero coefficients.
GAP = 1e-6
#: Tolerances tried for peers that do not stop by that gap, largest first: the first that reaches it is timed.
TRIES = tuple(10.0**-k for k in range(2, 12))
LIBLINEAR: dict[str, Any] = {"l1_ratio": 1.0, "solver": "liblinear", "max_iter": 10_000}


def rows() -> Iterator[Row]:
    """The Lasso, its path, logistic regression, the group Lasso, and exact steps on forests."""
    yield from lassos()
    yield from paths()
    yield from logistics()
    yield from group_lassos()
    yield forests()
    yield from networks.rows()


def dense(correlation: float, samples: int = 2000, features: int = 10_000) -> tuple[Any, Any]:
    """Columns correlated like ``correlation^|i - j|``, a hundred of which matter."""
    rng = np.random.default_rng(0)
    X = rng.standard_normal((samples, features))
    for j in range(1, features):
        X[:, j] = correlation * X[:, j - 1] + np.sqrt(1 - correlation**2) * X[:, j]
    return _target(np.asfortranarray(X), rng)


def sparse(samples: int = 100_000, features: int = 100_000, entries: int = 10_000_000) -> tuple[Any, Any]:
    """Entries at random places."""
    rng = np.random.default_rng(0)
    rows, columns = rng.integers(samples, size=entries), rng.integers(features, size=entries)
    X = sp.csc_matrix((rng.standard_normal(entries), (rows, columns)), shape=(samples, features))
    X.sum_duplicates()
    X.indices, X.indptr = X.indices.astype(np.int32), X.indptr.astype(np.int32)
    return _target(X, rng)


def _target(X: Any, rng: Any) -> tuple[Any, Any]:
    w = np.zeros(X.shape[1])
    w[rng.choice(X.shape[1], 100, replace=False)] = rng.standard_normal(100)
    y = X @ w
    return X, y + 0.3 * y.std() * rng.standard_normal(len(y))


def lasso_gap(X: Any, y: Any, l1: float, w: Any) -> float:
    """Duality gap over the loss at zero."""
    r = y - X @ w
    limit = l1 / np.abs(X.T @ r).max()
    s = float(np.clip(r @ y / (r @ r), -limit, limit))
    return float((0.5 * r @ r + l1 * np.abs(w).sum() - s * (r @ y) + 0.5 * s * s * (r @ r)) / (0.5 * y @ y))


def logistic_gap(X: Any, y: Any, l1: float, w: Any) -> float:
    """Duality gap over the loss at zero."""
    z = X @ w
    u = 1.0 / (1.0 + np.exp(y * z))
    s = min(1.0, l1 / np.abs(X.T @ (y * u)).max())
    u = np.clip(s * u, 1e-300, 1 - 1e-16)
    dual = -np.sum(u * np.log(u) + (1 - u) * np.log1p(-u))
    return float((np.logaddexp(0, -y * z).sum() + l1 * np.abs(w).sum() - dual) / (len(y) * np.log(2)))


def to_gap(make: Callable[[float], Any], X: Any, y: Any, gap: Callable[[Any], float]) -> tuple[float, float]:
    """Seconds, best of two, and gap of a peer at the loosest of its tolerances that reaches the gap."""
    for tol in TRIES:
        model = make(tol)
        seconds = _seconds(lambda m=model: m.fit(X, y))
        reached = gap(np.ravel(model.coef_))
        if reached <= GAP:
            break
    return min(seconds, _seconds(lambda: make(tol).fit(X, y))), reached


def _seconds(work: Callable[[], Any]) -> float:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        start = time.perf_counter()
        work()
        return time.perf_counter() - start


def lassos() -> Iterator[Row]:
    """One strength, a tenth and a hundredth of the smallest that gives zero."""
    problems = {"dense 2000 x 10 000, correlation 0.5": dense(0.5)}
    problems |= {
        "dense 2000 x 10 000, correlation 0.95": dense(0.95),
        "sparse 1e5 x 1e5, 1e7 entries": sparse(),
    }
    for name, (X, y) in problems.items():
        largest = float(np.abs(X.T @ y).max())
        for share in (10, 100):
            l1, alpha = largest / share, largest / share / len(y)

            def gap(w: Any, X: Any = X, y: Any = y, l1: float = l1) -> float:
                return lasso_gap(X, y, l1, w)

            options: dict[str, Any] = {"alpha": alpha, "fit_intercept": False}
            peers = {
                "scikit-learn": lambda tol, o=options: linear_model.Lasso(tol=tol, max_iter=100_000, **o),
                "celer": lambda tol, o=options: celer.Lasso(tol=tol, max_iter=1000, **o),
                "skglm": lambda tol, o=options: skglm.Lasso(tol=tol, max_iter=1000, **o),
            }
            ours, reached = to_gap(lambda tol, o=options: Lasso(tol=GAP, **o), X, y, gap)
            for peer, make in peers.items():
                theirs, other = to_gap(make, X, y, gap)
                yield Row(
                    "10",
                    f"Lasso, {name}, 1/{share} of the largest strength",
                    ours,
                    peer,
                    theirs,
                    reached,
                    other,
                )


def paths() -> Iterator[Row]:
    """Twenty strengths down to a hundredth, each started from the one before."""
    for name, (X, y) in {
        "dense 2000 x 10 000, correlation 0.5": dense(0.5),
        "sparse": sparse(entries=2_000_000),
    }.items():
        alphas = np.geomspace(1.0, 1e-2, 20) * float(np.abs(X.T @ y).max()) / len(y)
        options: dict[str, Any] = {"X": X, "y": y, "alphas": alphas}
        ours = min(_seconds(functools.partial(lasso_path, tol=GAP, **options)) for _ in range(2))
        peers = {
            "celer": functools.partial(celer.celer_path, pb="lasso", tol=GAP / 2, **options),
            "scikit-learn": functools.partial(
                linear_model.lasso_path, tol=GAP / 2, max_iter=100_000, **options
            ),
        }
        for peer, work in peers.items():
            yield Row("10", f"Lasso path of 20, {name}", ours, peer, min(_seconds(work) for _ in range(2)))


def logistics() -> Iterator[Row]:
    """l1 logistic regression."""
    for name, (X, y) in {"dense 2000 x 10 000": dense(0.5), "sparse": sparse(entries=2_000_000)}.items():
        signs = np.where(y > 0, 1.0, -1.0)
        for share in (10, 50):
            l1 = float(np.abs(X.T @ signs).max()) / 2 / share

            def gap(w: Any, X: Any = X, y: Any = signs, l1: float = l1) -> float:
                return logistic_gap(X, y, l1, w)

            options: dict[str, Any] = {"C": 1.0 / l1, "fit_intercept": False}
            peers = {
                "liblinear": lambda tol, o=options: linear_model.LogisticRegression(
                    tol=tol, **o, **LIBLINEAR
                ),
                "celer": lambda tol, o=options: celer.LogisticRegression(tol=tol, max_iter=1000, **o),
            }
            ours, reached = to_gap(
                lambda tol, o=options: LogisticRegression(tol=GAP, l1_ratio=1.0, **o), X, signs, gap
            )
            for peer, make in peers.items():
                theirs, other = to_gap(make, X, signs, gap)
                told = f"l1 logistic, {name}, 1/{share} of the largest strength"
                yield Row("10", told, ours, peer, theirs, reached, other)


def group_lassos(features: int = 3000) -> Iterator[Row]:
    """Groups of ten neighbouring columns, correlated; accuracy is the largest violation over the weight."""
    X, y = dense(0.5, 500, features)
    labels = np.arange(features) // 10
    largest = max(float(np.linalg.norm(X[:, labels == k].T @ y)) for k in range(labels[-1] + 1))
    for share in (10, 100):
        weight = largest / share

        def ours(weight: float = weight) -> Any:
            problem = GroupPenalized(LeastSquares(X, y), groups=labels, group_weight=weight)
            stop = Stop(below={"violation": GAP * weight}, steps=10_000)
            return solve(problem, AcceleratedProximalGradient(), stop=stop, progress=False).x

        judge = GroupPenalized(LeastSquares(X, y), groups=labels, group_weight=weight)

        def gap(w: Any, judge: Any = judge, weight: float = weight) -> float:
            return float(judge.metrics(w)["violation"]) / weight

        options: dict[str, Any] = {"groups": 10, "alpha": weight / len(y), "fit_intercept": False}
        theirs, other = to_gap(lambda tol, o=options: skglm.GroupLasso(tol=tol, **o), X, y, gap)
        ours()  # compiled
        told = f"group Lasso, dense 500 x {features}, 1/{share} of the largest strength"
        yield Row("10", told, min(_seconds(ours) for _ in range(2)), "skglm", theirs, gap(ours()), other)


def forests(side: int = 400) -> Row:
    """An exact step on a forest of about 1e5 nodes of a lattice, against SciPy's sparse LU of the same block."""
    H = lattice(side, side, 0.01)
    forest = random_forest(H)
    g = np.random.default_rng(0).standard_normal(len(forest))
    inner = sp.csc_array(H[forest][:, forest])
    ours = min(_seconds(lambda: solve_forest(H, forest, g)) for _ in range(5))
    peer = min(_seconds(lambda: splu(inner, permc_spec="MMD_AT_PLUS_A").solve(-g)) for _ in range(5))
    apart = [float(np.abs(inner @ d + g).max()) for d in (solve_forest(H, forest, g), splu(inner).solve(-g))]
    return Row("10", f"exact step on a forest of {len(forest)} nodes", ours, "SciPy splu", peer, *apart)
