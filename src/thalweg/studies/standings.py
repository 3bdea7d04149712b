"""What a contest leaves: scores over seeds, and the verdicts, table, costs and figures that follow from them."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Literal

import numpy as np
from numpy.typing import NDArray
from scipy.stats import rankdata

from thalweg.core import Figure, InvalidProblem, Series, UnknownName
from thalweg.core.validation import require
from thalweg.studies.intervals import (
    Scores,
    log_slope,
    median,
    median_interval,
    paired_difference,
    paired_ratio,
    worst_of,
)
from thalweg.studies.verdict import Pair, Relation, Verdict

By = Literal["ratio", "difference"]
#: What follows a setting's label where it was the first or the last of its grid.
END_OF_GRID = " (end of grid)"
_SIGN = {"ratio": "/", "difference": "-"}


@dataclass(frozen=True)
class Breakdown:
    """A judged run that scored infinity, and why."""

    problem: str
    contestant: str
    seed: int
    why: str


@dataclass(frozen=True)
class Standings:
    """The scores of a contest, the smaller the better, and all that follows from them.

    Claims are worded here, from what was computed: ``problem: what, ours / best of the other 4``. Numbers are
    medians over the judging seeds of scores paired by seed, with the interval of `intervals.median_interval`.

    Args:
        what: the name of the score, e.g. ``"iterations"``.
        ours: the contestant that claims are about, named before the race.
        scores: problem -> contestant -> scores, shape (seeds,); infinity for a run that failed.
        settings: problem -> contestant -> the setting that tuning chose.
        breakdowns: the runs that failed.
        random: whether anything is; without, there is one seed and no interval.

    >>> found = Standings("steps", "a", {"p": {"a": np.arange(1.0, 6), "b": np.full(5, 10.0)}})
    >>> [(v.claim, v.measured, v.interval, v.outcome) for v in found.beats(0.6)]
    [('p: steps, a / best of the other 1', 0.3, (0.1, 0.5), 'holds')]
    """

    what: str
    ours: str
    scores: Mapping[str, Mapping[str, Scores]]
    settings: Mapping[str, Mapping[str, str]] = field(default_factory=dict)
    breakdowns: Sequence[Breakdown] = ()
    random: bool = True

    def __post_init__(self) -> None:
        require(len(self.scores) > 0, "Standings need scores on at least one problem", error=InvalidProblem)
        names = self.contestants
        if self.ours not in names:
            raise UnknownName("contestant", self.ours, names)
        for problem, found in self.scores.items():
            shapes = {np.shape(v) for v in found.values()}
            require(
                list(found) == names and shapes == {(self.seeds,)} and self.seeds > 0,
                f"Standings: '{problem}' needs scores of {', '.join(names)}, one for each of {self.seeds} seeds",
                got={name: np.shape(v) for name, v in found.items()},
                error=InvalidProblem,
            )
            nan = [name for name, v in found.items() if np.isnan(v).any()]
            require(
                not nan, f"Standings: '{problem}' has NaN scores; a run that failed scores infinity", got=nan
            )
        require(
            self.random or self.seeds == 1, "Standings: without randomness there is one seed", got=self.seeds
        )

    @property
    def contestants(self) -> list[str]:
        """Their names, in the order given."""
        return list(next(iter(self.scores.values())))

    @property
    def rivals(self) -> list[str]:
        """All contestants but ours."""
        return [name for name in self.contestants if name != self.ours]

    @property
    def seeds(self) -> int:
        """Number of judging seeds."""
        return len(next(iter(next(iter(self.scores.values())).values())))

    def beats(self, required: float = 1.0, by: By = "ratio") -> list[Verdict]:
        """A verdict a problem: ours against the best of *all* the others, at most ``required``.

        The measured number is the largest, over the rivals, of the median of ours over the rival's (or less it),
        seed by seed. A better rival never lowers it. See `intervals.worst_of` for its interval.

        Args:
            by: ``"ratio"`` for scores that are never negative, else ``"difference"``.
        """
        require(len(self.rivals) > 0, "Nobody to beat: the contest has one contestant", error=InvalidProblem)
        pair = paired_ratio if by == "ratio" else paired_difference
        verdicts = []
        for problem, found in self.scores.items():
            measured, interval = worst_of([pair(found[self.ours], found[rival]) for rival in self.rivals])
            claim = f"{problem}: {self.what}, {self.ours} {_SIGN[by]} best of the other {len(self.rivals)}"
            verdicts.append(self._verdict(claim, measured, interval, required, "<=", by))
        return verdicts

    def compared(
        self, first: str, second: str, required: float | Pair, relation: Relation = "<=", by: By = "ratio"
    ) -> list[Verdict]:
        """A verdict a problem: the score of ``first`` over that of ``second`` (or less it), seed by seed.

        For claims about two by name; whether ours is any good is for `beats`. A seed where both failed counts
        against the claim.
        """
        for name in (first, second):
            if name not in self.contestants:
                raise UnknownName("contestant", name, self.contestants)
        least = 0.0 if by == "ratio" else -math.inf
        both_failed = {"<=": math.inf, ">=": least, "within": math.inf}[relation]
        pair = paired_ratio if by == "ratio" else paired_difference
        verdicts = []
        for problem, found in self.scores.items():
            values = pair(found[first], found[second], both_failed)
            claim = f"{problem}: {self.what}, {first} {_SIGN[by]} {second}"
            verdicts.append(
                self._verdict(claim, median(values), median_interval(values), required, relation, by)
            )
        return verdicts

    def place(self, required: float) -> list[Verdict]:
        """A verdict a problem: the place of ours, seed by seed, 1 the best; equal scores share the worse place."""
        verdicts = []
        for problem, found in self.scores.items():
            table = np.array(list(found.values()))
            places = rankdata(table, axis=0, method="max")[self.contestants.index(self.ours)]
            claim = f"{problem}: place of {self.ours} by {self.what} among {len(table)}"
            interval = median_interval(places)
            verdicts.append(self._verdict(claim, median(places), interval, required, "<=", "difference"))
        return verdicts

    def slope(self, sizes: Mapping[str, float], band: Pair, contestant: str | None = None) -> Verdict:
        """The power with which a contestant's score grows with the problems' sizes, within a band.

        A line through the logarithms for each seed; the median of their slopes. A run that failed, or a score of 0,
        leaves no slope: NaN, which fails.

        Args:
            sizes: the size of each problem to fit, by its name; at least two different ones.
            band: (low, high), both ends part of the claim.
            contestant: whose scores; ours by default.
        """
        name = self.ours if contestant is None else contestant
        if name not in self.contestants:
            raise UnknownName("contestant", name, self.contestants)
        x, y = list(sizes.values()), np.array([self._of(problem)[name] for problem in sizes])
        slopes = [log_slope(x, y[:, seed]) for seed in range(self.seeds)]
        claim = f"{self.what} of {name}: power of the size, {min(x):g} to {max(x):g}"
        return self._verdict(claim, median(slopes), median_interval(slopes), band, "within", "difference")

    def ranks(self, problems: Sequence[str] | None = None, name: str = "all problems") -> Standings:
        """Mean ranks over some of the problems (all by default), seed by seed, 1 the best, as new standings.

        Equal scores share the mean of their places; runs that failed share the last ones.
        """
        chosen = list(self.scores) if problems is None else list(problems)
        tables = [np.array(list(self._of(problem).values())) for problem in chosen]
        mean = np.mean([rankdata(table, axis=0) for table in tables], axis=0)  # (contestants, seeds)
        return Standings(
            "mean rank", self.ours, {name: dict(zip(self.contestants, mean, strict=True))}, random=self.random
        )

    def table(self) -> list[dict[str, object]]:
        """A row for each problem and contestant: setting, median, range over seeds, and runs that failed."""
        return [
            {
                "problem": problem,
                "contestant": f"{name} (ours)" if name == self.ours else name,
                "setting": self.settings.get(problem, {}).get(name, ""),
                self.what: median(values),
                "least": float(values.min()),
                "most": float(values.max()),
                "failed": int(np.isinf(values).sum()),
            }
            for problem, found in self.scores.items()
            for name, values in found.items()
        ]

    def costs(self, least: float = 1e-12) -> dict[str, object]:
        """Every contestant's median on every problem, for a performance profile; a 0 counts as ``least``."""
        methods = {
            name: [max(median(found[name]), least) for found in self.scores.values()]
            for name in self.contestants
        }
        return {"problems": list(self.scores), "methods": methods}

    def curves(
        self, sizes: Mapping[str, float], title: str, x_label: str, *, log_x: bool = True, log_y: bool = True
    ) -> Figure:
        """Median scores over the problems' sizes, with the range over seeds; a gap where a median is infinite."""
        x = [float(size) for size in sizes.values()]
        series = [
            _series(name, x, np.array([self._of(problem)[name] for problem in sizes]))
            for name in self.contestants
        ]
        caption = f"Medians over {self.seeds} seeds, band: their range; {self.ours} is ours."
        return Figure(title, caption, x_label, self.what, series, log_x=log_x, log_y=log_y)

    def bars(self, title: str) -> Figure:
        """Median scores, a group for each problem; no bar where the median is infinite."""
        places = [float(i) for i in range(len(self.scores))]
        series = [
            Series(name, places, [median(found[name]) for found in self.scores.values()])
            for name in self.contestants
        ]
        caption = f"Medians over {self.seeds} seeds; {self.ours} is ours."
        return Figure(title, caption, "", self.what, series, kind="bars", categories=list(self.scores))

    def notes(self) -> str:
        """Who failed, how often, and why the first time; how many settings lie at an end of their grid."""
        told = []
        settings = [label for chosen in self.settings.values() for label in chosen.values()]
        ends = sum(label.endswith(END_OF_GRID) for label in settings)
        if ends:
            told.append(f"{ends} of {len(settings)} settings chosen are the first or the last of their grid.")
        for name in self.contestants:
            own = [b for b in self.breakdowns if b.contestant == name]
            if own:
                runs = self.seeds * len(self.scores)
                told.append(f"{name} failed in {len(own)} of {runs} runs ({own[0].problem}: {own[0].why}).")
        return " ".join(told)

    def _of(self, problem: str) -> Mapping[str, Scores]:
        if problem not in self.scores:
            raise UnknownName("problem", problem, self.scores)
        return self.scores[problem]

    def _verdict(
        self, claim: str, measured: float, interval: Pair, required: float | Pair, relation: Relation, by: By
    ) -> Verdict:
        low, high = interval
        shown = (max(low, 0.0), high) if by == "ratio" else interval
        return Verdict(claim, measured, required, relation, shown if self.random else None)


def together(standings: Sequence[Standings], what: str | None = None) -> Standings:
    """The standings of several contests as those of one, with the problems of all.

    Args:
        standings: of the same contestants, with the same one as ours and the same number of seeds.
        what: a name for the score; needed where they differ.
    """
    require(len(standings) > 0, "together needs at least one contest's standings", error=InvalidProblem)
    first = standings[0]
    for other in standings[1:]:
        same = (other.ours, other.contestants, other.seeds, other.random) == (
            first.ours,
            first.contestants,
            first.seeds,
            first.random,
        )
        require(
            same, "together needs the same contestants, ours and seeds in each contest", error=InvalidProblem
        )
    names = [problem for s in standings for problem in s.scores]
    require(
        len(set(names)) == len(names), "together needs different problems", got=names, error=InvalidProblem
    )
    require(
        what is not None or len({s.what for s in standings}) == 1, "together needs `what` for unlike scores"
    )
    return Standings(
        what or first.what,
        first.ours,
        {problem: found for s in standings for problem, found in s.scores.items()},
        {problem: chosen for s in standings for problem, chosen in s.settings.items()},
        [b for s in standings for b in s.breakdowns],
        first.random,
    )


def _series(name: str, x: list[float], scores: NDArray[np.float64]) -> Series:
    """A curve through medians of scores, shape (points, seeds); its band only where no run failed."""
    low, high = scores.min(1), scores.max(1)
    banded = bool(np.isfinite(high).all()) and scores.shape[1] > 1
    middle = [median(row) for row in scores]
    return Series(name, x, middle, low.tolist() if banded else None, high.tolist() if banded else None)
