"""Optimizers of the last layer, networks in one stack, and what a scan says of them."""

import numpy as np
import pytest
import torch
from torch import nn

from thalweg.core import InvalidParameter, InvalidProblem, NotFinite
from thalweg.landscape.double_descent import (
    CGLS,
    LBFGS,
    SGD,
    Columns,
    EarlyStopping,
    Exact,
    FeatureModels,
    GradientDescent,
    HeavyBall,
    LinearTeacher,
    Networks,
    RandomFeatures,
    Ridge,
    Rows,
    Spectrum,
    Split,
    Torch,
    descent_map,
    scan,
    small_cnn,
    two_layer,
)


def drawn(n, p, k=2, seed=0):
    rng = np.random.default_rng((seed, n, p))
    return Spectrum(rng.standard_normal((n, p)), rng.standard_normal((n, k)), rng.standard_normal((p, k)))


class TestOptimizers:
    def test_momentum_is_that_of_torch(self):
        problem = drawn(8, 5)
        rate = 0.7 * problem.step_limit / 2
        found = HeavyBall(0.7, 0.6).fit([problem], steps=30, seed=0)[0]
        w = torch.tensor(np.asarray(problem.start)).requires_grad_()
        optimizer = torch.optim.SGD([w], lr=rate, momentum=0.6)
        for _ in range(30):
            optimizer.zero_grad()
            (
                0.5 * (torch.tensor(problem.features) @ w - torch.tensor(problem.targets)).square().sum()
            ).backward()
            optimizer.step()
        np.testing.assert_allclose(found, w.detach().numpy(), rtol=1e-9)

    def test_without_momentum_it_is_gradient_descent(self):
        problem = drawn(8, 5)
        a = HeavyBall(1.2, 0.0).fit([problem], 25, 0)[0]
        np.testing.assert_allclose(a, GradientDescent(1.2).fit([problem], 25, 0)[0], rtol=1e-9)

    @pytest.mark.parametrize(("n", "p"), [(12, 6), (6, 12)])
    def test_conjugate_gradients_end_after_as_many_steps_as_the_rank(self, n, p):
        problem = drawn(n, p, k=1)
        exact = Exact().fit([problem], 0, 0)[0]
        np.testing.assert_allclose(CGLS().fit([problem], 6, 0)[0], exact, rtol=1e-7)
        np.testing.assert_allclose(CGLS().fit([problem], 500, 0)[0], exact, rtol=1e-7)
        short = np.linalg.norm(CGLS().fit([problem], 2, 0)[0] - exact)
        assert short > 1e-3

    def test_conjugate_gradients_are_scipys_lsqr(self):
        from scipy.sparse.linalg import lsqr

        problem = Spectrum(*(np.random.default_rng(2).standard_normal(shape) for shape in ((20, 9), 20)))
        wanted = lsqr(np.asarray(problem.features), problem.targets, atol=0, btol=0, iter_lim=4)[0]
        np.testing.assert_allclose(CGLS().fit([problem], 4, 0)[0][:, 0], wanted, rtol=1e-9)

    def test_lbfgs_keeps_to_its_evaluations_and_comes_to_the_minimum(self):
        problem = drawn(15, 4)
        np.testing.assert_allclose(
            LBFGS().fit([problem], 200, 0)[0], Exact().fit([problem], 0, 0)[0], rtol=1e-5, atol=1e-7
        )
        np.testing.assert_array_equal(LBFGS().fit([problem], 1, 0)[0], np.asarray(problem.start))

    def test_a_batch_of_all_rows_is_gradient_descent(self):
        problem = drawn(9, 4)
        np.testing.assert_allclose(
            SGD(batch=50).fit([problem], 40, 0)[0], GradientDescent().fit([problem], 40, 0)[0], rtol=1e-9
        )

    def test_batches_converge_where_all_rows_can_be_fitted(self):
        problem = drawn(6, 30)
        w = SGD(batch=1).fit([problem], 20_000, 0)[0]
        assert np.abs(np.asarray(problem.features) @ w - np.asarray(problem.targets)).max() < 1e-6

    def test_ridge_chooses_what_scikit_learn_chooses(self):
        from sklearn.linear_model import RidgeCV

        from thalweg.landscape.double_descent.optimizers import PENALTIES

        rng = np.random.default_rng(5)
        Phi = rng.standard_normal((40, 12))
        problem = Spectrum(Phi, Phi[:, 0] + rng.standard_normal(40))
        grid = PENALTIES * problem.singular_values[0] ** 2
        wanted = RidgeCV(grid, fit_intercept=False).fit(Phi, problem.targets)
        assert Ridge().chosen(problem) == pytest.approx(wanted.alpha_)

    def test_early_stopping_never_takes_more_steps_than_it_may(self):
        problem = drawn(20, 40)
        few = EarlyStopping().fit([problem], 1, 0)[0]
        np.testing.assert_allclose(few, GradientDescent().fit([problem], 1, 0)[0])

    def test_torch_runs_all_seeds_as_each_alone(self):
        problems = [drawn(8, 5, seed=s) for s in range(3)]
        make = Torch(lambda p: torch.optim.Adam(p, lr=0.05))
        together = make.fit(problems, 40, 0)
        for k, problem in enumerate(problems):
            np.testing.assert_allclose(make.fit([problem], 40, 0)[0], together[k], rtol=1e-9)

    @pytest.mark.parametrize(
        ("make", "message"),
        [
            (lambda: GradientDescent(2.5), "0 < step <= 2"),
            (lambda: HeavyBall(1.0, 1.0), "0 <= momentum < 1"),
            (lambda: HeavyBall(4.0, 0.5), "2 \\(1 \\+ momentum\\)"),
            (lambda: SGD(0), "batch >= 1"),
            (lambda: SGD(5, 2.0), "0 < step < 2"),
            (lambda: Ridge(-1.0), "penalty >= 0"),
            (lambda: EarlyStopping(held_out=1.0), "held_out"),
            (lambda: LBFGS(0), "memory >= 1"),
            (lambda: RandomFeatures("tanh"), "'relu' or 'fourier'"),
            (lambda: RandomFeatures(spread=0.5), "spread is >= 1"),
            (lambda: FeatureModels(RandomFeatures(), "adam"), "optimizer is one of"),
            (lambda: LinearTeacher(noise=-1.0), "noise >= 0"),
            (lambda: scan(RandomFeatures(), LinearTeacher(rows=30), 10), "given as a list"),
            (lambda: descent_map(RandomFeatures(), LinearTeacher(rows=30), 10, [5]), "given as a list"),
        ],
    )
    def test_settings_out_of_range_are_refused(self, make, message):
        with pytest.raises(InvalidParameter, match=message):
            make()


class TestFeatures:
    def test_narrow_features_are_the_first_of_wide_ones(self):
        X = np.random.default_rng(0).standard_normal((30, 4))
        for features in (RandomFeatures(), RandomFeatures("fourier"), RandomFeatures(spread=10.0)):
            a, b = (features(X, X, width, 3)[0] * np.sqrt(width) for width in (5, 9))
            np.testing.assert_allclose(a, b[:, :5])

    def test_training_error_falls_with_the_width_of_nested_features(self):
        found = descent_map(
            RandomFeatures(), LinearTeacher(rows=30, columns=5), [5, 10, 20, 40], [10**9], seeds=3
        )
        assert (np.diff(found.train[:, 0, 0], axis=0) <= 1e-12).all()

    def test_centred_features_lose_a_rank(self):
        rows = LinearTeacher(rows=30, columns=5)(0)
        train, _ = RandomFeatures(centred=True)(rows.X, rows.X_test, 30, 0)
        assert Spectrum(train, rows.y).condition.rank == 29
        assert Spectrum(train, rows.y).train_error(np.ones(29)) > 1e-6

    def test_units_that_never_fire_stay_zero(self):
        X = -np.ones((12, 3))
        train, _ = RandomFeatures(standardised=True)(X, X, 50, 0)
        assert np.isfinite(train).all()

    def test_columns_are_those_of_the_table(self):
        X = np.arange(40.0).reshape(10, 4)
        train, test = Columns()(X, X[:2], 4, 1)
        np.testing.assert_array_equal(np.sort(train, axis=1), X)
        np.testing.assert_array_equal(test, train[:2])
        with pytest.raises(InvalidProblem, match="4 columns; width 5"):
            Columns()(X, X, 5, 0)

    @pytest.mark.parametrize(
        ("bad", "message"),
        [
            (lambda X, T, w, s: X, "two arrays"),
            (lambda X, T, w, s: (X, X), "expected 30 and 1000 rows"),
            (lambda X, T, w, s: (X[:, :2], T[:, :3]), "with as many columns"),
            (lambda X, T, w, s: (1j * X, 1j * T), "features is complex"),
        ],
    )
    def test_functions_that_return_something_else_are_told(self, bad, message):
        with pytest.raises(InvalidProblem, match=message):
            scan(bad, LinearTeacher(rows=30, columns=5), [30])


class TestScan:
    def test_the_exact_solution_peaks_and_ridge_does_not(self):
        data = LinearTeacher(rows=40, columns=8)
        widths = [8, 16, 30, 40, 50, 80, 320]
        exact = scan(FeatureModels(RandomFeatures(), Exact()), data, widths, seeds=7)
        assert exact.peak_width == 40
        assert exact.threatened
        assert exact.ratio > 20
        assert "A peak" in str(exact)
        assert np.median(exact.effects["early stopping by a quarter of the rows"]) < 0.1 * exact.peak
        assert not scan(FeatureModels(RandomFeatures(), Ridge()), data, widths, seeds=7).threatened

    def test_few_steps_do_not_peak_and_are_told_what_more_would_do(self):
        found = scan(RandomFeatures(), LinearTeacher(rows=40, columns=8), [8, 16, 40, 320], steps=50, seeds=7)
        assert not found.threatened
        assert "No peak threatens" in str(found)
        many = scan(
            FeatureModels(RandomFeatures(), GradientDescent()),
            LinearTeacher(rows=40, columns=8),
            [8, 16, 40, 320],
            steps=100_000,
            seeds=7,
        )
        assert many.threatened

    def test_the_scan_of_gradient_descent_is_the_map(self):
        data = LinearTeacher(rows=30, columns=5)
        found = scan(RandomFeatures(), data, [15, 30, 60], steps=500, seeds=3, effects=False)
        table = descent_map(RandomFeatures(), data, [15, 30, 60], [500], seeds=3)
        for i, m in enumerate(found.measured):
            np.testing.assert_allclose(m.test, table.test[i, 0, 0], rtol=1e-8)
            np.testing.assert_allclose(m.train, table.train[i, 0, 0], rtol=1e-8)

    def test_ten_times_the_steps_are_ten_times_the_steps(self):
        data = LinearTeacher(rows=30, columns=5)
        a = scan(RandomFeatures(), data, [30], steps=200, seeds=3)
        b = scan(RandomFeatures(), data, [30], steps=2000, seeds=3)
        np.testing.assert_allclose(a.effects["10 times the steps"], b.measured[0].test, rtol=1e-8)

    def test_tables_and_figures(self):
        found = scan(RandomFeatures(), LinearTeacher(rows=30, columns=5), [30, 10, 240], steps=100)
        frame = found.to_frame()
        assert list(frame["width"]) == [10, 30, 240]
        assert {"train", "test", "number", "rank", "unlearned", "steps_to_fit"} <= set(frame.columns)
        assert [s.name for s in found.figure().series] == ["train", "test"]
        assert (
            len(descent_map(RandomFeatures(), LinearTeacher(rows=30), [30], [1, 10]).figure().surface.z) == 2
        )

    def test_users_rows_are_taken(self):
        rng = np.random.default_rng(0)
        X, T = rng.standard_normal((25, 3)), rng.standard_normal((9, 3))
        found = scan(RandomFeatures(), (X, X[:, 0], T, T[:, 0]), [25], steps=10)
        assert len(set(found.measured[0].test.tolist())) == 5  # other features each seed
        assert scan(RandomFeatures(), Rows(X, X[:, 0], T, T[:, 0]), [25], steps=10).peak == found.peak
        split = Split(X, X[:, 0], 20)
        assert split(0).X.shape == (20, 3)
        assert not np.array_equal(split(0).X, split(1).X)

    def test_a_start_outside_the_span_stays(self):
        found = [
            scan(
                FeatureModels(RandomFeatures(), Exact(), start=s),
                LinearTeacher(rows=20, columns=4),
                [20, 160],
                effects=False,
            )
            for s in (0.0, 10.0)
        ]
        assert found[1].test[-1] > 2 * found[0].test[-1]

    def test_divergence_is_infinite_and_not_nan(self):
        wild = Torch(lambda p: torch.optim.SGD(p, lr=1e9))
        found = scan(
            FeatureModels(RandomFeatures(), wild),
            LinearTeacher(rows=20, columns=4),
            [20],
            steps=100,
            effects=False,
        )
        assert found.peak == np.inf

    @pytest.mark.parametrize(
        ("widths", "message"),
        [
            ([], "At least one width"),
            ([30, 30], "given once"),
            ([30.5], "whole numbers"),
            ([0, 30], "whole numbers >= 1"),
            ([5, 200], "need one between 15 and 60"),
        ],
    )
    def test_widths_are_looked_at(self, widths, message):
        with pytest.raises(InvalidParameter, match=message):
            scan(RandomFeatures(), LinearTeacher(rows=30, columns=5), widths)

    def test_sizes_that_have_no_squares_are_told(self):
        rows = LinearTeacher(rows=20, columns=3)(0)
        with pytest.raises(InvalidProblem, match="y holds 1e"):
            Rows(rows.X, np.full(20, 1e200), rows.X_test, rows.y_test)
        for scale in (1e-200, 1e200):
            with pytest.raises(InvalidProblem, match="Divide the features"):
                scan(RandomFeatures(), Rows(scale * rows.X, rows.y, rows.X_test, rows.y_test), [20], steps=3)

    def test_data_are_looked_at(self):
        X = np.ones((12, 2))
        with pytest.raises(InvalidProblem, match="10 rows to train on"):
            scan(RandomFeatures(), (X[:5], np.ones(5), X, np.ones(12)), [5])
        with pytest.raises(NotFinite, match="y holds 12 NaN"):
            scan(RandomFeatures(), (X, np.full(12, np.nan), X, np.ones(12)), [12])
        with pytest.raises(InvalidProblem, match="one shape"):
            scan(RandomFeatures(), (X, np.ones(12), np.ones((12, 3)), np.ones(12)), [12])
        with pytest.raises(InvalidProblem, match="X has 12 rows and y 3"):
            scan(RandomFeatures(), (X, np.ones(3), X, np.ones(12)), [12])
        with pytest.raises(InvalidProblem, match="data is"):
            scan(RandomFeatures(), X, [12])
        with pytest.raises(InvalidParameter, match="steps >= 1"):
            scan(RandomFeatures(), LinearTeacher(rows=12), [12], steps=0.5)
        with pytest.raises(InvalidProblem, match="GB are allowed"):
            scan(RandomFeatures(), LinearTeacher(rows=12), [12, 10**7])
        with pytest.raises(InvalidParameter, match="closed form"):
            descent_map(Networks(lambda w: two_layer(3, w, 1), torch.optim.SGD), LinearTeacher(), [12], [1])


class TestNetworks:
    def test_a_stack_is_trained_as_each_alone(self):
        rows = LinearTeacher(rows=20, columns=3)
        family = Networks(
            lambda w: two_layer(3, w, 1), lambda p: torch.optim.Adam(p, lr=1e-2), dtype=torch.float64
        )
        draws = [rows(0), rows(1)]
        together = family.measure(6, draws, 30, [0, 1])
        module = family.module(6, 1)
        optimizer = torch.optim.Adam(module.parameters(), lr=1e-2)
        X, y = torch.tensor(draws[1].X), torch.tensor(draws[1].y)
        for _ in range(30):
            optimizer.zero_grad()
            (module(X)[:, 0] - y).square().mean().backward()
            optimizer.step()
        with torch.no_grad():
            test = (
                (module(torch.tensor(draws[1].X_test))[:, 0] - torch.tensor(draws[1].y_test)).square().mean()
            )
            size = sum(float(p.square().sum()) for p in module.parameters()) ** 0.5
        assert together.test[1] == pytest.approx(float(test), rel=1e-9)
        assert together.size[1] == pytest.approx(size, rel=1e-9)
        assert (together.best_on_the_way <= together.test + 1e-12).all()
        assert 1 <= together.conditions[0].rank <= 6

    def test_the_threshold_is_where_parameters_meet_targets(self):
        family = Networks(lambda w: two_layer(64, w, 10), torch.optim.SGD)
        rows = Rows(np.ones((100, 64)), np.ones((100, 10)), np.ones((5, 64)), np.ones((5, 10)))
        assert family.threshold(rows) == 14  # 75 h + 10 parameters, 1000 targets

    def test_cross_entropy_and_images(self):
        rng = np.random.default_rng(0)
        labels = np.arange(12) % 3
        X = rng.standard_normal((12, 64)) + labels[:, None]
        family = Networks(
            lambda w: small_cnn(8, w, 3), lambda p: torch.optim.Adam(p, lr=1e-2), "cross-entropy", batch=6
        )
        found = family.measure(3, [Rows(X, labels, X, labels)] * 2, 60, [0, 1])
        assert (found.train < np.log(3)).all()

    @pytest.mark.parametrize(
        ("make", "options", "message"),
        [
            (lambda w: nn.Sequential(nn.Linear(3, w), nn.BatchNorm1d(w), nn.Linear(w, 1)), {}, "LayerNorm"),
            (lambda w: w, {}, "expected an nn.Module"),
            (lambda w: two_layer(3, w, 2), {}, "targets have shape"),
            (lambda w: two_layer(3, w, 2), {"loss": "cross-entropy"}, "labels 0, 1"),
        ],
    )
    def test_what_cannot_be_stacked_or_judged_is_told(self, make, options, message):
        family = Networks(make, lambda p: torch.optim.SGD(p, lr=0.1), **options)
        with pytest.raises(InvalidProblem, match=message):
            family.measure(4, [LinearTeacher(rows=12, columns=3)(0)], 2, [0])
