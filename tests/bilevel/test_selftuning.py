"""Self-tuning networks: layers against a loop over examples, responses against ridge regression's, bad input."""

from __future__ import annotations

import copy
import math

import pytest
import torch
from torch import nn

from thalweg import Stop, solve
from thalweg.bilevel.selftuning import (
    HyperParameter,
    HyperSpace,
    SelfTuner,
    SelfTuningTask,
    Tuned,
    cross_entropy_by_example,
    cutout,
    input_noise,
    label_smoothing,
    register_layer,
    self_tuning,
    weight_decay,
)
from thalweg.bilevel.selftuning.network import CONVERTERS
from thalweg.bilevel.selftuning.tuner import Hyper
from thalweg.core import Checkpoint, InvalidParameter, InvalidProblem, UnknownName

SPACE = HyperSpace(
    HyperParameter("drop", 0.3, high=0.9),
    HyperParameter("decay", 1e-3, scale="log"),
    HyperParameter("holes", 2.0, 0.0, 5.0, integer=True),
)


class Language(nn.Module):
    def __init__(self, layers=1):
        super().__init__()
        self.embedding, self.lstm = nn.Embedding(7, 5), nn.LSTM(5, 6, layers, batch_first=True)
        self.head = nn.Linear(6, 7)

    def forward(self, codes):
        out, _ = self.lstm(self.embedding(codes))
        return self.head(out.reshape(-1, 6)).reshape(*codes.shape, 7)


def convolutional():
    return nn.Sequential(
        nn.Conv2d(2, 4, 3, padding=1),
        nn.BatchNorm2d(4),
        nn.ReLU(),
        nn.Conv2d(4, 6, 3, stride=2, groups=2, bias=False),
        nn.Flatten(),
        nn.Linear(6 * 9, 3),
    )


NETWORKS = {
    "mlp": (
        lambda: nn.Sequential(nn.Linear(4, 8), nn.Tanh(), nn.Linear(8, 3, bias=False)),
        lambda: torch.randn(5, 4),
    ),
    "sequence": (
        lambda: nn.Sequential(nn.Linear(4, 8), nn.Tanh(), nn.Linear(8, 3)),
        lambda: torch.randn(5, 6, 4),
    ),
    "conv1d": (
        lambda: nn.Sequential(nn.Conv1d(2, 4, 3), nn.BatchNorm1d(4), nn.Tanh(), nn.Conv1d(4, 2, 1)),
        lambda: torch.randn(5, 2, 9),
    ),
    "conv2d": (convolutional, lambda: torch.randn(5, 2, 8, 8)),
    "lstm": (Language, lambda: torch.randint(7, (5, 4))),
    "deep lstm": (lambda: Language(2), lambda: torch.randint(7, (5, 4))),
}


def made(name, delta=False):
    torch.manual_seed(0)
    make, inputs = NETWORKS[name]
    plain, x = make().double(), inputs()
    x = x.double() if x.is_floating_point() else x
    for module in plain.modules():  # running statistics that are not trivial
        if isinstance(module, nn.BatchNorm1d | nn.BatchNorm2d):
            module.running_mean.normal_()
            module.running_var.uniform_(0.5, 2.0)
    tuned = self_tuning(plain, SPACE, delta=delta).eval()
    return plain.eval(), tuned, x


def stirred(tuned):
    with torch.no_grad():
        for p in tuned.responses:
            p.add_(0.3 * torch.randn_like(p))
    return tuned


class TestLayers:
    @pytest.mark.parametrize("delta", [False, True])
    @pytest.mark.parametrize("name", NETWORKS)
    def test_with_v_zero_a_network_is_the_plain_one(self, name, delta):
        plain, tuned, x = made(name, delta)
        u = SPACE.u0 + torch.randn(len(x), 3, dtype=torch.float64)
        if "lstm" in name:  # another order of summation
            torch.testing.assert_close(tuned(x, at=u), plain(x), rtol=1e-12, atol=1e-12)
        else:
            assert torch.equal(tuned(x, at=u), plain(x))

    @pytest.mark.parametrize("name", NETWORKS)
    def test_each_example_has_its_own_weights(self, name):
        """Gates of a batch against the exported plain network of each example."""
        _, tuned, x = made(name)
        stirred(tuned)
        u = SPACE.u0 + torch.randn(len(x), 3, dtype=torch.float64)
        together = tuned(x, at=u)
        for i in range(len(x)):
            alone = tuned.export(u[i])
            assert not any(isinstance(m, Tuned) for m in alone.modules())
            torch.testing.assert_close(together[i : i + 1], alone(x[i : i + 1]), rtol=1e-9, atol=1e-9)

    @pytest.mark.parametrize("name", [n for n in NETWORKS if n != "deep lstm"])
    def test_deltas_response_is_the_first_order_one(self, name):
        """The linearised output against a directional derivative of the exact one, by central differences."""
        _, exact, x = made(name)
        _, linear, _ = made(name, delta=True)
        stirred(exact)
        linear.load_state_dict(exact.state_dict())
        move = 0.7 * torch.randn(len(x), 3, dtype=torch.float64)
        centre, h = exact.centre, 1e-5
        slope = (exact(x, at=centre + h * move) - exact(x, at=centre - h * move)) / (2 * h)
        torch.testing.assert_close(
            linear(x, at=centre + move), exact(x, at=centre) + slope, rtol=1e-6, atol=1e-6
        )

    def test_deltas_response_gives_the_centre_no_gradient(self):
        _, tuned, x = made("conv2d", delta=True)
        stirred(tuned).train()
        tuned(x, at=tuned.centre + 0.1 * torch.ones(len(x), 3, dtype=torch.float64)).square().sum().backward()
        responses = {id(p) for p in tuned.responses}
        got = {id(p) for p in tuned.parameters() if p.grad is not None and float(p.grad.abs().max()) > 0}
        assert got
        assert got <= responses

    @pytest.mark.parametrize("delta", [False, True])
    def test_gradients_in_hyper_parameters_and_responses_are_right(self, delta):
        _, tuned, x = made("mlp", delta)
        stirred(tuned)
        u = (tuned.centre + 0.3 * torch.randn(len(x), 3, dtype=torch.float64)).requires_grad_()
        assert torch.autograd.gradcheck(lambda u: tuned(x, at=u), (u,))

    @pytest.mark.parametrize("name", NETWORKS)
    def test_squared_norms_are_those_of_the_weights(self, name):
        _, tuned, x = made(name)
        stirred(tuned)
        u = SPACE.u0 + torch.randn(len(x), 3, dtype=torch.float64)
        told = tuned.squared_norm(u).detach()
        for i in range(len(x)):
            weights = [p for p in tuned.export(u[i]).parameters() if p.ndim > 1]
            assert float(told[i]) == pytest.approx(
                sum(float(p.detach().square().sum()) for p in weights), rel=1e-9
            )

    def test_dropout_has_a_rate_for_each_example_and_none_in_evaluation(self):
        net = self_tuning(nn.Sequential(nn.Dropout(), nn.Linear(2000, 2000)), SPACE, dropout={"0": "drop"})
        drop = net.module[0]
        u = SPACE.unconstrained({"drop": 0.1, "decay": 1.0, "holes": 1.0}).repeat(2, 1)
        u[1, 0] = SPACE.unconstrained({"drop": 0.7, "decay": 1.0, "holes": 1.0})[0]
        x = torch.ones(2, 2000)
        with net.context.at(u, SPACE.values(u)):
            out = drop(x)
            drop.eval()
            assert torch.equal(drop(x), x)
        shares = (out == 0).double().mean(1)
        assert shares.tolist() == pytest.approx([0.1, 0.7], abs=0.05)
        assert out.mean(1).tolist() == pytest.approx([1.0, 1.0], abs=0.1)
        assert net.export(u[1])[0].p == pytest.approx(0.7)

    def test_whole_feature_maps_are_dropped_where_dropout2d_was(self):
        net = self_tuning(nn.Sequential(nn.Conv2d(1, 50, 1), nn.Dropout2d()), SPACE, dropout={"1": "drop"})
        out = net(torch.ones(1, 1, 4, 4))[0].flatten(1)
        zero = (out == 0).all(1)
        assert 0 < int(zero.sum()) < 50
        assert bool((out[~zero] != 0).all())


def relative(a, b):
    return float((torch.linalg.vector_norm(a - b) / torch.linalg.vector_norm(b)).detach())


class TestResponse:
    @pytest.mark.parametrize("delta", [False, True])
    def test_of_ridge_regression_it_is_the_closed_form_to_a_percent(self, delta):
        """``dw/du`` of ``|X w - y|^2/n + exp(u) |w|^2`` is ``-(X'X/n + e^u)^-1 e^u w``."""
        torch.manual_seed(1)
        X = torch.randn(8000, 4) * torch.tensor([1.0, 0.7, 0.5, 0.3])
        y = X @ torch.tensor([1.0, -2.0, 1.5, 1.0]) + 0.02 * torch.randn(8000)
        space = HyperSpace(HyperParameter("decay", 0.1, scale="log", spread=0.08))
        task = SelfTuningTask(
            lambda: nn.Linear(4, 1, bias=False),
            space,
            (X, y[:, None]),
            (X, y[:, None]),
            (X, y[:, None]),
            loss=lambda out, target, values: (out - target).square().sum(1),
            penalties=[weight_decay("decay")],
            batch_size=8000,
        )
        method = SelfTuner(
            delta=delta,
            options={"lr": 0.5, "momentum": 0.9},
            schedule=lambda optimizer: torch.optim.lr_scheduler.LambdaLR(
                optimizer, lambda k: min(1.0, (1.0 - k / 3000) ** 2)
            ),
            warmup=10_000,
            learn_spread=False,
        )
        net = solve(task, method, stop=Stop(steps=3000)).x
        gram, e = X.T @ X / 8000, 0.1
        A = gram + e * torch.eye(4)
        w = torch.linalg.solve(A, X.T @ y / 8000)
        slope = -torch.linalg.solve(A, e * w)
        h = 0.02
        learned = (net.export(space.u0 + h).weight[0] - net.export(space.u0 - h).weight[0]) / (2 * h)
        assert relative(net.export().weight[0], w) < 0.01
        assert relative(learned, slope) < 0.01

    def test_the_hyper_parameter_goes_where_validation_loss_is_least(self):
        """Ridge again: the decay that STN settles at against a scan of the closed form."""
        torch.manual_seed(2)
        true = torch.randn(10)
        X, V = torch.randn(60, 10), torch.randn(400, 10)
        y, v = X @ true + 3.0 * torch.randn(60), V @ true + 3.0 * torch.randn(400)
        space = HyperSpace(HyperParameter("decay", 0.3, scale="log", spread=0.3))
        task = SelfTuningTask(
            lambda: nn.Linear(10, 1, bias=False),
            space,
            (X, y[:, None]),
            (V, v[:, None]),
            (V, v[:, None]),
            loss=lambda out, target, values: (out - target).square().sum(1),
            penalties=[weight_decay("decay")],
            batch_size=400,
        )

        def validation(u):
            w = torch.linalg.solve(X.T @ X / 60 + math.exp(u) * torch.eye(10), X.T @ y / 60)
            return float((V @ w - v).square().mean())

        for delta in (False, True):
            method = SelfTuner(
                delta=delta,
                options={"lr": 0.01, "momentum": 0.9},
                warmup=500,
                hyper_rate=0.01,
                entropy=0.0,
                learn_spread=False,
            )
            found = solve(task, method, stop=Stop(steps=1500))
            least = min(validation(u) for u in torch.linspace(-6, 2, 81).tolist())
            assert validation(math.log(found.history.metrics[-1]["decay"])) < 1.01 * least
            assert found.metrics["validation"] < 1.03 * least

    def test_the_entropy_is_that_of_a_normal_distribution(self):
        hyper = Hyper(SPACE)
        independent = torch.distributions.Normal(hyper.u, hyper.log_spread.exp()).entropy().sum()
        torch.testing.assert_close(hyper.entropy, independent)

    def test_entropy_holds_the_perturbations_up(self):
        task = small_task()
        ends = {
            tau: solve(
                task, SelfTuner(entropy=tau, hyper_rate=0.02, warmup=0), stop=Stop(steps=150)
            ).history.metrics[-1]["sigma drop"]
            for tau in (0.0, 1.0)
        }
        assert ends[1.0] > 2.0 * ends[0.0]


def small_task(**options):
    generator = torch.Generator().manual_seed(3)
    X = torch.randn(120, 6, generator=generator)
    y = (X[:, 0] + 0.5 * torch.randn(120, generator=generator) > 0).long()
    return SelfTuningTask(
        lambda: nn.Sequential(nn.Linear(6, 16), nn.ReLU(), nn.Dropout(), nn.Linear(16, 2)),
        SPACE,
        (X[:40], y[:40]),
        (X[40:80], y[40:80]),
        (X[80:], y[80:]),
        **{"dropout": {"2": "drop"}, "penalties": [weight_decay("decay")], "batch_size": 16, **options},
    )


class TestTuner:
    @pytest.mark.parametrize("delta", [False, True])
    def test_resuming_gives_the_same_bits(self, delta, tmp_path):
        method = SelfTuner(delta=delta, warmup=3)
        whole = solve(small_task(), method, stop=Stop(steps=20))
        solve(small_task(), method, stop=Stop(steps=11), callbacks=[Checkpoint(tmp_path / "c")])
        resumed = solve(small_task(), method, stop=Stop(steps=20), resume=tmp_path / "c")
        assert all(
            torch.equal(a, b)
            for a, b in zip(whole.x.state_dict().values(), resumed.x.state_dict().values(), strict=True)
        )
        assert whole.history.metrics[-1] == resumed.history.metrics[-1]

    def test_hyper_parameters_rest_during_warmup_and_then_move(self):
        found = solve(small_task(), SelfTuner(warmup=10), stop=Stop(steps=20))
        drops = [m["drop"] for m in found.history.metrics]
        assert len(set(drops[:10])) == 1
        assert len(set(drops[10:])) > 3

    def test_the_answer_and_its_export_agree(self):
        for delta in (False, True):
            task = small_task()
            found = solve(task, SelfTuner(delta=delta, warmup=0, hyper_rate=0.05), stop=Stop(steps=40))
            plain = found.x.export()
            assert [type(m) for m in plain] == [nn.Linear, nn.ReLU, nn.Dropout, nn.Linear]
            assert task.metrics(plain) == pytest.approx(found.metrics, rel=1e-5)

    def test_a_state_dict_restores_a_network(self):
        _, tuned, x = made("mlp")
        stirred(tuned).move(SPACE.u0 + 1.0)
        _, other, _ = made("mlp")
        other.load_state_dict(tuned.state_dict())
        assert torch.equal(other(x), tuned(x))


class TestRegularisers:
    def test_cutout_zeroes_squares_of_each_examples_side(self):
        values = {"side": torch.tensor([0.0, 3.0, 20.0])}
        out = cutout("side")(torch.ones(3, 2, 8, 8), values, torch.Generator().manual_seed(0))
        zeros = (out == 0).sum((1, 2, 3)).tolist()
        assert zeros[0] == 0
        assert 0 < zeros[1] <= 18
        assert zeros[2] == 128

    def test_more_holes_zero_more(self):
        values = {"side": torch.full((50,), 3.0), "holes": torch.tensor([1.0] * 25 + [4.0] * 25)}
        out = cutout("side", "holes")(torch.ones(50, 1, 16, 16), values, torch.Generator().manual_seed(0))
        zeros = (out == 0).sum((1, 2, 3)).double()
        assert zeros[25:].mean() > 2.5 * zeros[:25].mean()

    def test_noise_has_each_examples_deviation(self):
        values = {"sigma": torch.tensor([0.0, 2.0])}
        out = input_noise("sigma")(torch.zeros(2, 5000), values, torch.Generator().manual_seed(0))
        assert out.std(1).tolist() == pytest.approx([0.0, 2.0], abs=0.1)

    def test_smoothed_cross_entropy_is_torchs(self):
        outputs, targets = torch.randn(6, 4), torch.randint(4, (6,))
        told = label_smoothing("s")(outputs, targets, {"s": torch.full((6,), 0.2)})
        reference = nn.functional.cross_entropy(outputs, targets, label_smoothing=0.2, reduction="none")
        torch.testing.assert_close(told, reference)
        torch.testing.assert_close(
            label_smoothing("s")(outputs, targets, None), cross_entropy_by_example(outputs, targets)
        )

    def test_integers_are_whole_and_move_in_between(self):
        u = torch.linspace(-5, 5, 50)
        whole = SPACE.parameters[2].value(u)
        assert torch.equal(whole, whole.round())
        assert whole.min() == 0
        assert whole.max() == 5


class TestBadInput:
    def test_a_value_outside_its_range_is_refused(self):
        with pytest.raises(InvalidParameter, match=r"drop needs a value inside \(0, 0.9\); got 0.95"):
            HyperParameter("drop", 0.95, high=0.9)
        with pytest.raises(InvalidParameter, match="decay needs a positive value; got 0"):
            HyperParameter("decay", 0.0, scale="log")
        with pytest.raises(InvalidParameter, match="low < high"):
            HyperParameter("x", 0.5, 1.0, 0.0)
        with pytest.raises(InvalidParameter, match="different names"):
            HyperSpace(HyperParameter("a", 0.5), HyperParameter("a", 0.5))

    def test_an_unsupported_layer_is_named_and_can_be_registered(self):
        net = nn.Sequential(nn.Linear(4, 4), nn.PReLU())
        with pytest.raises(InvalidProblem, match=r"'1' is PReLU.*register_layer"):
            self_tuning(net, SPACE)

        class TunedPReLU(Tuned):
            def respond(self, x):
                g = self.gate("weight", len(x)) * self.gate_of("weight").response
                return torch.where(x < 0, x, torch.zeros_like(x)) * g

        try:
            register_layer(nn.PReLU, TunedPReLU)
            tuned = stirred(self_tuning(net, SPACE))
            x, u = torch.randn(3, 4), SPACE.u0 + torch.randn(3, 3)
            torch.testing.assert_close(tuned(x, at=u)[:1], tuned.export(u[0])(x[:1]))
        finally:
            del CONVERTERS[nn.PReLU]

    def test_unknown_names_are_told(self):
        net = nn.Sequential(nn.Dropout(), nn.Linear(4, 4))
        with pytest.raises(UnknownName, match="Did you mean 'drop'"):
            self_tuning(net, SPACE, dropout={"0": "dropp"})
        with pytest.raises(InvalidProblem, match=r"no layer '7'.*Its layers: 0, 1"):
            self_tuning(net, SPACE, dropout={"7": "drop"})
        with pytest.raises(InvalidProblem, match="'1' is Linear; a dropout rate needs"):
            self_tuning(net, SPACE, dropout={"1": "drop"})
        with pytest.raises(InvalidProblem, match="with parameters"):
            self_tuning(nn.ReLU(), SPACE)

    @pytest.mark.parametrize(
        ("layer", "message"),
        [
            (nn.LSTM(3, 4), "batch_first=True"),
            (nn.LSTM(3, 4, batch_first=True, bidirectional=True), "one direction"),
            (nn.LSTM(3, 4, 2, batch_first=True, dropout=0.1), "dropout=0"),
            (nn.Conv2d(1, 1, 3, padding_mode="circular"), "pad with zeros"),
            (nn.Sequential(nn.BatchNorm1d(3, affine=False), nn.Linear(3, 3)), "affine=True"),
        ],
    )
    def test_forms_of_layers_that_are_not_converted_are_refused(self, layer, message):
        with pytest.raises(InvalidProblem, match=message):
            self_tuning(layer, SPACE)

    def test_a_missing_validation_set_is_refused(self):
        task = small_task()
        for missing in (None, (), (torch.zeros(0, 6), torch.zeros(0))):
            with pytest.raises(InvalidProblem, match=r"SelfTuningTask.validation needs \(inputs, targets\)"):
                SelfTuningTask(task.model, SPACE, task.train, missing, task.test)

    def test_arrays_are_refused(self):
        task = small_task()
        arrays = tuple(t.numpy() for t in task.test)
        with pytest.raises(InvalidProblem, match=r"SelfTuningTask.test\[0\] is a ndarray; expected a tensor"):
            SelfTuningTask(task.model, SPACE, task.train, task.validation, arrays)

    def test_a_batch_that_is_not_first_is_told(self):
        net = stirred(self_tuning(nn.Linear(4, 2), SPACE))
        with pytest.raises(InvalidProblem, match="batch has to come first"):
            net(torch.randn(5, 4), at=torch.zeros(3, 3))

    def test_parameters_out_of_range_are_refused(self):
        for options, message in (
            ({"hyper_rate": 0.0}, "hyper_rate > 0"),
            ({"entropy": -1.0}, "entropy >= 0"),
            ({"train_steps": 0}, "train_steps >= 1"),
            ({"warmup": -1}, "warmup >= 0"),
        ):
            with pytest.raises(InvalidParameter, match=message):
                SelfTuner(**options)

    def test_the_given_network_is_left_as_it_is(self):
        net = convolutional()
        before = copy.deepcopy(net.state_dict())
        stirred(self_tuning(net, SPACE))
        assert all(torch.equal(before[k], v) for k, v in net.state_dict().items())
        assert [type(m).__name__ for m in net] == [
            "Conv2d",
            "BatchNorm2d",
            "ReLU",
            "Conv2d",
            "Flatten",
            "Linear",
        ]
