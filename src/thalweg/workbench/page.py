"""One self-contained HTML page: claims, figures, tables, and the words around them. No network needed to read it."""

from __future__ import annotations

import functools
import math
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from thalweg.core import Figure
from thalweg.core.files import write_text
from thalweg.studies.verdict import Verdict
from thalweg.workbench.machine import machine
from thalweg.workbench.plots import plotly_json

if TYPE_CHECKING:
    import jinja2


@dataclass(frozen=True)
class Row:
    """A claim: what came out here, and what is recorded; None where it was not measured there."""

    claim: str
    here: Verdict | None
    recorded: Verdict | None

    @property
    def required(self) -> str:
        """What the claim asks for; as recorded where it was not measured here."""
        verdict = self.here or self.recorded
        return "" if verdict is None else _required(verdict)

    @property
    def recorded_text(self) -> str:
        """The recorded number, with what it had to reach where that was something else."""
        if self.recorded is None:
            return ""
        other = self.here is not None and _required(self.recorded) != self.required
        return _measured(self.recorded) + (f", required {_required(self.recorded)}" if other else "")

    @property
    def here_text(self) -> str:
        """The number measured here."""
        return "" if self.here is None else _measured(self.here)


@dataclass(frozen=True)
class Section:
    """A part of the page: claims, figures, tables, the words around them, and an SVG for the overview."""

    id: str
    title: str
    figures: Sequence[Mapping[str, str]]
    foot: Sequence[str]
    subtitle: str = ""
    notes: str = ""
    rows: Sequence[Row] = ()
    tables: Sequence[Mapping[str, Sequence[object]]] = ()
    text: str = ""
    picture: str = ""

    @property
    def counts(self) -> dict[str, int]:
        """How many of its claims hold, are open, fail: as measured here, or as recorded where nothing was."""
        return counted([row.here for row in self.rows]) or counted([row.recorded for row in self.rows])


def counted(verdicts: Iterable[Verdict | None]) -> dict[str, int]:
    """How many hold, are open, fail; outcomes that do not come are left out."""
    count = Counter(verdict.outcome for verdict in verdicts if verdict is not None)
    return {outcome: count[outcome] for outcome in ("holds", "open", "fails") if count[outcome]}


def render_figures(
    figures: Sequence[Figure],
    path: str | Path,
    title: str,
    rows: Sequence[Mapping[str, object]] = (),
    lines: Sequence[str] = (),
) -> Path:
    """Write a page of figures to ``path``, atomically, with a table and lines of text where there are; returns it."""
    tables = [table_of(rows)] if rows else []
    text = "\n".join(lines)
    foot = [listed(machine())]
    return write_page(
        path, title, [Section("figures", "Figures", drawn(figures), foot, text=text, tables=tables)]
    )


def write_page(path: str | Path, title: str, sections: Sequence[Section]) -> Path:
    """Write sections as one page to ``path``, atomically; returns it."""
    from plotly.offline import get_plotlyjs

    rows = [(section, row) for section in sections for row in section.rows]
    here = [row.here for _, row in rows if row.here is not None]
    recorded = [row.recorded for _, row in rows if row.recorded is not None]
    page = _template().render(
        title=title,
        sections=sections,
        rows=rows,
        here=_told(here, "in this run") if here else "",
        recorded=_told(recorded, "as recorded") if recorded else "",
        plotly=get_plotlyjs(),
    )
    write_text(path, page)
    return Path(path)


@functools.cache
def _template() -> jinja2.Template:
    import jinja2

    loader = jinja2.PackageLoader("thalweg.workbench", "templates")
    return jinja2.Environment(loader=loader, autoescape=True, trim_blocks=True).get_template("report.html.j2")


def _told(verdicts: Sequence[Verdict], where: str) -> str:
    count = Counter(v.outcome for v in verdicts)
    return f"{count['holds']} of {len(verdicts)} claims hold {where}; {count['fails']} fail, {count['open']} are open."


def drawn(figures: Iterable[Figure]) -> list[dict[str, str]]:
    """Figures as the page\'s script draws them."""
    # A legend of many names takes lines of its own, not the curves' room.
    return [
        {
            "title": f.title,
            "caption": f.caption,
            "json": plotly_json(f),
            "more": f"{1.8 * max(len(f.series) - 3, 0):g}rem",
        }
        for f in figures
    ]


def table_of(rows: Sequence[Mapping[str, object]]) -> dict[str, list[object]]:
    """Rows as a table: a column for each name, in order of appearance."""
    columns = list(dict.fromkeys(name for row in rows for name in row))
    return {"columns": [*columns], "rows": [[number_of(row.get(c, "")) for c in columns] for row in rows]}


def _measured(verdict: Verdict) -> str:
    if verdict.interval is None:
        return number_of(verdict.measured) or "no number"
    low, high = (number_of(end).replace("inf", "∞") for end in verdict.interval)
    return f"{number_of(verdict.measured)} [{low}, {high}]"


def _required(verdict: Verdict) -> str:
    if isinstance(verdict.required, tuple):
        return f"{number_of(verdict.required[0])} to {number_of(verdict.required[1])}"
    return f"{'≤' if verdict.relation == '<=' else '≥'} {number_of(verdict.required)}"


def number_of(value: object) -> str:
    """A cell: four digits for a number, nothing for NaN."""
    if isinstance(value, bool) or not isinstance(value, int | float):
        return str(value)
    if isinstance(value, float) and not math.isfinite(value):
        return "" if value != value else str(value)
    return f"{value:,}" if isinstance(value, int) else f"{value:.4g}"


def listed(facts: Mapping[str, str]) -> str:
    """Facts in a line."""
    return ", ".join(f"{name} {value}" for name, value in facts.items())
