"""The candidates on one's own problem, under one budget."""

from __future__ import annotations

import copy
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from thalweg.core import Figure, InvalidParameter, Method, Problem, Result, Series, Stop, ThalwegError, solve
from thalweg.core.validation import require

if TYPE_CHECKING:
    import pandas as pd

Methods = Mapping[str, Method[Any, Any]] | Sequence[Method[Any, Any]]


@dataclass(frozen=True)
class Comparison:
    """What `compare` found: one row a run, and the runs themselves.

    Args:
        rows: problem, method, seed, status, steps, seconds, calls, and the problem's metrics of each run.
        results: the `Result` of each row; None where there is none because the method refused the problem.
    """

    rows: list[dict[str, Any]]
    results: list[Result[Any] | None] = field(repr=False)

    def to_frame(self) -> pd.DataFrame:
        """The rows as a table."""
        import pandas as pd

        return pd.DataFrame(self.rows)

    def joined(self, other: Comparison) -> Comparison:
        """The rows of both."""
        return Comparison([*self.rows, *other.rows], [*self.results, *other.results])

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

    def curves(self, metric: str | None = None, by: str = "step") -> list[Figure]:
        """Convergence curves of a metric over steps or seconds, a figure for each problem."""
        figures = []
        for problem in dict.fromkeys(row["problem"] for row in self.rows):
            runs = [
                (r, x) for r, x in zip(self.rows, self.results, strict=True) if r["problem"] == problem and x
            ]
            name = metric or next((n for _, x in runs for n in x.history.names), None)
            if name is None:
                continue
            series = []
            for row, result in runs:
                if row["seed"] == runs[0][0]["seed"] and name in result.history.names:
                    x = result.history.steps if by == "step" else result.history.seconds
                    series.append(Series.of(row["method"], np.asarray(x, dtype=float), result.history[name]))
            positive = all(min(s.y, default=1.0) > 0 for s in series)
            title = f"{problem}: {name}"
            figures.append(Figure(title, "First seed of each method.", by, name, series, log_y=positive))
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
        """Write one self-contained HTML page with table, curves and performance profile; returns its path."""
        from thalweg.workbench.report import render_comparison

        return render_comparison(self, path)


def compare(
    problems: Problem | Mapping[str, Problem],
    methods: Methods,
    *,
    stop: Stop | None = None,
    seeds: Sequence[int] = (0,),
    progress: bool | None = None,
) -> Comparison:
    """Run every method on every problem, under one stopping rule.

    A method that refuses a problem (an indefinite matrix for conjugate gradients, say) is a row that says why, and
    so is one that breaks down, whatever it raises: its row has the best answer so far.

    Args:
        problems: one, or several by name.
        methods: several, by name or not.
        stop: the budget of each run.
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
    candidates = methods if isinstance(methods, Mapping) else {method.name: method for method in methods}
    require(len(named) > 0 and len(candidates) > 0, "compare needs at least one problem and one method")
    require(len(seeds) > 0, "compare needs at least one seed")
    if len(candidates) < len(methods):
        raise InvalidParameter("Two methods have the same name; pass a dictionary of names to methods.")
    rows: list[dict[str, Any]] = []
    results: list[Result[Any] | None] = []
    for problem_name, problem in named.items():
        for name, method in candidates.items():
            for seed in seeds:
                row = {"problem": problem_name, "method": name, "seed": seed}
                result: Result[Any] | None = None
                try:
                    result = solve(problem, copy.copy(method), stop=stop, seed=seed, progress=progress)
                    status = result.status.value
                except Exception as error:
                    result = getattr(error, "result", None)
                    status = _trouble(error, result)
                rows.append(row | {"status": status} | _numbers(result))
                results.append(result)
    return Comparison(rows, results)


def _trouble(error: Exception, result: Result[Any] | None) -> str:
    text = " ".join(str(error).split())
    said = text if isinstance(error, ThalwegError) else f"{type(error).__name__}: {text}"
    return f"{'failed' if result is not None and result.steps else 'refused'}: {said}"


def _numbers(result: Result[Any] | None) -> dict[str, float]:
    """What a run cost and what its answer is worth; calls are NaN for a method that counts none."""
    if result is None:
        return {"steps": np.nan, "seconds": np.nan, "calls": np.nan}
    calls = result.calls or np.nan
    return {"steps": result.steps, "seconds": result.seconds, "calls": calls, **result.metrics}


def _tally(statuses: Any) -> str:
    counts = statuses.value_counts()
    return ", ".join(name if len(counts) == 1 else f"{n} {name}" for name, n in counts.items())
