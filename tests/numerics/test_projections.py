"""Projections and proximal operators against cvxpy, finite differences, and what a nearest point has to satisfy."""

from __future__ import annotations

import cvxpy as cp
import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch.autograd import gradcheck

from thalweg.core import InvalidParameter, InvalidProblem
from thalweg.numerics import projections, prox

DOUBLE = torch.float64
N = 5
A = np.random.default_rng(3).standard_normal((2, N))
B = A @ np.linspace(0, 1, N)
G = np.random.default_rng(4).standard_normal((7, N))
H = G @ np.linspace(0.2, 0.5, N) + 0.3
LOW, HIGH = np.linspace(-1, 0, N), np.linspace(0.2, 1, N)
WEIGHTS = np.linspace(0.5, 2.0, N)


def tensor(x) -> torch.Tensor:
    return torch.as_tensor(np.asarray(x), dtype=DOUBLE)


#: Name: our projection of a vector, and the constraints of cvxpy's.
SETS = {
    "nonnegative": (projections.nonnegative, lambda y: [y >= 0]),
    "box": (lambda x: projections.box(x, tensor(LOW), tensor(HIGH)), lambda y: [y >= LOW, y <= HIGH]),
    "simplex": (lambda x: projections.simplex(x, 2.0), lambda y: [y >= 0, cp.sum(y) == 2]),
    "l1 ball": (lambda x: projections.l1_ball(x, 1.5), lambda y: [cp.norm1(y) <= 1.5]),
    "l2 ball": (lambda x: projections.l2_ball(x, 1.5), lambda y: [cp.norm(y) <= 1.5]),
    "linf ball": (lambda x: projections.linf_ball(x, 0.7), lambda y: [cp.norm_inf(y) <= 0.7]),
    "hyperplane": (lambda x: projections.hyperplane(x, tensor(WEIGHTS), 1.0), lambda y: [WEIGHTS @ y == 1]),
    "halfspace": (lambda x: projections.halfspace(x, tensor(WEIGHTS), 1.0), lambda y: [WEIGHTS @ y <= 1]),
    "affine set": (lambda x: projections.affine_set(x, tensor(A), tensor(B)), lambda y: [A @ y == B]),
    "box section": (
        lambda x: projections.box_section(x, tensor(LOW), tensor(HIGH), tensor(WEIGHTS), 0.3),
        lambda y: [y >= LOW, y <= HIGH, WEIGHTS @ y == 0.3],
    ),
    "polyhedron": (lambda x: projections.polyhedron(x, tensor(G), tensor(H)), lambda y: [G @ y <= H]),
    "polyhedron with equations": (
        lambda x: projections.polyhedron(
            x, tensor(G), tensor(G @ np.linspace(0, 1, N) + 0.1), tensor(A), tensor(B)
        ),
        lambda y: [G @ y <= G @ np.linspace(0, 1, N) + 0.1, A @ y == B],
    ),
    "second-order cone": (projections.second_order_cone, lambda y: [cp.norm(y[:-1]) <= y[-1]]),
}
vectors = st.lists(st.floats(-3, 3), min_size=N, max_size=N).map(np.array)


def nearest(x: np.ndarray, constraints) -> np.ndarray:
    y = cp.Variable(x.shape)
    cp.Problem(cp.Minimize(cp.sum_squares(y - x)), constraints(y)).solve(
        solver=cp.CLARABEL, tol_gap_abs=1e-12, tol_gap_rel=1e-12, tol_feas=1e-12
    )
    return np.asarray(y.value)


@pytest.mark.parametrize("name", [name for name in SETS if name != "second-order cone"])
@settings(max_examples=12)
@given(vectors)
def test_nearest_point_is_cvxpys(name: str, x: np.ndarray) -> None:
    project, constraints = SETS[name]
    found = project(tensor(x))
    np.testing.assert_allclose(found.numpy(), nearest(x, constraints), atol=2e-5)
    torch.testing.assert_close(project(found), found, rtol=1e-9, atol=1e-9)  # a point of the set stays


@given(vectors)
def test_a_point_and_its_nearest_of_the_cone_differ_by_a_point_of_the_dual_cone(x: np.ndarray) -> None:
    """Moreau's theorem, which no other point satisfies; the cone is its own dual. Solvers lose digits at its tip."""
    p = projections.second_order_cone(tensor(x)).numpy()
    for point in (p, p - x):
        assert np.linalg.norm(point[:-1]) <= point[-1] + 1e-12
    assert abs(p @ (p - x)) <= 1e-12 * max(1.0, x @ x)


@pytest.mark.parametrize("name", SETS)
@settings(max_examples=6)
@given(st.integers(0, 1000))
def test_derivatives_of_projections_in_both_modes(name: str, seed: int) -> None:
    x = 2 * torch.randn(N, dtype=DOUBLE, generator=torch.Generator().manual_seed(seed))
    assert gradcheck(SETS[name][0], x.requires_grad_(), check_forward_ad=True, atol=1e-6)


@given(st.integers(0, 1000))
def test_spheres(seed: int) -> None:
    x = torch.randn(3, N, dtype=DOUBLE, generator=torch.Generator().manual_seed(seed))
    torch.testing.assert_close(
        projections.l2_sphere(x, 2.0).norm(dim=-1), torch.full((3,), 2.0, dtype=DOUBLE)
    )
    torch.testing.assert_close(
        projections.l1_sphere(x, 2.0).abs().sum(-1), torch.full((3,), 2.0, dtype=DOUBLE)
    )
    assert gradcheck(lambda x: projections.l1_sphere(x, 2.0), x.requires_grad_(), check_forward_ad=True)
    assert gradcheck(lambda x: projections.l2_sphere(x, 2.0), x, check_forward_ad=True)


@pytest.mark.parametrize(
    "name", ["nonnegative", "box", "simplex", "l1 ball", "l2 ball", "linf ball", "second-order cone"]
)
def test_batches_are_loops(name: str) -> None:
    project = SETS[name][0]
    x = 2 * torch.randn(4, 3, N, dtype=DOUBLE, generator=torch.Generator().manual_seed(0))
    rows = torch.stack([torch.stack([project(v) for v in some]) for some in x])
    torch.testing.assert_close(project(x), rows)
    torch.testing.assert_close(torch.func.vmap(torch.func.vmap(project))(x), rows)


@settings(max_examples=10)
@given(st.integers(0, 1000))
def test_transport_polytope_and_doubly_stochastic_matrices(seed: int) -> None:
    rng = np.random.default_rng(seed)
    X = rng.standard_normal((3, 4))
    rows, columns = rng.random(3) + 0.1, rng.random(4) + 0.1
    columns *= rows.sum() / columns.sum()
    found = projections.transport(tensor(X), tensor(rows), tensor(columns))
    expected = nearest(X, lambda Y: [Y >= 0, cp.sum(Y, 1) == rows, cp.sum(Y, 0) == columns])
    np.testing.assert_allclose(found.numpy(), expected, atol=1e-5)
    square = tensor(rng.standard_normal((4, 4)))
    whole = projections.birkhoff(square)
    torch.testing.assert_close(whole.sum(0), torch.ones(4, dtype=DOUBLE))
    torch.testing.assert_close(whole.sum(1), torch.ones(4, dtype=DOUBLE))
    assert gradcheck(projections.birkhoff, square.requires_grad_(), check_forward_ad=True, atol=1e-6)


@settings(max_examples=15)
@given(st.integers(0, 1000))
def test_entropic_transport_has_the_sums_and_the_form_of_a_minimiser(seed: int) -> None:
    rng = np.random.default_rng(seed)
    X, rows, columns = (
        tensor(rng.standard_normal((3, 4))),
        tensor(rng.random(3) + 0.1),
        tensor(rng.random(4) + 0.1),
    )
    columns = columns * rows.sum() / columns.sum()
    plan = projections.transport_kl(X, rows, columns)
    torch.testing.assert_close(plan.sum(1), rows)
    torch.testing.assert_close(plan.sum(0), columns)
    potentials = plan.log() - X  # a_i + b_j
    torch.testing.assert_close(potentials - potentials[:1], (potentials - potentials[:1])[:, :1].expand(3, 4))
    assert gradcheck(
        lambda X: projections.transport_kl(X, rows, columns), X.requires_grad_(), check_forward_ad=True
    )


@settings(max_examples=15)
@given(st.integers(0, 1000))
def test_semidefinite_cone_also_at_repeated_eigenvalues(seed: int) -> None:
    rng = np.random.default_rng(seed)
    X = rng.standard_normal((4, 4))
    found = projections.psd_cone(tensor(X))
    Y = cp.Variable((4, 4), symmetric=True)
    cp.Problem(cp.Minimize(cp.sum_squares(Y - X)), [Y >> 0]).solve(solver=cp.CLARABEL)
    np.testing.assert_allclose(found.numpy(), Y.value, atol=1e-5)
    assert gradcheck(projections.psd_cone, tensor(X).requires_grad_(), check_forward_ad=True)
    Q = np.linalg.qr(rng.standard_normal((4, 4)))[0]
    repeated = tensor(Q @ np.diag([2.0, 2.0, -1.0, -1.0]) @ Q.T).requires_grad_()
    assert gradcheck(projections.psd_cone, repeated, check_forward_ad=True)
    batch = tensor(rng.standard_normal((3, 4, 4)))
    torch.testing.assert_close(torch.func.vmap(projections.psd_cone)(batch), projections.psd_cone(batch))


PROX = {
    "lasso": (lambda x: prox.lasso(x, 0.5, 0.8), lambda y: 0.5 * cp.norm1(y), 0.8),
    "weighted lasso": (lambda x: prox.lasso(x, tensor(WEIGHTS)), lambda y: WEIGHTS @ cp.abs(y), 1.0),
    "ridge": (lambda x: prox.ridge(x, 0.5, 0.8), lambda y: 0.25 * cp.sum_squares(y), 0.8),
    "elastic net": (
        lambda x: prox.elastic_net(x, 0.5, 0.7, 0.8),
        lambda y: 0.5 * cp.norm1(y) + 0.35 * cp.sum_squares(y),
        0.8,
    ),
    "group lasso": (lambda x: prox.group_lasso(x, 0.9, 0.8), lambda y: 0.9 * cp.norm(y), 0.8),
    "log barrier": (lambda x: prox.log_barrier(x, 0.5, 0.8), lambda y: -0.5 * cp.sum(cp.log(y)), 0.8),
}


@pytest.mark.parametrize("name", PROX)
@settings(max_examples=10)
@given(vectors)
def test_proximal_operators_are_cvxpys(name: str, x: np.ndarray) -> None:
    operator, g, scale = PROX[name]
    y = cp.Variable(N)
    problem = cp.Problem(cp.Minimize(0.5 * cp.sum_squares(y - x) + scale * g(y)))
    problem.solve(solver=cp.CLARABEL, tol_gap_abs=1e-12, tol_gap_rel=1e-12, tol_feas=1e-12)
    np.testing.assert_allclose(operator(tensor(x)).numpy(), y.value, atol=2e-5)


@pytest.mark.parametrize("name", PROX)
def test_derivatives_of_proximal_operators(name: str) -> None:
    x = 2 * torch.randn(3, N, dtype=DOUBLE, generator=torch.Generator().manual_seed(1))
    assert gradcheck(PROX[name][0], x.requires_grad_(), check_forward_ad=True)


def test_nonnegative_lasso_and_nuclear_norm() -> None:
    x = tensor([-1.0, 0.2, 3.0])
    torch.testing.assert_close(prox.nonnegative_lasso(x, 0.5), tensor([0.0, 0.0, 2.5]))
    X = tensor(np.random.default_rng(0).standard_normal((4, 3)))
    Y = cp.Variable((4, 3))
    cp.Problem(cp.Minimize(0.5 * cp.sum_squares(Y - X.numpy()) + 0.6 * cp.normNuc(Y))).solve(
        solver=cp.CLARABEL
    )
    np.testing.assert_allclose(prox.nuclear_norm(X, 0.6).numpy(), Y.value, atol=1e-5)
    assert gradcheck(lambda X: prox.nuclear_norm(X, 0.6), X.requires_grad_(), check_forward_ad=True)


@given(st.integers(0, 10**6), st.floats(-9.0, 9.0))
def test_units_of_rows_and_points_move_no_projection(seed: int, power: float) -> None:
    rng = np.random.default_rng(seed)
    A, room, x = rng.standard_normal((6, 4)), rng.random(6), 3 * rng.standard_normal(4)
    rows, unit = 10.0 ** rng.uniform(-9.0, 9.0, 6), 10.0**power
    b = A @ rng.standard_normal(4)
    for project, m, right in ((projections.polyhedron, 6, room), (projections.affine_set, 3, b[:3])):
        plain = project(tensor(x), tensor(A[:m]), tensor(right))
        other = project(tensor(unit * x), tensor(A[:m] * rows[:m, None]), tensor(unit * right * rows[:m]))
        torch.testing.assert_close(other / unit, plain, rtol=1e-9, atol=1e-9)


@pytest.mark.parametrize("unit", [1e-250, 1e-9, 1e9, 1e250])
@pytest.mark.parametrize(
    "project",
    [
        lambda x, unit: projections.l2_ball(x, unit),
        lambda x, unit: projections.l2_sphere(x, unit),
        lambda x, unit: projections.second_order_cone(x),
        lambda x, unit: projections.hyperplane(x, unit * tensor([1.0, 2.0, 0.5]), 0.0),
        lambda x, unit: projections.halfspace(x, unit * tensor([1.0, 2.0, 0.5]), 0.0),
        lambda x, unit: prox.group_lasso(x, unit),
    ],
)
def test_lengths_whose_squares_are_no_numbers_are_lengths(project, unit: float) -> None:
    x = tensor([3.0, -1.0, 2.0])
    plain, found = project(x, 1.0), project(unit * x, unit)
    torch.testing.assert_close(found / unit, plain, rtol=1e-12, atol=1e-12)


@pytest.mark.parametrize(
    "call",
    [
        lambda x: projections.box(x, -0.5, 0.5),
        lambda x: projections.linf_ball(x, 0.5),
        lambda x: projections.box_section(x, 0.0, 0.7, torch.ones(3), 1.5),
        lambda x: prox.lasso(x, 0.5),
        lambda x: prox.elastic_net(x, 0.5, 0.5),
        lambda x: prox.group_lasso(x, 0.5),
    ],
)
def test_whole_numbers_have_the_answer_of_floats(call) -> None:
    x = torch.tensor([3, 1, -2])
    torch.testing.assert_close(call(x), call(x.float()))


@pytest.mark.parametrize("unit", [1e-9, 1.0, 1e9])
def test_sets_that_are_empty_in_any_unit_are_refused(unit: float) -> None:
    x, twice = torch.zeros(2, dtype=DOUBLE), torch.ones(2, 2, dtype=DOUBLE)
    apart = tensor([unit, 2 * unit])
    with pytest.raises(InvalidProblem, match="no solution"):
        projections.affine_set(x, twice, apart)
    with pytest.raises(InvalidProblem, match="no solution"):
        projections.polyhedron(x, twice[:1], tensor([1e3]), twice, apart)
    with pytest.raises(InvalidProblem, match="no point satisfies"):
        projections.polyhedron(x, torch.stack([twice[0], -twice[0]]), -apart)


def test_empty_sets_and_wrong_shapes_are_refused() -> None:
    x = torch.zeros(2, dtype=DOUBLE)
    one = torch.ones(2, dtype=DOUBLE)
    for bad, words in (
        (lambda: projections.box(x, 1.0, 0.0), "low <= high"),
        (lambda: projections.simplex(x, -1.0), "size >= 0"),
        (lambda: projections.linf_ball(x, -1.0), "radius >= 0"),
        (lambda: projections.box_section(x, 0.0, 1.0, one, 3.0), "met by no point"),
        (lambda: projections.box_section(x, 0.0, 1.0, -one, 0.5), "a > 0"),
        (lambda: projections.affine_set(x, torch.zeros(1, 2, dtype=DOUBLE), one[:1]), "no solution"),
        (
            lambda: projections.polyhedron(x, torch.stack([one, -one]), tensor([-1.0, -1.0])),
            "no point satisfies",
        ),
        (lambda: projections.transport(torch.zeros(2, 2), one, 2 * one), "equal in total"),
        (lambda: projections.transport(torch.full((2, 2), torch.nan), one, one), "X finite"),
        (lambda: projections.hyperplane(x, torch.zeros(2, dtype=DOUBLE), 1.0), "other than zero"),
        (lambda: projections.halfspace(x, torch.zeros(2, dtype=DOUBLE), 1.0), "other than zero"),
        (lambda: projections.l1_ball(x, tensor(-1.0)), "size >= 0"),
        (lambda: projections.l2_ball(x, torch.tensor(-1.0)), "radius >= 0"),
        (lambda: projections.transport(torch.zeros(2, 3), one, one), "expected"),
    ):
        with pytest.raises(InvalidProblem, match=words):
            bad()


@pytest.mark.parametrize(
    "project",
    [
        projections.simplex,
        projections.l1_ball,
        projections.l2_ball,
        projections.l2_sphere,
        projections.linf_ball,
    ],
)
def test_a_radius_of_zero_leaves_zero(project):
    assert project(tensor([1.0, -2.0]), 0.0).tolist() == [0.0, 0.0]


WEIGHTED = [
    prox.lasso,
    prox.nonnegative_lasso,
    prox.ridge,
    prox.group_lasso,
    prox.log_barrier,
    prox.elastic_net,
]


@pytest.mark.parametrize("operator", WEIGHTED, ids=lambda f: f.__name__)
def test_a_negative_weight_is_refused(operator):
    for call in (
        lambda: operator(tensor([1.0]), -1.0),
        lambda: torch.func.grad(lambda w: operator(tensor([1.0]), w).sum())(tensor(-1.0)),
    ):
        with pytest.raises(InvalidParameter, match="weight and a scale >= 0"):
            call()
    mapped = torch.func.vmap(lambda w: operator(tensor([1.0]), w))(tensor([-1.0, 1.0]))
    assert mapped.isnan().flatten().tolist() == [True, False]


def _mapped(project, *batched):
    """The projection under vmap, and sample by sample."""
    return torch.func.vmap(project)(*batched), torch.stack(
        [project(*one) for one in zip(*batched, strict=True)]
    )


X4 = torch.tensor([[0.2, -1.0, 2.0], [1.0, 1.0, 1.0], [-3.0, 0.5, 0.1], [0.0, 4.0, -0.2]], dtype=DOUBLE)
SIZES4 = torch.tensor([1.0, 2.0, 3.0, 0.5], dtype=DOUBLE)
SQUARES = torch.linspace(-1, 2, 36, dtype=DOUBLE).sin().reshape(4, 3, 3)
MAPPED = {
    "simplex": (lambda x, s: projections.simplex(x, s), X4, SIZES4),
    "l1 ball": (lambda x, s: projections.l1_ball(x, s), X4, SIZES4),
    "l2 ball": (lambda x, s: projections.l2_ball(x, s), X4, SIZES4),
    "box": (lambda x, s: projections.box(x, -s, s), X4, SIZES4),
    "hyperplane": (lambda x, s: projections.hyperplane(x, torch.ones_like(x), s), X4, SIZES4),
    "affine set": (lambda x, s: projections.affine_set(x, torch.ones_like(x)[None], s[None]), X4, SIZES4),
    "box section": (lambda x, s: projections.box_section(x, -1.0, 2.0, torch.ones_like(x), s), X4, SIZES4),
    "polyhedron": (lambda x, s: projections.polyhedron(x, torch.eye(3).to(x), s.expand(3)), X4, SIZES4),
    "transport": (lambda X, s: projections.transport(X, s.expand(3), s.expand(3)), SQUARES, SIZES4),
    "transport KL": (lambda X, s: projections.transport_kl(X, s.expand(3), s.expand(3)), SQUARES, SIZES4),
    "birkhoff": (lambda X, s: projections.birkhoff(s * X), SQUARES, SIZES4),
}


@pytest.mark.parametrize("name", MAPPED)
def test_projections_are_mapped_over_points_and_parameters(name):
    project, points, sizes = MAPPED[name]
    together, alone = _mapped(project, points, sizes)
    torch.testing.assert_close(together, alone, rtol=1e-12, atol=1e-12)
    for argnum in (0, 1):
        slope = torch.func.jacrev(project, argnums=argnum)
        together, alone = _mapped(slope, points, sizes)
        torch.testing.assert_close(together, alone, rtol=1e-9, atol=1e-9)
    forward = torch.func.jacfwd(project)(points[0], sizes[0])
    torch.testing.assert_close(forward, torch.func.jacrev(project)(points[0], sizes[0]), rtol=1e-9, atol=1e-9)


def test_mapped_sizes_that_have_no_set_give_nan_and_others_refuse():
    found = torch.func.vmap(projections.simplex)(X4[:2], tensor([-1.0, 1.0]))
    assert found.isnan().all(1).tolist() == [True, False]
    with pytest.raises(InvalidProblem, match="size >= 0"):
        torch.func.jacfwd(projections.simplex, argnums=1)(X4[0], tensor(-1.0))


@pytest.mark.parametrize("low", [[0.0, 0.0, 0.0], [-1.0, -1.0, 0.5]])
def test_a_polyhedron_has_the_derivatives_of_the_box_that_it_is(low):
    low, point = tensor(low), tensor([0.2, -1.5, 2.0])
    G, h = torch.cat([torch.eye(3), -torch.eye(3)]).to(DOUBLE), torch.cat([torch.ones(3, dtype=DOUBLE), -low])
    for jacobian in (torch.func.jacrev, torch.func.jacfwd):
        ours = jacobian(lambda x: projections.polyhedron(x, G, h))(point)
        torch.testing.assert_close(ours, jacobian(lambda x: projections.box(x, low, 1.0))(point))
