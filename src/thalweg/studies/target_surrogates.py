"""08 Target-based surrogates: loss after a number of expensive gradients, supervised and imitation.

Lavington et al. (2023), section 5: each method at its best setting of three, chosen under another seed on data set
apart. What gradients cost is counted in passes of the model.
"""

from __future__ import annotations

import functools
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any, ClassVar

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn
from torch.nn import functional
from torch.optim import SGD, Adagrad, Adam

from thalweg.core import Method, NotFinite, Problem, Result, Run, State, Status, Stop, solve
from thalweg.core.figure import Figure, Series
from thalweg.core.seeding import torch_generator
from thalweg.datasets import load
from thalweg.studies.contest import contest
from thalweg.studies.evidence import Evidence, Scale, Table, Tell
from thalweg.studies.intervals import median, median_interval
from thalweg.studies.standings import Standings, together
from thalweg.studies.verdict import Verdict
from thalweg.training import ArmijoSGD, Imitate, ImitationTask, TargetSurrogate
from thalweg.training.experts import CartPoleExpert, PendulumExpert

Vector = NDArray[np.float64]
#: m, updates an expensive gradient (the paper has up to 50); steps in the target's space, in units of one over the
#: curvature; and rates of the baselines: three for each.
UPDATES = (1, 10, 30)
OURS, ONE, MANY = (f"surrogate, m = {m}" for m in (10, 1, 30))
SHARES = (0.3, 1.0, 3.0)
RATES = {"SGD": (0.1, 0.3, 1.0), "Adam": (3e-3, 1e-2, 3e-2), "AdaGrad": (1e-2, 3e-2, 1e-1)}
#: Plain gradient descent's in imitation, where larger ones diverge.
OGD = (0.01, 0.03, 0.1)
#: Armijo's line search has no rate; its constant is what is tried.
ARMIJO = (0.01, 0.1, 0.5)
BATCH = 64
#: Passes of the model that an expensive gradient costs.
PRICES, DEAR = (0, 1, 10, 100, 1000), 100

#: Makes an optimizer of parameters.
Make = Callable[[Any], Any]


@dataclass(frozen=True, eq=False)
class Supervised(Problem):
    """Data, a loss with its name in `TargetSurrogate`, and a model; and the runs on it so far."""

    objective: ClassVar[str | None] = None

    name: str
    X: Tensor
    y: Tensor
    kind: str
    model: Callable[[], nn.Module]
    kept: dict[tuple[str, int, int], Course] = field(default_factory=dict)

    def loss(self, z: Tensor, y: Tensor) -> Tensor:
        """The expensive part: a mean over the rows of z."""
        losses: dict[str, Callable[[Tensor, Tensor], Tensor]] = {
            "mse": functional.mse_loss,
            "logistic": functional.binary_cross_entropy_with_logits,
            "softmax": functional.cross_entropy,
        }
        return losses[self.kind](z, y)

    @torch.no_grad()
    def metrics(self, x: nn.Module) -> dict[str, float]:
        """``loss`` on all of the data."""
        x.eval()
        told = {"loss": float(self.loss(x(self.X), self.y))}
        x.train()
        return told

    def rows(self, apart: bool) -> Supervised:
        """Every third row, set apart for tuning; or the others."""
        chosen = (torch.arange(len(self.y)) % 3 == 0) == apart
        return replace(self, X=self.X[chosen], y=self.y[chosen], kept={})


@dataclass(frozen=True, eq=False)
class Course:
    """The loss after 0, 1, 2, ... expensive gradients, and the passes of the model until then, shape (calls + 1,)."""

    losses: Vector
    passes: Vector


@dataclass(kw_only=True)
class LearnState(State):
    """``x`` is the model."""

    x: nn.Module
    optimizer: Any
    generator: torch.Generator
    passes: list[int]  # of the model, counted by a hook


@dataclass(frozen=True)
class Learn(Method[Supervised, LearnState]):
    """An optimizer on batches; a step is one expensive gradient."""

    in_place: ClassVar[bool] = True

    make: Make

    def init(self, problem: Supervised, seed: int) -> LearnState:
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(seed)
            model = problem.model()
        passes = [0]

        def count(module: nn.Module, inputs: Any) -> None:
            passes[0] += module.training

        model.register_forward_pre_hook(count)
        optimizer = self.make(model.parameters())
        return LearnState(x=model, optimizer=optimizer, generator=torch_generator(seed, 9), passes=passes)

    def step(self, problem: Supervised, state: LearnState) -> LearnState:
        rows = torch.randint(len(problem.X), (BATCH,), generator=state.generator)
        X, y = problem.X[rows], problem.y[rows]
        if isinstance(state.optimizer, TargetSurrogate):
            state.optimizer.step(lambda: state.x(X), lambda z: problem.loss(z, y))
        else:
            state.optimizer.step(functools.partial(self._closure, problem, state, X, y))
        state.metrics = problem.metrics(state.x)
        if not np.isfinite(state.metrics["loss"]):
            raise NotFinite(f"The loss is {state.metrics['loss']}.")
        return state

    @staticmethod
    def _closure(problem: Supervised, state: LearnState, X: Tensor, y: Tensor) -> Tensor:
        state.optimizer.zero_grad()
        loss = problem.loss(state.x(X), y)
        loss.backward()
        return loss


@dataclass(frozen=True)
class Entry:
    """A setting, which counts for the loss after so many expensive gradients."""

    label: str
    make: Make
    calls: int

    def course(self, problem: Supervised, seed: int) -> Course:
        """The run of a seed; kept."""
        if (self.label, self.calls, seed) not in problem.kept:
            rows: list[tuple[float, float]] = []

            def look(run: Run) -> None:
                rows.append((run.state.metrics["loss"], run.state.passes[0]))

            start = problem.metrics(Learn(self.make).init(problem, seed).x)["loss"]
            result = solve(
                problem,
                Learn(self.make),
                stop=Stop(steps=self.calls),
                callbacks=[look],
                seed=seed,
                progress=False,
            )
            if result.status is Status.DIVERGED:
                raise NotFinite(result.message)
            losses, passes = np.array([(start, 0.0), *rows]).T
            problem.kept[self.label, self.calls, seed] = Course(losses, passes)
        return problem.kept[self.label, self.calls, seed]

    def __call__(self, problem: Supervised, seed: int) -> float:
        return float(self.course(problem, seed).losses[-1])


def run(scale: Scale = "quick", tell: Tell = lambda share, what: None) -> Evidence:
    """Rerun the claims at a scale."""
    seeds = (1, 2) if scale == "smoke" else (1, 2, 3, 4, 5)
    calls = {"smoke": 5, "quick": 8, "full": 400}[scale]
    problems = _problems()
    if scale != "full":
        problems = problems[:1] if scale == "smoke" else [*problems[:2], problems[3]]
    scores, chosen = _race(problems, calls, seeds, lambda share, what: tell(0.6 * share, what))
    imitated = []
    for i, task in enumerate(_imitation_tasks(scale)):
        tell(0.6 + 0.2 * i, f"imitation, {task.environment}")
        imitated.append(_imitate(task, seeds))
    found = together(imitated)
    paid = _paid(chosen[problems[-1].name], len(seeds))
    return Evidence(
        verdicts=[*_verdicts(scores), *found.beats(1.0), _dear(problems[-1].name, paid)],
        table=[*scores.table(), *found.table(), *_paid_table(paid)],
        figures=[*(_figure(p, chosen[p.name], calls, seeds) for p in problems), found.bars("Imitation")],
        costs=scores.costs(least=1e-8),
        notes=(
            f"{len(seeds)} judging seeds, batches of {BATCH}; each method at the best of three settings (its rate; "
            "Armijo's constant; the surrogate's eta in units of one over the loss's curvature), chosen under another "
            f"seed on a third of the rows. The score is the loss on all others after {calls} expensive gradients. "
            "Imitation: mean squared error, or cross-entropy, to the expert on the states that the last policy comes "
            "to, after equally many interactions. Where a gradient costs so many passes of the model, what is counted "
            f"are those and the passes that updates take. {scores.notes()} {found.notes()}"
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
    return [
        Supervised("breast_cancer, logistic, linear", cancer, binary, "logistic", lambda: nn.Linear(30, 1)),
        Supervised("diabetes, squared, network", diabetes, target, "mse", _net(10, 1)),
        Supervised("digits, softmax, linear", digits, classes, "softmax", lambda: nn.Linear(64, 10)),
        Supervised("digits, softmax, network", digits, classes, "softmax", _net(64, 10)),
    ]


def _net(inputs: int, outputs: int) -> Callable[[], nn.Module]:
    return lambda: nn.Sequential(nn.Linear(inputs, 32), nn.Tanh(), nn.Linear(32, outputs))


def _surrogate(params: Any, kind: str, share: float, m: int) -> TargetSurrogate:
    optimizer = TargetSurrogate(params, kind, inner_steps=m)
    optimizer.param_groups[0]["lr"] = share
    return optimizer


def _makers(kind: str) -> dict[str, dict[str, Make]]:
    makers = {"SGD": SGD, "Adam": Adam, "AdaGrad": Adagrad}
    found: dict[str, dict[str, Make]] = {
        name: {f"rate {r:g}": functools.partial(make, lr=r) for r in RATES[name]}
        for name, make in makers.items()
    }
    found["line search"] = {f"c = {c:g}": functools.partial(ArmijoSGD, c=c) for c in ARMIJO}
    for m in UPDATES:
        makes = {f"eta {s:g} / L": functools.partial(_surrogate, kind=kind, share=s, m=m) for s in SHARES}
        found[f"surrogate, m = {m}"] = dict(makes)
    return found


def _race(
    problems: Sequence[Supervised], calls: int, seeds: tuple[int, ...], tell: Tell
) -> tuple[Standings, dict[str, dict[str, list[Course]]]]:
    """The standings, and the judged courses of each problem's contestants where no run failed."""
    races, courses = [], {}
    for i, problem in enumerate(problems):
        tell(i / len(problems), problem.name)
        apart, judged = problem.rows(True), problem.rows(False)
        grids = {
            name: {label: Entry(f"{name}, {label}", make, calls) for label, make in makes.items()}
            for name, makes in _makers(problem.kind).items()
        }
        race = contest(
            {problem.name: lambda seed, judged=judged: judged},  # type: ignore[misc]
            grids,
            ours=OURS,
            what="loss",
            tuning_problems={problem.name: lambda seed, apart=apart: apart},  # type: ignore[misc]
            judging_seeds=seeds,
            needs_convergence=False,
        )
        chosen = {n: grids[n][label.partition(" (")[0]] for n, label in race.settings[problem.name].items()}
        courses[problem.name] = {
            n: [entry.course(judged, seed) for seed in seeds]
            for n, entry in chosen.items()
            if np.isfinite(race.scores[problem.name][n]).all()
        }
        races.append(race)
    return together(races), courses


def _verdicts(scores: Standings) -> list[Verdict]:
    """About geometric means over the problems, seed by seed."""
    with np.errstate(divide="ignore"):
        means = {
            name: np.exp(np.mean([np.log(found[name]) for found in scores.scores.values()], axis=0))
            for name in scores.contestants
        }
    name = "supervised, geometric mean"
    mean = replace(scores, scores={name: means}, settings={}, breakdowns=())
    baselines = replace(mean, scores={name: {n: v for n, v in means.items() if n not in (ONE, MANY)}})
    return [
        *baselines.beats(1.0),
        *mean.compared(OURS, ONE, 1.0),
        *mean.compared(MANY, OURS, (0.9, 1.1), "within"),
        *mean.compared(ONE, "SGD", (0.8, 1.25), "within"),
    ]


def _imitation_tasks(scale: Scale) -> list[ImitationTask]:
    rounds = {"smoke": 2, "quick": 6, "full": 150}[scale]
    size = 1 if scale == "full" else 2
    cart = ImitationTask("CartPole-v1", CartPoleExpert(), _net(4, 2), rounds=rounds, interactions=100 // size)
    pendulum = ImitationTask(
        "Pendulum-v1", PendulumExpert(), _net(3, 1), rounds=rounds, interactions=200 // size
    )
    return [cart] if scale == "smoke" else [cart, pendulum]


def _imitate(task: ImitationTask, seeds: tuple[int, ...]) -> Standings:
    """The surrogate with m = 10 against gradient descent and Adam."""
    kind = "softmax" if task.environment.startswith("CartPole") else "mse"
    makes: dict[str, dict[str, Make]] = {
        OURS: _makers(kind)[OURS],
        "OGD": {f"rate {r:g}": functools.partial(SGD, lr=r) for r in OGD},
        "Adam": _makers(kind)["Adam"],
    }
    return contest(
        {f"imitation, {task.environment}": lambda seed: task},
        {n: {label: Imitate(make, label=label) for label, make in grid.items()} for n, grid in makes.items()},
        _distance,
        ours=OURS,
        what="distance from the expert",
        judging_seeds=seeds,
        needs_convergence=False,
    )


def _distance(result: Result[nn.Module]) -> float:
    return result.metrics["loss"]


# -- gradients that cost


def _paid(courses: Mapping[str, list[Course]], seeds: int) -> dict[int, dict[str, Vector]]:
    """Passes to the loss that SGD ends at, seed by seed, by price; infinite where it is never reached or SGD failed."""
    never = Course(np.full(2, np.inf), np.zeros(2))
    sgd, ours = (courses.get(name, [never] * seeds) for name in ("SGD", OURS))
    return {
        price: {
            "SGD": np.array([_passes(c, c.losses[-1], price) for c in sgd]),
            OURS: np.array([_passes(c, s.losses[-1], price) for c, s in zip(ours, sgd, strict=True)]),
        }
        for price in PRICES
    }


def _passes(course: Course, level: float, price: int) -> float:
    reached = np.flatnonzero(course.losses <= level)
    return float(course.passes[reached[0]] + price * reached[0]) if len(reached) else np.inf


def _dear(problem: str, paid: Mapping[int, Mapping[str, Vector]]) -> Verdict:
    with np.errstate(invalid="ignore"):
        ratios = np.nan_to_num(paid[DEAR][OURS] / paid[DEAR]["SGD"], nan=np.inf)
    claim = f"{problem}: passes to SGD's loss, a gradient counted as {DEAR}, {OURS} / SGD"
    return Verdict(claim, median(ratios), 1.0, "<=", median_interval(ratios))


def _paid_table(paid: Mapping[int, Mapping[str, Vector]]) -> Table:
    return [
        {
            "problem": f"passes to SGD's loss, a gradient counted as {price}",
            "contestant": n,
            "passes": median(v),
        }
        for price, found in paid.items()
        for n, v in found.items()
    ]


def _figure(
    problem: Supervised, courses: Mapping[str, list[Course]], calls: int, seeds: tuple[int, ...]
) -> Figure:
    series = [
        Series.of(n, np.arange(calls + 1), np.array([c.losses for c in cs])) for n, cs in courses.items()
    ]
    caption = f"Loss on the rows that are judged; mean and range of {len(seeds)} seeds."
    return Figure(problem.name, caption, "expensive gradients", "loss", series, log_y=True)
