"""08 Target-based surrogates: loss after a number of expensive gradients, supervised and imitation.

Lavington et al. (2023), section 5: each method at its own best rate from a grid of the same size.
"""

from __future__ import annotations

import functools
import math
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn
from torch.nn import functional
from torch.optim import SGD, Adagrad, Adam

from thalweg.core import NotFinite, solve
from thalweg.core.figure import Figure, Series
from thalweg.core.seeding import torch_generator
from thalweg.datasets import load
from thalweg.studies.evidence import Evidence, Scale, Table, Tell
from thalweg.studies.verdict import Verdict
from thalweg.training import ArmijoSGD, Imitate, ImitationTask, TargetSurrogate
from thalweg.training.experts import CartPoleExpert, PendulumExpert

Vector = NDArray[np.float64]
#: Seconds are among the claims: it runs alone.
timed = True
#: The paper's m, updates an expensive gradient; steps in the target's space, in units of one over the curvature; and
#: rates of the baselines: three for each.
UPDATES = (1, 10, 50)
SHARES = (0.3, 1.0, 3.0)
RATES = {"SGD": (0.1, 0.3, 1.0), "Adam": (3e-3, 1e-2, 3e-2), "AdaGrad": (1e-2, 3e-2, 1e-1)}
#: Plain gradient descent's in imitation, where larger ones diverge.
OGD = (0.01, 0.03, 0.1)
#: Armijo's line search has no rate; its constant is what is tried.
ARMIJO = (0.01, 0.1, 0.5)
BATCH = 64

#: Makes an optimizer of parameters.
Make = Callable[[Any], Any]


@dataclass(frozen=True, eq=False)
class Supervised:
    """Data, a loss with its name in `TargetSurrogate`, and a model."""

    name: str
    X: Tensor
    y: Tensor
    kind: str
    model: Callable[[], nn.Module]

    def loss(self, z: Tensor, y: Tensor) -> Tensor:
        """The expensive part: a mean over the rows of z."""
        if self.kind == "mse":
            return functional.mse_loss(z, y)
        if self.kind == "logistic":
            return functional.binary_cross_entropy_with_logits(z, y)
        return functional.cross_entropy(z, y)


def run(scale: Scale = "quick", tell: Tell = lambda share, what: None) -> Evidence:
    """Rerun the claims at a scale."""
    seeds = {"smoke": 1, "quick": 3, "full": 5}[scale]
    calls = {"smoke": 15, "quick": 50, "full": 1000}[scale]
    problems = _problems()[: 1 if scale == "smoke" else None]
    found = {}
    for i, problem in enumerate(problems):
        tell(0.6 * i / len(problems), problem.name)
        found[problem.name] = _contest(problem, calls, seeds)
    imitated = {}
    for i, task in enumerate(_imitation_tasks(scale)):
        tell(0.6 + 0.15 * i, f"imitation, {task.environment}")
        imitated[task.environment] = _imitate(task, seeds)
    tell(0.95, "wall-clock")
    paid = _paid(problems[-1], found[problems[-1].name])
    return Evidence(
        verdicts=[*_verdicts(found, calls), *_imitation_verdicts(imitated), _wall_clock(paid)],
        table=[*_table(found), *_imitation_table(imitated), *_paid_table(paid)],
        figures=[*_figures(found, calls), *_imitation_figures(imitated)],
        costs={
            "problems": [f"{name}, seed {s}" for name in found for s in range(seeds)],
            "methods": {
                m: [max(float(v), 1e-8) for runs in found.values() for v in runs[m][1][:, -1]]
                for m in next(iter(found.values()))
            },
        },
        notes=(
            f"{seeds} seeds, batches of {BATCH}; each method at the best of three settings (its rate; Armijo's "
            "constant; the surrogate's eta in units of one over the loss's curvature). The score is the loss on all of "
            f"the data after {calls} expensive gradients. Imitation: mean squared error, or cross-entropy, to the "
            "expert on the states that the last policy comes to. Wall-clock: seconds to the loss that SGD reaches, "
            "when each expensive gradient takes so much longer; the model's own time is measured, the rest is added."
        ),
    )


def _problems() -> list[Supervised]:
    def standardised(name: str) -> tuple[Tensor, Any]:
        data = load(name)
        X = (data.X - data.X.mean(0)) / np.maximum(data.X.std(0), 1e-8)
        return torch.tensor(X, dtype=torch.float32), data.y

    cancer, y_cancer = standardised("breast_cancer")
    digits, y_digits = standardised("digits")
    diabetes, y_diabetes = standardised("diabetes")
    y_diabetes = (y_diabetes - y_diabetes.mean()) / y_diabetes.std()
    binary = torch.tensor(y_cancer, dtype=torch.float32)[:, None]
    classes = torch.tensor(y_digits, dtype=torch.int64)
    target = torch.tensor(y_diabetes, dtype=torch.float32)[:, None]

    def net(inputs: int, outputs: int) -> Callable[[], nn.Module]:
        return lambda: nn.Sequential(nn.Linear(inputs, 32), nn.Tanh(), nn.Linear(32, outputs))

    return [
        Supervised("breast_cancer, logistic, linear", cancer, binary, "logistic", lambda: nn.Linear(30, 1)),
        Supervised("diabetes, squared, network", diabetes, target, "mse", net(10, 1)),
        Supervised("digits, softmax, linear", digits, classes, "softmax", lambda: nn.Linear(64, 10)),
        Supervised("digits, softmax, network", digits, classes, "softmax", net(64, 10)),
    ]


def _contestants(problem: Supervised) -> dict[str, list[Make]]:
    makers = {"SGD": SGD, "Adam": Adam, "AdaGrad": Adagrad}
    found: dict[str, list[Make]] = {
        name: [functools.partial(make, lr=rate) for rate in RATES[name]] for name, make in makers.items()
    }
    found["line search"] = [functools.partial(ArmijoSGD, c=c) for c in ARMIJO]
    for m in UPDATES:
        found[f"surrogate, m = {m}"] = [
            functools.partial(_surrogate, kind=problem.kind, share=share, m=m) for share in SHARES
        ]
    return found


def _surrogate(params: Any, kind: str, share: float, m: int) -> TargetSurrogate:
    optimizer = TargetSurrogate(params, kind, inner_steps=m)
    optimizer.param_groups[0]["lr"] = share
    return optimizer


def _contest(problem: Supervised, calls: int, seeds: int) -> dict[str, tuple[int, Vector]]:
    """For each method the best of its settings and the losses with it, shape (seeds, calls + 1)."""
    found = {}
    for name, settings in _contestants(problem).items():
        runs = [np.array([_train(problem, make, calls, seed) for seed in range(seeds)]) for make in settings]
        best = int(np.argmin([np.nan_to_num(r[:, -1], nan=np.inf, posinf=1e30).mean() for r in runs]))
        found[name] = (best, runs[best])
    return found


def _train(problem: Supervised, make: Make, calls: int, seed: int) -> list[float]:
    """The loss on all data before each expensive gradient, and at the end; infinite once it is not finite."""
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        model = problem.model()
    optimizer, generator = make(model.parameters()), torch_generator(seed, 9)
    losses = []
    for _ in range(calls):
        losses.append(_whole(problem, model))
        if not math.isfinite(losses[-1]):
            return losses + [math.inf] * (calls + 1 - len(losses))
        rows = torch.randint(len(problem.X), (BATCH,), generator=generator)
        try:
            _update(problem, model, optimizer, problem.X[rows], problem.y[rows])
        except NotFinite:
            return losses + [math.inf] * (calls + 1 - len(losses))
    return [*losses, _whole(problem, model)]


def _update(problem: Supervised, model: nn.Module, optimizer: Any, X: Tensor, y: Tensor) -> None:
    if isinstance(optimizer, TargetSurrogate):
        optimizer.step(lambda: model(X), lambda z: problem.loss(z, y))
        return

    def closure() -> Tensor:
        optimizer.zero_grad()
        loss = problem.loss(model(X), y)
        loss.backward()
        return loss

    optimizer.step(closure)


@torch.no_grad()
def _whole(problem: Supervised, model: nn.Module) -> float:
    return float(problem.loss(model(problem.X), problem.y))


# -- imitation


def _imitation_tasks(scale: Scale) -> list[ImitationTask]:
    rounds = {"smoke": 4, "quick": 40, "full": 300}[scale]

    def policy(inputs: int, outputs: int) -> Callable[[], nn.Module]:
        return lambda: nn.Sequential(nn.Linear(inputs, 32), nn.Tanh(), nn.Linear(32, outputs))

    cart = ImitationTask("CartPole-v1", CartPoleExpert(), policy(4, 2), rounds=rounds, interactions=100)
    pendulum = ImitationTask("Pendulum-v1", PendulumExpert(), policy(3, 1), rounds=rounds, interactions=200)
    return [cart] if scale == "smoke" else [cart, pendulum]


def _imitate(task: ImitationTask, seeds: int) -> dict[str, tuple[Vector, Vector, Vector]]:
    """For each learner at its best setting: rounds' losses (seeds, rounds), final losses and returns (seeds,)."""
    kind = "softmax" if task.environment.startswith("CartPole") else "mse"
    learners: dict[str, list[Make]] = {
        "OGD": [functools.partial(SGD, lr=rate) for rate in OGD],
        "Adam": [functools.partial(Adam, lr=rate) for rate in RATES["Adam"]],
        "surrogate, m = 50": [
            functools.partial(_surrogate, kind=kind, share=share, m=50) for share in SHARES
        ],
    }
    found = {}
    for name, settings in learners.items():
        outcomes = [_imitated(task, make, seeds) for make in settings]
        found[name] = min(outcomes, key=lambda o: float(np.nan_to_num(o[1], nan=1e30).mean()))
    return found


def _imitated(task: ImitationTask, make: Make, seeds: int) -> tuple[Vector, Vector, Vector]:
    try:
        results = [solve(task, Imitate(make), seed=seed, progress=False) for seed in range(seeds)]
    except NotFinite:  # diverged: this setting is out
        return np.empty((seeds, 0)), np.full(seeds, np.inf), np.full(seeds, -np.inf)
    courses = [r.history.to_frame()["loss"].to_numpy() for r in results]
    last = np.array([r.metrics["loss"] for r in results])
    return np.array(courses), last, np.array([r.metrics["return"] for r in results])


# -- wall-clock


def _paid(problem: Supervised, found: dict[str, tuple[int, Vector]]) -> Table:
    """Seconds to the loss that SGD ends at, for prices of an expensive gradient in passes of the model."""
    contestants = _contestants(problem)
    (sgd_best, sgd_runs), (our_best, our_runs) = (found[name] for name in ("SGD", "surrogate, m = 10"))
    sgd, ours = contestants["SGD"][sgd_best], contestants["surrogate, m = 10"][our_best]
    calls = sgd_runs.shape[1] - 1
    reached = np.flatnonzero(our_runs.mean(0) <= sgd_runs.mean(0)[-1])
    needed = int(reached[0]) if len(reached) else math.inf
    times = {"SGD": _seconds(problem, sgd), "surrogate, m = 10": _seconds(problem, ours)}
    rows = []
    for price in (0, 1, 10, 100, 1000):
        extra = price * times["SGD"]
        rows.append(
            {
                "price": price,
                "SGD": calls * (times["SGD"] + extra),
                "surrogate, m = 10": needed * (times["surrogate, m = 10"] + extra),
            }
        )
    return rows


def _seconds(problem: Supervised, make: Make, steps: int = 40) -> float:
    model = problem.model()
    optimizer = make(model.parameters())
    X, y = problem.X[:BATCH], problem.y[:BATCH]
    _update(problem, model, optimizer, X, y)
    start = time.perf_counter()
    for _ in range(steps):
        _update(problem, model, optimizer, X, y)
    return (time.perf_counter() - start) / steps


# -- what is told


def _verdicts(found: dict[str, dict[str, tuple[int, Vector]]], calls: int) -> list[Verdict]:
    baselines = ("SGD", "Adam", "AdaGrad", "line search")

    def last(problem: str, method: str) -> float:
        return max(float(found[problem][method][1][:, -1].mean()), 1e-8)

    def ratio(method: str, others: Sequence[str]) -> float:
        logs = [math.log(last(p, method) / min(last(p, o) for o in others)) for p in found]
        return float(np.exp(np.mean(logs)))

    words = f"over the best of SGD, Adam, AdaGrad and line search, after {calls} gradients, geometric mean"
    return [
        Verdict(f"Surrogate with m = 50: loss {words}", ratio("surrogate, m = 50", baselines), 1.0),
        Verdict(f"Surrogate with m = 10: loss {words}", ratio("surrogate, m = 10", baselines), 1.0),
        Verdict(
            "More updates help: m = 10 over m = 1", ratio("surrogate, m = 10", ["surrogate, m = 1"]), 1.0
        ),
        Verdict(
            "And no more hurt: m = 50 over m = 10", ratio("surrogate, m = 50", ["surrogate, m = 10"]), 1.0
        ),
        Verdict("m = 1 does as SGD does: loss over SGD's", ratio("surrogate, m = 1", ["SGD"]), 1.25),
    ]


def _imitation_verdicts(imitated: dict[str, dict[str, tuple[Vector, Vector, Vector]]]) -> list[Verdict]:
    verdicts = []
    for name, found in imitated.items():
        best = min(float(found[o][1].mean()) for o in ("OGD", "Adam"))
        claim = f"{name}: the surrogate's distance from the expert over the better of OGD and Adam, same interactions"
        verdicts.append(Verdict(claim, float(found["surrogate, m = 50"][1].mean()) / best, 1.0))
    return verdicts


def _wall_clock(paid: Table) -> Verdict:
    dear = next(row for row in paid if row["price"] == 100)
    return Verdict(
        "Wall-clock to SGD's loss over SGD's, a gradient costing 100 passes of the model",
        dear["surrogate, m = 10"] / dear["SGD"],
        1.0,
    )


def _table(found: dict[str, dict[str, tuple[int, Vector]]]) -> Table:
    return [
        {
            "task": problem,
            "method": method,
            "loss": float(f"{runs[:, -1].mean():.4g}"),
            "spread": float(f"{runs[:, -1].std():.2g}"),
            "setting": f"{best + 1} of 3",
        }
        for problem, methods in found.items()
        for method, (best, runs) in methods.items()
    ]


def _imitation_table(imitated: dict[str, dict[str, tuple[Vector, Vector, Vector]]]) -> Table:
    return [
        {
            "task": f"imitation, {name}",
            "method": learner,
            "loss": float(f"{last.mean():.4g}"),
            "spread": float(f"{last.std():.2g}"),
            "return": round(float(returns.mean()), 1),
        }
        for name, learners in imitated.items()
        for learner, (_, last, returns) in learners.items()
    ]


def _paid_table(paid: Table) -> Table:
    return [
        {
            "task": f"seconds to SGD's loss, a gradient costs {row['price']} passes",
            "method": name,
            "seconds": float(f"{row[name]:.3g}"),
        }
        for row in paid
        for name in ("SGD", "surrogate, m = 10")
    ]


def _figures(found: dict[str, dict[str, tuple[int, Vector]]], calls: int) -> list[Figure]:
    x = np.arange(calls + 1)
    return [
        Figure(
            problem,
            "Loss on all data over expensive gradients; band: range over seeds.",
            "expensive gradients",
            "loss",
            [Series.of(name, x, runs) for name, (_, runs) in methods.items() if np.isfinite(runs).all()],
            log_y=True,
        )
        for problem, methods in found.items()
    ]


def _imitation_figures(imitated: dict[str, dict[str, tuple[Vector, Vector, Vector]]]) -> list[Figure]:
    return [
        Figure(
            f"Imitation, {name}",
            "Distance from the expert on each round's states; band: range over seeds.",
            "round",
            "loss",
            [
                Series.of(label, np.arange(courses.shape[1]), courses)
                for label, (courses, _, _) in learners.items()
            ],
            log_y=True,
        )
        for name, learners in imitated.items()
    ]
