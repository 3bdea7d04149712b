"""21: the convex program of a ReLU network against cvxpy with Clarabel, and against networks trained by gradients."""

from __future__ import annotations

import time
import warnings
from collections.abc import Callable, Iterator
from typing import Any

import cvxpy as cp
import numpy as np
import torch
from sklearn.datasets import load_breast_cancer, load_diabetes
from sklearn.neural_network import MLPRegressor
from sklearn.preprocessing import StandardScaler

from benchmarks.race import Row
from thalweg.convex import ConvexReLU, SampledNeurons, TwoLayerNetwork, sample_neurons, sample_patterns
from thalweg.core import Stop, solve

#: Weight decay on the diabetes data, and on the breast cancer data.
DIABETES, CANCER = 10.0, 1.0


def rows() -> Iterator[Row]:
    """Interior points at 20, 60 and 100 patterns, to 1e-3 in the objective; then gradients, to one objective."""
    X, y = diabetes()
    for patterns in (20, 60, 100):
        yield interior(f"diabetes, {patterns} patterns", X, y, patterns, DIABETES)
    X, labels = load_breast_cancer(return_X_y=True)
    X = np.column_stack([StandardScaler().fit_transform(X), np.ones(len(X))])
    yield interior("breast cancer, 20 patterns", X, 2.0 * labels - 1.0, 20, CANCER)
    yield from gradients()


def diabetes() -> tuple[Any, Any]:
    """Standardised, with a column of ones."""
    X, y = load_diabetes(return_X_y=True)
    return np.column_stack([StandardScaler().fit_transform(X), np.ones(len(X))]), (y - y.mean()) / y.std()


def interior(told: str, X: Any, y: Any, patterns: int, beta: float) -> Row:
    """ADMM from nothing, its factor included, against Clarabel; accuracies are relative to Clarabel's objective."""
    D = sample_patterns(X, patterns)
    stop = Stop(below={"gap": 5e-4, "violation": 5e-4}, steps=1000)
    solve(ConvexReLU(X, y, D[:2], beta), stop=Stop(steps=1), progress=False)  # compiled

    def ours() -> float:
        return solve(ConvexReLU(X, y, D, beta), stop=stop, progress=False).metrics["objective"]

    seconds, value = min(_timed(ours) for _ in range(3))
    peer, best = _timed(lambda: _clarabel(X, y, D, beta))
    return Row("21", told, seconds, "cvxpy, Clarabel", peer, abs(value - best) / best, 0.0)


def _clarabel(X: Any, y: Any, D: Any, beta: float) -> float:
    P, d = len(D), X.shape[1]
    V, W = cp.Variable((P, d)), cp.Variable((P, d))
    f = cp.sum(cp.multiply(D.T.astype(float), X @ (V - W).T), axis=1)
    signs = np.where(D.T, 1.0, -1.0)
    cones = [cp.multiply(signs, X @ U.T) >= 0 for U in (V, W)]
    norms = sum(cp.sum(cp.norm(U, axis=1)) for U in (V, W))
    return float(
        cp.Problem(cp.Minimize(0.5 * cp.sum_squares(f - y) + beta * norms), cones).solve(solver="CLARABEL")
    )


def gradients() -> Iterator[Row]:
    """Sampled neurons against networks of 50 neurons, to the objective that 5000 neurons reach, within 1 %."""
    X, y = diabetes()
    neurons = sample_neurons(X, 5000)

    def ours() -> float:
        return solve(SampledNeurons(X, y, neurons, DIABETES), progress=False).metrics["objective"]

    ours()
    seconds, value = min(_timed(ours) for _ in range(3))
    for name, train in (("torch Adam", _adam), ("scikit-learn MLP, lbfgs", _mlp)):
        peer, found = _timed(lambda train=train: train(X, y, 1.01 * value))
        yield Row("21", "diabetes, 5000 sampled neurons", seconds, name, peer, value, found)


def _adam(X: Any, y: Any, goal: float) -> float:
    """Until the objective is reached, looked at in each step, where it is at hand."""
    torch.manual_seed(0)
    data, target = torch.tensor(X), torch.tensor(y)
    hidden = torch.nn.Linear(X.shape[1], 50, bias=False, dtype=torch.float64)
    output = torch.nn.Linear(50, 1, bias=False, dtype=torch.float64)
    weights = [hidden.weight, output.weight]
    optimizer = torch.optim.Adam(weights, lr=1e-2)
    value = np.inf
    for _ in range(20_000):
        optimizer.zero_grad()
        f = output(torch.relu(hidden(data)))[:, 0]
        loss = 0.5 * (f - target).square().sum() + 0.5 * DIABETES * sum(w.square().sum() for w in weights)
        loss.backward()
        value = loss.item()
        if value <= goal:
            break
        optimizer.step()
    return value


def _mlp(X: Any, y: Any, goal: float) -> float:
    """A doubling budget of iterations until the objective is reached; half of the time counted is for the tries."""
    problem = ConvexReLU(X, y, sample_patterns(X, 1), DIABETES, output_bias=True)
    value = np.inf
    for most in (50, 100, 200, 400, 800):
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            model = MLPRegressor(
                hidden_layer_sizes=(50,),
                solver="lbfgs",
                alpha=DIABETES,
                max_iter=most,
                tol=1e-9,
                random_state=0,
            )
            model.fit(X[:, :-1], y)
        W = np.column_stack([model.coefs_[0].T, model.intercepts_[0]])
        value = problem.objective_of(TwoLayerNetwork(W, model.coefs_[1], model.intercepts_[1]))
        if value <= goal:
            break
    return value


def _timed(work: Callable[[], float]) -> tuple[float, float]:
    begun = time.perf_counter()
    found = work()
    return time.perf_counter() - begun, found
