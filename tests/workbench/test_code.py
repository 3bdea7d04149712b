"""Which files a study runs, on a small library made for it and on the real one."""

from __future__ import annotations

import os
import subprocess
import sys

import pytest

from thalweg.catalogue import SYSTEMS
from thalweg.core import InvalidProblem
from thalweg.workbench.code import ROOT, changed, code_of

FILES = {
    "__init__.py": "from thalweg.unused import thing",
    "studies/__init__.py": "",
    "studies/mine.py": "from thalweg.area import Method\nfrom thalweg.lazy import A\nfrom .near import x\n"
    "def run():\n    import thalweg.late",
    "studies/near.py": "import numpy",
    "studies/other.py": "",
    "area/__init__.py": "from thalweg.area.method import Method",
    "area/method.py": "from ..base import *",
    "area/alone.py": "",
    "area/weights/two.bin": "data",
    "area/__pycache__/method.py311.nbi": "compiled",
    "area/deep/__init__.py": "",
    "area/deep/far.py": "",
    "lazy/__init__.py": "import lazy_loader",
    "lazy/__init__.pyi": "from .first import A as A, C as C\nfrom .second import B as B",
    "lazy/first.py": "",
    "lazy/second.py": "",
    "lazy/recommended.py": "",
    "base.py": "from thalweg.area.deep import far",
    "late.py": "'''Not code: from thalweg.unused import thing'''",
    "unused.py": "",
}
REACHED = {
    "studies/__init__.py",
    "studies/mine.py",
    "studies/near.py",
    "area/__init__.py",
    "area/method.py",
    "area/weights/two.bin",
    "area/deep/__init__.py",
    "area/deep/far.py",
    "lazy/__init__.py",
    "lazy/__init__.pyi",
    "lazy/first.py",
    "lazy/recommended.py",
    "base.py",
    "late.py",
}


@pytest.fixture
def library(tmp_path):
    for name, text in FILES.items():
        path = tmp_path / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text)
    return tmp_path


def test_all_that_is_imported_is_followed_and_nothing_else(library):
    assert set(code_of("mine", library)) == REACHED


@pytest.mark.parametrize("name", sorted(REACHED))
def test_a_change_anywhere_in_it_is_seen_and_named(library, name):
    before = code_of("mine", library)
    with open(library / name, "a", encoding="utf-8") as file:
        file.write("\n# a comment")
    assert changed(before, code_of("mine", library)) == [name]


def test_another_file_of_the_same_length_and_time_is_seen(library):
    """As ``cp -p`` and archives put them there."""
    file, other = library / "studies/near.py", library / "other.tmp"
    file.write_text("x = 1", encoding="utf-8")
    before, status = code_of("mine", library), file.stat()
    other.write_text("x = 2", encoding="utf-8")
    os.utime(other, ns=(status.st_atime_ns, status.st_mtime_ns))
    os.replace(other, file)
    assert changed(before, code_of("mine", library)) == ["studies/near.py"]


def test_a_file_that_is_no_python_is_named(library):
    (library / "base.py").write_text("def (", encoding="utf-8")
    with pytest.raises(SyntaxError) as told:
        code_of("mine", library)
    assert told.value.filename == str(library / "base.py")


@pytest.mark.parametrize("name", sorted(set(FILES) - REACHED))
def test_a_change_elsewhere_is_not(library, name):
    before = code_of("mine", library)
    with open(library / name, "a", encoding="utf-8") as file:
        file.write("\n# a comment")
    assert changed(before, code_of("mine", library)) == []


def test_a_new_import_brings_its_file_with_it(library):
    before = code_of("mine", library)
    (library / "late.py").write_text("from thalweg import unused")
    assert set(changed(before, code_of("mine", library))) == {"late.py", "unused.py", "__init__.py"}


def test_line_endings_do_not_count(library):
    before = code_of("mine", library)
    path = library / "studies" / "mine.py"
    path.write_bytes(path.read_bytes().replace(b"\n", b"\r\n"))
    assert code_of("mine", library) == before


def test_a_study_that_is_not_there_is_refused(library):
    with pytest.raises(InvalidProblem, match="There is no study 'none'"):
        code_of("none", library)


def test_every_module_that_a_real_study_loads_is_among_its_files():
    """Independently: by what Python has loaded after importing it."""
    script = (
        "import importlib, json, sys; importlib.import_module('thalweg.studies.' + sys.argv[1]);"
        "print(*[m.__file__ for n, m in sys.modules.items() if n.startswith('thalweg.')])"
    )
    for study in ("learning_to_relax", "federated_fedfix"):
        done = subprocess.run(
            [sys.executable, "-c", script, study], capture_output=True, text=True, check=True
        )
        loaded = {path.removeprefix(f"{ROOT}/") for path in done.stdout.split()}
        assert len(loaded) > 20
        assert loaded <= set(code_of(study))


def test_every_study_can_be_hashed_and_has_its_own_file_in_it():
    for system in SYSTEMS:
        assert f"studies/{system.study}.py" in code_of(system.study)
