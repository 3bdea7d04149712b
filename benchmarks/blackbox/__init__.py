"""18: CPU seconds a suggestion and regret, against BoTorch, scikit-optimize and Optuna's samplers. One thread each."""

from __future__ import annotations

import time
import warnings
from collections.abc import Callable, Iterator
from typing import Any

import numpy as np
import optuna
import torch
from botorch.acquisition import LogExpectedImprovement
from botorch.fit import fit_gpytorch_mll
from botorch.models import SingleTaskGP
from botorch.models.transforms import Standardize
from botorch.optim import optimize_acqf
from gpytorch.mlls import ExactMarginalLogLikelihood
from sklearn.model_selection import cross_val_score
from sklearn.svm import SVC
from skopt import Optimizer as SkoptOptimizer

from benchmarks.race import Row
from thalweg.blackbox import Real, Study, functions
from thalweg.blackbox.functions import TestFunction, levy
from thalweg.datasets import load
from thalweg.numerics.quasirandom import sobol

Vector = np.ndarray[Any, Any]
#: An optimizer: told initial points and values, it is asked for a point and told what came out, again and again.
Loop = Callable[[TestFunction, Vector, Vector, int, int], tuple[Vector, list[float]]]

SEEDS = 20
#: The functions that our defaults were chosen on, and then those that nothing was chosen on.
RACES = (
    (functions.BRANIN, 30),
    (functions.HARTMANN6, 50),
    (functions.ACKLEY6, 50),
    (functions.LEVY6, 50),
    (functions.CAMEL, 30),
    (functions.HARTMANN3, 30),
    (functions.ROSENBROCK4, 50),
    (functions.MICHALEWICZ5, 50),
    (functions.STYBLINSKI_TANG6, 50),
)
#: 496: four suggestions from there on are compiled.
SIZES = tuple((n, d) for n in (20, 100, 496, 2000) for d in (2, 6, 20))


def rows() -> Iterator[Row]:
    """All rows, the suggestions' times first."""
    warnings.filterwarnings("ignore")
    optuna.logging.set_verbosity(optuna.logging.ERROR)
    torch.set_num_threads(1)
    list(suggestion(10, 2))  # what loads and compiles on first use
    for n, d in SIZES:
        yield from suggestion(n, d)
    for function, evaluations in RACES:
        yield from regret(function, evaluations)
    yield from regret(support_vectors(), 20, seeds=5)


def suggestion(n: int, d: int, count: int = 4) -> Iterator[Row]:
    """Mean seconds of ``count`` suggestions in a row from n data on, with our cold fit; ours the median of three."""
    function = TestFunction("Levy", d, levy, 0.0)
    X = sobol(n, d, 0).numpy()
    y = np.array([function(x) for x in X])
    peers = {"BoTorch LogEI": botorch_loop, "Optuna TPE": optuna_loop(optuna.samplers.TPESampler)}
    if n <= 500:
        peers["Optuna GPSampler"] = optuna_loop(optuna.samplers.GPSampler)
        peers["scikit-optimize"] = skopt_loop
    ours = float(np.median([np.mean(our_loop(function, X, y, count, 0)[1]) for _ in range(3)]))
    for name, loop in peers.items():
        few = count if n <= 100 else 1
        yield Row(
            "18", f"suggestion, n = {n}, d = {d}", ours, name, float(np.mean(loop(function, X, y, few, 0)[1]))
        )


def regret(function: TestFunction, evaluations: int, seeds: int = SEEDS) -> Iterator[Row]:
    """Median regret over paired seeds, and seconds a suggestion, from the same initial points."""
    gpsampler, tpe = (optuna_loop(s) for s in (optuna.samplers.GPSampler, optuna.samplers.TPESampler))
    # scikit-optimize takes ten times as long as the others: fewer seeds, against the same ones of ours
    peers = {"BoTorch LogEI": (botorch_loop, seeds), "Optuna GPSampler": (gpsampler, seeds)}
    peers |= {"Optuna TPE": (tpe, seeds), "scikit-optimize": (skopt_loop, min(seeds, 5))}
    ours = [_regret_of(our_loop, function, evaluations, seed) for seed in range(seeds)]
    for name, (loop, few) in peers.items():
        theirs = [_regret_of(loop, function, evaluations, seed) for seed in range(few)]
        regrets, seconds = (
            [float(np.median([r[k] for r in runs])) for runs in (ours[:few], theirs)] for k in (0, 1)
        )
        workload = f"{function.name}, {evaluations} evaluations, {few} seeds (accuracy: median regret)"
        yield Row("18", workload, seconds[0], name, seconds[1], *regrets)


def _regret_of(loop: Loop, function: TestFunction, evaluations: int, seed: int) -> tuple[float, float]:
    X = sobol(2 * (function.dimension + 1), function.dimension, seed).numpy()
    y = np.array([function(x) for x in X])
    values, times = loop(function, X, y, evaluations - len(X), seed)
    return float(min(y.min(), values.min())) - function.minimum, float(np.mean(times))


def support_vectors() -> TestFunction:
    """The cross-validated error of an SVM on digits over log C and log gamma: a real objective."""
    data = load("digits")

    def error(u: Vector) -> float:
        model = SVC(C=10.0 ** (6 * u[0] - 3), gamma=10.0 ** (7 * u[1] - 7))
        return 1.0 - float(cross_val_score(model, data.X[:900], data.y[:900], cv=3).mean())

    return TestFunction("SVM on digits (error)", 2, error, 0.0)


def our_loop(
    function: TestFunction, X: Vector, y: Vector, count: int, seed: int
) -> tuple[Vector, list[float]]:
    names = [f"x{i}" for i in range(function.dimension)]
    study = Study({name: Real(0.0, 1.0) for name in names}, initial=len(X), seed=seed)
    for x, value in zip(X, y, strict=True):
        study.tell(dict(zip(names, map(float, x), strict=True)), float(value))
    values, times = [], []
    for _ in range(count):
        start = time.process_time()
        trial = study.ask()
        times.append(time.process_time() - start)
        values.append(function(np.array([trial[name] for name in names])))
        study.tell(trial, values[-1])
    return np.array(values), times


def botorch_loop(
    function: TestFunction, X: Vector, y: Vector, count: int, seed: int
) -> tuple[Vector, list[float]]:
    """As BoTorch's tutorials do: a fresh SingleTaskGP, log-EI, 10 restarts of 512 raw samples."""
    torch.manual_seed(seed)
    inputs, outputs = torch.from_numpy(X).clone(), -torch.from_numpy(y)[:, None]
    bounds = torch.stack([torch.zeros(X.shape[1]), torch.ones(X.shape[1])]).double()
    values, times = [], []
    for _ in range(count):
        start = time.process_time()
        model = SingleTaskGP(inputs, outputs, outcome_transform=Standardize(1))
        fit_gpytorch_mll(ExactMarginalLogLikelihood(model.likelihood, model))
        worth = LogExpectedImprovement(model, outputs.max())
        candidate, _ = optimize_acqf(worth, bounds=bounds, q=1, num_restarts=10, raw_samples=512)
        times.append(time.process_time() - start)
        values.append(function(candidate[0].numpy()))
        inputs = torch.cat([inputs, candidate])
        outputs = torch.cat([outputs, outputs.new_tensor([[-values[-1]]])])
    return np.array(values), times


def optuna_loop(sampler: Callable[..., Any]) -> Loop:
    def loop(
        function: TestFunction, X: Vector, y: Vector, count: int, seed: int
    ) -> tuple[Vector, list[float]]:
        space = {f"x{i}": optuna.distributions.FloatDistribution(0.0, 1.0) for i in range(X.shape[1])}
        study = optuna.create_study(sampler=sampler(seed=seed))
        for x, value in zip(X, y, strict=True):
            params = dict(zip(space, map(float, x), strict=True))
            study.add_trial(optuna.trial.create_trial(params=params, distributions=space, value=float(value)))
        values, times = [], []
        for _ in range(count):
            start = time.process_time()
            trial = study.ask(space)
            times.append(time.process_time() - start)
            values.append(function(np.array([trial.params[name] for name in space])))
            study.tell(trial, values[-1])
        return np.array(values), times

    return loop


def skopt_loop(
    function: TestFunction, X: Vector, y: Vector, count: int, seed: int
) -> tuple[Vector, list[float]]:
    optimizer = SkoptOptimizer([(0.0, 1.0)] * X.shape[1], "GP", n_initial_points=1, random_state=seed)
    optimizer.tell(X[:-1].tolist(), y[:-1].tolist(), fit=False)
    values, times = [], []
    last, value = X[-1].tolist(), float(y[-1])
    for _ in range(count):
        start = time.process_time()
        optimizer.tell(last, value)  # fits, and looks for the next point
        last = optimizer.ask()
        times.append(time.process_time() - start)
        value = function(np.array(last))
        values.append(value)
    return np.array(values), times
