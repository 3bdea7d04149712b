"""A traced run as a picture, and a course of improvement as one page."""

from __future__ import annotations

import html
from collections.abc import Mapping, Sequence
from pathlib import Path

from thalweg.core.files import check_target, write_text
from thalweg.core.validation import require
from thalweg.workflow.nodes import ExceptionNode, Node
from thalweg.workflow.parameters import ParameterNode
from thalweg.workflow.propagate import ancestors, place

WIDTH, HEIGHT, GAP_X, GAP_Y = 150, 44, 24, 46
_COLOURS = {"parameter": "#d9ead3", "exception": "#f4cccc", "root": "#eeeeee", "message": "#dae8fc"}


def trace_svg(output: Node, most: int = 200) -> str:
    """The trace of a node as SVG: parents above children; parameters green, exceptions red, other roots grey.

    Args:
        output: a node.
        most: nodes drawn at most; of a larger trace those nearest to the output.

    >>> from thalweg.workflow import node
    >>> trace_svg(node(1, trainable=True) + 2).count("<rect")
    3
    """
    require(most >= 1, "trace_svg needs most >= 1", got=most)
    kept = ancestors(output)[:most]
    rows: dict[int, list[Node]] = {}
    for n in sorted(kept, key=place):
        rows.setdefault(n.level, []).append(n)
    at: dict[Node, tuple[int, int]] = {}
    for y, level in enumerate(sorted(rows)):
        for x, n in enumerate(rows[level]):
            at[n] = x * (WIDTH + GAP_X) + 10, y * (HEIGHT + GAP_Y) + 10
    wide = max(x for x, _ in at.values()) + WIDTH + 10
    high = max(y for _, y in at.values()) + HEIGHT + 10
    lines = [
        f'<path d="M{at[p][0] + WIDTH // 2} {at[p][1] + HEIGHT} L{at[n][0] + WIDTH // 2} {at[n][1]}" stroke="#888"/>'
        for n in kept
        for p in n.parents
        if p in at
    ]
    boxes = [_box(n, *at[n]) for n in kept]
    head = f'<svg xmlns="http://www.w3.org/2000/svg" width="{wide}" height="{high}" font-family="sans-serif">'
    return "\n".join([head, *lines, *boxes, "</svg>"])


def write_workflow_page(
    path: str | Path, output: Node, course: Sequence[Mapping[str, object]] = (), title: str = "Workflow"
) -> Path:
    """One file of HTML: the trace of ``output``, its parameters with what was said to them, and a table of the course.

    Args:
        path: a file ending in .html.
        output: a node of the last run.
        course: a row a step, such as ``{"score": 3.1, "prompt": "..."}``.

    Raises:
        InvalidParameter: a path that cannot be written.
    """
    target = check_target(path, (".html",))
    parameters = [n for n in ancestors(output) if isinstance(n, ParameterNode)]
    values = [
        {"parameter": p.name, "value": p.data, "description": p.description, "feedback": _said(p)}
        for p in sorted(parameters, key=place)
    ]
    numbered = [{"step": i, **row} for i, row in enumerate(course)]
    sections = [("Trace", trace_svg(output)), ("Parameters", _table(values)), ("Course", _table(numbered))]
    body = "".join(f"<h2>{name}</h2>\n{text}\n" for name, text in sections if text)
    style = (
        "body{font-family:sans-serif;margin:2em}td,th{border:1px solid #ccc;padding:4px;white-space:pre-wrap}"
    )
    name = html.escape(title)
    body = body.encode("utf-8", "backslashreplace").decode()  # a model's text may hold half a character
    write_text(
        target,
        f'<!doctype html><html lang="en"><meta charset="utf-8"><title>{name}</title><style>{style}</style>'
        f"<h1>{name}</h1>\n{body}</html>\n",
    )
    return target


def _box(n: Node, x: int, y: int) -> str:
    kind = (
        "parameter"
        if isinstance(n, ParameterNode)
        else "exception"
        if isinstance(n, ExceptionNode)
        else "message"
    )
    colour = _COLOURS[kind if kind != "message" or n.operator is not None else "root"]
    text = repr(n.data)
    short = html.escape(text if len(text) <= 20 else text[:17] + "...")
    name = html.escape(n.name[:18])
    return (
        f'<g><title>{html.escape(text[:2000])}</title><rect x="{x}" y="{y}" width="{WIDTH}" height="{HEIGHT}" rx="5" '
        f'fill="{colour}" stroke="#666"/><text x="{x + 8}" y="{y + 18}" font-size="13">{name}</text>'
        f'<text x="{x + 8}" y="{y + 36}" font-size="12" fill="#444">{short}</text></g>'
    )


def _said(p: ParameterNode) -> str:
    words = [getattr(part, "feedback", {}) for part in p.feedback]
    return "\n".join(str(f) for said in words for several in said.values() for f in several)


def _table(rows: Sequence[Mapping[str, object]]) -> str:
    columns = list(dict.fromkeys(name for row in rows for name in row))
    if not columns:
        return ""
    head = "".join(f"<th>{html.escape(c)}</th>" for c in columns)
    lines = ["".join(f"<td>{html.escape(str(row.get(c, '')))}</td>" for c in columns) for row in rows]
    return f"<table><tr>{head}</tr>\n" + "\n".join(f"<tr>{line}</tr>" for line in lines) + "</table>"
