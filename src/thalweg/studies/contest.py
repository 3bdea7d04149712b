"""The one way to race: everybody tuned alike on some seeds and data, judged on others.

What a study says is who races on what, and which claims follow. How it is done stands here, so that no study can tune
on what it reports, give ours the larger grid, leave the best rival out, or count a run that never converged.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import TypeVar, cast

import numpy as np

from thalweg.core import InvalidProblem, Method, Problem, Result, Status, Stop, UnknownName, solve
from thalweg.core.validation import require
from thalweg.studies.evidence import Tell
from thalweg.studies.intervals import Scores, median
from thalweg.studies.standings import END_OF_GRID, Breakdown, Standings

P = TypeVar("P")

#: A method, for problems that `solve` takes; or anything called with the problem and a seed that returns its score.
Contestant = Method | Callable[[P, int], float]
#: What a contestant may be tuned over: settings by label, or a list of them, labelled by their names.
Grid = Mapping[str, Contestant[P]] | Sequence[Contestant[P]]
Score = Callable[[Result], float]


def contest(
    problems: Mapping[str, Callable[[int], P]],
    grids: Mapping[str, Grid[P]],
    score: Score | None = None,
    *,
    ours: str,
    what: str,
    stop: Stop | None = None,
    tuning_problems: Mapping[str, Callable[[int], P]] | None = None,
    tuning_seeds: Sequence[int] = (0,),
    judging_seeds: Sequence[int] = (1, 2, 3, 4, 5),
    needs_convergence: bool = True,
    random: bool = True,
    tell: Tell = lambda share, what: None,
) -> Standings:
    """Tune every contestant on the tuning seeds, judge it on the others, and return the standings.

    Args:
        problems: name -> a function that makes the problem of a seed, with data of that seed. Contestants share what
            it returns, and must leave it as it is.
        grids: contestant -> its settings, as many for each, in their order. One setting is not tuned. Where two
            settings score the same, the first is taken. The standings tell where one at a grid's end was best.
        score: what a run counts for, the smaller the better, from its `Result`; only Methods need it.
        ours: the contestant that claims will be about.
        what: the score in a word or two, e.g. ``"iterations"``; claims, tables and figures use it.
        stop: when a Method's run ends; by default the problem's own rule.
        tuning_problems: like ``problems``, for tuning, where fixed data set apart must take the place of data made
            from a seed.
        tuning_seeds, judging_seeds: none in both. Five judging seeds are the least for a 90 % interval.
        needs_convergence: a run that did not end CONVERGED scores infinity. False for budgets that are always used
            up (training for a number of steps); DIVERGED scores infinity all the same.
        random: False where nothing is, with one judging seed: verdicts then have no interval.
        tell: called with the share done and what is being done.

    A run that raises *any* exception, returns NaN or an infinity, or falls under the two rules above scores
    infinity; the standings say why. What a problem's function raises is an error of the study and leaves.

    Raises:
        InvalidParameter: unequal or empty grids, one setting given twice, a seed in both lists, no seed.
        UnknownName: ``ours`` is no contestant.

    Cost: contestants x (settings x tuning seeds, unless there is one setting, + judging seeds) runs a problem.

    >>> from thalweg.linear import SOR, SSORCG, LinearSystem
    >>> from thalweg.numerics import FivePointStencil
    >>> def system(seed):
    ...     return LinearSystem(FivePointStencil(9, 9).to_csr(), np.random.default_rng(seed).random(81))
    >>> found = contest(
    ...     {"grid 9": system},
    ...     {"SOR": [SOR(omega=1.3), SOR(omega=1.6)], "SSOR-CG": [SSORCG(omega=1.3), SSORCG(omega=1.6)]},
    ...     lambda result: result.steps,
    ...     ours="SSOR-CG", what="iterations", stop=Stop(below={"residual": 1e-8}),
    ... )
    >>> found.settings["grid 9"]["SOR"], found.beats()[0].outcome
    ('SOR(omega=1.6)', 'holds')
    """
    entries = _checked(problems, grids, ours, tuning_seeds, judging_seeds, random)
    tuned_on = problems if tuning_problems is None else tuning_problems
    require(
        set(tuned_on) == set(problems),
        "contest: tuning_problems needs the names of problems",
        got=sorted(tuned_on),
    )
    scores: dict[str, dict[str, Scores]] = {}
    settings: dict[str, dict[str, str]] = {}
    breakdowns: list[Breakdown] = []
    for i, (name, make) in enumerate(problems.items()):
        tell(i / len(problems), f"{name}: tuning")
        trial = _Judge(score, stop, needs_convergence)
        chosen = _tuned(entries, tuned_on[name], tuning_seeds, trial)
        settings[name] = {c: label + _end_of_grid(label, entries[c]) for c, (label, _) in chosen.items()}
        table = np.empty((len(chosen), len(judging_seeds)))
        for k, seed in enumerate(judging_seeds):
            tell((i + (k + 1) / (len(judging_seeds) + 1)) / len(problems), f"{name}: seed {seed}")
            problem = make(seed)
            for j, (contestant, (_, setting)) in enumerate(chosen.items()):
                table[j, k], why = trial(problem, setting, seed)
                if why:
                    breakdowns.append(Breakdown(name, contestant, seed, why))
        scores[name] = dict(zip(chosen, table, strict=True))
    return Standings(what, ours, scores, settings, breakdowns, random)


def _checked(
    problems: Mapping[str, Callable[[int], P]],
    grids: Mapping[str, Grid[P]],
    ours: str,
    tuning_seeds: Sequence[int],
    judging_seeds: Sequence[int],
    random: bool,
) -> dict[str, dict[str, Contestant[P]]]:
    require(len(problems) > 0, "contest needs at least one problem")
    require(len(grids) > 1, "contest needs at least two contestants", got=list(grids))
    if ours not in grids:
        raise UnknownName("contestant", ours, grids)
    entries = {name: _labelled(name, grid) for name, grid in grids.items()}
    sizes = {name: len(grid) for name, grid in entries.items()}
    require(
        len(set(sizes.values())) == 1 and min(sizes.values()) > 0,
        "contest: every contestant needs a grid of the same size, at least 1",
        got=sizes,
    )
    both = sorted(set(tuning_seeds) & set(judging_seeds))
    require(not both, "contest: no seed may be tuned on and judged on", got=both)
    require(len(judging_seeds) > 0, "contest needs at least one judging seed")
    for kind, seeds in (("judging", judging_seeds), ("tuning", tuning_seeds)):
        require(len(set(seeds)) == len(seeds), f"contest: {kind} seeds must differ", got=list(seeds))
    needs_tuning = min(sizes.values()) > 1
    require(len(tuning_seeds) > 0 or not needs_tuning, "contest: grids need at least one tuning seed")
    require(
        random or len(judging_seeds) == 1,
        "contest: random=False needs one judging seed",
        got=len(judging_seeds),
    )
    return entries


def _labelled(name: str, grid: Grid[P]) -> dict[str, Contestant[P]]:
    """The settings by label; one given twice would make a grid look larger than it is."""
    if isinstance(grid, Mapping):
        settings = dict(grid)
    else:
        labels = [c.name if isinstance(c, Method) else getattr(c, "__name__", repr(c)) for c in grid]
        require(
            len(set(labels)) == len(labels),
            f"contest: two settings of '{name}' have one name; pass a dictionary of labels",
            got=labels,
        )
        settings = dict(zip(labels, grid, strict=True))
    require(
        len({id(setting) for setting in settings.values()}) == len(settings),
        f"contest: a setting of '{name}' is given twice",
        got=list(settings),
    )
    return settings


def _tuned(
    entries: Mapping[str, Mapping[str, Contestant[P]]],
    make: Callable[[int], P],
    seeds: Sequence[int],
    trial: _Judge,
) -> dict[str, tuple[str, Contestant[P]]]:
    """Each contestant's setting with the smallest median over the tuning seeds, by label."""
    if all(len(grid) == 1 for grid in entries.values()):
        return {name: next(iter(grid.items())) for name, grid in entries.items()}
    found: dict[tuple[str, str], list[float]] = {}
    for seed in seeds:
        problem = make(seed)
        for name, grid in entries.items():
            for label, setting in grid.items():
                found.setdefault((name, label), []).append(trial(problem, setting, seed)[0])
    best = {name: min(grid, key=lambda label: median(found[name, label])) for name, grid in entries.items()}
    return {name: (label, entries[name][label]) for name, label in best.items()}


def _end_of_grid(label: str, grid: Mapping[str, Contestant[P]]) -> str:
    """A word where the first or the last of three settings or more was best: the grid may be too narrow."""
    return END_OF_GRID if len(grid) > 2 and label in (next(iter(grid)), next(reversed(list(grid)))) else ""


class _Judge:
    """One run, and what it counts for."""

    def __init__(self, score: Score | None, stop: Stop | None, needs_convergence: bool) -> None:
        self._score, self._stop, self._needs_convergence = score, stop, needs_convergence

    def __call__(self, problem: P, contestant: Contestant[P], seed: int) -> tuple[float, str]:
        """The score, and why it is infinite where it is."""
        if isinstance(contestant, Method) and (self._score is None or not isinstance(problem, Problem)):
            raise InvalidProblem(
                f"{contestant.name} is a Method: contest needs `score`, and problems that are a Problem; "
                f"got score={self._score!r} and a {type(problem).__name__}."
            )
        try:
            if isinstance(contestant, Method):
                value, why = self._solved(cast(Problem, problem), contestant, seed)
            else:
                value, why = float(contestant(problem, seed)), ""
        except Exception as error:  # noqa: BLE001 -- whatever it is: a contestant that breaks down has lost
            return np.inf, f"{type(error).__name__}: {error}"
        if why:
            return np.inf, why
        return (value, "") if np.isfinite(value) else (np.inf, f"its score is {value}")

    def _solved(self, problem: Problem, method: Method, seed: int) -> tuple[float, str]:
        result = solve(problem, method, stop=self._stop, seed=seed, progress=False)
        if result.status is Status.INTERRUPTED:
            raise KeyboardInterrupt  # solve() has turned Ctrl-C into a status; here it ends the race
        failed = result.status is Status.DIVERGED or (self._needs_convergence and not result.converged)
        if failed:
            return np.inf, f"{result.status.value}: {result.message}"
        assert self._score is not None
        return float(self._score(result)), ""
