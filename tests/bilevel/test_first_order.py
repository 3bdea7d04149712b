"""First derivatives from one graph, against those that can be differentiated again."""

from __future__ import annotations

import warnings

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import nn
from torch.autograd import forward_ad

from thalweg.bilevel import NotARoot, SolveInaccurate, custom_fixed_point, custom_root, root_vjp
from thalweg.core import InvalidProblem
from thalweg.numerics.torch_krylov import METHODS, LinearSolver

DOUBLE = torch.float64


def numbers(*shape, seed=0):
    return torch.randn(*shape, dtype=DOUBLE, generator=torch.Generator().manual_seed(seed))


def both(f, *arguments):
    """Gradients of a scalar by the one graph, and by the way that keeps a graph of its own."""
    own = [a.clone().requires_grad_() for a in arguments]
    fast = torch.autograd.grad(f(*own), own, allow_unused=True)
    slow = torch.autograd.grad(f(*own), own, create_graph=True, allow_unused=True)
    return fast, slow


def newton(condition, x, *theta):
    for _ in range(30):
        x = x - torch.linalg.solve(torch.func.jacrev(condition)(x, *theta), condition(x, *theta))
    return x


@pytest.mark.parametrize("method", METHODS)
@settings(max_examples=12, deadline=None)
@given(st.integers(0, 100))
def test_of_a_nonlinear_condition_are_those_of_the_other_way(method, seed):
    B = numbers(5, 5, seed=seed)
    B = B @ B.T + torch.eye(5, dtype=DOUBLE)  # symmetric, so that every method takes it

    def condition(x, a, b):
        return B @ x + x**3 - a * b

    solve = custom_root(condition, solve=LinearSolver(method, tol=1e-12))(
        lambda x, a, b: newton(condition, x, a, b)
    )
    w = numbers(5, seed=seed + 1)
    fast, slow = both(
        lambda a, b: solve(torch.zeros(5, dtype=DOUBLE), a, b) @ w,
        numbers(5, seed=seed + 2),
        numbers(5, seed=seed + 3),
    )
    for mine, theirs in zip(fast, slow, strict=True):
        torch.testing.assert_close(mine, theirs, rtol=1e-8, atol=1e-10)


@pytest.mark.parametrize("method", ["dense", "gmres", "normal-cg"])
def test_of_pytrees_and_matrices(method):
    """Leaves of several shapes, one without any influence on the condition of another."""

    def move(x, theta):
        return {
            "p": (0.3 * torch.cos(x["q"]).sum(0), 0.2 * x["p"][0] + theta["t"]),
            "q": 0.1 * x["p"][1] * theta["M"],
        }

    @custom_fixed_point(move, solve=LinearSolver(method, tol=1e-12))
    def solve(x, theta):
        for _ in range(100):
            x = move(x, theta)
        return x

    start = {
        "p": (torch.zeros(3, dtype=DOUBLE), torch.zeros(3, dtype=DOUBLE)),
        "q": torch.zeros(2, 3, dtype=DOUBLE),
    }

    def total(t, M):
        found = solve(start, {"t": t, "M": M, "label": torch.tensor([1, 2])})
        return found["p"][0].sum() + found["q"].square().sum()

    fast, slow = both(total, numbers(3), numbers(2, 3, seed=1))
    for mine, theirs in zip(fast, slow, strict=True):
        torch.testing.assert_close(mine, theirs, rtol=1e-9, atol=1e-11)


def test_of_leaves_and_theta_that_the_condition_does_not_see():
    solve = custom_root(lambda x, a, b: (x[0] - a, x[1] - 2.0))(
        lambda x, a, b: (a.clone(), torch.full_like(a, 2.0))
    )
    a, b = (numbers(2, seed=i).requires_grad_() for i in range(2))
    x = solve(None, a, b)
    slopes = torch.autograd.grad((x[0] + x[1]).sum(), (a, b))
    assert [s.tolist() for s in slopes] == [[1.0, 1.0], [0.0, 0.0]]
    flat = custom_root(lambda x, a: torch.ones(2, dtype=DOUBLE) * 0.0)(lambda x, a: a.clone())
    with pytest.warns(SolveInaccurate, match="singular"):  # nothing depends on anything
        assert torch.autograd.grad(flat(None, a).sum(), a)[0].tolist() == [0.0, 0.0]


def test_where_theta_holds_a_sparse_matrix():
    S = torch.tensor([[2.0, 0.0], [1.0, 3.0]], dtype=DOUBLE).to_sparse()
    solve = custom_root(lambda x, a, S: x - torch.sparse.mm(S, a[:, None])[:, 0])(lambda x0, a, S: S @ a)
    a = numbers(2).requires_grad_()
    assert torch.autograd.grad(solve(None, a, S).sum(), a)[0].tolist() == pytest.approx([3.0, 3.0])


def test_of_nested_functions_are_exact():
    root = custom_root(lambda x, a: x * x - a)(lambda x0, a: a.sqrt())
    outer = custom_root(lambda z, a: z - 3 * root(torch.ones_like(a), a) - a)(lambda x0, a: 3 * a.sqrt() + a)
    a = torch.tensor([1.0, 4.0], dtype=DOUBLE, requires_grad=True)
    (slope,) = torch.autograd.grad(outer(None, a).sum(), a)
    assert slope.tolist() == pytest.approx([2.5, 1.75])


def test_evaluate_the_condition_once():
    calls = []

    def condition(x, a):
        calls.append(None)
        return x**3 - a

    solve = custom_root(condition, solve=LinearSolver("gmres"))(lambda x0, a: a ** (1 / 3))
    a = numbers(50).abs().requires_grad_()
    solve(None, a)  # looks once at what the condition captures
    calls.clear()
    torch.autograd.grad(solve(None, a).sum(), a)
    assert len(calls) == 1


def test_leave_what_the_user_has_alone():
    """Neither gradients of parameters, nor theta, nor the cotangent change; a second backward is the first again."""
    layer = nn.Linear(3, 3).double()
    solve = custom_fixed_point(lambda x, m, t: 0.3 * torch.tanh(m(x)) + t)(
        lambda x0, m, t: _iterated(lambda x: 0.3 * torch.tanh(m(x)) + t)
    )
    t, v = numbers(3).requires_grad_(), numbers(3, seed=1)
    x = solve(None, layer, t)
    before = t.detach().clone(), v.clone()
    first = torch.autograd.grad(x, (t, *layer.parameters()), v, retain_graph=True)
    assert layer.weight.grad is None
    again = torch.autograd.grad(x, (t, *layer.parameters()), v)
    for a, b in zip(first, again, strict=True):
        assert torch.equal(a, b)
    assert torch.equal(t.detach(), before[0])
    assert torch.equal(v, before[1])
    assert not first[0].requires_grad


def _iterated(move):
    x = torch.zeros(3, dtype=DOUBLE)
    for _ in range(80):
        x = move(x)
    return x


def test_tell_what_the_other_way_tells():
    rough = custom_root(lambda x, a: x * x - a)(lambda x0, a: torch.ones_like(a))
    a = torch.full((2,), 4.0, dtype=DOUBLE, requires_grad=True)
    with pytest.warns(NotARoot, match="residual of 3"):
        rough(None, a).sum().backward()
    flat = custom_root(lambda x, a: torch.stack([x[0] - a[0], 0.0 * x[1]]))(lambda x0, a: a.clone())
    with pytest.warns(SolveInaccurate, match="singular"):
        flat(None, a).sum().backward()
    with pytest.raises(InvalidProblem, match="expected those of x"):
        custom_root(lambda x, a: torch.cat([x, x]) - 1.0)(lambda x0, a: a.clone())(None, a)


def test_are_not_taken_where_somebody_differentiates_again():
    """Reverse over reverse, forward over reverse by dual numbers, and a vjp at places that have a gradient."""
    root = custom_root(lambda x, a: x * x - a)(lambda x0, a: a.sqrt())
    a = torch.tensor([4.0], dtype=DOUBLE, requires_grad=True)
    (slope,) = torch.autograd.grad(root(None, a).sum(), a, create_graph=True)
    assert torch.autograd.grad(slope.sum(), a)[0].item() == pytest.approx(-1 / 32)
    with forward_ad.dual_level():
        dual = forward_ad.make_dual(a, torch.ones_like(a))
        (slope,) = torch.autograd.grad(root(None, dual).sum(), dual)
        assert forward_ad.unpack_dual(slope).tangent.item() == pytest.approx(-1 / 32)
    x = a.sqrt()
    (slope,) = root_vjp(lambda x, a: x * x - a, x, (a,), torch.ones(1, dtype=DOUBLE))
    assert torch.autograd.grad(slope, a)[0].item() == pytest.approx(-1 / 32)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        with torch.no_grad():
            (slope,) = root_vjp(lambda x, a: x * x - a, x, (a,), torch.ones(1, dtype=DOUBLE))
    assert not slope.requires_grad
