"""07 Schedules by refinement: linear decay against the usual ones, and schedules refined from recorded norms.

Defazio, Cutkosky, Mehta and Mishchenko (2023), sections 4 and 5: convex problems with Adam, and networks.
"""

from __future__ import annotations

import functools
import os
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from scipy.stats import rankdata
from torch import Tensor
from torch.optim import Optimizer

from thalweg.core import solve
from thalweg.core.seeding import torch_generator
from thalweg.datasets import load, load_series
from thalweg.studies import tasks
from thalweg.studies.evidence import Evidence, Figure, Row, Scale, Series, Table, Tell
from thalweg.studies.verdict import Verdict
from thalweg.training import (
    GradientNormRecorder,
    LinearDecay,
    ProfileSchedule,
    Refined,
    RefinedSchedule,
    Train,
    TrainingTask,
    fit_warmup_poly,
    refine,
)
from thalweg.training.profiles import Constant, Cosine, InverseSqrt, InverseTime, Linear, Profile, Step
from thalweg.training.refinement import smoothed

Vector = NDArray[np.float64]
BATCH = 16
CONVEX_RATES = (0.003, 0.01, 0.03, 0.1, 0.3)
#: Warm-up shares the paper states for its recorded sequences, by the first word of the file's name.
WARMUPS = {
    "dlrm": 0.2,
    "gpt": 0.28,
    "iwslt14": 0.08,
    "roberta": 0.45,
    "vit": 0.07,
    "mri": 0.4,
    "rcnn": 0.0,
    "imagenet": 0.01,
}


def run(scale: Scale = "quick", tell: Tell = lambda share, what: None) -> Evidence:
    """Rerun the claims at a scale; svmlight files in ``THALWEG_DATA`` are more convex problems, and recorded norms
    in ``THALWEG_DATA/norms`` are refined.
    """
    seeds = {"smoke": 2, "quick": 3, "full": 10}[scale]
    folder = Path(os.environ.get("THALWEG_DATA", "no such folder"))
    convex = [_convex(name) for name in ("breast_cancer", "digits", "wine")]
    convex += [_diabetes(), _flipped(convex[0], 0.1), _flipped(convex[1], 0.2)]
    convex += [_convex(path) for path in sorted(folder.glob("*.svm"))]
    outcomes = []
    for i, problem in enumerate(convex):
        tell(0.3 * i / len(convex), f"logistic regression, {problem.name}")
        outcomes.append(_race(problem, {"smoke": 60, "quick": 800, "full": 5000}[scale], seeds))
    deep = {}
    settings = _settings(scale)
    for i, setting in enumerate(settings):
        tell(0.3 + 0.7 * i / len(settings), setting.name)
        deep[setting.name] = _deep(setting, seeds)
    recorded = {p.stem: p for p in sorted((folder / "norms").glob("*.csv"))}
    return Evidence(
        verdicts=[*_convex_verdicts(convex, outcomes), *_deep_verdicts(deep), *_recorded_verdicts(recorded)],
        table=[*_convex_table(convex, outcomes), *_deep_table(deep)],
        figures=_figures(convex, outcomes, deep),
        costs=_costs(convex, outcomes),
        notes=(
            f"{seeds} seeds; each schedule at the best of the same learning rates. Convex: logistic regression, Adam, "
            f"batches of {BATCH}, the loss of the last iterate on all of the training data. A refined schedule is made "
            "from the l1 norms of one run with linear decay at its best rate, and then races over the same rates and "
            "seeds; networks record theirs with a seed of their own. Noisy: of the labels of breast_cancer a tenth is "
            "drawn anew, of those of digits a fifth. Where a model comes to fit every example, the "
            "gradient goes to zero, its inverse grows without bound, and the refined schedule spends its steps at the "
            "very end: refinement is for runs whose gradients do not vanish."
        ),
    )


# -- convex problems, all schedules, rates and seeds at once


@dataclass(frozen=True, eq=False)
class Convex:
    """Logistic regression: standardised features with a one, shape (n, d), and labels, shape (n,)."""

    name: str
    X: Tensor
    y: Tensor
    separable: bool = False


@dataclass(frozen=True, eq=False)
class Outcome:
    """Losses at the end, shape (schedules, rates, seeds), the schedules' names, and the refined one."""

    names: tuple[str, ...]
    losses: Vector
    refined: Refined
    norms: Vector

    def best(self) -> Vector:
        """The loss of each schedule at its best rate, shape (schedules, seeds)."""
        rate = np.nan_to_num(self.losses.mean(2), nan=np.inf).argmin(1)
        return np.asarray(self.losses[np.arange(len(self.names)), rate])


def _convex(name: str | Path) -> Convex:
    data = load(name)
    assert data.y is not None
    X = np.asarray(data.X.toarray() if hasattr(data.X, "toarray") else data.X, dtype=np.float32)
    X = (X - X.mean(0)) / np.maximum(X.std(0), 1e-8)
    _, y = np.unique(data.y, return_inverse=True)
    ones = np.ones((len(X), 1), dtype=np.float32)
    packaged = isinstance(name, str)  # a plane (nearly) parts the classes of the three packaged sets
    return Convex(data.name, torch.tensor(np.hstack([X, ones])), torch.tensor(y, dtype=torch.int64), packaged)


def _diabetes() -> Convex:
    """Whether the disease progresses faster than in half of the patients."""
    data = load("diabetes")
    assert data.y is not None
    X = (data.X - data.X.mean(0)) / data.X.std(0)
    X = torch.tensor(np.hstack([X, np.ones((len(X), 1))]), dtype=torch.float32)
    return Convex("diabetes", X, torch.tensor(data.y > np.median(data.y), dtype=torch.int64))


def _flipped(problem: Convex, share: float) -> Convex:
    """The same with a share of the labels drawn anew, so that nothing fits all of them."""
    generator = torch_generator(0, 8)
    classes = int(problem.y.max()) + 1
    drawn = torch.randint(classes, problem.y.shape, generator=generator)
    hit = torch.rand(len(problem.y), generator=generator) < share
    return Convex(f"{problem.name}, noisy", problem.X, torch.where(hit, drawn, problem.y))


def _fixed(steps: int) -> dict[str, Profile]:
    return {
        "flat": Constant(),
        "1/t": InverseTime(rate=float(steps)),
        "1/sqrt t": InverseSqrt(rate=float(steps)),
        "step": Step(),
        "cosine": Cosine(),
        "linear": Linear(),
    }


def _race(problem: Convex, steps: int, seeds: int) -> Outcome:
    fixed = _fixed(steps)
    losses, norms = _trained(problem, list(fixed.values()), steps, seeds)
    linear = list(fixed).index("linear")
    rate = int(losses[linear].mean(1).argmin())
    recorded = norms[:, linear, rate, 0]
    refined = refine(recorded, "l1")
    more, _ = _trained(problem, [refined], steps, seeds)
    return Outcome((*fixed, "refined"), np.concatenate([losses, more]), refined, recorded)


def _trained(problem: Convex, profiles: Sequence[Profile], steps: int, seeds: int) -> tuple[Vector, Vector]:
    """Final losses, (profiles, rates, seeds), and l1 norms of each step's gradient, (steps, profiles, rates, seeds).

    Adam moves each coordinate by itself and in proportion to the rate: one optimizer at rate one serves all runs, its
    moves scaled run by run.
    """
    n, d = problem.X.shape
    runs = (len(profiles), len(CONVEX_RATES), seeds)
    W = torch.zeros(*runs, d, int(problem.y.max()) + 1, requires_grad=True)
    optimizer = torch.optim.Adam([W], lr=1.0)
    factors = np.stack([p(np.arange(steps) / steps) for p in profiles])
    rates = torch.tensor(factors[:, None, :] * np.array(CONVEX_RATES)[None, :, None], dtype=torch.float32)
    generators = [torch_generator(seed, 7) for seed in range(seeds)]
    norms = torch.empty(steps, *runs)
    for t in range(steps):
        batch = torch.stack([torch.randint(n, (BATCH,), generator=g) for g in generators])
        loss = _losses(W, problem.X[batch], problem.y[batch]).sum()
        (gradient,) = torch.autograd.grad(loss, W)
        norms[t] = gradient.abs().sum((-2, -1))
        before, W.grad = W.detach().clone(), gradient
        optimizer.step()
        with torch.no_grad():
            W.copy_(before + rates[:, :, t, None, None, None] * (W - before))
    with torch.no_grad():
        everything = problem.X.expand(seeds, n, d), problem.y.expand(seeds, n)
        return _losses(W, *everything).double().numpy(), norms.double().numpy()


def _losses(W: Tensor, X: Tensor, y: Tensor) -> Tensor:
    """Mean cross-entropy of each run, shape (profiles, rates, seeds); X (seeds, b, d), y (seeds, b)."""
    logits = torch.einsum("sbd,prsdc->prsbc", X, W)
    picked = torch.gather(logits.log_softmax(-1), -1, y.expand(*logits.shape[:-1])[..., None])
    return -picked[..., 0].mean(-1)


# -- networks


@dataclass(frozen=True)
class Setting:
    """A network to train, its optimizer, and the rates that each schedule is tried at."""

    name: str
    task: TrainingTask
    optimizer: Callable[..., Optimizer]
    rates: tuple[float, ...]
    geometry: Any
    metric: str


def _settings(scale: Scale) -> list[Setting]:
    momentum = functools.partial(torch.optim.SGD, momentum=0.9)
    steps, words = {"smoke": (15, 10), "quick": (200, 120), "full": (4000, 4000)}[scale]
    settings = [
        Setting("digits CNN, SGD momentum", tasks.digits(steps), momentum, (0.03, 0.1, 0.3), "l2", "error"),
        Setting(
            "character transformer, Adam",
            tasks.text(words),
            torch.optim.Adam,
            (3e-3, 1e-2, 3e-2),
            "l1",
            "test_loss",
        ),
    ]
    if scale == "full":
        settings.append(
            Setting(
                "digits ResNet, SGD momentum",
                tasks.digits(steps, network="resnet"),
                momentum,
                (0.03, 0.1, 0.3),
                "l2",
                "error",
            )
        )
    return settings[:1] if scale == "smoke" else settings


@dataclass(frozen=True, eq=False)
class Deep:
    """Scores of each schedule at its best rate, over seeds, the rates, and what the refined one was made of."""

    scores: dict[str, Vector]
    rates: dict[str, float]
    refined: Refined
    norms: Vector


def _deep(setting: Setting, seeds: int) -> Deep:
    scores, rates = {}, {}
    schedules: dict[str, Callable[[Optimizer, int], Any]] = {
        "cosine": functools.partial(ProfileSchedule, profile="cosine"),
        "linear": LinearDecay,
    }
    for name, schedule in schedules.items():
        rates[name], scores[name] = _best(setting, schedule, seeds)
    norms = _norms(setting, rates["linear"])
    refined = refine(norms, setting.geometry)
    follow = functools.partial(RefinedSchedule, refined=refined)
    rates["refined"], scores["refined"] = _best(setting, follow, seeds)
    return Deep(scores, rates, refined, norms)


def _best(setting: Setting, schedule: Callable[[Optimizer, int], Any], seeds: int) -> tuple[float, Vector]:
    found = {}
    for rate in setting.rates:
        method = Train(setting.optimizer, {"lr": rate}, schedule)
        judged = [solve(setting.task, method, seed=seed, progress=False).metrics for seed in range(seeds)]
        values = [1.0 - m["accuracy"] if setting.metric == "error" else m["test_loss"] for m in judged]
        found[rate] = np.array(values)
    best = min(found, key=lambda rate: float(np.nan_to_num(found[rate], nan=np.inf).mean()))
    return best, found[best]


def _norms(setting: Setting, rate: float) -> Vector:
    recorders = []

    def recorded(optimizer: Optimizer, steps: int) -> LinearDecay:
        recorders.append(GradientNormRecorder(optimizer))
        return LinearDecay(optimizer, steps)

    solve(setting.task, Train(setting.optimizer, {"lr": rate}, recorded), seed=100, progress=False)
    return recorders[0].norms(setting.geometry)


# -- what is told


def _convex_verdicts(convex: list[Convex], outcomes: list[Outcome]) -> list[Verdict]:
    names = outcomes[0].names
    means = np.stack([o.best().mean(1) for o in outcomes])  # (problems, schedules)
    ranks = rankdata(means[:, :-1], axis=1).mean(0)
    linear, cosine, refined = (names.index(name) for name in ("linear", "cosine", "refined"))
    separable = np.array([p.separable for p in convex])

    def ratio(a: int, b: int, of: Any = slice(None)) -> float:
        return float(np.exp(np.log(means[of, a] / means[of, b]).mean()))

    words = "the refined schedule's loss over linear decay's, geometric mean"
    return [
        Verdict("Convex: linear decay's mean rank among the six fixed schedules", float(ranks[linear]), 2.0),
        Verdict("Convex: linear decay's loss over cosine's, geometric mean", ratio(linear, cosine), 1.0),
        Verdict(f"Convex, classes overlap: {words}", ratio(refined, linear, ~separable), 1.0),
        Verdict(f"Convex, a plane parts the classes: {words}", ratio(refined, linear, separable), 1.0),
    ]


def _deep_verdicts(deep: dict[str, Deep]) -> list[Verdict]:
    verdicts = []
    for name, d in deep.items():
        mean = {schedule: float(values.mean()) for schedule, values in d.scores.items()}
        verdicts += [
            Verdict(f"{name}: linear decay's score over cosine's", mean["linear"] / mean["cosine"], 1.0),
            Verdict(
                f"{name}: the refined schedule's score over linear decay's",
                mean["refined"] / mean["linear"],
                1.0,
            ),
        ]
    return verdicts


def _recorded_verdicts(recorded: dict[str, Path]) -> list[Verdict]:
    verdicts = []
    for stem, path in recorded.items():
        stated = WARMUPS.get(stem.split("_")[0])
        if stated is not None:
            fit = fit_warmup_poly(refine(load_series(path), "l1" if "l1" in stem else "l2"))
            verdicts.append(
                Verdict(
                    f"{stem}: warm-up found, less the stated {stated:.0%}", abs(fit.warmup - stated), 0.05
                )
            )
    return verdicts


def _convex_table(convex: list[Convex], outcomes: list[Outcome]) -> Table:
    rows = []
    for problem, outcome in zip(convex, outcomes, strict=True):
        picked = np.nan_to_num(outcome.losses.mean(2), nan=np.inf).argmin(1)
        for k, name in enumerate(outcome.names):
            best = outcome.best()[k]
            rows.append(
                {
                    "task": f"logistic regression, {problem.name}",
                    "schedule": name,
                    "best rate": CONVEX_RATES[picked[k]],
                    "score": float(f"{best.mean():.4g}"),
                    "spread": float(f"{best.std():.2g}"),
                }
            )
    return rows


def _deep_table(deep: dict[str, Deep]) -> Table:
    return [
        {
            "task": name,
            "schedule": schedule,
            "best rate": d.rates[schedule],
            "score": float(f"{values.mean():.4g}"),
            "spread": float(f"{values.std():.2g}"),
        }
        for name, d in deep.items()
        for schedule, values in d.scores.items()
    ]


def _figures(convex: list[Convex], outcomes: list[Outcome], deep: dict[str, Deep]) -> list[Figure]:
    z = np.linspace(0.0, 1.0, 201)
    made = [(p.name, o.refined, o.norms) for p, o in zip(convex, outcomes, strict=True)]
    made += [(name.partition(",")[0], d.refined, d.norms) for name, d in deep.items()]
    shapes = [Series.of(name, z, refined(z)) for name, refined, _ in made]
    courses = [
        Series.of(name, np.linspace(0, 1, len(norms)), smoothed(norms, 0.1) / np.median(norms))
        for name, _, norms in made
    ]
    ratios = np.stack([o.best().mean(1) / o.best().mean(1)[o.names.index("linear")] for o in outcomes])
    bars = [
        Series(p.name, list(range(ratios.shape[1])), r.tolist()) for p, r in zip(convex, ratios, strict=True)
    ]
    share = "share of the steps"
    return [
        Figure(
            "Convex problems",
            "Loss at the end, at each schedule's best rate, over linear decay's.",
            "",
            "loss / linear decay's",
            bars,
            kind="bars",
            log_y=True,
            categories=outcomes[0].names,
        ),
        Figure(
            "Refined schedules", "As recorded runs ask for.", share, "multiple of the highest rate", shapes
        ),
        Figure(
            "Recorded gradient norms",
            "After the median filter, over their median.",
            share,
            "norm",
            courses,
            log_y=True,
        ),
    ]


def _costs(convex: list[Convex], outcomes: list[Outcome]) -> Row:
    names = outcomes[0].names
    problems = [
        f"{p.name}, seed {s}" for p, o in zip(convex, outcomes, strict=True) for s in range(o.losses.shape[2])
    ]
    scores = {name: [float(v) for o in outcomes for v in o.best()[k]] for k, name in enumerate(names)}
    return {"problems": problems, "methods": scores}
