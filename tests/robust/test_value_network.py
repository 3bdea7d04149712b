"""The network, its embedding in programs, its labels and training: forwards, corners, resumes, refusals."""

from __future__ import annotations

import itertools
from dataclasses import replace

import numpy as np
import pytest
import torch

from thalweg import Checkpoint, Stop, solve
from thalweg.core import InvalidParameter, InvalidProblem, UnknownName, UnreadableFile
from thalweg.robust import (
    CapitalBudgeting,
    ColumnConstraint,
    FacilityLocation,
    NeuralCCG,
    Nominal,
    RobustKnapsack,
    ValueSurrogate,
    label_sets,
    load_value,
    pretrained_value,
    save_value,
)
from thalweg.robust.adversary import dearest
from thalweg.robust.embedding import Embedding, item_sum, worst_by_program
from thalweg.robust.learning import RECIPES, ValueLearning, ValueTraining, any_knapsack
from thalweg.robust.milp import Model


def budgeting(size, seed):
    return CapitalBudgeting.random(size, seed, factors=2, loans=True)


def facilities(size, seed):
    return FacilityLocation.random(size, 4, seed)


@pytest.fixture(scope="module")
def learned():
    """Small networks by kind, trained for two epochs: enough for facts that hold for any weights."""
    found = {}
    for name, make in (("knapsack", any_knapsack), ("loans", budgeting), ("facility", facilities)):
        sets = label_sets(make, [8 if name == "knapsack" else 3], problems=5, decisions=3, scenarios=6)
        problem = make(8 if name == "knapsack" else 3, 77)
        learning = ValueLearning(type(problem).__name__, sets)
        network = solve(learning, ValueTraining(2), progress=False).x.double().eval()
        found[name] = ValueSurrogate(network, problem)
    return found


NAMES = ("knapsack", "loans", "facility")


class TestEmbedding:
    @pytest.mark.parametrize("name", NAMES)
    @pytest.mark.parametrize("bounds", ["interval", "lp"])
    def test_its_value_is_the_forward_pass(self, learned, name, bounds):
        surrogate = learned[name]
        problem, rng = surrogate.problem, np.random.default_rng(0)
        for x, xi in zip(problem.sample_decisions(4, rng), problem.uncertainty.sample(4, rng)):
            model = Model()
            columns = problem.first_stage.add_to(model)
            model.rows([(columns, np.eye(len(x)))], x, x)
            column, low, high = Embedding(model, columns, surrogate, bounds).value(xi)
            told = model.minimize(integrality=1e-9).x[column][0]
            wanted = surrogate.predict(x, xi)[0, 0]
            assert told == pytest.approx(wanted, rel=1e-5, abs=1e-5)
            assert low - 1e-6 <= wanted <= high + 1e-6

    def test_items_are_linear_in_bits_at_every_corner(self, learned):
        surrogate = learned["knapsack"]
        layer = item_sum(surrogate, np.arange(8))
        corners = np.array(list(itertools.product((0.0, 1.0), repeat=8)))
        network, features = surrogate.network, torch.from_numpy(surrogate.problem.item_features())
        known = (features - network.item_low) / network.item_width
        rows = torch.cat([torch.from_numpy(corners)[..., None], known.expand(256, 8, -1)], -1)
        with torch.no_grad():
            wanted = network.item(rows).sum(1).numpy()
        np.testing.assert_allclose(corners @ layer.M.T + layer.k, wanted, atol=1e-10)

    def test_a_program_over_x_finds_the_best_corner(self, learned):
        surrogate = learned["knapsack"]
        xi = np.r_[1.0, np.zeros(7)]
        model = Model()
        columns = surrogate.problem.first_stage.add_to(model)
        column, low, high = Embedding(model, columns, surrogate).value(xi)
        aim = model.columns(1, low, high, cost=1.0)
        model.rows([(aim, [[1.0]]), (column, [[-1.0]])], 0.0, 0.0)
        corners = np.array(list(itertools.product((0.0, 1.0), repeat=8)))
        best = surrogate.predict(corners, xi).min()
        assert model.minimize(integrality=1e-9).value == pytest.approx(best, rel=1e-4)

    def test_lp_bounds_are_within_interval_bounds(self, learned):
        surrogate = learned["loans"]
        ends = []
        for bounds in ("interval", "lp"):
            model = Model()
            columns = surrogate.problem.first_stage.add_to(model)
            ends.append(Embedding(model, columns, surrogate, bounds).value(np.zeros(2))[1:])
        assert ends[0][0] <= ends[1][0] + 1e-9
        assert ends[1][1] <= ends[0][1] + 1e-9


class TestAdversary:
    def test_swaps_and_gradient_find_nearly_what_the_program_proves(self, learned):
        for name in ("knapsack", "loans"):
            surrogate = learned[name]
            x = surrogate.problem.sample_decisions(1, np.random.default_rng(3))[0]
            top, xi = worst_by_program(surrogate, surrogate.problem.uncertainty, x, 30.0)
            assert surrogate.predict(x, xi)[0, 0] == pytest.approx(top, rel=1e-4)
            low, high = surrogate.network.range_of(surrogate.problem)
            for how in ("swaps", "gradient", "milp"):
                value, at = dearest(surrogate, x, np.random.default_rng(0), how=how, samples=200)
                assert surrogate.problem.uncertainty.contains(at).all()
                assert value == pytest.approx(surrogate.predict(x, at)[0, 0], rel=1e-9)
                assert top - 0.05 * (high - low) <= value <= top + 2e-3 * abs(top)

    def test_an_unknown_adversary_is_refused(self, learned):
        with pytest.raises(UnknownName, match=r"No adversary 'swap'. Did you mean 'swaps'"):
            dearest(learned["knapsack"], np.ones(8), np.random.default_rng(0), how="swap")


class TestNetwork:
    def test_permuting_items_changes_nothing(self):
        problem, order = RobustKnapsack.random(20, 4), np.random.default_rng(0).permutation(20)
        names = ("weight", "profit", "loss", "penalty", "repair")
        moved = replace(problem, **{n: np.asarray(getattr(problem, n))[order] for n in names})
        x, xi = np.random.default_rng(1).integers(0, 2, 20).astype(float), np.linspace(0, 0.1, 20)
        network = pretrained_value("knapsack")
        a = ValueSurrogate(network, problem).predict(x, xi)
        np.testing.assert_allclose(ValueSurrogate(network, moved).predict(x[order], xi[order]), a, rtol=1e-12)

    @pytest.mark.parametrize(
        ("name", "size", "least"), [("knapsack", 20, 0.98), ("budgeting", 20, 0.8), ("facility", 5, 0.98)]
    )
    def test_shipped_networks_explain_problems_that_they_have_not_seen(self, name, size, least):
        recipe, rng = RECIPES[name], np.random.default_rng(0)
        told, true = [], []
        for seed in range(10):
            problem = recipe.make(size, 10_000 + seed)
            X, XI = problem.sample_decisions(5, rng), problem.uncertainty.sample(10, rng)
            told.append(ValueSurrogate(pretrained_value(name), problem).predict(X, XI))
            true.append(problem.labels(X, XI))
        a, b = np.concatenate(told, axis=None), np.concatenate(true, axis=None)
        assert 1 - ((a - b) ** 2).mean() / b.var() > least

    def test_the_shipped_network_of_sites_decides_nearly_as_the_exact_loop(self):
        """On little capacity and large surges, where a decision for the nominal demand is a third dearer."""
        costs = []
        for seed in range(20_000, 20_003):
            easy = FacilityLocation.random(5, 10, seed)
            capacity, surge = easy.data[1], easy.data[4]
            problem = replace(easy, capacity=0.6 * capacity, surge=2 * surge, gamma=3.0)
            methods = (ColumnConstraint(), NeuralCCG(), Nominal())
            costs.append([solve(problem, m, progress=False).metrics["cost"] for m in methods])
        exact, learned, nominal = np.array(costs).T
        assert (learned >= exact * (1 - 1e-3)).all()
        assert (learned / exact).mean() < 1.02
        assert (nominal / exact).mean() > 1.2

    def test_a_saved_network_says_the_same(self, learned, tmp_path):
        surrogate = learned["loans"]
        save_value(surrogate.network, tmp_path / "net.safetensors")
        again = ValueSurrogate(load_value(tmp_path / "net.safetensors"), surrogate.problem)
        x, xi = np.array([[1.0, 0, 0, 0.5]]), np.zeros((1, 2))
        np.testing.assert_allclose(again.predict(x, xi), surrogate.predict(x, xi), rtol=1e-6)

    def test_what_is_no_network_is_refused(self, tmp_path):
        (tmp_path / "net.safetensors").write_bytes(b"no")
        with pytest.raises(UnreadableFile, match="is no value network"):
            load_value(tmp_path / "net.safetensors")
        with pytest.raises(UnknownName, match="Did you mean 'knapsack'"):
            pretrained_value("knapsac")

    def test_a_size_that_it_was_not_trained_on_is_refused(self):
        with pytest.raises(InvalidProblem, match="has no scale for 25"):
            ValueSurrogate(pretrained_value("knapsack"), RobustKnapsack.random(25, 0))

    def test_another_class_and_other_features_are_refused(self):
        with pytest.raises(InvalidProblem, match="for RobustKnapsack; got a CapitalBudgeting"):
            ValueSurrogate(pretrained_value("knapsack"), CapitalBudgeting.random(20, 0))
        with pytest.raises(InvalidProblem, match="trained with 11 item features; the problem has 9"):
            ValueSurrogate(pretrained_value("budgeting"), CapitalBudgeting.random(20, 0, factors=3))
        with pytest.raises(InvalidProblem, match="0 entries of x that are no items; the problem has 1"):
            ValueSurrogate(pretrained_value("budgeting"), CapitalBudgeting.random(20, 0, loans=True))


class TestLabels:
    def test_they_are_the_same_from_two_processes_and_from_a_folder(self, tmp_path):
        numbers = {"problems": 30, "decisions": 2, "scenarios": 3}
        plain = label_sets(any_knapsack, [4], **numbers)[0]
        kept = label_sets(any_knapsack, [4], **numbers, folder=tmp_path, workers=2)[0]
        files = sorted(tmp_path.glob("*.thalweg"))
        assert len(files) == 2
        stamp = files[0].stat().st_mtime_ns
        files[1].unlink()
        again = label_sets(any_knapsack, [4], **numbers, folder=tmp_path)[0]
        assert files[0].stat().st_mtime_ns == stamp
        for other in (kept, again):
            np.testing.assert_allclose(other.values, plain.values, rtol=1e-12)
            np.testing.assert_array_equal(other.bits, plain.bits)

    def test_a_folder_of_other_problems_is_refused(self, tmp_path):
        numbers = {"problems": 2, "decisions": 1, "scenarios": 2, "folder": tmp_path}
        label_sets(any_knapsack, [4], **numbers)
        with pytest.raises(InvalidProblem, match="holds labels of other problems than make gives"):
            label_sets(lambda n, seed: RobustKnapsack.random(n, seed, "WC"), [4], **numbers)

    def test_problems_of_two_kinds_in_a_size_are_refused(self):
        def two(size, seed):
            return any_knapsack(size, seed) if seed % 2 else any_knapsack(size + 1, seed)

        with pytest.raises(
            InvalidProblem, match="expected problems of one class and number of items for a size"
        ):
            label_sets(two, [4], problems=2, decisions=1, scenarios=2)
        with pytest.raises(InvalidParameter, match="each size once"):
            label_sets(any_knapsack, [4, 4], problems=2, decisions=1, scenarios=2)

    def test_labels_without_a_range_are_refused(self):
        part = label_sets(any_knapsack, [3], problems=5, decisions=1, scenarios=2)[0]
        with pytest.raises(InvalidProblem, match="all labels of 3 items are 1; there is nothing to learn"):
            ValueLearning("RobustKnapsack", [replace(part, values=np.ones_like(part.values))])

    def test_too_few_problems_are_refused(self):
        part = label_sets(any_knapsack, [3], problems=4, decisions=1, scenarios=2)
        with pytest.raises(InvalidProblem, match="4 problems of 3 items; expected 5"):
            ValueLearning("RobustKnapsack", part)


class TestTraining:
    def test_a_resumed_run_has_the_same_bits(self, tmp_path):
        sets = label_sets(any_knapsack, [4], problems=10, decisions=2, scenarios=4)
        learning, method = ValueLearning("RobustKnapsack", sets), ValueTraining(6, batch_size=3)
        whole = solve(learning, method, progress=False)
        stop = Stop(steps=3)
        solve(learning, method, stop=stop, progress=False, callbacks=[Checkpoint(tmp_path / "run", every=3)])
        again = solve(learning, method, resume=tmp_path / "run", progress=False)
        assert again.steps == whole.steps == 6
        for a, b in zip(again.x.state_dict().values(), whole.x.state_dict().values()):
            assert torch.equal(a, b)

    def test_loss_falls(self):
        sets = label_sets(any_knapsack, [6], problems=25, decisions=4, scenarios=8)
        history = solve(ValueLearning("RobustKnapsack", sets), ValueTraining(25), progress=False).history
        assert min(history["loss"]) < 0.5 * history["loss"][0]
