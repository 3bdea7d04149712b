"""The command, run as a user runs it."""

from __future__ import annotations

import json
import subprocess
import sys
from typing import ClassVar

import numpy as np
import pytest
import scipy.io
import scipy.sparse as sp

from running import thalweg
from thalweg import cli
from thalweg.numerics import FivePointStencil


@pytest.fixture
def files(tmp_path):
    A = FivePointStencil(12, 12).to_csr()
    b = np.random.default_rng(0).standard_normal(144)
    scipy.io.mmwrite(tmp_path / "A.mtx", A)
    np.save(tmp_path / "b.npy", b)
    scipy.io.mmwrite(tmp_path / "skew.mtx", sp.csr_array(np.array([[2.0, 1.0], [0.0, 2.0]])))
    scipy.io.mmwrite(tmp_path / "wide.mtx", sp.csr_array(np.ones((2, 3))))
    return tmp_path, A, b


def test_help_answers_without_loading_torch_or_numba():
    code = (
        "import sys; from thalweg.cli import app; import typer.testing as t;"
        "r = t.CliRunner().invoke(app, ['--help']); assert r.exit_code == 0, r.output;"
        "assert 'reproduce' in r.output;"
        "heavy = {'torch', 'numba', 'scipy', 'sklearn', 'pandas', 'plotly'} & set(sys.modules); assert not heavy, heavy"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)
    assert done.returncode == 0, done.stderr


def test_a_linear_system_is_solved_without_loading_torch_or_sklearn(files):
    """They take two seconds, which is most of a first answer."""
    code = (
        "import sys; from thalweg.cli import app; import typer.testing as t;"
        "r = t.CliRunner().invoke(app, sys.argv[1:]); assert r.exit_code == 0, r.output;"
        "heavy = {'torch', 'sklearn', 'plotly'} & set(sys.modules); assert not heavy, heavy"
    )
    words = ["solve", "linear", str(files[0] / "A.mtx"), "--out", str(files[0] / "x.npy")]
    done = subprocess.run([sys.executable, "-c", code, *words], capture_output=True, text=True)
    assert done.returncode == 0, done.stderr


@pytest.mark.parametrize(
    "command",
    [["solve"], ["solve", "linear"], ["compare", "linear"], ["schedule", "refine"], ["reproduce"], ["show"]],
)
def test_every_command_explains_itself(command):
    done = thalweg(*command, "--help")
    assert done.returncode == 0
    assert "Usage" in done.stdout


def test_list_shows_systems_and_methods():
    lines = thalweg("list").stdout.splitlines()
    assert sum("linear" in line and line.split()[0] in ("02", "03") for line in lines) == 2
    assert all(len(line) <= 80 for line in lines)
    assert "ssor-cg" in thalweg("list", "linear").stdout


@pytest.mark.parametrize(
    ("name", "words"),
    [
        ("02", "SequenceSolver"),
        ("lion-k", "LionK"),
        ("ssor-cg", "omega"),
        ("rex", "█"),
        ("05", "SequenceDesign"),
    ],
)
def test_show_explains(name, words):
    done = thalweg("show", name)
    assert done.returncode == 0
    assert words in done.stdout


class TestSolve:
    def test_it_solves_a_system_of_the_users(self, files):
        folder, A, b = files
        done = thalweg(
            "solve",
            "linear",
            folder / "A.mtx",
            "--rhs",
            folder / "b.npy",
            "--out",
            folder / "x.npy",
            "--json",
        )
        assert done.returncode == 0, done.stderr
        told = json.loads(done.stdout)
        assert told["status"] == "converged"
        x = np.load(folder / "x.npy")
        assert np.linalg.norm(b - A @ x) <= 1e-8 * np.linalg.norm(b)

    @pytest.mark.parametrize(
        "method",
        [
            "cg",
            "direct",
            "gauss-seidel",
            "gmres",
            "jacobi",
            "sor:omega=1.6",
            "ssor",
            "ssor-cg:omega=1.5",
            "learned",
        ],
    )
    def test_any_method_of_the_area_does(self, files, method):
        done = thalweg("solve", "linear", files[0] / "A.mtx", "--method", method)
        assert done.returncode == 0, done.stderr + done.stdout
        assert "converged" in done.stdout

    def test_several_files_are_a_sequence(self, files):
        done = thalweg("solve", "linear", *[files[0] / "A.mtx"] * 3, "--json")
        assert json.loads(done.stdout)["steps"] == 3

    @pytest.mark.parametrize("method", [(), ("--method", "cg"), ("--method", "learned:arms=4")])
    def test_the_answer_of_a_sequence_is_its_solutions(self, tmp_path, method):
        (tmp_path / "A.csv").write_text("4,1\n1,3\n")
        (tmp_path / "B.csv").write_text("5,1\n1,3\n")
        done = thalweg("solve", "linear", "A.csv", "B.csv", *method, "--out", "xs.npy", cwd=tmp_path)
        assert done.returncode == 0, done.stderr
        # by Cramer's rule: b = (1, 1)
        np.testing.assert_allclose(
            np.load(tmp_path / "xs.npy"), [[2 / 11, 3 / 11], [1 / 7, 2 / 7]], rtol=1e-7
        )
        assert "B: " in done.stdout

    def test_a_sequence_of_which_a_system_is_not_solved_has_exit_status_1(self, tmp_path):
        np.save(tmp_path / "A.npy", 2 * np.eye(60) - np.eye(60, k=1) - np.eye(60, k=-1))
        done = thalweg("solve", "linear", "A.npy", "A.npy", "--steps", 3, cwd=tmp_path)
        assert done.returncode == 1, done.stdout
        assert "2 of 2 systems" in done.stdout

    def test_running_out_of_steps_has_exit_status_1(self, files):
        done = thalweg("solve", "linear", files[0] / "A.mtx", "--method", "jacobi", "--steps", 3)
        assert done.returncode == 1
        assert "exhausted" in done.stdout

    def test_a_checkpoint_goes_on_and_that_of_another_problem_is_refused(self, files):
        folder, A, _ = files
        run = ["solve", "linear", folder / "A.mtx", "--method", "sor", "--json"]
        whole = json.loads(thalweg(*run).stdout)
        assert thalweg(*run, "--steps", 20, "--checkpoint", folder / "c").returncode == 1
        assert json.loads(thalweg(*run, "--resume", folder / "c").stdout)["steps"] == whole["steps"]
        scipy.io.mmwrite(folder / "other.mtx", A * 2)
        done = thalweg("solve", "linear", folder / "other.mtx", "--method", "sor", "--resume", folder / "c")
        assert done.returncode == 2
        assert "written for another problem" in done.stderr


@pytest.mark.parametrize(
    "how",
    [
        "newton",
        "sketched-newton:sketch=rows",
        "inexact-sqp",
        "inexact-sqp:solver=minres",
        "augmented-lagrangian",
    ],
)
def test_formulas_are_minimised_under_equations_and_inequalities(how):
    words = [
        "solve",
        "constrained",
        "x1 + x2",
        "--subject-to",
        "x1**2 + x2**2 - 2",
        "--start=-1.5,-0.5",
        "--json",
    ]
    done = thalweg(*words, "--method", how)
    assert done.returncode == 0, done.stderr
    told = json.loads(done.stdout)
    assert told["x"] == pytest.approx([-1.0, -1.0], abs=1e-6)
    assert told["multipliers"] == pytest.approx([0.5], abs=1e-6)
    assert told["strict_minimum"]


def test_formulas_with_slips_are_told():
    done = thalweg("solve", "constrained", "x1 + y", "--subject-to", "x1", "--start", "0")
    assert done.returncode == 2
    assert "the unknowns are x1 to x1" in done.stderr
    done = thalweg("solve", "constrained", "x1", "--subject-to", "x1", "--start", "one")
    assert "is no list of numbers" in done.stderr


def test_a_code_is_planned_on_the_times_of_a_file(tmp_path):
    seconds = np.ones((40, 8))
    seconds[np.arange(40), np.arange(40) % 8] = 6.0
    np.savetxt(tmp_path / "delays.csv", seconds, delimiter=",")
    words = ["coding", "plan", "--profile", tmp_path / "delays.csv", "--workers", 8, "--slope", 2]
    done = thalweg(*words, "--json")
    assert done.returncode == 0, done.stderr
    ranked = json.loads(done.stdout)["ranked"]
    assert len(ranked) == 4
    assert [r["seconds"] for r in ranked] == sorted(r["seconds"] for r in ranked)
    assert next(r for r in ranked if r["scheme"] == "Uncoded")["seconds"] == pytest.approx(240.0)
    done = thalweg(*words[:-2], "--page", tmp_path / "page.html")
    assert "measure it" in done.stdout
    assert "Who was left out" in (tmp_path / "page.html").read_text()
    done = thalweg("coding", "plan", "--profile", tmp_path / "delays.csv", "--workers", 9)
    assert done.returncode == 2
    assert "has 8 columns, not 9" in done.stderr


def test_a_federation_is_reported_on_the_times_of_a_file(tmp_path):
    (tmp_path / "times.csv").write_text("10,20,70\n12,18,80\n")
    words = ["federated", "report", "--times", tmp_path / "times.csv", "--scheme", "fedfix", "--interval", 30]
    done = thalweg(*words)
    assert done.returncode == 0, done.stderr
    assert "unbiased" in done.stdout
    assert "every client within      3 aggregations" in done.stdout
    done = thalweg(*words, "--no-corrected", "--json")
    assert done.returncode == 1
    told = json.loads(done.stdout)
    assert told["neglected"] == [2]
    assert told["q"] == pytest.approx([3 / 7, 3 / 7, 1 / 7])
    (tmp_path / "samples.csv").write_text("100,100,200\n")
    done = thalweg(*words, "--samples", tmp_path / "samples.csv", "--json")
    assert json.loads(done.stdout)["p"] == [0.25, 0.25, 0.5]
    assert "Did you mean 'fedfix'" in thalweg(*words[:5], "fedfox").stderr


@pytest.mark.parametrize(
    ("times", "options", "samples", "message"),
    [
        ("1,2,3\n", [], "10,0,5\n", "client 1 has 0 examples"),
        ("a,b,c\n1,2,3\n", [], "a,b,c\n10,5,-1\n", "client c has -1 examples"),
        ("1,2,3\n", [], "10,5\n", "--samples has 2 numbers; expected one for each of 3 clients"),
        ("1,2,3\n", [], "10,nan,5\n", "first in row 0, column 1"),
        ("1,2,3\n2,0,5\n", [], None, "row 1, client 1 (from 0) is 0"),
        (
            "1,2,3\n",
            ["--scheme", "sampled", "--count", "7"],
            None,
            "--count is at most the number of clients, 3",
        ),
    ],
)
def test_a_report_tells_which_value_is_bad(tmp_path, times, options, samples, message):
    (tmp_path / "times.csv").write_text(times)
    words = ["federated", "report", "--times", tmp_path / "times.csv", *options]
    if samples is not None:
        (tmp_path / "samples.csv").write_text(samples)
        words += ["--samples", tmp_path / "samples.csv"]
    done = thalweg(*words)
    assert (done.returncode, done.stderr.count("\n")) == (2, 1)
    assert message in done.stderr


def test_sampled_clients_are_at_most_all_by_default(tmp_path):
    (tmp_path / "times.csv").write_text("1,2,3\n")
    done = thalweg("federated", "report", "--times", tmp_path / "times.csv", "--scheme", "sampled")
    assert done.returncode == 0, done.stderr


def test_an_equilibrium_of_a_game_in_a_file_is_found(tmp_path):
    (tmp_path / "pay.csv").write_text("2,-1\n-1,1\n")
    for method in ("pdhg", "extragradient", "pdhg:every=10"):
        words = ["solve", "equilibrium", tmp_path / "pay.csv", "--method", method, "--json"]
        done = thalweg(*words, "--out", tmp_path / "s.npz")
        assert done.returncode == 0, done.stderr
        told = json.loads(done.stdout)
        assert told["metrics"]["gap"] < 1e-5
        assert told["x"] == pytest.approx([0.4, 0.6], abs=1e-4)
        with np.load(tmp_path / "s.npz") as kept:
            assert kept["y"] == pytest.approx([0.4, 0.6], abs=1e-4)


def test_compare_prints_a_table_and_writes_a_page(files):
    page = files[0] / "page.html"
    done = thalweg(
        "compare",
        "linear",
        files[0] / "A.mtx",
        "--method",
        "cg",
        "--method",
        "sor:omega=1.6",
        "--report",
        page,
    )
    assert done.returncode == 0, done.stderr
    assert "sor:omega=1.6" in done.stdout
    text = page.read_text(encoding="utf-8")
    assert "A: residual over steps" in text
    assert "A: residual over time" in text
    assert "Performance profile" not in text  # of one problem it says nothing
    rows = json.loads(
        thalweg("compare", "linear", files[0] / "A.mtx", files[0] / "skew.mtx", "--json").stdout
    )
    assert {row["method"] for row in rows} >= {"cg", "gmres", "direct"}
    refused = [r for r in rows if r["problem"] == "skew" and r["method"] == "cg"]
    assert refused[0]["status"].startswith("refused")


def test_schedule_refine_writes_what_it_tells(tmp_path):
    np.savez(tmp_path / "norms.npz", l1=np.full(101, 7.0), l2=np.full(101, 3.0))
    options = ["--geometry", "l1", "--out", "schedule.npy", "--plot", "page.html", "--steps", "11"]
    done = thalweg("schedule", "refine", "norms.npz", *options, cwd=tmp_path)
    assert done.returncode == 0, done.stderr
    assert "11 steps from 101 recorded" in done.stdout
    np.testing.assert_allclose(np.load(tmp_path / "schedule.npy"), np.linspace(1, 0, 11), atol=1e-9)
    assert "Gradient norms" in (tmp_path / "page.html").read_text()
    told = json.loads(thalweg("schedule", "refine", "norms.npz", "--json", cwd=tmp_path).stdout)
    assert told["warmup"] == 0.0
    assert told["guarantee, of linear decay's"] == pytest.approx(1.0)
    for steps in ("0", "-3"):
        failed = thalweg("schedule", "refine", "norms.npz", "--steps", steps, cwd=tmp_path)
        assert (failed.returncode, failed.stdout) == (2, "")
        assert f"--steps needs a whole number >= 1; got {steps}" in failed.stderr
    failed = thalweg("schedule", "refine", "none.csv", cwd=tmp_path)
    assert failed.returncode == 2
    assert "No file none.csv" in failed.stderr


def test_reproduce_prints_the_documented_json_and_keeps_what_is_done(tmp_path):
    done = thalweg("reproduce", "rex-schedule", "--scale", "smoke", "--json", "--runs", tmp_path)
    assert done.returncode == 0, done.stderr
    told = json.loads(done.stdout)
    assert set(told) == {"rex-schedule"}
    for verdict in told["rex-schedule"]:
        assert list(verdict) == [
            "claim",
            "measured",
            "required",
            "relation",
            "interval",
            "outcome",
            "holds",
        ]
    assert (tmp_path / "report.html").exists()
    (tmp_path / "report.html").unlink()
    assert thalweg("report", "--runs", tmp_path).returncode == 0
    assert "REX" in (tmp_path / "report.html").read_text()


class TestEveryArea:
    """What each area's row gives it, whatever the area."""

    SOLVED: ClassVar = {
        "linear": ("A.csv",),
        "convex": ("table.csv", "--target", "y", "--l1", "0.5"),
        "constrained": ("x1 + x2", "--subject-to", "x1**2 + x2**2 - 2", "--start=-1.5,-0.5"),
        "equilibrium": ("game.csv",),
    }
    BUDGET: ClassVar = {
        "linear": ("sor", 2),
        "convex": ("bcd:size=1,select=cyclic,update=gradient", 2),
        "constrained": ("newton", 2),
        "equilibrium": ("extragradient", 3),
    }

    @pytest.fixture
    def folder(self, tmp_path):
        (tmp_path / "A.csv").write_text("4,1\n1,3\n")
        (tmp_path / "game.csv").write_text("2,-1\n-1,1\n")
        rows = np.random.default_rng(0).standard_normal((30, 3))
        table = np.c_[rows, rows @ [1.0, -2.0, 0.0]]
        np.savetxt(tmp_path / "table.csv", table, delimiter=",", header="a,b,c,y", comments="")
        return tmp_path

    @pytest.mark.parametrize("area", SOLVED)
    def test_it_is_solved_by_default_with_answer_and_page(self, folder, area):
        words = ["solve", area, *self.SOLVED[area], "--out", "x.npz", "--report", "p.html", "--json"]
        done = thalweg(*words, cwd=folder)
        assert done.returncode == 0, done.stderr + done.stdout
        told = json.loads(done.stdout, parse_constant=lambda word: pytest.fail(f"{word} is no JSON"))
        assert told["status"] == "converged"
        assert np.load(folder / "x.npz")["x"].size >= 2
        assert f"thalweg solve {area}" in (folder / "p.html").read_text(encoding="utf-8")

    @pytest.mark.parametrize("area", SOLVED)
    def test_a_run_cut_short_goes_on_from_its_checkpoint(self, folder, area):
        method, few = self.BUDGET[area]
        words = ["solve", area, *self.SOLVED[area], "--method", method, "--json"]
        whole = json.loads(thalweg(*words, cwd=folder).stdout)
        assert thalweg(*words, "--steps", few, "--checkpoint", "c", cwd=folder).returncode == 1
        resumed = json.loads(thalweg(*words, "--resume", "c", cwd=folder).stdout)
        assert (resumed["steps"], resumed["metrics"]) == (whole["steps"], whole["metrics"])

    @pytest.mark.parametrize("area", SOLVED)
    def test_its_methods_are_compared_and_listed(self, folder, area):
        done = thalweg("compare", area, *self.SOLVED[area], "--steps", "300", "--json", cwd=folder)
        assert done.returncode == 0, done.stderr
        rows = json.loads(done.stdout)
        assert len(rows) >= 3
        assert any(row["status"] == "converged" for row in rows)
        listed = thalweg("list", area).stdout
        for row in rows:
            assert row["method"][:20] in listed

    def test_programs_are_compared_by_samplers(self, folder):
        (folder / "space.toml").write_text('[x]\ntype = "real"\nlow = 0.0\nhigh = 1.0\n', encoding="utf-8")
        words = [
            "compare",
            "blackbox",
            "--space",
            "space.toml",
            "--steps",
            "3",
            "--json",
            "--",
            "echo",
            "{x}",
        ]
        done = thalweg(*words, cwd=folder)
        assert done.returncode == 0, done.stderr
        assert json.loads(done.stdout)[0]["method"] == "bayesian-optimization"

    @pytest.mark.parametrize(
        ("name", "words"),
        [("pdhg", "PDHG"), ("bcd", "blocks"), ("newton", "NewtonSQP"), ("linear/cg", "Conjugate")],
    )
    def test_methods_of_every_area_are_explained(self, name, words):
        done = thalweg("show", name)
        assert done.returncode == 0, done.stderr
        assert words in done.stdout

    def test_files_of_the_same_name_stay_apart(self, tmp_path):
        for folder, first in (("r1", "4"), ("r2", "9")):
            (tmp_path / folder).mkdir()
            (tmp_path / folder / "A.csv").write_text(f"{first},1\n1,3\n")
        words = ["compare", "linear", "r1/A.csv", "r2/A.csv", "--method", "direct", "--json"]
        rows = json.loads(thalweg(*words, cwd=tmp_path).stdout)
        assert [row["problem"] for row in rows] == ["r1/A.csv", "r2/A.csv"]

    def test_options_without_defaults_are_read_and_asked_for(self, folder):
        done = thalweg("solve", "linear", "A.csv", "--method", "flexible-cg", cwd=folder)
        assert done.returncode == 2
        assert "flexible-cg needs preconditioner, which text cannot say" in done.stderr


def test_the_program_itself_ends_with_the_status_and_one_line(tmp_path):
    command = [sys.executable, "-m", "thalweg", "solve", "linear", "absent.mtx"]
    done = subprocess.run(command, capture_output=True, text=True, cwd=tmp_path)
    assert (done.returncode, len(done.stderr.splitlines())) == (2, 1)
    assert done.stderr.startswith("Error: No file absent.mtx.")


def test_the_version_is_told():
    from thalweg import __version__

    assert thalweg("--version").stdout.strip() == f"thalweg {__version__}"


def test_every_argument_explains_itself():
    for area, words in (("linear", ".mtx"), ("equilibrium", "row player pays"), ("convex", ".svm")):
        assert words in thalweg("solve", area, "--help").stdout


def test_an_error_of_any_kind_is_one_line_and_a_traceback_on_request(tmp_path):
    words = [
        "solve",
        "constrained",
        "x1",
        "--subject-to",
        "x1",
        "--start",
        "0",
        "--out",
        tmp_path / "no" / "x.npy",
    ]
    (tmp_path / "no").write_text("a file where a folder should be")
    done = thalweg(*words)
    assert (done.returncode, len(done.stderr.strip().splitlines())) == (2, 1)
    assert "Traceback" not in done.stderr
    assert "Traceback" in thalweg("--debug", *words).stderr
    assert "Traceback" in thalweg(*words, "--debug").stderr


def test_a_folder_to_write_to_is_refused_before_the_work(tmp_path):
    (tmp_path / "A.csv").write_text("4,1\n1,3\n")
    for option in ("--out", "--report", "--checkpoint"):
        done = thalweg("solve", "linear", "A.csv", option, tmp_path, cwd=tmp_path)
        assert done.returncode == 2
        assert "is a folder; name a file in it" in done.stderr
    done = thalweg("solve", "linear", "A.csv", "--out", "x.mat", cwd=tmp_path)
    assert "expected .npy, .npz or .csv" in done.stderr


@pytest.mark.parametrize("ending", ["npy", "npz", "csv"])
def test_the_answer_is_written_by_the_ending(tmp_path, ending):
    (tmp_path / "A.csv").write_text("4,1\n1,3\n")
    assert thalweg("solve", "linear", "A.csv", "--out", f"x.{ending}", cwd=tmp_path).returncode == 0
    path = tmp_path / f"x.{ending}"
    x = np.loadtxt(path, delimiter=",") if ending == "csv" else np.load(path)
    np.testing.assert_allclose(x["x"] if ending == "npz" else x, [2 / 11, 3 / 11], rtol=1e-7)


class TestBadInput:
    @pytest.mark.parametrize(
        ("arguments", "message"),
        [
            (["solve", "linear", "A.mtx", "--method", "sorr"], "No method 'sorr'. Did you mean 'sor'?"),
            (["solve", "linear", "A.mtx", "--method", "sor:omga=1"], "Did you mean 'omega'?"),
            (["solve", "linear", "A.mtx", "--method", "sor:omega=x"], "omega needs a number"),
            (["solve", "linear", "A.mtx", "--method", "sor:omega=2.5"], "omega in (0, 2)"),
            (["solve", "linear", "absent.mtx"], "No file absent.mtx"),
            (["solve", "linear", "wide.mtx"], "A is 2 x 3; a square matrix is needed"),
            (["solve", "linear", "A.mtx", "--rhs", "short.npy"], "b has shape (3,); expected (144,)"),
            (["solve", "linear", "skew.mtx", "--method", "cg"], "not symmetric"),
            (["solve", "linear", "broken.mtx"], "could not be read"),
            (["show", "rexx"], "Did you mean 'rex'?"),
            (["list", "liner"], "Did you mean 'linear'?"),
            (["reproduce", "99"], "No system '99'"),
            (["reproduce", "02", "--scale", "huge"], "scale is one of"),
            (
                ["reproduce", "02", "--record"],
                "--record needs --scale full: that is what is kept; got 'quick'",
            ),
            (["report", "--runs", "nowhere"], "Run `thalweg reproduce` first"),
        ],
    )
    def test_it_is_told_in_one_line_with_exit_status_2(self, files, arguments, message):
        folder = files[0]
        np.save(folder / "short.npy", np.ones(3))
        (folder / "broken.mtx").write_text("%%MatrixMarket nonsense\n")
        done = thalweg(*arguments, cwd=folder)
        assert done.returncode == 2
        assert message in done.stderr
        assert "Traceback" not in done.stderr


class TestConvex:
    @pytest.fixture
    def rows(self, tmp_path):
        rng = np.random.default_rng(0)
        X = rng.standard_normal((60, 6))
        y = X[:, 0] - 2 * X[:, 1]
        header = ",".join([*(f"x{i}" for i in range(6)), "y"])
        for name, target in (
            ("squares", y),
            ("logistic", y > 0.3 * rng.standard_normal(60)),
            ("many", np.digitize(y, [-1, 1])),
        ):
            np.savetxt(tmp_path / f"{name}.csv", np.c_[X, target], delimiter=",", header=header, comments="")
        return tmp_path

    @pytest.mark.parametrize(
        "words",
        [
            ("squares.csv", "--l1", 5, "--method", "bcd:select=gsq,update=bound,size=2"),
            ("squares.csv", "--nonnegative", "--method", "bcd:blocks=sorted,select=cyclic,size=3"),
            ("logistic.csv", "--loss", "logistic", "--l1", 1, "--method", "bcd:update=two-metric"),
            ("squares.csv", "--group", 20, "--group-size", 2, "--method", "bcd:select=progress,size=2"),
            ("squares.csv", "--l1", 5, "--method", "accelerated"),
            ("many.csv", "--loss", "multiclass", "--group", 3, "--method", "bcd:size=2"),
            ("squares.csv", "--l1", 5),
            (
                "many.csv",
                "--loss",
                "multiclass",
                "--ridge",
                0.1,
                "--method",
                "bcd:blocks=random,select=lipschitz",
            ),
        ],
    )
    def test_losses_of_a_file_are_minimised(self, rows, words):
        done = thalweg(
            "solve", "convex", rows / words[0], "--target", "y", *words[1:], "--json", "--out", rows / "x.npy"
        )
        assert done.returncode == 0, done.stderr
        told = json.loads(done.stdout)
        assert told["metrics"]["violation"] <= 1e-5
        assert np.count_nonzero(np.load(rows / "x.npy")) == told["nonzero"]

    def test_svmlight_files_do_too(self, rows):
        from sklearn.datasets import dump_svmlight_file

        table = np.loadtxt(rows / "logistic.csv", delimiter=",", skiprows=1)
        dump_svmlight_file(table[:, :-1], table[:, -1], str(rows / "rows.svm"))
        done = thalweg("solve", "convex", rows / "rows.svm", "--loss", "logistic", "--l1", 1)
        assert done.returncode == 0, done.stderr
        assert "coefficients are not zero" in done.stdout

    @pytest.mark.parametrize(
        ("words", "message"),
        [
            (("--target", "y", "--method", "bcd:select=gsx"), "No select of bcd 'gsx'. Did you mean"),
            (("--target", "y", "--method", "bcd:blocks=heaps"), "No blocks of bcd 'heaps'"),
            (
                ("--target", "y", "--loss", "logistic"),
                "which is no class: classes are words or whole numbers",
            ),
            (("--target", "y", "--group", 1), "--group needs --group-size"),
            (
                ("--target", "y", "--group", 1, "--group-size", 2, "--method", "bcd:blocks=random"),
                "cut groups in two",
            ),
            ((), "holds no target"),
        ],
    )
    def test_bad_words_are_told(self, rows, words, message):
        done = thalweg("solve", "convex", rows / "squares.csv", *words)
        assert done.returncode == 2
        assert message in " ".join(done.stderr.split())


class TestWhatWasDone:
    """The method that a problem chose, and how a run ended, are told in words, in JSON and on the page."""

    @pytest.fixture
    def matrix(self, tmp_path, monkeypatch):
        monkeypatch.chdir(tmp_path)
        A = sp.diags_array([[-1.0] * 29, [4.0] * 30, [-1.0] * 29], offsets=[-1, 0, 1])
        scipy.io.mmwrite(tmp_path / "A.mtx", A)
        return tmp_path

    def test_the_method_is_named(self, matrix):
        told = thalweg("solve", "linear", "A.mtx").stdout
        assert "Method: SSORCG(), chosen by the problem" in told
        told = thalweg("solve", "linear", "A.mtx", "--method", "sor:omega=1.1").stdout
        assert "Method: SOR(omega=1.1)\n" in told
        told = thalweg("solve", "linear", "A.mtx", "--json").stdout
        assert json.loads(told)["method"] == "SSORCG()"

    def test_the_page_has_a_table_with_all_of_it(self, matrix):
        thalweg("solve", "linear", "A.mtx", "--report", "page.html")
        shell = (matrix / "page.html").read_text().split("<script>", 1)[0]
        for word in ("<td>A</td>", "<td>SSORCG()</td>", "<td>converged</td>", "<th>residual</th>", "1e-08."):
            assert word in shell


def test_no_range_of_numbers_takes_nan(tmp_path):
    def ranges(command):
        found = [p for p in command.params if type(p.type).__name__ == "FloatRange"]
        return found + [p for below in getattr(command, "commands", {}).values() for p in ranges(below)]

    found = ranges(cli._command())
    assert len(found) > 20
    for parameter in found:
        assert parameter.type.convert("0.5", parameter, None) == 0.5
        with pytest.raises(Exception, match="'nan' is no number") as caught:
            parameter.type.convert("nan", parameter, None)
        assert isinstance(caught.value, cli._TOLD)
    done = thalweg("dictionary", tmp_path / "x.csv", "--seconds", "nan")
    assert done.returncode == 2
    assert "Invalid value for '--seconds': 'nan' is no number." in done.stderr
