"""Convex problems in any unit: data multiplied by powers of ten give the same answers, divided by them."""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor

import numpy as np
import pytest
import scipy.sparse as sp
from hypothesis import given, settings
from hypothesis import strategies as st

from thalweg import solve
from thalweg.convex import (
    AcceleratedProximalGradient,
    ElasticNet,
    GroupPenalized,
    Lasso,
    LeastSquares,
    Logistic,
    LogisticRegression,
    Penalized,
    lasso_path,
)
from thalweg.core import InvalidParameter, InvalidProblem

POWERS = st.integers(-150, 150)
RNG = np.random.default_rng(0)
X = RNG.standard_normal((60, 5))
Y = X @ [3.0, -2.0, 1.0, 0.0, 0.0] + 0.1 * RNG.standard_normal(60) + 0.7
LABELS = (Y > 0).astype(int)


@pytest.mark.parametrize("made", [np.asarray, sp.csc_array], ids=["dense", "sparse"])
class TestEstimators:
    @given(a=POWERS, b=POWERS)
    def test_the_lasso(self, made, a, b):
        x, y = 10.0**a, 10.0**b
        here = Lasso(0.01).fit(made(X), Y)
        there = Lasso(0.01 * x * y).fit(made(X * x), Y * y)
        np.testing.assert_allclose(there.coef_ * x / y, here.coef_, rtol=1e-5, atol=1e-6)
        assert there.intercept_ / y == pytest.approx(here.intercept_, rel=1e-5)

    @given(a=POWERS)
    def test_the_elastic_net(self, made, a):
        x = 10.0**a
        for ratio in (0.0, 0.5):
            here = ElasticNet(0.01, l1_ratio=ratio).fit(made(X), Y)
            there = ElasticNet(0.01 * x * x, l1_ratio=ratio).fit(made(X * x), Y * x)
            np.testing.assert_allclose(there.coef_, here.coef_, rtol=1e-5, atol=1e-6)
            assert there.intercept_ / x == pytest.approx(here.intercept_, rel=1e-5)

    @settings(max_examples=8)
    @given(a=POWERS, classes=st.sampled_from([2, 3]))
    def test_logistic_regression_with_l1(self, made, a, classes):
        x = 10.0**a
        labels = LABELS if classes == 2 else np.digitize(Y, [-2.0, 2.0])
        here = LogisticRegression(1.0, l1_ratio=1.0, tol=1e-6).fit(made(X), labels)
        there = LogisticRegression(1.0 / x, l1_ratio=1.0, tol=1e-6).fit(made(X * x), labels)
        np.testing.assert_allclose(there.coef_ * x, here.coef_, rtol=1e-3, atol=1e-4)
        # A shift of all classes' intercepts changes nothing.
        apart = [m.intercept_ - m.intercept_[-1] * (classes == 3) for m in (here, there)]
        np.testing.assert_allclose(apart[1], apart[0], rtol=1e-3, atol=1e-4)

    @given(a=st.integers(-140, 140), b=st.integers(-140, 140))
    def test_the_path(self, made, a, b):
        x, y = 10.0**a, 10.0**b
        alphas, coefs, _ = lasso_path(made(X), Y, alphas=5)
        there, scaled, _ = lasso_path(made(X * x), Y * y, alphas=5)
        np.testing.assert_allclose(there / x / y, alphas, rtol=1e-12)
        np.testing.assert_allclose(scaled * x / y, coefs, rtol=1e-5, atol=1e-6)


def test_eight_threads_fit_as_one():
    """Estimators of their own; the compiled loops share nothing."""

    def fitted(seed):
        rows = np.random.default_rng(seed).permutation(60)[:50]
        lasso = Lasso(0.01).fit(sp.csc_array(X[rows]), Y[rows])
        return lasso.coef_.tolist(), LogisticRegression().fit(X[rows], LABELS[rows]).coef_.tolist()

    with ThreadPoolExecutor(8) as pool:
        together = list(pool.map(fitted, range(8)))
    assert together == [fitted(seed) for seed in range(8)]


def test_what_no_unit_can_help_is_refused():
    with pytest.raises(
        InvalidParameter, match=r"The l2 penalty, .* is beyond measure beside columns of size"
    ):
        ElasticNet(1e200, l1_ratio=0.0).fit(X * 1e-150, Y)


class TestProblems:
    def losses(self, x, y):
        yield LeastSquares(X * x, Y * y), x * y, x / y
        yield LeastSquares(sp.csr_array(X * x), Y * y), x * y, x / y

    @pytest.mark.parametrize("method", [None, AcceleratedProximalGradient()], ids=["blocks", "accelerated"])
    @pytest.mark.parametrize("l1", [0.0, 5.0])
    @settings(max_examples=15)
    @given(a=st.integers(-140, 140), b=st.integers(-140, 140))
    def test_squares(self, method, l1, a, b):
        if max(abs(a + b), abs(a - b)) > 140:
            return
        for here, there in zip(self.losses(1.0, 1.0), self.losses(10.0**a, 10.0**b), strict=True):
            found = [
                solve(Penalized(loss, l1=l1 * unit), *filter(None, [method]), progress=False).x * of_x
                for loss, unit, of_x in (here, there)
            ]
            np.testing.assert_allclose(found[1], found[0], rtol=1e-6, atol=1e-8)

    @given(a=st.integers(-140, 140))
    def test_logistic_and_groups(self, a):
        x, signs, groups = 10.0**a, np.where(LABELS, 1.0, -1.0), np.array([0, 0, 1, 1, 1])
        found = [solve(Penalized(Logistic(X * s, signs), l1=2.0 * s), progress=False).x * s for s in (1.0, x)]
        np.testing.assert_allclose(found[1], found[0], rtol=1e-6, atol=1e-8)
        found = [
            solve(
                GroupPenalized(LeastSquares(X * s, Y), groups=groups, group_weight=3.0 * s), progress=False
            ).x
            * s
            for s in (1.0, x)
        ]
        np.testing.assert_allclose(found[1], found[0], rtol=1e-6, atol=1e-8)

    @pytest.mark.parametrize("scale", [1e-140, 1.0, 1e140])
    def test_separable_labels_are_seen_at_any_scale(self, scale):
        problem = Penalized(Logistic(scale * np.array([[-2.0], [1.0]]), [-1.0, 1.0]))
        with pytest.raises(InvalidProblem, match="labels are separable"):
            solve(problem, progress=False)

    @pytest.mark.parametrize(
        ("A", "b", "message"),
        [
            (X * 1e-200, Y, "A's largest entry is .*e-200; its squares leave the range"),
            (X * 1e200, Y, "A's largest entry is .*e\\+200"),
            (X * 1e100, Y * 1e100, "A'b has entries of"),
            (X * 1e-100, Y * 1e-100, "A'b has entries of"),
            (X * 1e-100, Y * 1e100, "The solution has entries of about"),
            (X + 1j, Y, "A is complex"),
            (sp.csr_array(X + 1j), Y, "A is complex"),
            (X, Y + 1j, "b is complex"),
            ([["a", "b"]], [1.0], "A holds <U1; expected numbers"),
        ],
    )
    def test_what_is_out_of_range_or_no_real_number_is_refused(self, A, b, message):
        with pytest.raises(InvalidProblem, match=message):
            LeastSquares(A, b)

    @pytest.mark.parametrize(
        ("l1", "message"), [(1j, "l1 is complex"), ("a", "l1 holds"), (np.nan, "l1 holds NaN")]
    )
    def test_penalties_are_real_numbers(self, l1, message):
        with pytest.raises(InvalidProblem, match=message):
            Penalized(LeastSquares(X, Y), l1=l1)
