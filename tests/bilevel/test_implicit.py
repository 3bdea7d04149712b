"""Implicit derivatives against closed forms, finite differences, and every transform of torch.func."""

from __future__ import annotations

import math
import warnings

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch.autograd import forward_ad, gradcheck, gradgradcheck

from thalweg.bilevel import (
    NotARoot,
    SolveInaccurate,
    custom_fixed_point,
    custom_root,
    precision,
    root_jvp,
    root_vjp,
)
from thalweg.core import InvalidParameter, InvalidProblem, UnknownName
from thalweg.numerics.torch_krylov import LinearSolver

DOUBLE = torch.float64


def matrix(rows: int, columns: int, seed: int = 0) -> torch.Tensor:
    return torch.randn(rows, columns, dtype=DOUBLE, generator=torch.Generator().manual_seed(seed))


X, Y = matrix(20, 6), matrix(20, 1, 1)[:, 0]


def ridge_gradient(w, lam, y):
    """Of |X w - y|^2/2 + lam |w|^2/2."""
    return X.T @ (X @ w - y) + lam * w


def ridge_solver(init, lam, y):
    """By numpy, which leaves the graph."""
    A = X.numpy().T @ X.numpy() + float(lam) * np.eye(6)
    return torch.tensor(np.linalg.solve(A, X.numpy().T @ y.numpy()))


def closed_form(lam, y):
    return torch.linalg.solve(X.T @ X + lam * torch.eye(6, dtype=DOUBLE), X.T @ y)


METHODS = ["auto", "dense", "cg", "normal-cg", "gmres", "bicgstab"]
ZERO = torch.zeros(6, dtype=DOUBLE)
LAM = torch.tensor(0.7, dtype=DOUBLE)


def ridge(method: str = "auto"):
    return custom_root(ridge_gradient, solve=LinearSolver(method, tol=1e-13))(ridge_solver)


@pytest.mark.parametrize("method", METHODS)
def test_ridge_in_both_modes_is_the_closed_form(method: str) -> None:
    solve = ridge(method)
    for argument in (0, 1):
        expected = torch.func.jacrev(closed_form, argnums=argument)(LAM, Y)
        for transform in (torch.func.jacrev, torch.func.jacfwd):
            found = transform(lambda lam, y: solve(ZERO, lam, y), argnums=argument)(LAM, Y)
            torch.testing.assert_close(found, expected, rtol=1e-8, atol=1e-10)


def test_plain_autograd_and_forward_mode() -> None:
    solve = ridge()
    lam, y = LAM.clone().requires_grad_(), Y.clone().requires_grad_()
    solve(ZERO, lam, y).square().sum().backward()
    expected = torch.func.grad(lambda lam, y: closed_form(lam, y).square().sum(), (0, 1))(LAM, Y)
    torch.testing.assert_close((lam.grad, y.grad), expected)
    with forward_ad.dual_level():
        out = solve(ZERO, forward_ad.make_dual(LAM, torch.ones_like(LAM)), Y)
        tangent = forward_ad.unpack_dual(out).tangent
    torch.testing.assert_close(tangent, torch.func.jacfwd(closed_form)(LAM, Y))


def test_gradcheck_in_both_modes_and_twice() -> None:
    solve = ridge()
    inputs = (LAM.clone().requires_grad_(), Y.clone().requires_grad_())
    assert gradcheck(lambda lam, y: solve(ZERO, lam, y), inputs, check_forward_ad=True)
    assert gradgradcheck(lambda lam, y: solve(ZERO, lam, y), inputs)


@pytest.mark.parametrize(
    ("outer", "inner"), [("jacrev", "jacrev"), ("jacfwd", "jacrev"), ("jacrev", "jacfwd")], ids=str
)
def test_second_derivatives_in_mixed_modes(outer: str, inner: str) -> None:
    solve = ridge()
    twice = getattr(torch.func, outer)(getattr(torch.func, inner)(lambda lam: solve(ZERO, lam, Y)))
    expected = torch.func.jacrev(torch.func.jacrev(lambda lam: closed_form(lam, Y)))(LAM)
    torch.testing.assert_close(twice(LAM), expected, rtol=1e-7, atol=1e-10)


def test_forward_mode_within_forward_mode_is_the_closed_form() -> None:
    solve = ridge()
    twice = torch.func.jacfwd(torch.func.jacfwd(lambda lam: solve(ZERO, lam, Y)))(LAM)
    expected = torch.func.jacrev(torch.func.jacrev(lambda lam: closed_form(lam, Y)))(LAM)
    torch.testing.assert_close(twice, expected, rtol=1e-9, atol=1e-12)
    mixed = torch.func.jacfwd(torch.func.jacfwd(lambda y: solve(ZERO, LAM, y).square().sum()))(Y)
    inverse = torch.linalg.inv(X.T @ X + LAM * torch.eye(6, dtype=DOUBLE)) @ X.T
    torch.testing.assert_close(mixed, 2 * inverse.T @ inverse, rtol=1e-9, atol=1e-12)


def test_third_derivative() -> None:
    @custom_root(lambda x, a: x * x - a)
    def root(init, a):
        return a.detach().sqrt()

    a = torch.tensor(4.0, dtype=DOUBLE)
    for modes in ("rrr", "fff", "ffr", "rff", "frf"):
        f = lambda a: root(a, a)  # noqa: E731
        for mode in modes:
            f = (torch.func.jacfwd if mode == "f" else torch.func.jacrev)(f)
        assert float(f(a)) == pytest.approx(3.0 / 8.0 * 4.0**-2.5), modes


def test_vmap_is_a_loop_also_under_derivatives() -> None:
    solve = ridge()
    lams = torch.tensor([0.1, 1.0, 10.0], dtype=DOUBLE)
    ys = torch.stack([Y, 2 * Y, -Y])
    batched = torch.func.vmap(lambda lam, y: solve(ZERO, lam, y))(lams, ys)
    torch.testing.assert_close(
        batched, torch.stack([solve(ZERO, *pair) for pair in zip(lams, ys, strict=True)])
    )
    one = torch.func.grad(lambda lam, y: solve(ZERO, lam, y).square().sum())
    slopes = torch.func.vmap(one)(lams, ys)
    torch.testing.assert_close(slopes, torch.stack([one(*pair) for pair in zip(lams, ys, strict=True)]))
    through = torch.func.grad(
        lambda lams: torch.func.vmap(lambda lam: solve(ZERO, lam, Y))(lams).square().sum()
    )(lams)
    torch.testing.assert_close(through, torch.stack([one(lam, Y) for lam in lams]))


@given(st.integers(0, 30))
def test_products_are_transposes_of_each_other(seed: int) -> None:
    B = matrix(4, 4, seed) + 5 * torch.eye(4, dtype=DOUBLE)

    def condition(x, theta):
        return B @ x + 0.1 * x**3 - theta["a"] * theta["b"]

    theta = {"a": matrix(4, 1, seed + 1)[:, 0], "b": matrix(4, 1, seed + 2)[:, 0]}
    x = torch.zeros(4, dtype=DOUBLE)
    for _ in range(50):
        x = x - torch.linalg.solve(torch.func.jacrev(condition)(x, theta), condition(x, theta))
    v, w = (
        matrix(4, 1, seed + 3)[:, 0],
        {"a": matrix(4, 1, seed + 4)[:, 0], "b": matrix(4, 1, seed + 5)[:, 0]},
    )
    left = root_vjp(condition, x, (theta,), v)
    right = root_jvp(condition, x, (theta,), (w,))
    assert float(left[0] @ w["a"] + left[1] @ w["b"]) == pytest.approx(float(v @ right), rel=1e-9, abs=1e-12)


def test_pytrees_aux_and_arguments_that_are_no_tensors() -> None:
    def move(state, scale, theta, words):
        assert words == "halve"
        return {
            "p": (0.5 * torch.cos(state["q"]) * scale, 0.3 * state["p"][0] + theta),
            "q": 0.5 * state["p"][1],
        }

    @custom_fixed_point(move, has_aux=True)
    def solver(init, scale, theta, words):
        for _ in range(100):
            init = move(init, scale, theta, words)
        return init, {"rounds": 100}

    init = {
        "p": (torch.zeros(3, dtype=DOUBLE), torch.zeros(3, dtype=DOUBLE)),
        "q": torch.zeros(3, dtype=DOUBLE),
    }
    scale = torch.tensor(1.3, dtype=DOUBLE)

    def total(theta):
        found, aux = solver(init, scale, theta, "halve")
        assert aux == {"rounds": 100}
        return found["p"][0].sum() + found["q"].square().sum()

    theta = torch.linspace(0.1, 0.5, 3, dtype=DOUBLE).requires_grad_()
    assert gradcheck(total, theta, check_forward_ad=True)


def test_memory_does_not_grow_with_the_solvers_iterations() -> None:
    saved: list[int] = []

    def pack(t):
        saved.append(t.numel())
        return t

    counts = []
    for rounds in (10, 1000):

        @custom_fixed_point(lambda x, a: 0.5 * torch.tanh(x) + a, tol=1.0)
        def solver(init, a, rounds=rounds):
            for _ in range(rounds):
                init = 0.5 * torch.tanh(init) + a
            return init

        saved.clear()
        a = torch.ones(50, dtype=DOUBLE, requires_grad=True)
        with torch.autograd.graph.saved_tensors_hooks(pack, lambda t: t):
            solver(torch.zeros(50, dtype=DOUBLE), a).sum()
        counts.append(sum(saved))
    assert counts[0] == counts[1]


def test_jacobian_error_is_of_the_size_of_the_solvers_error() -> None:
    """Theorem 1: |J_hat - J| <= C |x_hat - x*|, for ridge at iterates of gradient descent."""
    step = 1.0 / float(torch.linalg.eigvalsh(X.T @ X)[-1] + LAM)
    exact = torch.func.jacrev(closed_form)(LAM, Y)
    errors, gaps = [], []
    w = ZERO
    for _ in range(60):
        w = w - step * ridge_gradient(w, LAM, Y)
        jacobian = root_jvp(ridge_gradient, w, (LAM, Y), (torch.ones_like(LAM), torch.zeros_like(Y)))
        errors.append(float(torch.linalg.vector_norm(jacobian - exact)))
        gaps.append(float(torch.linalg.vector_norm(w - closed_form(LAM, Y))))
    inverse = torch.linalg.inv(X.T @ X + LAM * torch.eye(6, dtype=DOUBLE))
    C = float(torch.linalg.matrix_norm(inverse, 2))
    assert all(e <= C * g * (1 + 1e-9) + 1e-12 for e, g in zip(errors, gaps, strict=True))
    assert errors[-1] < 1e-2 * errors[0]


def test_reported_precision_is_the_true_one_for_a_quadratic_problem_and_close_for_others() -> None:
    w = closed_form(LAM, Y) + 1e-3 * matrix(6, 1, 9)[:, 0]
    told = precision(ridge_gradient, w, (LAM, Y), (torch.ones_like(LAM), torch.zeros_like(Y)))
    assert told.solution == pytest.approx(float(torch.linalg.vector_norm(w - closed_form(LAM, Y))), rel=1e-8)
    rough = root_jvp(ridge_gradient, w, (LAM, Y), (torch.ones_like(LAM), torch.zeros_like(Y)))
    exact = torch.func.jacrev(closed_form)(LAM, Y)
    assert told.derivative == pytest.approx(float(torch.linalg.vector_norm(rough - exact)), rel=1e-6)
    a = torch.tensor([4.0], dtype=DOUBLE)
    for error in (1e-1, 1e-2, 1e-3):
        told = precision(
            lambda x, a: x * x - a, torch.tensor([2.0 + error], dtype=DOUBLE), (a,), (torch.ones_like(a),)
        )
        assert told.solution == pytest.approx(error, rel=0.6 * error)
        assert told.slope == pytest.approx(1.0 / 8.0, rel=error)  # of 1/(2x) at 2


def test_solution_that_is_no_root_is_told() -> None:
    solve = custom_root(lambda x, a: x * x - a)(lambda init, a: init)
    with pytest.warns(NotARoot, match="residual of 3"):
        torch.func.jacrev(solve, argnums=1)(torch.ones(2), torch.full((2,), 4.0))


def test_singular_condition_is_told_and_a_ridge_mends_it() -> None:
    A = torch.diag(torch.tensor([1.0, 0.0], dtype=DOUBLE))
    theta = torch.tensor([1.0, 1.0], dtype=DOUBLE)
    with pytest.warns(SolveInaccurate, match="singular"):
        root_vjp(lambda x, t: A @ x - t, theta, (theta,), theta)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        (mended,) = root_vjp(lambda x, t: A @ x - t, theta, (theta,), theta, solve=LinearSolver(ridge=1e-2))
    torch.testing.assert_close(mended, torch.tensor([1.0 / 1.01, 100.0], dtype=DOUBLE))


def test_bad_input() -> None:
    solve = custom_root(lambda x, a: torch.cat([x, x]) - a)(lambda init, a: init)
    with pytest.raises(InvalidProblem, match="expected those of x"):
        torch.func.jacrev(solve, argnums=1)(torch.ones(2), torch.ones(4))
    with pytest.raises(UnknownName, match="cgg"):
        LinearSolver("cgg")
    with pytest.raises(InvalidParameter, match="ridge"):
        LinearSolver(ridge=-1.0)
    with pytest.raises(InvalidParameter, match="transpose"):
        LinearSolver("normal-cg")(lambda v: v, torch.ones(2))
    whole = custom_root(lambda x, k: x - k)(lambda init, k: k.to(DOUBLE))
    k = torch.tensor([1, 2])
    assert not whole(ZERO[:2], k).requires_grad  # nothing to differentiate in


def test_conjugate_gradients_take_a_negative_definite_condition() -> None:
    """A fixed point's ``d1 T - I`` is negative definite where T is a gradient step."""
    A = matrix(6, 6, 0)
    A = A @ A.T + torch.eye(6, dtype=DOUBLE)
    b = matrix(6, 1, 1)[:, 0]
    found = LinearSolver("cg")(lambda v: -A @ v, b)
    torch.testing.assert_close(found.x, -torch.linalg.solve(A, b))
    mixed = LinearSolver("cg")(lambda v: torch.tensor([1.0, -1.0]) * v, torch.ones(2))
    assert mixed.residual > 0.1  # neither: it stops, and says so


@pytest.mark.parametrize("method", METHODS[1:])
@given(st.integers(0, 50), st.integers(1, 12))
def test_linear_solvers_find_the_solution(method: str, seed: int, n: int) -> None:
    B = matrix(n, n, seed)
    A = B @ B.T + torch.eye(n, dtype=DOUBLE)
    if method not in ("cg",):
        A = A + 0.3 * matrix(n, n, seed + 1)
    b = matrix(n, 1, seed + 2)[:, 0]
    found = LinearSolver(method, tol=1e-12, max_steps=100 * n)(lambda v: A @ v, b, lambda v: A.T @ v)
    scale = float(torch.linalg.cond(A)) * 1e-9
    if found.residual < 1e-11:
        torch.testing.assert_close(
            found.x, torch.linalg.solve(A, b), rtol=max(scale, 1e-8), atol=max(scale, 1e-8)
        )
    assert found.residual < 1e-6 or method == "bicgstab"
    assert math.isfinite(found.residual)


def test_preconditioners_and_warm_starts_save_products() -> None:
    d = torch.logspace(0, 5, 200, dtype=DOUBLE)
    b = torch.ones(200, dtype=DOUBLE)
    for method in ("cg", "gmres", "bicgstab"):
        plain = LinearSolver(method, tol=1e-8, max_steps=3000)(lambda v: d * v, b)
        helped = LinearSolver(method, tol=1e-8, preconditioner=lambda v: v / d)(lambda v: d * v, b)
        assert helped.products < 0.2 * plain.products
        warm = LinearSolver(method, tol=1e-8)(lambda v: d * v, b, x0=b / d)
        assert warm.products <= 2
