"""scikit-learn's estimators and cvxpy's problems as differentiable functions: closed forms, differences, gradcheck."""

from __future__ import annotations

import cvxpy as cp
import numpy as np
import pytest
import torch
from sklearn.linear_model import Lasso, LogisticRegression, Ridge
from sklearn.svm import SVC
from torch.autograd import gradcheck

from thalweg.bilevel import cvxpy_layer, sklearn_fit
from thalweg.bilevel.sklearn_solvers import _require_understood
from thalweg.core import InvalidParameter, InvalidProblem, NotFinite
from thalweg.numerics.torch_krylov import LinearSolver

RNG = np.random.default_rng(0)
DOUBLE = torch.float64
X = torch.tensor(RNG.standard_normal((20, 3)))
Y = torch.tensor(RNG.standard_normal(20))
LABELS = (X[:, 0] + 0.7 * Y > 0).long()
THREE = torch.arange(20) % 3
WEIGHTS = torch.rand(20, dtype=DOUBLE, generator=torch.Generator().manual_seed(0)) + 0.5


def tensor(value):
    return torch.tensor(value, dtype=DOUBLE)


class TestSklearn:
    def test_ridges_derivative_is_the_closed_form(self):
        fit = sklearn_fit(Ridge(fit_intercept=False))
        alpha = tensor(2.0)
        A = X.T @ X + alpha * torch.eye(3, dtype=DOUBLE)
        w = torch.linalg.solve(A, X.T @ Y)
        for jacobian in (torch.func.jacrev, torch.func.jacfwd):
            torch.testing.assert_close(jacobian(lambda a: fit(X, Y, a)[0])(alpha), -torch.linalg.solve(A, w))
        torch.testing.assert_close(
            torch.func.jacrev(lambda y: fit(X, y, alpha)[0])(Y), torch.linalg.solve(A, X.T)
        )

    @pytest.mark.parametrize("targets", [1, 2])
    @pytest.mark.parametrize("weight", [None, WEIGHTS])
    def test_ridge_passes_gradcheck_in_everything(self, targets, weight):
        y = Y if targets == 1 else torch.stack([Y, Y.flip(0)], 1)
        fit = sklearn_fit(Ridge(solver="cholesky"))
        arguments = [t.clone().requires_grad_() for t in (X[:8], y[:8], tensor(0.7))]
        if weight is not None:
            arguments.append(weight[:8].clone().requires_grad_())
        assert gradcheck(lambda *a: fit(*a), arguments, check_forward_ad=True)

    @pytest.mark.parametrize("labels", [LABELS, THREE], ids=["two", "three"])
    @pytest.mark.parametrize("intercept", [True, False])
    def test_logistic_regression_agrees_with_differences(self, labels, intercept):
        estimator = LogisticRegression(tol=1e-12, max_iter=10_000, fit_intercept=intercept)
        fit = sklearn_fit(estimator)
        C = tensor(0.5)

        def coefficients(C, weights):
            return fit(X, labels, C, weights)[0]

        along = torch.randn(20, dtype=DOUBLE, generator=torch.Generator().manual_seed(1))
        pushed = torch.func.jvp(coefficients, (C, WEIGHTS), (torch.ones_like(C), along))[1]
        h = 1e-4
        ends = [coefficients(C + s * h, WEIGHTS + s * h * along) for s in (1, -1)]
        torch.testing.assert_close(pushed, (ends[0] - ends[1]) / (2 * h), rtol=1e-4, atol=1e-6)
        slope = torch.func.grad(lambda C: coefficients(C, WEIGHTS).square().sum())(C)
        ends = [float(coefficients(C + s * h, WEIGHTS).square().sum()) for s in (1, -1)]
        assert float(slope) == pytest.approx((ends[0] - ends[1]) / (2 * h), rel=1e-4)

    @pytest.mark.parametrize("kernel", ["linear", "rbf"])
    def test_the_svm_dual_agrees_with_differences(self, kernel):
        fit = sklearn_fit(SVC(kernel=kernel, tol=1e-10))
        gamma = None if kernel == "linear" else tensor(0.4)

        def told(C, X):
            dual, intercept = fit(X, LABELS, C, gamma)
            return torch.cat([dual, intercept[None]])

        C = tensor(0.8)
        reference = SVC(kernel=kernel, C=0.8, gamma=0.4, tol=1e-10).fit(X.numpy(), LABELS.numpy())
        assert float(told(C, X)[-1]) == pytest.approx(float(reference.intercept_[0]), abs=1e-6)
        along = torch.randn(X.shape, dtype=DOUBLE, generator=torch.Generator().manual_seed(2))
        pushed = torch.func.jvp(told, (C, X), (torch.ones_like(C), along))[1]
        h = 1e-4  # the SVM library stops at some 1e-7
        ends = [told(C + s * h, X + s * h * along) for s in (1, -1)]
        torch.testing.assert_close(pushed, (ends[0] - ends[1]) / (2 * h), rtol=3e-3, atol=3e-3)
        pulled = torch.func.grad(lambda C: told(C, X) @ torch.arange(21, dtype=DOUBLE))(C)
        across = torch.func.jvp(lambda C: told(C, X), (C,), (torch.ones_like(C),))[1]
        assert float(pulled) == pytest.approx(float(across @ torch.arange(21, dtype=DOUBLE)), rel=1e-6)

    def test_what_it_does_not_know_is_refused(self):
        with pytest.raises(
            InvalidProblem, match=r"knows Ridge, LogisticRegression and SVC; got Lasso.*custom_root"
        ):
            sklearn_fit(Lasso())
        with pytest.raises(InvalidProblem, match="l2 penalty only"):
            sklearn_fit(LogisticRegression(l1_ratio=0.5, solver="saga"))
        with pytest.raises(InvalidProblem, match="kernel 'linear' or 'rbf'; got 'poly'"):
            sklearn_fit(SVC(kernel="poly"))
        with pytest.raises(InvalidProblem, match="needs gamma"):
            sklearn_fit(SVC())(X, LABELS, 1.0)
        with pytest.raises(InvalidProblem, match="two classes; got 3"):
            sklearn_fit(SVC(kernel="linear"))(X, THREE, 1.0)
        with pytest.raises(InvalidProblem, match=r"classes 0, 1, \.\.\."):
            sklearn_fit(LogisticRegression())(X, LABELS + 1, 1.0)

    @pytest.mark.parametrize(
        ("estimator", "message"),
        [
            (
                LogisticRegression(class_weight="balanced"),
                r"class_weight=None only.*got 'balanced'.*sample_weight",
            ),
            (LogisticRegression(class_weight={0: 1.0, 1: 3.0}), r"class_weight=None only"),
            (LogisticRegression(solver="liblinear"), r"liblinear.*penalises the intercept.*lbfgs"),
            (Ridge(positive=True), r"Ridge with positive=False only.*got True.*custom_root"),
            (SVC(class_weight={-1: 1.0, 1: 2.0}), r"SVC with class_weight=None only.*custom_root"),
            (SVC(kernel="linear", class_weight="balanced"), r"SVC with class_weight=None only"),
        ],
        ids=str,
    )
    def test_options_that_move_the_optimum_are_refused_by_name(self, estimator, message):
        with pytest.raises(InvalidProblem, match=message):
            sklearn_fit(estimator)

    def test_an_option_that_a_later_scikit_learn_brings_is_refused_where_it_is_used(self, monkeypatch):
        monkeypatch.setattr(
            Ridge,
            "get_params",
            lambda self, deep=True: {"alpha": 1.0, "robust": getattr(self, "robust", False)},
        )
        estimator = Ridge()
        estimator.robust = True
        with pytest.raises(InvalidProblem, match="robust=False only"):
            _require_understood(estimator)

    @pytest.mark.parametrize(
        "estimator",
        [
            LogisticRegression(
                solver="liblinear", fit_intercept=False, dual=True, tol=1e-10, max_iter=100_000
            ),
            LogisticRegression(solver="newton-cholesky", tol=1e-10, verbose=0, random_state=3),
            Ridge(solver="svd", copy_X=False),
            SVC(kernel="linear", tol=1e-8, shrinking=False, degree=7, coef0=2.0, cache_size=50),
        ],
        ids=str,
    )
    @pytest.mark.filterwarnings("error::thalweg.bilevel.NotARoot")
    def test_options_of_the_way_there_are_taken_and_the_derivative_is_right(self, estimator):
        fit = sklearn_fit(estimator)
        y, before = Y if isinstance(estimator, Ridge) else LABELS, X.clone()
        slope = torch.func.jacrev(lambda s: fit(X, y, s)[0])(tensor(0.8))
        ends = [fit(X, y, tensor(0.8 + h))[0] for h in (1e-3, -1e-3)]
        torch.testing.assert_close(slope, (ends[0] - ends[1]) / 2e-3, rtol=2e-3, atol=2e-4)
        assert torch.equal(X, before)

    def test_options_changed_afterwards_change_nothing(self):
        estimator = Ridge()
        fit = sklearn_fit(estimator)
        before = fit(X, Y, 1.0)[0]
        estimator.set_params(positive=True)
        assert torch.equal(fit(X, Y, 1.0)[0], before)

    def test_class_weights_given_as_sample_weights_are_the_balanced_fit(self):
        counts = torch.bincount(LABELS)
        weights = (len(LABELS) / (2.0 * counts))[LABELS].double()
        fit = sklearn_fit(LogisticRegression(tol=1e-10))
        balanced = LogisticRegression(tol=1e-10, class_weight="balanced").fit(X.numpy(), LABELS.numpy())
        torch.testing.assert_close(
            fit(X, LABELS, 1.0, weights)[0], torch.tensor(balanced.coef_), rtol=1e-5, atol=1e-6
        )

    @pytest.mark.parametrize(
        ("call", "error", "message"),
        [
            (lambda: sklearn_fit(Ridge())(X, Y, -1.0), InvalidParameter, r"one finite alpha >= 0; got -1.0"),
            (
                lambda: sklearn_fit(Ridge())(X, Y, tensor([1.0, 2.0])),
                InvalidParameter,
                r"one finite alpha >= 0",
            ),
            (
                lambda: sklearn_fit(Ridge())(X, Y, float("nan")),
                InvalidParameter,
                r"one finite alpha >= 0; got nan",
            ),
            (
                lambda: sklearn_fit(Ridge())(X, Y, "1"),
                InvalidParameter,
                r"alpha is a tensor or a number; got '1'",
            ),
            (
                lambda: sklearn_fit(SVC())(X, LABELS, True, 1.0),
                InvalidParameter,
                r"C is a tensor or a number; got True",
            ),
            (lambda: sklearn_fit(Ridge())(X, Y[:5], 1.0), InvalidProblem, r"X has shape \(20, 3\), y \(5,\)"),
            (lambda: sklearn_fit(Ridge())(X / 0.0, Y, 1.0), NotFinite, r"Ridge: X holds 60 non-finite"),
            (
                lambda: sklearn_fit(Ridge())(X, Y, 1.0, WEIGHTS - 1.0),
                InvalidProblem,
                r"sample_weight needs numbers >= 0",
            ),
            (
                lambda: sklearn_fit(Ridge())(X, Y, 1.0, WEIGHTS[:3]),
                InvalidProblem,
                r"sample_weight has shape \(3,\)",
            ),
            (
                lambda: sklearn_fit(Ridge(tol=-1.0))(X, Y, 1.0),
                InvalidProblem,
                r"Ridge could not be fitted: .*tol",
            ),
            (
                lambda: sklearn_fit(LogisticRegression())(X, LABELS, 0.0),
                InvalidParameter,
                r"one finite C > 0; got 0.0",
            ),
            (lambda: sklearn_fit(LogisticRegression())(X, 0 * LABELS, 1.0), InvalidProblem, r"classes 0, 1"),
            (
                lambda: sklearn_fit(LogisticRegression(solver="liblinear", fit_intercept=False))(
                    X, THREE, 1.0
                ),
                InvalidProblem,
                r"two classes; got 3",
            ),
            (
                lambda: sklearn_fit(SVC())(X, LABELS, 1.0, -2.0),
                InvalidParameter,
                r"one finite gamma > 0; got -2.0",
            ),
        ],
    )
    def test_bad_data_and_strengths_are_told_before_the_fit(self, call, error, message):
        with pytest.raises(error, match=message):
            call()


def quadratic_program():
    z, q = cp.Variable(3), cp.Parameter(3, name="q")
    G, h = cp.Parameter((2, 3), name="G"), cp.Parameter(2, name="h")
    problem = cp.Problem(cp.Minimize(0.5 * cp.sum_squares(z) + q @ z), [G @ z <= h, cp.sum(z) == 1])
    return problem, [q, G, h], [z]


VALUES = (tensor([1.0, -1.0, 0.3]), tensor([[1.0, 2.0, 0.0], [0.0, 1.0, -1.0]]), tensor([0.5, 0.2]))


class TestCvxpy:
    def test_a_projections_jacobian_is_the_projector(self):
        x, t = cp.Variable(4), cp.Parameter(4)
        layer = cvxpy_layer(
            cp.Problem(cp.Minimize(cp.sum_squares(x - t)), [cp.sum(x) == 1, x >= 0]), [t], [x]
        )
        at = tensor([0.6, 0.9, -1.0, 0.1])
        found = layer(at)
        inside = (found > 1e-6).double()
        projector = torch.diag(inside) - torch.outer(inside, inside) / inside.sum()
        torch.testing.assert_close(torch.func.jacrev(layer)(at), projector, atol=1e-5, rtol=0)
        torch.testing.assert_close(torch.func.jacfwd(layer)(at), projector, atol=1e-5, rtol=0)

    def test_a_quadratic_programs_gradients_agree_with_differences(self):
        layer = cvxpy_layer(*quadratic_program())
        arguments = [v.clone().requires_grad_() for v in VALUES]
        assert gradcheck(layer, arguments, eps=1e-5, atol=1e-4, rtol=1e-3, check_forward_ad=True)

    def test_second_order_cones_agree_with_differences(self):
        x, A, b = cp.Variable(2), cp.Parameter((3, 2)), cp.Parameter(3)
        problem = cp.Problem(cp.Minimize(cp.norm(A @ x - b, 2) + 0.1 * cp.norm(x, 1)))
        layer = cvxpy_layer(problem, [A, b], [x])
        arguments = [X[:3, :2].clone().requires_grad_(), Y[:3].clone().requires_grad_()]
        assert gradcheck(layer, arguments, eps=1e-5, atol=1e-4, rtol=1e-3)

    def test_semidefinite_cones_agree_with_the_eigenvalue_formula(self):
        """The nearest positive semidefinite matrix, and its derivative, which `psd_cone` has in closed form."""
        from thalweg.numerics.projections import psd_cone

        P, C = cp.Variable((3, 3)), cp.Parameter((3, 3))
        layer = cvxpy_layer(cp.Problem(cp.Minimize(cp.sum_squares(P - C)), [P >> 0, P == P.T]), [C], [P])
        at = X[:3] + X[:3].T
        torch.testing.assert_close(layer(at), psd_cone(at), atol=1e-6, rtol=0)
        torch.testing.assert_close(
            torch.func.jacrev(layer)(at), torch.func.jacrev(psd_cone)(at), atol=1e-4, rtol=0
        )

    def test_matrices_are_ordered_as_cvxpy_orders_them(self):
        M, C = cp.Variable((2, 3)), cp.Parameter((2, 3))
        layer = cvxpy_layer(cp.Problem(cp.Minimize(cp.sum_squares(M - C)), [M >= 0]), [C], [M])
        at = tensor([[1.0, -2.0, 3.0], [-4.0, 5.0, 6.0]])
        torch.testing.assert_close(layer(at), at.clamp_min(0.0), atol=1e-6, rtol=0)

    def test_parameters_keep_their_order_and_values(self):
        problem, parameters, variables = quadratic_program()
        forward = cvxpy_layer(problem, parameters, variables)(*VALUES)
        backward = cvxpy_layer(problem, parameters[::-1], variables)(*VALUES[::-1])
        torch.testing.assert_close(forward, backward)
        for parameter, value in zip(parameters, VALUES, strict=True):
            parameter.value = value.numpy()
        problem.solve(solver=cp.CLARABEL)
        np.testing.assert_allclose(forward.numpy(), variables[0].value, atol=1e-6)

    def test_vmap_is_a_loop_and_second_derivatives_are_right(self):
        x, t = cp.Variable(2), cp.Parameter(2)
        ball = cvxpy_layer(cp.Problem(cp.Minimize(cp.sum_squares(x - t)), [cp.norm(x) <= 1]), [t], [x])
        points = tensor([[2.0, 1.0], [0.3, 0.2], [-3.0, 0.5]])
        torch.testing.assert_close(torch.func.vmap(ball)(points), torch.stack([ball(p) for p in points]))

        def exact(p):
            return p / torch.linalg.vector_norm(p)

        at = points[0]
        found = torch.func.jacrev(torch.func.jacrev(ball))(at)
        torch.testing.assert_close(found, torch.func.jacrev(torch.func.jacrev(exact))(at), atol=1e-3, rtol=0)

    def test_what_cannot_be_done_is_refused(self):
        x, t, s = cp.Variable(2), cp.Parameter(2, name="t"), cp.Parameter(name="s", nonneg=True)
        with pytest.raises(InvalidProblem, match="DPP"):
            cvxpy_layer(cp.Problem(cp.Minimize(cp.sum_squares(s * s * x - t))), [s, t], [x])
        problem = cp.Problem(cp.Minimize(cp.sum_squares(x - t) + s * cp.norm1(x)))
        with pytest.raises(InvalidProblem, match=r"needs all parameters.*got \['t'\]"):
            cvxpy_layer(problem, [t], [x])
        with pytest.raises(InvalidProblem, match="no variable of the problem"):
            cvxpy_layer(problem, [s, t], [cp.Variable(2)])
        S = cp.Variable((2, 2), symmetric=True)
        with pytest.raises(InvalidProblem, match="attribute symmetric"):
            cvxpy_layer(cp.Problem(cp.Minimize(cp.sum_squares(S) + t @ x)), [t], [S])
        with pytest.raises(InvalidProblem, match="no exponential"):
            cvxpy_layer(cp.Problem(cp.Minimize(cp.sum(cp.exp(x)) + t @ x)), [t], [x])
        infeasible = cp.Problem(cp.Minimize(t @ x), [x >= 1, x <= 0])
        with pytest.raises(InvalidProblem, match="infeasible or unbounded"):
            cvxpy_layer(infeasible, [t], [x])(tensor([1.0, 1.0]))
        layer = cvxpy_layer(cp.Problem(cp.Minimize(cp.sum_squares(x - t))), [t], [x])
        with pytest.raises(InvalidProblem, match=r"has shape \(2,\); got \(3,\)"):
            layer(torch.zeros(3, dtype=DOUBLE))
        with pytest.raises(InvalidProblem, match="1 parameters; got 2"):
            layer(torch.zeros(2, dtype=DOUBLE), torch.zeros(2, dtype=DOUBLE))

    def test_a_krylov_solver_will_do_with_a_ridge(self):
        x, t = cp.Variable(2), cp.Parameter(2)
        problem = cp.Problem(cp.Minimize(cp.sum_squares(x - t)), [cp.sum(x) == 1])
        layer = cvxpy_layer(problem, [t], [x], solve=LinearSolver("gmres", ridge=1e-9))
        slope = torch.func.jacrev(layer)(tensor([1.0, 2.0]))
        torch.testing.assert_close(slope, tensor([[0.5, -0.5], [-0.5, 0.5]]), atol=1e-4, rtol=0)


def test_arrays_are_taken_and_words_refused():
    X, y = np.random.default_rng(0).standard_normal((20, 3)), np.arange(20.0)
    w, b = sklearn_fit(Ridge())(X, y, 2.0)
    own = Ridge(2.0).fit(X, y)
    np.testing.assert_allclose(w, own.coef_, rtol=1e-10)
    assert float(b) == pytest.approx(own.intercept_)
    with pytest.raises(InvalidProblem, match="Argument 1 of the fit is a tensor or an array of numbers"):
        sklearn_fit(Ridge())(X, ["a"] * 20, 2.0)
