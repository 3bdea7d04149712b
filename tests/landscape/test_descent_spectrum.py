"""Gradient descent, ridge regression and leverages by singular vectors, against the methods run step by step."""

import math

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from sklearn.linear_model import Ridge as SklearnRidge

from thalweg.core import InvalidParameter, InvalidProblem, NotFinite
from thalweg.landscape.double_descent import Spectrum


def drawn(n, p, k=None, seed=0, start=False):
    rng = np.random.default_rng((seed, n, p))
    y = rng.standard_normal(n if k is None else (n, k))
    return Spectrum(rng.standard_normal((n, p)), y, rng.standard_normal((p, k or 1)) if start else None)


def stepped(problem, steps, step_size):
    """Gradient descent on 1/2 |Phi w - y|^2, as it is written."""
    Phi, w = np.asarray(problem.features), np.asarray(problem.start).copy()
    y = np.asarray(problem.targets).reshape(len(Phi), -1)
    for _ in range(steps):
        w -= step_size * Phi.T @ (Phi @ w - y)
    return w


class TestFilters:
    @given(
        st.integers(2, 9),
        st.integers(1, 12),
        st.integers(0, 40),
        st.floats(0.01, 2.0),
        st.booleans(),
        st.integers(0, 99),
    )
    def test_descent_is_that_of_the_steps(self, n, p, steps, share, start, seed):
        problem = drawn(n, p, 2, seed, start)
        size = share * problem.step_limit / 2
        found = problem.weights(problem.descent(steps, size))
        np.testing.assert_allclose(found, stepped(problem, steps, size), rtol=1e-9, atol=1e-9)

    def test_without_steps_it_is_the_start_and_after_all_the_pseudo_inverse(self):
        problem = drawn(6, 9, start=True)
        start = np.asarray(problem.start)[:, 0]
        np.testing.assert_array_equal(problem.weights(problem.descent(0)), start)
        np.testing.assert_allclose(
            problem.weights(problem.descent(10**9)), problem.weights(problem.exact()), rtol=1e-9
        )
        Phi, y = np.asarray(problem.features), np.asarray(problem.targets)
        nearest = start + np.linalg.pinv(Phi) @ (y - Phi @ start)
        np.testing.assert_allclose(problem.weights(problem.exact()), nearest, rtol=1e-9)

    def test_ridge_is_scikit_learns(self):
        problem = drawn(20, 7)
        wanted = SklearnRidge(0.3, fit_intercept=False).fit(problem.features, problem.targets).coef_
        np.testing.assert_allclose(problem.weights(problem.ridge(0.3)), wanted, rtol=1e-10)
        np.testing.assert_allclose(
            problem.weights(problem.ridge(1e-12)), problem.weights(problem.exact()), rtol=1e-8
        )

    def test_leave_one_out_is_leaving_one_out(self):
        problem = drawn(12, 5)
        Phi, y = np.asarray(problem.features), np.asarray(problem.targets)
        errors = []
        for i in range(12):
            kept = np.arange(12) != i
            part = Spectrum(Phi[kept], y[kept])
            errors.append((Phi[i] @ part.weights(part.ridge(0.4)) - y[i]) ** 2)
        found = problem.leave_one_out(problem.ridge([0.4]))
        assert found[0] == pytest.approx(np.mean(errors), rel=1e-10)

    @given(st.integers(2, 10), st.integers(1, 10), st.floats(1e-6, 1e6))
    def test_weights_scale_with_the_targets(self, n, p, scale):
        a = drawn(n, p)
        b = Spectrum(a.features, scale * np.asarray(a.targets))
        np.testing.assert_allclose(
            b.weights(b.descent(50)), scale * a.weights(a.descent(50)), rtol=1e-10, atol=1e-12 * scale
        )

    def test_features_of_any_size_give_the_same_filters(self):
        a = drawn(8, 5)
        for scale in (1e-120, 1e120):
            b = Spectrum(scale * np.asarray(a.features), a.targets)
            np.testing.assert_allclose(b.descent(20), a.descent(20), rtol=1e-9)

    def test_errors_are_those_of_the_weights(self):
        problem = drawn(9, 6, 3, start=True)
        rng = np.random.default_rng(1)
        rows, targets = rng.standard_normal((40, 6)), rng.standard_normal((40, 3))
        filters = problem.descent([1, 5, 50])
        for j, filtered in enumerate(filters):
            w = problem.weights(filtered)
            residual = np.asarray(problem.features) @ w - np.asarray(problem.targets)
            assert problem.train_error(filters)[j] == pytest.approx((residual**2).mean(), rel=1e-10)
            expected = ((rows @ w - targets) ** 2).mean()
            assert problem.test_error(rows, targets, filters)[j] == pytest.approx(expected, rel=1e-10)

    @given(st.integers(2, 9), st.integers(1, 12), st.integers(0, 99))
    def test_training_error_falls_with_every_step(self, n, p, seed):
        problem = drawn(n, p, seed=seed)
        errors = problem.train_error(problem.descent(np.arange(60)))
        assert (np.diff(errors) <= 1e-12).all()

    def test_residuals_end_in_what_is_less_than_half_learned(self):
        problem = Spectrum(np.diag([1.0, 1e-3]), [1.0, 1.0])
        shares = problem.unlearned(problem.descent([0, 100]))
        np.testing.assert_allclose(shares, [1.0, 1.0])
        assert problem.unlearned(problem.exact()) == 0.0


class TestStepsTo:
    def test_it_is_the_first_step_below(self):
        problem = drawn(12, 20)
        for loss in (0.5, 1e-2, 1e-4):
            steps = int(problem.steps_to(loss))
            assert problem.train_error(problem.descent(steps)) <= loss
            assert problem.train_error(problem.descent(steps - 1)) > loss

    def test_a_loss_that_no_weights_have_takes_for_ever(self):
        assert drawn(12, 3).steps_to(1e-6) == math.inf
        assert drawn(12, 3).steps_to(1e9) == 0.0


class TestCondition:
    def test_of_a_diagonal(self):
        found = Spectrum(np.diag([4.0, 2.0, 0.0]), np.ones(3)).condition
        assert (found.number, found.largest, found.smallest, found.rank, found.dead) == (2.0, 4.0, 2.0, 2, 1)
        share = np.array([0.8, 0.2])
        assert found.effective_rank == pytest.approx(np.exp(-(share * np.log(share)).sum()))

    @pytest.mark.parametrize(("n", "p"), [(200, 50), (200, 100), (200, 300), (200, 400), (200, 800)])
    def test_pure_noise_gives_weights_of_the_known_size(self, n, p):
        """``E |w|^2 = p/(n - p - 1)`` below the threshold, ``n/(p - n - 1)`` above, for normal features and noise."""
        sizes = []
        for seed in range(40):
            problem = drawn(n, p, seed=1000 + seed)
            sizes.append(np.square(problem.weights(problem.exact())).sum())
        expected = p / (n - p - 1) if p < n else n / (p - n - 1)
        assert abs(np.mean(sizes) - expected) < 3.5 * np.std(sizes) / math.sqrt(len(sizes))


class TestBadInput:
    @pytest.mark.parametrize(
        ("features", "targets", "message"),
        [
            (np.ones(3), np.ones(3), r"shape \(n, p\)"),
            (np.ones((3, 0)), np.ones(3), r"shape \(n, p\)"),
            (np.ones((3, 2)), np.ones(4), "features have 3 rows"),
            (1j * np.ones((3, 2)), np.ones(3), "complex"),
        ],
    )
    def test_shapes_and_kinds(self, features, targets, message):
        with pytest.raises(InvalidProblem, match=message):
            Spectrum(features, targets)

    def test_nan_and_nothing(self):
        with pytest.raises(NotFinite, match="features holds 1 NaN"):
            Spectrum([[np.nan, 1.0]], [1.0])
        with pytest.raises(InvalidProblem, match="every feature is zero"):
            Spectrum(np.zeros((3, 2)), np.ones(3)).condition  # noqa: B018 -- worked out when asked for

    def test_steps_and_sizes(self):
        problem = drawn(4, 3)
        with pytest.raises(InvalidParameter, match=r"step sizes in \(0, "):
            problem.descent(10, 1.1 * problem.step_limit)
        for steps in (1.5, -1, math.inf, 1e30):  # a table of a map's steps holds no infinity
            with pytest.raises(InvalidParameter, match="whole numbers"):
                problem.descent(steps)
        with pytest.raises(InvalidParameter, match="1/s_1"):
            problem.steps_to(0.1, problem.step_limit)
        with pytest.raises(InvalidParameter, match="penalties >= 0"):
            problem.ridge(-1.0)

    def test_rows_to_predict(self):
        problem = drawn(4, 3)
        with pytest.raises(InvalidProblem, match="need 3 columns"):
            problem.predictions(np.ones((2, 5)), problem.exact())
        with pytest.raises(InvalidProblem, match=r"need shape \(2,\)"):
            problem.test_error(np.ones((2, 3)), np.ones(3), problem.exact())
