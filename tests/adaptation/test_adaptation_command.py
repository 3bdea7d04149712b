"""The command: a labelled table and another one in, labels and a page out."""

from __future__ import annotations

import json

import numpy as np
import pandas as pd
import pytest
from PIL import Image
from typer.testing import CliRunner

from thalweg.cli import app


@pytest.fixture
def files(tmp_path, rng):
    y = np.array(["cat", "dog", "emu"])[np.arange(150) % 3]
    X = rng.standard_normal((150, 4)) + 5.0 * np.eye(4)[np.arange(150) % 3]
    other = 3.0 * (rng.standard_normal((90, 4)) + 5.0 * np.eye(4)[np.arange(90) % 3]) + 1.0
    np.savez(tmp_path / "source.npz", X=X, y=y)
    np.savez(tmp_path / "target.npz", X=other)
    np.savez(tmp_path / "known.npz", X=other, y=np.array(["cat", "dog", "emu"])[np.arange(90) % 3])
    names = ["a", "b", "c", "d"]
    pd.DataFrame(X, columns=names).assign(kind=y).to_csv(tmp_path / "source.csv", index=False)
    pd.DataFrame(other, columns=names).to_csv(tmp_path / "target.csv", index=False)
    return tmp_path


def run(folder, *words, files=("source.npz", "target.npz")):
    return CliRunner().invoke(app, ["solve", "adaptation", *[str(folder / f) for f in files], *words])


def test_labels_and_a_page_are_written(files):
    out, page = files / "labels.csv", files / "page.html"
    found = run(files, "--length", "150", "--out", str(out), "--report", str(page), "--json")
    assert found.exit_code == 0, found.output
    table = pd.read_csv(out)
    assert list(table.columns) == ["label", "probability"]
    assert (table["label"] == np.array(["cat", "dog", "emu"])[np.arange(90) % 3]).mean() > 0.9
    assert table["probability"].between(1 / 3, 1).all()
    told = json.loads(found.stdout)
    assert told["classes"] == 3
    assert "target_accuracy" not in told["metrics"]
    assert "Weights of the objectives" in page.read_text()


def test_labels_of_the_target_judge_and_change_nothing(files):
    plain, judged = files / "a.npz", files / "b.npz"
    assert run(files, "--length", "60", "--out", str(plain)).exit_code in (0, 1)
    found = run(files, "--length", "60", "--out", str(judged), files=("source.npz", "known.npz"))
    assert "Of the target's own labels" in found.stdout
    with np.load(plain) as a, np.load(judged) as b:
        np.testing.assert_array_equal(a["probability"], b["probability"])


def test_tables_name_their_labels(files):
    found = run(files, "--labels", "kind", "--length", "60", files=("source.csv", "target.csv"))
    assert found.exit_code in (0, 1), found.output
    assert "Held-out doubt" in found.stdout


@pytest.mark.parametrize(
    "method", ["pareto:base=mmd", "pareto:combiner=linear,weight=0.3", "pareto:base=source-only"]
)
def test_methods_are_named(files, method):
    found = run(files, "--length", "20", "--method", method)
    assert found.exit_code in (0, 1), found.output


def striped(folder, rng, count, upright, dark):
    """Pictures with stripes of random width and place, 20 x 30."""
    folder.mkdir(parents=True)
    for i in range(count):
        at = np.arange(30 if upright else 20) + int(rng.integers(8))
        stripes = (at // int(rng.integers(3, 6)) % 2).astype(float)
        plane = np.tile(stripes, (20, 1)) if upright else np.tile(stripes[:, None], (1, 30))
        plane = plane + 0.2 * rng.random((20, 30))
        grey = 255 * np.clip(0.5 * plane if dark else 0.4 + 0.6 * plane, 0, 1)
        Image.fromarray(np.stack([grey, 0.5 * grey, grey], -1).astype(np.uint8)).save(folder / f"{i:02}.png")


@pytest.fixture
def folders(tmp_path, rng):
    for name, upright in (("across", False), ("upright", True)):
        striped(tmp_path / "source" / name, rng, 40, upright, dark=False)
        striped(tmp_path / "known" / name, rng, 20, upright, dark=True)
    striped(tmp_path / "target", rng, 20, True, dark=True)
    striped(tmp_path / "target" / "more", rng, 20, False, dark=True)
    return tmp_path


def test_folders_of_pictures_are_labelled(folders):
    out = folders / "labels.csv"
    words = ("--size", "16", "--length", "150", "--out", str(out), "--json")
    found = run(folders, *words, files=("source", "target"))
    assert found.exit_code == 0, found.output
    table = pd.read_csv(out)
    assert list(table.columns) == ["file", "label", "probability"]
    right = np.where(table["file"].str.startswith("more/"), "across", "upright")
    assert (table["label"] == right).mean() > 0.9
    assert json.loads(found.stdout)["classes"] == 2
    assert "target_accuracy" not in json.loads(found.stdout)["metrics"]


def test_folders_of_the_target_that_are_classes_judge(folders):
    found = run(folders, "--size", "8", "--length", "20", "--grey", files=("source", "known"))
    assert found.exit_code in (0, 1), found.output
    assert "Of the target's own labels" in found.stdout


def test_folders_that_do_not_fit_are_told(folders):
    for names, message in (
        (("source", "missing.npz"), "one is a folder and one is not"),
        (("target", "known"), "00.png lies in no folder; expected a folder for each class"),
        (("one", "target"), "has the one class 'upright'"),
    ):
        if names[0] == "one":
            (folders / "one").mkdir()
            (folders / "source" / "upright").rename(folders / "one" / "upright")
        found = run(folders, "--size", "8", "--length", "5", files=names)
        assert found.exit_code != 0
        assert message in str(found.exception)


def test_what_does_not_fit_is_told(files):
    np.savez(files / "narrow.npz", X=np.ones((20, 3)))
    np.savez(files / "odd.npz", X=np.ones((20, 4)), y=np.array(["cow"] * 20))
    for names, words, message in (
        (("source.npz", "narrow.npz"), (), "4 columns"),
        (("source.npz", "odd.npz"), (), "the label 'cow', which the source has not"),
        (("target.npz", "source.npz"), (), "holds no target"),
        (("source.npz", "target.npz"), ("--hidden", "x"), "--hidden is whole numbers"),
        (("source.npz", "target.npz"), ("--method", "pareto:base=dan"), "dann"),
    ):
        found = run(files, *words, files=names)
        assert found.exit_code != 0
        assert message in str(found.exception)
