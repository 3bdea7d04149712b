"""The front page: a card for each system, with code that runs as it stands, readable in a real browser."""

from __future__ import annotations

import ast
import builtins
import importlib.util
import shutil
import sys
from pathlib import Path

import markdown
import pytest
import yaml

from thalweg.catalogue import SYSTEMS
from thalweg.studies import Evidence, Figure, Series, Verdict
from thalweg.workbench import Record

ROOT = Path(__file__).parent.parent
CHROMIUM = shutil.which("chromium") or shutil.which("chromium-browser") or shutil.which("google-chrome")


@pytest.fixture(scope="module")
def hook():
    path = ROOT / "docs" / "_hooks" / "gallery.py"
    spec = importlib.util.spec_from_file_location("gallery", path)
    module = sys.modules["gallery"] = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def test_every_system_is_shown_with_a_page_that_exists(hook):
    assert sorted(hook.SHOWN) == [s.number for s in SYSTEMS]
    for system in SYSTEMS:
        export, page = hook.SHOWN[system.number]
        assert (ROOT / "docs" / "guide" / f"{page}.md").exists()
        assert export.split(".")[0] == system.area


@pytest.mark.parametrize("system", SYSTEMS, ids=lambda s: s.number)
def test_code_of_a_card_names_nothing_it_has_not_imported(hook, system):
    """The docstring's own test runs it with the names of its module at hand; a reader has none."""
    export, _ = hook.SHOWN[system.number]
    code = hook.example(export)
    compile(code, export, "exec")
    known, used = set(dir(builtins)), set()
    for part in ast.walk(ast.parse(code)):
        if isinstance(part, ast.Import | ast.ImportFrom):
            known |= {name.asname or name.name for name in part.names}
        elif isinstance(part, ast.FunctionDef | ast.ClassDef):
            known.add(part.name)
        elif isinstance(part, ast.arg):
            known.add(part.arg)
        elif isinstance(part, ast.Name):
            (used if isinstance(part.ctx, ast.Load) else known).add(part.id)
    assert export.rpartition(".")[2] in known
    assert used - known == set()
    assert len(code.splitlines()) <= 16


def test_a_card_shows_what_is_recorded(hook):
    curve = Figure("Fall & rise", "", "step", "loss", [Series("a", [0.0, 1.0], [1.0, 2.0])])
    verdicts = [Verdict("a", 1.0, 2.0), Verdict("b", 1.0, 2.0), Verdict("c", 3.0, 2.0)]
    record = Record(SYSTEMS[0], "full", Evidence(verdicts, [], [curve]), 1.0, {})
    card = hook.card(SYSTEMS[0], record)
    assert '<span class="holds">2 holds</span> <span class="fails">1 fails</span>' in card
    assert 'alt="Fall &amp; rise" src="data:image/svg+xml;base64,' in card
    assert "none is recorded yet" in hook.card(SYSTEMS[0], None)


@pytest.mark.skipif(CHROMIUM is None, reason="no Chromium on this machine")
def test_the_gallery_fits_its_page_and_its_code_opens(hook, tmp_path):
    from playwright.sync_api import sync_playwright

    # Tags such as !!python/name stand in mkdocs.yml for others; its list of extensions is plain.
    config = yaml.safe_load((ROOT / "mkdocs.yml").read_text(encoding="utf-8"))["markdown_extensions"]
    wanted = {n for e in config for n in ([e] if isinstance(e, str) else e)}
    needed = ["md_in_html", "pymdownx.details", "pymdownx.superfences", "pymdownx.highlight"]
    assert wanted >= set(needed)
    body = markdown.markdown(hook.on_page_markdown(f"# Home\n\n{hook.PLACE}\n"), extensions=needed)
    style = (ROOT / "docs" / "assets" / "gallery.css").read_text(encoding="utf-8")
    path = tmp_path / "index.html"
    start = '<!doctype html><meta charset="utf-8"><meta name="viewport" content="width=device-width">'
    path.write_text(f"{start}<style>pre {{ overflow-x: auto }} {style}</style>{body}", encoding="utf-8")
    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=CHROMIUM, headless=True, args=["--no-sandbox"])
        page = browser.new_context(viewport={"width": 390, "height": 900}, offline=True).new_page()
        page.goto(path.as_uri())
        assert page.locator(".gallery .card").count() == len(SYSTEMS)
        page.locator("summary").nth(1).click()
        code = page.locator(".card:nth-child(2) pre")
        assert code.is_visible()
        assert "SequenceSolver(" in code.inner_text()
        for width in (390, 1280):
            page.set_viewport_size({"width": width, "height": 900})
            assert page.evaluate("document.documentElement.scrollWidth") <= width
        for name in page.locator(".card img").all():
            assert name.evaluate("picture => picture.complete && picture.naturalWidth > 0")
        browser.close()
