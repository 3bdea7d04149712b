"""Acquisitions against Monte Carlo, brute force and each other."""

from __future__ import annotations

import math

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from scipy import integrate, stats

from thalweg.blackbox.acquisition import (
    EI,
    PI,
    QEI,
    UCB,
    Acquisition,
    Constrained,
    ContinuousKG,
    EntropySearch,
    KnowledgeGradient,
    LogEI,
    MaxValueEntropy,
    OneShotKG,
    Penalised,
    PosteriorMean,
    PredictiveEntropy,
    QLogEI,
    TwoStepEI,
    expected_maximum,
    least_chance,
    lipschitz_constant,
    log_improvement,
    noisy_ei,
    pending_ei,
    sample_optima,
    survival,
)
from thalweg.blackbox.acquisition.knowledge_gradient import _paired
from thalweg.core import InvalidParameter
from thalweg.numerics.gaussian_process import RBF, Derivative, GaussianProcess, Scaled, with_gradients


def points(n, d, seed=0):
    return torch.rand(n, d, dtype=torch.float64, generator=torch.Generator().manual_seed(seed))


@pytest.fixture
def posterior():
    X = points(8, 2)
    theta = torch.tensor([0.0, -0.7, -0.7, -4.0], dtype=torch.float64)
    return GaussianProcess(Scaled(RBF())).posterior(theta, X, torch.sin(5 * X[:, 0]) - X[:, 1])


@pytest.fixture
def quiet(posterior):
    process = GaussianProcess(Scaled(RBF()), learn_noise=False)
    return process.posterior(posterior.theta[:-1], posterior.X, posterior.y, noise=1e-6)


@pytest.fixture
def X():  # noqa: N802 -- the name it has everywhere
    return points(5, 2, 11)[:, None]


class TestClosedForms:
    @given(z=st.floats(-5, 5))
    def test_the_logarithm_of_improvement_is_the_integral(self, z):
        direct = integrate.quad(lambda t: max(t + z, 0) * stats.norm.pdf(t), -z, 12)[0]
        assert float(log_improvement(torch.tensor(z, dtype=torch.float64)).exp()) == pytest.approx(
            direct, rel=1e-7
        )

    @given(z=st.floats(-1e6, -6))
    def test_far_below_it_keeps_its_value_and_slope(self, z):
        """Against the asymptotic series phi(z)/z^2 (1 - 3/z^2 + 15/z^4)."""
        leaf = torch.tensor(z, dtype=torch.float64, requires_grad=True)
        value = log_improvement(leaf)
        (slope,) = torch.autograd.grad(value, leaf)
        series = (
            -0.5 * z * z - 0.5 * math.log(2 * math.pi) - 2 * math.log(-z) + math.log1p(-3 / z**2 + 15 / z**4)
        )
        assert float(value.detach()) == pytest.approx(series, rel=1e-4, abs=0.01)
        assert float(slope) == pytest.approx(-z, rel=0.06)

    def test_its_slope_is_its_finite_difference(self):
        z = torch.linspace(-40, 5, 400, dtype=torch.float64, requires_grad=True)
        (slope,) = torch.autograd.grad(log_improvement(z).sum(), z)
        with torch.no_grad():
            difference = (log_improvement(z + 1e-5) - log_improvement(z - 1e-5)) / 2e-5
        np.testing.assert_allclose(slope, difference, rtol=1e-5)

    def test_expected_improvement_is_its_monte_carlo_mean(self, posterior, X):
        draws = posterior.sample(X, 200_000, torch.Generator().manual_seed(0))[..., 0]
        gains = (draws - 0.3).clamp_min(0)
        np.testing.assert_allclose(EI(posterior, 0.3)(X), gains.mean(0), atol=4 * float(gains.std() / 447))

    def test_companions_are_their_formulas(self, posterior, X):
        mean, variance = (v[:, 0] for v in posterior.predict(X))
        np.testing.assert_allclose(UCB(posterior, 1.5)(X), mean + 1.5 * variance.sqrt())
        np.testing.assert_allclose(PosteriorMean(posterior)(X), mean)
        expected = stats.norm.logcdf((mean - 0.3) / variance.sqrt())
        np.testing.assert_allclose(PI(posterior, 0.3)(X), expected, rtol=1e-9)

    def test_models_are_averaged(self, X):
        data, process = points(6, 2), GaussianProcess(Scaled(RBF()))
        theta = torch.tensor([[0.0, -0.7, -0.7, -4.0], [0.5, -1.0, 0.0, -3.0]], dtype=torch.float64)
        y = torch.sin(data[:, 0])
        both = EI(process.posterior(theta, data, y), torch.tensor([0.2, 0.2], dtype=torch.float64))(X)
        each = [EI(process.posterior(t, data, y), 0.2)(X) for t in theta]
        np.testing.assert_allclose(both, (each[0] + each[1]) / 2, rtol=1e-9)

    def test_more_points_than_one_are_refused(self, posterior):
        with pytest.raises(InvalidParameter, match="q = 1"):
            LogEI(posterior, 0.0)(points(6, 2).reshape(2, 3, 2))


class TestNoise:
    def test_without_noise_it_is_expected_improvement(self, quiet, X):
        np.testing.assert_allclose(noisy_ei(quiet, 64)(X).exp(), EI(quiet, quiet.y.max())(X), atol=1e-3)

    def test_it_is_the_mean_over_worlds(self, posterior, X):
        """Conditioning on each draw of the true values afresh, and averaging EI."""
        truth = noisy_ei(posterior, 64)
        process = GaussianProcess(Scaled(RBF()), degree=0, learn_noise=False)
        draws = posterior.sample(posterior.X, 3000, torch.Generator().manual_seed(1))
        total = torch.zeros(len(X), dtype=torch.float64)
        for values in draws[:300]:
            world = process.posterior(posterior.theta[:-1], posterior.X, values, noise=1e-6)
            total += EI(world, values.max())(X) / 300
        np.testing.assert_allclose(truth(X).exp(), total, atol=5e-3)  # 300 worlds


class TestParallel:
    def test_with_one_point_it_is_expected_improvement(self, posterior, X):
        np.testing.assert_allclose(QEI(posterior, 0.3, samples=4096)(X), EI(posterior, 0.3)(X), atol=2e-3)
        np.testing.assert_allclose(
            QLogEI(posterior, 0.3, samples=4096)(X).exp() * 1e-3, EI(posterior, 0.3)(X), atol=3e-3
        )

    def test_with_several_it_is_the_monte_carlo_mean(self, posterior):
        X = points(6, 2, 4).reshape(2, 3, 2)
        draws = posterior.sample(X, 100_000, torch.Generator().manual_seed(0))
        expected = (draws.amax(-1) - 0.3).clamp_min(0).mean(0)
        np.testing.assert_allclose(QEI(posterior, 0.3, samples=4096)(X), expected, atol=5e-3)

    def test_a_pending_point_next_by_takes_the_worth_away(self, posterior, X):
        free, near = QEI(posterior, 0.3)(X[:1]), X[0]
        together = QEI(posterior, 0.3, pending=near)(X[:1])
        alone = QEI(posterior, 0.3)(near[None])
        assert float(together - alone) < 0.05 * float(free)

    def test_the_logarithm_has_a_gradient_where_nothing_improves(self, posterior, X):
        leaf = X.clone().requires_grad_(True)
        (slope,) = torch.autograd.grad(QLogEI(posterior, 50.0)(leaf).sum(), leaf)
        assert float(slope.abs().min()) > 1e-3
        assert bool(torch.isfinite(slope).all())

    def test_penalties_vanish_far_away_and_grow_nearby(self, posterior):
        pending = torch.tensor([[0.5, 0.5]], dtype=torch.float64)
        lipschitz = lipschitz_constant(posterior, points(200, 2))
        base = LogEI(posterior, 0.3)
        penalised = Penalised(base, posterior, pending, 20 * lipschitz, 0.3)
        far, near = torch.tensor([[[0.0, 1.0]]], dtype=torch.float64), pending[None] + 1e-6
        assert float(base(far) - penalised(far)) < 1e-3
        assert float(base(near) - penalised(near)) > 0.5


class TestKnowledgeGradient:
    @given(seed=st.integers(0, 100), m=st.integers(1, 7))
    def test_the_expected_maximum_is_the_integral(self, seed, m):
        rng = np.random.default_rng(seed)
        a, b = rng.standard_normal(m), rng.standard_normal(m)
        if seed % 3 == 0:
            b[0] = b[-1]  # parallel lines
        z = np.linspace(-9, 9, 40_001)
        values = (a + np.outer(z, b)).max(1) * stats.norm.pdf(z)
        direct = np.trapezoid(values, z) - a.max()
        got = float(expected_maximum(torch.tensor(a), torch.tensor(b)))
        assert got == pytest.approx(direct, abs=1e-6)

    def test_its_gradient_is_its_finite_difference(self):
        a, b = torch.randn(2, 5, dtype=torch.float64, generator=torch.Generator().manual_seed(0))
        assert torch.autograd.gradcheck(expected_maximum, (a.requires_grad_(True), b.requires_grad_(True)))

    def test_discrete_it_is_brute_force(self, posterior, X):
        """Observe a fantasy, condition on it, and look which mean is the largest."""
        targets = points(6, 2, 3)
        noise = float(torch.exp(posterior.theta[-1]))
        kg = KnowledgeGradient(posterior, targets, noise=noise, own_target=None)(X).exp()
        z = stats.norm.ppf((np.arange(400) + 0.5) / 400)
        for x, value in zip(X, kg, strict=True):
            mean, variance = posterior.predict(x)
            rises = []
            for shown in float(mean) + z * math.sqrt(float(variance) + noise):
                grown = posterior.grow(x, torch.tensor([shown], dtype=torch.float64))
                # the trend is held: its coefficients are part of the model, not of what is learned
                held = grown.process.kernel(posterior.theta[:-1], grown.X, targets).T @ torch.cholesky_solve(
                    (grown.y - posterior.trend)[:, None], grown.factor
                )
                rises.append(float(held.max() + posterior.trend))
            assert float(value) == pytest.approx(
                np.mean(rises) - float(posterior.mean(targets).max()), abs=2e-3
            )

    def test_several_observations_agree_with_one_where_the_others_are_worthless(self, posterior, X):
        targets, far = points(6, 2, 3), torch.full((1, 1, 2), 40.0, dtype=torch.float64)
        one = KnowledgeGradient(posterior, targets, noise=0.02)
        two = KnowledgeGradient(
            posterior,
            targets,
            noise=0.02,
            observes=lambda x: torch.cat([x[:, None], far.expand(len(x), 1, 2)], 1),
            samples=8192,
        )
        np.testing.assert_allclose(two(X).exp(), one(X).exp(), atol=2e-3)

    def test_a_cost_divides_it(self, posterior, X):
        targets = points(6, 2, 3)
        free = KnowledgeGradient(posterior, targets, noise=0.02)(X)
        dear = KnowledgeGradient(posterior, targets, noise=0.02, cost=lambda x: 4 + 0 * x[:, 0])(X)
        np.testing.assert_allclose(free - dear, math.log(4.0))

    def test_weights_make_targets_of_sums(self, posterior, X):
        pairs = points(12, 2, 3).reshape(6, 2, 2)
        first = torch.tensor([1.0, 0.0], dtype=torch.float64)
        summed = KnowledgeGradient(posterior, pairs, first, noise=0.02, own_target=None)(X)
        single = KnowledgeGradient(posterior, pairs[:, 0], noise=0.02, own_target=None)(X)
        np.testing.assert_allclose(summed, single, rtol=1e-9)

    def test_seeing_the_gradient_too_is_worth_more(self):
        X = points(4, 2)
        coded, y = with_gradients(
            X, torch.sin(4 * X[:, 0]), torch.stack([4 * torch.cos(4 * X[:, 0]), 0 * X[:, 0]], 1)
        )
        process = GaussianProcess(Scaled(Derivative(RBF())), degree=-1, learn_noise=False)
        posterior = process.posterior(
            torch.tensor([0.0, -1.0, -1.0], dtype=torch.float64), coded, y, noise=1e-4
        )
        targets = torch.cat([points(40, 2, 5), torch.zeros(40, 1)], 1)
        x = torch.cat([points(6, 2, 8), torch.zeros(6, 1)], 1)[:, None]

        def with_slopes(x):
            return torch.stack(
                [torch.cat([x[:, :2], torch.full((len(x), 1), float(j))], 1) for j in range(3)], 1
            )

        value = KnowledgeGradient(posterior, targets, noise=1e-4, samples=2048)(x).exp()
        slopes = KnowledgeGradient(posterior, targets, noise=1e-4, observes=with_slopes, samples=2048)(
            x
        ).exp()
        assert bool((slopes >= value - 2e-3).all())
        assert float(slopes.sum()) > 1.2 * float(value.sum())

    def test_over_the_cube_it_is_no_less_than_over_some_points(self, posterior, X):
        starts = torch.cat([posterior.X, points(64, 2, 3)])
        best = float(posterior.mean(starts).max())
        whole = ContinuousKG(posterior, best, starts, noise=0.02, samples=64)(X).exp()
        some = KnowledgeGradient(posterior, starts, noise=0.02)(X).exp()
        assert bool((whole >= some - 5e-3).all())

    def test_its_envelope_gradient_is_its_finite_difference(self, posterior, X):
        starts = torch.cat([posterior.X, points(64, 2, 3)])
        kg = ContinuousKG(posterior, float(posterior.mean(starts).max()), starts, noise=0.02, samples=8)
        leaf = X[:2].clone().requires_grad_(True)
        (slope,) = torch.autograd.grad(kg(leaf).sum(), leaf)
        for j in range(2):
            step = 1e-4 * torch.eye(2, dtype=torch.float64)[j]
            difference = (kg(X[:2] + step) - kg(X[:2] - step)) / 2e-4
            np.testing.assert_allclose(slope[:, 0, j], difference.detach(), rtol=0.02, atol=1e-3)

    def test_one_shot_at_the_fantasies_best_points_is_the_whole(self, posterior, X):
        starts = torch.cat([posterior.X, points(64, 2, 3)])
        best = float(posterior.mean(starts).max())
        whole = ContinuousKG(posterior, best, starts, noise=0.02, samples=8)
        inner = whole._best_points(X, _paired(8, 1, 0)[:, 0])
        shot = OneShotKG(posterior, best, noise=0.02, samples=8)
        np.testing.assert_allclose(shot(torch.cat([X, inner], 1)), whole(X).exp(), atol=1e-9)
        assert bool(
            (shot(torch.cat([X, points(40, 2, 6).reshape(5, 8, 2)], 1)) <= whole(X).exp() + 1e-6).all()
        )


class TestEntropy:
    def test_drawn_optima_are_maxima_of_draws(self, posterior):
        optima = sample_optima(posterior, 32)
        assert bool(((optima.points >= 0) & (optima.points <= 1)).all())
        # the maximum of a draw is on average above the maximum of the mean
        assert float(optima.values.mean()) > float(posterior.mean(points(500, 2)).max()) - 0.05

    def test_the_entropy_of_the_maximum_is_the_truncated_normals(self, posterior, X):
        maxima = torch.tensor([1.2], dtype=torch.float64)
        got = MaxValueEntropy(posterior, maxima)(X)
        for x, value in zip(X, got, strict=True):
            mean, variance = (float(v) for v in posterior.predict(x))
            std = math.sqrt(variance)
            truncated = stats.truncnorm(-40.0, (1.2 - mean) / std, mean, std)
            assert float(value) == pytest.approx(
                stats.norm(mean, std).entropy() - truncated.entropy(), abs=1e-6
            )

    def test_truncation_by_moments_is_monte_carlo(self, posterior, X):
        optima, best = points(3, 2, 9), float(posterior.mean(posterior.X).max())
        got = PredictiveEntropy(posterior, optima, -50.0, noise=0.01)(X[:2])
        expected = torch.zeros(2, dtype=torch.float64)
        for i, x in enumerate(X[:2]):
            for top in optima:
                draws = posterior.sample(torch.cat([x, top[None]]), 400_000, torch.Generator().manual_seed(0))
                below = draws[draws[:, 0] < draws[:, 1], 0]
                expected[i] += 0.5 * torch.log((draws[:, 0].var() + 0.01) / (below.var() + 0.01)) / 3
        np.testing.assert_allclose(got, expected, atol=0.01)
        assert bool(torch.isfinite(PredictiveEntropy(posterior, optima, best)(X)).all())

    def test_entropy_search_is_its_definition(self, posterior):
        """Fantasise, condition, draw the maximiser afresh; hard maxima and other random numbers."""
        R = points(6, 2, 2)
        x = torch.tensor([[[0.9, 0.1]]], dtype=torch.float64)
        got = float(EntropySearch(posterior, R, noise=0.01, draws=8192, outcomes=64, sharpness=2000.0)(x))

        def entropy(mean, covariance, seed):
            generator = torch.Generator().manual_seed(seed)
            normal = torch.randn(20_000, 6, dtype=torch.float64, generator=generator)
            draws = mean + normal @ torch.linalg.cholesky(covariance + 1e-8 * torch.eye(6)).T
            share = torch.bincount(draws.argmax(1), minlength=6) / 20_000.0
            return float(-(share * torch.log(share.clamp_min(1e-12))).sum())

        mean, covariance = posterior.joint(torch.cat([R, x[0]]))
        variance = float(covariance[-1, -1]) + 0.01
        shift = covariance[:-1, -1] / math.sqrt(variance)
        after = covariance[:-1, :-1] - shift[:, None] * shift
        z = stats.norm.ppf((np.arange(64) + 0.5) / 64)
        later = np.mean([entropy(mean[:-1] + zi * shift, after, i) for i, zi in enumerate(z)])
        assert got == pytest.approx(entropy(mean[:-1], covariance[:-1, :-1], 99) - later, abs=0.03)


class TestLookahead:
    def test_it_is_at_least_the_improvement_of_either_step(self, quiet, X):
        best, later = float(quiet.y.max()), points(200, 2, 5)
        two = TwoStepEI(quiet, best, later, nodes=20)(X)
        assert bool((two >= EI(quiet, best)(X) - 1e-3).all())
        assert bool((two >= EI(quiet, best)(later[:, None]).max() - 1e-2).all())

    def test_it_is_nested_sampling(self, quiet):
        best, later = float(quiet.y.max()), points(50, 2, 5)
        x = torch.tensor([[[0.2, 0.1]]], dtype=torch.float64)
        got = float(TwoStepEI(quiet, best, later, nodes=40)(x))
        mean, variance = (float(v) for v in quiet.predict(x[0]))
        total = 0.0
        for z in stats.norm.ppf((np.arange(200) + 0.5) / 200):
            shown = mean + z * math.sqrt(variance)
            cross = quiet.covariance_between(x[0], later)[0] / math.sqrt(variance)
            m, v = quiet.predict(later)
            s = (v - cross**2).clamp_min(1e-12).sqrt()
            gap = (m + cross * z - max(best, shown)) / s
            second = s * torch.tensor(gap.numpy() * stats.norm.cdf(gap) + stats.norm.pdf(gap))
            total += (max(shown - best, 0.0) + float(second.max())) / 200
        assert got == pytest.approx(total, rel=0.02)

    def test_more_dimensions_are_refused(self, posterior):
        with pytest.raises(InvalidParameter, match="d <= 2"):
            TwoStepEI(posterior, 0.0, points(5, 3))


class TestPendingPoints:
    """Beside points that are being evaluated: the joint improvement but for what those bring alone."""

    def gains(self, quiet, X, pending):
        both = QEI(quiet, 0.3, pending=pending, samples=16384)(X)
        mean, covariance = quiet.joint(pending)
        normal = torch.randn(
            200_000, len(pending), dtype=torch.float64, generator=torch.Generator().manual_seed(0)
        )
        draws = mean + normal @ torch.linalg.cholesky(covariance).T
        return both - (draws.amax(1) - 0.3).clamp_min(0.0).mean()

    def test_it_is_the_gain_on_top_of_theirs(self, quiet, X):
        pending = points(2, 2, 7)
        found = pending_ei(quiet, 0.3, pending, fantasies=4096)(X).exp()
        np.testing.assert_allclose(found, self.gains(quiet, X, pending), atol=4e-3)

    def test_a_place_that_is_pending_is_worth_nothing_more(self, quiet):
        pending = points(3, 2, 7)
        worth = pending_ei(quiet, 0.3, pending)(pending[:, None])
        assert bool((worth < -8).all())

    def test_with_noise_the_pending_ones_are_visited_ones_to_come(self, posterior, X):
        pending = points(2, 2, 7)
        alone, beside = noisy_ei(posterior, 64)(X), noisy_ei(posterior, 64, pending=pending)(X)
        assert bool((beside <= alone + 0.15).all())
        assert bool((noisy_ei(posterior, 64, pending=pending)(pending[:, None]) < -5).all())


class TestSurvival:
    X = torch.tensor([[0.1], [0.3], [0.5], [0.9]]).double()
    worked = torch.tensor([True, True, False, False])

    def test_the_chance_at_one_trial_is_near_the_integral_over_the_latent_value(self):
        model = survival(self.X[:1], self.worked[:1])
        f = torch.linspace(-30, 30, 6001).double()
        chances = []
        for variance in model.variance:
            prior = torch.exp(-0.5 * f.square() / variance) * torch.special.ndtr(f)
            chances.append(float((prior * torch.special.ndtr(f)).sum() / prior.sum()))
        expected = float((model.share * torch.tensor(chances)).sum())
        # Laplace's approximation is this far off at one label
        assert float(model(self.X[:1, None]).exp()) == pytest.approx(expected, abs=0.08)

    def test_every_mode_is_a_stationary_point(self):
        """``f = K grad log p(y | f)``, eq. (3.17), with the gradient at that f."""
        model = survival(self.X, self.worked)
        K = model.variance[:, None, None] * model.kernel(model.theta, self.X, self.X)
        f = (K @ model.slope[..., None])[..., 0]
        label = torch.where(self.worked, 1.0, -1.0).double()
        z = label * f
        slope = label * torch.exp(-0.5 * z.square() - 0.5 * math.log(2 * math.pi) - torch.special.log_ndtr(z))
        torch.testing.assert_close(slope, model.slope, atol=1e-6, rtol=1e-6)

    def test_it_is_high_among_successes_and_low_among_failures(self):
        chance = survival(self.X, self.worked)(torch.tensor([0.2, 0.7]).double().reshape(-1, 1, 1)).exp()
        assert float(chance[0]) > 0.6
        assert float(chance[1]) < 0.4

    def test_what_may_fail_gets_less_with_failures_and_more_with_successes(self):
        assert least_chance([]) == pytest.approx(math.log(0.5))
        assert least_chance([True] * 100) == pytest.approx(stats.norm.logcdf(4.0))
        assert least_chance([False] * 100) == pytest.approx(stats.norm.logcdf(-1.0))
        assert least_chance([True, False, False, False]) == pytest.approx(math.log(0.5))

    def test_however_little_is_left_to_gain_nothing_is_looked_for_among_failures(self):
        class Tiny(Acquisition):
            def __call__(self, X):
                return -1e6 * (1.0 - X[:, 0, 0])  # more, the further in

        u = torch.linspace(0.0, 1.0, 201).double().reshape(-1, 1, 1)
        found = Constrained(Tiny(), [], survival(self.X, self.worked))(u)
        assert float(u[found.argmax()]) < 0.45


class TestConstraints:
    def test_worth_is_multiplied_by_the_chance_of_being_feasible(self, posterior, X):
        base = LogEI(posterior, 0.3)
        mean, variance = (v[:, 0] for v in posterior.predict(X))
        chance = torch.tensor(stats.norm.cdf((0.1 - mean) / variance.sqrt()))
        both = Constrained(base, [(posterior, 0.1), (posterior, 0.1)])(X)
        np.testing.assert_allclose(both, base(X) + 2 * torch.log(chance), rtol=1e-6, atol=1e-12)
        np.testing.assert_allclose(
            Constrained(None, [(posterior, 0.1)])(X), torch.log(chance), rtol=1e-6, atol=1e-12
        )


@pytest.mark.parametrize(
    "make",
    [
        lambda p: LogEI(p, 0.3),
        lambda p: noisy_ei(p, 8),
        lambda p: noisy_ei(p, 8, pending=points(2, 2, 7)),
        lambda p: pending_ei(p, 0.3, points(2, 2, 7)),
        lambda p: Constrained(LogEI(p, 0.3), [], survival(points(6, 2, 8), torch.arange(6) < 3)),
        lambda p: QLogEI(p, 0.3, pending=points(2, 2, 7)),
        lambda p: KnowledgeGradient(p, points(6, 2, 3), noise=0.02),
        lambda p: MaxValueEntropy(p, torch.tensor([1.0, 1.4], dtype=torch.float64)),
        lambda p: PredictiveEntropy(p, points(3, 2, 9), 0.3),
        lambda p: EntropySearch(p, points(5, 2, 2), draws=64, outcomes=4),
        lambda p: TwoStepEI(p, 0.3, points(30, 2, 5)),
        lambda p: Penalised(LogEI(p, 0.3), p, points(2, 2, 7), 5.0, 0.3),
    ],
    ids=[
        "logei",
        "noisy",
        "noisy beside",
        "beside",
        "failing",
        "qlogei",
        "kg",
        "mes",
        "pes",
        "es",
        "two-step",
        "penalised",
    ],
)
def test_gradients_are_finite_differences(make, posterior, X):
    acquisition = make(posterior)
    leaf = X.clone().requires_grad_(True)
    (slope,) = torch.autograd.grad(acquisition(leaf).sum(), leaf)
    for j in range(2):
        step = 1e-6 * torch.eye(2, dtype=torch.float64)[j]
        difference = (acquisition(X + step) - acquisition(X - step)) / 2e-6
        np.testing.assert_allclose(slope[:, 0, j], difference.detach(), rtol=2e-3, atol=1e-4)
