"""The candidates on one's own problem, under one budget."""

from __future__ import annotations

import copy
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from thalweg.core import (
    Figure,
    InvalidParameter,
    Method,
    Problem,
    Result,
    Series,
    Stop,
    ThalwegError,
    contestant,
    solve,
)
from thalweg.core.validation import require
from thalweg.workbench.machine import machine
from thalweg.workbench.page import Section, drawn, listed, table_of, write_page
from thalweg.workbench.plots import profile_figure

if TYPE_CHECKING:
    import pandas as pd

Contestants = Mapping[str, object] | Sequence[object]


@dataclass(frozen=True)
class Comparison:
    """What `compare` found: one row a run, and the runs themselves.

    Args:
        rows: problem, method, seed, status, steps, seconds, calls, and the problem's metrics of each run.
        results: the `Result` of each row; None where there is none because the method refused the problem.
        stops: the stopping rule of each problem.
    """

    rows: list[dict[str, Any]]
    results: list[Result | None] = field(repr=False)
    stops: dict[str, Stop] = field(default_factory=dict, repr=False)

    def to_frame(self) -> pd.DataFrame:
        """The rows as a table."""
        import pandas as pd

        return pd.DataFrame(self.rows)

    def joined(self, other: Comparison) -> Comparison:
        """The rows of both."""
        return Comparison(
            [*self.rows, *other.rows], [*self.results, *other.results], {**self.stops, **other.stops}
        )

    def show(self, metric: str) -> None:
        """Print the rows as a table in the terminal, with one metric."""
        from rich.console import Console
        from rich.table import Table

        table = Table("problem", "method", "status", "steps", "seconds", metric)
        for row in self.rows:
            numbers = [f"{row.get(name, np.nan):.4g}" for name in ("steps", "seconds", metric)]
            table.add_row(row["problem"], row["method"], row["status"], *numbers)
        Console().print(table)

    def summary(self) -> pd.DataFrame:
        """Means over the seeds, a row for each problem and method."""
        frame = self.to_frame()
        numbers = [c for c in frame.columns if c not in ("problem", "method", "seed", "status")]
        means = frame.groupby(["problem", "method"], sort=False)[numbers].mean()
        means.insert(0, "status", frame.groupby(["problem", "method"], sort=False)["status"].agg(_tally))
        return means.reset_index()

    def winners(self) -> list[dict[str, Any]]:
        """For each problem the contestant that solved it with the least cost: seconds, means over the seeds.

        Where no run is one that can converge (a training task, a data set), nobody has won by time alone, and the row
        says so; the table's numbers tell.
        """
        found = []
        for problem in dict.fromkeys(row["problem"] for row in self.rows):
            rows = [row for row in self.rows if row["problem"] == problem]
            names = dict.fromkeys(row["method"] for row in rows)
            means = {}
            for name in names:
                mine = [row for row in rows if row["method"] == name]
                if all(row["status"] == "converged" for row in mine):
                    means[name] = float(np.mean([row["seconds"] for row in mine]))
            best = min(means, key=lambda name: means[name], default=None)
            told: dict[str, Any] = {"problem": problem, "first": best or "nobody converged on every seed"}
            found.append(told | ({} if best is None else {"seconds": means[best]}))
        return found

    def rule(self) -> str:
        """The stopping rules in words."""
        words = {name: str(stop) for name, stop in self.stops.items()}
        if len(set(words.values())) == 1:
            return f"Every run ended by {next(iter(words.values()))}."
        return "Runs ended by " + "; ".join(f"{name}: {rule}" for name, rule in words.items()) + "."

    def figures(self) -> list[Figure]:
        """Curves over steps and over seconds, bars where a run is one step, and a profile of several problems."""
        drawn = [*self.curves(by="step"), *self.curves(by="seconds")]
        many = len({row["problem"] for row in self.rows}) > 1
        return [*drawn, *([profile_figure(self.costs(), "time")] if many else [])]

    def curves(self, metric: str | None = None, by: str = "step") -> list[Figure]:
        """Convergence curves of a metric over steps or seconds, a figure for each problem; bars for single steps."""
        figures = []
        for problem in dict.fromkeys(row["problem"] for row in self.rows):
            runs = [
                (r, x) for r, x in zip(self.rows, self.results, strict=True) if r["problem"] == problem and x
            ]
            name = metric or next((n for _, x in runs for n in x.history.names), None)
            if name is None:
                continue
            runs = [(r, x) for r, x in runs if r["seed"] == runs[0][0]["seed"] and name in x.history.names]
            if all(len(x.history) == 1 for _, x in runs):
                figures += [_bars(problem, name, runs)] if by == "step" else []
                continue
            series = [_curve(row["method"], result, name, by) for row, result in runs]
            positive = all(min(s.y, default=1.0) > 0 for s in series)
            title = f"{problem}: {name} over {by}s" if by == "step" else f"{problem}: {name} over time"
            figures.append(Figure(title, "First seed of each.", by, name, series, log_y=positive))
        return figures

    def costs(self, cost: str = "seconds") -> dict[str, Any]:
        """What each method needed on each problem and seed, for a performance profile.

        Infinite for a run that did not converge; where no run of a problem is one that can converge (a training
        task), only for a method that refused.
        """
        judged = any(row["status"] == "converged" for row in self.rows)
        methods: dict[str, list[float]] = {}
        for row in self.rows:
            failed = row["status"] != "converged" if judged else row[cost] != row[cost]
            methods.setdefault(row["method"], []).append(np.inf if failed else max(float(row[cost]), 1e-9))
        problems = list(dict.fromkeys(f"{row['problem']}, seed {row['seed']}" for row in self.rows))
        return {"problems": problems, "methods": methods}

    def report(self, path: str | Path) -> Path:
        """Write one self-contained HTML page with winners, table, curves and profile, atomically; returns its path."""
        summary: list[dict[str, object]] = [
            {str(name): value for name, value in row.items()} for row in self.summary().to_dict("records")
        ]
        section = Section(
            "comparison",
            "Comparison",
            drawn(self.figures()),
            [listed(machine())],
            notes=f"{self.rule()} Means over the seeds. The numbers are the problem's own judgement of each answer.",
            tables=[table_of(self.winners()), table_of(summary)],
        )
        return write_page(path, "thalweg: the candidates on your problem", [section])


def compare(
    problems: Problem | Mapping[str, Problem],
    contestants: Contestants,
    *,
    stop: Stop | None = None,
    seeds: Sequence[int] = (0,),
    progress: bool | None = None,
) -> Comparison:
    """Run every contestant on every problem, under one stopping rule.

    A contestant is a method, or what the field of the problem uses:

    - `TrainingTask`: an optimizer's class, ``(class, options)`` or ``(class, options, schedule)``;
    - `FittingTask`, a data set: a scikit-learn estimator;
    - `BlackBox`: a method of `thalweg.blackbox`, or the class of one of Optuna's samplers;
    - `LossTable`, decisions online: a policy of `thalweg.online`.

    One that refuses a problem (an indefinite matrix for conjugate gradients, say) is a row that says why, and so is
    one that breaks down, whatever it raises: its row has the best answer so far.

    Args:
        problems: one, or several by name.
        contestants: several, by name or not.
        stop: the budget of each run; by default each problem's own.
        seeds: each run is repeated for each seed.
        progress: a progress bar for each run; by default only in a terminal.

    >>> import numpy as np
    >>> from thalweg import Stop
    >>> from thalweg.linear import SOR, SSORCG, LinearSystem
    >>> from thalweg.numerics import FivePointStencil
    >>> system = LinearSystem(FivePointStencil(20, 20).to_csr(), np.ones(400))
    >>> found = compare(system, [SOR(omega=1.7), SSORCG(omega=1.7)], stop=Stop(below={"residual": 1e-8}))
    >>> [row["status"] for row in found.rows]
    ['converged', 'converged']
    """
    named = problems if isinstance(problems, Mapping) else {type(problems).__name__: problems}
    require(len(named) > 0 and len(contestants) > 0, "compare needs at least one problem and one contestant")
    require(len(seeds) > 0, "compare needs at least one seed")
    found = Comparison([], [], {})
    for problem_name, problem in named.items():
        rule = problem.recommended_stop() if stop is None else stop
        found.stops[problem_name] = rule
        for name, method in _methods(problem, contestants).items():
            for seed in seeds:
                row, result = _run(problem, method, rule, seed, progress)
                found.rows.append({"problem": problem_name, "method": name, "seed": seed} | row)
                found.results.append(result)
    return found


def _methods(problem: Problem, contestants: Contestants) -> dict[str, Method]:
    if isinstance(contestants, Mapping):
        return {name: contestant(problem, entrant) for name, entrant in contestants.items()}
    methods = [contestant(problem, entrant) for entrant in contestants]
    named = {method.name: method for method in methods}
    if len(named) < len(methods):
        raise InvalidParameter("Two contestants have the same name; pass a dictionary of names to them.")
    return named


def _run(
    problem: Problem, method: Method, stop: Stop, seed: int, progress: bool | None
) -> tuple[dict[str, Any], Result | None]:
    result: Result | None
    try:
        result = solve(problem, copy.copy(method), stop=stop, seed=seed, progress=progress)
        status = result.status.value
    except Exception as error:  # noqa: BLE001 -- what one raises must not end the others' runs
        result = getattr(error, "result", None)
        status = _trouble(error, result)
    return {"status": status} | _numbers(result), result


def _curve(label: str, result: Result, name: str, by: str) -> Series:
    """A metric where it was reported."""
    values = result.history[name]
    here = np.isfinite(values)
    x = np.asarray(result.history.steps if by == "step" else result.history.seconds, dtype=float)
    return Series.of(label, x[here], values[here])


def _bars(problem: str, name: str, runs: Sequence[tuple[dict[str, Any], Result]]) -> Figure:
    names = [row["method"] for row, _ in runs]
    values = [float(result.history[name][0]) for _, result in runs]
    series = [Series(name, [float(i) for i in range(len(names))], values)]
    return Figure(
        f"{problem}: {name}", "First seed of each.", "", name, series, kind="bars", categories=names
    )


def _trouble(error: Exception, result: Result | None) -> str:
    text = " ".join(str(error).split())
    said = text if isinstance(error, ThalwegError) else f"{type(error).__name__}: {text}"
    return f"{'failed' if result is not None and result.steps else 'refused'}: {said}"


def _numbers(result: Result | None) -> dict[str, float]:
    """What a run cost and what its answer is worth; calls are NaN for a method that counts none."""
    if result is None:
        return {"steps": np.nan, "seconds": np.nan, "calls": np.nan}
    calls = result.calls or np.nan
    return {"steps": result.steps, "seconds": result.seconds, "calls": calls, **result.metrics}


def _tally(statuses: pd.Series[str]) -> str:
    counts = statuses.value_counts()
    return ", ".join(str(name) if len(counts) == 1 else f"{n} {name}" for name, n in counts.items())
