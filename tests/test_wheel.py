"""What a user installs: the wheel is built, put into an empty folder, and tried without the checkout."""

from __future__ import annotations

import os
import subprocess
import sys
import tarfile
import zipfile
from pathlib import Path

import numpy as np
import pytest
import scipy.io
import scipy.sparse as sp

ROOT = Path(__file__).parent.parent
LEFT_BEHIND = {".pyc", ".nbi", ".nbc"}  # what Python and Numba compile


@pytest.fixture(scope="module")
def wheel(tmp_path_factory):
    folder = tmp_path_factory.mktemp("wheel")
    offline = ["--no-deps", "--no-index", "--disable-pip-version-check", "-q"]
    words = ["wheel", *offline, "--no-build-isolation", "-w", str(folder), str(ROOT)]
    done = subprocess.run([sys.executable, "-m", "pip", *words], capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    (built,) = folder.glob("thalweg-*.whl")
    return built


@pytest.fixture(scope="module")
def installed(wheel):
    """The folder that the wheel is installed to, beside its dependencies of this environment."""
    target = wheel.parent / "installed"
    words = ["install", "--no-deps", "--no-index", "-q", "--target", str(target), str(wheel)]
    subprocess.run([sys.executable, "-m", "pip", *words], check=True, capture_output=True)
    return target


@pytest.fixture
def run(installed, tmp_path):
    """Run a program from an empty folder, with the installed package and not the checkout."""

    def program(*words):
        env = {name: value for name, value in os.environ.items() if not name.startswith("PYTHON")}
        env |= {"PYTHONPATH": str(installed), "NUMBA_CACHE_DIR": str(tmp_path / "numba"), "NO_COLOR": "1"}
        done = subprocess.run(words, cwd=tmp_path, env=env, capture_output=True, text=True)
        assert done.returncode == 0, done.stderr
        return done.stdout

    return program


def names(wheel):
    with zipfile.ZipFile(wheel) as archive:
        return {name for name in archive.namelist() if not name.endswith("/")}


def test_the_wheel_holds_the_package_whole_and_nothing_else(wheel):
    source = ROOT / "src"
    package = {
        path.relative_to(source).as_posix()
        for path in (source / "thalweg").rglob("*")
        if path.is_file() and path.suffix not in LEFT_BEHIND
    }
    assert {name for name in names(wheel) if ".dist-info/" not in name} == package


def test_the_source_archive_makes_the_same_wheel(wheel, tmp_path):
    build = [sys.executable, "-m", "hatchling", "build"]
    subprocess.run([*build, "-t", "sdist", "-d", str(tmp_path)], cwd=ROOT, check=True, capture_output=True)
    (archive,) = tmp_path.glob("thalweg-*.tar.gz")
    with tarfile.open(archive) as packed:
        packed.extractall(tmp_path, filter="data")
    source = tmp_path / archive.name.removesuffix(".tar.gz")
    subprocess.run([*build, "-t", "wheel", "-d", str(tmp_path)], cwd=source, check=True, capture_output=True)
    (again,) = tmp_path.glob("*.whl")
    assert again.name == wheel.name
    assert names(again) == names(wheel)
    assert not {"runs", "site", ".venv", "build"} & {path.name for path in source.iterdir()}


@pytest.mark.parametrize(
    "name",
    [
        "thalweg/__init__.pyi",
        "thalweg/py.typed",
        "thalweg/workbench/templates/report.html.j2",
        "thalweg/linear/pretrained/poisson-2d.safetensors",
        "thalweg/robust/pretrained/knapsack.safetensors",
    ],
)
def test_the_wheel_holds_what_is_no_python(wheel, name):
    assert name in names(wheel)


def test_no_test_and_no_evidence_is_in_the_wheel(wheel):
    folders = {part for name in names(wheel) for part in Path(name).parts[:-1]}
    assert not folders & {"tests", "evidence", "benchmarks", "examples", "docs", "runs", "__pycache__"}


def test_the_license_comes_along(wheel):
    assert any(name.endswith(".dist-info/licenses/LICENSE") for name in names(wheel))


def test_the_installed_package_is_the_one_that_is_imported(run, installed):
    where = run(sys.executable, "-c", "import thalweg; print(thalweg.__file__)").strip()
    assert Path(where) == installed / "thalweg" / "__init__.py"


def test_the_command_says_its_version(run, installed, wheel):
    version = wheel.name.split("-")[1]
    assert run(str(installed / "bin" / "thalweg"), "--version").strip() == f"thalweg {version}"


def test_the_command_solves_a_system_and_writes_its_page(run, installed, tmp_path):
    A = sp.diags_array([[-1.0] * 29, [4.0] * 30, [-1.0] * 29], offsets=[-1, 0, 1])
    scipy.io.mmwrite(tmp_path / "A.mtx", A)
    words = ["solve", "linear", "A.mtx", "--out", "x.npy", "--report", "page.html"]
    assert "converged" in run(str(installed / "bin" / "thalweg"), *words)
    x = np.linalg.solve(A.toarray(), np.ones(30))
    np.testing.assert_allclose(np.load(tmp_path / "x.npy"), x, rtol=1e-7)
    assert "</html>" in (tmp_path / "page.html").read_text()


def test_the_shipped_networks_load(run):
    code = "from thalweg.linear import CycleWeights; print(*(CycleWeights.pretrained(d).dimensions for d in (2, 3)))"
    assert run(sys.executable, "-c", code).split() == ["2", "3"]
