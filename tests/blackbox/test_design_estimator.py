"""Proposals: new, different, ranked, and told with their doubt; the estimator, its sweep and its pictures."""

from __future__ import annotations

import pickle

import numpy as np
import pytest
from sklearn.base import clone
from sklearn.exceptions import NotFittedError
from sklearn.model_selection import GridSearchCV, KFold, cross_val_score

from thalweg import solve
from thalweg.blackbox.design import (
    BestRows,
    BidirectionalDesign,
    OneHot,
    RandomMutation,
    SequenceDesign,
    SequenceSpace,
    SequenceTable,
    Visited,
    collect_proposals,
    proposal_figures,
    sweep_figure,
    target_sweep,
)
from thalweg.core import InvalidParameter, InvalidProblem, UnknownName
from thalweg.datasets.sequences import load_sequences


@pytest.fixture(scope="module")
def data():
    rng = np.random.default_rng(0)
    codes = np.unique(rng.integers(4, size=(200, 6)), axis=0)
    weights = rng.standard_normal((6, 4))
    space = SequenceSpace("dna", 6)
    return space.decode(codes), weights[np.arange(6), codes].sum(1)


@pytest.fixture(scope="module")
def model(data):
    return SequenceDesign(encoder=OneHot(), gamma=0.5).fit(*data)


class TestProposals:
    def test_they_are_new_and_different_and_as_many_as_asked(self, model, data):
        found = model.propose(20)
        assert len(found) == len(set(found.sequences)) == 20
        assert not set(found.sequences) & set(data[0])

    def test_columns_say_what_they_mean(self, model, data):
        space, frame = model.space_, model.propose(20).frame
        codes, table = space.encode(list(frame["sequence"])), space.encode(data[0])
        away = (codes[:, None] != table[None]).sum(2)
        np.testing.assert_array_equal(frame["distance"], away.min(1))
        near = space.encode(list(frame["nearest"]))
        np.testing.assert_array_equal((codes != near).sum(1), away.min(1))
        parents = space.encode(list(frame["parent"]))
        np.testing.assert_array_equal((codes != parents).sum(1), frame["changed"])
        assert set(frame["parent"]) <= set(data[0])
        np.testing.assert_allclose(frame["predicted"], model.predict(list(frame["sequence"])))
        assert (frame["doubt"] >= 0).all()
        assert set(frame["source"]) <= {"design", "way", "near"}

    def test_the_first_is_the_best_by_both_opinions(self, model):
        frame = model.propose(20).frame
        ranks = frame[["predicted", "second"]].rank().sum(axis=1).to_numpy()
        assert (np.diff(ranks) <= 1e-9).all()

    def test_predictions_are_right_where_the_model_is(self, model, data):
        codes = model.space_.encode(data[0])
        np.testing.assert_allclose(model.predict(data[0]), data[1], atol=1e-3 * np.ptp(data[1]))
        assert len(codes) == model.table_.rows
        assert model.correlation_ > 0.8

    def test_repeats_and_rows_are_filled_up_from_the_way_and_it_is_said(self, data):
        # without interactions all designs end as one sequence
        found = SequenceDesign(encoder=OneHot(), mode="forward").fit(*data).propose(12)
        assert (found.frame["source"] == "way").any()
        assert any("passed on the way" in note and "fill up" in note for note in found.notes)

    def test_fewer_than_asked_are_told(self):
        space = SequenceSpace("AC", 3)
        table = SequenceTable(space, ["AAA", "AAC", "ACA", "CAA"], [0.0, 1.0, 1.0, 1.0], 9)
        visited = Visited()
        result = solve(table, BidirectionalDesign(mode="forward", encoder=OneHot()), callbacks=[visited])
        found = collect_proposals(table, result, visited)
        assert set(found.sequences) <= {"CCC", "ACC", "CAC", "CCA"}
        assert "The table has 4 different rows, fewer than 9: all are starts." in found.notes
        assert any("4 proposals, fewer than 9" in note for note in found.notes)

    def test_searches_without_an_encoder_and_runs_that_found_nothing_new_have_proposals_too(self, data):
        table = SequenceTable(SequenceSpace("dna", 6), *data, n=8)
        for method in (RandomMutation(), BestRows()):
            visited = Visited()
            found = collect_proposals(table, solve(table, method, callbacks=[visited]), visited)
            assert len(set(found.sequences)) == 8
            assert not set(found.sequences) & set(data[0])
        assert set(found.frame["source"]) == {"near"}

    def test_a_table_of_the_whole_space_is_refused(self):
        space = SequenceSpace("AC", 2)
        table = SequenceTable(space, ["AA", "AC", "CA", "CC"], [0.0, 1.0, 2.0, 3.0], 2)
        visited = Visited()
        result = solve(table, BestRows(), callbacks=[visited])
        with pytest.raises(InvalidProblem, match="the table has them all"):
            collect_proposals(table, result, visited)

    def test_masks_and_edits_hold_for_what_fills_up_too(self, data):
        space = SequenceSpace("dna", mask="..G...", edits=2)
        found = SequenceDesign(space, encoder=OneHot(), gamma=0.5).fit(*data).propose(16)
        assert all(text[2] == "G" for text in found.sequences)
        # a parent is the start, which is a row brought into the space
        assert (found.frame["changed"] <= 2).all()

    @pytest.mark.parametrize("ending", [".csv", ".fasta"])
    def test_files_hold_them_in_order(self, model, tmp_path, ending):
        found = model.propose(5)
        found.write(tmp_path / f"a{ending}")
        options = {"sequence": "sequence"} if ending == ".csv" else {}
        again = load_sequences(tmp_path / f"a{ending}", score="predicted", **options)
        assert list(again.letters) == found.sequences
        np.testing.assert_allclose(again.scores, found.frame["predicted"], rtol=1e-5)


class TestEstimator:
    def test_scikit_learn_clones_searches_and_cross_validates_it(self, data):
        texts, scores = data
        search = GridSearchCV(SequenceDesign(encoder=OneHot()), {"target": [1.0, 10.0]}, cv=2).fit(
            texts, scores
        )
        assert clone(search.best_estimator_).get_params()["target"] == search.best_params_["target"]
        assert pickle.loads(pickle.dumps(search.best_estimator_)).predict(texts[:3]).shape == (3,)
        # the table is a sum over positions, which the ridge on one-hot letters can tell
        folds = KFold(3, shuffle=True, random_state=0)  # the rows are in order
        assert cross_val_score(SequenceDesign(encoder=OneHot()), texts, scores, cv=folds).min() > 0.99

    def test_a_random_state_repeats(self, data):
        one, other = (
            SequenceDesign(encoder=OneHot(), random_state=3).fit(*data).propose(6) for _ in range(2)
        )
        assert one.sequences == other.sequences

    def test_scores_in_another_unit_give_the_same_proposals(self, data):
        one = SequenceDesign(encoder=OneHot(), gamma=0.5).fit(*data).propose(6)
        other = SequenceDesign(encoder=OneHot(), gamma=0.5).fit(data[0], 1e3 * data[1] + 7).propose(6)
        assert one.sequences == other.sequences
        np.testing.assert_allclose(other.frame["second"], 1e3 * one.frame["second"] + 7, rtol=1e-3, atol=5)

    def test_unscored_sequences_change_what_the_encoder_knows(self, data):
        from thalweg.blackbox.design import MaskedLetters

        short = MaskedLetters(channels=4, steps=5)
        one = SequenceDesign(encoder=short).fit(*data)
        other = SequenceDesign(encoder=short, unscored=["AAAAAA"] * 500).fit(*data)
        assert not np.allclose(one.predict(["ACGTAC"]), other.predict(["ACGTAC"]))

    def test_a_sweep_has_a_row_for_each_target_and_a_picture(self, model):
        table = model.sweep([1.0, 10.0], n=8)
        assert table["target"].tolist() == [1.0, 10.0]
        assert list(table.columns) == [
            "target",
            "predicted",
            "second",
            "doubt",
            "distance",
            "novelty",
            "diversity",
        ]
        figure = sweep_figure(table)
        assert [series.name for series in figure.series] == ["predicted", "second opinion", "doubt"]
        with pytest.raises(InvalidParameter, match="needs a target"):
            target_sweep(model.table_, model.method_, [])

    def test_pictures_show_every_proposal(self, model):
        found = model.propose(7)
        first, second, letters = proposal_figures(found, model.table_)
        assert len(first.series[0].x) == len(second.series[0].x) == 7
        shares = np.sum([series.y for series in letters.series], 0)
        np.testing.assert_allclose(shares, 1.0)

    @pytest.mark.parametrize(
        ("make", "error", "words"),
        [
            (lambda: SequenceDesign().propose(3), NotFittedError, "is not fitted yet"),
            (lambda: SequenceDesign().predict(["AC"]), NotFittedError, "is not fitted yet"),
            (lambda: SequenceDesign().fit([], []), InvalidProblem, "no rows; expected two or more"),
            (
                lambda: SequenceDesign().fit(["ACG", "AC"], [1, 2]),
                InvalidProblem,
                "Sequence 1 has 2 letters; expected 3",
            ),
            (lambda: SequenceDesign("protien").fit(["ACG"], [1]), UnknownName, "Did you mean 'protein'"),
            (
                lambda: SequenceDesign(random_state=-1).fit(["AC", "CA"], [1, 2]),
                InvalidParameter,
                "random_state >= 0",
            ),
            (lambda: SequenceDesign(mode="up").fit(["AC", "CA"], [1, 2]), InvalidParameter, "mode is one of"),
        ],
    )
    def test_bad_use_is_refused(self, make, error, words):
        with pytest.raises(error, match=words):
            make()
