"""What losses and penalties say of themselves: derivatives, conjugates, subdifferentials, against their definitions."""

import numpy as np
import pytest
import scipy.sparse as sp
from hypothesis import given
from hypothesis import strategies as st
from scipy.optimize import approx_fprime, minimize, minimize_scalar

from thalweg import solve
from thalweg.convex import GroupPenalized, LeastSquares, Logistic, Multinomial, Penalized, Quadratic, lattice
from thalweg.convex.datafits import LogLoss, PointwiseDatafit, SoftmaxLoss, SquaredError
from thalweg.convex.penalties import ElasticNetPenalty, l1_slopes, shrunk
from thalweg.convex.working_set import Columns, fit_penalized
from thalweg.core import Checkpoint, Status, Stop


def pointwise(seed):
    rng = np.random.default_rng(seed)
    y = rng.standard_normal(6)
    weights = rng.uniform(0.2, 3.0, 6)
    return [
        SquaredError(y),
        SquaredError(y, weights),
        LogLoss(np.sign(y)),
        LogLoss(np.sign(y), rng.standard_normal(6)),
        LogLoss(np.sign(y), rng.standard_normal(6), weights),
    ]


SEEDS = st.integers(0, 10_000)


class TestDatafits:
    @given(SEEDS)
    def test_slopes_and_curvatures_are_the_derivatives(self, seed):
        z = np.random.default_rng(seed + 1).standard_normal(6)
        for fit in pointwise(seed):
            np.testing.assert_allclose(fit.slope(z), approx_fprime(z, fit.value, 1e-7), atol=1e-5)
            apart = (fit.slope(z + 1e-6) - fit.slope(z - 1e-6)) / 2e-6
            np.testing.assert_allclose(fit.curvature(z), apart, atol=1e-8)
            assert (fit.curvature(z) <= fit.smoothness + 1e-15).all()

    def test_the_softmax_has_the_slope_of_its_value(self, rng):
        fit, z = SoftmaxLoss(np.array([0, 2, 1])), rng.standard_normal((3, 4))
        numeric = approx_fprime(z.ravel(), lambda v: fit.value(v.reshape(3, 4)), 1e-7)
        np.testing.assert_allclose(fit.slope(z).ravel(), numeric, atol=1e-6)

    @given(SEEDS)
    def test_fenchel_and_young_meet_at_the_slope_and_nowhere_else(self, seed):
        """``value(z) + conjugate(u) >= u'z``, with equality where u is the slope at z."""
        z, other = np.random.default_rng(seed + 1).standard_normal((2, 6))
        for fit in pointwise(seed):
            u, v = fit.slope(z), fit.slope(other)
            assert fit.value(z) + fit.conjugate(u) == pytest.approx(u @ z, abs=1e-9)
            assert fit.value(z) + fit.conjugate(v) >= v @ z - 1e-9

    @given(SEEDS)
    def test_bends_are_slope_and_curvature(self, seed):
        z = 10.0 * np.random.default_rng(seed + 1).standard_normal(6)
        for fit in pointwise(seed):
            slope, curvature = fit.bends(z)
            np.testing.assert_allclose(slope, fit.slope(z), rtol=1e-12)
            np.testing.assert_allclose(curvature, fit.curvature(z), rtol=1e-9, atol=1e-15)

    @given(SEEDS, st.floats(0.1, 3.0))
    def test_the_dual_multiple_is_feasible_and_the_squares_is_the_best(self, seed, limit):
        z = np.random.default_rng(seed + 1).standard_normal(6)
        for fit in pointwise(seed):
            u = fit.slope(z)
            value, s = fit.dual(u, 0.7, limit)
            assert abs(s) <= limit
            assert value == pytest.approx(-fit.conjugate(s * u) - 0.35 * s * s, abs=1e-9)
        fit = pointwise(seed)[0]
        u = fit.slope(z)
        best = minimize_scalar(
            lambda t: fit.conjugate(t * u) + 0.35 * t * t, bounds=(-limit, limit), method="bounded"
        )
        assert fit.dual(u, 0.7, limit)[0] >= -best.fun - 1e-9

    @given(SEEDS)
    def test_the_best_intercept_leaves_no_slope(self, seed):
        z = np.random.default_rng(seed + 1).standard_normal(6)
        squares, *logs = pointwise(seed)
        for fit in [squares, *(fit for fit in logs if len(set(fit.y)) == 2)]:
            moved = z + fit.best_intercept(z, 0.3) - 0.3
            assert abs(fit.slope(moved).sum()) < 1e-9


class TestPenalty:
    @given(SEEDS)
    def test_the_conjugate_is_the_supremum(self, seed):
        rng = np.random.default_rng(seed)
        penalty, c = ElasticNetPenalty(0.7, 1.3), 2.0 * rng.standard_normal(5)
        w = shrunk(c, penalty.l1) / penalty.l2  # where c lies in the subdifferential
        assert penalty.conjugate(c) == pytest.approx(c @ w - penalty.value(w), abs=1e-12)
        for v in rng.standard_normal((20, 5)):
            assert c @ v - penalty.value(v) <= penalty.conjugate(c) + 1e-12

    @given(SEEDS)
    def test_slopes_are_the_nearest_subgradients_to_zero(self, seed):
        rng = np.random.default_rng(seed)
        w = rng.standard_normal(5) * (rng.random(5) < 0.5)
        g = rng.standard_normal(5)
        found = l1_slopes(0.6, w, g)
        for i in range(5):
            ends = (g[i] - 0.6, g[i] + 0.6) if w[i] == 0 else (g[i] + 0.6 * np.sign(w[i]),) * 2
            assert found[i] == pytest.approx(np.clip(0.0, *ends), abs=1e-15)
        with_ridge = ElasticNetPenalty(0.6, 2.0).slopes(w, g)
        np.testing.assert_array_equal(with_ridge, l1_slopes(0.6, w, g + 2.0 * w))

    def test_the_support_is_what_is_not_zero(self):
        assert ElasticNetPenalty(1.0).support(np.array([0.0, -2.0, 0.0, 1e-300])).tolist() == [1, 3]


class LogCosh(PointwiseDatafit):
    """A loss that the solver has never heard of: ``sum log cosh(z - y)``, smooth and even."""

    smoothness = 1.0

    def __init__(self, y):
        self.y = y

    def value(self, z):
        return float(np.logaddexp(z - self.y, self.y - z).sum() - len(z) * np.log(2.0))

    def slope(self, z):
        return np.tanh(z - self.y)

    def curvature(self, z):
        return 1.0 / np.cosh(z - self.y) ** 2

    def conjugate(self, u):
        u = np.clip(u, -1 + 1e-15, 1 - 1e-15)
        return float(u @ self.y + (u * np.arctanh(u) + 0.5 * np.log1p(-u * u)).sum())


class TestANewLossNeedsNoNewSolver:
    @pytest.mark.parametrize("penalty", [ElasticNetPenalty(2.0), ElasticNetPenalty(2.0, 0.5)])
    def test_a_loss_of_the_users_own_is_fitted_to_its_minimum(self, rng, penalty):
        X, y = rng.standard_normal((40, 12)), 3.0 * rng.standard_normal(40)
        fit = fit_penalized(Columns(X), LogCosh(y), penalty, tol=1e-10, max_iter=500)

        def split(u):
            w = u[:12] - u[12:]
            g = X.T @ np.tanh(X @ w - y) + penalty.l2 * w
            value = LogCosh(y).value(X @ w) + 0.5 * penalty.l2 * w @ w + penalty.l1 * u.sum()
            return value, np.concatenate([g + penalty.l1, penalty.l1 - g])

        options = {"ftol": 1e-15, "gtol": 1e-9, "maxiter": 10_000, "maxfun": 100_000}
        best = minimize(split, np.zeros(24), jac=True, bounds=[(0, None)] * 24, options=options).fun
        assert fit.converged
        assert 0 < np.count_nonzero(fit.w) < 12
        assert LogCosh(y).value(X @ fit.w) + penalty.value(fit.w) == pytest.approx(best, abs=1e-6)


def problems():
    rng = np.random.default_rng(3)
    A, b = rng.standard_normal((40, 12)), rng.standard_normal(40)
    sparse = sp.random_array((40, 12), density=0.4, rng=rng) + sp.eye_array(40, 12)
    return {
        "least squares": Penalized(LeastSquares(A, b)),
        "lasso": Penalized(LeastSquares(sparse, b), l1=0.5),
        "l1 logistic": Penalized(Logistic(A, np.sign(b)), l1=1.0),
        "softmax, non-negative": Penalized(Multinomial(A, rng.integers(0, 3, 40), ridge=0.1), low=0.0),
        "lattice": Penalized(Quadratic(lattice(6, 5, 0.1), rng.standard_normal(30))),
        "groups": GroupPenalized(LeastSquares(A, b), groups=np.arange(12) // 3, group_weight=3.0),
    }


@pytest.mark.parametrize("name", list(problems()))
def test_the_shortest_call_ends_converged(name):
    problem = problems()[name]
    result = solve(problem)
    assert result.status is Status.CONVERGED
    assert result.metrics["violation"] <= problem.recommended_stop().below["violation"]


def test_blocks_worked_out_are_made_anew_after_a_checkpoint(tmp_path):
    """What is kept of blocks that come again is no part of the state, and its loss changes no bit."""
    from thalweg.convex import GSQ, BlockCoordinateDescent, BoundStep, FixedBlocks

    problem = problems()["lasso"]
    method = BlockCoordinateDescent(FixedBlocks.in_order(12, 3), GSQ(), BoundStep())
    whole = solve(problem, method, stop=Stop(steps=12))
    half = [Checkpoint(tmp_path / "c", every=1)]
    solve(problem, method, stop=Stop(steps=6), callbacks=half)
    rest = solve(problem, method, stop=Stop(steps=12), resume=tmp_path / "c")
    assert np.array_equal(whole.x, rest.x)
    assert method.init(problem, 0).tree()["worked_out"] == {}
