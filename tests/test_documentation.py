"""The code in the README and on the pages of the site runs."""

from __future__ import annotations

import contextlib
import functools
import importlib
import importlib.util
import json
import os
import re
import shlex
import shutil
import subprocess
import sys
import xml.etree.ElementTree as ET
from collections import Counter
from pathlib import Path

import griffe
import grimp
import pytest
import typer.main

from thalweg.catalogue import SYSTEMS

ROOT = Path(__file__).parent.parent
PAGES = [ROOT / "README.md", ROOT / "CONTRIBUTING.md", *sorted((ROOT / "docs").rglob("*.md"))]


def blocks(path, language):
    return re.findall(rf"^```{language}\n(.*?)^```", path.read_text(), re.MULTILINE | re.DOTALL)


@pytest.mark.parametrize(
    "path", [p for p in PAGES if blocks(p, "python")], ids=lambda p: str(p.relative_to(ROOT))
)
def test_the_python_code_of_a_page_runs_from_top_to_bottom(path, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    namespace = {"__name__": "page"}
    for number, block in enumerate(blocks(path, "python")):
        exec(compile(block, f"{path.name}, block {number}", "exec", dont_inherit=True), namespace)


def commands():
    for path in PAGES:
        for block in blocks(path, "sh"):
            for line in block.splitlines():
                words = shlex.split(line, comments=True)
                if words[:1] == ["thalweg"]:
                    yield pytest.param(words[1:], id=" ".join(words))


@functools.cache
def whole_command():
    from thalweg.cli import app

    return typer.main.get_command(app)


@pytest.mark.parametrize("words", list(commands()))
def test_a_command_on_a_page_has_options_that_exist(words):
    command = whole_command()
    while hasattr(command, "commands"):
        command = command.commands[words[0]]
        words = words[1:]
    command.make_context("thalweg", list(words))


def named_methods():
    for path in [p for p in PAGES if p.name != "CONTRIBUTING.md"]:  # its method is one that readers add
        for area, rest in re.findall(r"thalweg (?:solve|compare) (\w+)([^`\n]*)", path.read_text()):
            for text in re.findall(r"--method ([\w-]+(?::[\w=.,-]+)?)", rest):
                yield area, text


@pytest.mark.parametrize(("area", "text"), sorted(set(named_methods())))
def test_a_method_named_on_a_page_exists_and_takes_what_is_given(area, text):
    from thalweg.cli.areas import area_named
    from thalweg.cli.methods import options

    name, _, given = text.partition(":")
    known = options(area_named(area).methods()[name])
    for pair in filter(None, given.split(",")):
        key, _, value = pair.partition("=")
        known[key].read(name, value)


@pytest.mark.parametrize("page", sorted((ROOT / "docs" / "reference").glob("*.md")), ids=lambda p: p.stem)
def test_the_reference_names_each_function_that_its_own_file_hides(page):
    """``thalweg.core.solve`` is a function and a file; of the two a page of the package shows neither."""
    shown = re.findall(r"^::: (\S+)$", page.read_text(), re.MULTILINE)
    hidden = []
    for package in shown:
        files = {path.stem for path in (ROOT / "src" / package.replace(".", "/")).glob("*.py")}
        if "__init__" in files:
            hidden += [f"{package}.{n}.{n}" for n in importlib.import_module(package).__all__ if n in files]
    assert set(hidden) <= set(shown)


def test_the_page_of_questions_leads_to_every_system():
    text = (ROOT / "docs" / "which.md").read_text()
    assert {system.number for system in SYSTEMS} <= set(re.findall(r"\b\d\d\b", text))


def test_the_readme_counts_the_systems_that_are_here():
    assert f"All {len(SYSTEMS)} systems are here" in (ROOT / "README.md").read_text()


@pytest.fixture(scope="module")
def house():
    """The hook that draws the folders."""
    spec = importlib.util.spec_from_file_location("house", ROOT / "docs" / "_hooks" / "house.py")
    module = sys.modules["house"] = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


@pytest.fixture(scope="module")
def drawing(house):
    page = house.on_page_markdown("# The house\n" + house.PLACE)
    return ET.fromstring(page[page.index("<svg") : page.index("</figure>")])


def drawn(drawing, name):
    return [part for part in drawing if part.get(name) is not None]


def test_the_picture_of_the_house_has_exactly_the_edges_of_the_import_graph(drawing):
    graph = grimp.build_graph("thalweg", exclude_type_checking_imports=False, cache_dir=None)
    modules = graph.modules - {"thalweg.__main__"}  # a file that starts the command, and no folder
    pairs = [(m, n) for m in modules for n in graph.find_modules_directly_imported_by(m)]
    found = Counter((m.split(".")[1], n.split(".")[1]) for m, n in pairs if m.count(".") and n.count("."))
    pictured = {
        (g.get("data-from"), g.get("data-to")): int(g.get("data-imports"))
        for g in drawn(drawing, "data-imports")
    }
    assert pictured == {(a, b): n for (a, b), n in found.items() if a != b}


def test_the_picture_of_the_house_has_every_folder_once(drawing):
    source = ROOT / "src" / "thalweg"
    folders = {path.parent.name for path in source.glob("*/__init__.py")} | {"catalogue", "needs"}
    assert sorted(g.get("data-folder") for g in drawn(drawing, "data-folder")) == sorted(folders)


def test_the_boxes_of_the_house_stand_apart_and_inside_the_picture(drawing):
    svg = "{http://www.w3.org/2000/svg}"
    _, _, width, height = map(float, drawing.get("viewBox").split())
    rows = [g.find(f"{svg}rect") for g in drawn(drawing, "data-folder")]
    boxes = [tuple(float(r.get(n)) for n in ("x", "y", "width", "height")) for r in rows]
    for i, (x, y, w, h) in enumerate(boxes):
        assert x >= 0
        assert y >= 0
        assert x + w <= width
        assert y + h <= height
        for a, b, c, d in boxes[:i]:
            assert x + w <= a or a + c <= x or y + h <= b or b + d <= y


def test_the_lines_of_the_house_stay_inside_the_picture(drawing):
    svg = "{http://www.w3.org/2000/svg}"
    width = float(drawing.get("viewBox").split()[2])
    for g in drawn(drawing, "data-imports"):
        line = re.sub(r"V[\d.]+", " ", g.find(f"{svg}path").get("d"))
        pairs = re.findall(r"([\d.-]+) [\d.-]+|H([\d.-]+)", line)
        across = [float(x or h) for x, h in pairs]
        half = float(g.find(f"{svg}path").get("stroke-width")) / 2
        assert min(across) - half >= 0
        assert max(across) + half <= width


def test_a_folder_outside_the_import_contract_is_refused_by_name(house):
    with pytest.raises(ValueError, match="attic: no layer of the import contract"):
        house.picture(house.layers(), {("cli", "attic"): 1})


def test_a_page_without_the_picture_is_left_as_it_is(house):
    assert house.on_page_markdown("# Another page\n") == "# Another page\n"


@pytest.fixture(scope="module")
def with_a_method_more(tmp_path_factory):
    """A copy of the library to which CONTRIBUTING's files and entry are added, as a reader would add them."""
    copy = tmp_path_factory.mktemp("copy")
    shutil.copytree(ROOT / "src", copy / "src", copy_function=copied)  # with what is compiled already
    (copy / "tests").mkdir()
    for name in ("conftest.py", "running.py"):
        shutil.copy(ROOT / "tests" / name, copy / "tests")
    text = (ROOT / "CONTRIBUTING.md").read_text()
    for language, name, code in re.findall(r'^```(\w+) title="([^"]+)"\n(.*?)^```', text, re.M | re.S):
        path = copy / name
        if language == "diff":
            path.write_text(entered(path.read_text(), code))
        elif "heavy_ball" in name:
            path.parent.mkdir(exist_ok=True)
            path.write_text(code)
    return copy


def copied(source, target):
    """A copy with its times, which caches of compiled code go by; but for files that were there for a moment."""
    with contextlib.suppress(FileNotFoundError):
        shutil.copy2(source, target)


def entered(text, diff):
    """``text`` with each line that begins with a plus after the line that stands before it."""
    before = ""
    for line in diff.splitlines():
        if line.startswith("+"):
            assert text.count(f"{before}\n") == 1, before
            text = text.replace(f"{before}\n", f"{before}\n{line[1:]}\n")
        before = line[1:]
    return text


def shell(copy, *words):
    env = {**os.environ, "PYTHONPATH": str(copy / "src"), "COLUMNS": "100", "NO_COLOR": "1"}
    done = subprocess.run([sys.executable, *words], cwd=copy, env=env, capture_output=True, text=True)
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout


def test_the_method_of_contributing_passes_its_tests_and_its_doctest(with_a_method_more):
    words = ["-q", "-p", "no:cacheprovider", "--doctest-modules", "src/thalweg/linear/heavy_ball.py", "tests"]
    assert "5 passed" in shell(with_a_method_more, "-m", "pytest", *words)


END = "--- end ---"
COMMANDS = f"""
import json, sys
from typer.testing import CliRunner
from thalweg.cli import app
for words in json.loads(sys.argv[1]):
    done = CliRunner().invoke(app, words, catch_exceptions=False)
    assert done.exit_code == 0, done.output
    print(done.output, {END!r})
"""


def test_the_command_knows_the_method_of_contributing(with_a_method_more):
    import scipy.io

    from thalweg.numerics import FivePointStencil

    scipy.io.mmwrite(with_a_method_more / "A.mtx", FivePointStencil(10, 10).to_csr())
    (block,) = [b for b in blocks(ROOT / "CONTRIBUTING.md", "sh") if "heavy-ball" in b]
    # One process for all lines: starting it is most of the time.
    lines = [shlex.split(line)[1:] for line in block.splitlines()]
    found = shell(with_a_method_more, "-c", COMMANDS, json.dumps(lines))
    said = found.split(END)[:-1]
    assert len(said) == 5
    for text in said[:2]:
        assert "heavy-ball" in text
    assert "smallest: a number; required" in said[1]
    for text in said[2:]:
        assert "converged" in text
    assert (with_a_method_more / "page.html").exists()


@functools.cache
def sources():
    """The library as the reference reads it, from its sources alone."""
    return griffe.load("thalweg", search_paths=[str(ROOT / "src")], allow_inspection=False)


@pytest.mark.parametrize("page", sorted((ROOT / "docs" / "reference").glob("*.md")), ids=lambda p: p.stem)
def test_the_reference_shows_every_public_name_of_its_packages(page):
    """Names that load on first use are public to the reference only where their stub says so."""
    for package in re.findall(r"^::: (thalweg[\w.]*)$", page.read_text(), re.MULTILINE):
        found = sources()[package.removeprefix("thalweg.")] if "." in package else sources()
        if not found.is_init_module:
            continue
        names = {n for n in importlib.import_module(package).__all__ if n != "METHODS"}
        assert {name for name in names if not found.members[name].is_public} == set()
