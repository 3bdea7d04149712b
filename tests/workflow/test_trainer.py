"""Only what is better on other examples is kept; a run goes on where it stopped."""

from __future__ import annotations

import json

import numpy as np
import pytest

from thalweg.core import CheckpointMismatch, InvalidParameter, InvalidProblem, UnreadableFile
from thalweg.workflow import Feedback, backward, bundle, node
from thalweg.workflow.optimizers import WorkflowOptimizer
from thalweg.workflow.trainer import WorkflowTrainer


class Listed(WorkflowOptimizer):
    """Proposes the next of a list."""

    def __init__(self, parameters, values):
        super().__init__(parameters)
        self.values, self.heard_of = list(values), []

    def propose(self):
        self.heard_of.append(self.heard())
        return {self.parameters[0]: self.values.pop(0)} if self.values else {}


@bundle()
def divided(x, by):
    return x / by


def made(values, start=1.0, **options):
    by = node(start, trainable=True, name="by")
    optimizer = Listed([by], values)
    trainer = WorkflowTrainer(
        lambda x: divided(x, by),
        optimizer,
        lambda x, y: Feedback(-abs(y - x / 4), "aim at a quarter"),
        **options,
    )
    return by, optimizer, trainer


DATA = [1.0, 2.0, 3.0, 4.0]


def test_a_proposal_is_kept_only_if_validation_is_better():
    by, _, trainer = made([2.0, 9.0e9, 1.5, 4.0, 3.0])
    found = trainer.fit(DATA, [8.0], rounds=5)
    assert by.data == 4.0
    assert found.scores == pytest.approx([-6.0, -2.0, -2.0, -2.0, 0.0, 0.0])


def test_a_batch_is_heard_together():
    _, optimizer, trainer = made([2.0], batch=3)
    trainer.fit(DATA, [8.0], rounds=1)
    (graph,) = optimizer.heard_of
    assert len(graph.feedback) == 3


def test_a_program_that_raises_has_the_worst_score_and_its_words_go_back():
    by, optimizer, trainer = made([2.0], start=0.0, failed=-100.0)
    found = trainer.fit(DATA, [8.0], rounds=1)
    assert found.scores == [-100.0, -2.0]
    assert "ZeroDivisionError" in str(next(iter(optimizer.heard_of[0].feedback.values()))[0])
    assert by.data == 2.0


def test_a_beam_keeps_others_and_gives_them_their_turn():
    by, optimizer, trainer = made([2.0, 3.0, 5.0, 4.0], beam=3, explore=100.0)
    trainer.fit(DATA, [8.0], rounds=4)
    began = {graph.parameters[0].name for graph in optimizer.heard_of}
    assert began == {by.name}
    assert len(trainer._pool) == 3
    assert [c.score for c in trainer._pool] == sorted((c.score for c in trainer._pool), reverse=True)
    assert sum(c.tried > 0 for c in trainer._pool) >= 1
    assert by.data == 4.0


def test_no_better_candidate_ends_it():
    _, _, trainer = made([0.5] * 9, patience=3)
    found = trainer.fit(DATA, [8.0], rounds=50)
    assert (found.reason, found.rounds) == ("patience", 3)


def test_a_run_goes_on_from_its_checkpoint(tmp_path):
    path = tmp_path / "run.json"
    values = [2.0, 1.0, 3.0, 4.0]
    whole = made(values)[2].fit(DATA, [8.0], rounds=4)
    made(values[:2], checkpoint=path)[2].fit(DATA, [8.0], rounds=2)
    by, _, trainer = made(values[2:], checkpoint=path)
    assert trainer.fit(DATA, [8.0], rounds=4) == whole
    assert by.data == 4.0


def test_other_checkpoints_are_refused(tmp_path):
    path = tmp_path / "run.json"
    path.write_text("{}")
    with pytest.raises(UnreadableFile, match="no checkpoint"):
        made([2.0], checkpoint=path)[2].fit(DATA, [8.0])
    kept = json.loads(
        '{"pool": [[[1.0], 0.0, 0]], "best": [[1.0], 0.0, 0], "first": [1.0], "begun": [0], "scores": [0.0],'
        ' "validation": "", "least": null, "raised": false}'
    )
    path.write_text(json.dumps({"parameters": ["other"], **kept}))
    with pytest.raises(CheckpointMismatch, match="other parameters"):
        made([2.0], checkpoint=path)[2].fit(DATA, [8.0])


def test_a_program_that_returns_a_plain_value_is_told(tmp_path):
    by = node(1.0, trainable=True)
    trainer = WorkflowTrainer(lambda x: x + by.data, Listed([by], [2.0]), lambda x, y: -y)
    with pytest.raises(InvalidProblem, match="gives a float, and its trace is lost"):
        trainer.fit(DATA, DATA)
    with pytest.raises(InvalidProblem, match="its trace is lost"):
        backward(3.0, "too small")
    with pytest.raises(UnreadableFile, match="no checkpoint"):
        made([2.0], checkpoint=tmp_path)[2].fit(DATA, [8.0])


def test_bad_input_is_refused():
    with pytest.raises(InvalidProblem, match="at least one example"):
        made([2.0])[2].fit([], [8.0])
    with pytest.raises(InvalidParameter, match="beam >= 1"):
        made([2.0], beam=0)
    by = node(1.0, trainable=True)
    trainer = WorkflowTrainer(lambda x: divided(x, by), Listed([by], []), lambda x, y: Feedback(text="words"))
    with pytest.raises(InvalidProblem, match="give a score"):
        trainer.fit(DATA, DATA)


def test_a_program_that_raises_is_never_the_best(tmp_path):
    by, _, trainer = made([0.0, 2.0], checkpoint=tmp_path / "run.json")  # scores below zero, failed=0
    with pytest.raises(InvalidProblem, match="failed=0, and a score of -6 is worse"):
        trainer.fit(DATA, [8.0], rounds=2)
    assert by.data == 1.0  # what did not raise
    by, _, trainer = made([0.0, 2.0], failed=-1e9)
    assert trainer.fit(DATA, [8.0], rounds=2).scores == [-6.0, -6.0, -2.0]


def test_scores_on_other_examples_are_not_gone_on_with(tmp_path):
    made([2.0], checkpoint=tmp_path / "run.json")[2].fit(DATA, [8.0], rounds=1)
    with pytest.raises(CheckpointMismatch, match="other examples than these to validate on"):
        made([3.0], checkpoint=tmp_path / "run.json")[2].fit(DATA, [80.0], rounds=2)


def test_what_raises_outside_of_the_program_leaves_the_best_values():
    by = node(1.0, trainable=True)
    judged = lambda x, y: -abs(y - x / 4) if by.data != 3.0 else 1 / 0  # noqa: E731
    trainer = WorkflowTrainer(lambda x: divided(x, by), Listed([by], [2.0, 3.0]), judged)
    with pytest.raises(ZeroDivisionError):
        trainer.fit(DATA, [8.0], rounds=3)
    assert by.data == 2.0


def test_values_may_be_arrays_and_examples_any_iterable(tmp_path):
    by = node(np.ones(2), trainable=True)
    tried = [np.full(2, 2.0), np.full(2, 3.0), np.full(2, 2.0)]
    options = {"program": lambda x: by * x, "guide": lambda x, y: -float(np.abs(y - 3 * x).sum())}
    trainer = WorkflowTrainer(optimizer=Listed([by], tried), **options)
    assert trainer.fit(iter(DATA), np.array([1.0]), rounds=3).scores == [-4.0, -2.0, 0.0, 0.0]
    assert by.data.tolist() == [3.0, 3.0]
    kept = WorkflowTrainer(optimizer=Listed([by], tried), checkpoint=tmp_path / "run", **options)
    with pytest.raises(InvalidProblem, match="only plain data are kept in a checkpoint"):
        kept.fit(DATA, [1.0])
    with pytest.raises(InvalidProblem, match="lists of examples; got a dict"):
        trainer.fit({1: 2}, [1.0])


@pytest.mark.parametrize("bad", [{"beam": 1.5}, {"batch": "3"}, {"workers": True}, {"patience": 2.0}])
def test_counts_are_whole_numbers(bad):
    (name,) = bad
    with pytest.raises(InvalidParameter, match=f"{name} >= 1, a whole number"):
        made([2.0], **bad)
