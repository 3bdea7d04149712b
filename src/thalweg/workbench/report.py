"""One self-contained HTML page: verdicts first, then a section for each study. No network needed to read it."""

from __future__ import annotations

import functools
import math
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from thalweg.core import Figure
from thalweg.core.files import write_text
from thalweg.workbench.machine import machine
from thalweg.workbench.plots import plotly_json, profile_figure
from thalweg.workbench.reproduce import Record

if TYPE_CHECKING:
    from thalweg.workbench.compare import Comparison


def render_studies(records: Sequence[Record], path: str | Path) -> Path:
    """Write the report of finished studies to ``path``, atomically; returns it."""
    sections = []
    for record in records:
        evidence = record.evidence
        figures = [*evidence.figures, *([profile_figure(evidence.costs)] if evidence.costs else [])]
        sections.append(
            {
                "id": record.system.slug,
                "title": f"{record.system.number} {record.system.title}",
                "subtitle": record.system.paper,
                "verdicts": evidence.verdicts,
                "figures": _drawn(figures),
                "tables": [_table(evidence.table)],
                "notes": evidence.notes,
                "foot": f"{record.scale} scale, {record.seconds:.0f} s. " + _told(record.machine),
            }
        )
    return _write(path, "thalweg: do the methods do what their papers say?", sections)


def render_comparison(comparison: Comparison, path: str | Path) -> Path:
    """Write the page of a `Comparison` to ``path``, atomically; returns it."""
    figures = [*comparison.curves(), profile_figure(comparison.costs(), "time")]
    section = {
        "id": "comparison",
        "title": "Comparison",
        "subtitle": "",
        "verdicts": [],
        "figures": _drawn(figures),
        "tables": [_table(comparison.summary().to_dict("records"))],
        "notes": "Means over the seeds. The final metrics are the problem's own judgement of each answer.",
        "foot": _told(machine()),
    }
    return _write(path, "thalweg: the candidates on your problem", [section])


def render_figures(figures: Sequence[Figure], path: str | Path, title: str) -> Path:
    """Write a page of figures to ``path``, atomically; returns it."""
    section = {"id": "figures", "title": "Figures", "subtitle": "", "verdicts": [], "tables": [], "notes": ""}
    return _write(path, title, [{**section, "figures": _drawn(figures), "foot": _told(machine())}])


def _write(path: str | Path, title: str, sections: list[dict[str, Any]]) -> Path:
    from plotly.offline import get_plotlyjs

    verdicts = [(section, v) for section in sections for v in section["verdicts"]]
    page = _template().render(
        title=title, sections=sections, verdicts=verdicts, plotly=get_plotlyjs(), number=_number
    )
    write_text(path, page)
    return Path(path)


@functools.cache
def _template() -> Any:
    import jinja2

    loader = jinja2.PackageLoader("thalweg.workbench", "templates")
    return jinja2.Environment(loader=loader, autoescape=True, trim_blocks=True).get_template("report.html.j2")


def _drawn(figures: Sequence[Figure]) -> list[dict[str, str]]:
    return [{"title": f.title, "caption": f.caption, "json": plotly_json(f)} for f in figures]


def _table(rows: Sequence[Mapping[Any, Any]]) -> dict[str, Any]:
    columns = list(dict.fromkeys(name for row in rows for name in row))
    return {"columns": columns, "rows": [[_number(row.get(c, "")) for c in columns] for row in rows]}


def _number(value: Any) -> str:
    if isinstance(value, bool) or not isinstance(value, int | float):
        return str(value)
    if isinstance(value, float) and not math.isfinite(value):
        return "" if value != value else str(value)
    return f"{value:,}" if isinstance(value, int) else f"{value:.4g}"


def _told(facts: dict[str, str]) -> str:
    return ", ".join(f"{name} {value}" for name, value in facts.items())
