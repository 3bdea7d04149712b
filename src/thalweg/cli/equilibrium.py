"""Matrix games from files."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from thalweg.cli.case import Case, named
from thalweg.cli.options import Header
from thalweg.cli.output import array_of
from thalweg.core import Problem, Result

if TYPE_CHECKING:
    import numpy as np

#: The two players, as they are told.
PLAYERS = ("rows", "columns")


def read(
    payoffs: Annotated[
        list[Path],
        typer.Argument(help="What the row player pays, and makes small: .csv, .npy, .npz or .mtx, also .gz."),
    ],
    header: Header = None,
    regularisation: Annotated[float, typer.Option(help="Adds (r/2)(|x|^2 - |y|^2); not with pdhg.")] = 0.0,
) -> Mapping[str, Problem]:
    """Find an equilibrium of a matrix game, certified by its duality gap."""
    from thalweg.datasets import load_named_matrix
    from thalweg.equilibrium import matrix_game

    return {
        name: matrix_game(load_named_matrix(path, header=header, name="payoffs").values, regularisation)
        for name, path in named(payoffs).items()
    }


@dataclass
class GameCase(Case):
    """Both players' strategies."""

    endings = (".npz", ".csv")

    def write(self, path: Path, result: Result) -> None:
        """The arrays x and y; in a table a line for each strategy: whose, its number from 0, how likely it is."""
        from thalweg.core.files import write_text

        if path.suffix.lower() == ".npz":
            super().write(path, result)
            return
        players = zip(PLAYERS, self.arrays(result).values(), strict=True)
        lines = [f"{player},{i},{p:.17g}" for player, strategy in players for i, p in enumerate(strategy)]
        write_text(path, "\n".join(["player,strategy,probability", *lines, ""]))

    def arrays(self, result: Result) -> dict[str, np.ndarray]:
        rows = self._rows
        both = array_of(result.x)
        return {"x": both[:rows], "y": both[rows:]}

    @property
    def _rows(self) -> int:
        components: Any = getattr(self.problem, "components", None)
        return len(components.A)

    def told(self, result: Result) -> dict[str, object]:
        return dict(self.arrays(result))

    def said(self, result: Result) -> Sequence[str]:
        from thalweg.equilibrium import MonotoneInclusion

        lines = []
        for name, strategy in zip(PLAYERS, self.arrays(result).values(), strict=True):
            played = [(i, p) for i, p in enumerate(strategy) if p > 1e-3]
            shown = ", ".join(f"{i}: {p:.3f}" for i, p in played[:10]) + (", ..." if len(played) > 10 else "")
            lines.append(f"{name} played: {shown}")
        return [*lines, f"{self.problem.sampling}."] if isinstance(self.problem, MonotoneInclusion) else lines
