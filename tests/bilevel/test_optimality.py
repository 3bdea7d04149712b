"""The catalogue: solutions by other packages are roots, and derivatives are those of finite differences."""

from __future__ import annotations

import cvxpy as cp
import numpy as np
import pytest
import torch
from sklearn.linear_model import Lasso

from thalweg.bilevel import optimality, root_jvp, root_vjp
from thalweg.core import InvalidParameter
from thalweg.numerics import projections, prox
from thalweg.numerics.torch_krylov import LinearSolver

DOUBLE = torch.float64
RNG = np.random.default_rng(0)
X, Y = RNG.standard_normal((30, 6)), RNG.standard_normal(30)
TX, TY = torch.tensor(X), torch.tensor(Y)


def least_squares(w, theta):
    return 0.5 * (TX @ w - theta).square().sum()


def largest(tree) -> float:
    return max(
        (float(t.abs().max()) for t in torch.utils._pytree.tree_leaves(tree) if t.numel()), default=0.0
    )


def fixed(T):
    return lambda x, *theta: torch.utils._pytree.tree_map(torch.sub, T(x, *theta), x)


def lasso(y: np.ndarray, weight: float) -> torch.Tensor:
    return torch.tensor(
        Lasso(alpha=weight / len(y), fit_intercept=False, tol=1e-14, max_iter=100_000).fit(X, y).coef_
    )


@pytest.mark.parametrize("step", [1.0, 0.01])
def test_lasso_is_a_fixed_point_of_proximal_gradient_and_its_path_has_the_known_slope(step: float) -> None:
    weight = 3.0
    T = fixed(optimality.proximal_gradient(least_squares, prox.lasso, step))
    w, lam = lasso(Y, weight), torch.tensor(weight, dtype=DOUBLE)
    assert 0 < int((w == 0).sum()) < 6
    assert largest(T(w, TY, lam)) < 1e-8
    slope = root_jvp(T, w, (TY, lam), (torch.zeros_like(TY), torch.ones_like(lam)))
    on = w != 0
    closed = torch.zeros(6, dtype=DOUBLE)
    closed[on] = -torch.linalg.solve(TX[:, on].T @ TX[:, on], w[on].sign())
    torch.testing.assert_close(slope, closed, rtol=1e-6, atol=1e-9)


def on_simplex(y: np.ndarray) -> torch.Tensor:
    w = cp.Variable(6)
    problem = cp.Problem(cp.Minimize(0.5 * cp.sum_squares(X @ w - y)), [w >= 0, cp.sum(w) == 1])
    problem.solve(solver=cp.CLARABEL, tol_gap_abs=1e-13, tol_gap_rel=1e-13, tol_feas=1e-13)
    return torch.tensor(w.value)


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_mirror_descent_has_derivatives_at_a_corner_of_the_simplex(dtype) -> None:
    T = optimality.mirror_descent(lambda x, theta: (x - theta).square().sum(), optimality.kl_projection)
    x = torch.tensor([0.0, 1.0, 0.0], dtype=dtype, requires_grad=True)
    moved = T(x, x.detach(), None)
    torch.testing.assert_close(moved, x)
    assert torch.isfinite(torch.autograd.grad(moved[1], x)[0]).all()


def test_projected_gradient_and_mirror_descent_agree_on_the_simplex() -> None:
    w = on_simplex(Y)
    w = torch.where(w < 1e-6, 0.0, w)
    w = w / w.sum()
    projected = fixed(optimality.projected_gradient(least_squares, lambda y, _: projections.simplex(y), 0.05))
    mirrored = fixed(optimality.mirror_descent(least_squares, optimality.kl_projection, step_size=0.05))
    assert largest(projected(w, TY, None)) < 1e-5
    assert largest(mirrored(w.clamp_min(1e-30), TY, None)) < 1e-5
    move = torch.tensor(RNG.standard_normal(30))
    first = root_jvp(projected, w, (TY, None), (move,))
    second = root_jvp(mirrored, w.clamp_min(1e-30), (TY, None), (move,))
    h = 1e-3
    finite = (on_simplex(Y + h * move.numpy()) - on_simplex(Y - h * move.numpy())) / (2 * h)
    torch.testing.assert_close(first, finite, atol=2e-4, rtol=1e-3)
    torch.testing.assert_close(second, finite, atol=2e-4, rtol=1e-3)


def test_newtons_fixed_point_is_the_root_it_came_from() -> None:
    def condition(x, a):
        return x**3 + x - a

    a = torch.tensor([2.0, 10.0], dtype=DOUBLE)
    x = torch.tensor([1.0, 2.0], dtype=DOUBLE)
    T = optimality.newton(condition)
    assert largest(fixed(T)(x, a)) < 1e-14
    (slope,) = root_vjp(fixed(T), x, (a,), torch.ones(2, dtype=DOUBLE))
    torch.testing.assert_close(slope, 1.0 / (3 * x**2 + 1))


def test_blocks_have_their_own_operators() -> None:
    def f(blocks, theta):
        return 0.5 * (TX[:, :3] @ blocks[0] + TX[:, 3:] @ blocks[1] - theta).square().sum()

    T = optimality.block_proximal_gradient(f, [prox.lasso, prox.ridge], [0.01, 0.02])
    blocks = (torch.zeros(3, dtype=DOUBLE), torch.zeros(3, dtype=DOUBLE))
    weights = (torch.tensor(2.0, dtype=DOUBLE), torch.tensor(1.0, dtype=DOUBLE))
    for _ in range(3000):
        blocks = T(blocks, TY, weights)
    w = cp.Variable(6)
    cost = 0.5 * cp.sum_squares(X @ w - Y) + 2 * cp.norm1(w[:3]) + 0.5 * cp.sum_squares(w[3:])
    cp.Problem(cp.Minimize(cost)).solve(solver=cp.CLARABEL)
    np.testing.assert_allclose(torch.cat(blocks).numpy(), w.value, atol=1e-5)
    with pytest.raises(InvalidParameter, match="step for each block"):
        optimality.block_proximal_gradient(f, [prox.lasso], [0.01, 0.02])


Q = np.diag([1.0, 2.0, 3.0]) + 0.1
C, E, D = np.array([1.0, -2.0, 0.5]), np.array([[1.0, 1.0, 1.0]]), np.array([1.0])
M, H = (
    np.array([[1.0, 0.0, 0.0], [0.0, 0.0, 1.0]]),
    np.array([-0.4, 5.0]),
)  # the first binds, the second does not


def solved_program(c: np.ndarray, d: np.ndarray, h: np.ndarray):
    z = cp.Variable(3)
    equations, inequalities = E @ z == d, M @ z <= h
    problem = cp.Problem(
        cp.Minimize(0.5 * cp.quad_form(z, cp.psd_wrap(Q)) + c @ z), [equations, inequalities]
    )
    problem.solve(solver=cp.CLARABEL, tol_gap_abs=1e-13, tol_gap_rel=1e-13, tol_feas=1e-13)
    return tuple(torch.tensor(v) for v in (z.value, equations.dual_value, inequalities.dual_value))


@pytest.mark.parametrize("how", ["quadratic program", "kkt"])
def test_programs_are_differentiated_through_their_conditions(how: str) -> None:
    x = solved_program(C, D, H)
    parameters = tuple(tuple(map(torch.tensor, pair)) for pair in ((Q, C), (E, D), (M, H)))
    if how == "kkt":
        F = optimality.kkt(
            lambda z, p: 0.5 * z @ (p[0] @ z) + p[1] @ z,
            lambda z, p: p[0] @ z - p[1],
            lambda z, p: p[0] @ z - p[1],
        )
    else:
        F = optimality.quadratic_program()
    assert largest(F(x, *parameters)) < 1e-6
    v = (torch.ones(3, dtype=DOUBLE), torch.zeros(1, dtype=DOUBLE), torch.zeros(2, dtype=DOUBLE))
    slopes = root_vjp(F, x, parameters, v)  # of Q, c, E, d, M, h
    h = 1e-4

    def difference(which: int, i: int) -> float:
        values = []
        for sign in (1, -1):
            moved = [C.copy(), D.copy(), H.copy()]
            moved[which][i] += sign * h
            values.append(float(solved_program(*moved)[0].sum()))
        return (values[0] - values[1]) / (2 * h)

    for which, slope in ((0, slopes[1]), (1, slopes[3]), (2, slopes[5])):
        expected = [difference(which, i) for i in range(len(slope))]
        np.testing.assert_allclose(slope.numpy(), expected, atol=1e-4)


def test_program_without_constraints() -> None:
    F = optimality.quadratic_program()
    z = -torch.linalg.solve(torch.tensor(Q), torch.tensor(C))
    assert largest(F((z, (), ()), (torch.tensor(Q), torch.tensor(C)))) < 1e-12


def test_conic_program_through_the_homogeneous_embedding() -> None:
    """A second-order cone program: min c'x, |x - p| <= 1."""
    p, c = np.array([0.3, -0.2]), np.array([1.0, 2.0])
    A = np.vstack([-np.eye(2), np.zeros((1, 2))])
    b = np.concatenate([-p, [1.0]])  # s = b - A x = (x - p, 1), the cone's height last

    size = np.linalg.norm(c)
    x, y = p - c / size, np.concatenate([c, [size]])
    s = b - A @ x
    found = tuple(torch.tensor(v) for v in (x, y - s, np.array(1.0)))
    F = optimality.conic_program(projections.second_order_cone)
    parameters = tuple(map(torch.tensor, (A, b, c)))
    assert largest(F(found, *parameters)) < 1e-12

    def solution(of):
        return of[0] / of[2]

    for i in range(2):
        move = torch.zeros(2, dtype=DOUBLE)
        move[i] = 1.0
        tangents = (torch.zeros_like(parameters[0]), torch.zeros_like(parameters[1]), move)
        moved = root_jvp(F, found, parameters, tangents, solve=LinearSolver("dense"))
        slope = torch.func.jvp(solution, (found,), (moved,))[1]
        expected = -(np.eye(2) / size - np.outer(c, c) / size**3)[:, i]
        np.testing.assert_allclose(slope.numpy(), expected, atol=1e-8)


def test_steps_have_to_be_positive() -> None:
    for make in (
        lambda: optimality.proximal_gradient(least_squares, prox.lasso, 0.0),
        lambda: optimality.mirror_descent(least_squares, optimality.kl_projection, step_size=-1.0),
    ):
        with pytest.raises(InvalidParameter, match="step_size > 0"):
            make()
