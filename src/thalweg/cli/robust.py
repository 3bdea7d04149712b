"""Two-stage robust problems from instance files: a decision with its proved bound."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, cast

import typer

from thalweg.cli.case import Case, named
from thalweg.core import Figure, Problem, Result, Series

if TYPE_CHECKING:
    import numpy as np

    from thalweg.robust import TwoStageRobust


def read(
    instances: Annotated[
        list[Path], typer.Argument(help="Instances: .json, or published files RKP_... and CB_...")
    ],
    problem: Annotated[
        str | None,
        typer.Option(help="knapsack, budgeting or facility. Default: what the file or its name says."),
    ] = None,
    gamma: Annotated[
        float | None, typer.Option(help="How much goes wrong at once. Default: the file's.")
    ] = None,
    loans: Annotated[bool, typer.Option("--loans", help="Allow the loans of a CB_... file.")] = False,
) -> Mapping[str, Problem]:
    """Decide now, repair when the uncertainty is known: the best decision for the worst case."""
    from thalweg.robust import load_instance

    return {
        name: load_instance(path, problem, gamma=gamma, loans=loans)
        for name, path in named(instances).items()
    }


@dataclass
class RobustCase(Case):
    """The decision, its worst case and the bound."""

    def _problem(self) -> TwoStageRobust:
        return cast("TwoStageRobust", self.problem)

    def told(self, result: Result) -> dict[str, object]:
        worst = self._problem().worst_case(result.x)
        return {
            "decision": result.x,
            "worst_scenario": worst.xi,
            "cost": worst.value,
            "bound": self._problem().bound,
            "scenarios": scenarios_of(result),
        }

    def said(self, result: Result) -> Sequence[str]:
        import numpy as np

        problem = self._problem()
        numbers = result.metrics
        taken = np.flatnonzero(np.asarray(result.x)[problem.items] > 0.5)
        others = [f"x[{i}] = {result.x[i]:.6g}" for i in problem.others]
        worst = problem.worst_case(result.x)
        seen = scenarios_of(result)
        hit = [f"{i}: {v:.4g}" for i, v in enumerate(worst.xi) if abs(v) > 1e-9]
        return [
            f"Decision: {len(taken)} of {len(problem.items)} taken: {', '.join(map(str, taken)) or 'none'}."
            + (f" {', '.join(others)}." if others else ""),
            f"Worst case: cost {numbers['cost']:.6g}, proved; no decision is below {numbers['bound']:.6g}; gap "
            f"{100 * numbers['gap']:.3g} %.",
            f"Worst scenario: {', '.join(hit) or 'all zero'}."
            + (f" Programs were about {seen} scenarios." if seen else ""),
        ]

    def arrays(self, result: Result) -> dict[str, np.ndarray]:
        import numpy as np

        worst = self._problem().worst_case(result.x)
        return {"x": np.asarray(result.x), "worst_scenario": worst.xi}

    def figures(self, result: Result) -> Sequence[Figure]:
        import numpy as np

        xi = self._problem().worst_case(result.x).xi
        points = [float(i) for i in np.arange(len(xi))]
        series = [Series("worst scenario", points, [float(v) for v in xi], dots=True)]
        return [Figure("Worst scenario", "Of the decision that was chosen.", "coordinate", "value", series)]


def scenarios_of(result: Result) -> int | None:
    """How many scenarios the method's programs were about; None where it has no such loop."""
    known = "scenarios" in result.history.names
    return int(result.history["scenarios"][-1]) if known else None
