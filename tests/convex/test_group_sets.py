"""Group Lasso problems by working sets: optimality, duality gaps, a conic solver, the Lasso, another method."""

from __future__ import annotations

import numpy as np
import pytest
import scipy.sparse as sp
from hypothesis import given
from hypothesis import strategies as st
from test_local_models import hard_problem

from thalweg import Checkpoint, Status, Stop, solve
from thalweg.convex import (
    AcceleratedProximalGradient,
    GroupPenalized,
    GroupWorkingSets,
    LeastSquares,
    Logistic,
    Multinomial,
    Penalized,
    group_sets,
)
from thalweg.convex import _group_kernels as kernels
from thalweg.convex.columns import Columns
from thalweg.convex.group_models import ColumnModel, HessianModel
from thalweg.convex.groups import blocks_of
from thalweg.core import InvalidProblem, recommended

SEEDS = st.integers(0, 2**31)
TIGHT = Stop(below={"violation": 1e-9}, steps=200)


def group_lasso_gap(A, b, labels, weight, x):
    """Duality gap over the loss at zero, from the coefficients alone; weights by group, no l1."""
    r = b - A @ x
    lengths = np.sqrt(np.bincount(labels, (A.T @ r) ** 2))
    s = min(1.0, float(np.min(weight / np.maximum(lengths, 1e-300))))
    primal = 0.5 * r @ r + weight @ np.sqrt(np.bincount(labels, x * x))
    return (primal - s * (r @ b) + 0.5 * s * s * (r @ r)) / (0.5 * b @ b)


def least_subgradient(g, x, labels, l1, weight):
    """The largest distance of zero from a group's subdifferential, by definition: a projection for zero groups."""
    worst = 0.0
    for k in np.unique(labels):
        at = labels == k
        size = np.linalg.norm(x[at])
        smooth = g[at] + (weight[k] * x[at] / size if size else 0.0)
        s = np.where(
            x[at] != 0, smooth + l1 * np.sign(x[at]), np.sign(smooth) * np.maximum(np.abs(smooth) - l1, 0)
        )
        length = np.linalg.norm(s)
        worst = max(worst, length if size else max(length - weight[k], 0.0))
    return worst


def uneven(seed, rows=60, columns=40):
    """Groups of 1 to 7 neighbouring columns, in no order of their labels, some weights zero."""
    rng = np.random.default_rng(seed)
    labels = rng.permutation(12)[np.sort(rng.integers(0, 12, columns))]
    labels = np.unique(labels, return_inverse=True)[1]
    A = rng.standard_normal((rows, columns))
    b = A[:, :5] @ np.ones(5) + rng.standard_normal(rows)
    weight = rng.uniform(1.0, 15.0, labels.max() + 1) * (rng.random(labels.max() + 1) < 0.9)
    return A, b, labels, weight


class TestSolutions:
    @pytest.mark.parametrize("l1", [0.0, 3.0])
    @pytest.mark.parametrize("made", [np.asarray, sp.csc_array], ids=["dense", "sparse"])
    def test_zero_is_in_every_subdifferential(self, made, l1):
        for seed in range(10):
            A, b, labels, weight = uneven(seed, 400 if seed % 2 else 60)
            problem = GroupPenalized(LeastSquares(made(A), b), l1, groups=labels, group_weight=weight)
            result = solve(problem, GroupWorkingSets(), stop=TIGHT)
            assert result.converged
            assert least_subgradient(A.T @ (A @ result.x - b), result.x, labels, l1, weight) <= 1e-8

    @pytest.mark.parametrize("l1", [0.0, 0.4])
    def test_a_conic_solver_finds_no_less(self, l1):
        cp = pytest.importorskip("cvxpy")
        A, b, labels, weight = uneven(1)
        y, weight = np.sign(b), 0.3 * weight
        x = cp.Variable(40)
        norms = sum(w * cp.norm2(x[np.flatnonzero(labels == k)]) for k, w in enumerate(weight))
        smooth = {
            "squares": (LeastSquares(A, b, 0.5), 0.5 * cp.sum_squares(A @ x - b)),
            "logistic": (Logistic(A, y, 0.5), cp.sum(cp.logistic(cp.multiply(-y, A @ x)))),
        }
        for loss, f in smooth.values():
            least = cp.Problem(cp.Minimize(f + 0.25 * cp.sum_squares(x) + norms + l1 * cp.norm1(x)))
            best = least.solve(solver="CLARABEL")
            result = solve(
                GroupPenalized(loss, l1, groups=labels, group_weight=weight), GroupWorkingSets(), stop=TIGHT
            )
            assert result.converged
            assert result.metrics["objective"] == pytest.approx(best, rel=1e-7)

    @pytest.mark.parametrize("made", [np.asarray, sp.csc_array], ids=["dense", "sparse"])
    def test_ill_conditioned_problems_reach_their_gap(self, made):
        for seed in range(0, 120, 3):
            X, y, _ = hard_problem(seed)
            X = X[:, np.abs(X).sum(0) > 0]
            if not X.shape[1]:
                continue
            labels = np.arange(X.shape[1]) // (1 + seed % 5)
            steepest = np.sqrt(np.bincount(labels, (X.T @ y) ** 2)).max()
            share = 10.0 ** np.random.default_rng(seed).uniform(-4, -0.3)
            weight = np.full(labels[-1] + 1, share * steepest)
            problem = GroupPenalized(LeastSquares(made(X), y), groups=labels, group_weight=weight)
            stop = Stop(below={"violation": 1e-7 * steepest * share}, steps=200)
            result = solve(problem, GroupWorkingSets(), stop=stop)
            assert result.converged, seed
            assert group_lasso_gap(X, y, labels, weight, result.x) <= 1e-6, seed

    def test_groups_of_one_are_the_lasso(self):
        A, b, _, _ = uneven(2)
        loss = LeastSquares(A, b)
        lasso = solve(Penalized(loss, l1=9.0), stop=TIGHT).x
        groups = solve(
            GroupPenalized(loss, groups=np.arange(40), group_weight=9.0), GroupWorkingSets(), stop=TIGHT
        ).x
        np.testing.assert_allclose(groups, lasso, atol=1e-9)
        assert 0 < np.count_nonzero(groups) < 40

    def test_one_group_has_the_length_that_its_equation_says(self):
        """``A'A x + w x/|x| = A'b``: a root in one variable, |x|, on the eigenvectors of A'A."""
        A, b, _, _ = uneven(3, 60, 8)
        x = solve(
            GroupPenalized(LeastSquares(A, b), groups=np.zeros(8), group_weight=30.0),
            GroupWorkingSets(),
            stop=TIGHT,
        ).x
        values, vectors = np.linalg.eigh(A.T @ A)
        size = np.linalg.norm(x)
        np.testing.assert_allclose(x, vectors @ (vectors.T @ (A.T @ b) / (values + 30.0 / size)), atol=1e-9)

    def test_groups_that_are_there_twice_share_their_part(self):
        A, b, _, _ = uneven(4, 30, 6)
        twice = np.hstack([A, A])
        options = {"groups": np.arange(6) // 3, "group_weight": 4.0}
        once = solve(GroupPenalized(LeastSquares(A, b), **options), GroupWorkingSets(), stop=TIGHT).x
        options["groups"] = np.arange(12) // 3
        both = solve(GroupPenalized(LeastSquares(twice, b), **options), GroupWorkingSets(), stop=TIGHT)
        assert both.converged
        np.testing.assert_allclose(both.x[:6] + both.x[6:], once, atol=1e-8)

    def test_a_penalty_that_is_large_enough_leaves_nothing(self):
        A, b, labels, _ = uneven(5)
        largest = float(np.sqrt(np.bincount(labels, (A.T @ b) ** 2)).max())
        for share, count in ((1.001, 0), (0.999, 1)):
            problem = GroupPenalized(LeastSquares(A, b), groups=labels, group_weight=share * largest)
            found = solve(problem, GroupWorkingSets(), stop=TIGHT)
            assert found.converged
            assert len(np.unique(labels[found.x != 0])) == count

    def test_columns_in_other_units_have_coefficients_in_theirs(self):
        """With weights in those units; from 1e-9 to 1e9, in one problem."""
        A, b, labels, _ = uneven(6)
        units = 10.0 ** np.linspace(-9, 9, labels.max() + 1)
        plain = GroupPenalized(LeastSquares(A, b), groups=labels, group_weight=8.0)
        scaled = GroupPenalized(LeastSquares(A * units[labels], b), groups=labels, group_weight=8.0 * units)
        here = solve(plain, GroupWorkingSets(), stop=TIGHT).x
        there = solve(scaled, GroupWorkingSets(), stop=Stop(below={"violation": 10.0}, steps=100))
        again = solve(scaled, GroupWorkingSets(), stop=Stop(steps=40))
        assert there.converged
        np.testing.assert_allclose(again.x * units[labels], here, atol=1e-8)

    def test_a_column_of_zeros_has_no_coefficient_under_a_ridge(self):
        A, b, labels, _ = uneven(7)
        A[:, 3] = 0.0
        result = solve(
            GroupPenalized(LeastSquares(A, b, 0.1), groups=labels, group_weight=2.0),
            GroupWorkingSets(),
            stop=TIGHT,
        )
        assert result.converged
        assert abs(result.x[3]) <= 1e-12

    def test_single_precision_is_taken_as_it_is(self):
        A, b, labels, weight = uneven(8)
        A = A.astype(np.float32)
        options = {"groups": labels, "group_weight": weight}
        one = solve(GroupPenalized(LeastSquares(A, b), **options), GroupWorkingSets(), stop=TIGHT).x
        two = solve(
            GroupPenalized(LeastSquares(A.astype(float), b), **options), GroupWorkingSets(), stop=TIGHT
        ).x
        np.testing.assert_array_equal(one, two)

    def test_it_ends_where_accelerated_gradients_do(self):
        rng = np.random.default_rng(9)
        A, y = rng.standard_normal((50, 12)), rng.standard_normal(50)
        stop = Stop(below={"violation": 1e-9}, steps=100_000)
        for loss in (Logistic(A, np.sign(y)), Logistic(sp.csc_array(A), np.sign(y), 0.3), LeastSquares(A, y)):
            for l1 in (0.0, 0.5):
                problem = GroupPenalized(loss, l1, groups=np.arange(12) % 5, group_weight=2.0)
                ours = solve(problem, GroupWorkingSets(), stop=TIGHT)
                theirs = solve(problem, AcceleratedProximalGradient(), stop=stop)
                assert ours.converged
                np.testing.assert_allclose(ours.x, theirs.x, atol=1e-7)

    def test_what_it_does_not_take_is_refused_and_another_method_recommended(self, monkeypatch):
        A, b, labels, _ = uneven(10)
        softmax = GroupPenalized(Multinomial(A, np.arange(60) % 3), groups=np.arange(120) // 3)
        with pytest.raises(
            InvalidProblem, match=r"this is Multinomial with groups of up to 3\. Use Accelerated"
        ):
            solve(softmax, GroupWorkingSets())
        assert isinstance(recommended(softmax), AcceleratedProximalGradient)
        problem = GroupPenalized(LeastSquares(A, b), groups=labels)
        assert isinstance(recommended(problem), GroupWorkingSets)
        monkeypatch.setattr(group_sets, "MOST", 2)
        with pytest.raises(InvalidProblem, match="groups of at most 2 coordinates; this is LeastSquares"):
            solve(problem, GroupWorkingSets())
        assert isinstance(recommended(problem), AcceleratedProximalGradient)

    def test_a_start_of_ones_is_left(self):
        A, b, labels, weight = uneven(11)
        options = {"groups": labels, "group_weight": weight}
        here = solve(GroupPenalized(LeastSquares(A, b), **options), GroupWorkingSets(), stop=TIGHT)
        there = solve(
            GroupPenalized(LeastSquares(A, b), x0=np.ones(40), **options), GroupWorkingSets(), stop=TIGHT
        )
        assert there.converged
        np.testing.assert_allclose(there.x, here.x, atol=1e-8)

    @pytest.mark.parametrize("made", [np.asarray, sp.csc_array], ids=["dense", "sparse"])
    def test_a_resumed_run_has_the_same_bits(self, made, tmp_path, monkeypatch):
        monkeypatch.setattr(group_sets, "FIRST", 4)
        A, b, labels, weight = uneven(12, 400)
        problem = GroupPenalized(LeastSquares(made(A), b, 0.1), groups=labels, group_weight=0.3 * weight)
        whole = solve(problem, GroupWorkingSets(), stop=Stop(steps=6))
        half = [Checkpoint(tmp_path / "c", every=1)]
        solve(problem, GroupWorkingSets(), stop=Stop(steps=3), callbacks=half)
        rest = solve(problem, GroupWorkingSets(), stop=Stop(steps=6), resume=tmp_path / "c")
        assert np.array_equal(whole.x, rest.x)

    def test_zero_is_said_to_be_solved_at_once(self):
        A, b, labels, _ = uneven(13)
        result = solve(
            GroupPenalized(LeastSquares(A, b), groups=labels, group_weight=1e6),
            GroupWorkingSets(),
            stop=Stop(steps=3),
        )
        assert result.status is Status.CONVERGED
        assert not result.x.any()


class TestPieces:
    @given(seed=SEEDS, l1=st.sampled_from([0.0, 0.7]))
    def test_a_models_violation_is_the_problems(self, seed, l1):
        A, b, labels, weight = uneven(seed)
        rng = np.random.default_rng(seed)
        order = np.argsort(labels, kind="stable")
        A, labels = A[:, order], labels[order]
        problem = GroupPenalized(LeastSquares(A, b), l1, groups=labels, group_weight=weight)
        x = rng.standard_normal(40) * (rng.random(len(weight)) < 0.5)[labels] * (rng.random(40) < 0.8)
        g = 4.0 * rng.standard_normal(40)
        starts = np.append(0, np.cumsum(problem.group_sizes))
        found = kernels.group_violations(g, x, starts, np.full(40, l1), weight)
        wanted = np.maximum.reduceat(np.abs(problem.slopes(x, g)), starts[:-1])
        np.testing.assert_allclose(found, wanted, rtol=1e-12, atol=1e-13)

    @given(seed=SEEDS, l1=st.sampled_from([0.0, 0.7]))
    def test_a_group_stays_zero_from_its_strength_on(self, seed, l1):
        _, _, labels, weight = uneven(seed)
        labels = np.sort(labels)
        g = np.random.default_rng(seed).standard_normal(40)
        starts = np.append(0, np.cumsum(np.bincount(labels)))
        for k, strength in enumerate(kernels.group_strengths(g, starts, np.full(40, l1), weight)):
            part = np.abs(g[labels == k])

            def excess(t, part=part, w=weight[k]):
                return np.linalg.norm(np.maximum(part - t * l1, 0.0)) - t * w

            if l1 == 0.0 and weight[k] == 0.0:
                assert strength == np.inf
                continue
            assert excess(strength) <= 1e-12
            assert excess(0.998 * strength) > 0.0

    @given(seed=SEEDS)
    def test_tops_are_no_less_than_eigenvalues(self, seed):
        A, _, labels, _ = uneven(seed)
        starts = np.append(0, np.cumsum(np.bincount(labels)))
        H = np.asfortranarray(A.T @ A)
        for k, top in enumerate(kernels.group_tops(*blocks_of(H, starts), starts)):
            at = slice(starts[k], starts[k + 1])
            largest = float(np.linalg.eigvalsh(H[at, at])[-1])
            assert largest * (1 - 1e-12) <= top <= largest * (starts[k + 1] - starts[k]) ** 0.5 * (1 + 1e-12)

    @given(seed=SEEDS, l1=st.sampled_from([0.0, 1.0]), ridge=st.sampled_from([0.0, 2.0]), wide=st.booleans())
    def test_all_kinds_of_models_fall_to_one_minimum_and_keep_their_gradient(self, seed, l1, ridge, wide):
        A, b, labels, weight = uneven(seed, *((20, 60) if wide else (60, 40)))
        order = np.argsort(labels, kind="stable")
        A, labels, n = A[:, order], labels[order], len(labels)
        weight = np.maximum(weight, 1.0)
        starts = np.append(0, np.cumsum(np.bincount(labels)))
        H = np.asfortranarray(A.T @ A + ridge * np.eye(n))

        def models():
            yield HessianModel(H, -A.T @ b, np.zeros(n), starts, np.full(n, l1), weight)
            for made in (np.asarray, sp.csc_array):
                X, places = Columns(made(A)), np.arange(n)
                wanted, begins = blocks_of(H, starts)
                blocks = np.full(len(wanted), np.nan)
                kernels.column_blocks(*X.parts, len(b), places, starts, ridge, begins, blocks)
                np.testing.assert_allclose(blocks, wanted, atol=1e-12)
                yield ColumnModel(
                    X, places, b.copy(), ridge, np.zeros(n), starts, np.full(n, l1), weight, blocks, begins
                )

        values = []
        for model in models():
            first = model.violations().max()
            for _ in range(5):
                model.minimise(1e-3)
            g = A.T @ (A @ model.x - b) + ridge * model.x
            np.testing.assert_allclose(model.g, g, atol=1e-9 * (1 + first))
            assert least_subgradient(g, model.x, labels, l1, weight) <= 1e-7 * (1 + first)
            norms = np.sqrt(np.bincount(labels, model.x**2))
            squares = 0.5 * np.square(b - A @ model.x).sum() + 0.5 * ridge * model.x @ model.x
            values.append(squares + l1 * np.abs(model.x).sum() + weight @ norms)
        assert max(values) - min(values) <= 1e-8 * (1 + max(values))

    @pytest.mark.parametrize("ridge", [0.0, 0.3])
    @pytest.mark.parametrize("l1", [0.0, 0.5])
    def test_newtons_step_by_samples_is_that_by_the_hessian(self, l1, ridge, rng):
        A, b, labels, _ = uneven(21, 15, 50)
        order = np.argsort(labels, kind="stable")
        A, labels = A[:, order], labels[order]
        starts, weight = np.append(0, np.cumsum(np.bincount(labels))), rng.uniform(1.0, 2.0, labels.max() + 1)
        X, places = Columns(A), np.arange(50)
        x = rng.standard_normal(50) * (rng.random(50) < 0.9)
        H = np.asfortranarray(A.T @ A + ridge * np.eye(50))
        model = ColumnModel(X, places, b, ridge, x, starts, np.full(50, l1), weight, *blocks_of(H, starts))
        at = model._support()
        assert len(at.free) > 15
        rhs = rng.standard_normal(len(at.free))
        d = model.newton(at, rhs)
        H = H[np.ix_(at.free, at.free)]
        for i, j in zip(at.starts[:-1], at.starts[1:], strict=True):
            u, size = x[at.free[i:j]], np.linalg.norm(x[at.free[i:j]])
            H[i:j, i:j] += weight[labels[at.free[i]]] / size * (np.eye(j - i) - np.outer(u, u) / size**2)
        np.testing.assert_allclose(H @ d, rhs, atol=1e-8)
