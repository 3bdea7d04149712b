"""Inner solvers against scikit-learn, cvxpy and closed forms; implicit against unrolled derivatives."""

from __future__ import annotations

import cvxpy as cp
import numpy as np
import pytest
import torch
from sklearn.linear_model import Lasso
from torch.autograd import gradcheck
from torch.nn import functional

from thalweg import Status, Stop, solve
from thalweg.bilevel import (
    Anderson,
    BlockDescent,
    Composite,
    MirrorDescent,
    Newton,
    ProximalGradient,
    bisection,
    differentiable,
    optimality,
)
from thalweg.bilevel.composite import no_prox
from thalweg.core import Checkpoint, InvalidParameter, InvalidProblem
from thalweg.numerics import projections, prox

DOUBLE = torch.float64
RNG = np.random.default_rng(0)
X, Y = torch.tensor(RNG.standard_normal((30, 5))), torch.tensor(RNG.standard_normal(30))
LABELS = (Y > 0).double()
ZERO = torch.zeros(5, dtype=DOUBLE)
CURVATURE = float(torch.linalg.eigvalsh(X.T @ X)[-1])
TIGHT = Stop(below={"residual": 1e-11}, steps=20_000)


def least_squares(w, y):
    return 0.5 * (X @ w - y).square().sum()


def logistic(w, strength):
    loss = functional.binary_cross_entropy_with_logits(X @ w, LABELS, reduction="sum")
    return loss + 0.5 * strength * w.square().sum()


def simplex(y, theta, scale):
    return projections.simplex(y)


METHODS = {
    "fista": ProximalGradient(),
    "plain": ProximalGradient(accelerated=False),
    "fixed step": ProximalGradient(1.0 / CURVATURE),
    "anderson": Anderson(1.0 / CURVATURE),
}


@pytest.mark.parametrize("name", METHODS)
def test_lasso_is_scikit_learns_and_its_derivative_the_closed_form(name: str) -> None:
    weight = torch.tensor(4.0, dtype=DOUBLE)
    solver = differentiable(METHODS[name], least_squares, prox.lasso, stop=TIGHT)
    w = solver(ZERO, Y, weight)
    theirs = Lasso(alpha=4.0 / 30, fit_intercept=False, tol=1e-14, max_iter=100_000).fit(X, Y).coef_
    np.testing.assert_allclose(w.numpy(), theirs, atol=1e-8)
    on = w != 0
    assert 0 < int(on.sum()) < 5
    slope = torch.func.jacrev(solver, argnums=2)(ZERO, Y, weight)
    closed = torch.zeros(5, dtype=DOUBLE)
    closed[on] = -torch.linalg.solve(X[:, on].T @ X[:, on], w[on].sign())
    torch.testing.assert_close(slope, closed, rtol=1e-6, atol=1e-8)


@pytest.mark.parametrize(
    "method", [ProximalGradient(), Newton(), Anderson(1.0 / CURVATURE)], ids=lambda m: m.name
)
def test_smooth_problems_in_both_modes(method) -> None:
    solver = differentiable(method, logistic, stop=TIGHT)
    strength = torch.tensor(1.3, dtype=DOUBLE, requires_grad=True)
    assert gradcheck(lambda s: solver(ZERO, s), strength, check_forward_ad=True, atol=1e-5)


def test_newton_needs_few_steps_and_falls_also_where_the_function_bends_the_wrong_way() -> None:
    stop = Stop(below={"residual": 1e-11})
    found = solve(
        Composite(logistic, ZERO, torch.tensor(1.0, dtype=DOUBLE)), Newton(), stop=stop, progress=False
    )
    assert found.steps <= 8
    bent = Composite(lambda x, _: (x**4 / 4 - x**2 / 2).sum(), torch.full((1,), 0.1, dtype=DOUBLE))
    assert float(solve(bent, Newton(), stop=stop, progress=False).x) == pytest.approx(1.0)


def test_projected_gradient_and_mirror_descent_over_the_simplex_are_cvxpys() -> None:
    y = Y + X @ torch.full((5,), 0.2, dtype=DOUBLE)
    w = cp.Variable(5)
    problem = cp.Problem(
        cp.Minimize(0.5 * cp.sum_squares(X.numpy() @ w - y.numpy())), [w >= 0, cp.sum(w) == 1]
    )
    problem.solve(solver=cp.CLARABEL, tol_gap_abs=1e-12, tol_gap_rel=1e-12, tol_feas=1e-12)
    start = torch.full((5,), 0.2, dtype=DOUBLE)
    projected = differentiable(ProximalGradient(), least_squares, simplex, stop=TIGHT)
    kl = optimality.mirror_descent(least_squares, optimality.kl_projection, step_size=0.05)
    mirrored = differentiable(MirrorDescent(), least_squares, simplex, condition=kl, stop=Stop(steps=1500))
    for solver in (projected, mirrored):
        np.testing.assert_allclose(solver(start, y).numpy(), w.value, atol=1e-5)
    slopes = [torch.func.jacrev(s, argnums=1)(start, y) for s in (projected, mirrored)]
    torch.testing.assert_close(*slopes, atol=1e-4, rtol=1e-4)


def test_acceleration_needs_fewer_steps() -> None:
    scales = torch.logspace(0, 2.5, 20, dtype=DOUBLE)
    problem = Composite(
        lambda x, b: 0.5 * (scales * x.square()).sum() - b @ x,
        torch.zeros(20, dtype=DOUBLE),
        torch.ones(20, dtype=DOUBLE),
    )
    stop = Stop(below={"residual": 1e-8}, steps=50_000)
    steps = {
        name: solve(problem, method, stop=stop, progress=False).steps
        for name, method in (
            ("plain", ProximalGradient(3e-3, accelerated=False)),
            ("fista", ProximalGradient(3e-3)),
            ("anderson", Anderson(3e-3, depth=10)),
        )
    }
    assert steps["fista"] < 0.2 * steps["plain"]
    assert steps["anderson"] < 0.2 * steps["plain"]


@pytest.mark.parametrize(
    "method", [ProximalGradient(0.5 / CURVATURE), Newton(), Anderson(0.5 / CURVATURE)], ids=lambda m: m.name
)
def test_unrolled_derivatives_tend_to_the_implicit_ones(method) -> None:
    strength = torch.tensor(1.0, dtype=DOUBLE)
    exact = torch.func.jacrev(differentiable(method, logistic, stop=TIGHT), argnums=1)(ZERO, strength)
    errors = []
    for steps in (3, 300):
        at = strength.clone().requires_grad_()
        w = differentiable(method, logistic, stop=Stop(steps=steps), unroll=True)(ZERO, at)
        rows = torch.stack([torch.autograd.grad(v, at, retain_graph=True)[0] for v in w])
        errors.append(float((rows - exact).abs().max()))
    assert errors[1] < 1e-8
    assert errors[1] < errors[0]


def test_andersons_unrolled_derivative_is_that_of_its_iterate() -> None:
    run = differentiable(Anderson(0.5 / CURVATURE), logistic, stop=Stop(steps=5), unroll=True)
    at, h = torch.tensor(1.0, dtype=DOUBLE, requires_grad=True), 1e-6
    rows = torch.stack([torch.autograd.grad(v, at, retain_graph=True)[0] for v in run(ZERO, at)])
    ends = [run(ZERO, at.detach() + sign * h) for sign in (1, -1)]
    torch.testing.assert_close(rows, (ends[0] - ends[1]) / (2 * h), rtol=1e-4, atol=1e-6)


def test_implicit_is_nearer_than_unrolled_at_the_same_iterate() -> None:
    """Figure 3 of the paper, on ridge regression: at equal iterate error the implicit derivative has the less error."""

    def ridge(w, strength):
        return least_squares(w, Y) + 0.5 * strength * w.square().sum()

    strength = torch.tensor(1.0, dtype=DOUBLE)
    exact = torch.func.jacrev(differentiable(Newton(), ridge, stop=TIGHT), argnums=1)(ZERO, strength)
    method = ProximalGradient(1.0 / (CURVATURE + 1.0), accelerated=False)
    for steps in (5, 10, 20):
        stop = Stop(steps=steps)
        with pytest.warns(UserWarning, match="residual"):
            implicit = torch.func.jacrev(differentiable(method, ridge, stop=stop), argnums=1)(ZERO, strength)
        at = strength.clone().requires_grad_()
        w = differentiable(method, ridge, stop=stop, unroll=True)(ZERO, at)
        unrolled = torch.stack([torch.autograd.grad(v, at, retain_graph=True)[0] for v in w])
        assert float((implicit - exact).norm()) < float((unrolled - exact).norm())


def test_pytrees_of_blocks() -> None:
    def f(blocks, y):
        return 0.5 * (X[:, :2] @ blocks["a"] + X[:, 2:] @ blocks["b"] - y).square().sum()

    init = {"a": torch.zeros(2, dtype=DOUBLE), "b": torch.zeros(3, dtype=DOUBLE)}
    found = differentiable(ProximalGradient(), f, stop=TIGHT)(init, Y)
    exact = torch.linalg.lstsq(X, Y[:, None]).solution[:, 0]
    torch.testing.assert_close(torch.cat([found["a"], found["b"]]), exact)


def test_statuses_and_bad_input() -> None:
    problem = Composite(least_squares, ZERO, Y)
    assert solve(problem, progress=False, stop=TIGHT).status is Status.CONVERGED
    assert problem.metrics(torch.linalg.lstsq(X, Y[:, None]).solution[:, 0])["residual"] < 1e-9
    with pytest.raises(InvalidProblem, match="floating-point"):
        Composite(least_squares, torch.zeros(5, dtype=torch.int64), Y)
    with pytest.raises(InvalidProblem, match="without prox"):
        solve(Composite(least_squares, ZERO, Y, prox.lasso, 1.0), Newton(), progress=False)
    with pytest.raises(InvalidProblem, match="whose prox is the projection onto its simplices"):
        solve(problem, MirrorDescent(), progress=False)
    with pytest.raises(InvalidProblem, match="inside the simplex"):
        solve(Composite(least_squares, ZERO, Y, simplex), MirrorDescent(), progress=False)
    found = solve(problem, ProximalGradient(10.0, accelerated=False), stop=Stop(steps=500), progress=False)
    assert found.status is Status.DIVERGED
    assert "inner objective" in found.message
    assert torch.isfinite(found.x).all()
    for bad, words in (
        (lambda: ProximalGradient(0.0), "step_size"),
        (lambda: MirrorDescent(-1.0), "step_size"),
        (lambda: Anderson(0.0), "step_size"),
        (lambda: Anderson(1.0, depth=0), "depth"),
        (lambda: Anderson(1.0, ridge=-1.0), "ridge"),
    ):
        with pytest.raises(InvalidParameter, match=words):
            bad()


@pytest.mark.parametrize(
    "method",
    [ProximalGradient(), MirrorDescent(), Newton(), Anderson(0.5 / CURVATURE), BlockDescent()],
    ids=lambda m: m.name,
)
def test_resuming_gives_the_same_bits(method, tmp_path) -> None:
    x0 = torch.full((5,), 0.2, dtype=DOUBLE)
    problem = Composite(least_squares, x0, Y, simplex if isinstance(method, MirrorDescent) else no_prox)
    whole = solve(problem, method, stop=Stop(steps=9), progress=False)
    solve(problem, method, stop=Stop(steps=4), callbacks=[Checkpoint(tmp_path / "run")], progress=False)
    resumed = solve(problem, method, stop=Stop(steps=9), resume=tmp_path / "run", progress=False)
    assert torch.equal(whole.x, resumed.x)
    assert whole.calls == resumed.calls
    np.testing.assert_array_equal(whole.history["objective"], resumed.history["objective"])


def test_without_method_or_stop_inner_problems_end_converged() -> None:
    weight = torch.tensor(4.0, dtype=DOUBLE)
    strength = torch.tensor(1.0, dtype=DOUBLE)
    for problem in (
        Composite(least_squares, ZERO, Y),
        Composite(least_squares, ZERO, Y, prox.lasso, weight),
        Composite(logistic, ZERO, strength),
        Composite(least_squares, ZERO + 0.2, Y, simplex),
    ):
        found = solve(problem)
        assert found.status is Status.CONVERGED
        assert found.metrics["residual"] <= 1.5e-8
        assert found.steps < 500


def test_blocks_in_turn_reach_the_lasso_and_its_derivative() -> None:
    def f(blocks, y):
        return 0.5 * (X[:, :2] @ blocks[0] + X[:, 2:] @ blocks[1] - y).square().sum()

    def each(blocks, weight, scale):
        return tuple(prox.lasso(b, weight, scale) for b in blocks)

    weight = torch.tensor(4.0, dtype=DOUBLE)
    init = (torch.zeros(2, dtype=DOUBLE), torch.zeros(3, dtype=DOUBLE))
    by_blocks = differentiable(BlockDescent(), f, each, stop=TIGHT)
    whole = differentiable(ProximalGradient(), least_squares, prox.lasso, stop=TIGHT)
    torch.testing.assert_close(
        torch.cat(by_blocks(init, Y, weight)), whole(ZERO, Y, weight), rtol=1e-7, atol=1e-8
    )
    slopes = torch.func.jacrev(lambda w: torch.cat(by_blocks(init, Y, w)))(weight)
    torch.testing.assert_close(
        slopes, torch.func.jacrev(lambda w: whole(ZERO, Y, w))(weight), rtol=1e-5, atol=1e-7
    )


def test_bisection_finds_rising_and_falling_roots_with_their_derivatives() -> None:
    signs = torch.tensor([1.0, -1.0, 1.0], dtype=DOUBLE)
    root = bisection(lambda x, a: signs * (x**3 + x - a), -5.0, 5.0)
    a = torch.tensor([2.0, 10.0, 0.0], dtype=DOUBLE, requires_grad=True)
    x = root(torch.zeros(3, dtype=DOUBLE), a)
    torch.testing.assert_close(x, torch.tensor([1.0, 2.0, 0.0], dtype=DOUBLE), atol=1e-12, rtol=1e-12)
    assert gradcheck(lambda a: root(torch.zeros(3, dtype=DOUBLE), a), a, check_forward_ad=True)
    with pytest.raises(InvalidProblem, match=r"same sign at -5.0 and 5.0 in 1 of 3"):
        root(torch.zeros(3, dtype=DOUBLE), torch.tensor([2.0, 500.0, 0.0], dtype=DOUBLE))
    with pytest.raises(InvalidParameter, match="low < high"):
        bisection(lambda x: x, 1.0, 0.0)


def test_memory_of_a_derivative_does_not_grow_with_the_solvers_iterations() -> None:
    def nodes(steps: int, unroll: bool) -> int:
        """Operations that autograd holds on to, and with them their tensors."""
        method = ProximalGradient(0.5 / CURVATURE)
        solver = differentiable(method, logistic, stop=Stop(steps=steps), unroll=unroll)
        w = solver(ZERO, torch.tensor(1.0, dtype=DOUBLE, requires_grad=True))
        seen, waiting = set(), [w.grad_fn]
        while waiting:
            node = waiting.pop()
            if node is not None and node not in seen:
                seen.add(node)
                waiting += [n for n, _ in node.next_functions]
        return len(seen)

    assert nodes(20, False) == nodes(200, False)
    assert nodes(200, True) > 8 * nodes(20, True)
