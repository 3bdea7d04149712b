"""What a study brings back: verdicts, a table, figures. Plain data, so that it can be kept and drawn later."""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Literal, get_args

import numpy as np

from thalweg.core.figure import Figure, Series, Surface
from thalweg.studies.verdict import Verdict

#: ``smoke`` takes seconds and shows that it runs; ``quick`` the main points on one core, 12 s at most;
#: ``full`` all of them, ten minutes at most on two cores, with five judging seeds or more.
Scale = Literal["smoke", "quick", "full"]
SCALES: tuple[Scale, ...] = get_args(Scale)

#: A row of a table: its cells by column; and a table, whose rows may have different columns.
Row = dict[str, Any]
Table = list[Row]

#: Called with the share done, in [0, 1], and what is being done.
Tell = Callable[[float, str], None]


@dataclass(frozen=True)
class Evidence:
    """What came out of a study.

    ``costs`` is a table of what each method needed on each problem, ``{"problems": [...], "methods":
    {name: [...]}}``, from which performance profiles are drawn; infinity where a method failed.
    """

    verdicts: Sequence[Verdict]
    table: Sequence[Mapping[str, object]]
    figures: Sequence[Figure] = ()
    costs: Mapping[str, object] = field(default_factory=dict)
    notes: str = ""

    def to_dict(self) -> dict[str, Any]:
        """Plain data for a JSON file."""
        rest = dataclasses.asdict(dataclasses.replace(self, verdicts=()))
        return {**_plain(rest), "verdicts": [v.to_dict() for v in self.verdicts]}

    @classmethod
    def from_dict(cls, data: dict[str, Any]) -> Evidence:
        """Inverse of `to_dict`."""
        verdicts = [Verdict.from_dict(row) for row in data["verdicts"]]
        data = dict(_restored({**data, "verdicts": []}))
        return cls(**{**data, "verdicts": verdicts, "figures": [_figure(f) for f in data["figures"]]})


def _figure(data: dict[str, Any]) -> Figure:
    surface = data.get("surface")
    parts = {
        "series": [Series(**s) for s in data["series"]],
        "surface": Surface(**surface) if surface else None,
    }
    return Figure(**{**data, **parts})


def _plain(value: Any) -> Any:
    """JSON has no infinity and no NaN: they are written as ``{"number": "inf"}``."""
    if isinstance(value, dict):
        return {str(k): _plain(v) for k, v in value.items()}
    if isinstance(value, list | tuple):
        return [_plain(v) for v in value]
    if isinstance(value, bool | str) or value is None:
        return value
    if isinstance(value, int | np.integer):
        return int(value)
    number = float(value)
    return number if math.isfinite(number) else {"number": repr(number)}


def _restored(value: Any) -> Any:
    if isinstance(value, dict):
        if set(value) == {"number"}:
            return float(value["number"])
        return {k: _restored(v) for k, v in value.items()}
    if isinstance(value, list):
        return [_restored(v) for v in value]
    return value
