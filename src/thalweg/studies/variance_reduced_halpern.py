"""22 Variance-reduced Halpern iterations: on which sums sampling components saves evaluations, and how many.

Cai, Alacaoglu and Diakonikolas (2024): theorems 2.1 and 4.2, on problems whose stable rank is known.
"""

from __future__ import annotations

import dataclasses
import functools
from collections.abc import Callable, Mapping
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from thalweg.core import Figure, Method, Run, Series, Stop, solve
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
    policeman_and_burglar,
    random_game,
)
from thalweg.studies.contest import contest
from thalweg.studies.evidence import Evidence, Scale, Tell
from thalweg.studies.intervals import log_slope, median, median_interval
from thalweg.studies.monotone_sums import (
    Passes,
    as_given,
    least_squares,
    linear_gan_of,
    multiples,
    passes_of,
    spectrum,
)
from thalweg.studies.standings import Standings
from thalweg.studies.verdict import Verdict

#: A problem of n components, or n rows, from a seed; one by name, with its n.
Family = Callable[[int, int], MonotoneInclusion]
Problems = Mapping[str, tuple[Family, int]]
WHAT = "passes"
Told = dict[tuple[str, int], float]


@dataclass(frozen=True)
class Size:
    """How much to run: rows of the games, components of the sums, iterations whose residuals are kept, judging seeds.

    Args:
        random: rows of the random game; none where 0.
        tuned_on: rows of the games that everybody is tuned on.
        most: passes after which a run has failed.
    """

    sides: tuple[int, ...]
    predicted: tuple[int, ...]
    policeman: int
    random: int
    sums: tuple[int, ...]
    gan: int
    last: int
    seeds: int
    tuned_on: int
    most: int


SIZES = {
    "smoke": Size((10, 20), (10,), 20, 10, (50, 100), 50, 20, 2, 10, 30),
    "quick": Size((50, 100, 200, 400), (100,), 200, 0, (1000, 10_000), 500, 200, 5, 40, 700),
    "full": Size(
        (100, 200, 400, 800), (100, 300, 1000), 1000, 100, (1000, 10_000, 100_000), 10_000, 1000, 5, 100, 1500
    ),
}


def run(scale: Scale = "quick", tell: Tell = lambda share, what: None) -> Evidence:
    """Rerun the claims at a scale."""
    size = SIZES[scale]
    tell(0.0, "games of low stable rank")
    low = _race(size, _spectra((0.5,), size.sides), _on_games(0.03, size), OURS)
    tell(0.4, "predicted gains")
    told: Told = {}
    spectra = _spectra((0.0, 0.25, 0.5, 1.0), size.predicted, told)
    pair = {name: grid for name, grid in _on_games(0.1, size).items() if name in (OURS, RESTARTED)}
    predicted = _race(size, spectra, pair, OURS)
    tell(0.7, "policeman and burglar")
    games, centring = _policeman(size)
    tell(0.8, "cocoercive sums")
    sums, skewed = _cocoercive(size)
    tell(0.9, "linear GANs")
    gan = _gan(size)
    last, slopes = _last_iterates(size)
    standings = [low, predicted, games, centring, sums, skewed, gan]
    return Evidence(
        verdicts=[
            *_about_games(low, size),
            *_about_predictions(predicted, told),
            *_about_policeman(games, centring),
            *_about_sums(sums, skewed, size),
            *gan.beats(0.5),
            *slopes,
        ],
        table=[row for found in standings for row in found.table()],
        figures=[
            low.curves(_sizes(low, size.sides), "Games with the singular values i^-1/2", "rows"),
            _gains(predicted, told),
            sums.curves(_sizes(sums, size.sums), "Cocoercive sums, condition 400", "components"),
            last,
        ],
        costs=low.costs(),
        notes=(
            f"{size.seeds} seeds. A pass is n evaluations of a component; a difference takes two, or one where it is "
            "linear in the point. Estimates of Lipschitz constants, which all steps come from, are not counted. Every "
            f"contestant has four settings, tuned on another seed and a smaller problem of each kind ({size.tuned_on} "
            "rows, at most 300 examples); PDHG's are how often it looks at its average. Games with the singular values "
            "i^-a are free: no sets, linear terms, a known solution. "
            + " ".join(found.notes() for found in standings)
        ).strip(),
    )


OURS, RESTARTED = "InexactHalpern, restarted", "PDHG, restarted"
ANCHORED = "AnchoredExtragradient"


def _race(
    size: Size, problems: Problems, entries: Mapping[str, Mapping[str, Passes]], ours: str, tuned_on: int = 0
) -> Standings:
    """Everybody tuned on a small problem of each family, judged on those of the size named."""
    small = functools.cache(lambda family: family(tuned_on or size.tuned_on, 0))
    found = contest(
        {name: functools.partial(family, n) for name, (family, n) in problems.items()},
        entries,
        ours=ours,
        what=WHAT,
        tuning_problems={
            name: functools.partial(lambda family, seed: small(family), family)
            for name, (family, _) in problems.items()
        },
        judging_seeds=range(1, size.seeds + 1),
    )
    passes_of.cache_clear()
    return found


def _pdhg(restart: float | None, goal: float, size: Size, longer: float = 1.0) -> dict[str, Passes]:
    """Steps between two looks at the average, which decide where a run is short; its step is at its limit already."""
    settings = ((10, 1.0), (25, 1.0), (50, 1.0), (100, 1.0) if longer == 1.0 else (10, longer))
    return {
        f"every={k}, step x {m:g}": Passes(PDHG(every=k, restart=restart), m, goal, size.most)
        for k, m in settings
    }


def _deterministic(goal: float, size: Size, longer: float = 1.0) -> dict[str, dict[str, Passes]]:
    """Up to the longest steps that theory allows each of them, and beyond where ours are longer, too."""
    plain = (0.75, 1.0, 1.2, 1.4 if longer == 1.0 else 1.6)
    return {
        "Extragradient": multiples(Extragradient(), plain, goal, size.most),
        "FoRB": multiples(ForwardReflectedBackward(), plain, goal, size.most),
        ANCHORED: multiples(AnchoredExtragradient(), tuple(2.5 * m for m in plain), goal, size.most),
    }


def _on_games(goal: float, size: Size, longer: float = 1.0) -> dict[str, dict[str, Passes]]:
    """Every method alike: on simplices, steps longer than theory's are tried, too."""
    return {
        OURS: multiples(
            InexactHalpern(restart=0.5), (longer, 1.4 * longer, 1.9 * longer, 2.5 * longer), goal, size.most
        ),
        **_deterministic(goal, size, longer),
        "PDHG": _pdhg(None, goal, size, longer),
        RESTARTED: _pdhg(0.5, goal, size, longer),
    }


def _spectra(powers: tuple[float, ...], sides: tuple[int, ...], told: Told | None = None) -> Problems:
    """Games by name; the gains that are predicted for them are put in ``told``, by name and seed."""

    def family(a: float, n: int, seed: int) -> MonotoneInclusion:
        problem = spectrum(a, n, seed)
        if told is not None:
            told[_name(a, n), seed] = problem.sampling.predicted_gain
        return problem

    families = {a: functools.partial(family, a) for a in powers}
    return {_name(a, n): (families[a], n) for a in powers for n in sides}


def _name(a: float, n: int) -> str:
    return f"singular values i^-{a:g}, n = {n}"


def _sizes(found: Standings, sizes: tuple[int, ...]) -> dict[str, float]:
    return dict(zip(found.scores, map(float, sizes), strict=True))


def _largest(found: Standings) -> Standings:
    name = list(found.scores)[-1]
    return dataclasses.replace(found, scores={name: found.scores[name]})


def _among(found: Standings, names: list[str]) -> Standings:
    """Some of the contestants."""
    kept = {
        problem: {c: s for c, s in scores.items() if c in names} for problem, scores in found.scores.items()
    }
    return dataclasses.replace(found, scores=kept)


def _power(found: Standings, sizes: tuple[int, ...], rivals: list[str], least: float, what: str) -> Verdict:
    """The power of the size with which the best rival's passes grow over ours."""
    ours = np.array([scores[found.ours] for scores in found.scores.values()])
    theirs = np.array([np.min([scores[r] for r in rivals], axis=0) for scores in found.scores.values()])
    with np.errstate(invalid="ignore"):
        powers = [log_slope(sizes, ratio) for ratio in (theirs / ours).T]
    claim = (
        f"{what}: {WHAT}, best of {', '.join(rivals)} / {found.ours}: power of n, {sizes[0]} to {sizes[-1]}"
    )
    return Verdict(claim, median(powers), least, ">=", median_interval(powers))


def _about_games(low: Standings, size: Size) -> list[Verdict]:
    others = ["Extragradient", "FoRB", ANCHORED]
    return [
        _power(low, size.sides, low.rivals, 0.4, "low stable rank"),
        _power(low, size.sides, others, 0.4, "low stable rank"),
        *_largest(low).beats(1.0),
        *_largest(low).compared(OURS, ANCHORED, 0.35),
    ]


def _about_predictions(found: Standings, told: Told) -> list[Verdict]:
    """How far the measured gains are from those predicted, and the games where a loss is."""
    full_rank = {name: scores for name, scores in found.scores.items() if "i^-0," in name}
    lost = _largest(dataclasses.replace(found, scores=full_rank))
    return [_predicted(found, told), *lost.compared(RESTARTED, OURS, 0.5)]


def _predicted(found: Standings, told: Told) -> Verdict:
    off = []
    for k in range(found.seeds):
        ratios = [gain / told[name, k + 1] for name, gain in _measured(found, k).items()]
        off.append(median([max(r, 1.0 / r) if 0.0 < r < np.inf else np.inf for r in ratios]))
    claim = f"{len(found.scores)} games: factor between measured and predicted gain over {RESTARTED}, their median"
    return Verdict(claim, median(off), 1.5, interval=median_interval(off))


def _measured(found: Standings, k: int) -> dict[str, float]:
    """Passes of restarted PDHG over ours, of the k-th seed; infinite or NaN where a run failed."""
    with np.errstate(invalid="ignore"):
        return {name: float(s[RESTARTED][k] / s[OURS][k]) for name, s in found.scores.items()}


def _gains(found: Standings, told: Told) -> Figure:
    points = [
        (told[name, k + 1], gain)
        for k in range(found.seeds)
        for name, gain in _measured(found, k).items()
        if np.isfinite(gain)
    ]
    points.sort()
    x = [p for p, _ in points]
    caption = f"Passes of {RESTARTED} over those of {OURS}, every game and seed, over what the stable rank predicts."
    series = [Series("measured", x, [g for _, g in points]), Series("predicted", x, x)]
    return Figure("Predicted gains", caption, "predicted", "gain", series, log_x=True, log_y=True)


def _policeman(size: Size) -> tuple[Standings, Standings]:
    """Games on simplices; and one of them with its payoffs as they are given."""
    goal, policeman, side = 0.01, f"policeman and burglar, n = {size.policeman}", size.random
    problems: dict[str, tuple[Family, int]] = {
        policeman: (lambda n, seed: matrix_game(policeman_and_burglar(n, seed)), size.policeman)
    }
    if side:
        problems[f"random game, n = {side}"] = (lambda n, seed: matrix_game(random_game(n, n, seed)), side)
    brief = dataclasses.replace(size, most=size.most // 2)
    games = _race(size, problems, _on_games(goal, brief, longer=2.0), OURS)
    pdhg = Passes(PDHG(every=10), 1.0, goal, size.most // 3)
    forms: dict[str, dict[str, Callable[[Tensor, int], float]]] = {
        "centred": {"": lambda A, seed: pdhg(matrix_game(A), seed)},
        "as given": {"": lambda A, seed: pdhg(as_given(A), seed)},
    }
    centring = contest(
        {policeman: functools.partial(policeman_and_burglar, size.policeman)},
        forms,
        ours="centred",
        what=f"{WHAT} of {RESTARTED}",
        tuning_seeds=(),
        judging_seeds=range(1, size.seeds + 1),
    )
    return games, centring


def _about_policeman(games: Standings, centring: Standings) -> list[Verdict]:
    policeman, *random = (
        dataclasses.replace(games, scores={name: scores}) for name, scores in games.scores.items()
    )
    return [
        *centring.compared("centred", "as given", 0.1),
        *_among(policeman, [OURS, "Extragradient", "FoRB", ANCHORED]).beats(0.5),
        *policeman.compared(OURS, RESTARTED, 1.3),
        *(verdict for game in random for verdict in game.compared(RESTARTED, OURS, 1.0)),
    ]


REDUCED, WHOLE = "VRHalpern, restarted", "Halpern, restarted"


def _cocoercive(size: Size) -> tuple[Standings, Standings]:
    goal, tuned_on, n = 1e-3, min(300, size.sums[0]), size.sums[-1]
    steps, brief = (0.7, 1.0, 1.35, 1.5), dataclasses.replace(size, most=min(size.most, 500))
    most = min(5 * size.most, 3000)  # of 20 numbers: passes are cheap
    both = {REDUCED: VRHalpern(restart=0.5), WHOLE: VRHalpern(restart=0.5, batch=10**9)}
    hard = functools.partial(least_squares, 1.0, 0.0)
    skewed = functools.partial(least_squares, 0.5, 0.02)
    first = {
        **{name: multiples(method, steps, goal, most) for name, method in both.items()},
        "SVRG": multiples(SVRG(batch=32), (1.0, 2.0, 4.0, 8.0), goal, most),
    }
    second = {
        **{name: multiples(method, steps, goal, brief.most) for name, method in both.items()},
        "Halpern": multiples(Halpern(), (2.0, 4.0, 7.0, 8.5), goal, brief.most),
        **_deterministic(goal, brief),
    }
    sums = {f"condition 400, n = {m}": (hard, m) for m in size.sums}
    return (
        _race(size, sums, first, REDUCED, tuned_on),
        _race(size, {f"no gradient, n = {n}": (skewed, n)}, second, REDUCED, tuned_on),
    )


def _about_sums(sums: Standings, skewed: Standings, size: Size) -> list[Verdict]:
    last = _largest(sums)
    return [
        _power(sums, size.sums, [WHOLE], 0.25, "cocoercive sums, condition 400"),
        *last.compared(REDUCED, WHOLE, 0.1),
        *last.compared("SVRG", REDUCED, 1.0),
        *skewed.beats(0.35),
    ]


def _gan(size: Size) -> Standings:
    goal, ours = 1e-3, "VRExtragradient, restarted"
    size = dataclasses.replace(size, most=200)
    entries = {
        ours: multiples(VRExtragradient(restart=0.5), (0.75, 1.0, 1.5, 2.0), goal, size.most),
        **_deterministic(goal, size),
    }
    problems = {f"linear GAN, n = {size.gan}": (linear_gan_of, size.gan)}
    return _race(size, problems, entries, ours, min(300, size.gan))


def _last_iterates(size: Size) -> tuple[Figure, list[Verdict]]:
    """Residuals along Halpern's and inexact Halpern's iterations, without restarts."""
    # badly conditioned: O(1/k) is all there is to be had
    scales = torch.linspace(1e-3, 1.0, 50, dtype=torch.float64)
    quadratic = MonotoneInclusion(
        Functions(lambda u, rows: (scales * u).expand(len(rows), -1), 1), torch.ones(50, dtype=torch.float64)
    )
    steps = max(size.last // 10, 20)
    games = [matrix_game(random_game(30, 30, seed)) for seed in range(1, size.seeds + 1)]
    halpern = _residuals(quadratic, Halpern(), 5 * size.last, 0)
    inexact = np.array([_residuals(game, InexactHalpern(), steps, k) for k, game in enumerate(games)])
    slopes = [_late_slope(residuals) for residuals in inexact]
    verdicts = [
        Verdict(
            "Halpern, quadratic: last iterate's residual falls as 1/k, slope", _late_slope(halpern), -0.8
        ),
        Verdict(
            "InexactHalpern, random games of 30 rows: last iterate's residual falls as 1/k, slope",
            median(slopes),
            -0.8,
            interval=median_interval(slopes),
        ),
    ]
    series = [
        Series.of("Halpern, quadratic", np.arange(1, len(halpern) + 1), halpern),
        Series.of("InexactHalpern, game", np.arange(1, steps + 1), inexact),
    ]
    caption = f"Residual of the last iterate; games: mean of {size.seeds} seeds, band: their range."
    return Figure("Last iterates", caption, "iteration", "residual", series, log_x=True, log_y=True), verdicts


def _residuals(
    problem: MonotoneInclusion, method: Method[MonotoneInclusion], steps: int, seed: int
) -> np.ndarray:
    found: list[float] = []

    def look(run: Run) -> None:
        found.append(run.state.metrics["residual"])

    solve(problem, method, stop=Stop(steps=steps), callbacks=[look], seed=seed, progress=False)
    return np.array(found)


def _late_slope(residuals: np.ndarray) -> float:
    """The power of k, over the last nine tenths of the iterations."""
    first = max(len(residuals) // 10, 2)
    return log_slope(np.arange(first, len(residuals) + 1), residuals[first - 1 :])
