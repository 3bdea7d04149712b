"""Implicit derivatives where they were silently absent or wrong: modules, captured and complex tensors, nesting."""

from __future__ import annotations

import warnings

import cvxpy as cp
import pytest
import torch
from torch import nn
from torch.autograd import forward_ad

from thalweg.bilevel import ProximalGradient, custom_fixed_point, custom_root, cvxpy_layer, differentiable
from thalweg.core import InvalidProblem, NotFinite
from thalweg.numerics import projections
from thalweg.numerics.torch_krylov import LinearSolver

DOUBLE = torch.float64


def tensor(*values, requires_grad=False):
    return torch.tensor(values[0] if len(values) == 1 else values, dtype=DOUBLE, requires_grad=requires_grad)


class TestWhatTheConditionDependsOn:
    def test_a_tensor_that_is_not_handed_over_is_refused_and_as_an_argument_is_right(self):
        W, t = tensor(3.0, requires_grad=True), tensor(2.0, requires_grad=True)
        captured = custom_root(lambda x, t: W * x - t)(lambda x0, t: (t / W).detach())
        with pytest.raises(
            InvalidProblem, match=r"tensor of shape \(\) that has a gradient and is not among"
        ):
            captured(tensor(0.0), t)
        handed = custom_root(lambda x, t, W: W * x - t)(lambda x0, t, W: t / W)
        handed(tensor(0.0), t, W).backward()
        assert (t.grad.item(), W.grad.item()) == pytest.approx((1 / 3, -2 / 9))

    def test_one_that_other_tensors_were_made_of_is_refused_too(self):
        W = tensor([1.0, 2.0], requires_grad=True)
        made = 2.0 * W
        with pytest.raises(InvalidProblem, match=r"shape \(2,\)"):
            custom_root(lambda x, t: made * x - t)(lambda x0, t: t / made)(None, tensor([1.0, 1.0]))

    def test_a_module_in_a_closure_is_refused_and_a_frozen_one_is_not(self):
        layer = nn.Linear(2, 2).double()
        fixed = custom_fixed_point(lambda x, t: 0.1 * layer(x) + t)(
            lambda x0, t: solved(lambda x: 0.1 * layer(x) + t, 2)
        )
        with pytest.raises(InvalidProblem, match="or its module, as part of theta"):
            fixed(None, tensor([1.0, 0.0], requires_grad=True))
        layer.requires_grad_(False)
        t = tensor([1.0, 0.0], requires_grad=True)
        fixed(None, t).sum().backward()
        expected = torch.linalg.solve(torch.eye(2) - 0.1 * layer.weight.T, torch.ones(2, dtype=DOUBLE))
        torch.testing.assert_close(t.grad, expected)

    @pytest.mark.parametrize(
        "make", [lambda: nn.Linear(3, 3), lambda: nn.Sequential(nn.Linear(3, 4), nn.Tanh(), nn.Linear(4, 3))]
    )
    def test_a_modules_parameters_get_the_gradient_of_the_unrolled_solver(self, make):
        module, t = make().double(), tensor([0.5, -1.0, 2.0], requires_grad=True)

        def contraction(x, module, t):
            return 0.3 * torch.tanh(module(x)) + t

        fixed = custom_fixed_point(contraction)(
            lambda x0, module, t: solved(lambda x: contraction(x, module, t))
        )
        parameters = [*module.parameters(), t]
        ours = torch.autograd.grad(fixed(None, module, t).square().sum(), parameters)
        unrolled = torch.autograd.grad(solved(lambda x: contraction(x, module, t)).square().sum(), parameters)
        for mine, theirs in zip(ours, unrolled, strict=True):
            torch.testing.assert_close(mine, theirs, rtol=1e-9, atol=1e-12)

    def test_a_condition_may_read_a_modules_attributes(self):
        layer, net = nn.Linear(1, 1, bias=False).double(), nn.Sequential(nn.Linear(1, 1, bias=False)).double()
        net[0].weight.data = layer.weight.data.clone()
        by_name = custom_root(lambda x, m: m.weight[0, 0] * x - 1.0)(lambda x0, m: 1.0 / m.weight[0, 0])
        by_place = custom_root(lambda x, m: m[0].weight[0, 0] * x - 1.0)(
            lambda x0, m: 1.0 / m[0].weight[0, 0]
        )
        for root, module, weight in ((by_name, layer, layer.weight), (by_place, net, net[0].weight)):
            (slope,) = torch.autograd.grad(root(None, module), weight)
            assert slope.item() == pytest.approx(-1.0 / layer.weight.item() ** 2)

    def test_arguments_may_be_named(self):
        root = custom_root(lambda x, a, b: a * x - b)(lambda x0, a, b: b / a)
        a, b = tensor(2.0, requires_grad=True), tensor(6.0, requires_grad=True)
        slopes = torch.autograd.grad(root(None, b=b, a=a), (a, b))
        assert [s.item() for s in slopes] == pytest.approx([-1.5, 0.5])
        with pytest.raises(TypeError, match="unexpected keyword argument 'c'"):
            root(None, a, b, c=b)

    @pytest.mark.parametrize("where", ["theta", "x"])
    def test_complex_tensors_are_refused(self, where):
        t = torch.tensor([1 + 1j, 2.0]) if where == "theta" else torch.ones(2)
        root = custom_root(lambda x, t: x - t)(lambda x0, t: t.clone() + (0 if where == "theta" else 0j))
        with pytest.raises(InvalidProblem, match=r"shape \(2,\) is complex"):
            root(torch.zeros(2), t.requires_grad_())

    def test_a_solution_that_is_nan_is_named(self):
        root = custom_root(lambda x, a: x * x - a)(lambda x0, a: a.sqrt() * torch.nan)
        x = root(None, tensor([4.0], requires_grad=True))
        with pytest.raises(NotFinite, match="solver may have returned NaN"):
            x.sum().backward()


def solved(T, n=3):
    """The fixed point of a contraction of n numbers."""
    x = torch.zeros(n, dtype=DOUBLE)
    for _ in range(60):
        x = T(x)
    return x


class TestNested:
    """``z = 3 sqrt(a) + a``, where the root is an implicit function of its own."""

    root = staticmethod(custom_root(lambda x, a: x * x - a)(lambda x0, a: a.sqrt()))
    outer = staticmethod(
        custom_root(lambda z, a: z - 3 * TestNested.root(torch.ones_like(a), a) - a)(
            lambda x0, a: 3 * a.sqrt() + a
        )
    )

    @pytest.mark.parametrize("jacobian", [torch.func.jacfwd, torch.func.jacrev])
    def test_first_derivatives(self, jacobian):
        assert jacobian(lambda a: self.outer(None, a))(tensor(4.0)).item() == pytest.approx(1.75)

    @pytest.mark.parametrize(
        "second",
        [
            torch.func.hessian,
            lambda f: torch.func.jacrev(torch.func.jacfwd(f)),
            lambda f: torch.func.jacrev(torch.func.jacrev(f)),
        ],
    )
    def test_second_derivatives(self, second):
        assert second(lambda a: self.outer(None, a))(tensor(4.0)).item() == pytest.approx(-3 / 32)

    def test_autograds_forward_mode_and_samples(self):
        with forward_ad.dual_level():
            dual = forward_ad.make_dual(tensor(4.0), tensor(2.0))
            assert forward_ad.unpack_dual(self.outer(None, dual)).tangent.item() == pytest.approx(3.5)
        a = tensor([1.0, 4.0, 9.0])
        found = torch.func.vmap(torch.func.hessian(lambda a: self.outer(None, a)))(a)
        torch.testing.assert_close(found, -0.75 * a**-1.5)

    def test_forward_within_forward(self):
        twice = torch.func.jacfwd(torch.func.jacfwd(lambda a: self.outer(None, a)))
        assert twice(tensor(4.0)).item() == pytest.approx(-3 / 32)
        pytrees = custom_root(lambda x, a: {"p": x["p"] * x["p"] - a[0], "q": x["q"] - x["p"] * a[1]})(
            lambda x0, a: {"p": a[0].sqrt(), "q": a[0].sqrt() * a[1]}
        )
        both = (tensor(4.0), tensor(3.0))
        mixed = torch.func.jacfwd(
            torch.func.jacfwd(lambda s, t: pytrees(None, (s, t))["q"], argnums=0), argnums=1
        )
        assert mixed(*both).item() == pytest.approx(1 / 4)

    def test_forward_within_forward_is_refused_where_it_would_be_wrong(self):
        twice = torch.func.jacfwd(torch.func.jacfwd(lambda a: self.root(None, a)))
        with pytest.raises(InvalidProblem, match="Forward mode inside forward mode"):
            torch.func.vmap(twice)(tensor([1.0, 4.0]))
        with pytest.raises(InvalidProblem, match=r"hessian\(f\)"):
            twice(tensor(4.0, requires_grad=True))


class TestSetsInConditions:
    def test_a_polyhedron(self):
        G, h = torch.eye(3, dtype=DOUBLE), torch.ones(3, dtype=DOUBLE)
        nearest = differentiable(
            ProximalGradient(),
            lambda x, t: 0.5 * (x - t).square().sum(),
            lambda y, theta, scale: projections.polyhedron(y, G, h),
        )
        t = tensor([2.0, 0.0, -1.0], requires_grad=True)
        nearest(torch.zeros(3, dtype=DOUBLE), t).sum().backward()
        assert t.grad.tolist() == pytest.approx([0.0, 1.0, 1.0])

    def test_many_problems_at_once_and_the_size_of_the_set(self):
        nearest = differentiable(
            ProximalGradient(),
            lambda x, t: 0.5 * (x - t).square().sum(),
            lambda y, size, scale: projections.simplex(y, size),
        )
        points, sizes = tensor([[0.3, 0.1], [2.0, 0.0]]), tensor([1.0, 0.5])
        slopes = torch.func.vmap(
            torch.func.jacrev(lambda t, s: nearest(torch.zeros(2, dtype=DOUBLE), t, s), argnums=1)
        )
        torch.testing.assert_close(
            slopes(points, sizes), tensor([[0.5, 0.5], [1.0, 0.0]]), rtol=1e-6, atol=1e-6
        )


class TestProgramsOfCvxpy:
    def test_a_radius_is_a_parameter_of_no_dimension(self):
        x, t, r = cp.Variable(3), cp.Parameter(3), cp.Parameter(nonneg=True)
        ball = cvxpy_layer(cp.Problem(cp.Minimize(cp.sum_squares(x - t)), [cp.norm(x) <= r]), [t, r], [x])
        radius = tensor(1.5, requires_grad=True)
        found = ball(tensor([1.0, 2.0, -2.0]), radius)
        torch.testing.assert_close(found, tensor([0.5, 1.0, -1.0]), rtol=1e-8, atol=1e-8)
        (slope,) = torch.autograd.grad(found[1], radius)
        assert slope.item() == pytest.approx(2 / 3)

    def test_a_variable_of_no_dimension(self):
        s, t = cp.Variable(), cp.Parameter(3)
        layer = cvxpy_layer(cp.Problem(cp.Minimize(-cp.sum(s * [1.0, 1.0, 1.0]) / 3), [s <= t]), [t], [s])
        t0 = tensor([3.0, 1.0, 2.0], requires_grad=True)
        found = layer(t0)
        assert found.shape == ()
        assert found.item() == pytest.approx(1.0)
        found.backward()
        assert t0.grad.tolist() == pytest.approx([0.0, 1.0, 0.0], abs=1e-6)

    @pytest.mark.parametrize("repeated", ["inequality", "equality"])
    def test_constraints_that_are_said_twice_change_nothing(self, repeated):
        """The nearest point of the simplex, whose rows are repeated."""
        x, t = cp.Variable(4), cp.Parameter(4)
        constraints = [x >= 0, cp.sum(x) == 1] + (
            [x >= 0] if repeated == "inequality" else [2 * cp.sum(x) == 2]
        )
        layer = cvxpy_layer(cp.Problem(cp.Minimize(cp.sum_squares(x - t)), constraints), [t], [x])
        point = tensor([0.9, 0.4, -0.3, 0.2])
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            torch.testing.assert_close(layer(point), projections.simplex(point), rtol=1e-10, atol=1e-10)


def test_an_error_of_the_condition_itself_is_raised_at_once():
    calls = []

    def condition(x, a):
        calls.append(None)
        if len(calls) > 1:
            raise RuntimeError("the licence has expired")
        return x - a

    a = tensor([1.0], requires_grad=True)
    x = custom_root(condition, solve=LinearSolver("dense"))(lambda x0, a: a.detach())(None, a)
    with pytest.raises(RuntimeError, match="licence has expired"):
        x.sum().backward()
    assert len(calls) == 2
