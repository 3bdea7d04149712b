"""Every study runs at smoke scale and brings back whole evidence."""

from __future__ import annotations

import importlib
import json

import numpy as np
import pytest
import torch
from sklearn.datasets import dump_svmlight_file
from torch.nn.functional import cross_entropy

from thalweg.catalogue import SYSTEMS
from thalweg.core.seeding import torch_generator
from thalweg.online import Fixed
from thalweg.studies import convex_schedules, learning_to_relax, misspecified_bandits, rex_schedule, tasks
from thalweg.training.profiles import Cosine, Linear


@pytest.mark.parametrize("system", SYSTEMS, ids=lambda s: s.slug)
def test_a_study_brings_back_verdicts_a_table_and_figures(system):
    told = []
    evidence = importlib.import_module(f"thalweg.studies.{system.study}").run(
        "smoke", lambda share, what: told.append(share)
    )
    assert evidence.verdicts
    assert evidence.table
    assert evidence.figures
    assert all(0 <= share <= 1 for share in told)
    json.dumps(evidence.to_dict(), allow_nan=False)
    for figure in evidence.figures:
        assert all(len(s.x) == len(s.y) for s in figure.series)


def test_learning_to_relax_reaches_its_heat_equation_claims_on_a_small_grid():
    size = learning_to_relax.Size(0, 0, heat=600, nx=25, seeds=5)
    heat = learning_to_relax._heat(size)
    contestants = {**learning_to_relax._learners(0.0, 10.0, 6), "plain CG": learning_to_relax._plain}
    found = learning_to_relax._race("heat", lambda seed: heat, contestants, (1, 2, 3, 4, 5))
    assert found.compared("Tsallis-INF", "best fixed omega", 1.25)[0].holds
    assert found.beats(1.10)[0].holds
    assert found.compared("ChebCB", "plain CG", 0.6)[0].holds
    # What was played and what was added up, by hand for one seed.
    policy = learning_to_relax._policies(0.0, 10.0, 6)["ChebCB"].started(3)
    paid = 0
    for row, context in zip(heat.table, heat.contexts, strict=True):
        arm = policy.act(context)
        policy.learn(arm, row[arm] - 1.0)
        paid += row[arm]
    assert found.scores["heat"]["ChebCB"][2] == paid
    assert found.scores["heat"]["best fixed omega"][2] == heat.table.sum(0).min()


def test_an_unsolved_system_makes_a_policy_of_learning_to_relax_lose():
    table = np.full((30, 20), 10)
    table[:, 3] = learning_to_relax.CAP
    sequence = learning_to_relax.Sequence(table, np.zeros(30))
    assert learning_to_relax.BestFixed()(sequence, 1) == 300
    assert learning_to_relax.Learner("fixed", Fixed(20, arm=3))(sequence, 1) == np.inf
    assert learning_to_relax.Learner("other", Fixed(20, arm=4), first=20)(sequence, 1) == 100


def test_the_bound_of_learning_to_relax_can_fail(monkeypatch):
    """With a constant from right-hand sides that need fewer iterations than those that are judged, it does."""
    _, verdict = learning_to_relax._bound((1, 2, 3, 4, 5))
    assert verdict.holds
    real, solved = learning_to_relax.kernels.sor_iterations, []

    def iterations(*arguments):
        solved.append(None)  # the first 20 x 39 are held out
        return real(*arguments) * (1 if len(solved) <= 20 * 39 else 2)

    monkeypatch.setattr(learning_to_relax.kernels, "sor_iterations", iterations)
    _, verdict = learning_to_relax._bound((1, 2, 3, 4, 5))
    assert verdict.outcome == "fails"


def test_claims_about_misspecified_bandits_can_fail(monkeypatch):
    """A needle at the place where a method looks first, and a misfit that is harmless."""
    held = (
        misspecified_bandits._needles({3: 100}),
        misspecified_bandits._least_squares((8, 16), (91, 92, 93, 94, 95)),
    )
    assert all(verdict.holds for verdicts in held for verdict in verdicts)
    real = misspecified_bandits.needle
    monkeypatch.setattr(
        misspecified_bandits, "needle", lambda words, eps, seed: real(words, eps, place=0, seed=seed)
    )
    outcomes = {
        v.claim.split(" of ")[1].split(" /")[0]: v.outcome for v in misspecified_bandits._needles({3: 100})
    }
    assert outcomes == {"random": "holds", "LinUCB": "fails", "epsilon-greedy": "fails"}
    monkeypatch.setattr(
        misspecified_bandits,
        "worst_for_least_squares",
        lambda features, linear, eps: np.full(len(linear), eps),
    )
    verdict = misspecified_bandits._least_squares((8, 16), (81, 82, 83, 84, 85))[0]
    assert verdict.outcome == "fails"


@pytest.mark.parametrize("make", [tasks.digits, tasks.text], ids=["digits", "text"])
def test_settings_are_chosen_on_examples_that_neither_judge_nor_train_what_is_judged(make):
    judged, tuned = make(10), make(10, tuning=True)

    def rows(data):
        return {tuple(np.asarray(x).ravel().tolist()) for x in data[0]}

    # The text says some of its lines twice: up to 1 of a hundred windows is also met elsewhere.
    allowed = 4 if make is tasks.text else 0
    assert len(rows(tuned.test) & rows(judged.test)) <= allowed
    assert len(rows(tuned.train) & rows(judged.test)) <= allowed
    assert len(tuned.test[0]) == 400


def test_rex_is_raced_on_grids_of_one_size_under_its_own_name():
    evidence = rex_schedule.run("smoke")
    assert [v.claim for v in evidence.verdicts] == [
        "all tasks and budgets: place of rex by mean rank among 5",
        "all tasks and budgets: mean rank, rex - best of the other 4",
        "the two smallest budgets: mean rank, step - rex",
    ]
    assert {v.outcome for v in evidence.verdicts} == {"open"}  # two seeds say nothing
    assert sum(row["contestant"] == "rex (ours)" for row in evidence.table) == 2 + len(rex_schedule.BUDGETS)


def test_refinement_takes_the_users_own_problems_and_recorded_norms(tmp_path, monkeypatch):
    rng = np.random.default_rng(0)
    X = rng.standard_normal((60, 4))
    dump_svmlight_file(X, (X[:, 0] + rng.standard_normal(60) > 0).astype(int), str(tmp_path / "mine.svm"))
    (tmp_path / "norms").mkdir()
    course = 1.0 + 10.0 * np.exp(-np.arange(500) / 100.0)
    np.savetxt(tmp_path / "norms" / "gpt_l1.csv", course, header="norm", comments="")
    monkeypatch.setenv("THALWEG_DATA", str(tmp_path))
    evidence = importlib.import_module("thalweg.studies.schedule_refinement").run("smoke")
    assert any(row["problem"] == "logistic regression, mine" for row in evidence.table)
    (verdict,) = (v for v in evidence.verdicts if "gpt_l1: share of the steps for warm-up" in v.claim)
    assert verdict.wanted == pytest.approx((0.23, 0.33))


def test_adam_of_all_runs_at_once_is_torchs():
    problem = convex_schedules.problems([])[2].rows(False)
    losses, norms = convex_schedules._trained(problem, [Linear(), Cosine()], 12, (3, 4))
    for k, profile in enumerate((Linear(), Cosine())):
        W = torch.zeros(problem.X.shape[1], 3, requires_grad=True)
        optimizer, generator = torch.optim.Adam([W], lr=1.0), torch_generator(4, 7)
        for t in range(12):
            optimizer.param_groups[0]["lr"] = 0.1 * float(profile(np.array([t / 12]))[0])
            batch = torch.randint(len(problem.y), (16,), generator=generator)
            (W.grad,) = torch.autograd.grad(cross_entropy(problem.X[batch] @ W, problem.y[batch]), W)
            optimizer.step()
        loss = float(cross_entropy(problem.X @ W.detach(), problem.y))
        assert losses[k, convex_schedules.RATES.index(0.1), 1] == pytest.approx(loss, rel=1e-4)
        assert norms[-1, k, 3, 1] == pytest.approx(float(W.grad.abs().sum()), rel=1e-3)


def test_schedules_are_tuned_on_rows_that_are_not_judged():
    problem = convex_schedules.problems([])[0]
    apart, judged = problem.rows(True), problem.rows(False)
    assert len(apart.y) + len(judged.y) == len(problem.y)
    assert not {tuple(x) for x in apart.X.tolist()} & {tuple(x) for x in judged.X.tolist()}
