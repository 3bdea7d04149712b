"""The areas that the command reaches: one row each, from which `list`, `show`, `solve` and `compare` are made.

An area is added by a reader (a function whose signature becomes the command's) and a row of `AREAS`; its methods are
those of ``thalweg.<area>.METHODS``.
"""

from __future__ import annotations

from collections import ChainMap
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field

from thalweg.cli import (
    adaptation,
    blackbox,
    constrained,
    convex,
    design,
    equilibrium,
    inverse,
    linear,
    matrix,
    online,
    permutation,
    robust,
    transport,
)
from thalweg.cli.case import Case
from thalweg.cli.methods import Maker
from thalweg.core import Problem


@dataclass(frozen=True)
class Area:
    """One row.

    Args:
        name: the command, and the folder.
        read: reads the user's files into problems by name; its signature and its first line are the command's.
        metric: what ``--tol`` bounds.
        solved: the words of ``--tol``'s default.
        case: how a problem is put to `solve` and its answer told.
        makers: methods that are made of objects, by functions of what text can say; they go before ``METHODS``.
        shown: the metrics that tables of ``compare`` show instead: the first that the problem has.
        solve: a command of its own, where an area is not solved by `solve` on one machine.
        home: the package of its methods, such as ``blackbox.design``, where that is a part of a folder.
    """

    name: str
    read: Callable[..., Mapping[str, Problem]]
    metric: str
    solved: str
    case: type[Case] = Case
    makers: Mapping[str, Maker] = field(default_factory=dict)
    shown: tuple[str, ...] = ()
    solve: Callable[..., None] | None = None
    home: str = ""

    @property
    def folder(self) -> str:
        """The area of the catalogue."""
        return self.home.partition(".")[0] or self.name

    def methods(self) -> Mapping[str, Maker]:
        """Method by name: made by text where it can be."""
        from thalweg.catalogue import METHODS

        found = METHODS[self.folder]
        homes = [row.home for row in AREAS if row.home and row.folder == self.folder]
        if homes:  # only then is every method looked at, and so loaded
            found = {name: kind for name, kind in found.items() if self._has(kind, homes)}
        return ChainMap({name: maker for name, maker in self.makers.items() if name in found}, found)  # type: ignore[arg-type]

    def _has(self, kind: type, homes: Sequence[str]) -> bool:
        """Whether a method of the folder is this row's: one at home in a part is of the part's row alone."""
        inside = [home for home in homes if f"{kind.__module__}.".startswith(f"thalweg.{home}.")]
        return self.home in inside if self.home else not inside


AREAS = (
    Area("linear", linear.read, "residual", "1e-8", linear.LinearCase, linear.MAKERS),
    Area(
        "convex",
        convex.read,
        "violation",
        "1e-8 of the loss's slope at zero",
        convex.ConvexCase,
        convex.MAKERS,
    ),
    Area("constrained", constrained.read, "kkt", "1e-8", constrained.ConstrainedCase, constrained.MAKERS),
    Area(
        "equilibrium",
        equilibrium.read,
        "residual",
        "1e-6, of a game whose largest payoff is about 1",
        equilibrium.GameCase,
    ),
    Area(
        "matrix",
        matrix.read,
        "gradient",
        "none where entries are held out: the method ends when their error has settled",
        matrix.CompletionCase,
        shown=("held_out",),
    ),
    Area(
        "online",
        online.read,
        "left",
        "0: all rounds played",
        online.OnlineCase,
        online.MAKERS,
        shown=("regret", "gap"),
    ),
    Area(
        "landscape",
        permutation.read,
        "distance",
        "none: the method ends when no permutation has a better order",
        permutation.RebasinCase,
    ),
    Area(
        "transport",
        transport.read,
        "loss",
        "none: the method ends after its steps",
        transport.TransportCase,
    ),
    Area(
        "robust",
        robust.read,
        "gap",
        "none: the method ends when it has had its say",
        robust.RobustCase,
        shown=("cost", "gap"),
    ),
    Area(
        "inverse",
        inverse.read,
        "residual",
        "none: the method ends by itself",
        inverse.InverseCase,
        inverse.MAKERS,
        shown=("rmse",),
    ),
    Area(
        "adaptation",
        adaptation.read,
        "doubt",
        "none: the method ends after its steps, and converges where held-out doubt is at most 0.2",
        adaptation.AdaptationCase,
        adaptation.MAKERS,
    ),
    Area(
        "design",
        design.read,
        "loss",
        "none: the method ends after its steps",
        design.DesignCase,
        design.MAKERS,
        shown=("judged_median",),
        home="blackbox.design",
    ),
    Area("blackbox", blackbox.read, "value", "none", solve=blackbox.solve_blackbox),
)


def area_named(name: str) -> Area | None:
    """The row of an area, None for one that the command does not solve."""
    return next((area for area in AREAS if area.name == name), None)


def areas_in(folder: str) -> list[Area]:
    """The rows of a folder of the catalogue."""
    return [area for area in AREAS if area.folder == folder]
