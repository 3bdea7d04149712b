"""Two clouds of points from tables: one carried to the other."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from itertools import pairwise
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, cast

import typer

from thalweg.cli.case import Case
from thalweg.cli.options import Header, numbers_by_commas
from thalweg.core import Figure, InvalidParameter, InvalidProblem, Problem, Result, Series, UnknownName

if TYPE_CHECKING:
    import numpy as np
    import pandas as pd

    from thalweg.transport import EntropicTransport

#: Points of each cloud that a page draws.
DRAWN = 1000
KINDS = ("diag", "full")


def read(
    before: Annotated[
        Path,
        typer.Argument(
            help="Points to be carried, one a row: .csv, .tsv, .txt (also .gz), .npy, .npz, or .h5ad."
        ),
    ],
    after: Annotated[Path, typer.Argument(help="Points of where they go, with the same columns.")],
    eps: Annotated[
        float | None,
        typer.Option(
            help="Variance of the noise on the way, in squared units of the data. Default a tenth of the clouds' "
            "spreads."
        ),
    ] = None,
    components: Annotated[int, typer.Option(min=1, help="Gaussians of the potential.")] = 20,
    covariance: Annotated[str, typer.Option(help=f"One of {', '.join(KINDS)}.")] = "diag",
    eps_path: Annotated[
        str,
        typer.Option(
            help="Shares of the clouds' spreads by commas, such as 0.01,0.1,1: --report shows what each eps does."
        ),
    ] = "",
    between: Annotated[
        list[Path] | None,
        typer.Option(
            help="Points seen in between, in the order of time; one file each. Each is left out and judged."
        ),
    ] = None,
    times: Annotated[
        str,
        typer.Option(
            help="When the clouds were seen, by commas, the first and the last too. Default evenly."
        ),
    ] = "",
    key: Annotated[str, typer.Option(help="Array of a .npz, or obsm of a .h5ad such as X_pca.")] = "",
    header: Header = None,
) -> Mapping[str, Problem]:
    """Carry one cloud of points to another that nothing pairs with it."""
    from thalweg.datasets.points import load_points
    from thalweg.transport import EntropicTransport
    from thalweg.transport.estimator import default_eps

    if covariance not in KINDS:
        raise UnknownName("covariance", covariance, KINDS)
    if any(share <= 0 for share in _numbers("--eps-path", eps_path)):
        raise InvalidParameter(f"--eps-path is shares above zero; got {eps_path!r}.")
    paths = [before, *(between or []), after]
    _when(times, len(paths))
    clouds = [load_points(path, key=key, header=header) for path in paths]
    first, second = clouds[0], clouds[-1]
    for path, cloud in zip(paths[1:], clouds[1:], strict=True):
        if first.names != cloud.names or first.values.shape[1] != cloud.values.shape[1]:
            told = [", ".join(c.names) or f"{c.values.shape[1]} without names" for c in (first, cloud)]
            raise InvalidProblem(
                f"{before} has columns {told[0]}; {path} has {told[1]}. Expected the same, in one order."
            )
    problem = EntropicTransport(
        first.values,
        second.values,
        default_eps(first.values, second.values) if eps is None else eps,
        components,
        covariance,  # type: ignore[arg-type]
        names=first.names,
    )
    return {f"{before.stem} to {after.stem}": problem}


def _numbers(option: str, text: str) -> list[float]:
    found = numbers_by_commas(text)
    if found is None:
        raise InvalidParameter(f"{option} is numbers by commas, such as 0.01,0.1,1; got {text!r}.")
    return found


def _when(text: str, count: int) -> list[float]:
    """When ``count`` clouds were seen."""
    found = _numbers("--times", text) or [float(k) for k in range(count)]
    rising = len(found) == count and all(a < b for a, b in pairwise(found))
    if not rising:
        raise InvalidParameter(
            f"--times: expected {count} rising numbers, of the first cloud, of those between and of the last; got "
            f"{text!r}."
        )
    return found


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

    def write(self, path: Path, result: Result) -> None:
        """All arrays, or a table of the mean ends, with the columns' names of the clouds."""
        import pandas as pd

        from thalweg.core.files import write_text

        names = list(self._problem().names)
        if names and path.suffix.lower() == ".csv":
            write_text(path, pd.DataFrame(self.arrays(result)["mean"], columns=names).to_csv(index=False))
        else:
            super().write(path, result)

    def told(self, result: Result) -> dict[str, object]:
        problem = self._problem()
        return {
            "eps": problem.eps,
            "eps_standardised": problem.scaled_eps,
            "components": len(result.x),
            "dimensions": problem.dimensions,
            "points": [len(cloud) for cloud, _ in problem.parts[:2]],
            **({} if self._left_out is None else {"left_out": self._left_out.to_dict("records")}),
        }

    @cached_property
    def _left_out(self) -> pd.DataFrame | None:
        """`leave_one_time_out` of all clouds; None without any between."""
        import numpy as np

        from thalweg.datasets.points import load_points
        from thalweg.transport import leave_one_time_out

        problem, paths = self._problem(), cast("list[Path]", self.given.get("between") or [])
        if not paths:
            return None
        key, header = cast(str, self.given["key"]), cast("bool | None", self.given["header"])
        clouds = [load_points(path, key=key, header=header).values for path in paths]
        series = [np.asarray(problem.x0), *clouds, np.asarray(problem.x1)]
        times = _when(cast(str, self.given["times"]), len(series))
        whole = times[-1] - times[0]  # eps is the noise of all of it
        fewest = min(len(cloud) for cloud in series)
        return leave_one_time_out(
            series,
            times,
            eps=problem.eps / whole,
            n_components=min(problem.n_components, fewest),
            covariance=problem.covariance,
        )

    def figures(self, result: Result) -> Sequence[Figure]:
        from thalweg.transport import eps_figure, eps_path

        problem, shares = self._problem(), _numbers("--eps-path", str(self.given["eps_path"]))
        found = [self._clouds(result)]
        if shares:
            options = {"n_components": problem.n_components, "covariance": problem.covariance}
            found.append(eps_figure(eps_path(problem.x0, problem.x1, shares, **options)))
        table = self._left_out
        if table is not None:
            series = [
                Series(words, list(table.time), list(table[column])) for column, words in LEFT_OUT.items()
            ]
            caption = (
                "How far each passes from what was seen then; two halves of it are the least to be hoped for."
            )
            found.append(Figure("Each time left out", caption, "time", "earth mover's distance", series))
        return found

    def _clouds(self, result: Result) -> Figure:
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
            return Figure("Before, after and carried", "", "value", "share below", series)
        series = [
            Series(name, list(cloud[:DRAWN, 0]), list(cloud[:DRAWN, 1]), dots=True)
            for name, cloud in zip(NAMES, (x0, x1, end), strict=True)
        ]
        caption = "The first two columns; carried points are drawn from the plan."
        return Figure("Before, after and carried", caption, "first column", "second column", series)

    def said(self, result: Result) -> Sequence[str]:
        problem, table = self._problem(), self._left_out
        lines = [
            f"{len(problem.parts[0][0])} points carried to {len(problem.parts[1][0])}; eps is "
            f"{problem.scaled_eps:.3g} of the clouds' spreads."
        ]
        if table is not None:
            lines.extend(
                f"Time {row.time:g} left out: its neighbours' bridge passes at {row.bridge:.3g}, lines of random pairs "
                f"at {row.line:.3g}; two halves of what was seen lie {row.same:.3g} apart."
                for row in table.itertuples()
            )
        return lines


NAMES = ("before", "after", "carried")
#: Columns of `leave_one_time_out` as a page names them.
LEFT_OUT = {
    "bridge": "bridge of the neighbours",
    "line": "lines of random pairs",
    "before": "the time before",
    "after": "the time after",
    "same": "two halves of what was seen",
}
