"""How seconds and memory grow: a picture for each area, drawn from what ``python -m benchmarks.growth`` kept.

mkdocs calls `on_page_markdown`, which puts the pictures in the place of ``PLACE`` on a page.
"""

from __future__ import annotations

import json
import math
from collections.abc import Mapping, Sequence
from html import escape
from pathlib import Path
from typing import Any

PLACE = "<!-- the growth, drawn -->"
KEPT = Path(__file__).parent.parent / "assets" / "growth.json"
WIDTH, HEIGHT, LEFT, TOP, FOOT = 250.0, 190.0, 46.0, 22.0, 40.0
INK, MEASURED, EXPECTED = "#808890", "#0072B2", "#D55E00"
#: Memory below this is the interpreter's own.
LEAST_BYTES = 16 * 2**20


def pictures(kept: Mapping[str, Any]) -> str:
    """A card an area: seconds and memory over the size, measured and as expected."""
    cards = []
    for area, told in kept.items():
        sizes = [p["size"] for p in told["points"]]
        large = [p for p in told["points"] if p["bytes"] > LEAST_BYTES]
        panels = _panel(
            "seconds", sizes, [p["seconds"] for p in told["points"]], told["of"], told["expected"][0]
        )
        if len(large) > 1:
            in_gib = [p["bytes"] / 2**30 for p in large]
            panels += _panel("GiB", [p["size"] for p in large], in_gib, told["of"], told["expected"][1])
        last = told["points"][-1]
        seconds, memory = told["powers"]
        said = f"seconds {seconds:.2f} (expected {told['expected'][0]:g})"
        if memory is not None:
            said += f", memory {memory:.2f} ({told['expected'][1]:g})"
        cards.append(
            f'<div class="card"><p><b>{escape(area)}</b>: {escape(told["what"])}</p>{panels}'
            f"<p>Powers: {said}. Largest: {last['size']:,} {escape(told['of'])}, {last['seconds']:.3g} s, "
            f"{last['bytes'] / 2**30:.2g} GiB.</p></div>"
        )
    return f'<div class="gallery growth">{"".join(cards)}</div>\n'


def _panel(what: str, sizes: Sequence[float], values: Sequence[float], of: str, expected: float) -> str:
    """One pair of logarithmic axes: what was measured, and a line of the expected power through its end."""
    x, y = [math.log10(v) for v in sizes], [math.log10(max(v, 1e-9)) for v in values]
    line = [y[-1] + expected * (at - x[-1]) for at in x]
    low_x, high_x = math.floor(min(x)), math.ceil(max(x))
    low_y, high_y = math.floor(min(y)), max(math.ceil(max(y)), math.floor(min(y)) + 1)

    def place(at: float, value: float) -> tuple[float, float]:
        share = (at - low_x) / max(high_x - low_x, 1), (value - low_y) / (high_y - low_y)
        return LEFT + share[0] * (WIDTH - LEFT - 8), HEIGHT - FOOT - share[1] * (HEIGHT - FOOT - TOP)

    parts = [f'<path d="M{LEFT} {TOP}V{HEIGHT - FOOT}H{WIDTH - 8}" stroke="{INK}" fill="none"/>']
    for power in range(low_x, high_x + 1, max(1, (high_x - low_x) // 4)):
        at, _ = place(power, low_y)
        parts.append(_text(at, HEIGHT - FOOT + 14, _power(power), "middle"))
    for power in range(low_y, high_y + 1, max(1, (high_y - low_y) // 4)):
        _, at = place(low_x, power)
        parts.append(_text(LEFT - 4, at + 4, _power(power), "end"))
    parts += [_text((LEFT + WIDTH) / 2, HEIGHT - 6, of, "middle"), _text(LEFT, TOP - 8, what, "middle")]
    inside = [place(*p) for p in zip(x, line, strict=True) if p[1] >= low_y]
    drawn = "L".join(f"{a:.1f} {b:.1f}" for a, b in inside)
    parts.append(f'<path d="M{drawn}" stroke="{EXPECTED}" stroke-dasharray="4 3" fill="none"/>')
    points = [place(*p) for p in zip(x, y, strict=True)]
    drawn = "L".join(f"{a:.1f} {b:.1f}" for a, b in points)
    parts.append(f'<path d="M{drawn}" stroke="{MEASURED}" stroke-width="2" fill="none"/>')
    parts += [f'<circle cx="{a:.1f}" cy="{b:.1f}" r="3" fill="{MEASURED}"/>' for a, b in points]
    said = escape(f"{what} over {of}; dashed: the expected power {expected:g}")
    return (
        f'<svg viewBox="0 0 {WIDTH:g} {HEIGHT:g}" role="img" aria-label="{said}" xmlns="http://www.w3.org/2000/svg">'
        f"<title>{said}</title>{''.join(parts)}</svg>"
    )


def _text(x: float, y: float, words: str, anchor: str) -> str:
    style = f'font-size="11" fill="{INK}" text-anchor="{anchor}"'
    return f'<text x="{x:.1f}" y="{y:.1f}" {style}>{escape(words)}</text>'


def _power(exponent: int) -> str:
    """1, 10, or ten to a power as it is written."""
    if exponent in (0, 1):
        return str(10**exponent)
    return "10" + "".join("⁰¹²³⁴⁵⁶⁷⁸⁹"[int(d)] if d != "-" else "⁻" for d in str(exponent))


def on_page_markdown(markdown: str, **_: object) -> str:
    """Called by mkdocs for each page: the pictures where the page asks for them."""
    return (
        markdown.replace(PLACE, pictures(json.loads(KEPT.read_text("utf-8"))))
        if PLACE in markdown
        else markdown
    )
