"""Quadratic models on few columns, lazy passes, and fits of data on which coordinate steps alone take for ever."""

from __future__ import annotations

import numpy as np
import pytest
import scipy.sparse as sp
from hypothesis import given, settings
from hypothesis import strategies as st

from thalweg.convex.columns import Columns, Correlations
from thalweg.convex.datafits import LogLoss, SquaredError
from thalweg.convex.local_models import ColumnModel, GramModel
from thalweg.convex.penalties import ElasticNetPenalty
from thalweg.convex.working_set import Fit, LinearModel, fit_penalized
from thalweg.core import InvalidProblem

SEEDS = st.integers(0, 2**31)


def lasso_gap(X, y, l1, w):
    """Duality gap over the loss at zero, from the coefficients alone."""
    r = y - X @ w
    limit = l1 / np.abs(X.T @ r).max()
    s = np.clip(r @ y / (r @ r), -limit, limit)
    return (0.5 * r @ r + l1 * np.abs(w).sum() - s * (r @ y) + 0.5 * s * s * (r @ r)) / (0.5 * y @ y)


def hard_problem(seed):
    """Duplicated columns, zero columns, rank 3, or columns scaled over four decades; every other one has zeros."""
    rng = np.random.default_rng(seed)
    n, p = int(rng.integers(5, 120)), int(rng.integers(3, 300))
    X = rng.standard_normal((n, p))
    if seed % 4 == 0:
        X[:, p // 2 :] = X[:, : p - p // 2]
    elif seed % 4 == 1:
        X[:, rng.random(p) < 0.3] = 0.0
    elif seed % 4 == 2:
        X = rng.standard_normal((n, 3)) @ rng.standard_normal((3, p))
    else:
        X *= 10.0 ** rng.uniform(-2, 2, p)
    if seed % 8 >= 4:
        X *= rng.random((n, p)) < 0.3
    y = X[:, :3].sum(1) + rng.standard_normal(n)
    return X, y, 10.0 ** rng.uniform(-4, -0.3) * np.abs(X.T @ y).max()


class TestHardProblems:
    @pytest.mark.parametrize("made", [np.asarray, sp.csc_array], ids=["dense", "sparse"])
    def test_the_lasso_reaches_its_gap_on_all_of_them(self, made):
        for seed in range(120):
            X, y, l1 = hard_problem(seed)
            fit = fit_penalized(Columns(made(X)), SquaredError(y), ElasticNetPenalty(l1))
            assert fit.converged, seed
            assert lasso_gap(X, y, l1, fit.w) <= 1e-6, seed

    @pytest.mark.parametrize("made", [np.asarray, sp.csc_array], ids=["dense", "sparse"])
    @pytest.mark.parametrize("share", [0.0, 0.1])
    def test_logistic_regression_with_an_intercept_does_too(self, made, share):
        for seed in range(120):
            X, y, l1 = hard_problem(seed)
            signs = np.where(y > 0, 1.0, -1.0)
            penalty = ElasticNetPenalty(l1, share * l1)
            fit = fit_penalized(Columns(made(X)), LogLoss(signs), penalty, has_intercept=True)
            assert fit.converged, seed

    @pytest.mark.parametrize("made", [np.asarray, sp.csc_array], ids=["dense", "sparse"])
    def test_intercept_weights_and_ridge_are_those_of_centred_weighted_rows_with_more_of_them(self, made):
        """An elastic net with intercept and weights is a Lasso without, on other rows."""
        for seed in range(60):
            X, y, l1 = hard_problem(seed)
            weights = 1.0 + np.arange(len(y)) % 3
            fit = fit_penalized(
                Columns(made(X)),
                SquaredError(y, weights),
                ElasticNetPenalty(l1, 0.1 * l1),
                has_intercept=True,
            )
            mean, level = np.average(X, 0, weights), np.average(y, weights=weights)
            rows = np.vstack([np.sqrt(weights)[:, None] * (X - mean), np.sqrt(0.1 * l1) * np.eye(X.shape[1])])
            target = np.append(np.sqrt(weights) * (y - level), np.zeros(X.shape[1]))
            assert lasso_gap(rows, target, l1, fit.w) <= 2e-6, seed
            assert fit.intercept == pytest.approx(
                level - mean @ fit.w, abs=1e-8 * (1 + np.abs(mean) @ np.abs(fit.w))
            )


def models(X, target, v):
    """The same model by its Gram matrix, by dense and by sparse columns."""
    residual = target - X @ v
    g = X.T @ residual
    yield GramModel(np.asfortranarray(X.T @ X), v.copy(), g.copy(), float(residual @ residual))
    for made in (np.asarray, sp.csc_array):
        places = np.arange(X.shape[1])
        yield ColumnModel(Columns(made(X)), places, v.copy(), g.copy(), residual.copy())


class TestLocalModels:
    @given(seed=SEEDS, l2=st.sampled_from([0.0, 2.0]), share=st.floats(1e-3, 0.9))
    def test_all_kinds_end_at_one_minimum_that_the_gap_bounds(self, seed, l2, share):
        rng = np.random.default_rng(seed)
        X, target = rng.standard_normal((25, 8)), rng.standard_normal(25)
        l1, start = share * np.abs(X.T @ target).max(), rng.standard_normal(8) * (rng.random(8) < 0.5)

        def value(v):
            return 0.5 * np.square(target - X @ v).sum() + l1 * np.abs(v).sum() + 0.5 * l2 * v @ v

        ends = []
        for model in models(X, target, start):
            before, promised = value(model.v), model.gap(l1, l2)
            model.minimise(l1, l2, 1e-12)
            assert model.gap(l1, l2) <= 1e-9
            assert before - value(model.v) <= promised + 1e-9
            np.testing.assert_allclose(model.g, X.T @ (target - X @ model.v), atol=1e-9)
            assert model.squares == pytest.approx(np.square(target - X @ model.v).sum(), abs=1e-9)
            ends.append(value(model.v))
        assert max(ends) - min(ends) <= 1e-9

    @given(seed=SEEDS)
    def test_a_part_along_the_intercept_is_left_out(self, seed):
        """Columns with large means, in a model that is told of the intercept's direction, are centred columns."""
        rng = np.random.default_rng(seed)
        X, target = rng.standard_normal((30, 6)), rng.standard_normal(30)
        target -= target.mean()
        far, unit = X + rng.uniform(-50, 50, 6), np.full(30, 30**-0.5)
        centred = X - X.mean(0)
        l1 = 0.1 * np.abs(centred.T @ target).max()
        places = np.arange(6)
        model = ColumnModel(
            Columns(sp.csc_array(far)), places, np.zeros(6), far.T @ target, target.copy(), unit
        )
        plain = ColumnModel(Columns(centred), places, np.zeros(6), centred.T @ target, target.copy())
        for each in (model, plain):
            each.minimise(l1, 0.0, 1e-13)
        np.testing.assert_allclose(model.v, plain.v, atol=1e-6)
        np.testing.assert_allclose(model.with_gram().G, centred.T @ centred, atol=1e-7)
        np.testing.assert_allclose(model.sums, np.sqrt(30) * far.mean(0), rtol=1e-12)

    def test_duplicated_columns_do_not_stop_newtons_step(self):
        rng = np.random.default_rng(0)
        X = np.repeat(rng.standard_normal((20, 3)), 2, axis=1)
        target = X @ np.ones(6)
        for model in models(X, target, np.ones(6)):
            model.minimise(1e-3, 0.0, 1e-11)
            assert model.gap(1e-3, 0.0) <= 1e-11


class TestCorrelations:
    @settings(max_examples=50)
    @given(seed=SEEDS, limit=st.floats(0.1, 30.0), step=st.floats(0.0, 1.0), is_sparse=st.booleans())
    def test_what_may_reach_the_limit_is_exact_and_the_rest_below_it(self, seed, limit, step, is_sparse):
        rng = np.random.default_rng(seed)
        X = rng.standard_normal((20, 40)) * (rng.random((20, 40)) < 0.5) * 10.0 ** rng.uniform(-2, 1, 40)
        v, w = rng.standard_normal(20), (rng.random(40) < 0.1) * 1.0
        known = Correlations(Columns(sp.csc_array(X) if is_sparse else X), v, False)
        np.testing.assert_allclose(known.values, X.T @ v, atol=1e-9)
        np.testing.assert_allclose(known.lengths, np.linalg.norm(X, axis=0), atol=1e-12)
        alive = np.arange(40)
        for _ in range(4):
            v = v + step * rng.standard_normal(20)
            c, true = known.at(v, w, limit, alive), X.T @ v
            exact = (np.abs(true) >= limit) | (w != 0)
            np.testing.assert_allclose(c[alive][exact[alive]], true[alive][exact[alive]], atol=1e-9)
            assert (np.abs(c[alive]) >= np.abs(true[alive]) - 1e-9).all()
            assert (np.abs(c[~exact & np.isin(np.arange(40), alive)]) < limit + 1e-9).all()
            np.testing.assert_allclose(known.exact(alive), true[alive], atol=1e-9)
            alive = alive[rng.random(len(alive)) < 0.9]

    def test_most_columns_are_not_read_where_v_hardly_moves(self):
        rng = np.random.default_rng(0)
        X, v = rng.standard_normal((100, 500)), rng.standard_normal(100)
        known = Correlations(Columns(X), v, False)
        limit = 0.9 * np.abs(X.T @ v).max()
        known.at(v + 1e-3 * rng.standard_normal(100), np.zeros(500), limit, np.arange(500))
        assert known._known.sum() < 50


class TestFits:
    @pytest.mark.parametrize("made", [np.asarray, sp.csc_array], ids=["dense", "sparse"])
    def test_what_is_kept_along_a_path_does_not_change_it(self, made):
        X, y, _ = hard_problem(43)
        largest = np.abs(X.T @ y).max()
        path, start = LinearModel(Columns(made(X)), SquaredError(y)), None
        for share in np.geomspace(1.0, 1e-3, 12):
            penalty = ElasticNetPenalty(share * largest)
            start = path.fit(penalty, start=start, tol=1e-9)
            assert start.converged
            assert lasso_gap(X, y, penalty.l1, start.w) <= 1e-9

    def test_coefficients_of_columns_that_do_nothing_are_dropped(self):
        X = np.column_stack([np.arange(5.0), np.zeros(5)])
        fit = fit_penalized(
            Columns(X), SquaredError(np.arange(5.0)), ElasticNetPenalty(0.1), start=Fit(np.ones(2), 0.0)
        )
        assert fit.converged
        assert fit.w[1] == 0.0

    @given(seed=SEEDS, tall=st.booleans(), order=st.sampled_from("CF"))
    def test_ridge_solves_its_normal_equations(self, seed, tall, order):
        rng = np.random.default_rng(seed)
        X = np.asarray(rng.standard_normal((40, 10) if tall else (10, 40)), order=order)
        y = rng.standard_normal(len(X))
        weights = rng.uniform(0.5, 2.0, len(X))
        fit = fit_penalized(
            Columns(X), SquaredError(y, weights), ElasticNetPenalty(0.0, 0.7), has_intercept=True, tol=1e-14
        )
        A = np.column_stack([X, np.ones(len(X))])
        ridge = np.diag(np.append(np.full(X.shape[1], 0.7), 0.0))
        exact = np.linalg.solve(A.T @ (weights[:, None] * A) + ridge, A.T @ (weights * y))
        np.testing.assert_allclose(np.append(fit.w, fit.intercept), exact, atol=1e-5)

    @given(seed=SEEDS, made=st.sampled_from([np.asarray, sp.csc_array]))
    def test_the_gap_of_a_ridge_bounds_its_distance_from_the_minimum(self, seed, made):
        rng = np.random.default_rng(seed)
        X, signs = rng.standard_normal((30, 50)) + 3.0, np.where(rng.random(30) < 0.6, 1.0, -1.0)
        signs[:2] = 1.0, -1.0

        def value(fit):
            return LogLoss(signs).value(X @ fit.w + fit.intercept) + 0.5 * fit.w @ fit.w

        options = {"has_intercept": True}
        parts = Columns(made(X)), LogLoss(signs), ElasticNetPenalty(0.0, 1.0)
        best = value(fit_penalized(*parts, tol=1e-13, **options))
        for tol in (1e-2, 1e-4):
            rough = fit_penalized(*parts, tol=tol, **options)
            assert rough.converged
            assert -1e-9 <= value(rough) - best <= rough.gap + 1e-9


@pytest.mark.parametrize("X", [np.eye(3) * 1j, sp.csc_array(np.eye(3) * 1j)], ids=["dense", "sparse"])
def test_complex_columns_are_refused(X):
    with pytest.raises(InvalidProblem, match="The data are complex; linear models here take real numbers"):
        Columns(X)
