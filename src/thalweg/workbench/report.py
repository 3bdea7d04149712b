"""One self-contained HTML page: verdicts first, then a section for each study. No network needed to read it."""

from __future__ import annotations

import functools
import math
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from thalweg.core import Figure
from thalweg.core.files import write_text
from thalweg.studies.verdict import Verdict
from thalweg.workbench.machine import machine
from thalweg.workbench.plots import plotly_json, profile_figure
from thalweg.workbench.record import Record

if TYPE_CHECKING:
    import jinja2

    from thalweg.workbench.compare import Comparison

#: So many changed files are named; more are counted.
NAMED_FILES = 5


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
        assert verdict is not None
        return _required(verdict)

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
    """A part of the page: claims, figures, tables, and the words around them."""

    id: str
    title: str
    figures: Sequence[Mapping[str, str]]
    foot: Sequence[str]
    subtitle: str = ""
    notes: str = ""
    rows: Sequence[Row] = ()
    tables: Sequence[Mapping[str, Sequence[object]]] = ()


def render_studies(
    records: Sequence[Record], path: str | Path, recorded: Mapping[str, Record] | None = None
) -> Path:
    """Write the report of finished studies to ``path``, atomically; returns it.

    Args:
        records: what was measured here.
        path: the page.
        recorded: evidence from the repository, by the system's number, shown beside it; a study that is only there
            is shown from there. See `record.read_recorded`.
    """
    recorded = recorded or {}
    here = {record.system.number: record for record in records}
    sections = [_study(here.get(n), recorded.get(n)) for n in sorted({*here, *recorded})]
    return _write(path, "thalweg: do the methods do what their papers say?", sections)


def render_comparison(comparison: Comparison, path: str | Path) -> Path:
    """Write the page of a `Comparison` to ``path``, atomically; returns it."""
    section = Section(
        "comparison",
        "Comparison",
        _drawn([*comparison.curves(), profile_figure(comparison.costs(), "time")]),
        [_listed(machine())],
        notes="Means over the seeds. The final metrics are the problem's own judgement of each answer.",
        tables=[_table(comparison.summary().to_dict("records"))],
    )
    return _write(path, "thalweg: the candidates on your problem", [section])


def render_figures(figures: Sequence[Figure], path: str | Path, title: str) -> Path:
    """Write a page of figures to ``path``, atomically; returns it."""
    return _write(path, title, [Section("figures", "Figures", _drawn(figures), [_listed(machine())])])


def _study(here: Record | None, recorded: Record | None) -> Section:
    """A study as measured here where it was, else as recorded."""
    shown = here or recorded
    assert shown is not None
    evidence = shown.evidence
    figures = [*evidence.figures, *([profile_figure(evidence.costs)] if evidence.costs else [])]
    foot = [_origin("Measured here", here)] if here else ["Not measured here: all that is shown is recorded."]
    if recorded:
        foot.append(_origin("Recorded", recorded))
    return Section(
        shown.system.slug,
        f"{shown.system.number} {shown.system.title}",
        _drawn(figures),
        foot,
        subtitle=shown.system.paper,
        notes=evidence.notes,
        rows=_rows(here.evidence.verdicts if here else (), recorded.evidence.verdicts if recorded else ()),
        tables=[_table(evidence.table)],
    )


def _rows(here: Iterable[Verdict], recorded: Iterable[Verdict]) -> list[Row]:
    """Claims in their order, those that are only recorded at the end; equal claims are matched in turn."""
    left: dict[str, list[Verdict]] = {}
    for verdict in recorded:
        left.setdefault(verdict.claim, []).append(verdict)
    rows = []
    for verdict in here:
        same = left.get(verdict.claim)
        rows.append(Row(verdict.claim, verdict, same.pop(0) if same else None))
    return rows + [Row(claim, None, verdict) for claim, rest in left.items() for verdict in rest]


def _origin(what: str, record: Record) -> str:
    files = record.changed()
    more = f" and {len(files) - NAMED_FILES} more" if len(files) > NAMED_FILES else ""
    code = (
        f"The code has changed since: {', '.join(files[:NAMED_FILES])}{more}."
        if files
        else "By the code that is here now."
    )
    return f"{what} at {record.scale} scale in {record.seconds:.0f} s. {code} {_listed(record.machine)}"


def _write(path: str | Path, title: str, sections: list[Section]) -> Path:
    from plotly.offline import get_plotlyjs

    rows = [(section, row) for section in sections for row in section.rows]
    here = [row.here for _, row in rows if row.here is not None]
    recorded = [row.recorded for _, row in rows if row.recorded is not None]
    page = _template().render(
        title=title,
        sections=sections,
        rows=rows,
        here=_counted(here, "in this run") if here else "",
        recorded=_counted(recorded, "as recorded") if recorded else "",
        plotly=get_plotlyjs(),
    )
    write_text(path, page)
    return Path(path)


@functools.cache
def _template() -> jinja2.Template:
    import jinja2

    loader = jinja2.PackageLoader("thalweg.workbench", "templates")
    return jinja2.Environment(loader=loader, autoescape=True, trim_blocks=True).get_template("report.html.j2")


def _counted(verdicts: Sequence[Verdict], where: str) -> str:
    count = Counter(v.outcome for v in verdicts)
    return f"{count['holds']} of {len(verdicts)} claims hold {where}; {count['fails']} fail, {count['open']} are open."


def _drawn(figures: Iterable[Figure]) -> list[dict[str, str]]:
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


def _table(rows: Sequence[Mapping[Any, object]]) -> dict[str, list[object]]:
    columns = list(dict.fromkeys(name for row in rows for name in row))
    return {"columns": [*columns], "rows": [[_number(row.get(c, "")) for c in columns] for row in rows]}


def _measured(verdict: Verdict) -> str:
    if verdict.interval is None:
        return _number(verdict.measured) or "no number"
    low, high = (_number(end).replace("inf", "∞") for end in verdict.interval)
    return f"{_number(verdict.measured)} [{low}, {high}]"


def _required(verdict: Verdict) -> str:
    if isinstance(verdict.required, tuple):
        return f"{_number(verdict.required[0])} to {_number(verdict.required[1])}"
    return f"{'≤' if verdict.relation == '<=' else '≥'} {_number(verdict.required)}"


def _number(value: object) -> str:
    if isinstance(value, bool) or not isinstance(value, int | float):
        return str(value)
    if isinstance(value, float) and not math.isfinite(value):
        return "" if value != value else str(value)
    return f"{value:,}" if isinstance(value, int) else f"{value:.4g}"


def _listed(facts: Mapping[str, str]) -> str:
    return ", ".join(f"{name} {value}" for name, value in facts.items())
