"""22 Variance-reduced Halpern iterations: where sampling components saves evaluations, by how much, and where it loses.

Cai, Alacaoglu and Diakonikolas (2024): theorems 2.1 and 4.2, and their matrix games; Applegate et al. (2021) for the
restarted primal-dual method that they leave out.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import cache, partial

import numpy as np
import torch

from thalweg.core import Method, Run, Stop, solve
from thalweg.equilibrium import (
    PDHG,
    SVRG,
    AnchoredExtragradient,
    Extragradient,
    ForwardReflectedBackward,
    Functions,
    Halpern,
    InexactHalpern,
    MonotoneInclusion,
    VRExtragradient,
    VRHalpern,
    matrix_game,
    random_game,
    random_markov_game,
)
from thalweg.studies.contest import contest
from thalweg.studies.evidence import Evidence, Figure, Scale, Series, Table, Tell
from thalweg.studies.inclusion_tasks import (
    Task,
    gan,
    least_squares,
    on_simplices,
    robust_logistic,
    skew_sum,
    spectral,
)
from thalweg.studies.intervals import log_slope, median, median_interval, paired_ratio
from thalweg.studies.standings import Standings
from thalweg.studies.verdict import Verdict

WHAT = "passes over the components"
OURS, VR, SVRG_ = "InexactHalpern, restarted", "VRExtragradient, restarted", "SVRG"
EG, FORB, EAG, PD, PDR = "Extragradient", "FoRB", "AnchoredExtragradient", "PDHG", "PDHG, restarted"
GD, HALPERN, AGD, OURS_SUMS = "gradient steps", "Halpern, restarted", "Nesterov", "VRHalpern, restarted"
LOGISTIC = "robust logistic regression"


@dataclass(frozen=True)
class Size:
    """Components of each kind of problem, the passes allowed, steps towards last iterates, and judging seeds."""

    sides: tuple[int, ...]
    predicted: tuple[int, ...]
    simplices: int
    skew: tuple[int, ...]
    sums: tuple[int, ...]
    gans: tuple[int, ...]
    passes: tuple[int, int]  # to least squares, to robust regression
    steps: int
    seeds: int


SIZES = {
    "smoke": Size((10, 20), (10,), 16, (50,), (50, 100), (50,), (20, 3), 6, 1),
    "quick": Size((100, 400), (100,), 64, (10_000,), (1000, 100_000), (200,), (3000, 50), 12, 5),
    "full": Size(
        (100, 200, 400, 800), (100, 300, 1000), 1000, (10_000,), (1000, 100_000), (1000,), (3000, 1000), 50, 5
    ),
}


#: A method made for a task: the rivals know F's constant exactly, and take the longest step that theory allows.
Maker = Callable[[Task], Method[MonotoneInclusion]]
MAKERS: dict[str, Maker] = {
    OURS: lambda task: InexactHalpern(restart=0.5),
    VR: lambda task: VRExtragradient(restart=0.5),
    EG: lambda task: Extragradient(0.9 / task.whole),
    FORB: lambda task: ForwardReflectedBackward(0.45 / task.whole),
    EAG: lambda task: AnchoredExtragradient(0.9 / task.whole),
    PD: lambda task: PDHG(0.9 / task.whole, every=10, restart=None),
    PDR: lambda task: PDHG(0.9 / task.whole, every=10),
    OURS_SUMS: lambda task: VRHalpern(restart=0.5),
    HALPERN: lambda task: VRHalpern(1.9 / task.whole, batch=task.problem.count, restart=0.5),
    SVRG_: lambda task: SVRG(batch=int(np.ceil(np.sqrt(task.problem.count)))),
}


def passes(name: str, task: Task, seed: int) -> float:
    """Component evaluations over n until the residual is the goal; infinite where they do not suffice."""
    n = task.problem.count
    stop = Stop(below={"residual": task.goal}, calls=task.most * n, steps=None)
    found = solve(task.problem, MAKERS[name](task), stop=stop, seed=seed, progress=False)
    return found.calls / n if found.converged else np.inf


def gradient_passes(momentum: bool, task: Task, seed: int) -> float:
    """Evaluations of the whole sum by gradient steps, or by Nesterov's for strongly convex ones."""
    F, u = task.problem.components.full, task.problem.x0
    root = np.sqrt(task.least / task.whole)
    beta, step = ((1 - root) / (1 + root), 1.0 / task.whole) if momentum else (0.0, 1.9 / task.whole)
    ahead, goal = u, task.goal
    for k in range(task.most):
        value = F(ahead)
        if float(torch.linalg.vector_norm(value)) <= goal:
            return float(k + 1)
        u, before = ahead - step * value, u
        ahead = u + beta * (u - before)
    return float(np.inf)


def race(
    tasks: Mapping[str, Callable[[int], Task]], names: tuple[str, ...], seeds: tuple[int, ...]
) -> Standings:
    """Everybody as fixed above; the first of the names is ours."""
    own = {GD: partial(gradient_passes, False), AGD: partial(gradient_passes, True)}
    entries = {name: {name: own.get(name, partial(passes, name))} for name in names}
    return contest(tasks, entries, ours=names[0], what=WHAT, judging_seeds=seeds)


def run(scale: Scale = "quick", tell: Tell = lambda share, what: None) -> Evidence:
    """Rerun the claims at a scale."""
    size = SIZES[scale]
    seeds = tuple(range(1, size.seeds + 1))
    tell(0.0, "games of low stable rank")
    falling = {f"spectrum i^-0.5, n = {n}": partial(spectral, n, 0.5, 0.03) for n in size.sides}
    games = race(falling, (OURS, EG, FORB, EAG, PD, PDR), seeds)
    tell(0.4, "predicted gains")
    grid = {f"spectrum i^-{a}, n = {n}": (n, a) for n in size.predicted for a in (0.0, 0.25, 0.5, 1.0)}
    guessed = {name: cache(partial(spectral, n, a, 0.1)) for name, (n, a) in grid.items()}
    predicted = race(guessed, (OURS, PDR), seeds)
    tell(0.6, "games on simplices")
    simplices = race(on_simplices(size.simplices), (OURS, EG, FORB, EAG, PDR), seeds)
    tell(0.7, "cocoercive sums")
    skew = race(
        {f"skew sum, n = {n}": partial(skew_sum, n, size.passes[0]) for n in size.skew},
        (OURS_SUMS, GD, EG, FORB, HALPERN, SVRG_),
        seeds,
    )
    squares = race(
        {f"least squares, n = {n}": partial(least_squares, n, size.passes[0]) for n in size.sums},
        (OURS_SUMS, GD, AGD, HALPERN),
        seeds,
    )
    tell(0.85, "linear GANs, robust regression")
    gans = race(
        {f"linear GAN, n = {n}": partial(gan, n) for n in size.gans}, (OURS, VR, EG, FORB, EAG), seeds
    )
    robust = race({LOGISTIC: partial(robust_logistic, size.passes[1])}, (OURS, VR, EG, FORB, EAG), seeds)
    tell(0.95, "last iterates, a Markov game")
    last = last_iterates(size.steps, seeds)
    markov = markov_curve({"smoke": 2}.get(scale, 5))
    factors = prediction(predicted, guessed, seeds)
    races = (games, predicted, simplices, skew, squares, gans, robust)
    return Evidence(
        verdicts=[
            *_of_games(games, size.sides),
            *_of_predictions(predicted, factors),
            *_against(simplices, (EG, FORB, EAG), 0.5, 1),
            *_against(simplices, (PDR,), 1.3, 1),
            *_against(skew, (GD, EG, FORB, HALPERN), 0.35)[-1:],
            *_of_squares(squares, size.sums),
            *_against(gans, (EG, FORB, EAG), 0.5),
            *_of_last(last),
        ],
        table=[
            *(row for r in races for row in r.table()),
            *_prediction_table(predicted, factors),
            *_markov_table(markov),
        ],
        figures=[
            games.curves(
                dict(zip(falling, size.sides, strict=True)), "Games of low stable rank", "components n"
            ),
            squares.curves(
                {f"least squares, n = {n}": n for n in size.sums}, "Least squares", "components n"
            ),
            simplices.bars("Games on simplices"),
            _prediction_figure(factors),
            _last_figure(last),
            _markov_figure(markov),
        ],
        notes=" ".join(
            (
                "A pass is n evaluations of single components; what estimates of Lipschitz constants cost is not "
                "counted. Rivals know F's constant exactly. Nobody is tuned: everybody has the step that theory "
                "allows, ours its defaults. Games of low stable rank: x'Ay with linear terms, to 3 % of the first "
                "residual (10 % where gains are predicted). Sums: to a thousandth. SVRG needs a strongly monotone "
                "sum, and is reported, not claimed against. Random games and robust regression are cases in which "
                "theory promises nothing.",
                *(told for r in races if (told := r.notes())),
            )
        ),
    )


def _against(
    found: Standings, rivals: tuple[str, ...], required: float, problems: int | None = None
) -> list[Verdict]:
    """Ours against the best of some rivals, on the first problems."""
    names = (found.ours, *rivals)
    some = list(found.scores)[:problems]
    scores = {p: {name: found.scores[p][name] for name in names} for p in some}
    return [
        Verdict(f"{v.claim}: {', '.join(rivals)}", v.measured, v.required, v.relation, v.interval)
        for v in Standings(WHAT, found.ours, scores, random=found.random).beats(required)
    ]


def _of_games(games: Standings, sides: tuple[int, ...]) -> list[Verdict]:
    """The power of n in the gain over the best deterministic method, and the ratios at the largest n."""
    deterministic = (EG, FORB, EAG, PD, PDR)
    best = [np.min([found[m] for m in deterministic], axis=0) for found in games.scores.values()]
    gains = np.array(
        [paired_ratio(b, found[OURS]) for b, found in zip(best, games.scores.values(), strict=True)]
    )
    powers = [log_slope(sides, gains[:, k]) for k in range(games.seeds)]
    claim = f"Games of low stable rank: power of n in the passes of the best deterministic method / {OURS}"
    return [
        Verdict(claim, median(powers), 0.4, ">=", median_interval(powers)),
        *_against(games, (EG, FORB, EAG), 0.35)[-1:],
        *_against(games, deterministic, 1.0)[-1:],
    ]


Factors = dict[str, tuple[list[float], list[float]]]


def prediction(
    found: Standings, tasks: Mapping[str, Callable[[int], Task]], seeds: tuple[int, ...]
) -> Factors:
    """The gain over restarted PDHG, seed by seed: as measured and as predicted."""
    return {
        name: (
            paired_ratio(scores[PDR], scores[OURS]).tolist(),
            [tasks[name](seed).problem.sampling(seed).predicted_gain for seed in seeds],
        )
        for name, scores in found.scores.items()
    }


def _of_predictions(found: Standings, factors: Factors) -> list[Verdict]:
    off = np.array([np.abs(np.log(np.divide(measured, told))) for measured, told in factors.values()])
    middle = np.exp(np.median(off, axis=0))  # over the games, seed by seed
    flat = np.array([measured for name, (measured, _) in factors.items() if "i^-0.0" in name]).max(axis=0)
    return [
        Verdict(
            f"Gain over {PDR}, measured and predicted: factor between them, median of {len(factors)} games",
            median(middle),
            1.5,
            "<=",
            median_interval(middle),
        ),
        Verdict(
            "Singular values all alike: the predicted loss, passes of restarted PDHG over ours, the largest",
            median(flat),
            0.5,
            "<=",
            median_interval(flat),
        ),
    ]


def _of_squares(squares: Standings, sums: tuple[int, ...]) -> list[Verdict]:
    gains = np.array([paired_ratio(found[HALPERN], found[OURS_SUMS]) for found in squares.scores.values()])
    powers = [log_slope(sums, gains[:, k]) for k in range(squares.seeds)]
    claim = f"Least squares: power of n in the passes of {HALPERN} / {OURS_SUMS}"
    return [
        Verdict(claim, median(powers), 0.25, ">=", median_interval(powers)),
        *_against(squares, (AGD,), 0.6)[-1:],
        *_against(squares, (HALPERN,), 0.1)[-1:],
    ]


def last_iterates(steps: int, seeds: tuple[int, ...]) -> dict[str, np.ndarray]:
    """Residuals of the last iterate, shape (seeds, steps); one row where nothing is random."""
    X = torch.linspace(
        1e-3, 1.0, 50, dtype=torch.float64
    )  # badly conditioned: O(1/k) is all there is to be had
    quadratic = MonotoneInclusion(
        Functions(lambda u, rows: (X * u).expand(len(rows), -1), 1), torch.ones(50, dtype=torch.float64)
    )
    game = matrix_game(random_game(30, 30))
    return {
        "Halpern, quadratic": np.array([_residuals(quadratic, Halpern(), 20 * steps, 0)]),
        "InexactHalpern, game": np.array([_residuals(game, InexactHalpern(), steps, s) for s in seeds]),
    }


def _residuals(problem: MonotoneInclusion, method: Method, steps: int, seed: int) -> list[float]:
    found: list[float] = []

    def look(run: Run) -> None:
        found.append(run.state.metrics["residual"])

    solve(problem, method, stop=Stop(steps=steps), seed=seed, callbacks=[look], progress=False)
    return found


def _of_last(last: dict[str, np.ndarray]) -> list[Verdict]:
    verdicts = []
    for name, residuals in last.items():
        k = np.arange(1.0, residuals.shape[1] + 1.0)
        late = k >= max(len(k) // 10, 2)
        slopes = [log_slope(k[late], row[late]) for row in residuals]
        interval = median_interval(slopes) if len(slopes) > 1 else None
        verdicts.append(
            Verdict(
                f"{name}: last iterate's residual falls as 1/k, power", median(slopes), -0.8, "<=", interval
            )
        )
    return verdicts


def markov_curve(states: int) -> list[tuple[float, float]]:
    """Evaluations of all stage games and exploitability along Shapley's iteration."""
    game = random_markov_game(states, 4, 4)
    curve: list[tuple[float, float]] = []

    def look(run: Run) -> None:
        curve.append((run.state.calls / states, run.state.metrics["exploitability"]))

    stop = Stop(below={"exploitability": 1e-5}, steps=100)
    solve(game, stop=stop, callbacks=[look], progress=False)
    return curve


def _markov_table(curve: list[tuple[float, float]]) -> Table:
    evaluations, exploitability = curve[-1]
    return [
        {
            "problem": "Markov game",
            "contestant": "ShapleyIteration",
            WHAT: float(f"{evaluations:.4g}"),
            "exploitability": float(f"{exploitability:.3g}"),
        }
    ]


def _prediction_table(found: Standings, factors: Factors) -> Table:
    return [
        {
            "problem": name,
            "contestant": f"{PDR} / {OURS}",
            "gain": float(f"{median(measured):.3g}"),
            "predicted gain": float(f"{median(told):.3g}"),
        }
        for name, (measured, told) in factors.items()
    ]


def _prediction_figure(factors: Factors) -> Figure:
    points = sorted((median(told), median(measured)) for measured, told in factors.values())
    told = [p for p, _ in points]
    return Figure(
        "Gains, predicted and measured",
        "Passes of restarted PDHG over ours, a point for each game; one is where sampling begins to pay.",
        "predicted",
        "measured",
        [Series("measured", told, [m for _, m in points]), Series("as predicted", told, told)],
        log_x=True,
        log_y=True,
    )


def _last_figure(last: dict[str, np.ndarray]) -> Figure:
    series = [
        Series.of(name, np.arange(1, found.shape[1] + 1), np.median(found, axis=0))
        for name, found in last.items()
    ]
    return Figure(
        "Last iterates",
        "Residual of the last iterate.",
        "iteration",
        "residual",
        series,
        log_x=True,
        log_y=True,
    )


def _markov_figure(curve: list[tuple[float, float]]) -> Figure:
    return Figure(
        "A Markov game",
        "Shapley's iteration: what the best responses could gain.",
        "evaluations of all stage games",
        "exploitability",
        [Series.of("ShapleyIteration", *np.array(curve).T)],
        log_y=True,
    )
