"""The command: two tables in, a moved table and a page out, and tables that do not go together."""

from __future__ import annotations

import json

import numpy as np
import pytest
from typer.testing import CliRunner

from thalweg.cli import app
from thalweg.core import InvalidProblem
from thalweg.transport import EntropicTransport


@pytest.fixture
def files(tmp_path, rng):
    for name, cloud in (
        ("before", rng.standard_normal((80, 2))),
        ("after", 5.0 + rng.standard_normal((70, 2))),
    ):
        np.savetxt(tmp_path / f"{name}.csv", cloud, delimiter=",", header="a,b", comments="")
    return tmp_path


def run(folder, *options):
    where = [str(folder / "before.csv"), str(folder / "after.csv")]
    return CliRunner().invoke(app, ["solve", "transport", *where, *options])


FAST = ("--eps", "0.5", "--components", "2", "--method", "light-sb:steps=300")


def test_a_table_is_carried_and_drawn(files):
    out, page = files / "moved.csv", files / "page.html"
    found = run(files, *FAST, "--out", str(out), "--report", str(page), "--json")
    assert found.exit_code == 0, found.output
    assert out.read_text().startswith("a,b\n")
    moved = np.loadtxt(out, delimiter=",", skiprows=1)
    assert moved.shape == (80, 2)
    np.testing.assert_allclose(moved.mean(0), 5.0, atol=0.5)
    told = json.loads(found.stdout)
    assert told["points"] == [80, 70]
    assert told["components"] == 2
    assert "Before, after and carried" in page.read_text()


def test_what_was_carried_is_carried_on(files):
    run(files, *FAST, "--out", str(files / "moved.csv"))
    words = ["solve", "transport", str(files / "moved.csv"), str(files / "after.csv"), *FAST]
    assert CliRunner().invoke(app, words).exit_code == 0
    run(files, *FAST, "--out", str(files / "moved.npz"))
    table = np.loadtxt(files / "moved.csv", delimiter=",", skiprows=1)
    np.testing.assert_array_equal(table, np.load(files / "moved.npz")["mean"])


def test_a_table_without_names_is_carried_to_one_without(files):
    for name in ("before", "after"):
        lines = (files / f"{name}.csv").read_text().splitlines(keepends=True)
        (files / f"{name}.csv").write_text("".join(lines[1:]))
    assert run(files, *FAST, "--out", str(files / "moved.csv")).exit_code == 0
    assert np.loadtxt(files / "moved.csv", delimiter=",").shape == (80, 2)


def test_names_are_as_many_as_columns(rng):
    with pytest.raises(InvalidProblem, match="1 names of columns; the clouds have 2"):
        EntropicTransport(rng.standard_normal((9, 2)), rng.standard_normal((9, 2)), 0.5, 1, names=["a"])


def test_all_arrays_go_into_one_file(files):
    assert run(files, *FAST, "--out", str(files / "moved.npz")).exit_code == 0
    with np.load(files / "moved.npz") as arrays:
        assert {name: arrays[name].shape for name in arrays} == {
            "mean": (80, 2),
            "drawn": (80, 2),
            "parameters": (2, 5),
        }


def test_one_column_is_drawn_by_its_quantiles(files):
    for name in ("before", "after"):
        table = np.loadtxt(files / f"{name}.csv", delimiter=",", skiprows=1)[:, :1]
        np.savetxt(files / f"{name}.csv", table, header="a", comments="")
    assert run(files, *FAST, "--report", str(files / "page.html")).exit_code == 0
    assert "share below" in (files / "page.html").read_text()


def test_tables_that_do_not_go_together_are_refused(files):
    (files / "after.csv").write_text("b,a\n1.5,2.5\n3.5,4.5\n")
    found = run(files, *FAST)
    assert "has columns a, b" in str(found.exception)
    (files / "after.csv").write_text("a,b\n1.5,red\n3.5,blue\n")
    assert "column 'b' holds words" in str(run(files, *FAST).exception)


def test_an_unknown_covariance_is_refused(files):
    found = run(files, *FAST, "--covariance", "ful")
    assert "Did you mean 'full'?" in str(found.exception)


def series(folder, rng, count=4):
    for t in range(count):
        cloud = 0.3 * rng.standard_normal((60, 2)) + [3.0 * t, 0.0]
        np.savetxt(folder / f"day{t}.csv", cloud, delimiter=",", header="a,b", comments="")
    paths = [str(folder / f"day{t}.csv") for t in range(count)]
    between = [word for path in paths[1:-1] for word in ("--between", path)]
    return ["solve", "transport", paths[0], paths[-1], *between, *FAST]


def test_clouds_in_between_are_left_out_and_judged(tmp_path, rng):
    words, page = series(tmp_path, rng), tmp_path / "page.html"
    found = CliRunner().invoke(app, [*words, "--json", "--report", str(page)])
    assert found.exit_code == 0, found.output
    told = json.loads(found.stdout)["left_out"]
    assert [row["time"] for row in told] == [1.0, 2.0]
    for (
        row
    ) in told:  # the cloud moves three units a day without a turn: the bridge passes near, a day off does not
        assert row["bridge"] < 1.0 < 2.5 < row["before"]
    assert "Each time left out" in page.read_text()
    found = CliRunner().invoke(app, [*words, "--times", "0,1,5,6"])
    assert "Time 5 left out" in " ".join(found.output.split())


@pytest.mark.parametrize("times", ["0,1", "0,2,1,3", "0,1,2,nan", "a,b,c,d"])
def test_times_that_do_not_go_with_the_clouds_are_refused(tmp_path, rng, times):
    found = CliRunner().invoke(app, [*series(tmp_path, rng), "--times", times])
    assert "--times" in str(found.exception)


def test_a_cloud_in_between_of_other_columns_is_named(tmp_path, rng):
    words = series(tmp_path, rng)
    (tmp_path / "day1.csv").write_text("a,c\n1,2\n3,4\n")
    assert "day1.csv has a, c" in str(CliRunner().invoke(app, words).exception)


@pytest.mark.parametrize("method", ["bridge-matching:steps=20", "full-batch"])
def test_other_methods_are_called_by_name(files, method):
    found = run(files, "--eps", "0.5", "--components", "2", "--method", method, "--json")
    assert json.loads(found.stdout)["points"] == [80, 70]


def test_annotated_cells_are_carried(files, monkeypatch):
    anndata = pytest.importorskip("anndata")
    monkeypatch.setattr(anndata.settings, "allow_write_nullable_strings", True)  # pandas 3 names rows so
    for name in ("before", "after"):
        cloud = np.loadtxt(files / f"{name}.csv", delimiter=",", skiprows=1)
        cells = anndata.AnnData(np.ones((len(cloud), 3)), obsm={"X_pca": cloud})
        cells.write_h5ad(files / f"{name}.h5ad")
    words = [
        str(files / "before.h5ad"),
        str(files / "after.h5ad"),
        "--key",
        "X_pca",
        "--out",
        str(files / "m.npz"),
    ]
    assert CliRunner().invoke(app, ["solve", "transport", *words, *FAST]).exit_code == 0
    np.testing.assert_allclose(np.load(files / "m.npz")["mean"].mean(0), 5.0, atol=0.5)
