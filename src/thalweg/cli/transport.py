"""Two clouds of points from tables: one carried to the other."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, cast

import typer

from thalweg.cli.case import Case
from thalweg.cli.options import Header
from thalweg.core import Figure, InvalidProblem, Problem, Result, Series, UnknownName

if TYPE_CHECKING:
    import numpy as np

    from thalweg.transport import EntropicTransport

#: Points of each cloud that a page draws.
DRAWN = 1000
KINDS = ("diag", "full")


def read(
    before: Annotated[
        Path, typer.Argument(help="Points to be carried, one a row: .csv, .tsv or .txt; also .gz.")
    ],
    after: Annotated[Path, typer.Argument(help="Points of where they go, with the same columns.")],
    eps: Annotated[
        float, typer.Option(help="Variance of the noise on the way, in squared units of the data.")
    ],
    components: Annotated[int, typer.Option(min=1, help="Gaussians of the potential.")] = 20,
    covariance: Annotated[str, typer.Option(help=f"One of {', '.join(KINDS)}.")] = "diag",
    header: Header = None,
) -> Mapping[str, Problem]:
    """Carry one cloud of points to another that nothing pairs with it."""
    from thalweg.datasets import load_frame
    from thalweg.transport import EntropicTransport

    if covariance not in KINDS:
        raise UnknownName("covariance", covariance, KINDS)
    tables = [load_frame(path, header=header) for path in (before, after)]
    for path, table in zip((before, after), tables, strict=True):
        words = [str(name) for name, kind in table.dtypes.items() if kind.kind != "f"]
        if words:
            raise InvalidProblem(
                f"{path}: column '{words[0]}' holds words; expected numbers only. Leave it out."
            )
    first, second = tables
    if list(first.columns) != list(second.columns):
        raise InvalidProblem(
            f"{before} has columns {', '.join(map(str, first.columns))}; {after} has "
            f"{', '.join(map(str, second.columns))}. Expected the same, in one order."
        )
    problem = EntropicTransport(
        first.to_numpy(),
        second.to_numpy(),
        eps,
        components,
        covariance,  # type: ignore[arg-type]
    )
    return {f"{before.stem} to {after.stem}": problem}


@dataclass
class TransportCase(Case):
    """Points carried, in the mean and drawn, and what the fit explains."""

    def _problem(self) -> EntropicTransport:
        return cast("EntropicTransport", self.problem)

    def arrays(self, result: Result) -> dict[str, np.ndarray]:
        import numpy as np

        from thalweg.core.seeding import torch_generator

        problem = self._problem()
        bridge, x0 = problem.bridge(result.x), np.asarray(problem.x0)
        drawn = torch_generator(0, 0x19)
        return {
            "mean": bridge.barycentric(x0).cpu().numpy(),
            "drawn": bridge.sample(x0, drawn).cpu().numpy(),
            "parameters": result.x.cpu().numpy(),
        }

    def told(self, result: Result) -> dict[str, object]:
        problem = self._problem()
        return {
            "eps": problem.eps,
            "eps_standardised": problem.scaled_eps,
            "components": len(result.x),
            "dimensions": problem.dimensions,
            "points": [len(cloud) for cloud, _ in problem.parts[:2]],
        }

    def figures(self, result: Result) -> Sequence[Figure]:
        import numpy as np

        problem = self._problem()
        end, x1 = self.arrays(result)["drawn"], np.asarray(problem.x1)
        x0 = np.asarray(problem.x0)
        if problem.dimensions == 1:
            shares = [np.linspace(0, 1, 101)] * 3
            series = [
                Series(name, list(np.quantile(cloud[:, 0], share)), list(share))
                for name, cloud, share in zip(NAMES, (x0, x1, end), shares, strict=True)
            ]
            return [Figure("Before, after and carried", "", "value", "share below", series)]
        series = [
            Series(name, list(cloud[:DRAWN, 0]), list(cloud[:DRAWN, 1]), dots=True)
            for name, cloud in zip(NAMES, (x0, x1, end), strict=True)
        ]
        caption = "The first two columns; carried points are drawn from the plan."
        return [Figure("Before, after and carried", caption, "first column", "second column", series)]

    def said(self, result: Result) -> Sequence[str]:
        problem = self._problem()
        return [
            f"{len(problem.parts[0][0])} points carried to {len(problem.parts[1][0])}; eps is "
            f"{problem.scaled_eps:.3g} of the clouds' spreads."
        ]


NAMES = ("before", "after", "carried")
