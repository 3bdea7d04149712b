"""The folders of the library and who imports whom, drawn from the import graph, so that the picture is always true.

mkdocs calls `on_page_markdown`, which puts the picture in the place of ``PLACE`` on a page. By hand:
``python docs/_hooks/house.py house.svg``.
"""

from __future__ import annotations

import math
import sys
import tomllib
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from html import escape
from pathlib import Path

import grimp

PLACE = "<!-- the house, drawn -->"
ROOT = Path(__file__).parent.parent.parent

WIDTH, GUTTER = 400.0, 38.0
STEP, BOX, FAN, AREA = (
    46.0,
    30.0,
    84.0,
    98.0,
)  # heights: a row of stairs, a box, where lines spread, an area's box
ARROW = 6.0
#: Middle tones, which a light and a dark page both bear; the last one is for all rows that follow.
COLOURS = ("#d9822b", "#8e5bd0", "#2a9d6f", "#c0487a", "#4a7fd0", "#808890")

Edges = Mapping[tuple[str, str], int]
Point = tuple[float, float]


def layers() -> list[list[str]]:
    """The rows of the house from above to below, as the import contract in ``pyproject.toml`` has them."""
    text = (ROOT / "pyproject.toml").read_text(encoding="utf-8")
    contract = tomllib.loads(text)["tool"]["importlinter"]["contracts"][0]
    return [[name.strip().removeprefix("thalweg.") for name in row.split("|")] for row in contract["layers"]]


def edges() -> dict[tuple[str, str], int]:
    """How many imports go from one folder to another, those for type checkers included."""
    graph = grimp.build_graph("thalweg", exclude_type_checking_imports=False, cache_dir=None)
    found: Counter[tuple[str, str]] = Counter()
    for module in graph.modules:
        for other in graph.find_modules_directly_imported_by(module):
            found[_folder(module), _folder(other)] += 1
    return {(a, b): n for (a, b), n in found.items() if a and b and a != b}


def _folder(module: str) -> str:
    """The folder of a module; nothing for the package's own files, which hold the version and start the command."""
    folder = module.partition(".")[2].partition(".")[0]
    return "" if folder == "__main__" else folder


@dataclass(frozen=True)
class Box:
    """A folder: its row, its colour, and where it stands."""

    name: str
    row: int
    colour: str
    x: float
    y: float
    width: float
    height: float
    upright: bool = False

    @property
    def middle(self) -> float:
        """Where its middle is, from the left."""
        return self.x + self.width / 2

    @property
    def bottom(self) -> float:
        """Its lower edge."""
        return self.y + self.height


def boxes(rows: Sequence[Sequence[str]]) -> dict[str, Box]:
    """Single folders as stairs, the areas as one row of upright boxes, what they stand on below."""
    areas = max(range(len(rows)), key=lambda i: len(rows[i]))
    found: dict[str, Box] = {}
    inner = WIDTH - 2 * GUTTER
    y = 8.0
    for i, row in enumerate(rows):
        colour, share = COLOURS[min(i, len(COLOURS) - 1)], inner / len(row)
        if i < areas:
            stair = inner / areas
            found[row[0]] = Box(row[0], i, colour, GUTTER + i * stair, y, stair - 8, BOX)
            y += STEP if i < areas - 1 else BOX + FAN
        elif i == areas:
            for k, name in enumerate(row):
                found[name] = Box(name, i, colour, GUTTER + k * share + 3, y, share - 6, AREA, upright=True)
            y += AREA + FAN
        else:  # at the ends of the row, so that lines to the next one pass between them
            width = 84.0 if len(row) > 1 else 200.0
            room = inner - width
            for k, name in enumerate(row):
                x = GUTTER + (room * k / (len(row) - 1) if len(row) > 1 else room / 2)
                found[name] = Box(name, i, colour, x, y, width, BOX)
            y += BOX + STEP
    return found


@dataclass
class Line:
    """An edge: how far it falls before it turns, and the points that it goes through on its way.

    An ``elbow`` enters its target from the left.
    """

    source: Box
    target: Box
    imports: int
    elbow: bool
    falls: float
    through: list[Point] = field(default_factory=list)
    leaves: float = 0.0
    arrives: float = 0.0


def lines(at: Mapping[str, Box], found: Edges) -> list[Line]:
    """All edges, each with a place of its own at the boxes where it begins and ends."""
    areas = next(box.row for box in at.values() if box.upright)
    stairs = max(box.bottom for box in at.values() if box.row < areas)
    drawn = []
    for (a, b), n in sorted(found.items(), key=lambda item: (at[item[0][0]].row, at[item[0][0]].x, item)):
        source, target = at[a], at[b]
        elbow = source.row < areas and target.row < areas
        drawn.append(Line(source, target, n, elbow, max(stairs, source.bottom)))
    _go_round([line for line in drawn if line.source.row < areas < line.target.row], at, stairs + FAN)
    for line in drawn:
        if line.source.row == areas and line.target.row > areas + 1:
            line.through = _between([box for box in at.values() if box.row == areas + 1], line.source)
    _ports(drawn)
    return drawn


def _go_round(long: Sequence[Line], at: Mapping[str, Box], top: float) -> None:
    """Lines from above the areas to below them pass by on the left or on the right, each on a track of its own."""
    left = [line for line in long if line.source.middle + line.target.middle < WIDTH]
    right = [line for line in long if line not in left]
    for lines_here, x, way in ((left, 0.0, 1.0), (right, WIDTH, -1.0)):
        for k, line in enumerate(lines_here):
            track = x + way * (GUTTER - 2) * (k + 1) / (len(lines_here) + 1)
            past = max(box.bottom for box in at.values() if box.row < line.target.row)
            line.through = [(track, top), (track, past)]


def _between(beside: Sequence[Box], source: Box) -> list[Point]:
    """The way from an area between the boxes of the next row."""
    left, right = min(box.x + box.width for box in beside) + 8, max(box.x for box in beside) - 8
    x = left + (right - left) * (source.middle - GUTTER) / (WIDTH - 2 * GUTTER)
    return [(x, beside[0].y), (x, beside[0].bottom)]


def _ports(drawn: Sequence[Line]) -> None:
    """Spread the ends of the lines along the boxes, in an order that spares crossings."""
    for box in {line.source.name: line.source for line in drawn}.values():
        out = [line for line in drawn if line.source is box]
        out.sort(key=lambda line: (line.elbow, -line.target.row if line.elbow else _towards(line)))
        for k, line in enumerate(out):
            line.leaves = box.x + box.width * (k + 1) / (len(out) + 1)
    for box in {line.target.name: line.target for line in drawn}.values():
        into = [line for line in drawn if line.target is box and line.source.row < box.row and not line.elbow]
        into.sort(key=lambda line: line.through[-1][0] if line.through else line.leaves)
        for k, line in enumerate(into):
            line.arrives = box.x + box.width * (k + 1) / (len(into) + 1)
        sides = [line for line in drawn if line.target is box and line.elbow]
        for k, line in enumerate(sorted(sides, key=lambda line: -line.source.x)):
            line.arrives = box.y + box.height * (k + 1) / (len(sides) + 1)


def _towards(line: Line) -> float:
    """The place that a line makes for."""
    return line.through[0][0] if line.through else line.target.middle


def _path(line: Line) -> tuple[str, str]:
    """The line and its head, as SVG's path data."""
    x, y = line.leaves, line.source.bottom
    if line.elbow:
        end, tip = line.target.x, line.arrives
        head = f"M{end:.1f} {tip:.1f}l-{ARROW} -{ARROW / 2}v{ARROW}z"
        return f"M{x:.1f} {y:.1f}V{tip:.1f}H{end - ARROW:.1f}", head
    if line.source.row == line.target.row:  # along the row, below it
        end, deep = line.target.middle, y + 22
        head = f"M{end:.1f} {y:.1f}l-{ARROW / 2} {ARROW}h{ARROW}z"
        return f"M{x:.1f} {y:.1f}C{x:.1f} {deep:.1f} {end:.1f} {deep:.1f} {end:.1f} {y + ARROW:.1f}", head
    end = line.target.y
    words = [f"M{x:.1f} {y:.1f}"]
    for to, down in [(x, line.falls), *line.through, (line.arrives, end - ARROW)]:
        half = (y + down) / 2
        words.append(
            f"C{x:.1f} {half:.1f} {to:.1f} {half:.1f} {to:.1f} {down:.1f}" if to != x else f"V{down:.1f}"
        )
        x, y = to, down
    return "".join(words), f"M{line.arrives:.1f} {end:.1f}l-{ARROW / 2} -{ARROW}h{ARROW}z"


def picture(rows: Sequence[Sequence[str]], found: Edges) -> str:
    """The SVG: a rectangle for each folder, a line for each edge, as wide as the root of its imports."""
    at = boxes(rows)
    strangers = sorted({name for edge in found for name in edge} - set(at))
    if strangers:
        raise ValueError(f"{', '.join(strangers)}: no layer of the import contract in pyproject.toml has it.")
    height = max(box.bottom for box in at.values()) + 8
    parts = [
        f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {WIDTH:g} {height:g}" role="img" '
        'font-family="sans-serif" font-size="12" text-anchor="middle" style="width: 100%; max-width: 640px; '
        'color-scheme: light dark; color: var(--md-typeset-color, CanvasText)">',
        "<title>The folders of thalweg, and who imports whom</title>",
        *map(_drawn_line, sorted(lines(at, found), key=lambda line: -line.imports)),
        *map(_drawn_box, at.values()),
        "</svg>",
    ]
    return "\n".join(parts)


def _drawn_line(line: Line) -> str:
    path, head = _path(line)
    a, b, colour = escape(line.source.name), escape(line.target.name), line.source.colour
    said = f"{a} imports {b}: {line.imports} {'time' if line.imports == 1 else 'times'}"
    return (
        f'<g data-from="{a}" data-to="{b}" data-imports="{line.imports}"><title>{said}</title>'
        f'<path d="{path}" fill="none" stroke="{colour}" stroke-opacity="0.7" '
        f'stroke-width="{0.7 * math.sqrt(line.imports):.2f}"/><path d="{head}" fill="{colour}"/></g>'
    )


def _drawn_box(box: Box) -> str:
    middle = (box.y + box.bottom) / 2
    turned = f' transform="rotate(-90 {box.middle:.1f} {middle:.1f})"' if box.upright else ""
    return (
        f'<g data-folder="{escape(box.name)}"><rect x="{box.x:.1f}" y="{box.y:.1f}" width="{box.width:.1f}" '
        f'height="{box.height:.1f}" rx="4" fill="{box.colour}" fill-opacity="0.15" stroke="{box.colour}"/>'
        f'<text x="{box.middle:.1f}" y="{middle + 4.5:.1f}" fill="currentColor"{turned}>{escape(box.name)}</text></g>'
    )


def on_page_markdown(markdown: str, **_: object) -> str:
    """Called by mkdocs for each page: the picture where the page asks for it."""
    if PLACE not in markdown:
        return markdown
    start = '<figure style="width: 100%; max-width: 640px; margin: 0 auto">'
    return markdown.replace(PLACE, f"{start}\n{picture(layers(), edges())}\n</figure>")


if __name__ == "__main__":
    Path(sys.argv[1]).write_text(picture(layers(), edges()), encoding="utf-8")
