"""The compiled model and its acquisition, against the same in torch."""

from __future__ import annotations

import math

import numpy as np
import pytest
import torch

from thalweg.blackbox import Integer, Real, Space, Study, _improvement_kernels, suggestion
from thalweg.blackbox import acquisition as acq
from thalweg.blackbox.maximize import maximize
from thalweg.blackbox.models import Models
from thalweg.blackbox.suggestion import Worth
from thalweg.numerics.gaussian_process import GaussianProcess, Matern, _process_kernels
from thalweg.numerics.gaussian_process._dense_kernels import cholesky, exp_below, gram, inverse_lower
from thalweg.numerics.gaussian_process.compiled import CompiledSurrogate
from thalweg.numerics.gaussian_process.surrogate import Surrogate
from thalweg.numerics.quasirandom import sobol, sobol_normal


def data(n, d, seed=0, noise=0.0):
    """Points of the cube, and values with several bumps."""
    X = sobol(n, d, seed)
    y = torch.sin(5 * X[:, 0]) + (X - 0.4).square().sum(1) + 0.3 * torch.cos(9 * X[:, -1])
    return X, y + noise * torch.randn(n, dtype=torch.float64, generator=torch.Generator().manual_seed(seed))


def model_of(X, y, learn=True):
    model = CompiledSurrogate(GaussianProcess(Matern(), learn_noise=learn))
    model.update(X, y)
    return model


def energy(process, theta, X, y):
    """The compiled energy and its gradient."""
    n, d = X.shape
    means, stds = (np.array(v) for v in process.prior(d))
    K, slopes, M = np.zeros((n, n)), np.zeros((n, n)), np.zeros((n, n))
    Z, a, gradient = np.empty((d, n)), np.empty(n), np.empty(len(means))
    points = np.ascontiguousarray(X.numpy().T)
    value = _process_kernels.energy(
        theta.numpy(), points, n, y.numpy(), process.learn_noise, means, stds, Z, K, slopes, M, a, gradient
    )
    return value, gradient


class TestAlgebra:
    def test_exponentials_are_those_of_the_standard_library(self):
        x = -np.concatenate([[0.0], np.geomspace(1e-300, 690.0, 2000)])
        np.testing.assert_allclose([exp_below(v) for v in x], np.exp(x), rtol=1e-15)
        assert exp_below(-1e9) < 1e-300

    @pytest.mark.parametrize("n", [1, 3, 4, 5, 30, 101])
    def test_factor_inverse_and_gram_are_numpys(self, n):
        A = np.random.default_rng(n).standard_normal((n, n))
        K = A @ A.T + n * np.eye(n)
        L, M, Q = K.copy(), np.full((n, n), 7.0), np.empty((n, n))
        half = cholesky(L, n)
        inverse_lower(L, M, n)
        gram(M, Q, n)
        assert half == pytest.approx(0.5 * np.linalg.slogdet(K)[1], rel=1e-12)
        np.testing.assert_allclose(M @ np.tril(L), np.eye(n), atol=1e-12)
        np.testing.assert_allclose(np.tril(Q), np.tril(np.linalg.inv(K)), atol=1e-12)

    def test_what_is_not_positive_definite_has_no_factor(self):
        assert math.isnan(cholesky(np.array([[1.0, 2.0], [2.0, 1.0]]), 2))
        assert math.isnan(cholesky(np.ones((5, 5)), 5))


class TestModel:
    @pytest.mark.parametrize("learn", [True, False])
    @pytest.mark.parametrize(("n", "d"), [(1, 1), (7, 2), (60, 6), (300, 3)])
    def test_energy_and_gradient_are_those_of_torch(self, n, d, learn):
        X, y = data(n, d)
        process = GaussianProcess(Matern(), learn_noise=learn)
        means, stds = (torch.tensor(v, dtype=torch.float64) for v in process.prior(d))
        generator = torch.Generator().manual_seed(n)
        for _ in range(4):
            theta = means + 0.4 * stds * torch.randn(len(means), generator=generator, dtype=torch.float64)
            value, gradient = energy(process, theta, X, y)
            expected, slope = process.energy(theta, X, y)
            assert value == pytest.approx(float(expected), rel=1e-10, abs=1e-10)
            np.testing.assert_allclose(
                gradient, slope, rtol=1e-9, atol=1e-10 * max(1.0, float(slope.abs().max()))
            )

    @pytest.mark.parametrize("learn", [True, False])
    @pytest.mark.parametrize(("n", "d"), [(12, 2), (40, 4), (120, 3)])
    def test_the_hyper_parameters_found_are_as_probable_as_those_of_torch(self, n, d, learn):
        for seed in range(3):
            X, y = data(n, d, seed, noise=0.05)
            process = GaussianProcess(Matern(), learn_noise=learn)
            ours, theirs = model_of(X, y, learn), Surrogate(process)
            theirs.update(X, y)
            values = torch.from_numpy(ours.standard)
            assert (
                energy(process, ours.theta, X, values)[0]
                <= energy(process, theirs.theta, X, values)[0] + 1e-2
            )

    @pytest.mark.parametrize("learn", [True, False])
    def test_it_is_the_posterior_of_torch_when_it_has_grown_too(self, learn):
        X, y = data(90, 3)
        model = model_of(X[:80], y[:80], learn)
        for n in (81, 84, 86):
            model.update(X[:n], y[:n])
        assert model.state_dict()["blocks"] == [80, 86]  # not fitted anew
        queries = torch.cat([sobol(50, 3, 7), X[:5]])
        mean, variance = model.predict(queries)
        expected, spread = model.posterior.predict(queries)
        np.testing.assert_allclose(mean, expected, atol=1e-9)
        np.testing.assert_allclose(variance, spread, atol=1e-9)
        np.testing.assert_allclose(model.fitted, model.posterior.mean(X[:86]), atol=1e-9)

    def test_a_saved_one_goes_on_with_the_same_bits(self):
        X, y = data(90, 3)
        model = model_of(X[:70], y[:70])
        for n in (72, 75):
            model.update(X[:n], y[:n])
        again = CompiledSurrogate(model.process)
        again.load_state_dict(model.state_dict())
        for n in (75, 76, 90):
            model.update(X[:n], y[:n])
            again.update(X[:n], y[:n])
            np.testing.assert_array_equal(model.M[:n, :n], again.M[:n, :n])
            np.testing.assert_array_equal(model.weights, again.weights)

    def test_other_data_are_another_model(self):
        X, y = data(30, 2)
        model = model_of(X, y)
        model.update(X[5:], y[5:])
        mean, _ = model.predict(X[5:])
        np.testing.assert_allclose(mean, model.posterior.mean(X[5:]), atol=1e-9)

    @pytest.mark.parametrize("learn", [True, False])
    def test_duplicates_and_constant_values_have_a_posterior(self, learn):
        X, _ = data(12, 2)
        X = torch.cat([X, X[:6], X[:6] + 1e-9])
        model = model_of(X[:18], torch.zeros(18, dtype=torch.float64), learn)
        model.update(X, torch.zeros(24, dtype=torch.float64))
        mean, variance = model.predict(X)
        assert float(mean.abs().max()) < 1e-9
        assert bool((variance >= 0).all())
        assert float(variance.max()) < 1e-3


class TestWorth:
    @pytest.mark.parametrize("u", [-1e6, -1e3, -80.0, -59.0, -4.1, -1.001, -0.999, 0.0, 3.0, 40.0])
    def test_log_improvement_and_its_slope_are_those_of_torch(self, u):
        z = torch.tensor([u], dtype=torch.float64, requires_grad=True)
        expected = acq.log_improvement(z)
        (slope,) = torch.autograd.grad(expected.sum(), z)
        value, by_u, _ = _improvement_kernels.log_improvement(u)
        assert value == pytest.approx(float(expected.detach()), rel=1e-10)
        if u > -1e3:  # beyond, torch's slope is a difference of large numbers
            assert by_u == pytest.approx(float(slope), rel=1e-8)

    @pytest.mark.parametrize("count", [0, 5, 60])  # the last needs more room than the data have
    @pytest.mark.parametrize("noisy", [False, True])
    @pytest.mark.parametrize(("n", "d"), [(9, 2), (70, 5)])
    def test_it_is_the_acquisition_of_torch(self, n, d, noisy, count, monkeypatch):
        X, y = data(n, d, noise=0.1 * noisy)
        model, pending = model_of(X, y, noisy), sobol(count, d, 3) if count else X[:0]
        monkeypatch.setattr(
            suggestion, "_normals", lambda size, seed: sobol_normal(32, n + count, seed).numpy()
        )
        best = float(model.standard.max())
        if noisy:
            theirs = acq.noisy_ei(model.posterior, seed=4, pending=pending if count else None)
        elif count:
            monkeypatch.setattr(
                suggestion, "_normals", lambda size, seed: sobol_normal(32, count, seed).numpy()
            )
            theirs = acq.pending_ei(model.posterior, best, pending, seed=4)
        else:
            theirs = acq.LogEI(model.posterior, best)
        queries = sobol(40, d, 9)
        ours = Worth(model, pending.numpy(), noisy, best, seed=4)
        # Torch's distances are differences of squares; through a covariance with 1e-6 on its diagonal that shows.
        tolerance = 1e-9 if not noisy and not count else 1e-6
        np.testing.assert_allclose(
            ours(queries[:, None]), theirs(queries[:, None]), rtol=tolerance, atol=tolerance
        )

    @pytest.mark.parametrize("noisy", [False, True])
    def test_its_gradient_is_that_of_differences(self, noisy):
        X, y = data(25, 3, noise=0.1 * noisy)
        worth = Worth(model_of(X, y, noisy), X[:0].numpy(), noisy, float(y.max()))
        theta, Z, n, M, W, trend, best = worth._world
        space, work, gradient = np.empty((4, n)), np.empty((5, len(best))), np.empty(3)

        def value(x):
            inverse = np.exp(-theta[:3])
            return _improvement_kernels.worth(x, inverse, Z, n, M, W, trend, best, space, work, gradient)

        x = np.array([0.31, 0.62, 0.77])
        value(x)
        slope, step = gradient.copy(), 1e-6
        for c in range(3):
            e = step * np.eye(3)[c]
            assert (value(x + e) - value(x - e)) / (2 * step) == pytest.approx(slope[c], rel=1e-5, abs=1e-6)

    @pytest.mark.parametrize("noisy", [False, True])
    def test_the_points_kept_are_the_best_of_all(self, noisy):
        """Bounds drop points without their exact value: none of the best may be among them."""
        X, y = data(130, 2, noise=0.1 * noisy)
        worth = Worth(model_of(X, y, noisy), X[:0].numpy(), noisy, 0.5)
        theta, *world = worth._world
        looked = sobol(300, 2, 5)
        kept, values = _improvement_kernels.look(
            looked.numpy(), np.exp(-theta[:2]), *world, worth.variance, 36
        )
        expected, order = worth(looked[:, None]).sort(descending=True)
        np.testing.assert_allclose(values, expected[:36], rtol=1e-9, atol=1e-9)
        np.testing.assert_array_equal(kept, order[:36])

    @pytest.mark.parametrize("d", [1, 2, 5, 10])
    def test_what_is_found_is_worth_no_less_than_what_torch_finds(self, d):
        space = Space({f"x{i}": Real(0.0, 1.0) for i in range(d)})
        for seed in range(8):
            X, y = data(12 + 9 * seed, d, seed)
            model = model_of(X, y, learn=False)
            best, near = float(model.standard.max()), X[y.argsort(descending=True)[:8]]
            theirs = acq.LogEI(model.posterior, best)
            _, values = maximize(theirs, space, near=near, seed=seed)
            points, _ = maximize(Worth(model, X[:0].numpy(), False, best), space, near=near, seed=seed)
            assert float(theirs(points[:1, None]).detach()) >= float(values[0]) - 1e-3


class TestStudies:
    def study(self, **options):
        return Study({"x": Real(-5.0, 10.0), "y": Real(0.0, 15.0)}, **options)

    def run(self, study, trials, scale=1.0):
        for _ in range(trials):
            trial = study.ask()
            study.tell(trial, scale * ((trial["x"] - 2) ** 2 + trial["x"] * math.sin(trial["y"])))
        return study

    @pytest.mark.parametrize("noise", ["learn", "none"])
    def test_one_seed_is_one_course_and_a_saved_study_goes_on_with_it(self, noise, tmp_path):
        whole = self.run(self.study(noise=noise, seed=3), 70)
        part = self.run(self.study(noise=noise, seed=3), 64)
        part.ask()
        part.save(tmp_path / "s")
        again = self.study(noise=noise, seed=3)
        again.load(tmp_path / "s")
        trial = again.trials[-1]
        again.tell(trial, (trial["x"] - 2) ** 2 + trial["x"] * math.sin(trial["y"]))
        self.run(again, 5)
        assert [t.point for t in again.trials] == [t.point for t in whole.trials]

    @pytest.mark.parametrize("scale", [2.0**900, 2.0**-900])
    def test_the_size_of_the_values_does_not_matter(self, scale):
        one, other = self.run(self.study(), 15), self.run(self.study(), 15, scale)
        assert [t.point for t in one.trials] == [t.point for t in other.trials]

    def test_what_is_not_compiled_takes_the_other_way(self):
        def worth(study, trials=8):
            self.run(study, trials)
            return study._models.worth(study.trials, study.acquisition, study.batch)

        assert isinstance(worth(self.study()), Worth)
        assert worth(self.study(acquisition="mes")) is None
        assert worth(self.study(bayesian=True), 7) is None
        study = self.study()
        assert isinstance(worth(study), Worth)
        study.ask()
        assert isinstance(worth(study, 0), Worth)
        study.tell(study.ask(), failed=True)
        assert worth(study, 0) is None

    def test_known_noise_is_taken_in_on_the_way(self):
        study = self.run(self.study(), 10)
        assert isinstance(study._models.held["objective"], CompiledSurrogate)
        study.tell(study.ask(), 3.0, noise=0.5)
        study.ask()
        assert isinstance(study._models.held["objective"], Surrogate)

    def test_five_hundred_data_and_more(self):
        X, y = data(501, 2)
        models = Models(Space({"a": Real(0.0, 1.0), "b": Real(0.0, 1.0)}), GaussianProcess(Matern()), 1.0)
        assert isinstance(models._updated("objective", models.process, X[:500], y[:500]), CompiledSurrogate)
        theta = models.held["objective"].theta
        assert isinstance(models._updated("objective", models.process, X, y), Surrogate)
        assert torch.equal(models.held["objective"].theta, theta)  # one more is no tenth

    def test_whole_numbers_and_rules_of_the_space_are_kept_to(self):
        space = Space({"n": Integer(0, 9), "x": Real(0.0, 9.0)}, allowed=lambda p: p["n"] + p["x"] <= 9)
        study = Study(space)
        for _ in range(14):
            trial = study.ask()
            assert trial["n"] + trial["x"] <= 9
            study.tell(trial, -trial["n"] * trial["x"])
        assert study.best.value < -15


def test_a_long_compilation_is_said(monkeypatch, capsys):
    """The suggestion waits; the user is told after ``SILENT`` seconds."""
    monkeypatch.setattr(suggestion, "SILENT", 0.0)
    monkeypatch.setattr(suggestion, "_ready", suggestion.threading.Event())
    said = suggestion.threading.Event()
    say = suggestion._say
    monkeypatch.setattr(suggestion, "_say", lambda: (say(), said.set()))
    monkeypatch.setattr(suggestion, "_use_all", lambda: said.wait(10.0))
    suggestion.compile_kernels()
    assert "once on this machine" in capsys.readouterr().err
    suggestion.compile_kernels()
    assert not capsys.readouterr().err
