"""Small pictures: what is drawn, and where."""

from __future__ import annotations

import math
import re
from xml.etree import ElementTree

import pytest
from hypothesis import given
from hypothesis import strategies as st

from thalweg.core.figure import Surface
from thalweg.studies import Figure, Series
from thalweg.workbench.thumbnail import HEIGHT, MARGIN, WIDTH, thumbnail

SVG = "{http://www.w3.org/2000/svg}"


def drawn(figure):
    return ElementTree.fromstring(thumbnail(figure))


def places(path):
    return [tuple(map(float, pair)) for pair in re.findall(r"[ML]([-\d.]+) ([-\d.]+)", path.get("d"))]


def lines(*series, **options):
    return Figure("A title", "", "step", "loss", list(series), **options)


def test_a_line_goes_from_corner_to_corner():
    (line, _) = drawn(lines(Series("a", [0.0, 1.0], [2.0, 5.0]))).findall(f"{SVG}path")
    assert places(line) == [(MARGIN, HEIGHT - MARGIN), (WIDTH - MARGIN, MARGIN)]


def test_a_logarithmic_axis_makes_a_power_straight():
    x = [1.0, 10.0, 100.0]
    (line, _) = drawn(lines(Series("a", x, [v**3 for v in x]), log_x=True, log_y=True)).findall(f"{SVG}path")
    assert places(line)[1] == (WIDTH / 2, HEIGHT / 2)


def test_a_gap_parts_a_line_and_a_lone_point_is_a_dot():
    picture = drawn(lines(Series("a", [0, 1, 2, 3, 4], [1.0, 2.0, math.nan, 3.0, math.inf])))
    (line, _) = picture.findall(f"{SVG}path")
    assert line.get("d").count("M") == 2
    assert len(picture.findall(f"{SVG}circle")) == 1


def test_dots_are_not_joined_and_a_band_is_a_polygon():
    band = Series("a", [0.0, 1.0], [1.0, 2.0], low=[0.5, 1.5], high=[2.0, 3.0], dots=True)
    picture = drawn(lines(band))
    assert len(picture.findall(f"{SVG}circle")) == 2
    assert len(picture.find(f"{SVG}polygon").get("points").split()) == 4
    assert len(picture.findall(f"{SVG}path")) == 1  # the axes


def test_steps_go_across_and_then_up():
    (line, _) = drawn(lines(Series("a", [0.0, 1.0], [0.0, 1.0]), kind="steps")).findall(f"{SVG}path")
    assert line.get("d") == f"M{MARGIN:.1f} {HEIGHT - MARGIN:.1f}H{WIDTH - MARGIN:.1f}V{MARGIN:.1f}"


def test_bars_stand_on_zero_on_both_sides():
    figure = lines(Series("a", [0, 1], [1.0, -2.0]), kind="bars", categories=["p", "q"])
    up, down = drawn(figure).findall(f"{SVG}rect")
    ground = float(up.get("y")) + float(up.get("height"))
    assert float(down.get("y")) == pytest.approx(ground, abs=0.1)
    assert float(down.get("height")) == pytest.approx(2 * float(up.get("height")), abs=0.2)


def test_a_surface_goes_from_dark_to_light_and_upwards():
    surface = Surface([0.0, 1.0], [0.0, 1.0], [[0.0, math.nan], [1.0, 3.0]])
    cells = drawn(Figure("S", "", "x", "y", [], surface=surface)).findall(f"{SVG}rect")
    assert [c.get("fill") for c in cells][::2] == ["#440154", "#fde725"]
    assert float(cells[0].get("y")) > float(cells[1].get("y"))
    wide = Surface(
        list(range(200)), list(range(150)), [[float(i + j) for i in range(200)] for j in range(150)]
    )
    assert len(drawn(Figure("S", "", "x", "y", [], kind="relief", surface=wide)).findall(f"{SVG}rect")) < 600


def test_words_are_safe_and_told_to_those_who_cannot_see():
    picture = drawn(Figure('<b> & "c"', "", "x < 1", "y", [Series("a", [0.0, 1.0], [1.0, 1.0])]))
    assert picture.get("aria-label") == '<b> & "c": y over x < 1'


@pytest.mark.parametrize(
    "figure",
    [
        lines(),
        lines(Series("a", [], [])),
        lines(Series("a", [1.0], [math.nan])),
        lines(Series("a", [0.0, 1.0], [-1.0, 0.0]), log_y=True),
        lines(Series("a", [], []), kind="bars"),
        Figure("S", "", "x", "y", [], surface=Surface([0.0], [0.0], [[math.nan]])),
    ],
)
def test_where_there_is_nothing_to_draw_there_is_no_picture(figure):
    assert thumbnail(figure) == ""


numbers = st.floats(allow_nan=True, allow_infinity=True)


@given(st.lists(st.tuples(numbers, numbers), max_size=8), st.booleans(), st.booleans(), st.booleans())
def test_whatever_the_numbers_it_stays_inside(points, log_x, log_y, dots):
    series = Series("a", [x for x, _ in points], [y for _, y in points], dots=dots)
    text = thumbnail(lines(series, log_x=log_x, log_y=log_y))
    assert "nan" not in text
    assert "inf" not in text
    for x, y in re.findall(r'cx="([-\d.]+)" cy="([-\d.]+)"', text) + re.findall(
        r"[ML]([-\d.]+) ([-\d.]+)", text
    ):
        assert -0.1 <= float(x) <= WIDTH + 0.1
        assert -0.1 <= float(y) <= HEIGHT + 0.1
