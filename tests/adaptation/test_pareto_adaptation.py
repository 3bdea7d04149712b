"""The trainer against autograd and plain loops, refining against Bayes' rule, and what is refused."""

from __future__ import annotations

import copy
import math

import numpy as np
import pytest
import torch
from torch import nn
from torch.nn import functional

from thalweg import Checkpoint, Stop, solve
from thalweg.adaptation import (
    CDAN,
    CORAL,
    DANN,
    JAN,
    MDD,
    MGDA,
    MMD,
    Adapt,
    AdaptationTask,
    FixedWeights,
    ParetoDA,
    PreferenceLP,
    Refiner,
    a_distance,
    combined_backward,
    mutual_information,
    objective_gradients,
    reversal_strength,
    reverse_gradient,
    summary,
)
from thalweg.adaptation.gradients import parted, through
from thalweg.core import InvalidParameter, InvalidProblem, NotFinite, UnknownName


@pytest.fixture
def data():
    torch.manual_seed(0)
    X, y = torch.randn(90, 5), torch.arange(90) % 3
    X[:, 0] += 3.0 * y
    return (X, y), X @ torch.linalg.qr(torch.randn(5, 5))[0] * 0.3 + X


def task(data, steps=12, batch=30, **options):
    return AdaptationTask(
        lambda: nn.Sequential(nn.Linear(5, 8), nn.Tanh()),
        lambda: nn.Linear(8, 3),
        data[0],
        (data[1],),
        steps=steps,
        batch_size=batch,
        **options,
    )


def weights(model):
    return torch.cat([p.detach().flatten() for p in model.parameters()])


class TestInformation:
    def test_it_is_zero_of_constant_predictions_and_log_k_of_sure_even_ones(self):
        constant = torch.tensor([[0.7, 0.2, 0.1]]).repeat(9, 1).log()
        assert float(mutual_information(constant)) == pytest.approx(0.0, abs=1e-6)
        sure = functional.one_hot(torch.arange(9) % 3, 3).double().clamp(min=1e-40).log()
        assert float(mutual_information(sure)) == pytest.approx(math.log(3), rel=1e-9)

    def test_it_is_the_mean_divergence_from_the_mean(self):
        q = torch.randn(20, 4, dtype=torch.float64).log_softmax(1)
        mean = q.exp().mean(0)
        expected = (q.exp() * (q - mean.log())).sum(1).mean()
        assert float(mutual_information(q)) == pytest.approx(float(expected), rel=1e-12)

    def test_no_rows_are_refused(self):
        with pytest.raises(InvalidProblem, match="rows of log-probabilities"):
            mutual_information(torch.zeros(0, 3))


class TestReversal:
    def test_the_gradient_is_turned_and_scaled(self):
        x = torch.randn(4, requires_grad=True)
        (reverse_gradient(x, 0.3) ** 2).sum().backward()
        torch.testing.assert_close(x.grad, -0.6 * x.detach())

    def test_the_strength_is_counted_once_a_step(self, data):
        for step in (0, 10, 1000, 5000):
            assert reversal_strength(step) == pytest.approx(2 / (1 + math.exp(-step / 1000)) - 1, abs=1e-12)
        seen = []
        method = Adapt("dann", hidden=8)
        problem = task(data, steps=4)
        state = method.init(problem, 0)
        alignment = state.heads["alignment"]
        plain = alignment.loss
        alignment.loss = lambda *parts: seen.append(parts[-1]) or plain(*parts)
        for _ in range(4):
            state = method.step(problem, state)
        assert seen == [reversal_strength(k) for k in range(4)]


class TestRefining:
    @staticmethod
    def mixture(n, seed):
        """Two classes at x = -1 and 1 with variance 1; the target is moved by 1.5, class by class."""
        rng = np.random.default_rng(seed)
        y, domain = rng.integers(2, size=n), rng.integers(2, size=n)
        x = 2.0 * y - 1.0 + 1.5 * domain + rng.standard_normal(n)
        return x, y, domain

    @staticmethod
    def posteriors(x):
        def normal(mean):
            return np.exp(-((x - mean) ** 2) / 2)

        source = np.stack([normal(-1), normal(1)], 1)
        target = np.stack([normal(0.5), normal(2.5)], 1)
        return source, target

    def test_bayes_form_is_the_true_posterior_with_the_true_discriminators(self):
        x = np.linspace(-4, 5, 200)
        source, target = self.posteriors(x)
        pooled = (source + target) / (source + target).sum(1, keepdims=True)
        refiner = Refiner(1, 2).double()
        # log d/(1-d) of class c is linear in x: ((x - m - 1.5)^2 - (x - m)^2)/2
        with torch.no_grad():
            refiner.domain[0].weight[:] = torch.full((2, 1), -1.5)
            refiner.domain[0].bias[:] = torch.tensor([(0.5**2 - 1) / 2, (2.5**2 - 1) / 2])
        q = refiner.refined(torch.tensor(x)[:, None], torch.tensor(pooled).log()).exp().numpy()
        np.testing.assert_allclose(q, source / source.sum(1, keepdims=True), atol=1e-9)

    def test_trained_discriminators_come_within_a_hundredth_of_it(self):
        torch.manual_seed(0)
        x, y, domain = self.mixture(200_000, 0)
        source, target = (torch.tensor(x[domain == k])[:, None] for k in (0, 1))
        _, at_target = self.posteriors(target[:, 0].numpy())
        q = torch.tensor(at_target / at_target.sum(1, keepdims=True))
        refiner = Refiner(1, 2).double()
        fit = torch.optim.LBFGS(refiner.parameters(), max_iter=60, line_search_fn="strong_wolfe")

        def closure():
            fit.zero_grad()
            loss = refiner.loss(source, torch.tensor(y[domain == 0]), target, q)
            loss.backward()
            return loss

        fit.step(closure)
        grid = np.linspace(-3, 4, 100)
        s, t = self.posteriors(grid)
        pooled = (s + t) / (s + t).sum(1, keepdims=True)
        found = refiner.refined(torch.tensor(grid)[:, None], torch.tensor(pooled).log()).exp().numpy()
        assert np.abs(found - s / s.sum(1, keepdims=True)).max() < 0.01

    def test_a_small_d_lowers_a_class_whatever_the_sign_of_its_logit(self):
        logits = torch.tensor([[-2.0, -2.5]])
        for form, falls in (("bayes", True), ("scaled logits", False)):
            refiner = Refiner(1, 2, form=form)
            with torch.no_grad():
                refiner.domain[0].weight.zero_()
                refiner.domain[0].bias[:] = torch.tensor([-3.0, 3.0])
            q = refiner.refined(torch.zeros(1, 1), logits).exp()[0, 0]
            assert (float(q) < float(logits.softmax(1)[0, 0])) == falls

    def test_each_source_row_trains_its_own_class_and_target_weights_are_probabilities(self):
        refiner = Refiner(2, 3)
        source, target = torch.randn(4, 2), torch.randn(5, 2)
        q, y = torch.randn(5, 3).softmax(1), torch.tensor([0, 2, 2, 0])  # the batch lacks class 1
        d = [torch.sigmoid(refiner.domain(z)).detach() for z in (source, target)]
        expected = -np.mean([math.log(d[0][i, y[i]]) for i in range(4)]) / 2
        expected -= np.mean([sum(q[j, c] * math.log(1 - d[1][j, c]) for c in range(3)) for j in range(5)]) / 2
        loss = refiner.loss(source, y, target, q)
        assert float(loss.detach()) == pytest.approx(expected, rel=1e-5)
        (gradient,) = torch.autograd.grad(loss, refiner.domain[0].weight)
        alone = torch.autograd.grad(
            refiner.loss(source, y, target, torch.zeros_like(q)), refiner.domain[0].weight
        )[0]
        assert bool((alone[1] == 0).all())
        assert bool((gradient[0] != 0).all())

    def test_features_and_discriminators_get_no_gradient_from_refined_predictions(self):
        refiner, z = Refiner(2, 3), torch.randn(4, 2, requires_grad=True)
        logits = torch.randn(4, 3, requires_grad=True)
        mutual_information(refiner.refined(z, logits)).backward()
        assert z.grad is None
        assert all(p.grad is None for p in refiner.parameters())
        assert logits.grad is not None


class TestAlignments:
    @pytest.mark.parametrize("kind", [MMD, JAN, CORAL])
    def test_a_discrepancy_is_zero_between_equals_and_grows_with_a_shift(self, kind):
        torch.manual_seed(0)
        z, p, y = torch.randn(40, 3), torch.randn(40, 2), torch.zeros(40).long()
        module = kind(3, 2)
        found = [float(module.loss(z, s * z, p, p, y, 1.0)) for s in (1.0, 1.5, 3.0)]
        assert found[0] == pytest.approx(0.0, abs=1e-6)
        assert found[0] < found[1] < found[2]

    @pytest.mark.parametrize("unit", [1e-30, 1e-10, 1e25])
    @pytest.mark.parametrize("kind", [MMD, JAN])
    def test_the_unit_of_the_features_does_not_count(self, kind, unit):
        torch.manual_seed(0)
        a, b, p, y = torch.randn(40, 3), torch.randn(40, 3) + 1, torch.randn(80, 2), torch.zeros(40).long()
        found = [kind(3, 2).loss(s * a, s * b, p[:40], p[40:], y, 1.0) for s in (1.0, unit)]
        torch.testing.assert_close(found[1], found[0], rtol=1e-4, atol=0)

    def test_coral_is_its_formula(self):
        a, b = torch.randn(30, 3), torch.randn(20, 3)
        expected = ((np.cov(a.T.numpy()) - np.cov(b.T.numpy())) ** 2).sum() / 36
        found = CORAL(3, 2).loss(a, b, a[:, :2], b[:, :2], torch.zeros(30), 1.0)
        assert float(found) == pytest.approx(expected, rel=1e-4)

    @pytest.mark.parametrize("kind", [DANN, CDAN, MDD])
    def test_adversaries_push_features_against_their_own_descent(self, kind):
        torch.manual_seed(0)
        module = kind(3, 2, 16).eval()
        z, t = torch.randn(30, 3, requires_grad=True), torch.randn(20, 3) + 1
        p, y = torch.randn(30, 2), torch.zeros(30).long()
        gradients = [
            torch.autograd.grad(
                module.loss(z, t, p, torch.randn(20, 2, generator=torch.Generator().manual_seed(1)), y, s), z
            )[0]
            for s in (1.0, -1.0, 0.5)
        ]
        torch.testing.assert_close(gradients[0], -gradients[1])
        torch.testing.assert_close(0.5 * gradients[0], gradients[2])

    def test_cdan_takes_random_products_where_there_are_too_many(self):
        module = CDAN(600, 10, 8)
        z, p = torch.randn(4, 600), torch.randn(4, 10)
        assert module._map(z, p, 1.0).shape == (4, 4096)


class TestGradients:
    def test_batched_and_looped_jacobians_are_one(self):
        net, x = nn.Sequential(nn.Linear(4, 3), nn.Tanh(), nn.Linear(3, 3)), torch.randn(7, 4)
        losses = net(x).square().mean(0).unbind()
        a, b = (objective_gradients(losses, net.parameters(), batched=k) for k in (False, True))
        torch.testing.assert_close(a, b)

    def test_the_shared_gradient_is_that_of_the_weighted_sum_and_heads_get_the_plain_sum(self):
        torch.manual_seed(0)
        body, head, x = nn.Linear(4, 3), nn.Linear(3, 3), torch.randn(7, 4)
        losses = [v for v in (head(torch.tanh(body(x))) - 1).square().mean(0)]
        told = combined_backward(losses, body.parameters(), MGDA(), own=head.parameters())
        again = [v for v in (head(torch.tanh(body(x))) - 1).square().mean(0)]
        total = sum(3 * float(a) * v for a, v in zip(told.weights, again, strict=True))
        for p, g in zip(
            body.parameters(),
            torch.autograd.grad(total, list(body.parameters()), retain_graph=True),
            strict=True,
        ):
            torch.testing.assert_close(p.grad, g)
        for p, g in zip(
            head.parameters(), torch.autograd.grad(sum(again), list(head.parameters())), strict=True
        ):
            torch.testing.assert_close(p.grad, g)

    @pytest.mark.parametrize("unit", [1e-30, 1e-22, 1e22, 1e30])
    def test_the_unit_of_the_losses_does_not_count(self, unit):
        rows = torch.tensor([[1.0, 2.0, 0.0], [0.0, 1.0, -1.0], [1.0, 0.0, 3.0]])

        def combine(scale):  # squares of these gradients are no numbers in float32
            p = nn.Parameter(torch.tensor([0.5, -1.0, 2.0]))
            told = combined_backward([scale * (a @ p) ** 2 for a in rows], [p], MGDA())
            return told.weights, p.grad / scale

        (one, gradient), (other, its) = combine(1.0), combine(unit)
        np.testing.assert_allclose(other, one, atol=1e-6)
        torch.testing.assert_close(its, gradient, rtol=1e-4, atol=1e-4)

    def test_an_objective_that_is_solved_beside_the_others_takes_no_part(self):
        """A saturated cross-entropy leaves 1e-37: to count it would let the others go where they like."""
        p = nn.Parameter(torch.tensor([0.5, -1.0, 2.0]))
        rows = torch.tensor([[1.0, 2.0, 0.0], [0.0, 1.0, -1.0], [1.0, 0.0, 3.0]])
        told = combined_backward(
            [s * (a @ p) for s, a in zip((1e-37, 1e-3, 1e-2), rows, strict=True)], [p], MGDA()
        )
        assert told.dropped == (0,)

    def test_a_gradient_through_features_is_the_direct_one(self):
        body, head, x = nn.Linear(4, 3), nn.Linear(3, 2), torch.randn(5, 4)
        z = body(x)
        cut = z.detach().requires_grad_()
        at, _ = parted(head(cut).square().sum(), [cut], [])
        direct = objective_gradients([head(body(x)).square().sum()], body.parameters())[0]
        row = torch.empty(len(direct))
        through([z], at, list(body.parameters()), row)
        torch.testing.assert_close(row, direct)

    def test_a_frozen_backbone_is_refused(self, data):
        frozen = nn.Linear(5, 8).requires_grad_(False)
        with pytest.raises(InvalidProblem, match="frozen"):
            objective_gradients([frozen(torch.ones(1, 5)).sum()], frozen.parameters())
        with pytest.raises(InvalidProblem, match="backbone is frozen"):
            ParetoDA(frozen, nn.Linear(8, 3)).fit(data[0], data[1], steps=2)


class TestTrainer:
    def test_with_fixed_weights_it_is_a_plain_loop_bit_for_bit(self, data):
        problem, lam, mu = task(data, steps=6), 0.7, 0.3
        method = Adapt(
            "dann",
            FixedWeights((1.0, lam, mu)),
            forward="joint",
            hidden=8,
            refining="none",
            rate=0.05,
            ramp=10,
            judge_every=10**6,
        )
        state = method.init(problem, 3)
        model, net = copy.deepcopy(state.x), copy.deepcopy(state.heads["alignment"])
        source, target, _ = problem.draws(3)
        parameters = [*model.parameters(), *net.parameters()]
        sgd = torch.optim.SGD(parameters, lr=0.05, momentum=0.9, nesterov=True, weight_decay=1e-3)
        for i in range(5):
            (X, y), (t,) = source.draw(), target.draw()
            sgd.param_groups[0]["lr"] = 0.05 * (1 + 0.001 * i) ** -0.75
            z = model.backbone(torch.cat([X, t]))
            logits = model.head(z)
            d = net.net(reverse_gradient(z, reversal_strength(i, 10)))[:, 0]
            domain = 0.5 * (functional.softplus(-d[:30]).mean() + functional.softplus(d[30:]).mean())
            information = mutual_information(logits[30:].log_softmax(1))
            loss = functional.cross_entropy(logits[:30], y) + lam * domain + mu * (math.log(3) - information)
            sgd.zero_grad()
            loss.backward()
            sgd.step()
            state = method.step(problem, state)
        torch.testing.assert_close(weights(state.x), weights(model), rtol=0, atol=0)
        torch.testing.assert_close(weights(state.heads["alignment"]), weights(net), rtol=0, atol=0)

    @pytest.mark.parametrize("forward", ["joint", "separate"])
    def test_a_step_is_autograd_of_the_weighted_sum(self, data, forward):
        problem = task(data, steps=9)
        method = Adapt("dann", MGDA(), hidden=8, rate=0.1, weight_decay=0.0, ramp=1.0, forward=forward)
        state = method.step(problem, method.init(problem, 0))  # the second step, where reversal is on
        before = copy.deepcopy((state.x, state.heads))
        draws = copy.deepcopy(state.source), copy.deepcopy(state.target)
        (X, y), (t,) = draws[0].draw(), draws[1].draw()
        state = method.step(problem, state)
        model, heads = before
        z = model.backbone(torch.cat([X, t]))
        logits = model.head(z)
        align = heads["alignment"].loss(
            z[:30], z[30:], logits[:30], logits[30:], y, reversal_strength(1, 1.0)
        )
        log_q = heads["refiner"].refined(z[30:], logits[30:])
        losses = [functional.cross_entropy(logits[:30], y), align, math.log(3) - mutual_information(log_q)]
        a = [state.metrics[f"weight_{n}"] for n in ("source", "align", "target")]
        total = sum(3 * w * loss for w, loss in zip(a, losses, strict=True))
        expected = torch.autograd.grad(total, list(model.backbone.parameters()))
        for p, g in zip(state.x.backbone.parameters(), expected, strict=True):
            torch.testing.assert_close(p.grad, g, rtol=1e-4, atol=1e-6)

    @pytest.mark.parametrize("base", ["dann", "cdan", "mdd", "mmd", "jan", "coral", "source-only"])
    @pytest.mark.parametrize("combiner", ["preference", "linear"])
    def test_every_base_trains(self, data, base, combiner):
        problem = task(data, steps=60)
        start = problem.metrics(problem.fresh_model(0))["source_accuracy"]
        result = solve(problem, Adapt(base, combiner, hidden=8, rate=0.02))
        assert result.steps == 60
        assert result.metrics["source_accuracy"] > max(start, 0.6)

    @pytest.mark.parametrize("combiner", ["mgda", "pcgrad", "cagrad", "upgrad", "nash"])
    def test_every_combiner_trains(self, data, combiner):
        result = solve(task(data, steps=60), Adapt("coral", combiner, hidden=8, rate=0.02))
        assert result.metrics["source_accuracy"] > 0.5

    def test_a_resumed_run_has_the_same_bits(self, data, tmp_path):
        method, path = Adapt("dann", hidden=8, rate=0.02, judge_every=4), tmp_path / "run"
        whole = solve(task(data, steps=12), method, seed=5)
        solve(task(data, steps=12), method, seed=5, stop=Stop(steps=7), callbacks=[Checkpoint(path, every=1)])
        again = solve(task(data, steps=12), method, seed=5, resume=path)
        torch.testing.assert_close(weights(again.x), weights(whole.x), rtol=0, atol=0)
        assert again.metrics == whole.metrics

    def test_a_state_dict_taken_up_gives_the_same_next_step(self, data):
        (X, y), t = data

        def fresh():
            torch.manual_seed(1)
            return ParetoDA(nn.Linear(5, 8), nn.Linear(8, 3), hidden=8, rate=0.02)

        first, second = fresh(), fresh()
        for _ in range(3):
            first.partial_fit(X[:30], y[:30], t[:30], t[60:])
        second.load_state_dict(copy.deepcopy(first.state_dict()))
        for model in (first, second):
            model.partial_fit(X[30:60], y[30:60], t[30:60], t[60:])
        torch.testing.assert_close(weights(first.backbone), weights(second.backbone), rtol=0, atol=0)
        assert first.metrics == second.metrics

    def test_the_answer_is_chosen_by_held_out_doubt_and_never_by_target_labels(self, data):
        method = Adapt("dann", hidden=8, rate=0.05, judge_every=5)
        plain = solve(task(data, steps=20), method)
        wrong = torch.zeros(90).long()
        judged = solve(task(data, steps=20, target_labels=wrong), method)
        torch.testing.assert_close(weights(plain.x), weights(judged.x), rtol=0, atol=0)
        doubts = plain.history["doubt"]
        assert plain.metrics["doubt"] == pytest.approx(np.nanmin(doubts), abs=1e-9)

    def test_a_batch_that_lacks_classes_is_taken(self, data):
        (X, y), t = data
        keep = y < 2
        result = solve(task(((X[keep], y[keep]), t), steps=5, batch=4), Adapt(hidden=8))
        assert all(math.isfinite(v) for v in result.metrics.values())

    def test_a_target_that_is_the_source_does_no_harm(self, data):
        (X, y), _ = data
        result = solve(task(((X, y), X), steps=300), Adapt("dann", hidden=8, rate=0.02, ramp=100))
        assert result.metrics["source_accuracy"] > 0.9

    def test_loaders_are_taken_and_cannot_be_resumed(self, data, tmp_path):
        (X, y), t = data
        source = Loader([(X[i : i + 30], y[i : i + 30]) for i in (0, 30, 60)])
        target = Loader([t[i : i + 30] for i in (0, 30)])
        model = ParetoDA(nn.Linear(5, 8), nn.Linear(8, 3), hidden=8)
        model.fit(source, target, held_out=t[60:], steps=8)
        assert model.result.steps == 8
        with pytest.raises(InvalidProblem, match="needs held_out"):
            model.fit(source, target, steps=2)
        with pytest.raises(InvalidProblem, match="place cannot be saved"):
            model.fit(
                source, target, held_out=t[60:], steps=2, callbacks=[Checkpoint(tmp_path / "a", every=1)]
            )

    def test_a_class_at_each_pixel(self):
        torch.manual_seed(0)
        X = torch.randn(12, 2, 6, 6)
        y = (X[:, 0] > 0).long()
        y[:, 0] = -1  # pixels without a label
        model = ParetoDA(nn.Conv2d(2, 8, 1), nn.Conv2d(8, 2, 1), hidden=8, rate=0.1, pixels=100)
        model.fit((X, y), X + 0.2, steps=150, batch_size=4)
        assert model.predict(X).shape == (12, 6, 6)
        right = (torch.tensor(model.predict(X)) == y)[y >= 0].double().mean()
        assert right > 0.9

    def test_batch_normalisation_sees_one_domain_at_a_time_when_asked(self, data):
        seen = []
        backbone = nn.Sequential(nn.Linear(5, 8), nn.BatchNorm1d(8))
        backbone.register_forward_hook(lambda m, x, out: seen.append(len(x[0])) if m.training else None)
        ParetoDA(backbone, nn.Linear(8, 3), hidden=8, forward="separate").fit(*data, steps=1, batch_size=9)
        assert seen == [9, 9, 9]
        seen.clear()
        ParetoDA(backbone, nn.Linear(8, 3), hidden=8).fit(*data, steps=1, batch_size=9)
        assert seen == [27]

    def test_the_report_counts_modes_and_conflicts(self, data):
        result = solve(task(data, steps=30), Adapt("dann", hidden=8, ramp=5.0))
        found = summary(result)
        modes = result.history["balance"]
        assert found["balance"] == pytest.approx(modes.mean())
        assert found["conflicts"] == pytest.approx((result.history["cosine"] < 0).mean())
        total = sum(found[f"weight_{n}"] for n in ("source", "align", "target"))
        assert total == pytest.approx(1.0)

    def test_a_distance_is_two_for_clouds_apart_and_small_for_one_law(self):
        x = np.random.default_rng(0).standard_normal((400, 3))
        assert a_distance(x[:200], x[200:]) < 0.3
        assert a_distance(x[:200], x[200:] + 30) == 2.0
        assert a_distance(x[:200] * 1e-200, (x[200:] + 30) * 1e-200) == 2.0


class Loader:
    """Batches that are no list."""

    def __init__(self, batches):
        self.batches = batches

    def __iter__(self):
        return iter(self.batches)


class TestBadInput:
    @pytest.mark.parametrize(
        ("change", "message", "error"),
        [
            (lambda s, t: (s, t[:, :4]), "expected the same features", InvalidProblem),
            (lambda s, t: ((s[0], s[1].float()), t), "whole numbers", InvalidProblem),
            (lambda s, t: ((s[0], s[1][:-1]), t), "one length", InvalidProblem),
            (lambda s, t: ((s[0] * float("nan"), s[1]), t), "NaN", NotFinite),
            (lambda s, t: (s, t * float("inf")), "NaN or infinity", NotFinite),
            (lambda s, t: ((s[0].to(torch.complex64), s[1]), t), "complex", InvalidProblem),
            (lambda s, t: (s, t[:1]), "length", InvalidProblem),
            (lambda s, t: (s, t[:3]), "a tenth is held out", InvalidProblem),
            (lambda s, t: ((s[0][:0], s[1][:0]), t), "length", InvalidProblem),
            (lambda s, t: ((s[0], s[1] + 1), t), "from 1 to 3; the head has 3", InvalidProblem),
            (lambda s, t: ((s[0], s[1] - 1), t), "from -1 to 1", InvalidProblem),
        ],
    )
    def test_data_that_do_not_go_together_are_refused(self, data, change, message, error):
        source, target = change(*data)
        with pytest.raises(error, match=message):
            solve(task((source, target), steps=2), Adapt(hidden=8))

    def test_one_class_is_refused(self, data):
        problem = AdaptationTask(
            lambda: nn.Linear(5, 4), lambda: nn.Linear(4, 1), data[0], (data[1],), steps=2
        )
        with pytest.raises(InvalidProblem, match="two classes or more"):
            solve(problem, Adapt(hidden=8))

    def test_the_split_is_told(self, data):
        assert "9 target rows were held out" in solve(task(data, steps=2), Adapt(hidden=8)).message

    def test_an_objective_that_is_not_finite_is_dropped_for_the_step_and_told(self, data):
        problem, method = task(data, steps=5), Adapt("coral", PreferenceLP(), hidden=8)
        state = method.init(problem, 0)
        plain = state.heads["alignment"].loss
        state.heads["alignment"].loss = lambda *parts: plain(*parts) * float("nan")
        state = method.step(problem, state)
        assert state.metrics["dropped"] == 1.0
        assert state.metrics["weight_align"] == 0.0
        assert bool(torch.isfinite(weights(state.x)).all())

    def test_unknown_names_and_values_are_refused(self):
        with pytest.raises(UnknownName, match="dann"):
            Adapt("dan")
        with pytest.raises(UnknownName, match="mgda"):
            Adapt(combiner="mgdaa")
        for options in (
            {"rate": 0.0},
            {"rate": math.nan},
            {"refining": "x"},
            {"forward": "x"},
            {"hidden": 0},
        ):
            with pytest.raises(InvalidParameter):
                Adapt(**options)

    def test_a_wrong_number_of_fixed_weights_is_refused(self, data):
        with pytest.raises(InvalidProblem, match="2 weights"):
            solve(task(data, steps=2), Adapt("dann", FixedWeights((1.0, 1.0)), hidden=8))


def test_a_head_with_batch_normalisation_sees_whole_batches_alone(data):
    """A look at one row, in training mode, would be refused by torch and would move the running means."""
    seen = []

    class Watched(nn.BatchNorm1d):
        def forward(self, x):
            if self.training:
                seen.append(len(x))
            return super().forward(x)

    made = AdaptationTask(
        lambda: nn.Sequential(nn.Linear(5, 8), nn.Tanh()),
        lambda: nn.Sequential(Watched(8), nn.Linear(8, 3)),
        data[0],
        (data[1],),
        steps=4,
        batch_size=30,
    )
    solve(made, Adapt(hidden=8), stop=Stop(steps=4))
    assert min(seen) > 1


def test_the_cosine_told_is_that_of_the_two_gradients(data):
    made, method = task(data, steps=1000), Adapt(hidden=8)
    state = method.init(made, 0)
    state.step = 500  # at the start the alignment's gradient is zero
    batch = tuple(d.draw() for d in made.draws(0))
    losses, *_ = method._losses(state, batch, method._features(state.x, batch), guided=True)
    G = objective_gradients(losses[:2], state.x.backbone.parameters())
    expected = float(functional.cosine_similarity(G[0], G[1], dim=0))
    assert abs(expected) > 1e-3
    assert method.advance(made, state, batch).metrics["cosine"] == pytest.approx(expected, abs=1e-5)
