"""Linear systems from files, one or a sequence."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Self

import typer

from thalweg.cli.case import Case, named
from thalweg.cli.options import Header
from thalweg.core import Callback, Method, Problem, Result, Stop

if TYPE_CHECKING:
    import numpy as np

    from thalweg.core import Run
    from thalweg.linear import LearnedSolver


def read(
    matrices: Annotated[
        list[Path],
        typer.Argument(help="A: .mtx, .npz, .npy or .csv, also .gz; for solve, several are a sequence."),
    ],
    rhs: Annotated[
        list[Path] | None,
        typer.Option(
            help="b, one file for each matrix, of k columns for k right-hand sides; ones by default."
        ),
    ] = None,
    header: Header = None,
) -> Mapping[str, Problem]:
    """Solve A x = b."""
    import numpy as np

    from thalweg.core import InvalidProblem
    from thalweg.datasets import load_matrix, load_right_sides
    from thalweg.linear import LinearSystem

    if rhs and len(rhs) != len(matrices):
        raise InvalidProblem(
            f"{len(matrices)} matrices but {len(rhs)} right-hand sides; give one --rhs for each."
        )
    systems = {}
    for i, (name, path) in enumerate(named(matrices).items()):
        A = load_matrix(path, header=header)
        systems[name] = LinearSystem(A, load_right_sides(rhs[i]) if rhs else np.ones(A.shape[0]))
    return systems


def learned(
    problem: Problem,
    arms: int = 20,
    low: float = 1.0,
    high: float = 1.95,
    tol: float = 1e-8,
    max_steps: int = 10_000,
) -> LearnedSolver:
    """SSOR-preconditioned CG whose omega is learned along a sequence: ``arms`` of them in [low, high]."""
    from thalweg.linear import SSORCG, LearnedSolver, omega_grid
    from thalweg.online import TsallisINF

    return LearnedSolver(TsallisINF(arms), omega_grid(SSORCG, arms, low, high), tol=tol, max_steps=max_steps)


MAKERS = {"learned": learned}


class _Solutions(Callback):
    """Keeps each round's solution, which the sequence's own answer, its costs, does not hold."""

    def __init__(self) -> None:
        self.kept: list[np.ndarray] = []

    def __call__(self, run: Run) -> None:
        self.kept.append(run.state.previous)


@dataclass
class LinearCase(Case):
    """One system, or a sequence of them."""

    solutions: _Solutions | None = None
    names: Sequence[str] = field(default_factory=list)

    @classmethod
    def of(
        cls,
        problems: Mapping[str, Problem],
        method: Method | None,
        stop: Stop,
        given: Mapping[str, object],
    ) -> Self:
        from thalweg.linear import LearnedSolver, ListedSystems
        from thalweg.online import Fixed

        if len(problems) == 1 and not isinstance(method, LearnedSolver):
            return super().of(problems, method, stop, given)
        systems: Any = list(problems.values())
        bound = stop.below.get("residual", 1e-8)
        solver = method if isinstance(method, LearnedSolver) else None
        if solver is None:
            solver = learned(systems[0]) if method is None else LearnedSolver(Fixed(1), [method])
        steps = stop.steps if isinstance(stop.steps, int) else solver.max_steps
        solutions = _Solutions()
        every = replace(stop, below={}, steps=None)
        solver = replace(solver, tol=bound, max_steps=steps)
        return cls(
            ListedSystems(systems), solver, every, [solutions], solutions=solutions, names=list(problems)
        )

    def arrays(self, result: Result) -> dict[str, np.ndarray]:
        if self.solutions is None:
            return super().arrays(result)
        import numpy as np

        kept = self.solutions.kept
        if len(kept) == 1 or len({len(x) for x in kept}) > 1:
            return {name: x for name, x in zip(self.names, kept, strict=False)}
        return {"x": np.array(kept)}

    def told(self, result: Result) -> dict[str, object]:
        return {} if self.solutions is None else {"iterations": result.x}

    def said(self, result: Result) -> Sequence[str]:
        if self.solutions is None:
            return ()
        return [f"{name}: {cost:g} iterations" for name, cost in zip(self.names, result.x, strict=True)]
