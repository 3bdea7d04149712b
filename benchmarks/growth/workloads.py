"""What grows: for each area one workload that users run large."""

from __future__ import annotations

import warnings
from collections.abc import Callable

import numpy as np
import torch
from torch import nn

from benchmarks.growth.measure import Growth
from thalweg import Stop, solve

Run = Callable[[], object]


def linear(n: int) -> Run:
    from thalweg.linear import SSORCG, LinearSystem
    from thalweg.numerics import FivePointStencil

    side = round(n**0.5)
    system = LinearSystem(FivePointStencil(side, side).to_csr(), np.ones(side * side))
    return lambda: solve(system, SSORCG(1.5), stop=Stop(steps=20), progress=False)


def convex(n: int) -> Run:
    from thalweg.convex import Lasso

    rng = np.random.default_rng(0)
    X = np.asfortranarray(rng.standard_normal((n, 500)).T)
    y = X[:, :10].sum(1) + rng.standard_normal(500)
    alpha = 0.3 * float(np.abs(X.T @ y).max()) / 500
    return lambda: Lasso(alpha=alpha).fit(X, y)


def constrained(n: int) -> Run:
    from thalweg.constrained import NewtonSQP, PoissonControl
    from thalweg.studies.sketched_sqp import target

    problem = PoissonControl(target(round((n / 2) ** 0.5))).problem
    return lambda: solve(problem, NewtonSQP(), stop=Stop(steps=3), progress=False)


def equilibrium(n: int) -> Run:
    from thalweg.equilibrium import Extragradient, matrix_game, random_game

    game = matrix_game(random_game(n, n))
    return lambda: solve(game, Extragradient(), stop=Stop(steps=20), progress=False)


def blackbox(n: int) -> Run:
    from thalweg.blackbox import Real, Study

    study = Study({"x": Real(0.0, 1.0), "y": Real(0.0, 1.0)}, initial=n)
    for trial in study.ask(n):
        study.tell(trial, (trial["x"] - 0.3) ** 2 + trial["y"])
    return lambda: study.ask()


def bilevel(n: int) -> Run:
    from thalweg.bilevel import custom_root

    X = torch.randn(n, n, generator=torch.Generator().manual_seed(0), dtype=torch.float64).div_(n**0.5)
    y = X.sum(1)

    def optimality(w: torch.Tensor, penalty: torch.Tensor) -> torch.Tensor:
        return X.T @ (X @ w - y) + penalty * w

    def solver(w: torch.Tensor, penalty: torch.Tensor) -> torch.Tensor:
        residual = -optimality(w, penalty)
        direction, square = residual, residual @ residual
        for _ in range(30):
            product = X.T @ (X @ direction) + penalty * direction
            rate = square / (direction @ product)
            w, residual = w + rate * direction, residual - rate * product
            square, before = residual @ residual, square
            direction = residual + square / before * direction
        return w

    ridge = custom_root(optimality)(solver)
    penalty = torch.tensor(1.0, dtype=torch.float64, requires_grad=True)
    return lambda: torch.autograd.grad(ridge(torch.zeros(n, dtype=torch.float64), penalty).sum(), penalty)


def discovery(n: int) -> Run:
    from thalweg.discovery import DigitsMLP, ProgramSearch, RegularizedEvolution

    task = ProgramSearch(DigitsMLP(steps=20))
    search = RegularizedEvolution(population=20, tournament=4)
    return lambda: solve(task, search, stop=Stop(calls=n), progress=False)


def distributed(n: int) -> Run:
    from thalweg.distributed.federated import ClientTimes, FedAvg, Federated, Federation

    made = torch.Generator().manual_seed(0)
    X, y = torch.randn(n, 20, 32, generator=made), torch.randint(10, (n, 20), generator=made)
    problem = Federated.from_module(
        lambda: nn.Linear(32, 10), nn.functional.cross_entropy, list(zip(X, y, strict=True))
    )
    method = Federation(FedAvg(), ClientTimes.heterogeneous(n, 0.5), batch=10)
    return lambda: solve(problem, method, stop=Stop(steps=10), progress=False)


def inverse(n: int) -> Run:
    from thalweg.inverse import Radon, batched_cg
    from thalweg.inverse.phantoms import ellipses

    side = round(n**0.5)
    A = Radon(side, 16)
    right = A.AH(A.A(ellipses(1, side)))
    return lambda: batched_cg(A.gram, right, torch.zeros_like(right), steps=10)


def landscape(n: int) -> Run:
    from thalweg.landscape.permutation import Rebasin, WeightMatching, trace_permutations

    def network(seed: int) -> nn.Module:
        torch.manual_seed(seed)
        layers = nn.Linear(64, n), nn.ReLU(), nn.Linear(n, n), nn.ReLU(), nn.Linear(n, 10)
        return nn.Sequential(*layers)

    first = network(0)
    problem = Rebasin(first, network(1), trace_permutations(first))
    return lambda: solve(problem, WeightMatching(), stop=Stop(steps=1), progress=False)


def matrix(n: int) -> Run:
    from thalweg.matrix import CGAltMin, Completion

    rng, side = np.random.default_rng(0), max(100, n // 500)
    places = np.unique(rng.integers(side * side, size=n))
    i, j = places // side, places % side
    U, V = rng.standard_normal((2, side, 8))
    values = np.zeros(len(i))
    for k in range(8):
        values += U[i, k] * V[j, k]
    problem = Completion((i, j, values), rank=8, ridge=0.1, held_out=0.0)
    return lambda: solve(problem, CGAltMin(cg_steps=4), stop=Stop(steps=2), progress=False)


def online(n: int) -> Run:
    from thalweg.online import GroupwiseRegressor

    rng = np.random.default_rng(0)
    X, mask = rng.random((n, 10)), rng.random((n, 6)) < 0.5
    y = X.mean(1)
    model = GroupwiseRegressor(low=0.0, high=1.0, everyone=False)
    return lambda: model.partial_fit(X, y, mask)


def robust(n: int) -> Run:
    from thalweg.robust import RobustKnapsack

    problem, rng = RobustKnapsack.random(n, 0), np.random.default_rng(0)
    X, XI = problem.sample_decisions(20, rng), problem.uncertainty.sample(20, rng)
    return lambda: problem.labels(X, XI)


def training(n: int) -> Run:
    from thalweg.training import Lion

    weights = nn.Parameter(torch.zeros(n))
    weights.grad = torch.ones(n)
    optimizer = Lion([weights])
    optimizer.step()

    def ten() -> None:
        for _ in range(10):
            optimizer.step()

    return ten


def transport(n: int) -> Run:
    from thalweg.transport import LightBridge

    rng = np.random.default_rng(0)
    first, second = rng.standard_normal((2, 1000, n))
    model = LightBridge(eps=1.0, n_components=20, steps=100)

    def fit() -> object:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # a hundred steps are too few, which is told
            return model.fit(first, second)

    return fit


def workflow(n: int) -> Run:
    from thalweg.workflow import node

    def chain() -> None:
        total = node(0, trainable=True)
        for _ in range(n):
            total = total + 1
        total.backward("more")

    return chain


def adaptation(n: int) -> Run:
    from thalweg.adaptation import Adapt, AdaptationTask

    width = round(n**0.5)
    X = torch.randn(1200, 64, generator=torch.Generator().manual_seed(0))
    task = AdaptationTask(
        lambda: nn.Sequential(nn.Linear(64, width), nn.ReLU(), nn.Linear(width, width), nn.ReLU()),
        lambda: nn.Linear(width, 10),
        (X, torch.arange(1200) % 10),
        (X + 0.5,),
        steps=10**6,
        batch_size=64,
    )
    method = Adapt(hidden=64, judge_every=10**6)
    state = method.init(task, 0)

    def five() -> None:
        at = state
        for _ in range(5):
            at = method.step(task, at)

    return five


def _up(*powers: int) -> tuple[int, ...]:
    """One, three, ten, thirty... from a power of ten to another."""
    low, high = powers
    return tuple(round(10 ** (half / 2)) for half in range(2 * low, 2 * high + 1))


WORKLOADS = (
    Growth("linear", "20 steps of SSOR-CG, five-point grid", "unknowns", _up(4, 8), 1, 1, linear),
    Growth("convex", "the Lasso, 500 dense rows", "columns", _up(3, 7), 1, 1, convex),
    Growth(
        "constrained", "3 exact Newton steps, optimal control", "unknowns", _up(3, 7), 1.5, 1, constrained
    ),
    Growth("equilibrium", "20 extragradient steps, dense game", "strategies", _up(2, 5), 2, 2, equilibrium),
    Growth("blackbox", "one suggestion", "trials told", _up(1, 4), 3, 2, blackbox),
    Growth("bilevel", "a ridge's hypergradient, dense", "unknowns", _up(2, 5), 2, 2, bilevel),
    Growth("discovery", "a search of programs", "evaluations", _up(1, 4), 1, 0, discovery),
    Growth("distributed", "10 rounds of FedAvg in virtual time", "clients", _up(1, 4), 1, 1, distributed),
    Growth("inverse", "10 steps of CG, 16 views", "pixels", _up(3, 6), 1, 1, inverse),
    Growth("landscape", "a sweep of weight matching", "units a layer", _up(1, 4), 3, 2, landscape),
    Growth("matrix", "2 sweeps of completion, rank 8", "entries", _up(4, 9), 1, 1, matrix),
    Growth("online", "rows with six groups", "rows", _up(3, 7), 1, 1, online),
    Growth("robust", "400 knapsacks by the greedy rule", "items", _up(1, 5), 1, 1, robust),
    Growth("training", "10 steps of Lion", "weights", _up(4, 9), 1, 1, training),
    Growth("transport", "100 steps of a bridge's fit", "dimensions", _up(1, 5), 1, 1, transport),
    Growth("workflow", "a chain, recorded and gone back", "nodes", _up(3, 7), 1, 1, workflow),
    Growth("adaptation", "5 steps, two layers", "weights of a layer", _up(4, 8), 1, 1, adaptation),
)
