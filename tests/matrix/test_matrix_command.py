"""Ratings from files, `thalweg solve matrix` and `thalweg predict`."""

from __future__ import annotations

import gzip
import json
import sys

import numpy as np
import pytest

from thalweg.cli import main
from thalweg.core import InvalidProblem, NotFinite, UnknownName, UnreadableFile
from thalweg.datasets import load_pairs, load_ratings
from thalweg.matrix import Factors


def same(found):
    """Users 196, 22, 196 rated films 242, 242, 377 with 3, 1.5, 5."""
    triples = {
        (str(found.row_ids[i]), str(found.column_ids[j]), v)
        for i, j, v in zip(found.rows, found.columns, found.values, strict=True)
    }
    assert triples == {("196", "242", 3.0), ("22", "242", 1.5), ("196", "377", 5.0)}
    return found


@pytest.mark.parametrize(
    ("name", "text"),
    [
        ("u.data", "196\t242\t3\t881250949\n22\t242\t1.5\t881250950\n196\t377\t5\t881250951\n"),
        ("ratings.dat", "196::242::3::978300760\n22::242::1.5::978300761\n196::377::5::978300762\n"),
        ("ratings.csv", "userId,movieId,rating,timestamp\n196,242,3.0,1\n22,242,1.5,2\n196,377,5.0,3\n"),
        ("other.csv", "rating,item,user\n3,242,196\n1.5,242,22\n5,377,196\n"),
        ("comma.csv", "196;242;3,0\n22;242;1,5\n196;377;5,0\n"),
        ("bom.csv", "\ufeffuserId,movieId,rating\r\n196,242,3\r\n22,242,1.5\r\n196,377,5\r\n"),
        ("plain.txt", "196 242 3\n22 242 1.5\n196 377 5\n"),
    ],
)
def test_ratings_of_every_dialect_are_the_same(tmp_path, name, text):
    path = tmp_path / name
    path.write_text(text, encoding="utf-8")
    found = same(load_ratings(path))
    assert (found.times is not None) == (text.count("\n") == 3 and name in ("u.data", "ratings.dat")) or (
        name == "ratings.csv"
    )


def test_a_packed_file_is_read(tmp_path):
    with gzip.open(tmp_path / "u.data.gz", "wb") as file:
        file.write(b"196\t242\t3\n22\t242\t1.5\n196\t377\t5\n")
    same(load_ratings(tmp_path / "u.data.gz"))


def test_words_are_labels(tmp_path):
    (tmp_path / "r.csv").write_text('ann,"Heat, 1995",4\nbob,Alien,3\nann,Alien,5\n')
    found = load_ratings(tmp_path / "r.csv")
    assert list(found.row_ids) == ["ann", "bob"]
    assert list(found.column_ids) == ["Alien", "Heat, 1995"]


def test_a_line_that_counts_is_a_rating(tmp_path):
    (tmp_path / "r.csv").write_text("0,1,2\n3,4,5\n")
    assert len(load_ratings(tmp_path / "r.csv").values) == 2


def test_columns_are_known_by_the_names_that_are_given(tmp_path):
    (tmp_path / "r.csv").write_text("a,b,c\n5,1,7\n4,2,8\n")
    found = load_ratings(tmp_path / "r.csv", user="b", item="c", rating="a")
    assert (list(found.row_ids), list(found.column_ids), list(found.values)) == ([1, 2], [7, 8], [5, 4])


def test_columns_taken_by_position_are_told(tmp_path):
    path = tmp_path / "r.csv"
    path.write_text("note;kunde;artikel\n5;1;7\n4;2;8\n")
    with pytest.warns(UserWarning, match="users: note, items: kunde, ratings: artikel .by position") as told:
        load_ratings(path, header=True)
    assert "--user, --item, --rating" in str(told[0].message)
    assert told[0].filename == __file__
    with pytest.warns(UserWarning, match="csv: users: note, items: artikel .by position"):
        load_ratings(path, header=True, rating="kunde")
    with pytest.warns(UserWarning, match="csv: users: note, items: kunde .by position"):
        load_pairs(path, header=True)


@pytest.mark.filterwarnings("error")
def test_columns_that_are_named_or_have_no_header_are_not_told(tmp_path):
    (tmp_path / "r.csv").write_text("note;kunde;artikel\n5;1;7\n4;2;8\n")
    load_ratings(tmp_path / "r.csv", user="kunde", item="artikel", rating="note")
    (tmp_path / "r.csv").write_text("user;item;stars;colour\n5;1;7;1\n4;2;8;2\n")
    load_ratings(tmp_path / "r.csv")
    (tmp_path / "r.csv").write_text("5;1;7\n4;2;8\n")
    load_ratings(tmp_path / "r.csv")


def test_two_columns_are_ones(tmp_path):
    (tmp_path / "r.csv").write_text("user,item\n1,2\n3,4\n")
    assert list(load_ratings(tmp_path / "r.csv").values) == [1, 1]


@pytest.mark.parametrize(
    ("name", "text", "message", "error"),
    [
        ("r.csv", "userId,movieId,rating\n1,2,3\n1,3,good\n", "line 3: 'good' is no number", InvalidProblem),
        ("r.csv", "userId,movieId,rating\n1,2,3\n1,3,\n", "this one is line 3", NotFinite),
        ("r.csv", "userId,movieId,rating\n1,2,3\n,3,1\n", "line 3, column 'userId': no label", NotFinite),
        ("r.dat", "1::2::3\n1::2\n", "line 2", UnreadableFile),
        ("r.csv", "7\n8\n", "expected a user and an item", InvalidProblem),
        ("r.json", "{}", "unknown ending", UnreadableFile),
        ("r.csv", "", "empty", UnreadableFile),
    ],
)
def test_a_faulty_file_is_refused_with_its_line(tmp_path, name, text, message, error):
    (tmp_path / name).write_text(text)
    with pytest.raises(error, match=message):
        load_ratings(tmp_path / name)


def test_a_column_that_is_not_there_is_refused(tmp_path):
    (tmp_path / "r.csv").write_text("user,item,rating\n1,2,3\n")
    with pytest.raises(UnknownName, match="scores"):
        load_ratings(tmp_path / "r.csv", rating="scores")


def test_pairs_need_no_rating(tmp_path):
    (tmp_path / "p.csv").write_text("movieId,userId\n242,196\n377,22\n")
    users, items = load_pairs(tmp_path / "p.csv")
    assert (list(users), list(items)) == ([196, 22], [242, 377])


@pytest.fixture
def shell(monkeypatch, capsys):
    def run(*words):
        monkeypatch.setattr(sys, "argv", ["thalweg", *map(str, words)])
        with pytest.raises(SystemExit) as done:
            main()
        said = capsys.readouterr()
        return done.value.code, said.out, said.err

    return run


@pytest.fixture
def ratings(tmp_path, rng):
    """150 users u100, u101, ... and 100 films of rank 2, as ratings.csv; and the matrix."""
    M = 3.5 + 0.5 * rng.standard_normal((150, 2)) @ rng.standard_normal((2, 100))
    seen = np.argwhere(rng.random(M.shape) < 0.4)
    lines = [f"u{i + 100},{7 * j},{M[i, j] + 0.05 * rng.standard_normal():.4f},{i}" for i, j in seen]
    path = tmp_path / "ratings.csv"
    path.write_text("\n".join(["userId,movieId,rating,timestamp", *lines, ""]))
    return path, M


def test_ratings_are_completed_and_pairs_predicted(shell, ratings, tmp_path):
    path, M = ratings
    code, out, _ = shell("solve", "matrix", path, "--rank", "auto", "--out", tmp_path / "f.npz", "--json")
    told = json.loads(out)
    assert (code, told["status"], told["rank"]) == (0, "converged", 2)
    low, high = told["test"]["interval"]
    assert 0.03 < low < told["test"]["error"] < high < 0.2
    (tmp_path / "pairs.csv").write_text("user,item\nu100,0\nu112,14\nnobody,7\n")
    code, out, err = shell("predict", tmp_path / "f.npz", tmp_path / "pairs.csv", "--out", tmp_path / "p.csv")
    assert code == 0
    assert "1 of 3 pairs have a user or item that was never rated (the first: nobody, 7)" in err
    rows = (tmp_path / "p.csv").read_text().splitlines()
    assert rows[0] == "user,item,prediction"
    assert [r.split(",")[0] for r in rows[1:]] == ["u100", "u112", "nobody"]
    values = [float(r.split(",")[2]) for r in rows[1:]]
    np.testing.assert_allclose(values[:2], [M[0, 0], M[12, 2]], atol=0.4)
    code, out, _ = shell("predict", tmp_path / "f.npz", tmp_path / "pairs.csv", "--json")
    told = json.loads(out)
    assert told["cold"] == [2]
    np.testing.assert_allclose(told["predictions"], values, atol=1e-4)


def test_the_answer_says_how_good_it_is_in_words(shell, ratings):
    code, out, _ = shell("solve", "matrix", ratings[0], "--rank", "2", "--single")
    assert code == 0
    assert "ratings of 100 items by 150 users; rank 2." in out
    assert "RMSE on" in out
    assert "95 % interval" in out


def test_a_run_from_the_shell_is_taken_up_again(shell, ratings, tmp_path):
    path = ratings[0]
    whole = shell("solve", "matrix", path, "--rank", "8", "--json", "--steps", "6")
    shell("solve", "matrix", path, "--rank", "8", "--steps", "3", "--checkpoint", tmp_path / "c")
    again = shell(
        "solve", "matrix", path, "--rank", "8", "--steps", "6", "--resume", tmp_path / "c", "--json"
    )
    assert json.loads(whole[1])["metrics"] == json.loads(again[1])["metrics"]


def test_methods_are_compared(shell, ratings):
    code, out, _ = shell("compare", "matrix", ratings[0], "--rank", "20", "--json")
    rows = json.loads(out)
    assert code == 0
    names = {"automatic", "cg", "coordinate", "exact", "sketched"}
    assert {row["method"] for row in rows} == {f"{name}-altmin" for name in names}
    assert {row["status"] for row in rows} == {"converged"}


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (("--rank", "many"), "--rank is a whole number or auto; got 'many'"),
        (("--duplicates", "first"), "No way to join duplicates 'first'"),
        (("--implicit", "1", "--biases"), "takes no biases"),
        (("--rank", "101"), "rank 101 is more than a 150 x 100 matrix can have"),
        (("--out", "f.csv"), "expected .npz"),
        (("--method", "cg-altmin:workers=0"), "needs workers >= 1, or None; got 0"),
        (("--method", "cg-altmin:workers=two"), "workers needs none or a whole number; got 'two'"),
        (("--method", "cg-altmin:workers=2,parts=3"), "they need parts = 1; got 3"),
        (("--resume", __file__), "is not"),
    ],
)
def test_what_cannot_be_done_is_refused_in_a_line(shell, ratings, words, message):
    code, _, err = shell("solve", "matrix", ratings[0], *words)
    assert code == 2
    assert message in err


def test_refusals_name_options_and_a_guess_stays_out_of_the_json(shell, tmp_path, rng):
    path = tmp_path / "r.csv"
    path.write_text("user,item,rating\n1,2,3\n1,2,4\n")
    assert "(--duplicates mean, --duplicates sum)" in shell("solve", "matrix", path)[2]
    path.write_text("user,item,rating\n1,2,3\n2,1,4\n")
    assert "Name a rank (--rank), or raise held_out (--held-out)" in shell("solve", "matrix", path)[2]
    path.write_text("u0;i2\n")
    assert "say header=False (--no-header)" in shell("solve", "matrix", path)[2]
    lines = [f"{i},{j},{rng.random():.3f}" for i in range(9) for j in range(9)]
    path.write_text("\n".join(["kunde,artikel,note", *lines]))
    _, out, err = shell("solve", "matrix", path, "--rank", "1", "--json")
    assert json.loads(out)["rank"] == 1
    assert err.count("\n") == 1
    assert "users: kunde, items: artikel, ratings: note (by position" in err


def test_a_file_that_holds_no_factors_is_refused(shell, tmp_path):
    np.savez(tmp_path / "x.npz", x=np.ones(3))
    (tmp_path / "p.csv").write_text("1,2\n")
    code, _, err = shell("predict", tmp_path / "x.npz", tmp_path / "p.csv")
    assert code == 2
    assert "holds no row_factors" in err


def test_factors_that_do_not_fit_together_are_refused():
    made = Factors(np.ones((2, 1)), np.ones((3, 1)), np.zeros(2), np.zeros(3), 0.0).arrays()
    assert Factors.from_arrays(made, "f").predict([1], [2]) == 1.0
    for key, value in (("row_bias", np.zeros(3)), ("mean", np.array(np.nan)), ("column_ids", np.arange(2))):
        with pytest.raises(UnreadableFile, match="damaged"):
            Factors.from_arrays({**made, key: value}, "f")


def test_numbers_in_one_file_and_words_in_another_are_the_same_labels():
    model = Factors(
        np.ones((3, 1)),
        np.ones((1, 1)),
        np.arange(3.0),
        np.zeros(1),
        0.0,
        np.array([2, 10, 30]),
        np.array([5]),
    )
    found, cold = model.predict_labels(np.array(["10", "x", "2"]), np.array([5, 5, 5]))
    assert list(found) == [2.0, 0.0, 1.0]
    assert list(cold) == [False, True, False]
