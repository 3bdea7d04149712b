"""Polish and refinement of trained networks, what modules are read, and the command."""

import json

import numpy as np
import pytest
import torch
from torch import nn

from running import thalweg
from thalweg.convex import ConvexReLU, NetworkCertificate, polish, refine_patterns, sample_patterns
from thalweg.convex.relu.modules import read_module
from thalweg.core import InvalidParameter, InvalidProblem


def net(inputs=2, width=6, outputs=1, bias=(True, True), dtype=torch.float64):
    torch.manual_seed(0)
    return nn.Sequential(nn.Linear(inputs, width, bias[0]), nn.ReLU(), nn.Linear(width, outputs, bias[1])).to(
        dtype
    )


class Own(nn.Module):
    """Layers named and registered in another order than they run."""

    def __init__(self, act=torch.relu):
        super().__init__()
        self.readout, self.features, self.act = nn.Linear(6, 1), nn.Linear(2, 6), act

    def forward(self, x):
        return self.readout(self.act(self.features(x)))


def objective(module, X, y, beta, loss):
    """By torch alone; the output bias is not penalised."""
    f, target = module(torch.tensor(X)), torch.tensor(y)
    layers = [m for m in module.modules() if isinstance(m, nn.Linear)]
    value = {
        "squares": lambda: 0.5 * (f - target.reshape(f.shape)).square().sum(),
        "logistic": lambda: nn.functional.softplus(-target * f[:, 0]).sum(),
        "hinge": lambda: torch.relu(1 - target * f[:, 0]).sum(),
        "softmax": lambda: nn.functional.cross_entropy(f, target.long(), reduction="sum"),
    }[loss]()
    penalty = sum(m.weight.square().sum() for m in layers)
    penalty += layers[0].bias.square().sum() if layers[0].bias is not None else 0.0
    return float(value + 0.5 * beta * penalty)


@pytest.fixture
def rows():
    return np.random.default_rng(0).standard_normal((25, 2))


class TestPolish:
    @pytest.mark.parametrize("bias", [(True, True), (True, False), (False, True), (False, False)])
    @pytest.mark.parametrize("loss", ["squares", "logistic", "hinge"])
    def test_objectives_are_torchs_and_never_rise(self, rows, loss, bias):
        y = np.abs(rows[:, 0]) if loss == "squares" else np.sign(rows[:, 0])
        module = net(bias=bias)
        found = polish(module, rows, y, beta=0.2, loss=loss)
        assert found.before == pytest.approx(objective(module, rows, y, 0.2, loss), rel=1e-9)
        assert found.after <= found.before
        assert found.after == pytest.approx(objective(found.to_module(), rows, y, 0.2, loss), rel=1e-9)
        assert bias[1] or (found.network.bias == 0).all()

    @pytest.mark.parametrize("loss", ["squares", "softmax"])
    def test_several_outputs_share_neurons(self, rows, loss):
        y = np.c_[rows[:, 0], np.abs(rows)] if loss == "squares" else np.arange(25.0) % 3
        module = net(outputs=3)
        found = polish(module, rows, y, beta=0.3, loss=loss)
        assert found.before == pytest.approx(objective(module, rows, y, 0.3, loss), rel=1e-9)
        assert found.certificate.lower <= found.after <= found.before

    def test_a_minimum_cannot_be_told_from_its_bound(self, rows):
        rows = rows[:14]
        first = polish(net(), rows, np.abs(rows[:, 0]), beta=0.5, patterns="all")
        again = polish(first.to_module(), rows, np.abs(rows[:, 0]), beta=0.5)
        assert first.certificate.complete
        assert first.certificate.is_global
        assert again.after == pytest.approx(first.after, rel=1e-3)
        assert not again.certificate.is_global  # its patterns were not all

    def test_rounds_of_refinement_do_not_hurt(self, rows):
        y = np.sin(2 * rows[:, 0]) * rows[:, 1]
        plain = polish(net(), rows, y, beta=0.1)
        assert polish(net(), rows, y, beta=0.1, rounds=2).after <= plain.after * (1 + 1e-3)

    def test_refinement_lowers_the_optimum(self, rows):
        X = np.c_[rows, np.ones(25)]
        problem = ConvexReLU(X, np.sin(2 * rows[:, 0]) * rows[:, 1], sample_patterns(X, 4), 0.1)
        better, x = refine_patterns(problem, rounds=3)
        _, before = refine_patterns(problem, rounds=0)
        assert better.metrics(x)["objective"] < 0.95 * problem.metrics(before)["objective"]

    def test_a_certificate_may_be_beaten_by_other_patterns(self):
        assert NetworkCertificate(0.9, 1.0, False).gap < 0
        assert NetworkCertificate(0.0, 0.0, True).is_global


class TestReading:
    def test_layers_are_found_by_what_they_do(self, rows):
        module = Own()
        found = read_module(module)
        ours = found.network.outputs(found.rows(rows))
        np.testing.assert_allclose(ours, module.double()(torch.tensor(rows)).detach().numpy(), atol=1e-6)
        assert module.training

    def test_float32_weights_are_read_exactly(self):
        module = net(dtype=torch.float32)
        np.testing.assert_array_equal(
            read_module(module).network.hidden[:, :2], module[0].weight.detach().numpy()
        )

    @pytest.mark.parametrize(
        ("module", "message"),
        [
            (nn.Sequential(nn.Linear(2, 3), nn.Tanh(), nn.Linear(3, 1)), "Tanh layer"),
            (nn.Sequential(nn.Linear(2, 3), nn.ReLU(), nn.Dropout(), nn.Linear(3, 1)), "Dropout layer"),
            (
                nn.Sequential(nn.Linear(2, 3), nn.BatchNorm1d(3), nn.ReLU(), nn.Linear(3, 1)),
                "BatchNorm1d layer",
            ),
            (
                nn.Sequential(nn.Linear(2, 3), nn.ReLU(), nn.Linear(3, 3), nn.ReLU(), nn.Linear(3, 1)),
                "3 Linear",
            ),
            (nn.Linear(2, 1), "1 Linear"),
            (Own(torch.tanh), "another activation"),
            (nn.Sequential(nn.Linear(2, 3), nn.Linear(3, 1)), "another activation"),
            ("net", "torch.nn.Module is expected"),
        ],
    )
    def test_what_is_no_such_network_is_refused(self, module, message):
        with pytest.raises(InvalidProblem, match=message):
            read_module(module)

    def test_weights_that_are_not_finite_are_refused(self, rows):
        module = net()
        with torch.no_grad():
            module[0].weight[0, 0] = torch.nan
        with pytest.raises(InvalidProblem):
            polish(module, rows, rows[:, 0], beta=1.0)

    @pytest.mark.parametrize(
        ("options", "error", "message"),
        [
            ({"beta": 0.0}, InvalidParameter, "beta > 0"),
            ({"beta": 1.0, "patterns": "some"}, InvalidParameter, "patterns is"),
            ({"beta": 1.0, "rounds": -1}, InvalidParameter, "rounds >= 0"),
            ({"beta": 1.0, "X": np.ones((25, 3))}, InvalidProblem, "the network takes"),
            ({"beta": 1.0, "y": np.ones((25, 2))}, InvalidProblem, "1 outputs, and y asks for 2"),
        ],
    )
    def test_what_does_not_fit_is_refused(self, rows, options, error, message):
        given = {"X": rows, "y": rows[:, 0], **options}
        with pytest.raises(error, match=message):
            polish(net(), given.pop("X"), given.pop("y"), **given)


class TestTheCommand:
    @pytest.fixture
    def table(self, tmp_path):
        X = np.random.default_rng(0).standard_normal((20, 2))
        np.savez(tmp_path / "t.npz", X=X, y=np.abs(X[:, 0]) > 0.7)
        return tmp_path / "t.npz"

    @pytest.mark.parametrize("loss", ["squares", "logistic", "multiclass"])
    def test_a_network_is_trained_and_written(self, table, tmp_path, loss):
        done = thalweg(
            "solve", "convex", str(table), "--loss", loss, "--relu", "10", "--decay", "0.5", "--json", "--tol", "0.01",
            "--out", str(tmp_path / "net.npz"),
        )  # fmt: skip
        told = json.loads(done.stdout)
        found = np.load(tmp_path / "net.npz")
        assert told["status"] == "converged"
        assert told["lower"] <= told["metrics"]["objective"] * 1.01
        assert found["hidden"].shape == (told["neurons"], 3)

    @pytest.mark.parametrize(
        ("options", "message"),
        [(["--relu", "0"], "a number of patterns"), (["--relu", "5", "--l1", "1"], "one penalty")],
    )
    def test_options_that_do_not_fit_are_refused(self, table, options, message):
        done = thalweg("solve", "convex", str(table), *options)
        assert done.returncode == 2
        assert message in done.stderr
