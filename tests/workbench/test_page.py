"""The report in a real browser: drawn, switched between light and dark, readable on a phone."""

from __future__ import annotations

import shutil

import numpy as np
import pytest

from thalweg.catalogue import find
from thalweg.studies import Evidence, Figure, Series, Verdict
from thalweg.workbench import Record, render_studies

CHROMIUM = shutil.which("chromium") or shutil.which("chromium-browser") or shutil.which("google-chrome")

pytestmark = pytest.mark.skipif(
    CHROMIUM is None, reason="no Chromium on this machine; `apt-get install chromium` lets this test run"
)


@pytest.fixture(scope="module")
def page_path(tmp_path_factory):
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
    wide = [{f"a column with a long name {i}": i for i in range(20)}]
    records = [
        Record(
            find(number),
            "quick",
            Evidence(
                [Verdict("it falls", 0.5, 1.0), Verdict("it flies", 0.5, 1.0, ">=")],
                wide,
                [lines, bars],
                {"problems": ["p", "q"], "methods": {"a": [1.0, 2.0], "b": [2.0, 1.0]}},
                "Words.",
            ),
            1.0,
            {"python": "3"},
        )
        for number in ("02", "12")
    ]
    return render_studies(records, tmp_path_factory.mktemp("page") / "report.html")


@pytest.fixture(scope="module")
def browser():
    from playwright.sync_api import sync_playwright

    arguments = [
        "--no-sandbox",
        "--disable-gpu",
        "--disable-background-networking",
        "--disable-component-update",
        "--disable-dev-shm-usage",
    ]
    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=CHROMIUM, headless=True, args=arguments)
        yield browser
        browser.close()


@pytest.fixture
def opened(browser, page_path):
    def open_at(width, scheme="light"):
        context = browser.new_context(
            viewport={"width": width, "height": 800}, color_scheme=scheme, offline=True
        )
        page = context.new_page()
        page.complaints = []
        page.on("pageerror", lambda error: page.complaints.append(str(error)))
        page.on("console", lambda m: page.complaints.append(m.text) if m.type == "error" else None)
        page.goto(page_path.as_uri())
        page.wait_for_selector(".plot .main-svg")
        return page

    return open_at


def test_every_plot_is_drawn_without_a_complaint(opened):
    page = opened(1200)
    assert page.locator(".plot").count() == 6
    drawn = page.locator(".plot .scatterlayer .lines path, .plot .barlayer path").count()
    assert drawn >= 8
    curve = page.locator(".plot .scatterlayer path.js-line").last.get_attribute("d")
    assert len(curve) > 20
    assert page.complaints == []


def test_a_reader_can_click_through_it(opened):
    page = opened(1200)
    assert page.locator("#verdicts tbody tr").count() == 4
    assert page.locator("#verdicts .fails").count() == 2
    page.locator("nav a").nth(1).click()
    assert page.url.endswith("#lion-k")
    assert page.locator("#lion-k h2").is_visible()
    summary = page.locator("#lion-k summary")
    table = page.locator("#lion-k details table")
    assert table.is_visible()
    summary.click()
    assert not table.is_visible()


@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_it_follows_the_readers_theme_and_the_button_switches_it(opened, scheme):
    page = opened(1200, scheme)
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


def test_on_a_phone_nothing_overflows_the_width(opened):
    page = opened(360)
    assert page.evaluate("document.documentElement.scrollWidth") <= 360
    assert (
        page.evaluate("Math.max(...[...document.querySelectorAll('.plot')].map(p => p.clientWidth))") <= 360
    )
