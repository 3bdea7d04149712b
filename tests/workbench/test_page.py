"""The report in a real browser: drawn, switched between light and dark, readable on a phone."""

from __future__ import annotations

import functools
import shutil

import numpy as np
import pytest

from thalweg.catalogue import find
from thalweg.core.figure import Surface
from thalweg.studies import Evidence, Figure, Series, Verdict
from thalweg.workbench import Record, render_studies

CHROMIUM = shutil.which("chromium") or shutil.which("chromium-browser") or shutil.which("google-chrome")

pytestmark = pytest.mark.skipif(
    CHROMIUM is None, reason="no Chromium on this machine; `apt-get install chromium` lets this test run"
)


@pytest.fixture(scope="module")
def pages(tmp_path_factory):
    """A page, and the same with a relief, which takes seconds to draw without a graphics card."""
    folder = tmp_path_factory.mktemp("page")
    return {relief: report(folder / f"{relief}.html", relief) for relief in (False, True)}


def report(path, with_relief):
    t = np.arange(1.0, 50)
    lines = Figure(
        "Fall",
        "It falls.",
        "step",
        "loss",
        [Series.of("a", t, np.exp(-t / 9) * np.array([[1], [2]]))],
        log_y=True,
    )
    bars = Figure(
        "Rank", "Low is good.", "", "rank", [Series("s", [0, 1], [1.0, 2.0])], "bars", categories=["a", "b"]
    )
    crowd = Figure(
        "Many",
        "Long names, a legend of several lines.",
        "share of the whole budget that was used, in %",
        "a score with a long name",
        [Series(f"a method with a long name, setting {i}", [1.0, 2.0], [1.0, 2.0 + i]) for i in range(7)],
    )
    heights = Surface(t[:9].tolist(), t[:7].tolist(), (t[:7, None] - t[:9] ** 2).tolist())
    relief = Figure("Relief", "Seen from above.", "east", "north", [], kind="relief", surface=heights)
    reliefs = [relief] if with_relief else []
    wide = [{f"a column with a long name {i}": i for i in range(20)}]
    verdicts = [
        Verdict("it falls", 0.5, 1.0),
        Verdict("it flies", 0.5, 1.0, ">="),
        Verdict("it floats", 1.0, (0.5, 1.5), "within", (0.4, 1.1)),
    ]
    profile = {"problems": ["p", "q"], "methods": {"a": [1.0, 2.0], "b": [2.0, 1.0]}}
    evidence = {
        "02": Evidence(verdicts, wide, [*reliefs, lines, bars, crowd], profile, "Words."),
        "12": Evidence(verdicts, [{"a": 1}], [lines, bars], profile, "Words."),
    }
    records = [Record(find(n), "quick", e, 1.0, {"python": "3"}) for n, e in evidence.items()]
    kept = {"02": Record(find("02"), "full", evidence["02"], 99.0, {"python": "3"})}
    return render_studies(records, path, kept)


@pytest.fixture(scope="module")
def browser():
    from playwright.sync_api import sync_playwright

    arguments = [
        "--no-sandbox",
        "--use-angle=swiftshader",  # WebGL without a graphics card
        "--enable-unsafe-swiftshader",
        "--disable-background-networking",
        "--disable-component-update",
        "--disable-dev-shm-usage",
    ]
    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=CHROMIUM, headless=True, args=arguments)
        yield browser
        browser.close()


@pytest.fixture(scope="module")
def opened(browser, pages):
    """The page at a width and in a theme, opened once; ``fresh`` for a test that leaves it changed."""

    @functools.cache
    def kept(width, scheme, relief):
        context = browser.new_context(
            viewport={"width": width, "height": 800}, color_scheme=scheme, offline=True
        )
        page = context.new_page()
        page.complaints = []
        page.on("pageerror", lambda error: page.complaints.append(str(error)))
        page.on("console", lambda m: page.complaints.append(m.text) if m.type == "error" else None)
        page.goto(pages[relief].as_uri())
        page.wait_for_selector(".plot .main-svg")
        return page

    def open_at(width, scheme="light", *, fresh=False, relief=False):
        return (kept.__wrapped__ if fresh else kept)(width, scheme, relief)

    return open_at


def test_every_plot_is_drawn_without_a_complaint(opened):
    page = opened(1200, relief=True)
    assert page.locator(".plot").count() == 8
    page.wait_for_selector(".plot .gl-container canvas")
    drawn = page.locator(".plot .scatterlayer .lines path, .plot .barlayer path").count()
    assert drawn >= 8
    curve = page.locator(".plot .scatterlayer path.js-line").last.get_attribute("d")
    assert len(curve) > 20
    assert page.complaints == []


def test_a_reader_can_click_through_it(opened):
    page = opened(1200, fresh=True)
    assert page.locator("#verdicts tbody tr").count() == 6
    for outcome, claim in (("holds", "it falls"), ("fails", "it flies"), ("open", "it floats")):
        assert page.locator(f"#verdicts td.{outcome}").count() == 2
        assert claim in page.locator(f"#verdicts tr:has(td.{outcome})").first.inner_text()
    assert page.locator("#verdicts .recorded:not(:empty)").count() == 3
    page.locator("nav a").nth(1).click()
    assert page.url.endswith("#lion-k")
    assert page.locator("#lion-k h2").is_visible()
    summary = page.locator("#lion-k summary")
    table = page.locator("#lion-k details table")
    assert table.is_visible()
    summary.click()
    assert not table.is_visible()


def test_the_overview_has_a_picture_and_the_outcomes_of_each_system(opened):
    page = opened(1200)
    cards = page.locator("nav .cards li")
    assert cards.count() == page.locator("nav .cards svg").count() == 2
    assert cards.nth(0).locator(".counts").inner_text().split() == ["1", "holds", "1", "open", "1", "fails"]
    assert "Learning to relax" in cards.nth(0).inner_text()
    assert cards.nth(1).locator("svg").get_attribute("aria-label") == "Fall: loss over step"
    width = cards.nth(0).locator("svg").evaluate("part => part.getBoundingClientRect().width")
    assert 80 < width < 200


@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_it_follows_the_readers_theme_and_the_button_switches_it(opened, scheme):
    page = opened(1200, scheme, fresh=True)
    other = {"light": "dark", "dark": "light"}[scheme]

    def background():
        return page.evaluate("getComputedStyle(document.body).backgroundColor")

    def ink():
        return page.evaluate("document.querySelector('.plot .xtick text').style.fill")

    before = background(), ink()
    assert page.evaluate("document.documentElement.dataset.theme") == scheme
    page.locator("#theme").click()
    assert page.evaluate("document.documentElement.dataset.theme") == other
    page.wait_for_function(
        "fill => document.querySelector('.plot .xtick text').style.fill !== fill", arg=before[1]
    )
    assert background() != before[0]


@pytest.mark.parametrize("width", [360, 390])
def test_on_a_phone_nothing_overflows_the_width(opened, width):
    page = opened(width, relief=width == 360)
    assert page.evaluate("document.documentElement.scrollWidth") <= width
    assert (
        page.evaluate("Math.max(...[...document.querySelectorAll('.plot')].map(p => p.clientWidth))") <= width
    )


@pytest.mark.parametrize("width", [390, 1200])
def test_no_title_of_an_axis_lies_over_the_legend_or_outside_the_plot(opened, width):
    page = opened(width)
    page.wait_for_selector(".plot .legend .legendtext")
    clashes = page.evaluate(
        """() => [...document.querySelectorAll('.plot')].flatMap((plot) => {
            const box = (part) => part.getBoundingClientRect(), whole = box(plot);
            const titles = [...plot.querySelectorAll('.xtitle, .ytitle')].map(box);
            const legends = [...plot.querySelectorAll('.legend')].map(box);
            const apart = (a, b) => a.right <= b.left || b.right <= a.left || a.bottom <= b.top || b.bottom <= a.top;
            const over = titles.filter((t) => legends.some((l) => !apart(t, l)));
            const out = [...titles, ...legends].filter((t) => t.bottom > whole.bottom + 1 || t.top < whole.top - 1);
            return [...over, ...out].map((b) => [b.left, b.top, b.right, b.bottom]);
        })"""
    )
    assert page.locator(".plot .legend").count() >= 5
    assert page.locator(".plot .xtitle").count() >= 5
    assert clashes == []


def test_a_plot_keeps_room_for_its_curves_beside_a_long_legend(opened):
    page = opened(390)
    heights = page.evaluate(
        "[...document.querySelectorAll('.plot')]"
        ".map(p => p.querySelector('.bglayer rect, .plotbg, .gridlayer')"
        ".getBoundingClientRect().height)"
    )
    assert min(heights) >= 120


def test_a_table_that_scrolls_says_so_and_one_that_fits_does_not(opened):
    page = opened(390, fresh=True)
    wide = page.locator("#learning-to-relax details .scroll")
    assert wide.evaluate("part => part.scrollWidth > part.clientWidth")
    assert page.locator("#learning-to-relax details .more").is_visible()
    assert "gradient" in wide.evaluate("part => getComputedStyle(part).backgroundImage")
    assert not page.locator("#lion-k details .more").is_visible()
    page.set_viewport_size({"width": 6000, "height": 800})
    page.evaluate("document.body.style.maxWidth = 'none'")
    page.set_viewport_size({"width": 5900, "height": 800})
    page.wait_for_function("!document.querySelector('#learning-to-relax .scrolls')")
    assert not page.locator("#learning-to-relax details .more").is_visible()
