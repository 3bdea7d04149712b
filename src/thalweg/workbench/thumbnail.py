"""Figures as small pictures: an SVG of a few kilobytes, without words, drawn without a script."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Sequence
from html import escape

import numpy as np
from numpy.typing import ArrayLike, NDArray

from thalweg.core import Figure, Series
from thalweg.core.figure import Surface
from thalweg.workbench.plots import PALETTE

WIDTH, HEIGHT = 240, 135
#: Room around the drawing, so that lines at its edge are whole.
MARGIN = 6
#: A surface is drawn in at most so many cells each way.
CELLS = 24
#: Dark to light, of Viridis; colours between are mixed.
RAMP = ((68, 1, 84), (59, 82, 139), (33, 145, 140), (94, 201, 98), (253, 231, 37))

_Scale = Callable[[float], float]
_Points = Callable[[Sequence[float], Sequence[float]], list[tuple[float, float] | None]]


def thumbnail(figure: Figure) -> str:
    """A figure as a small SVG, drawn in the colours of the whole figure; "" where there is nothing to draw.

    Numbers that are not finite are gaps, and so are those that a logarithmic axis cannot show. For the overview of many
    figures; it has no ticks and no legend. Cost: linear in the figure's points.
    """
    if figure.surface is not None:
        inside = _cells(figure.surface)
    elif figure.kind == "bars":
        inside = _bars(figure)
    else:
        inside = _curves(figure)
    if not inside:
        return ""
    floor = HEIGHT - MARGIN / 2
    axes = f'<path d="M{MARGIN / 2} {MARGIN / 2}V{floor}H{WIDTH - MARGIN / 2}" stroke="currentColor" opacity=".4"/>'
    said = escape(
        f"{figure.title}: {figure.y_label} over {figure.x_label}" if figure.x_label else figure.title
    )
    return (
        f'<svg class="thumbnail" viewBox="0 0 {WIDTH} {HEIGHT}" role="img" aria-label="{said}" fill="none" '
        f'xmlns="http://www.w3.org/2000/svg"><title>{said}</title>{"".join(inside)}{axes}</svg>'
    )


def _cells(surface: Surface) -> list[str]:
    """A heat map. Rows are drawn from below, as y grows upwards."""
    z = np.asarray(surface.z, dtype=float)
    z = z[:: -(-z.shape[0] // CELLS), :: -(-z.shape[1] // CELLS)]
    z = _axis(z, log=False)
    if np.isnan(z).all():
        return []
    share = _scale(z, 0.0, 1.0)
    tall, wide = (HEIGHT - MARGIN) / z.shape[0], (WIDTH - MARGIN) / z.shape[1]
    cells = []
    for i, row in enumerate(z):
        for j, value in enumerate(row):
            if math.isfinite(value):
                x, y = MARGIN / 2 + j * wide, HEIGHT - MARGIN / 2 - (i + 1) * tall
                # A little wider than its cell, so that no line of the page shows between two.
                size = f'width="{wide + 0.4:.1f}" height="{tall + 0.4:.1f}"'
                cells.append(f'<rect x="{x:.1f}" y="{y:.1f}" {size} fill="{_shade(share(float(value)))}"/>')
    return cells


def _shade(share: float) -> str:
    place = share * (len(RAMP) - 1)
    at = min(int(place), len(RAMP) - 2)
    mixed = (round(a + (b - a) * (place - at)) for a, b in zip(RAMP[at], RAMP[at + 1], strict=True))
    return "#" + "".join(f"{part:02x}" for part in mixed)


def _bars(figure: Figure) -> list[str]:
    heights = _axis([y for s in figure.series for y in s.y], figure.log_y)
    if not np.isfinite(heights).any():
        return []
    if not figure.log_y:
        heights = np.append(heights, 0.0)  # bars stand on zero
    to_y = _scale(heights, HEIGHT - MARGIN, MARGIN)
    floor = to_y(float(np.nanmin(heights)) if figure.log_y else 0.0)
    slot = (WIDTH - 2 * MARGIN) / max(len(figure.categories), 1)
    thick = 0.8 * slot / len(figure.series)
    found = []
    for i, series in enumerate(figure.series):
        for place, value in zip(series.x, _axis(series.y, figure.log_y), strict=True):
            if math.isfinite(value):
                x, y = MARGIN + (int(place) + 0.1) * slot + i * thick, to_y(float(value))
                size = f'width="{thick:.1f}" height="{max(abs(floor - y), 0.5):.1f}"'
                found.append(f'<rect x="{x:.1f}" y="{min(y, floor):.1f}" {size} fill="{_colour(i)}"/>')
    return found


def _curves(figure: Figure) -> list[str]:
    def all_of(parts: Iterable[Sequence[float] | None], log: bool) -> NDArray[np.float64]:
        return _axis([v for part in parts if part is not None for v in part], log)

    xs = all_of((s.x for s in figure.series), figure.log_x)
    ys = all_of((part for s in figure.series for part in (s.y, s.low, s.high)), figure.log_y)
    if not (np.isfinite(xs).any() and np.isfinite(ys).any()):
        return []
    to_x, to_y = _scale(xs, MARGIN, WIDTH - MARGIN), _scale(ys, HEIGHT - MARGIN, MARGIN)

    def points(x: Sequence[float], y: Sequence[float]) -> list[tuple[float, float] | None]:
        pairs = zip(_axis(x, figure.log_x), _axis(y, figure.log_y), strict=True)
        return [(to_x(a), to_y(b)) if math.isfinite(a) and math.isfinite(b) else None for a, b in pairs]

    return [
        drawn for i, s in enumerate(figure.series) for drawn in _curve(s, points, figure.kind, _colour(i))
    ]


def _curve(series: Series, points: _Points, kind: str, colour: str) -> list[str]:
    found = []
    if series.low is not None and series.high is not None:
        edge = points([*series.x, *reversed(series.x)], [*series.high, *reversed(series.low)])
        outline = " ".join(f"{p[0]:.1f},{p[1]:.1f}" for p in edge if p)
        found.append(f'<polygon points="{outline}" fill="{colour}" opacity=".15"/>')
    line = points(series.x, series.y)
    alone = [p for i, p in enumerate(line) if p and not any(line[max(i - 1, 0) : i] + line[i + 1 : i + 2])]
    for x, y in [p for p in line if p] if series.dots else alone:
        found.append(f'<circle cx="{x:.1f}" cy="{y:.1f}" r="4" fill="{colour}"/>')
    if not series.dots:
        found.append(f'<path d="{_path(line, kind == "steps")}" stroke="{colour}" stroke-width="2"/>')
    return found


def _path(line: Sequence[tuple[float, float] | None], steps: bool) -> str:
    parts, pen_up = [], True
    for point in line:
        if point:
            x, y = point
            parts.append(
                f"M{x:.1f} {y:.1f}" if pen_up else f"H{x:.1f}V{y:.1f}" if steps else f"L{x:.1f} {y:.1f}"
            )
        pen_up = not point
    return "".join(parts)


def _axis(values: ArrayLike, log: bool) -> NDArray[np.float64]:
    """Places on an axis; NaN where there is none."""
    found = np.asarray(values, dtype=float)
    found = np.where(np.isfinite(found), found, np.nan)
    return np.log10(np.where(found > 0, found, np.nan)) if log else found


def _scale(values: NDArray[np.float64], first: float, last: float) -> _Scale:
    """From numbers to places, the least at ``first``; all in the middle where there is but one number."""
    # Halves, as the difference of the largest floats is not one.
    low, high = float(np.nanmin(values)) / 2, float(np.nanmax(values)) / 2
    if high == low:
        return lambda v: (first + last) / 2
    return lambda v: first + (last - first) * ((v / 2 - low) / (high - low))


def _colour(i: int) -> str:
    return PALETTE[i % len(PALETTE)]
