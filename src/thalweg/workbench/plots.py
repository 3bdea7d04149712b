"""Figures as Plotly draws them: one palette, colours left to the page's theme."""

from __future__ import annotations

import json
import textwrap
from collections.abc import Mapping, Sequence
from typing import Any

from thalweg.core import Figure, Series
from thalweg.workbench.profiles import performance_profile

# Okabe and Ito's palette, told apart with any colour vision, without its black.
PALETTE = ("#0072B2", "#D55E00", "#009E73", "#CC79A7", "#E69F00", "#56B4E9", "#8C6BB1", "#B2A800", "#7F7F7F")


def profile_figure(costs: Mapping[str, Any], what: str = "cost") -> Figure:
    """The performance profile of ``{"problems": [...], "methods": {name: costs}}``."""
    problems = len(costs["problems"])
    return Figure(
        "Performance profile",
        f"Share of the {problems} problems on which a method's {what} is within a factor of the best method's.",
        "factor",
        "share of problems",
        performance_profile(costs["methods"]),
        kind="steps",
        log_x=True,
    )


def plotly_json(figure: Figure) -> str:
    """``{"data": ..., "layout": ...}`` for ``Plotly.newPlot``, safe inside a script element."""
    drawn = json.dumps({"data": _traces(figure), "layout": _layout(figure)}, allow_nan=False)
    # No "<" at all: not only "</script>" ends a script element early, "<!--<script>" keeps it from ending.
    return drawn.replace("<", "\\u003c")


def _traces(figure: Figure) -> list[dict[str, object]]:
    traces: list[dict[str, object]] = []
    if figure.surface is not None:
        rows = [_drawable(row) for row in figure.surface.z]
        if figure.kind == "relief":
            place = {"x": figure.surface.x, "y": figure.surface.y, "z": rows}
            return [{"type": "surface", **place, "colorscale": "Viridis", "showscale": False}]
        colours = {"colorscale": "Viridis", "ncontours": 20, "contours": {"coloring": "heatmap"}}
        traces.append({"type": "contour", "x": figure.surface.x, "y": figure.surface.y, "z": rows, **colours})
    for i, series in enumerate(figure.series):
        color = PALETTE[i % len(PALETTE)]
        if figure.kind == "bars":
            names = [figure.categories[int(x)] for x in series.x]
            traces.append(
                {
                    "type": "bar",
                    "name": series.name,
                    "x": names,
                    "y": _drawable(series.y),
                    "marker": {"color": color},
                }
            )
            continue
        traces.extend(_band(series, color))
        line = {"color": color, "width": 2, "shape": "hv" if figure.kind == "steps" else "linear"}
        mode = "markers" if series.dots else "lines+markers" if len(series.x) <= 12 else "lines"
        traces.append(
            {
                "type": "scatter",
                "mode": mode,
                "name": series.name,
                "legendgroup": series.name,
                "x": _drawable(series.x),
                "y": _drawable(series.y),
                "line": line,
            }
        )
    return traces


def _band(series: Series, color: str) -> list[dict[str, object]]:
    if series.low is None or series.high is None:
        return []
    rgb = ",".join(str(int(color[i : i + 2], 16)) for i in (1, 3, 5))
    outline = [*series.high, *reversed(series.low)]
    return [
        {
            "type": "scatter",
            "mode": "lines",
            "x": _drawable([*series.x, *reversed(series.x)]),
            "y": _drawable(outline),
            "fill": "toself",
            "fillcolor": f"rgba({rgb},0.15)",
            "line": {"width": 0},
            "hoverinfo": "skip",
            "showlegend": False,
            "legendgroup": series.name,
        }
    ]


def _drawable(values: Sequence[float]) -> list[float | None]:
    return [v if abs(v) < float("inf") else None for v in map(float, values)]


def _folded(label: str, width: int) -> str:
    """A label in lines that a phone has room for."""
    return "<br>".join(textwrap.wrap(label, width, break_long_words=False))


def _layout(figure: Figure) -> dict[str, object]:
    x: dict[str, object] = {"title": {"text": _folded(figure.x_label, 40)}, "automargin": True}
    y: dict[str, object] = {"title": {"text": _folded(figure.y_label, 30)}, "automargin": True}
    if figure.kind == "relief":
        axes = {"xaxis": figure.x_label, "yaxis": figure.y_label, "zaxis": "value"}
        small = {"size": 10}
        scene: dict[str, object] = {
            name: {"title": {"text": _folded(label, 20), "font": small}, "tickfont": small, "nticks": 5}
            for name, label in axes.items()
        }
        # Far enough that its corners and labels are inside the box of a phone.
        scene |= {"aspectmode": "cube", "camera": {"eye": {"x": 1.9, "y": 1.9, "z": 1.3}}}
        return {"scene": scene, "margin": {"l": 0, "r": 0, "t": 0, "b": 0}, "paper_bgcolor": "rgba(0,0,0,0)"}
    if figure.log_x:
        x |= {"type": "log"}
    if figure.log_y:
        y |= {"type": "log", "exponentformat": "power"}
    return {
        "xaxis": x,
        "yaxis": y,
        "margin": {"l": 50, "r": 10, "t": 10, "b": 40},
        # Above the plot, where it never meets the axis' title, however many lines it takes.
        "legend": {"orientation": "h", "x": 0, "xanchor": "left", "y": 1.02, "yanchor": "bottom"},
        "hovermode": "closest",
        "barmode": "group",
        "paper_bgcolor": "rgba(0,0,0,0)",
        "plot_bgcolor": "rgba(0,0,0,0)",
    }
