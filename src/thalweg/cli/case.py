"""How a problem read from files is put to `solve`, and how its answer is told: the same way for every area."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, ClassVar, Self

from thalweg.cli.output import array_of, write_arrays
from thalweg.core import Callback, Figure, InvalidProblem, Method, Problem, Result, Stop

if TYPE_CHECKING:
    import numpy as np


@dataclass
class Case:
    """A problem with its method and stopping rule; an area that has more to tell of an answer overrides.

    ``endings`` are those that ``--out`` takes.
    """

    problem: Problem
    method: Method | None
    stop: Stop
    callbacks: list[Callback] = field(default_factory=list)
    given: Mapping[str, object] = field(default_factory=dict)
    endings: ClassVar[tuple[str, ...]] = (".npy", ".npz", ".csv")

    @classmethod
    def of(
        cls,
        problems: Mapping[str, Problem],
        method: Method | None,
        stop: Stop,
        given: Mapping[str, object],
    ) -> Self:
        """The case of what was read from ``given``; several problems are refused unless an area joins them."""
        if len(problems) != 1:
            raise InvalidProblem(
                f"solve takes one problem; got {len(problems)}. `thalweg compare` takes several."
            )
        return cls(next(iter(problems.values())), method, stop, given=given)

    def arrays(self, result: Result) -> dict[str, np.ndarray]:
        """What ``--out`` writes: arrays by name, the first one where the format holds one only."""
        return {"x": array_of(result.x)}

    def write(self, path: Path, result: Result) -> None:
        """``--out``."""
        write_arrays(path, self.arrays(result))

    def told(self, result: Result) -> dict[str, object]:
        """What ``--json`` says beside status, steps, seconds, metrics and message."""
        return {}

    def figures(self, result: Result) -> Sequence[Figure]:
        """What ``--report`` draws before the metrics of the steps."""
        return ()

    def said(self, result: Result) -> Sequence[str]:
        """Lines for the reader beside the first one."""
        return ()


def named(paths: Sequence[Path]) -> dict[str, Path]:
    """Files by the shortest names that keep them apart: their stems, or as they were given."""
    stems = [path.stem for path in paths]
    names: dict[str, Path] = {}
    for path, stem in zip(paths, stems, strict=True):
        name = stem if stems.count(stem) == 1 else str(path)
        while name in names:
            name += "'"
        names[name] = path
    return names
