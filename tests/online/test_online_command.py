"""`thalweg solve online`, `compare online` and `stream`, and the encoding below them."""

from __future__ import annotations

import io
import json
import re
import sys
from pathlib import Path

import numpy as np
import pandas as pd
import pytest

from running import thalweg
from thalweg.core import InvalidParameter, InvalidProblem, NotFinite, UnknownName
from thalweg.datasets import load_frame
from thalweg.online import (
    By,
    GroupedStream,
    GroupwiseRegressor,
    LossTable,
    Play,
    RowLearner,
    TsallisINF,
    encode,
    group_rules,
)


@pytest.fixture
def people(tmp_path, rng):
    """Charges that rise with weight for smokers alone."""
    path = tmp_path / "people.csv"
    lines = ["age,sex,smoker,bmi,charges"]
    for _ in range(400):
        age, sex, smoker, bmi = (
            rng.integers(18, 65),
            rng.choice(["m", "f"]),
            rng.random() < 0.3,
            rng.uniform(18, 40),
        )
        charges = 2.0 * age + (10.0 * bmi if smoker else 0.0) + rng.normal()
        lines.append(f"{age},{sex},{'yes' if smoker else 'no'},{bmi:.2f},{charges:.3f}")
    path.write_text("\n".join(lines) + "\n")
    return path


@pytest.fixture
def losses(tmp_path, rng):
    path = tmp_path / "losses.csv"
    np.savetxt(path, rng.random((60, 3)), delimiter=",", header="hour,a,b", comments="")
    return path


class TestEncode:
    def test_numbers_are_scaled_and_words_are_columns(self, people):
        rows = encode(load_frame(people, wanted="charges"), "charges", group_rules("smoker,age:35:50"))
        assert rows.feature_names[:5] == ("age", "sex=m", "sex=f", "smoker=no", "smoker=yes") or set(
            rows.feature_names
        ) >= {"age", "sex=m", "sex=f", "bmi", "one"}
        assert rows.X.min() == 0
        assert rows.X.max() == 1
        assert rows.mask[:, 0].all()
        groups = dict(zip(rows.group_names, rows.mask.T, strict=True))
        age = np.asarray(load_frame(people)["age"])
        np.testing.assert_array_equal(groups["35 < age <= 50"], (age > 35) & (age <= 50))
        np.testing.assert_array_equal(groups["smoker=yes"], ~groups["smoker=no"])

    def test_bad_tables_are_refused(self):
        table = pd.DataFrame({"a": [1.0, 2.0], "b": ["x", "y"]})
        with pytest.raises(InvalidProblem, match="The target 'b' holds words"):
            encode(table, "b", [])
        with pytest.raises(UnknownName, match="c"):
            encode(table, "c", [])
        with pytest.raises(InvalidProblem, match="no column beside the target"):
            encode(table[["a"]], "a", [])
        with pytest.raises(InvalidProblem, match="no rows"):
            encode(table[:0], "a", [])
        with pytest.raises(NotFinite, match="'b' has no value in row 1"):
            encode(pd.DataFrame({"a": [1.0, 2.0], "b": ["x", None]}), "a")

    def test_rules_from_text_are_checked(self):
        assert group_rules("") == ()
        assert group_rules("a*b, c:1:2") == (By("a", "b"), By("c", cuts=(1, 2)))
        for text, words in (
            ("a*", "names no column"),
            ("a:x", "expected numbers"),
            ("a:2:1", "rising numbers"),
        ):
            with pytest.raises(InvalidParameter, match=words):
                group_rules(text)

    def test_a_missing_cell_is_told_with_its_line(self, tmp_path):
        (tmp_path / "t.csv").write_text("a,b\n1,x\n2,\n")
        with pytest.raises(NotFinite, match="column 'b' has no value in line 3"):
            load_frame(tmp_path / "t.csv")


class TestRows:
    def test_rows_one_by_one_are_the_estimators(self, people):
        """New words make new columns: least squares are what they would have been with all columns from the first."""
        table = load_frame(people)
        rows = encode(table, "charges", group_rules("smoker"), indicators=False)
        ages, bmi = np.asarray(table["age"]), np.asarray(table["bmi"])
        words = [
            (table[c] == w).to_numpy()
            for c, w in (("sex", "m"), ("sex", "f"), ("smoker", "no"), ("smoker", "yes"))
        ]
        X = np.column_stack([ages, bmi, *words]).astype(float)
        whole = GroupwiseRegressor(low=0.0, high=1000.0).partial_fit(X, rows.y, rows.mask[:, 1:])
        learner, played = RowLearner(group_rules("smoker"), 0.0, 1000.0), []
        lines = people.read_text().splitlines()
        for line in lines[1:]:
            row = dict(zip(lines[0].split(","), line.split(","), strict=True))
            played.append(learner.play(row, float(row.pop("charges"))))
        np.testing.assert_allclose(played[5:], whole.predictions_[5:], rtol=1e-6)

    def test_a_row_without_a_label_teaches_nothing(self):
        learner = RowLearner(low=0.0, high=1.0)
        for _ in range(3):
            assert learner.play({"x": "1"}) == 0.0
        with pytest.raises(InvalidProblem, match=r"the label is 2; expected a number in \[0, 1\]"):
            learner.play({"x": "1"}, 2.0)
        with pytest.raises(NotFinite, match="'x' has no value"):
            learner.play({"x": " "})
        with pytest.raises(NotFinite, match="Column 'x' has no value: it is 'nan'"):
            learner.play({"x": "nan"})
        with pytest.raises(InvalidParameter, match="low < high"):
            RowLearner(low=1.0, high=0.0)


class TestSolve:
    def test_every_groups_regret_is_told_beside_the_one_models(self, people, tmp_path):
        done = thalweg("solve", "online", people, "--target", "charges", "--groups", "smoker,sex*smoker", "--json",
                       "--report", tmp_path / "page.html", "--out", tmp_path / "x.csv")  # fmt: skip
        assert done.returncode == 0, done.stderr
        told = json.loads(done.stdout)
        rows = encode(load_frame(people), "charges", group_rules("smoker,sex*smoker"))
        stream = GroupedStream(rows.X, rows.y, rows.mask, names=rows.group_names)
        played = np.loadtxt(tmp_path / "x.csv")
        assert told["regrets"] == pytest.approx(stream.ledger(played))
        assert told["metrics"]["left"] == 0
        assert told["regrets"]["smoker=yes"] < told["regrets_of_one_model"]["smoker=yes"]
        assert "one model for all" in (tmp_path / "page.html").read_text()

    def test_losses_are_played_by_policies(self, losses):
        done = thalweg("solve", "online", losses, "--method", "tsallis-inf:scale=1", "--json", "--seed", 3)
        table = LossTable(np.loadtxt(losses, delimiter=",", skiprows=1))
        from thalweg import solve

        theirs = solve(table, Play(TsallisINF(3, 1.0)), seed=3).metrics
        assert json.loads(done.stdout)["metrics"] == pytest.approx(theirs)

    def test_compare_takes_the_policies_that_fit(self, losses):
        names = [
            {
                row["method"]
                for row in json.loads(thalweg("compare", "online", losses, *words, "--json").stdout)
            }
            for words in ((), ("--context", "hour"))
        ]
        assert names == [{"fixed", "tsallis-inf"}, {"cheb-cb", "fixed", "tsallis-inf"}]

    @pytest.mark.parametrize(
        ("words", "message"),
        [
            (["--groups", "hour"], "are for rows with a --target"),
            (["--target", "a", "--context", "hour"], "without --target"),
            (["--target", "z"], "No column 'z'"),
            (["--target", "a", "--groups", "zz"], "No column 'zz'"),
            (["--target", "a", "--groups", "hour"], "too many for a group each"),
            (["--target", "a", "--low", "0.5"], "outside [0.5"),
            (["--target", "a", "--method", "tsallis-inf"], "plays tables of losses"),
            (["--method", "cheb-cb"], "--context"),
            (["--method", "fixed:arm=7"], "an arm in 0 .. 2"),
            (["--method", "groupwise"], "Groupwise"),
        ],
    )
    def test_slips_are_told_in_a_line(self, losses, words, message):
        done = thalweg("solve", "online", losses, *words)
        assert done.returncode == 2, done.stdout
        assert message in done.stderr
        assert "Traceback" not in done.stderr

    def test_a_stray_word_is_no_category(self, people):
        """Taken for one, it would make a column of each number, in silence."""
        with people.open("a") as file:
            file.write("40,m,no,foo,80\n")
        done = thalweg("solve", "online", people, "--target", "charges", "--groups", "sex")
        assert done.returncode == 2
        assert "column 'bmi' holds 400 numbers and 1 word (line 402: 'foo' is no number)" in done.stderr


class TestStream:
    def run(self, monkeypatch, text, *words):
        monkeypatch.setattr(sys, "stdin", io.StringIO(text))
        return thalweg("stream", "--target", "y", "--low", "0", "--high", "10", *words)

    def test_each_row_is_answered_before_its_label_is_learned(self, monkeypatch):
        text = "\ufeffx,sex,y\n1,m,5\n1,f,5\n1,m,\n\n1,m,5\n"
        done = self.run(monkeypatch, text, "--groups", "sex", "--json")
        rows = [json.loads(line) for line in done.stdout.splitlines()]
        assert [row["label"] for row in rows] == [5.0, 5.0, None, 5.0]
        assert [row["line"] for row in rows] == [2, 3, 4, 6]
        assert rows[0]["prediction"] == 0.0
        assert rows[2]["prediction"] == rows[3]["prediction"] > rows[1]["prediction"] > 0.0
        assert "sex=f          1" in done.stderr
        assert done.returncode == 0

    def test_rows_that_cannot_be_taken_are_told_and_left_out(self, monkeypatch):
        done = self.run(monkeypatch, "x,y\n1,5\n1\n1,abc\n,5\n1,50\n2,5\n")
        assert done.stdout.splitlines()[1:-1] == [","] * 4, "answers stay beside their rows"
        as_json = self.run(monkeypatch, "x,y\n1,5\n1\n1,abc\n,5\n1,50\n2,5\n", "--json")
        assert [json.loads(line)["line"] for line in as_json.stdout.splitlines()] == [2, 7]
        for line, words in (
            (3, "it has 1 cells"),
            (4, "y is no number and not empty: 'abc'"),
            (5, "'x' has no value"),
            (6, "the label is 50"),
        ):
            assert f"Line {line} is left out: " in done.stderr
            assert words in done.stderr
        assert "4 rows were left out." in done.stderr

    @pytest.mark.parametrize(
        ("text", "words", "message"),
        [
            ("", [], "Standard input holds no line"),
            ("x,x,y\n", [], "Two columns are called 'x'"),
            ("x,z\n", [], "No column 'y'"),
            ("x,y\n", ["--low", "20"], "low < high"),
            ("x,y\n", ["--combine", "vote"], "combine is one of"),
            ("x,y\n", ["--delimiter", ";;"], "one character"),
            ("x,y\n", ["--groups", "sex"], "No column 'sex'"),
            ("x,y\n", ["--groups", "x*zz"], "No column 'zz'"),
            ("x,y\n", ["--groups", "y"], "'y' is the target"),
            ("x;y\n", ["--delimiter", ","], "cut at ',' (--delimiter)"),
            (",x,y\n", [], "Column 1 of the header has no name"),
            ('x,"y\n', [], "line 1 has a faulty quotation"),
        ],
    )
    def test_slips_are_told_in_a_line(self, monkeypatch, text, words, message):
        done = self.run(monkeypatch, text, *words)
        assert done.returncode == 2
        assert message in done.stderr

    @pytest.mark.parametrize(
        ("cell", "said"),
        [
            ("foo", "Column 'x' holds numbers: 'foo' is no number"),
            ("1+2j", "'1+2j' is no number"),
            ("0.5O", "'0.5O' is no number"),
            ("1_000", "'1_000' is no number"),
            ('"0,5"', "'0,5' has a decimal comma"),
            ("NA", "Column 'x' has no value: it is 'NA'"),
            ("inf", "expected a finite number"),
            ("9007199254740993", "more digits than a float64 holds"),
            ('"1', "it has a faulty quotation"),
        ],
    )
    def test_a_word_among_numbers_is_left_out_and_teaches_nothing(self, monkeypatch, cell, said):
        clean = self.run(monkeypatch, "x,y\n1,5\n2,6\n3,7\n")
        done = self.run(monkeypatch, f"x,y\n1,5\n{cell},6\n2,6\n3,7\n")
        assert "Line 3 is left out: " in done.stderr
        assert said in done.stderr
        assert done.stdout.replace("\n,\n", "\n") == clean.stdout

    def test_a_column_that_began_with_words_stays_one_of_words(self, monkeypatch):
        done = self.run(monkeypatch, "x,y\nred,5\n7,6\n8,6\nred,5\n", "--groups", "x")
        assert len(done.stdout.splitlines()) == 4
        assert done.stderr.count("Column 'x' began with a word, so that '7' is taken for a word, too.") == 1
        assert "'8'" not in done.stderr
        assert "x=7 " in done.stderr

    def test_misspelt_numbers_do_not_make_a_column_of_words(self, monkeypatch):
        done = self.run(monkeypatch, 'x,y\n"0,5",5\n0.5,6\n')
        assert "Line 2 is left out: Column 'x' holds numbers: '0,5' has a decimal comma" in done.stderr
        assert done.stdout.splitlines() == [",", "0.0,6.0"]

    @pytest.mark.parametrize("separator", [";", "\t", " ", ","])
    @pytest.mark.parametrize("before", ["", "# made by a program\n\n"])
    def test_separators_and_decimal_commas_are_seen(self, monkeypatch, separator, before):
        rows = ["x g y", "1.5 a 5", "2.25 b 6.5", "1.5 a 5"]
        plain = self.run(monkeypatch, "\n".join(rows).replace(" ", ","))
        text = "\n".join(rows).replace(" ", separator)
        for spelled in {text, text if separator == "," else text.replace(".", ",")}:
            done = self.run(monkeypatch, before + spelled)
            assert (done.returncode, done.stdout) == (0, plain.stdout), done.stderr
        assert len(plain.stdout.splitlines()) == 3

    def test_numbers_are_few_where_each_is_a_group(self, monkeypatch):
        text = "x,y\n" + "".join(f"{i}.5,5\n" for i in range(25)) + "3.5,5\n"
        done = self.run(monkeypatch, text, "--groups", "x")
        assert len(done.stdout.splitlines()) - done.stdout.splitlines().count(",") == 21
        assert "Line 22 is left out: Column 'x' has more than 20 values, 20.5 among them" in done.stderr
        assert "5 rows were left out." in done.stderr
        assert len(self.run(monkeypatch, text, "--groups", "x:5:9").stdout.splitlines()) == 26

    def test_the_guide_shows_what_comes(self, monkeypatch):
        text = (Path(__file__).parents[2] / "docs" / "guide" / "online.md").read_text()
        given, made = re.findall(r"^```text\n(.*?)^```", text, re.MULTILINE | re.DOTALL)
        done = self.run(monkeypatch, given, "--groups", "sex", "--json")
        for shown, line in zip(made.splitlines(), done.stdout.splitlines(), strict=True):
            assert json.loads(shown) == pytest.approx(json.loads(line))
        assert re.findall(r"`(Line .*?)`", text) == done.stderr.splitlines()[:1]

    def test_names_may_stand_in_a_comment_and_the_separator_before_all(self, monkeypatch):
        plain = self.run(monkeypatch, "a b,y\n1,5\n2,6\n")
        for text in ("# a b,y\n1,5\n2,6\n", "sep=;\na b;y\n1;5\n2;6\n"):
            assert self.run(monkeypatch, text).stdout == plain.stdout

    def test_a_point_among_decimal_commas_is_left_out(self, monkeypatch):
        done = self.run(monkeypatch, "x;y\n1,5;5\n1.5;5\n2,5;1.000\n")
        assert "Line 3 is left out: x is no number here: '1.5' has a point" in done.stderr
        assert "Line 4 is left out: y is no number here" in done.stderr
        assert done.stdout.splitlines() == ["0.0,5.0", ",", ","]


def test_a_group_made_of_the_target_is_refused(tmp_path):
    (tmp_path / "t.csv").write_text("a,y\n" + "".join(f"{i % 7},{i % 2}\n" for i in range(40)))
    done = thalweg("solve", "online", "t.csv", "--target", "y", "--groups", "y", cwd=tmp_path)
    assert done.returncode == 2
    assert "A group is made of the target 'y', which nobody knows before the prediction." in done.stderr
