"""The report of studies: verdicts first, then a section for each."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path

from thalweg.core import InvalidProblem
from thalweg.studies.verdict import Verdict
from thalweg.workbench.page import Row, Section, drawn, listed, table_of, write_page
from thalweg.workbench.plots import profile_figure
from thalweg.workbench.record import Record
from thalweg.workbench.thumbnail import thumbnail

#: So many changed files are named; more are counted.
NAMED_FILES = 5


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
    return write_page(path, "thalweg: do the methods do what their papers say?", sections)


def _study(here: Record | None, recorded: Record | None) -> Section:
    """A study as measured here where it was, else as recorded."""
    shown = here or recorded
    if shown is None:
        raise InvalidProblem("A study's section needs a record.")
    evidence = shown.evidence
    figures = [*evidence.figures, *([profile_figure(evidence.costs)] if evidence.costs else [])]
    foot = [_origin("Measured here", here)] if here else ["Not measured here: all that is shown is recorded."]
    if recorded:
        foot.append(_origin("Recorded", recorded))
    return Section(
        shown.system.slug,
        f"{shown.system.number} {shown.system.title}",
        drawn(figures),
        foot,
        subtitle=shown.system.paper,
        notes=evidence.notes,
        rows=_rows(here.evidence.verdicts if here else (), recorded.evidence.verdicts if recorded else ()),
        tables=[table_of(evidence.table)],
        picture=next(filter(None, map(thumbnail, figures)), ""),
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
    return f"{what} at {record.scale} scale in {record.seconds:.0f} s. {code} {listed(record.machine)}"
