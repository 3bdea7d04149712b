"""Formulas under equations, on the command line."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Annotated, Literal

import typer

from thalweg.cli.case import Case
from thalweg.core import InvalidProblem, Problem, Result

if TYPE_CHECKING:
    import numpy as np

    from thalweg.constrained import OptimalityCertificate, SketchedNewton


def read(
    minimize: Annotated[
        str,
        typer.Argument(
            help='What to minimise, in x1, x2, ...: "(1 - x1)**2". After --, if it begins with a minus.'
        ),
    ],
    start: Annotated[str, typer.Option(help='Where to start, one number for each unknown: "-1.2, 1".')],
    subject_to: Annotated[
        list[str] | None, typer.Option(help='An expression to hold at zero: "x2 - x1**2". May be repeated.')
    ] = None,
    at_most_zero: Annotated[
        list[str] | None, typer.Option(help="An expression to hold at or below zero. May be repeated.")
    ] = None,
) -> Mapping[str, Problem]:
    """Minimise a formula under equations, and check the optimality conditions.

    Formulas are Python expressions with sin, cos, exp, log, sqrt and the like.
    """
    from thalweg.constrained import EqualityConstrained

    try:
        x0 = [float(number) for number in start.split(",")]
    except ValueError as error:
        raise InvalidProblem(f"--start {start!r} is no list of numbers such as '-1.2, 1'.") from error
    problem = EqualityConstrained.from_formulas(
        minimize, subject_to or [], x0, at_most_zero=at_most_zero or []
    )
    return {minimize: problem}


def sketched_newton(
    sketch: Literal["rows", "gaussian", "count", "hadamard", "blocks"] = "blocks",
    theta: float = 1.0,
    conditioning: float | None = None,
    equilibrate: bool = True,
) -> SketchedNewton:
    """Newton steps by random projections; the options are those of `SketchedNewton`."""
    from thalweg.constrained import SketchedNewton
    from thalweg.numerics.sketch import SKETCHES

    return SketchedNewton(SKETCHES[sketch](), theta=theta, conditioning=conditioning, equilibrate=equilibrate)


MAKERS = {"sketched-newton": sketched_newton}


@dataclass
class ConstrainedCase(Case):
    """x without slacks, the multipliers, and what the optimality conditions say of it."""

    def arrays(self, result: Result) -> dict[str, np.ndarray]:
        own = str(self.given["start"]).count(",") + 1
        return {"x": result.x[:own], "multipliers": self._certificate(result).multipliers}

    def told(self, result: Result) -> dict[str, object]:
        return {**self.arrays(result), "strict_minimum": self._certificate(result).minimum()}

    def said(self, result: Result) -> Sequence[str]:
        x = self.arrays(result)["x"]
        return [
            f"x                        {', '.join(f'{v:.8g}' for v in x)}",
            str(self._certificate(result)),
        ]

    def _certificate(self, result: Result) -> OptimalityCertificate:
        from thalweg.constrained import EqualityConstrained, certify

        problem = self.problem
        if not isinstance(problem, EqualityConstrained):
            raise InvalidProblem(f"{type(problem).__name__} has no equality constraints.")
        return certify(problem, result.x)
