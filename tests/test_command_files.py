"""What the command reads and writes stay apart, and nothing that was said is passed over."""

from __future__ import annotations

import os
import tempfile

import numpy as np
import pytest

from running import COPIES, thalweg
from thalweg.core import InvalidParameter, InvalidProblem
from thalweg.core.files import check_target, write_text
from thalweg.datasets import load_pairs, load_ratings


def refused(done, words):
    assert done.returncode == 2, done.stdout
    assert words in " ".join(done.stderr.split())
    assert "Traceback" not in done.stderr
    assert "--debug" not in done.stderr


@pytest.fixture
def folder(tmp_path):
    rng = np.random.default_rng(0)
    X = rng.standard_normal((30, 4))
    np.savez(tmp_path / "data.npz", X=X, y=X @ [1.0, -2.0, 0.0, 0.5])
    np.savetxt(tmp_path / "table.csv", X, delimiter=",", header="a,b,c,d", comments="")
    ratings = [f"u{i},i{j},{(i * j) % 5 + 1}" for i in range(8) for j in range(6)]
    (tmp_path / "ratings.csv").write_text("user,item,rating\n" + "\n".join(ratings) + "\n")
    return tmp_path


class TestOutputs:
    @pytest.mark.parametrize(
        "words",
        [
            ("solve", "convex", "data.npz", "--out", "data.npz"),
            ("solve", "convex", "data.npz", "--out", "sub/../data.npz"),
            ("solve", "convex", "data.npz", "--checkpoint", "data.npz"),
            ("solve", "linear", "table.csv", "--rhs", "table.csv", "--out", "table.csv"),
            ("solve", "transport", "table.csv", "other.csv", "--out", "other.csv"),
            ("dictionary", "table.csv", "--out", "table.csv"),
            ("schedule", "refine", "table.csv", "--out", "table.csv"),
            ("align", "data.npz", "table.csv", "--ask", "table.csv"),
            ("predict", "data.npz", "ratings.csv", "--out", "ratings.csv"),
            ("search", "table.csv", "--keep", "table.csv", "--", "echo", "{row}"),
        ],
    )
    def test_what_is_read_is_never_overwritten(self, folder, words):
        (folder / "other.csv").write_bytes((folder / "table.csv").read_bytes())
        (folder / "sub").mkdir()
        before = {path.name: path.read_bytes() for path in folder.iterdir() if path.is_file()}
        refused(thalweg(*words, cwd=folder), "is read here, and would be overwritten")
        assert {path.name: path.read_bytes() for path in folder.iterdir() if path.is_file()} == before

    def test_two_outputs_in_one_file_are_refused(self, folder):
        done = thalweg("solve", "convex", "data.npz", "--out", "a.npz", "--checkpoint", "a.npz", cwd=folder)
        refused(done, "a.npz")
        assert not (folder / "a.npz").exists()

    def test_a_checkpoint_may_be_gone_on_with_in_its_place(self, folder):
        run = ("solve", "convex", "data.npz", "--method", "accelerated", "--tol", 0, "--checkpoint", "c")
        assert thalweg(*run, "--steps", 3, cwd=folder).returncode == 1
        done = thalweg(*run, "--steps", 6, "--resume", "c", cwd=folder)
        assert (done.returncode, "after 6 steps" in done.stdout) == (1, True)

    def test_a_place_that_takes_no_file_is_told_in_words(self, tmp_path):
        with pytest.raises(InvalidParameter, match="cannot be written: file name too long"):
            check_target(tmp_path / ("a" * 300))
        if os.path.isdir("/proc/self"):
            with pytest.raises(InvalidParameter, match=r"/proc/x cannot be written: .*Name another"):
                write_text("/proc/x", "")

    def test_a_folder_that_may_not_be_written_is_refused_before_the_work(self):
        """In a process without the rights of root, who may write anywhere."""
        with tempfile.TemporaryDirectory() as folder:
            os.chmod(folder, 0o555)
            here, there = COPIES.Pipe()
            process = COPIES.Process(target=told_without_rights, args=(there, folder))
            process.start()
            assert here.poll(60)
            assert f"you may not make files in {folder}" in here.recv()
            process.join()


def told_without_rights(pipe, folder):
    if os.geteuid() == 0:
        os.setuid(65534)
    try:
        check_target(f"{folder}/x.npy")
        pipe.send("nothing")
    except InvalidParameter as error:
        pipe.send(str(error))


class TestOptions:
    @pytest.mark.parametrize(
        ("words", "message"),
        [
            (("convex", "data.npz", "--method", "bcd:size=2,size=3"), "bcd: size is said twice"),
            (("convex", "data.npz", "--l1", "inf"), "finite l1 >= 0; got inf"),
            (("convex", "data.npz", "--ridge", "inf"), "finite ridge >= 0; got inf"),
            (("convex", "data.npz", "--group", "inf", "--group-size", 2), "finite group_weight >= 0"),
            (("convex", "data.npz", "--group-size", 2), "say its weight, --group, too"),
            (("convex", "data.npz", "--decay", 2), "say --relu too"),
            (("convex", "data.npz", "--relu", 3, "--draw", -1), "not in the range"),
            (("transport", "table.csv", "table.csv", "--eps-path", "nan"), "numbers by commas"),
            (("transport", "table.csv", "table.csv", "--eps-path", "0"), "shares above zero"),
            (
                ("inverse", "table.csv", "--operator", "blur:deviation=1,deviation=2"),
                "deviation is said twice",
            ),
            (("inverse", "table.csv", "--operator", "inpainting:acceleration=2"), "say its kind as well"),
            (("online", "table.csv", "--target", "d", "--groups", "a"), "as --groups a:35:50 does"),
            (("online", "losses.csv", "--method", "tsallis-inf:scale=1e400"), "finite scale > 0"),
            (("matrix", "ratings.csv", "--user", "item", "--item", "item"), "is named for"),
            (("matrix", "table.csv", "--user", "a", "--item", "a", "--duplicates", "mean"), "is named for"),
            (("matrix", "pairs.csv"), "each rating is 1, as where a file has no column of them"),
            (
                ("adaptation", "named.csv", "turned.csv", "--labels", "y"),
                "named.csv has the columns a, b; turned.csv has the columns b, a. Expected the same, in one order",
            ),
            (
                ("adaptation", "named.csv", "named.csv", "--labels", "y", "--method", "pareto:weight=1"),
                "weight is of combiner=linear; got combiner=preference",
            ),
            (("design", "letters.csv", "--targets", "nan"), "--targets is numbers"),
            (("design", "letters.csv", "--allow", "1:A,1:C"), "names position 1 twice"),
            (
                ("constrained", "x1 if x1 > 0 else 0", "--start", "1,1", "--subject-to", "x1 + x2"),
                "which has no place in a formula",
            ),
            (
                ("blackbox", "--space", "space.toml", "--timeout", "nan", "--", "echo", "{x}"),
                "0 < timeout",
            ),
            (("blackbox", "--space", "space.toml", "--timeout", 0, "--", "echo", "{x}"), "0 < timeout"),
        ],
    )
    def test_what_is_senseless_or_would_do_nothing_is_refused(self, folder, words, message):
        (folder / "losses.csv").write_text("a,b\n" + "0.5,1\n1,0\n" * 9)
        (folder / "pairs.csv").write_text("user,item\nann,Alien\nbob,Heat\nbob,Alien\n")
        (folder / "named.csv").write_text("a,b,y\n" + "1,2,0\n3,4.5,1\n" * 9)
        (folder / "turned.csv").write_text("b,a\n" + "1,2\n3,4.5\n" * 9)
        (folder / "letters.csv").write_text("letters,score\nACG,1\nAAG,2\nCCG,3\n")
        (folder / "space.toml").write_text('[x]\ntype = "real"\nlow = 0\nhigh = 1\n')
        refused(thalweg("solve", *words, cwd=folder), message)


def test_what_an_estimator_refuses_is_a_line_like_the_others(folder):
    refused(
        thalweg("dictionary", "table.csv", "--loss", "l5", cwd=folder),
        "The 'loss' parameter of OnlineDictionary",
    )
    assert thalweg("show", "2").stdout == thalweg("show", "02").stdout != ""


def test_a_table_of_ratings_is_not_taken_for_lines_of_them(tmp_path):
    path = tmp_path / "wide.csv"
    np.savetxt(path, np.arange(30.0).reshape(5, 6) / 7, delimiter=",")
    with pytest.raises(InvalidProblem, match=r"6 columns and no names.*a line for each rating"):
        load_ratings(path)
    assert load_ratings(path, user="column 1", item="column 2", rating="column 6").values[0] == 5 / 7
    path.write_text("1,2,3,4\n1,3,4,5\n")
    assert load_ratings(path).values.tolist() == [3.0, 4.0]
    assert load_pairs(path)[1].tolist() == [2, 3]
