"""Sparse linear models against scikit-learn, their duality gaps, paths, and scikit-learn's contract."""

import numpy as np
import pytest
import scipy.sparse as sp
from hypothesis import given
from hypothesis import strategies as st
from sklearn import linear_model
from sklearn.datasets import load_breast_cancer, load_digits, load_iris, make_moons
from sklearn.exceptions import ConvergenceWarning
from sklearn.preprocessing import StandardScaler
from sklearn.utils.estimator_checks import parametrize_with_checks

from thalweg.convex import ElasticNet, LabelPropagation, Lasso, LogisticRegression, lasso_path
from thalweg.convex.datafits import LogLoss, SquaredError
from thalweg.convex.penalties import ElasticNetPenalty
from thalweg.convex.working_set import Columns, fit_penalized
from thalweg.core import InvalidParameter, InvalidProblem


@parametrize_with_checks(
    [Lasso(), ElasticNet(), LogisticRegression(), LogisticRegression(l1_ratio=1.0), LabelPropagation()]
)
def test_scikit_learns_contract(estimator, check):
    check(estimator)


def regression(seed=0, samples=60, features=100, kind="dense"):
    rng = np.random.default_rng(seed)
    X = rng.standard_normal((samples, features))
    if kind == "sparse":
        X = sp.random_array(
            (samples, features), density=0.2, rng=rng, data_sampler=rng.standard_normal, format="csr"
        )
    w = np.zeros(features)
    w[:5] = rng.standard_normal(5) * 3
    return X, X @ w + 0.2 * rng.standard_normal(samples) + 1.5


@pytest.mark.parametrize("kind", ["dense", "sparse"])
@pytest.mark.parametrize("intercept", [True, False])
class TestRegression:
    def objective(self, model, X, y, alpha, ratio):
        r = y - model.predict(X)
        w = model.coef_
        return r @ r / (2 * len(y)) + alpha * (ratio * np.abs(w).sum() + 0.5 * (1 - ratio) * w @ w)

    @pytest.mark.parametrize("share", [0.5, 0.05])
    def test_the_lasso_is_scikit_learns(self, kind, intercept, share):
        X, y = regression(kind=kind)
        alpha = share * np.abs(X.T @ (y - intercept * y.mean())).max() / len(y)
        ours = Lasso(alpha, fit_intercept=intercept, tol=1e-13, max_iter=1000).fit(X, y)
        theirs = linear_model.Lasso(alpha, fit_intercept=intercept, tol=1e-13, max_iter=1_000_000).fit(X, y)
        a, b = (self.objective(m, X, y, alpha, 1.0) for m in (ours, theirs))
        assert abs(a - b) <= 1e-10 * (1 + b)
        np.testing.assert_allclose(ours.predict(X), theirs.predict(X), atol=1e-5)

    @pytest.mark.parametrize("ratio", [0.0, 0.3, 0.9])
    def test_the_elastic_net_is_scikit_learns(self, kind, intercept, ratio):
        X, y = regression(kind=kind, samples=80, features=40)
        ours = ElasticNet(0.1, l1_ratio=ratio, fit_intercept=intercept, tol=1e-12, max_iter=1000).fit(X, y)
        if ratio == 0.0:
            theirs = linear_model.Ridge(0.1 * len(y), fit_intercept=intercept, tol=1e-12).fit(X, y)
        else:
            options = {"fit_intercept": intercept, "tol": 1e-13, "max_iter": 1_000_000}
            theirs = linear_model.ElasticNet(0.1, l1_ratio=ratio, **options).fit(X, y)
        a, b = (self.objective(m, X, y, 0.1, ratio) for m in (ours, theirs))
        assert abs(a - b) <= 1e-8 * (1 + b)

    def test_the_gap_bounds_the_distance_from_the_minimum(self, kind, intercept):
        X, y = regression(kind=kind)
        best = Lasso(0.1, fit_intercept=intercept, tol=1e-14, max_iter=1000).fit(X, y)
        for tol in (1e-2, 1e-4):
            rough = Lasso(0.1, fit_intercept=intercept, tol=tol).fit(X, y)
            a, b = (self.objective(m, X, y, 0.1, 1.0) for m in (rough, best))
            scale = np.square(y - intercept * y.mean()).sum() / (2 * len(y))
            assert a - b <= rough.dual_gap_ + 1e-12 <= tol * scale + 2e-12


class TestColumnsThatAreNotCentred:
    """Dates, prices, counts: sparse columns are centred implicitly, and those of `LogisticRegression` in any layout."""

    @pytest.mark.parametrize("offset", [3.0, 30.0, 1000.0, 1e5])
    def test_the_sparse_lasso_is_the_dense_one(self, offset, rng):
        X = rng.standard_normal((100, 30))
        y = X[:, :3] @ [3, -2, 1] + 0.1 * rng.standard_normal(100) + 5
        X = X + offset * rng.random(30)
        dense, sparse = (Lasso(0.1, max_iter=20, tol=1e-9).fit(data, y) for data in (X, sp.csc_array(X)))
        np.testing.assert_allclose(sparse.coef_, dense.coef_, atol=1e-5)
        np.testing.assert_allclose(sparse.predict(X), dense.predict(X), atol=1e-4)
        assert sparse.n_iter_ < 200

    @pytest.mark.parametrize("made", [np.asarray, sp.csc_array])
    @pytest.mark.parametrize("ratio", [0.0, 1.0])
    @pytest.mark.parametrize("classes", [2, 3])
    def test_logistic_regression_does_not_see_the_means(self, made, ratio, classes, rng):
        X = rng.standard_normal((90, 8))
        y = np.digitize(X[:, 0] - X[:, 1] + rng.logistic(size=90), [0.0] if classes == 2 else [-1.0, 1.0])
        at_zero = LogisticRegression(l1_ratio=ratio, tol=1e-7).fit(made(X), y)
        far = LogisticRegression(l1_ratio=ratio, tol=1e-7).fit(made(X + 1000.0), y)
        np.testing.assert_allclose(far.coef_, at_zero.coef_, atol=2e-3)
        shift = 1000.0 * far.coef_.sum(1)
        np.testing.assert_allclose(
            (far.intercept_ + shift)[1:] - (far.intercept_ + shift)[0],
            at_zero.intercept_[1:] - at_zero.intercept_[0],
            atol=2e-2,
        )

    def test_constant_columns_have_no_coefficient(self, rng):
        X = np.column_stack([rng.standard_normal(50), np.full(50, 1e6), np.zeros(50)])
        y = X[:, 0] + 2.0
        for data in (X, sp.csc_array(X)):
            model = Lasso(0.01).fit(data, y)
            assert model.coef_[1:].tolist() == [0.0, 0.0]
            assert model.intercept_ == pytest.approx(2.0, abs=0.05)
            assert LogisticRegression().fit(data, y > 2).coef_[0, 2] == 0.0


@pytest.mark.parametrize("made", [np.asarray, sp.csr_array], ids=["dense", "sparse"])
@pytest.mark.parametrize("intercept", [True, False])
class TestWeights:
    @pytest.fixture
    def data(self):
        X, y = regression(features=12)
        rng = np.random.default_rng(1)
        return X + 3.0, y, rng.integers(0, 4, len(y))

    @pytest.mark.parametrize("ratio", [0.0, 0.5, 1.0])
    def test_whole_weights_are_copies_of_samples(self, data, made, intercept, ratio):
        X, y, counts = data
        make = {"l1_ratio": ratio, "fit_intercept": intercept, "tol": 1e-12, "max_iter": 1000}
        weighted = ElasticNet(0.1, **make).fit(made(X), y, sample_weight=counts)
        copied = ElasticNet(0.1, **make).fit(made(np.repeat(X, counts, 0)), np.repeat(y, counts))
        np.testing.assert_allclose(weighted.coef_, copied.coef_, atol=1e-5)
        assert weighted.intercept_ == pytest.approx(copied.intercept_, abs=1e-4)

    def test_the_lasso_is_scikit_learns(self, data, made, intercept):
        X, y, counts = data
        weights = counts + 0.5
        ours = Lasso(0.05, fit_intercept=intercept, tol=1e-12, max_iter=1000).fit(made(X), y, weights)
        theirs = linear_model.Lasso(0.05, fit_intercept=intercept, tol=1e-12, max_iter=1_000_000)
        theirs.fit(X, y, sample_weight=weights)
        np.testing.assert_allclose(ours.coef_, theirs.coef_, atol=1e-5)

    @pytest.mark.parametrize("class_weight", [None, "balanced", {0: 3.0}])
    @pytest.mark.parametrize("classes", [2, 3])
    def test_logistic_regression_is_scikit_learns(self, data, made, intercept, class_weight, classes):
        X, y, counts = data
        X, labels = X - 3.0, np.digitize(y, [1.0] if classes == 2 else [0.0, 3.0])
        options = {"C": 0.3, "fit_intercept": intercept}
        weights = counts + 0.5
        balanced = class_weight
        if class_weight == "balanced":  # of the weighted samples
            sums = np.bincount(labels, weights)
            balanced = dict(enumerate(sums.sum() / (classes * sums)))
        ours = LogisticRegression(**options, class_weight=class_weight, tol=1e-10).fit(
            made(X), labels, weights
        )
        theirs = linear_model.LogisticRegression(**options, class_weight=balanced, tol=1e-9, max_iter=10_000)
        theirs.fit(X, labels, sample_weight=weights)
        np.testing.assert_allclose(ours.predict_proba(X), theirs.predict_proba(X), atol=1e-5)

    def test_weights_that_are_none_are_refused(self, data, made, intercept):
        X, y, counts = data
        for model in (Lasso(fit_intercept=intercept), LogisticRegression(fit_intercept=intercept)):
            with pytest.raises(ValueError, match=r"zero for every sample|must contain at least one non-zero"):
                model.fit(made(X), y > 1, sample_weight=0 * counts)
            with pytest.raises(ValueError, match=r"[Nn]egative"):
                model.fit(made(X), y > 1, sample_weight=counts - 2.0)
        with pytest.raises(InvalidParameter, match="class_weight has to be finite and > 0"):
            LogisticRegression(class_weight={True: 0.0}).fit(made(X), y > 1)


class TestLabelsAndTargets:
    X = np.random.default_rng(0).standard_normal((6, 2))

    @pytest.mark.parametrize(
        ("y", "message"),
        [
            ([0.0, 1.0, 0.0, 1.0, 0.0, np.nan], "NaN"),
            (np.array(["a", "b", "a", "b", "a", np.nan], dtype=object), "NaN"),
            (
                np.array(["a", "b", "a", "b", "a", None], dtype=object),
                "one kind are needed; y holds NoneType, str",
            ),
            (np.ones(6) * 1j, "Complex data"),
        ],
    )
    def test_labels_that_are_none_are_refused(self, y, message):
        with pytest.raises(ValueError, match=message):
            LogisticRegression().fit(self.X, y)

    @pytest.mark.parametrize("made", [np.asarray, sp.csr_array])
    def test_complex_columns_are_refused(self, made):
        for model in (Lasso(), ElasticNet(), LogisticRegression()):
            with pytest.raises(ValueError, match="Complex data"):
                model.fit(made(self.X + 1j), [0, 1, 0, 1, 0, 1])

    def test_a_warm_start_with_other_columns_begins_anew(self):
        y = self.X[:, 0]
        model = Lasso(0.1, warm_start=True).fit(self.X, y)
        wider = np.column_stack([self.X, self.X[:, :1] ** 2])
        np.testing.assert_allclose(model.fit(wider, y).coef_, Lasso(0.1).fit(wider, y).coef_, atol=1e-6)

    def test_one_sample_is_its_own_intercept(self):
        model = Lasso(0.1).fit([[1.0, 2.0]], [3.0])
        assert (model.coef_.tolist(), model.intercept_) == ([0.0, 0.0], 3.0)


class TestScreening:
    @given(st.integers(0, 10_000), st.floats(0.05, 0.9))
    def test_screened_columns_are_zero_in_the_solution(self, seed, share):
        X, y = regression(seed, 30, 60)
        l1 = share * np.abs(X.T @ y).max()
        fit = fit_penalized(Columns(X), SquaredError(y), ElasticNetPenalty(l1), tol=1e-4)
        exact = (
            linear_model.Lasso(l1 / 30, fit_intercept=False, tol=1e-14, max_iter=1_000_000).fit(X, y).coef_
        )
        r = y - X @ exact
        active = np.abs(X.T @ r) > l1 * (1 - 1e-6)
        assert fit.converged
        assert fit.screened <= 60 - active.sum()

    def test_a_hard_problem_screens_most_columns(self):
        X, y = regression(1, 100, 2000)
        l1 = 0.02 * np.abs(X.T @ y).max()
        fit = fit_penalized(Columns(X), SquaredError(y), ElasticNetPenalty(l1), tol=1e-10)
        assert fit.screened > 1000

    def test_above_the_critical_strength_nothing_is_left(self):
        X, y = regression()
        l1 = 1.001 * np.abs(X.T @ y).max()
        fit = fit_penalized(Columns(X), SquaredError(y), ElasticNetPenalty(l1))
        assert fit.converged
        assert not fit.w.any()


class TestPath:
    def test_solutions_are_scikit_learns_along_the_path(self):
        X, y = regression()
        alphas, coefs, gaps = lasso_path(X, y, alphas=20, eps=1e-2, tol=1e-11)
        theirs = linear_model.lasso_path(X, y, alphas=alphas, tol=1e-12, max_iter=1_000_000)[1]
        assert (gaps <= 1e-11 * (y @ y) / (2 * len(y)) + 1e-15).all()
        assert not coefs[:, 0].any()
        for alpha, a, b in zip(alphas, coefs.T, theirs.T):
            values = [np.square(y - X @ w).sum() / (2 * len(y)) + alpha * np.abs(w).sum() for w in (a, b)]
            assert abs(values[0] - values[1]) <= 1e-8

    def test_a_target_of_zeros_has_a_path_of_zeros(self):
        alphas, coefs, gaps = lasso_path(np.eye(4, 3), np.zeros(4), alphas=7)
        np.testing.assert_allclose(
            alphas, linear_model.lasso_path(np.eye(4, 3), np.zeros(4), alphas=7)[0], atol=1e-14
        )
        assert coefs.shape == (3, 7)
        assert not coefs.any()
        assert not gaps.any()

    @pytest.mark.parametrize(
        ("options", "error", "message"),
        [
            ({"y": np.ones(5)}, InvalidProblem, r"y has shape \(5,\); expected \(20,\)"),
            ({"y": np.ones((20, 2))}, InvalidProblem, r"y has shape \(20, 2\)"),
            ({"alphas": 0.1}, InvalidParameter, r"alphas is how many, or a list of numbers > 0; got 0\.1"),
            ({"alphas": [-1.0]}, InvalidParameter, "alphas is how many"),
            ({"alphas": [1.0, 0.0]}, InvalidParameter, "alphas is how many"),
            ({"alphas": [np.nan]}, InvalidParameter, "alphas is how many"),
            ({"alphas": []}, InvalidParameter, "alphas is how many"),
            ({"alphas": 0}, InvalidParameter, "one strength or more"),
            ({"eps": 2.0}, InvalidParameter, "0 < eps < 1"),
            ({"tol": 0.0}, InvalidParameter, "tol > 0"),
            ({"l1_ratio": "1"}, InvalidParameter, "l1_ratio"),
        ],
    )
    def test_bad_input_is_refused(self, options, error, message):
        X = np.random.default_rng(0).standard_normal((20, 3))
        with pytest.raises(error, match=message):
            lasso_path(X, **({"y": X[:, 0]} | options))

    def test_bad_ratios_are_refused(self):
        with pytest.raises(InvalidParameter, match="l1_ratio"):
            lasso_path(np.eye(3), np.ones(3), l1_ratio=0.0)


class TestLogistic:
    @pytest.fixture
    def cancer(self):
        X, y = load_breast_cancer(return_X_y=True)
        return StandardScaler().fit_transform(X), y

    def objective(self, model, X, y, C, ratio):
        signs = np.where(y == model.classes_[1], 1.0, -1.0)
        w = model.coef_.ravel()
        loss = np.logaddexp(0, -signs * model.decision_function(X)).sum()
        return C * loss + ratio * np.abs(w).sum() + 0.5 * (1 - ratio) * w @ w

    @pytest.mark.parametrize("sparse", [False, True])
    def test_l1_is_liblinears(self, cancer, sparse):
        X, y = cancer
        data = sp.csr_array(X) if sparse else X
        ours = LogisticRegression(0.1, l1_ratio=1.0, fit_intercept=False, tol=1e-12).fit(data, y)
        theirs = linear_model.LogisticRegression(
            C=0.1, l1_ratio=1.0, solver="liblinear", fit_intercept=False, tol=1e-10, max_iter=100_000
        ).fit(X, y)
        a, b = (self.objective(m, X, y, 0.1, 1.0) for m in (ours, theirs))
        assert a <= b + 1e-8 * b

    @pytest.mark.parametrize("ratio", [0.0, 0.5])
    def test_ridge_and_elastic_net_reach_the_minimum(self, cancer, ratio):
        X, y = cancer
        ours = LogisticRegression(0.5, l1_ratio=ratio, tol=1e-11).fit(X, y)
        theirs = linear_model.LogisticRegression(
            C=0.5, l1_ratio=ratio, solver="saga" if ratio else "newton-cholesky", tol=1e-10, max_iter=20_000
        ).fit(X, y)
        a, b = (self.objective(m, X, y, 0.5, ratio) for m in (ours, theirs))
        assert a <= b + 1e-8 * b

    @pytest.mark.parametrize("ratio", [0.0, 1.0])
    def test_the_gap_bounds_the_distance_from_the_minimum(self, cancer, ratio):
        X, y = cancer
        signs = 2.0 * y - 1
        l1, l2 = 3.0 * ratio, 3.0 * (1 - ratio)

        def value(fit):
            z = X @ fit.w + fit.intercept
            return LogLoss(signs).value(z) + l1 * np.abs(fit.w).sum() + 0.5 * l2 * fit.w @ fit.w

        options = {"has_intercept": True, "max_iter": 1000}
        best = value(
            fit_penalized(Columns(X), LogLoss(signs), ElasticNetPenalty(l1, l2), tol=1e-14, **options)
        )
        for tol in (1e-1, 1e-3, 1e-6):
            rough = fit_penalized(Columns(X), LogLoss(signs), ElasticNetPenalty(l1, l2), tol=tol, **options)
            assert rough.converged
            assert -1e-9 <= value(rough) - best <= rough.gap + 1e-9

    def test_three_classes_are_the_softmax_of_scikit_learn(self):
        X, y = load_iris(return_X_y=True)
        X = StandardScaler().fit_transform(X)
        ours = LogisticRegression(1.0, tol=1e-8, max_iter=5000).fit(X, y)
        theirs = linear_model.LogisticRegression(C=1.0, tol=1e-10, max_iter=10_000).fit(X, y)
        np.testing.assert_allclose(ours.predict_proba(X), theirs.predict_proba(X), atol=1e-5)

    def test_ten_classes_with_l1_reach_sagas_minimum(self):
        X, y = load_digits(return_X_y=True)
        X, y = X[:300] / 16.0, y[:300]
        ours = LogisticRegression(1.0, l1_ratio=1.0, tol=1e-5, max_iter=1000).fit(X, y)
        theirs = linear_model.LogisticRegression(
            C=1.0, l1_ratio=1.0, solver="saga", tol=1e-6, max_iter=20_000
        ).fit(X, y)

        def objective(m):
            return -m.predict_log_proba(X)[np.arange(300), y].sum() + np.abs(m.coef_).sum()

        ours.predict_log_proba = lambda X: np.log(ours.predict_proba(X))
        assert objective(ours) <= objective(theirs) * (1 + 1e-5)

    def test_separable_data_with_a_penalty_converge(self):
        model = LogisticRegression(100.0, tol=1e-9).fit([[-2.0], [-1.0], [1.0], [2.0]], [0, 0, 1, 1])
        assert np.isfinite(model.coef_).all()

    def test_warm_starts_save_sweeps(self, cancer):
        X, y = cancer
        model = LogisticRegression(0.1, l1_ratio=1.0, warm_start=True, tol=1e-10).fit(X, y)
        cold = model.n_iter_
        assert model.fit(X, y).n_iter_ < cold / 2

    def test_too_few_rounds_warn(self, cancer):
        with pytest.warns(ConvergenceWarning, match="duality gap"):
            LogisticRegression(1e3, l1_ratio=1.0, tol=1e-14, max_iter=1).fit(*cancer)

    def test_no_penalty_at_all_is_refused(self):
        with pytest.raises(InvalidParameter, match="not both 0"):
            ElasticNetPenalty(0.0, 0.0)


class TestLabelPropagation:
    def test_two_labels_are_enough_for_two_moons(self):
        X, y = make_moons(300, noise=0.06, random_state=0)
        known = np.full(300, -1)
        for label in (0, 1):
            known[np.flatnonzero(y == label)[0]] = label
        model = LabelPropagation(n_neighbors=8).fit(X, known)
        assert (model.transduction_ == y).mean() > 0.97
        assert (model.predict(X) == y).mean() > 0.97

    def test_probabilities_are_harmonic_and_sum_to_one(self):
        X, y = load_iris(return_X_y=True)
        known = np.where(np.arange(150) % 10 == 0, y, -1)
        model = LabelPropagation(tol=1e-10).fit(X, known)
        P = model.label_distributions_
        np.testing.assert_allclose(P.sum(1), 1.0)
        assert (P >= 0).all()
        assert (model.transduction_ == y).mean() > 0.9

    def test_clusters_without_a_label_are_named(self):
        X = np.array([[0.0], [1.0], [100.0], [101.0]])
        with pytest.raises(InvalidProblem, match="components of the graph hold no label"):
            LabelPropagation(n_neighbors=1).fit(X, [0, 1, -1, -1])

    def test_no_label_at_all_is_refused(self):
        with pytest.raises(InvalidProblem, match="no point has a label"):
            LabelPropagation().fit(np.eye(4), [-1, -1, -1, -1])


def test_a_class_weight_of_a_label_that_is_not_there_is_refused():
    with pytest.raises(InvalidParameter, match=r"class_weight names 'typo'; y has no such label"):
        LogisticRegression(class_weight={"a": 1.0, "typo": 5.0}).fit([[-1.0], [1.0]], ["a", "b"])
