"""What files are taken for, and commands that run as they are printed."""

from __future__ import annotations

import shlex

import numpy as np
import pandas as pd
import pytest
import scipy.io
import scipy.sparse as sp
from hypothesis import given
from hypothesis import strategies as st

from running import thalweg
from thalweg.core import InvalidProblem, ThalwegError, UnreadableFile
from thalweg.numerics import FivePointStencil
from thalweg.workbench.advice import advise, look


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    here = tmp_path_factory.mktemp("files of users")
    rng = np.random.default_rng(0)
    X = rng.standard_normal((80, 6))
    names, line = [f"f{i}" for i in range(6)], X @ [2.0, -1.0, 0, 0, 0, 0]

    def table(name, frame):
        frame.to_csv(here / name, index=False)

    features = pd.DataFrame(X, columns=names)
    pairs = pd.DataFrame(
        {"user": rng.integers(0, 30, 400), "item": rng.integers(0, 20, 400)}
    ).drop_duplicates()
    table("ratings.csv", pairs.assign(rating=rng.integers(1, 6, len(pairs))))
    table("prices.csv", features.assign(price=line))
    table("kinds.csv", features.assign(kind=np.where(line > 0, "good", "bad")))
    table("source.csv", features.assign(label=(line > 0).astype(int)))
    table("target.csv", features[:50] + 0.5)
    table("holes.csv", features.mask(rng.random(X.shape) < 0.3))
    table("norms.csv", pd.DataFrame({"l2": 1 / np.arange(1, 200) ** 0.5}))
    table(
        "times.csv",
        pd.DataFrame(rng.exponential(size=(50, 4)) + 0.1, columns=[f"client{i}" for i in range(4)]),
    )
    table("grouped.csv", features.assign(group=np.where(X[:, 5] > 0, "a", "b"), y=line))
    table("stray.csv", features.assign(group=np.where(X[:, 5] > 0, "a", "b"), f0=["foo", *X[1:, 0]], y=line))
    letters = ["".join(rng.choice(list("ACGT"), 8)) for _ in range(150)]
    table("dna.csv", pd.DataFrame({"sequence": letters, "score": rng.random(150)}))
    table(
        "ragged.csv",
        pd.DataFrame({"sequence": [s[: 5 + i % 3] for i, s in enumerate(letters)], "score": 1.0}),
    )
    np.savetxt(here / "before.csv", rng.standard_normal((100, 3)), delimiter=",")
    np.savetxt(here / "after.csv", rng.standard_normal((120, 3)) + 1, delimiter=",")
    np.savetxt(here / "payoffs.csv", rng.integers(-5, 6, (4, 5)), delimiter=",", fmt="%.1f")
    np.save(here / "b.npy", np.ones(36))
    np.savez(here / "xy.npz", X=X, y=(line > 0).astype(int))
    scipy.io.mmwrite(here / "A.mtx", FivePointStencil(6, 6).to_csr())
    scipy.io.mmwrite(here / "skew.mtx", sp.csr_array(np.array([[2.0, 1.0], [0.0, 2.0]])))
    scipy.io.mmwrite(here / "wide.mtx", sp.random_array((20, 50), density=0.1, rng=0))
    (here / "s.fasta").write_text(">a\nACGT\n>b\nACGA\n")
    return here


#: files -> what fits first, and the commands that stand there.
FIRST = {
    ("ratings.csv",): ("ratings to complete", 2),
    ("prices.csv",): ("a regression or a classification with penalties", 2),
    ("kinds.csv",): ("a regression or a classification with penalties", 2),
    ("xy.npz",): ("a regression or a classification with penalties", 2),
    ("source.csv", "target.csv"): ("labels in one domain, use in another", 1),
    ("before.csv", "after.csv"): ("a cloud of points to carry to another", 2),
    ("norms.csv",): ("a schedule from gradient norms", 1),
    ("dna.csv",): ("sequences to improve", 1),
    ("payoffs.csv",): ("a regression or a classification with penalties", 0),
    ("holes.csv",): ("ratings to complete", 1),
    ("A.mtx",): ("a linear system A x = b", 2),
    ("A.mtx", "b.npy"): ("a linear system A x = b", 2),
    ("skew.mtx",): ("a linear system A x = b", 2),
}


def asked(folder, files):
    return advise([folder / name for name in files])[1]


@pytest.mark.parametrize("files", FIRST, ids=" ".join)
def test_files_are_taken_for_what_they_are(folder, files):
    found = asked(folder, files)
    what, commands = FIRST[files]
    assert (found[0].what, found[0].fits, len(found[0].commands)) == (what, True, commands)
    fits = [advice.fits for advice in found]
    assert fits == sorted(fits, reverse=True)


def test_a_question_decides_where_files_may_be_several_things(folder):
    found = {advice.what: advice for advice in asked(folder, ["times.csv"]) if advice.fits}
    assert {"times of clients or workers", "a regression or a classification with penalties"} <= set(found)
    assert all(advice.question for advice in found.values())
    assert "federated report --times" in found["times of clients or workers"].commands[0]
    games = [advice for advice in asked(folder, ["payoffs.csv"]) if advice.what == "a zero-sum game"]
    assert games[0].fits
    assert "pays the column player" in games[0].question


def test_rows_in_groups_may_be_predictions_that_are_good_on_every_group(folder):
    (found,) = [advice for advice in asked(folder, ["grouped.csv"]) if advice.systems == ("24",)]
    assert found.fits
    assert "--target y --groups group" in found.commands[0]
    assert "is 'y' seen after each, and must no group be worse off" in found.question
    (stray,) = [advice for advice in asked(folder, ["stray.csv"]) if advice.systems == ("24",)]
    assert (stray.fits, stray.why) == (
        False, "Column 'f0' holds 80 different words. Mend it or leave it out first."
    )  # fmt: skip
    assert not [advice for advice in asked(folder, ["prices.csv"]) if advice.systems == ("24",)]


COMMANDS = [
    ("ratings.csv",),
    ("prices.csv",),
    ("kinds.csv",),
    ("source.csv", "target.csv"),
    ("before.csv", "after.csv"),
    ("norms.csv",),
    ("times.csv",),
    ("payoffs.csv",),
    ("A.mtx", "b.npy"),
    ("dna.csv",),
    ("grouped.csv",),
]


@pytest.mark.parametrize("files", COMMANDS, ids=" ".join)
def test_every_command_runs_as_it_is_printed(folder, files, tmp_path, monkeypatch):
    """From another folder, through the shell's quoting: the files lie in a folder whose name has blanks."""
    monkeypatch.chdir(tmp_path)
    for advice in asked(folder, files):
        for command in advice.commands:
            words = shlex.split(command)
            if words[0] != "thalweg" or words[1] in ("search", "double-descent"):
                continue
            few = ["--steps", "2"] if words[1] in ("solve", "compare") else []
            done = thalweg(*words[1:], *few)
            assert done.returncode in (0, 1), (command, done.stderr)


def test_what_does_not_fit_is_told_with_the_reason(folder):
    reasons = {advice.what: advice.why for advice in asked(folder, ["wide.mtx"])}
    assert reasons["a linear system A x = b"] == "20 x 50 is not square."
    assert "needs a target" in reasons["a regression or a classification with penalties"]
    (letters,) = asked(folder, ["s.fasta"])
    assert not letters.fits
    assert "needs a score for each sequence" in letters.why
    ragged = asked(folder, ["ragged.csv"])
    assert "Sequences of 5 to 7 letters" in next(a.why for a in ragged if a.systems == ("05",))
    clouds = asked(folder, ["before.csv", "prices.csv"])
    assert any("3 columns here, 7 there" in advice.why for advice in clouds)


class TestSight:
    @given(st.integers(2, 12), st.integers(0, 2**32 - 1), st.booleans())
    def test_definite_means_what_eigenvalues_say(self, n, seed, spread):
        """Wherever it says yes or no, the eigenvalues say so too."""
        from thalweg.workbench.advice.sight import _definite

        rng = np.random.default_rng(seed)
        Q = np.linalg.qr(rng.standard_normal((n, n)))[0]
        values = rng.uniform(0.1, 2.0, n) if spread else rng.uniform(-1.0, 2.0, n)
        A = (Q * values) @ Q.T
        least = np.linalg.eigvalsh(A)[0]
        if abs(least) > 1e-8:
            assert _definite(sp.csr_array((A + A.T) / 2)) is bool(least > 0)

    def test_a_large_matrix_that_no_look_decides_is_left_open(self):
        from thalweg.workbench.advice import sight

        A = FivePointStencil(60, 60).to_csr()  # its rows sum to zero inside: not strictly dominant
        assert sight._definite(A) is None
        assert "too large to see" in advise_on(A)

    def test_shape_symmetry_and_density_are_told(self, folder):
        seen = look(folder / "A.mtx")
        assert (seen.rows, seen.symmetric, seen.definite) == (36, True, True)
        assert look(folder / "skew.mtx").symmetric is False
        assert "6 with holes" in look(folder / "holes.csv").said()
        assert "1 of words" in look(folder / "kinds.csv").said()

    def test_one_row_or_column_is_a_vector(self, tmp_path):
        np.save(tmp_path / "b.npy", np.ones(7))
        assert look(tmp_path / "b.npy").said().endswith("a vector of 7 numbers.")

    def test_an_asymmetry_far_below_the_entries_counts_as_rounding(self, tmp_path):
        A = 1e20 * np.array([[2.0, 1.0], [1.0 + 1e-13, 2.0]])
        np.save(tmp_path / "a.npy", A)
        assert look(tmp_path / "a.npy").symmetric


def advise_on(A):
    import tempfile
    from pathlib import Path

    with tempfile.TemporaryDirectory() as where:
        path = Path(where) / "A.mtx"
        scipy.io.mmwrite(path, A)
        return advise([path])[1][0].why


class TestPictures:
    @pytest.fixture
    def here(self, tmp_path):
        image = pytest.importorskip("PIL.Image")
        for name in ("shop/cup/1.png", "shop/hat/1.png", "shop/hat/2.png", "street/1.png", "street/2.png"):
            (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
            image.new("RGB", (9, 8), "red").save(tmp_path / name)
        image.new("L", (9, 8), 100).save(tmp_path / "grey.png")
        return tmp_path

    def test_folders_with_classes_and_without_are_for_adaptation(self, here):
        sights, (first,) = advise([here / "shop", here / "street"])
        assert [sight.said().split(": ")[-1] for sight in sights] == [
            "3 pictures in 2 classes.",
            "2 pictures.",
        ]
        assert (first.systems, first.fits) == (("01",), True)
        words = shlex.split(first.commands[0])
        assert words[1:5] == ["solve", "adaptation", str(here / "shop"), str(here / "street")]

    @pytest.mark.parametrize(
        ("names", "why"), [(["shop"], "two folders"), (["street", "shop"], "no folder for each")]
    )
    def test_what_is_missing_is_told(self, here, names, why):
        _, (first,) = advise([here / name for name in names])
        assert not first.fits
        assert why in first.why

    def test_a_grey_picture_is_measurements_and_one_in_colour_is_not(self, here):
        _, (grey,) = advise([here / "grey.png"])
        assert grey.systems == ("34",)
        assert thalweg(
            *shlex.split(grey.commands[1])[1:-1], str(here / "out.png"), "--steps", "3"
        ).returncode in (0, 1)
        _, (colour,) = advise([here / "street" / "1.png"])
        assert not colour.fits
        assert "in colour" in colour.why

    def test_what_is_none_is_refused(self, here):
        (here / "torn.png").write_bytes(b"no picture")
        with pytest.raises(UnreadableFile, match="no picture, or damaged"):
            look(here / "torn.png")
        (here / "street" / "notes.txt").write_text("x", encoding="utf-8")
        with pytest.raises(InvalidProblem, match="of no ending that is read"):
            look(here / "street")


class TestBadFiles:
    @pytest.mark.parametrize(
        ("name", "words"),
        [
            ("none.csv", "No file"),
            ("a.pdf", "unknown ending"),
            ("empty.csv", "is empty"),
            ("b.npz", "no .npz file"),
        ],
    )
    def test_unreadable_files_are_refused(self, tmp_path, name, words):
        if name != "none.csv":
            (tmp_path / name).write_text("" if name == "empty.csv" else "%PDF")
        with pytest.raises(UnreadableFile, match=words):
            advise([tmp_path / name])

    def test_complex_numbers_and_nan_are_told_and_not_taken_for_something_else(self, tmp_path):
        np.save(tmp_path / "a.npy", 1j * np.eye(3))
        np.savez(tmp_path / "x.npz", X=1j * np.ones((4, 2)), y=np.arange(4))
        np.save(tmp_path / "n.npy", np.array([[np.nan, 1.0], [1.0, 2.0]]))
        for name, words in (("a.npy", "complex"), ("x.npz", "complex"), ("n.npy", "NaN")):
            with pytest.raises(ThalwegError, match=words):
                advise([tmp_path / name])

    def test_a_matrix_of_zeros_is_no_system(self, tmp_path):
        np.save(tmp_path / "z.npy", np.zeros((3, 3)))
        reasons = {a.what: a for a in advise([tmp_path / "z.npy"])[1]}
        assert not reasons["a linear system A x = b"].fits

    def test_no_file_and_one_twice(self, folder):
        with pytest.raises(InvalidProblem, match="at least one file"):
            advise([])
        with pytest.raises(InvalidProblem, match="is given twice"):
            advise([folder / "A.mtx", folder / "A.mtx"])

    @pytest.mark.parametrize("text", ["3\n", "1,2\n", "a,b\n1,2\n"])
    def test_a_table_of_one_row_breaks_nothing(self, tmp_path, text):
        (tmp_path / "t.csv").write_text(text)
        advise([tmp_path / "t.csv"])


class TestCommand:
    def test_it_tells_what_it_sees_and_races_what_fits(self, folder, tmp_path):
        page = tmp_path / "race.html"
        done = thalweg("advise", str(folder / "A.mtx"), "--try", "1", "--report", str(page))
        assert done.returncode == 0, done.stderr
        assert "symmetric, positive definite" in done.stdout
        assert "ssor-cg" in done.stdout
        assert page.exists()

    def test_json_is_the_same_advice(self, folder):
        import json

        done = thalweg("advise", str(folder / "ratings.csv"), "--json")
        rows = json.loads(done.stdout)
        assert [row["what"] for row in rows] == [a.what for a in asked(folder, ["ratings.csv"])]

    def test_what_cannot_be_raced_is_refused(self, folder):
        done = thalweg("advise", str(folder / "norms.csv"), "--try", "1")
        assert done.returncode == 2
        assert "nothing that fits can be raced" in done.stderr
        done = thalweg("advise", str(folder / "norms.csv"), "--report", "page.html")
        assert done.returncode == 2
        assert "say --try SECONDS too" in done.stderr

    def test_what_nothing_takes_is_refused_with_a_way_on(self, tmp_path):
        np.savez(tmp_path / "odd.npz", a=np.ones(3), b=np.ones((2, 2, 2)))
        done = thalweg("advise", str(tmp_path / "odd.npz"))
        assert done.returncode == 2
        assert "thalweg find WORDS" in done.stderr
