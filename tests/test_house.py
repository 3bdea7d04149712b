"""The house as it was drawn: no two files need each other, and what is public is said once."""

from __future__ import annotations

import importlib
import re
from pathlib import Path

import grimp
import numpy as np
import pytest
import scipy.sparse as sp
import yaml
from scipy.sparse.csgraph import connected_components

import thalweg
from thalweg.catalogue import AREAS, METHODS, SYSTEMS
from thalweg.core import Method

SOURCE = Path(thalweg.__file__).parent


@pytest.fixture(scope="module")
def graph():
    """Who imports whom, at any depth of a file and for type checkers too."""
    return grimp.build_graph("thalweg", exclude_type_checking_imports=False, cache_dir=None)


def test_no_files_import_each_other(graph):
    names = sorted(graph.modules)
    at = {name: i for i, name in enumerate(names)}
    edges = [(at[a], at[b]) for a in names for b in graph.find_modules_directly_imported_by(a)]
    rows, columns = np.array(edges).T
    n = len(names)
    count, labels = connected_components(
        sp.csr_array((np.ones(len(edges)), (rows, columns)), shape=(n, n)), directed=True, connection="strong"
    )
    circles = [[names[i] for i in np.flatnonzero(labels == k)] for k in range(count)]
    assert [circle for circle in circles if len(circle) > 1] == []


def test_a_circle_would_be_found():
    """The test above can fail: two nodes that point at each other are one strong component."""
    both = sp.csr_array(np.array([[0, 1], [1, 0]]))
    assert connected_components(both, directed=True, connection="strong")[0] == 1


def test_no_problem_imports_a_method(graph):
    for area in METHODS:
        kinds = {kind.__module__ for kind in METHODS[area].values() if issubclass(kind, Method)}
        problems = {m for m in graph.modules if re.fullmatch(rf"thalweg\.{area}(\.\w+)*\.problem", m)}
        for problem in problems:
            assert not graph.find_modules_directly_imported_by(problem) & (kinds - {problem}), problem


def test_every_folder_of_an_area_is_in_the_catalogue():
    folders = {path.parent.name for path in SOURCE.glob("*/recommended.py")} - {"core"}
    assert folders <= set(AREAS)
    assert set(METHODS) == folders


@pytest.mark.parametrize("area", list(METHODS))
def test_methods_have_kebab_names_and_say_what_they_are(area):
    for name, kind in METHODS[area].items():
        assert re.fullmatch(r"[a-z0-9]+(-[a-z0-9]+)*", name)
        assert importlib.import_module(f"thalweg.{area}").METHODS is METHODS[area]
        assert (kind.__doc__ or "").strip(), kind


def test_what_the_catalogue_exports_is_there():
    for system in SYSTEMS:
        for export in system.exports:
            module, _, name = export.rpartition(".")
            assert hasattr(importlib.import_module(f"thalweg.{module}"), name), export


def test_the_top_has_the_vocabulary_its_errors_and_the_areas():
    for name in thalweg.__all__:
        assert getattr(thalweg, name) is not None
    assert {"NotFinite", "UnreadableFile", "History", "METHODS", "reproduce", "compare", "linear"} <= set(
        thalweg.__all__
    )


def test_a_public_name_means_one_thing():
    """Two areas may share an object; they may not use one name for two."""
    meanings = {}
    for path in sorted(SOURCE.glob("**/__init__.py")):
        package = ".".join(("thalweg", *path.parent.relative_to(SOURCE).parts))
        if package == "thalweg" or package.startswith(("thalweg.cli", "thalweg.studies")):
            continue
        module = importlib.import_module(package)
        for name in set(getattr(module, "__all__", ())) - {"METHODS"}:
            meanings.setdefault(name, {}).setdefault(id(getattr(module, name)), package)
    assert {name: sorted(where.values()) for name, where in meanings.items() if len(where) > 1} == {}


def test_types_are_said():
    """``Any`` is for what truly is anything."""
    count = sum(
        len(re.findall(r"\bAny\b", path.read_text(encoding="utf-8"))) for path in SOURCE.glob("**/*.py")
    )
    assert count <= 500


def test_the_citation_names_the_paper_of_every_system():
    cited = yaml.safe_load((SOURCE.parents[1] / "CITATION.cff").read_text(encoding="utf-8"))
    assert cited["version"] == thalweg.__version__
    notes = [reference["notes"] for reference in cited["references"]]
    assert notes == [f"System {system.number}; {system.paper}" for system in SYSTEMS]
    assert all(reference["authors"] and reference["title"] for reference in cited["references"])
