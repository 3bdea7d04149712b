"""The fast derivative of a cvxpy problem, against the slow one, closed forms and cvxpy itself."""

from __future__ import annotations

import warnings

import cvxpy as cp
import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch.autograd import forward_ad, gradcheck, gradgradcheck

from thalweg.bilevel import SolveInaccurate, cvxpy_layer
from thalweg.core import InvalidProblem, NotFinite
from thalweg.numerics.projections import psd_cone, simplex
from thalweg.numerics.torch_krylov import LinearSolver

DOUBLE = torch.float64


def numbers(*shape, seed=0):
    return torch.from_numpy(np.random.default_rng(seed).standard_normal(shape))


def quadratic(n=6, equations=2, inequalities=8):
    """Every number of it a parameter but the curvature."""
    x, c = cp.Variable(n), cp.Parameter(n)
    A, b = cp.Parameter((equations, n)), cp.Parameter(equations)
    G, h = cp.Parameter((inequalities, n)), cp.Parameter(inequalities)
    F = np.random.default_rng(7).standard_normal((n + 1, n))
    problem = cp.Problem(cp.Minimize(0.5 * cp.sum_squares(F @ x) + c @ x), [A @ x == b, G @ x <= h])
    sizes = ((n,), (equations, n), (equations,), (inequalities, n))
    values = [numbers(*size, seed=i) for i, size in enumerate(sizes)]
    inside = torch.linalg.pinv(values[1]) @ values[2]  # the problem has a solution
    return problem, [c, A, b, G, h], [x], [*values, values[3] @ inside + 0.5]


def cones(n=4):
    x, t, r = cp.Variable(n), cp.Parameter(n), cp.Parameter(nonneg=True)
    F = np.random.default_rng(3).standard_normal((n + 1, n))
    objective = cp.norm(F[:n] @ x - t) + 0.1 * cp.norm1(x) + 0.05 * cp.sum_squares(F @ x)
    problem = cp.Problem(
        cp.Minimize(objective), [cp.norm(x) <= r, cp.norm(x[:2]) <= 0.8 * r, cp.sum(x) >= -1]
    )
    return problem, [t, r], [x], [2 * numbers(n, seed=4), torch.tensor(0.7, dtype=DOUBLE)]


def semidefinite(n=3):
    P, C = cp.Variable((n, n)), cp.Parameter((n, n))
    problem = cp.Problem(cp.Minimize(cp.sum_squares(P - C) + 0.3 * cp.trace(P)), [P >> 0, P == P.T])
    S = numbers(n, n, seed=5)
    return problem, [C], [P], [S + S.T]


PROGRAMS = [quadratic, cones, semidefinite]


def slopes(layer, values, weights):
    values = [v.clone().requires_grad_() for v in values]
    return torch.autograd.grad((layer(*values) * weights).sum(), values)


class TestTheFastDerivative:
    @pytest.mark.parametrize("program", PROGRAMS)
    def test_is_that_of_the_dense_linear_solver_and_of_torch_func(self, program):
        problem, parameters, variables, values = program()
        fast = cvxpy_layer(problem, parameters, variables)
        slow = cvxpy_layer(problem, parameters, variables, solve=LinearSolver("dense"))
        w = numbers(*variables[0].shape, seed=9)
        ours, reference = slopes(fast, values, w), slopes(slow, values, w)
        func = torch.func.grad(lambda *v: (fast(*v) * w).sum(), tuple(range(len(values))))(*values)
        for a, b, c in zip(ours, reference, func, strict=True):
            torch.testing.assert_close(a, b, rtol=1e-9, atol=1e-10)
            torch.testing.assert_close(a, c, rtol=1e-9, atol=1e-10)

    @pytest.mark.parametrize("program", PROGRAMS[:2])
    def test_agrees_with_differences_of_solutions(self, program):
        problem, parameters, variables, values = program()
        layer = cvxpy_layer(problem, parameters, variables)
        assert gradcheck(layer, [v.clone().requires_grad_() for v in values], eps=1e-6, atol=1e-6, rtol=1e-5)

    def test_of_an_active_set_is_exact(self):
        """The simplex's projection: the active rows give the Jacobian in closed form."""
        x, t = cp.Variable(8), cp.Parameter(8)
        layer = cvxpy_layer(
            cp.Problem(cp.Minimize(cp.sum_squares(x - t)), [cp.sum(x) == 1, x >= 0]), [t], [x]
        )
        at = numbers(8, seed=1)
        torch.testing.assert_close(layer(at), simplex(at), rtol=0, atol=1e-14)
        inside = (simplex(at) > 0).double()
        projector = torch.diag(inside) - torch.outer(inside, inside) / inside.sum()
        found = torch.stack([slopes(layer, [at], e)[0] for e in torch.eye(8, dtype=DOUBLE)])
        torch.testing.assert_close(found, projector, rtol=0, atol=1e-14)

    def test_on_a_balls_edge_is_exact(self):
        x, t = cp.Variable(5), cp.Parameter(5)
        ball = cvxpy_layer(cp.Problem(cp.Minimize(cp.sum_squares(x - t)), [cp.norm(x) <= 1]), [t], [x])
        at, w = 3 * numbers(5, seed=2), numbers(5, seed=3)
        unit, size = at / at.norm(), at.norm()
        torch.testing.assert_close(ball(at), unit, rtol=0, atol=1e-12)
        torch.testing.assert_close(
            slopes(ball, [at], w)[0], (w - unit * (unit @ w)) / size, rtol=0, atol=1e-11
        )

    def test_of_semidefinite_matrices_is_exact(self):
        problem, parameters, variables, values = semidefinite()
        layer = cvxpy_layer(problem, parameters, variables)
        w = numbers(3, 3, seed=8)
        shifted = 0.15 * torch.eye(3, dtype=DOUBLE)  # half of the trace's weight
        torch.testing.assert_close(layer(*values), psd_cone(values[0] - shifted), rtol=0, atol=1e-13)
        (expected,) = slopes(lambda C: psd_cone(C - shifted), values, w)
        torch.testing.assert_close(slopes(layer, values, w)[0], expected, rtol=0, atol=1e-12)

    def test_is_differentiated_again(self):
        problem, parameters, variables, values = quadratic(3, 1, 3)
        layer = cvxpy_layer(problem, parameters, variables)
        assert gradgradcheck(layer, [v.clone().requires_grad_() for v in values], eps=1e-5, atol=1e-4)

    def test_in_forward_mode(self):
        problem, parameters, variables, values = quadratic(4, 1, 3)
        layer = cvxpy_layer(problem, parameters, variables)
        w, move = numbers(4, seed=1), numbers(4, seed=2)
        with forward_ad.dual_level():
            out = layer(forward_ad.make_dual(values[0], move), *values[1:])
            tangent = forward_ad.unpack_dual(out).tangent
        assert float(tangent @ w) == pytest.approx(float(slopes(layer, values, w)[0] @ move), rel=1e-9)

    def test_of_two_outputs_and_under_a_batch_of_cotangents(self):
        s, x, t = cp.Variable(), cp.Variable(2), cp.Parameter(2)
        problem = cp.Problem(cp.Minimize(cp.sum_squares(x - t) + cp.square(s - cp.sum(x))), [x >= 0.1])
        layer = cvxpy_layer(problem, [t], [x, s])
        t0 = torch.tensor([1.0, -1.0], dtype=DOUBLE, requires_grad=True)
        found, total = layer(t0)
        assert found.tolist() == pytest.approx([1.0, 0.1])
        assert total.item() == pytest.approx(1.1)
        rows = torch.func.vmap(lambda g: torch.autograd.grad(found, t0, g)[0])(torch.eye(2, dtype=DOUBLE))
        torch.testing.assert_close(
            rows, torch.diag(torch.tensor([1.0, 0.0], dtype=DOUBLE)), rtol=0, atol=1e-10
        )


class TestBatches:
    @pytest.mark.parametrize("program", PROGRAMS)
    def test_a_leading_axis_is_a_loop_over_its_problems(self, program):
        problem, parameters, variables, values = program()
        layer = cvxpy_layer(problem, parameters, variables)
        many = [torch.stack([(1.0 + 0.1 * i) * values[0] for i in range(5)]), *values[1:]]
        w = numbers(5, *variables[0].shape, seed=9)
        together = slopes(layer, many, w)
        one = [slopes(layer, [row, *values[1:]], v) for row, v in zip(many[0], w, strict=True)]
        torch.testing.assert_close(
            layer(*many), torch.stack([layer(row, *values[1:]) for row in many[0]]), rtol=1e-9, atol=1e-10
        )
        torch.testing.assert_close(together[0], torch.stack([s[0] for s in one]), rtol=1e-8, atol=1e-9)
        for i in range(1, len(values)):  # shared by all, so their gradients add up
            torch.testing.assert_close(together[i], sum(s[i] for s in one), rtol=1e-8, atol=1e-9)
        torch.testing.assert_close(
            layer(*many),
            torch.func.vmap(layer, (0, *[None] * (len(values) - 1)))(*many),
            rtol=1e-9,
            atol=1e-10,
        )

    @settings(max_examples=15, deadline=None)
    @given(st.integers(0, 10_000))
    def test_every_solution_satisfies_the_conditions_and_has_the_closed_form(self, seed):
        """Nearest points of an axis-parallel box cut by a hyperplane, with ties and points on its edge."""
        x, t = cp.Variable(4), cp.Parameter(4)
        layer = cvxpy_layer(
            cp.Problem(cp.Minimize(cp.sum_squares(x - t)), [cp.sum(x) == 1, x >= 0]), [t], [x]
        )
        points = torch.from_numpy(np.random.default_rng(seed).integers(-2, 3, (16, 4)) / 2.0)
        torch.testing.assert_close(layer(points), simplex(points), rtol=0, atol=1e-12)

    def test_lengths_that_differ_are_refused(self):
        problem, parameters, variables, values = quadratic()
        many = [values[0].repeat(3, 1), *values[1:4], values[4].repeat(2, 1)]
        with pytest.raises(InvalidProblem, match=r"one length; got \[2, 3\]"):
            cvxpy_layer(problem, parameters, variables)(*many)

    def test_an_infeasible_problem_among_others_is_told(self):
        x, t = cp.Variable(2), cp.Parameter(2)
        layer = cvxpy_layer(cp.Problem(cp.Minimize(cp.sum_squares(x)), [x >= t, x <= 1]), [t], [x])
        with pytest.raises(InvalidProblem, match="infeasible or unbounded"):
            layer(torch.tensor([[0.0, 0.5], [0.0, 2.0]], dtype=DOUBLE))
        good = layer(torch.tensor([[0.0, 0.5]], dtype=DOUBLE))  # the kept solver has not suffered
        torch.testing.assert_close(good, torch.tensor([[0.0, 0.5]], dtype=DOUBLE), rtol=0, atol=1e-12)


class TestDegenerateProblems:
    @pytest.mark.parametrize("copies", [1, 3])
    def test_rows_said_twice_change_neither_solution_nor_derivative(self, copies):
        x, t = cp.Variable(4), cp.Parameter(4)
        once = [cp.sum(x) == 1, x >= 0]
        many = once + copies * [x >= 0, 2 * cp.sum(x) == 2]
        at, w = torch.tensor([0.9, 0.4, -0.3, 0.2], dtype=DOUBLE), numbers(4, seed=1)
        plain, repeated = (
            cvxpy_layer(cp.Problem(cp.Minimize(cp.sum_squares(x - t)), c), [t], [x]) for c in (once, many)
        )
        torch.testing.assert_close(repeated(at), simplex(at), rtol=0, atol=1e-13)
        torch.testing.assert_close(
            slopes(repeated, [at], w)[0], slopes(plain, [at], w)[0], rtol=0, atol=1e-12
        )

    def test_a_linear_programs_vertex(self):
        x, c = cp.Variable(3), cp.Parameter(3)
        layer = cvxpy_layer(cp.Problem(cp.Minimize(c @ x), [x >= -1, x <= 2]), [c], [x])
        costs = torch.tensor([1.0, -2.0, 0.5], dtype=DOUBLE)
        torch.testing.assert_close(
            layer(costs), torch.tensor([-1.0, 2.0, -1.0], dtype=DOUBLE), rtol=0, atol=1e-12
        )
        torch.testing.assert_close(
            slopes(layer, [costs], costs)[0], torch.zeros(3, dtype=DOUBLE), rtol=0, atol=1e-12
        )

    def test_a_derivative_that_is_not_defined_is_told(self):
        x, c = cp.Variable(2), cp.Parameter(2)
        layer = cvxpy_layer(cp.Problem(cp.Minimize(c @ x), [x >= 0, x <= 1]), [c], [x])
        costs = torch.tensor([0.0, 1.0], dtype=DOUBLE)  # any first entry is as good as another
        with pytest.warns(SolveInaccurate, match="not unique"):
            slopes(layer, [costs], torch.tensor([1.0, 0.0], dtype=DOUBLE))
        with warnings.catch_warnings():
            warnings.simplefilter("error")  # the second is one
            assert slopes(layer, [costs], torch.tensor([0.0, 1.0], dtype=DOUBLE))[0].tolist() == [0.0, 0.0]

    def test_a_problem_without_parameters_is_refused(self):
        x = cp.Variable(2)
        with pytest.raises(InvalidProblem, match="has none"):
            cvxpy_layer(cp.Problem(cp.Minimize(cp.sum_squares(x))), [], [x])

    def test_a_problem_without_constraints(self):
        x, q = cp.Variable(3), cp.Parameter(3)
        layer = cvxpy_layer(cp.Problem(cp.Minimize(0.5 * cp.sum_squares(x) + q @ x)), [q], [x])
        at = numbers(3)
        torch.testing.assert_close(layer(at), -at, rtol=0, atol=1e-13)
        torch.testing.assert_close(slopes(layer, [at], at)[0], -at, rtol=0, atol=1e-13)

    @pytest.mark.parametrize("scale", [1e-6, 1e6])
    def test_data_in_any_unit(self, scale):
        problem, parameters, variables, values = quadratic()
        layer = cvxpy_layer(problem, parameters, variables)
        c, A, b, G, h = values
        scaled = [scale * c, A, scale * b, G, scale * h]
        torch.testing.assert_close(layer(*scaled), scale * layer(*values), rtol=1e-9, atol=1e-12 * scale)

    @pytest.mark.parametrize("path", ["autograd", "func"])
    @pytest.mark.parametrize("unit", [1e-150, 1e-9, 1e-6, 1e6, 1e9])
    def test_the_nearest_point_of_a_ball_in_any_unit(self, unit, path):
        """``r a/|a|``, whose derivative is ``r/|a| (I - a a'/|a|^2)``, and ``a/|a|`` in r."""
        x, t, r = cp.Variable(3), cp.Parameter(3), cp.Parameter()
        layer = cvxpy_layer(cp.Problem(cp.Minimize(cp.sum_squares(x - t)), [cp.norm(x, 2) <= r]), [t, r], [x])
        a = torch.tensor([2.0, -1.0, 2.0], dtype=DOUBLE)
        values = [unit * a, torch.tensor(1.5 * unit, dtype=DOUBLE)]
        if path == "func":
            in_a, in_r = torch.func.jacrev(layer, argnums=(0, 1))(*values)
        else:
            in_a, in_r = torch.autograd.functional.jacobian(layer, tuple(values))
        torch.testing.assert_close(layer(*values) / unit, 0.5 * a, rtol=1e-10, atol=0)
        expected = 0.5 * (torch.eye(3, dtype=DOUBLE) - torch.outer(a, a) / 9.0)
        torch.testing.assert_close(in_a, expected, rtol=1e-10, atol=1e-12)
        torch.testing.assert_close(in_r, a / 3.0, rtol=1e-10, atol=1e-12)

    @pytest.mark.parametrize("path", ["autograd", "func"])
    @pytest.mark.parametrize("unit", [1e-12, 1e-6, 1e6, 1e12])
    @pytest.mark.parametrize("kind", ["objective", "row", "unknown"])
    def test_an_answer_does_not_depend_on_a_unit(self, kind, unit, path):
        x, c, w = cp.Variable(3), cp.Parameter(3), cp.Parameter(nonneg=True)
        g, h, D = cp.Parameter(3), cp.Parameter(), cp.Parameter((3, 3))
        apart = cp.Variable(3)
        objective, rows = w * cp.sum_squares(apart) + c @ x, [apart == D @ x - 1, g @ x <= h]
        layer = cvxpy_layer(cp.Problem(cp.Minimize(objective), rows), [c, w, D, g, h], [x])
        values = [torch.tensor(v, dtype=DOUBLE) for v in ([0.1, -0.2, 0.3], 2.0, np.eye(3), [1.0, 2.0, 1.0])]
        values.append(torch.tensor(0.5, dtype=DOUBLE))
        first = torch.tensor([1.0, 1.0 / unit, 1.0], dtype=DOUBLE)  # the second unknown in units of its own
        factors = {
            "objective": [unit, unit, 1.0, 1.0, 1.0],
            "row": [1.0, 1.0, 1.0, unit, unit],
            "unknown": [first, 1.0, first, first, 1.0],
        }[kind]
        plain = torch.tensor([1.0, -2.0, 0.5], dtype=DOUBLE)
        scaled = [f * v for f, v in zip(factors, values, strict=True)]

        def slopes_of(values, weights):
            if path == "autograd":
                return slopes(layer, values, weights)
            return torch.func.grad(lambda *v: (layer(*v) * weights).sum(), tuple(range(5)))(*values)

        ours = slopes_of(scaled, plain * (first if kind == "unknown" else 1.0))
        for factor, one, other in zip(factors, ours, slopes_of(values, plain), strict=True):
            torch.testing.assert_close(factor * one, other, rtol=1e-8, atol=1e-10)

    def test_a_solution_is_as_cvxpy_finds_it(self):
        problem, parameters, variables, values = cones()
        for parameter, value in zip(parameters, values, strict=True):
            parameter.value = value.numpy()
        problem.solve(solver=cp.CLARABEL)
        found = cvxpy_layer(problem, parameters, variables)(*values)
        np.testing.assert_allclose(found.numpy(), variables[0].value, atol=1e-6)


class TestValues:
    def test_keep_their_type(self):
        problem, parameters, variables, values = quadratic()
        layer = cvxpy_layer(problem, parameters, variables)
        single = [v.float().requires_grad_() for v in values]
        found = layer(*single)
        assert found.dtype == torch.float32
        torch.testing.assert_close(found, layer(*values).float(), rtol=1e-4, atol=1e-5)
        assert torch.autograd.grad(found.sum(), single)[3].dtype == torch.float32

    def test_that_are_not_finite_or_complex_are_refused(self):
        x, t = cp.Variable(2), cp.Parameter(2, name="t")
        layer = cvxpy_layer(cp.Problem(cp.Minimize(cp.sum_squares(x - t))), [t], [x])
        with pytest.raises(NotFinite, match="NaN or infinite"):
            layer(torch.tensor([1.0, torch.nan], dtype=DOUBLE))
        with pytest.raises(InvalidProblem, match="Parameter t is complex"):
            layer(torch.tensor([1.0, 1.0j]))

    def test_calls_do_not_see_each_other(self):
        """The solver is kept: numbers of an earlier call must not stay in it."""
        problem, parameters, variables, values = quadratic()
        layer = cvxpy_layer(problem, parameters, variables)
        other = [1.3 * v for v in values]
        first = layer(*values)
        layer(*other)
        with warnings.catch_warnings():
            warnings.simplefilter("error")
            torch.testing.assert_close(layer(*values), first, rtol=1e-11, atol=1e-12)
        fresh = cvxpy_layer(problem, parameters, variables)
        torch.testing.assert_close(fresh(*other), layer(*other), rtol=1e-11, atol=1e-12)


def test_arrays_and_numbers_are_taken_and_words_refused():
    x, t = cp.Variable(2), cp.Parameter(2)
    layer = cvxpy_layer(cp.Problem(cp.Minimize(cp.sum_squares(x - t)), [cp.sum(x) == 1]), [t], [x])
    for taken in (np.array([1.0, 2.0]), [1.0, 2.0], np.array([1, 2])):
        torch.testing.assert_close(
            layer(taken).double(), torch.tensor([0.0, 1.0]).double(), atol=1e-12, rtol=0
        )
    with pytest.raises(InvalidProblem, match="Value 0 of the layer is a tensor or an array of numbers"):
        layer(["a", "b"])


class TestAttributes:
    @pytest.mark.parametrize(
        ("attribute", "low", "high"),
        [
            ({"nonneg": True}, 0.0, torch.inf),
            ({"nonpos": True}, -torch.inf, 0.0),
            ({"bounds": [-0.5, 1.0]}, -0.5, 1.0),
        ],
    )
    def test_signs_and_bounds_of_variables_are_constraints(self, attribute, low, high):
        """The nearest point of a box is the clipped one, and its derivative says which entries are inside."""
        x, t = cp.Variable(3, **attribute), cp.Parameter(3)
        y = cp.Variable(2)
        problem = cp.Problem(cp.Minimize(cp.sum_squares(x - t) + cp.sum_squares(y - t[:2])))
        layer = cvxpy_layer(problem, [t], [y, x])
        at = torch.tensor([1.5, -0.2, -2.0], dtype=DOUBLE, requires_grad=True)
        free, boxed = layer(at)
        torch.testing.assert_close(boxed, at.detach().clamp(low, high), rtol=0, atol=1e-12)
        torch.testing.assert_close(free, at[:2].detach(), rtol=0, atol=1e-12)
        inside = ((at > low) & (at < high)).double()
        (slope,) = torch.autograd.grad(boxed.sum(), at)
        torch.testing.assert_close(slope, inside, rtol=0, atol=1e-10)

    def test_a_value_against_its_parameters_sign_is_refused(self):
        """There the problem is not convex, and a solver may answer all the same."""
        x, t, q = cp.Variable(2), cp.Parameter((2,), name="t"), cp.Parameter(nonneg=True, name="q")
        box = [x >= -1, x <= 1]
        problem = cp.Problem(cp.Minimize(cp.sum_squares(x - t) + q * cp.sum_squares(x)), box)
        layer = cvxpy_layer(problem, [q, t], [x])
        at = torch.tensor([0.5, 0.2], dtype=DOUBLE)
        torch.testing.assert_close(layer(torch.tensor(1.0, dtype=DOUBLE), at), at / 2, rtol=0, atol=1e-12)
        with pytest.raises(InvalidProblem, match=r"parameter q is declared to lie in \[0, inf\]; got -2"):
            layer(torch.tensor([0.0, -2.0], dtype=DOUBLE), at)
        with pytest.raises(InvalidProblem, match="parameter q is declared"):
            torch.func.jacrev(layer)(torch.tensor(-2.0, dtype=DOUBLE), at)

    def test_bounds_of_parameters_hold_entry_by_entry(self):
        x = cp.Variable((2, 2))
        t = cp.Parameter((2, 2), name="t", bounds=[np.array([[0.0, -1.0], [-2.0, -3.0]]), 9.0])
        layer = cvxpy_layer(cp.Problem(cp.Minimize(cp.sum_squares(x - t))), [t], [x])
        inside = torch.tensor([[0.5, -0.5], [-1.5, -2.5]], dtype=DOUBLE)
        torch.testing.assert_close(layer(inside), inside, rtol=0, atol=1e-12)
        with pytest.raises(InvalidProblem, match=r"t is declared to lie in \[-1, 9\]; got -1.5"):
            layer(torch.tensor([[0.5, -1.5], [-0.5, -0.5]], dtype=DOUBLE))

    @pytest.mark.parametrize("attribute", ["integer", "boolean", "complex", "symmetric", "PSD"])
    def test_others_are_refused_by_name(self, attribute):
        x, t = cp.Variable((2, 2), name="x", **{attribute: True}), cp.Parameter((2, 2))
        problem = cp.Problem(cp.Minimize(cp.sum_squares(x - t)))
        with pytest.raises(InvalidProblem, match=f"x has the attribute {attribute}"):
            cvxpy_layer(problem, [t], [x])
