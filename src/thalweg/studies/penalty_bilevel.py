"""06 Penalty methods for bilevel problems: how close the penalised objective is, and hyper-cleaning at equal calls.

Kwon et al. (2024): section 3 (closeness), section 4 (complexity); data hyper-cleaning as Shaban et al. (2019) have it.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from functools import cache, partial
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from thalweg.bilevel import (
    AID,
    BOME,
    ITD,
    Bilevel,
    Decay,
    MomentumPenalty,
    NeumannInverse,
    Penalty,
    StocBiO,
    penalty_value,
)
from thalweg.core import Method, Run, Stop, solve
from thalweg.core.figure import Figure, Series
from thalweg.core.seeding import torch_generator
from thalweg.numerics.projections import box
from thalweg.studies.bilevel_tasks import BilevelTask, EqualCalls, digits_cleaning, feature_penalties
from thalweg.studies.contest import contest
from thalweg.studies.evidence import Evidence, Scale, Table, Tell
from thalweg.studies.intervals import log_slope, median, median_interval
from thalweg.studies.standings import Standings
from thalweg.studies.verdict import Verdict

PENALTIES = np.geomspace(1e-1, 1e-4, 7)
ACCURACIES = (0.3, 0.1, 0.03, 0.01)
OURS = "penalty"


@dataclass(frozen=True)
class Size:
    """How much to run.

    Args:
        inner: steps to solve the penalised problem with, at most.
        most: steps to an accuracy at most.
        steps: places at which the noisy loop is looked at.
        replicates: of the noisy loop, side by side.
        calls: of a run of the two tasks.
        x_steps, y_steps: numbers of settings of each method's grid.
        seeds: judging ones.
    """

    inner: int
    most: int
    steps: tuple[int, ...]
    replicates: int
    calls: int
    x_steps: int
    y_steps: int
    seeds: int


SIZES = {
    "smoke": Size(300, 10, (10, 20), 2, 10, 1, 1, 2),
    "quick": Size(800, 5000, (75, 150, 300, 600), 10, 100, 2, 1, 5),
    "full": Size(3000, 5000, (500, 2000, 8000, 32_000), 20, 10_000, 3, 2, 5),
}
#: task -> (its problems, step sizes of y).
TASKS: dict[str, tuple[Callable[[int], Bilevel], tuple[float, ...]]] = {
    "hyper-cleaning": (digits_cleaning, (1.0, 3.0)),
    "penalties for features": (feature_penalties, (0.3, 0.1)),
}


def run(scale: Scale = "quick", tell: Tell = lambda share, what: None) -> Evidence:
    """Rerun the claims at a scale."""
    size = SIZES[scale]
    tell(0.0, "distance of the penalised objective")
    closeness = {name: _closeness(*made, size.inner) for name, made in _examples().items()}
    tell(0.1, "calls to an accuracy")
    calls = [_calls_to(eps, size.most) for eps in ACCURACIES]
    tell(0.15, "noisy gradients")
    errors = _noisy_errors(size.steps, size.replicates)
    races = []
    for i, (name, (make, inner)) in enumerate(TASKS.items()):
        told = partial(_later, tell, 0.3 + 0.35 * i)
        task = cache(lambda seed, make=make: BilevelTask(make(seed), size.calls, size.most))
        grids = _grids((1000.0, 100.0, 10_000.0)[: size.x_steps], inner[: size.y_steps])
        seeds = tuple(range(1, size.seeds + 1))
        races += [_race(name, task, grids, metric, seeds, told) for metric in ("error", "upper")]
    return Evidence(
        verdicts=[
            *_laws(closeness, calls, size.steps, errors),
            *races[0].beats(0.005, by="difference"),
            *races[2].beats(0.005, by="difference"),
            *races[3].beats(1.05),
        ],
        table=[
            *_table(closeness, calls, size.steps, errors),
            *(row for race in races for row in race.table()),
        ],
        figures=[*_figures(closeness, size.steps, errors), *(race.bars(_title(race)) for race in races)],
        notes=" ".join(
            (
                "Examples with the error bound: a quadratic, a box with active constraints, a lower level that leaves "
                "half of y to f; without: (y - x)^4. Hyper-cleaning: digits, half of 600 labels redrawn, 300 clean "
                "ones; penalties for features: breast_cancer and 30 columns of noise. Every method has the same number "
                "of settings, chosen on a problem that is not judged, and the same number of gradient calls, a "
                "second-order product counted as one. The penalty is 0.1 throughout. All are judged at their x with "
                "the lower level solved accurately, since the penalty's and BOME's own y are drawn towards f. Half a "
                "point of accuracy below the best, or 5 % more loss, is allowed. Gradients are exact, but for the "
                "single loop with noise.",
                *(note for race in races if (note := race.notes())),
            )
        ),
    )


def _later(tell: Tell, begin: float, share: float, what: str) -> None:
    tell(begin + 0.35 * share, what)


def _race(
    name: str,
    task: Callable[[int], BilevelTask],
    grids: dict[str, list[Method]],
    metric: str,
    seeds: tuple[int, ...],
    tell: Tell,
) -> Standings:
    entries = {
        who: {method.name: EqualCalls(method, metric) for method in methods} for who, methods in grids.items()
    }
    what = {"error": "share of errors", "upper": "validation loss"}[metric]
    return contest({name: task}, entries, ours=OURS, what=what, judging_seeds=seeds, tell=tell)


def _title(race: Standings) -> str:
    (name,) = race.scores
    return f"{name[0].upper()}{name[1:]}: {race.what}"


def _examples() -> dict[str, tuple[Bilevel, Tensor, Any]]:
    """Problems, a place, and psi in closed form."""
    random = torch_generator(6)
    A, B, c = (torch.randn(*s, generator=random, dtype=torch.float64) for s in ((5, 5), (5, 3), (5,)))
    H = A @ A.T / 5 + torch.eye(5, dtype=A.dtype)
    response = torch.linalg.solve(H, B)
    x, zero = torch.tensor([0.3, -2.0, 0.1], dtype=torch.float64), torch.zeros(5, dtype=torch.float64)

    def f(x: Tensor, y: Tensor) -> Tensor:
        return 0.5 * (y - c).square().sum() + 0.5 * x.square().sum()

    quadratic = Bilevel(f, lambda x, y: 0.5 * y @ H @ y - y @ (B @ x), x, zero)

    def pulled(x: Tensor, y: Tensor) -> Tensor:
        return (y - 1.0).square().sum() + 0.1 * x.square().sum()

    boxed = Bilevel(pulled, lambda x, y: (y - x).square().sum(), x, x, y_set=lambda y: box(y, -1.0, 1.0))
    many = Bilevel(pulled, lambda x, y: (y[:3] - x).square().sum(), x, torch.zeros(6, dtype=x.dtype))
    one = torch.ones(1, dtype=torch.float64)
    quartic = Bilevel(lambda x, y: 0.5 * y.square().sum(), lambda x, y: (y - x).pow(4).sum() / 4, one, one)
    return {
        "quadratic": (quadratic, x, lambda x: f(x, response @ x)),
        "active box": (boxed, x, lambda x: pulled(x, x.clamp(-1.0, 1.0))),
        "many solutions": (many, x, lambda x: pulled(x, x)),
        "no error bound": (quartic, one, lambda x: 0.5 * x.square().sum()),
    }


def _closeness(problem: Bilevel, x: Tensor, psi: Any, steps: int) -> dict[str, np.ndarray]:
    """Errors of value and gradient for each penalty."""
    slope, value = torch.func.grad_and_value(psi)(x)
    stop = Stop(below={"residual": 1e-12}, steps=steps)
    found = [penalty_value(problem, x, float(s), stop=stop) for s in PENALTIES]
    return {
        "value": np.array([abs(v.value - float(value)) for v in found]),
        "gradient": np.array([float(torch.linalg.vector_norm(v.gradient - slope)) for v in found]),
    }


def _wavy(noise: float = 0.0, replicates: int = 1) -> tuple[Bilevel, Callable[[Tensor], Tensor]]:
    """A bilevel objective that is not convex, ``y*(x) = 2 sin x``, and its gradient's norm, of each replicate.

    Replicates lie side by side in x; none changes another's steps, and each has noise of its own.
    """

    def f(x: Tensor, y: Tensor, e: Tensor | None = None) -> Tensor:
        value = 0.5 * (y - 1.0).square().sum() + 0.1 * x.square().sum()
        return value if e is None else value + e @ torch.cat([x, y])

    def g(x: Tensor, y: Tensor, e: Tensor | None = None) -> Tensor:
        value = 0.5 * (y - 2.0 * x.sin()).square().sum()
        return value if e is None else value + e @ torch.cat([x, y])

    start = (1.2 + 0.2 * torch.arange(4, dtype=torch.float64)).repeat(replicates)
    batches = _Noise(2 * len(start), noise) if noise else None
    problem = Bilevel(f, g, start, torch.zeros_like(start), upper_batches=batches, lower_batches=batches)
    slope = torch.func.grad(lambda x: f(x, 2.0 * x.sin()))
    return problem, lambda x: torch.linalg.vector_norm(slope(x).view(replicates, 4), dim=1)


class _Noise:
    whole = None

    def __init__(self, size: int, scale: float) -> None:
        self.size, self.scale = size, scale

    def __call__(self, generator: torch.Generator) -> Tensor:
        return self.scale * torch.randn(self.size, generator=generator, dtype=torch.float64)


def _calls_to(eps: float, most: int) -> float:
    """Gradient calls of the double loop, with s = eps, until the bilevel objective's gradient is at most eps.

    Infinite where ``most`` steps do not get there.
    """
    problem, norm = _wavy()
    method = Penalty(0.1, 0.5, penalty=eps, inner_steps=5)
    found = solve(
        problem,
        method,
        stop=Stop(steps=most),
        callbacks=[lambda run: bool(norm(run.state.x.x) <= eps)],
        progress=False,
    )
    return found.calls if norm(found.x.x) <= eps else np.inf


def _noisy_errors(steps: tuple[int, ...], replicates: int) -> NDArray[np.float64]:
    """Norms of the gradient after the single loop's steps, default schedules, noisy gradients.

    Returns:
        shape (replicates, steps).
    """
    problem, norm = _wavy(0.1, replicates)
    method = MomentumPenalty(inner_step_size=Decay(0.5, 0.4, 10.0))
    norms = np.zeros((replicates, len(steps)))

    def look(run: Run) -> None:
        if run.steps in steps:
            norms[:, steps.index(run.steps)] = norm(run.state.x.x)

    solve(problem, method, stop=Stop(steps=steps[-1]), callbacks=[look], progress=False)
    return norms


def _powers(steps: tuple[int, ...], norms: NDArray[np.float64]) -> list[float]:
    """How fast the gradient falls; of groups of replicates, since one alone is mostly noise."""
    groups = np.array_split(norms, min(5, len(norms)))
    return [-log_slope(steps, np.sqrt((group**2).mean(0))) for group in groups]


def _grids(steps: tuple[float, ...], inner: tuple[float, ...]) -> dict[str, list[Method]]:
    pairs = [(a, g) for a in steps for g in inner]
    return {
        OURS: [Penalty(a, g, penalty=0.1, inner_steps=5) for a, g in pairs],
        "penalty, single loop": [MomentumPenalty(a, g, penalty=0.1, momentum=1.0) for a, g in pairs],
        "AID": [AID(a, g) for a, g in pairs],
        "ITD": [ITD(a, g) for a, g in pairs],
        "StocBiO": [StocBiO(a, g, inverse=NeumannInverse(10, g)) for a, g in pairs],
        "BOME": [BOME(a, g) for a, g in pairs],
    }


def _laws(
    closeness: dict[str, dict[str, np.ndarray]],
    calls: list[float],
    steps: tuple[int, ...],
    errors: NDArray[np.float64],
) -> list[Verdict]:
    with_bound = [
        abs(log_slope(PENALTIES, errors) - 1.0)
        for name, both in closeness.items()
        if name != "no error bound"
        for errors in both.values()
    ]
    without = log_slope(PENALTIES, closeness["no error bound"]["value"])
    powers = _powers(steps, errors)
    return [
        Verdict(
            "With the error bound |psi_s - psi| and its gradient fall as s: slope off one",
            max(with_bound),
            0.1,
        ),
        Verdict("Without it they do not: slope of |psi_s - psi|", without, 0.5),
        Verdict(
            "Calls to accuracy eps, deterministic: power of 1/eps, within 20 % of 3",
            -log_slope(ACCURACIES, calls),
            (2.4, 3.6),
            "within",
        ),
        Verdict(
            "Single loop with noise: power at which the gradient falls with calls, within 20 % of 1/5",
            median(powers),
            (0.16, 0.24),
            "within",
            median_interval(powers),
        ),
    ]


def _rms(errors: NDArray[np.float64]) -> NDArray[np.float64]:
    """Shape (steps,)."""
    found: NDArray[np.float64] = np.sqrt((errors**2).mean(0))
    return found


def _table(
    closeness: dict[str, dict[str, np.ndarray]],
    calls: list[float],
    steps: tuple[int, ...],
    errors: NDArray[np.float64],
) -> Table:
    rows: Table = [
        {"task": f"closeness: {name}", "slope, value": log_slope(PENALTIES, both["value"])}
        | {"slope, gradient": log_slope(PENALTIES, np.maximum(both["gradient"], 1e-16))}
        for name, both in closeness.items()
    ]
    rows += [
        {"task": f"gradient at most {eps}", "calls": n} for eps, n in zip(ACCURACIES, calls, strict=True)
    ]
    rows += [
        {"task": f"noise, {n} steps", "calls": 12 * n, "gradient": float(e)}
        for n, e in zip(steps, _rms(errors), strict=True)
    ]
    return rows


def _figures(
    closeness: dict[str, dict[str, np.ndarray]], steps: tuple[int, ...], errors: NDArray[np.float64]
) -> list[Figure]:
    calls, fallen = 12.0 * np.array(steps), _rms(errors)
    return [
        Figure(
            "The penalised objective's distance",
            "Slope one where the lower level has the error bound, a third for (y - x)^4.",
            "penalty s",
            "|psi_s - psi|",
            [Series.of(name, PENALTIES, both["value"]) for name, both in closeness.items()],
            log_x=True,
            log_y=True,
        ),
        Figure(
            "Single loop with noisy gradients",
            "Root mean square over replicates.",
            "gradient calls",
            "norm of the gradient",
            [
                Series.of("momentum penalty", calls, fallen),
                Series.of("calls^(-1/5)", calls, fallen[0] * (calls / calls[0]) ** -0.2),
            ],
            log_x=True,
            log_y=True,
        ),
    ]
