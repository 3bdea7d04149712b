"""What a study brings back: verdicts, a table, figures. Plain data, so that it can be kept and drawn later."""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Any, Literal

import numpy as np

from thalweg.core.figure import Figure, Series, Surface

#: ``smoke`` takes seconds and shows that it runs; ``quick`` the main points; ``paper`` the published setting.
Scale = Literal["smoke", "quick", "paper"]
SCALES: tuple[Scale, ...] = ("smoke", "quick", "paper")

#: Called with the share done, in [0, 1], and what is being done.
Tell = Callable[[float, str], None]


@dataclass(frozen=True)
class Verdict:
    """A claim in a line, the number measured, the number it must reach, and whether it does.

    >>> Verdict("half the memory", 0.5, 0.51).holds
    True
    """

    claim: str
    measured: float
    required: float
    relation: Literal["<=", ">="] = "<="

    @property
    def holds(self) -> bool:
        """Whether ``measured relation required``; never for NaN."""
        if self.relation == "<=":
            return bool(self.measured <= self.required)
        return bool(self.measured >= self.required)

    def to_dict(self) -> dict[str, Any]:
        """``{"claim", "measured", "required", "holds"}``, with ``relation`` told in the claim."""
        return {
            "claim": self.claim,
            "measured": _number(self.measured),
            "required": _number(self.required),
            "holds": self.holds,
        }


@dataclass(frozen=True)
class Evidence:
    """What came out of a study.

    ``costs`` is a table of what each method needed on each problem, ``{"problems": [...], "methods":
    {name: [...]}}``, from which performance profiles are drawn; infinity where a method failed.
    """

    verdicts: Sequence[Verdict]
    table: Sequence[dict[str, Any]]
    figures: Sequence[Figure] = ()
    costs: dict[str, Any] = field(default_factory=dict)
    notes: str = ""

    def to_dict(self) -> dict[str, Any]:
        """Plain data for a JSON file."""
        return dict(_plain(dataclasses.asdict(self)))

    @classmethod
    def from_dict(cls, data: dict[str, Any]) -> Evidence:
        """Inverse of `to_dict`."""
        data = dict(_restored(data))
        figures = [_figure(f) for f in data["figures"]]
        return cls(**{**data, "verdicts": [Verdict(**v) for v in data["verdicts"]], "figures": figures})


def _figure(data: dict[str, Any]) -> Figure:
    surface = data.get("surface")
    parts = {
        "series": [Series(**s) for s in data["series"]],
        "surface": Surface(**surface) if surface else None,
    }
    return Figure(**{**data, **parts})


def _number(value: float) -> float | None:
    return float(value) if math.isfinite(value) else None


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
