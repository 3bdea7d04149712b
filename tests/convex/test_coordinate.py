"""Block coordinate descent: choices against brute force, forests against Cholesky, progress bounds, identification."""

import itertools
from typing import ClassVar

import numpy as np
import pytest
import scipy.sparse as sp
from hypothesis import given
from hypothesis import strategies as st
from scipy.optimize import check_grad, lsq_linear, minimize

from thalweg import Stop, solve
from thalweg.convex import (
    GS,
    GSD,
    GSDHB,
    GSL,
    GSQ,
    SELECTIONS,
    UPDATES,
    AcceleratedProximalGradient,
    BlockCoordinateDescent,
    BoundStep,
    FixedBlocks,
    ForestBlocks,
    GradientStep,
    GroupPenalized,
    HeapGreedy,
    LeastSquares,
    Logistic,
    MessagePassing,
    Multinomial,
    NewtonStep,
    Penalized,
    Quadratic,
    SparseStep,
    TwoMetric,
    VariableBlocks,
    greedy_forest,
    identification_radius,
    label_propagation,
    lattice,
    nondegeneracy,
    random_forest,
    red_black,
    solve_forest,
    tree_partition,
)
from thalweg.core import Checkpoint, InvalidParameter, InvalidProblem, NotFinite

TIGHT = Stop(below={"violation": 1e-9}, steps=20_000)


def losses(seed=0):
    rng = np.random.default_rng(seed)
    A, b = rng.standard_normal((30, 8)), rng.standard_normal(30)
    sparse = sp.random_array((30, 8), density=0.5, rng=rng, data_sampler=rng.standard_normal) + sp.eye_array(
        30, 8
    )
    return {
        "squares": LeastSquares(A, b, 0.1),
        "squares, sparse": LeastSquares(sparse, b),
        "logistic": Logistic(A, np.sign(b), 0.3),
        "logistic, sparse": Logistic(sparse, np.sign(b), 0.3),
        "softmax": Multinomial(A[:, :4], rng.integers(0, 3, 30), ridge=0.2),
        "quadratic": Quadratic(lattice(4, 3, 0.5), rng.standard_normal(12)),
    }


NAMES = list(losses())


@pytest.mark.parametrize("name", NAMES)
class TestLosses:
    def test_the_gradient_is_the_values(self, name, rng):
        loss = losses()[name]
        x = rng.standard_normal(loss.n)
        error = check_grad(lambda x: loss.value(x, loss.keep(x)), lambda x: loss.gradient(x, loss.keep(x)), x)
        assert error < 1e-5

    def test_the_hessian_is_the_gradients_and_lies_below_the_bound(self, name, rng):
        loss, h = losses()[name], 1e-6
        x, block = rng.standard_normal(loss.n), np.array([1, 3, 0])
        numeric = []
        for i in block:
            step = h * np.eye(loss.n)[i]
            up, down = x + step, x - step
            change = loss.gradient(up, loss.keep(up)) - loss.gradient(down, loss.keep(down))
            numeric.append(change[block] / (2 * h))
        H = loss.hessian(x, loss.keep(x), block)
        np.testing.assert_allclose(H, np.array(numeric).T, atol=1e-5)
        bound = loss.bound(block)
        assert np.linalg.eigvalsh(bound - H)[0] > -1e-9
        np.testing.assert_allclose(loss.bound_columns(block)[block], bound, atol=1e-12)
        assert (loss.lipschitz[block] >= np.diag(H) - 1e-9).all()

    def test_moves_keep_predictions_and_gradient(self, name, rng):
        loss = losses()[name]
        x = rng.standard_normal(loss.n)
        z = loss.keep(x)
        g = loss.gradient(x, z)
        loss.advance(x, z, g, np.array([2, 0]), np.array([0.3, -0.7]))
        np.testing.assert_allclose(z, loss.keep(x), atol=1e-12)
        np.testing.assert_allclose(g, loss.gradient(x, loss.keep(x)), atol=1e-11)


def minimum(problem):
    """The minimum of the objective by SciPy, of a problem with l1 split into two non-negative parts."""
    loss, n, w = problem.loss, problem.loss.n, problem.weight

    def value(u):
        x = u[:n] - u[n:]
        z = loss.keep(x)
        g = loss.gradient(x, z)
        return loss.value(x, z) + w @ (u[:n] + u[n:]), np.concatenate([g + w, w - g])

    high = np.where(np.isfinite(problem.upper), problem.upper, None)
    low = np.where(problem.lower == 0, 0.0, None)
    bounds = [(0, h) for h in high] + [(0, 0) if at == 0 else (0, None) for at in low]
    options = {"maxiter": 10_000, "ftol": 1e-15, "gtol": 1e-10, "maxfun": 100_000}
    return minimize(value, np.zeros(2 * n), jac=True, bounds=bounds, method="L-BFGS-B", options=options).fun


class TestEveryCombination:
    @pytest.mark.parametrize("name", NAMES)
    @pytest.mark.parametrize("penalty", [{}, {"l1": 0.8}, {"low": 0.0}], ids=["smooth", "l1", "non-negative"])
    def test_reaches_the_minimum(self, name, penalty):
        problem = Penalized(losses()[name], **penalty)
        best = minimum(problem)
        n = problem.loss.n
        partitions = FixedBlocks.at_random(n, 3), VariableBlocks(3)
        # every selection and every update, each with several of the others
        pairs = [(a, b) for i, a in enumerate(SELECTIONS) for j, b in enumerate(UPDATES) if (i + j) % 3 == 0]
        for k, (selection, update) in enumerate(pairs):
            method = BlockCoordinateDescent(partitions[k % 2], SELECTIONS[selection](), UPDATES[update]())
            result = solve(problem, method, stop=Stop(below={"violation": 1e-8}, steps=20_000), seed=k)
            assert result.converged, method.name
            assert result.metrics["objective"] <= best + 1e-7 * (1 + abs(best)), method.name

    def test_non_negative_least_squares_agree_with_lsq_linear(self, rng):
        A, b = rng.standard_normal((40, 12)), rng.standard_normal(40)
        found = solve(Penalized(LeastSquares(A, b), low=0.0), stop=TIGHT).x
        np.testing.assert_allclose(found, lsq_linear(A, b, (0, np.inf), tol=1e-14).x, atol=1e-7)

    def test_one_newton_step_on_all_coordinates_solves_least_squares(self, rng):
        loss = losses()["squares"]
        result = solve(
            Penalized(loss), BlockCoordinateDescent(VariableBlocks(8), GS(), NewtonStep()), stop=Stop(steps=1)
        )
        A, b = loss.A, loss.b
        np.testing.assert_allclose(result.x, np.linalg.solve(A.T @ A + 0.1 * np.eye(8), A.T @ b), atol=1e-9)

    def test_resuming_gives_the_same_bits(self, tmp_path):
        problem = Penalized(losses()["logistic"], l1=0.5)
        method = BlockCoordinateDescent(FixedBlocks.in_order(8, 2), SELECTIONS["random"](), BoundStep())
        whole = solve(problem, method, stop=Stop(steps=9))
        solve(problem, method, stop=Stop(steps=4), callbacks=[Checkpoint(tmp_path / "c", every=1)])
        rest = solve(problem, method, stop=Stop(steps=9), resume=tmp_path / "c")
        assert np.array_equal(whole.x, rest.x)


class TestGreedyChoices:
    @pytest.fixture
    def state(self):
        problem = Penalized(losses()["squares"])
        state = BlockCoordinateDescent(FixedBlocks.in_order(8, 2)).init(problem, 0)
        return problem, state

    def promise(self, rule, problem, g, block):
        """What the rule's formula says of a block, worked out with dense matrices."""
        H = problem.loss.bound(np.arange(8))
        inner = H[np.ix_(block, block)]
        return {
            GS: np.sum(g[block] ** 2),
            GSL: np.sum(g[block] ** 2) / np.linalg.eigvalsh(inner)[-1],
            GSD: np.sum(g[block] ** 2 / (len(block) * np.diag(inner))),
            GSDHB: np.sum(g[block] ** 2 / np.diag(inner)),
            GSQ: g[block] @ np.linalg.solve(inner, g[block]),
        }[rule]

    @pytest.mark.parametrize("rule", [GS, GSL, GSD, GSDHB, GSQ])
    def test_fixed_blocks_by_brute_force(self, state, rule):
        problem, kept = state
        blocks = [np.array(pair) for pair in itertools.combinations(range(8), 2)]
        found = rule().block(problem, kept, blocks)
        best = max(range(len(blocks)), key=lambda k: self.promise(rule, problem, kept.g, blocks[k]))
        assert found == best

    @pytest.mark.parametrize("rule", [GS, GSDHB])
    def test_variable_blocks_by_brute_force(self, state, rule):
        problem, kept = state
        found = rule().coordinates(problem, kept, 3)
        value = self.promise(rule, problem, kept.g, found)
        others = (
            self.promise(rule, problem, kept.g, np.array(b)) for b in itertools.combinations(range(8), 3)
        )
        assert value >= max(others) - 1e-12

    def test_matching_pursuit_promises_more_than_the_diagonals_choice(self, rng):
        gains = []
        for seed in range(20):
            A = np.random.default_rng(seed).standard_normal((12, 10))
            A[:, 1] = A[:, 0] + 0.05 * A[:, 1]  # two columns that say the same
            problem = Penalized(LeastSquares(A, np.random.default_rng(seed + 99).standard_normal(12)))
            state = BlockCoordinateDescent().init(problem, 0)
            H = problem.loss.bound(np.arange(10))

            def promise(block, H=H, g=state.g):
                return g[block] @ np.linalg.solve(H[np.ix_(block, block)], g[block])

            best = max(promise(np.array(b)) for b in itertools.combinations(range(10), 3))
            pursuit, diagonal = (promise(rule.coordinates(problem, state, 3)) for rule in (GSQ(), GSDHB()))
            assert pursuit <= best + 1e-9
            gains.append((pursuit / best, diagonal / best))
        assert np.mean([a for a, _ in gains]) > max(0.9, np.mean([b for _, b in gains]))

    def test_thresholding_is_near_the_best_choice(self):
        """Of blocks of three among ten; never worse than the diagonal's choice, from which it starts."""
        shares, diagonal = [], []
        for seed in range(30):
            rng = np.random.default_rng(seed)
            A = rng.standard_normal((12, 10))
            A[:, 1] = A[:, 0] + 0.05 * A[:, 1]
            problem = Penalized(LeastSquares(A, rng.standard_normal(12)))
            state = BlockCoordinateDescent().init(problem, 0)
            H = problem.loss.bound(np.arange(10))

            def promise(block, H=H, g=state.g):
                return g[block] @ np.linalg.solve(H[np.ix_(block, block)], g[block])

            best = max(promise(np.array(b)) for b in itertools.combinations(range(10), 3))
            found = promise(GSQ("iht").coordinates(problem, state, 3))
            plain = promise(GSDHB().coordinates(problem, state, 3))
            assert plain - 1e-9 <= found <= best + 1e-9
            shares.append(found / best)
            diagonal.append(plain / best)
        assert np.mean(shares) > max(0.93, np.mean(diagonal))


class TestGroups:
    LABELS = np.array([2, 0, 0, 1, 2, 1, 0, 3])

    def problems(self):
        for name in ("squares", "logistic", "squares, sparse"):
            yield GroupPenalized(losses()[name], groups=self.LABELS, group_weight=2.0)
            yield GroupPenalized(losses()[name], 0.5, groups=self.LABELS, group_weight=[1.0, 2.0, 0.0, 0.3])

    def test_the_proximal_map_is_the_minimiser(self, rng):
        for problem in self.problems():
            u = 2.0 * rng.standard_normal(8)
            step = np.array([0.3, 0.5, 0.4, 1.0])[problem.labels]
            new = problem.prox(u, step)

            def value(v, u=u, step=step, problem=problem):
                return 0.5 * np.sum((v - u) ** 2 / step) + problem.penalty(v)

            for _ in range(200):
                assert value(new) <= value(new + 0.01 * rng.standard_normal(8)) + 1e-12
            block = problem.members(np.array([3, 1]))
            np.testing.assert_array_equal(problem.prox(u[block], step[block], block), new[block])

    @given(st.integers(0, 10_000))
    def test_slopes_are_the_least_subgradient(self, seed):
        """The directional derivative along minus the least subgradient s is ``-|s|^2``; no direction is steeper."""
        rng = np.random.default_rng(seed)
        for problem in self.problems():
            x = rng.standard_normal(8) * (rng.random(4) < 0.5)[problem.labels] * (rng.random(8) < 0.7)
            g = 3.0 * rng.standard_normal(8)
            s, h = problem.slopes(x, g), 1e-7

            def along(d, x=x, g=g, problem=problem, h=h):
                return float(g @ d) + (problem.penalty(x + h * d) - problem.penalty(x)) / h

            assert along(-s) == pytest.approx(-float(s @ s), abs=2e-5 * (1 + float(s @ s)))
            for _ in range(10):
                d = rng.standard_normal(8)
                d /= np.linalg.norm(d)
                assert along(d) >= -np.linalg.norm(s) - 1e-4

    @given(st.integers(0, 10_000))
    def test_changes_of_the_penalty_are_its_differences(self, seed):
        rng = np.random.default_rng(seed)
        for problem in self.problems():
            x, new = rng.standard_normal((2, 8)) * (rng.random((2, 4)) < 0.6)[:, problem.labels]
            apart = problem.penalty_change(x, new).sum()
            assert apart == pytest.approx(problem.penalty(new) - problem.penalty(x), abs=1e-12)

    @pytest.mark.parametrize("selection", SELECTIONS)
    @pytest.mark.parametrize(
        "update", [GradientStep(), GradientStep(line_search=True), BoundStep(), NewtonStep()]
    )
    def test_every_rule_and_update_agrees_with_a_conic_solver(self, selection, update):
        cp = pytest.importorskip("cvxpy")
        for problem in self.problems():
            loss = problem.loss
            A = loss.A.toarray() if sp.issparse(loss.A) else loss.A
            x = cp.Variable(8)
            f = (
                0.5 * cp.sum_squares(A @ x - loss.b)
                if isinstance(loss, LeastSquares)
                else cp.sum(cp.logistic(cp.multiply(-loss.y, A @ x)))
            )
            groups = [problem.group_weight[k] * cp.norm2(x[problem.members([k])]) for k in range(4)]
            penalty = problem.weight @ cp.abs(x) + sum(groups) + 0.5 * loss.ridge * cp.sum_squares(x)
            best = self.conic(problem, cp.Problem(cp.Minimize(f + penalty)))
            blocks = FixedBlocks((np.flatnonzero(self.LABELS < 2), np.flatnonzero(self.LABELS >= 2)))
            for partition in (VariableBlocks(2), blocks):
                method = BlockCoordinateDescent(partition, SELECTIONS[selection](), update)
                result = solve(problem, method, stop=Stop(below={"violation": 1e-7}, steps=5000))
                assert result.converged, method.name
                assert result.metrics["objective"] == pytest.approx(best, abs=1e-5)

    minima: ClassVar[dict[str, float]] = {}

    def conic(self, problem, program):
        key = f"{type(problem.loss).__name__} {problem.loss.ridge} {problem.group_weight} {problem.weight[0]}"
        if key not in self.minima:
            self.minima[key] = program.solve(solver="CLARABEL")
        return self.minima[key]

    def test_groups_of_one_are_the_lasso(self):
        loss = losses()["squares"]
        lasso = solve(Penalized(loss, l1=0.8), stop=TIGHT).x
        groups = solve(GroupPenalized(loss, groups=np.arange(8), group_weight=0.8), stop=TIGHT).x
        np.testing.assert_allclose(groups, lasso, atol=1e-9)

    def test_within_the_radius_zero_groups_are_identified(self, rng):
        A = rng.standard_normal((60, 20))
        b = A[:, :4] @ np.ones(4) + 0.1 * rng.standard_normal(60)
        for l1 in (0.0, 2.0):
            problem = GroupPenalized(
                LeastSquares(A, b), l1, groups=np.repeat(np.arange(5), 4), group_weight=12.0
            )
            x = solve(problem, stop=Stop(below={"violation": 1e-11}, steps=20_000)).x
            assert (x == 0).sum() >= 12
            delta, radius = nondegeneracy(problem, x), identification_radius(problem, x)
            step = 1.0 / np.linalg.eigvalsh(problem.loss.bound(np.arange(20)))[-1]
            assert 0 < delta < np.inf
            for _ in range(50):
                d = rng.standard_normal(20)
                near = x + radius * d / np.linalg.norm(d)
                g = problem.loss.gradient(near, problem.loss.keep(near))
                new = problem.prox(near - step * g, np.full(20, step))
                assert (new[x == 0] == 0).all()

    def test_random_rules_reach_every_group(self):
        problem = next(self.problems())
        for rule in ("cyclic", "random", "lipschitz"):
            method = BlockCoordinateDescent(VariableBlocks(1), SELECTIONS[rule](), BoundStep())
            state = method.init(problem, 0)
            met = set()
            for _ in range(60):
                met.add(tuple(method.partition.choose(problem, state, method.selection)))
                state = method.step(problem, state)
            assert len(met) == 4

    def test_bad_groups_are_refused(self):
        loss = losses()["squares"]
        with pytest.raises(InvalidProblem, match=r"groups has shape \(3,\); expected \(8,\)"):
            GroupPenalized(loss, groups=[0, 1, 2])
        with pytest.raises(NotFinite, match="groups holds 8 NaN"):
            GroupPenalized(loss, groups=np.full(8, np.nan))
        with pytest.raises(InvalidProblem, match="no box"):
            GroupPenalized(loss, low=0.0, groups=self.LABELS)
        with pytest.raises(InvalidProblem, match="group_weight >= 0"):
            GroupPenalized(loss, groups=self.LABELS, group_weight=-1.0)
        problem = GroupPenalized(loss, groups=self.LABELS)
        with pytest.raises(InvalidProblem, match="1 of the 3 coordinates of group 0"):
            solve(problem, BlockCoordinateDescent(FixedBlocks((np.arange(2), np.arange(2, 8)))))
        with pytest.raises(InvalidProblem, match="no projection for groups"):
            solve(problem, BlockCoordinateDescent(VariableBlocks(1), GS(), TwoMetric()))
        quadratic = GroupPenalized(losses()["quadratic"], groups=np.arange(12) // 2)
        with pytest.raises(InvalidProblem, match="cut groups in two"):
            solve(quadratic, BlockCoordinateDescent(ForestBlocks(), GSL(), BoundStep()))


class TestAccelerated:
    @pytest.mark.parametrize("name", NAMES)
    @pytest.mark.parametrize("penalty", [{}, {"l1": 0.8}, {"low": 0.0}], ids=["smooth", "l1", "non-negative"])
    def test_reaches_the_minimum(self, name, penalty):
        problem = Penalized(losses()[name], **penalty)
        result = solve(
            problem, AcceleratedProximalGradient(), stop=Stop(below={"violation": 1e-8}, steps=20_000)
        )
        assert result.converged
        assert result.metrics["objective"] <= minimum(problem) + 1e-7

    def test_it_keeps_to_nesterovs_bound(self):
        """``F(x_k) - F* <= 2 L |x_0 - x*|^2 / (k + 1)^2`` (Beck and Teboulle, theorem 4.4)."""
        rng = np.random.default_rng(0)
        A = rng.standard_normal((40, 30)) * np.geomspace(1.0, 1e-3, 30)
        problem = Penalized(LeastSquares(A, rng.standard_normal(40)), l1=1e-3)
        L = np.linalg.eigvalsh(A.T @ A)[-1]
        best = solve(problem, stop=Stop(below={"violation": 1e-11}, steps=20_000))
        values = []
        solve(
            problem,
            AcceleratedProximalGradient(L),
            stop=Stop(steps=100),
            callbacks=[lambda run: values.append(problem.metrics(run.state.x)["objective"]) and None],
        )
        far = float(best.x @ best.x)
        for k, value in enumerate(values, start=1):
            assert value - best.metrics["objective"] <= 2.0 * L * far / (k + 1) ** 2 + 1e-9

    def test_resuming_gives_the_same_bits(self, tmp_path):
        problem = Penalized(losses()["logistic"], l1=0.5)
        whole = solve(problem, AcceleratedProximalGradient(), stop=Stop(steps=9))
        first = [Checkpoint(tmp_path / "c", every=1)]
        solve(problem, AcceleratedProximalGradient(), stop=Stop(steps=4), callbacks=first)
        rest = solve(problem, AcceleratedProximalGradient(), stop=Stop(steps=9), resume=tmp_path / "c")
        assert np.array_equal(whole.x, rest.x)

    def test_bad_lengths_are_refused(self):
        with pytest.raises(InvalidParameter, match="lipschitz > 0"):
            AcceleratedProximalGradient(0.0)
        with pytest.raises(InvalidParameter, match="'omp' and 'iht'"):
            GSQ("best")


class TestProgress:
    @given(st.integers(0, 10_000), st.sampled_from(NAMES), st.integers(1, 4))
    def test_each_rules_bound_holds(self, seed, name, size):
        loss = losses(seed % 7)[name]
        problem = Penalized(loss, x0=np.random.default_rng(seed).standard_normal(loss.n))
        for update in (GradientStep(), BoundStep()):
            method = BlockCoordinateDescent(VariableBlocks(size), GSL(), update)
            state = method.init(problem, 0)
            x, g = state.x.copy(), state.g.copy()
            block = method.partition.choose(problem, state, method.selection)
            H = loss.bound(block)
            promised = 0.5 * (
                g[block] @ g[block] / np.linalg.eigvalsh(H)[-1]
                if isinstance(update, GradientStep)
                else g[block] @ np.linalg.solve(H, g[block])
            )
            new = method.step(problem, state).x
            fall = loss.value(x, loss.keep(x)) - loss.value(new, loss.keep(new))
            assert fall >= promised - 1e-9 * (1 + abs(promised))

    @given(st.integers(0, 10_000), st.sampled_from(NAMES), st.sampled_from(list(UPDATES)))
    def test_no_step_raises_the_objective(self, seed, name, update):
        loss = losses(seed % 5)[name]
        problem = Penalized(loss, l1=0.5, x0=np.random.default_rng(seed).standard_normal(loss.n))
        method = BlockCoordinateDescent(VariableBlocks(3), SELECTIONS["progress"](), UPDATES[update]())
        values = [problem.metrics(problem.start())["objective"]]
        solve(
            problem,
            method,
            stop=Stop(steps=15),
            callbacks=[lambda run: values.append(problem.metrics(run.state.x)["objective"]) and None],
        )
        assert all(b <= a + 1e-10 * (1 + abs(a)) for a, b in itertools.pairwise(values))


class TestForests:
    @given(st.integers(0, 10_000), st.integers(2, 12))
    def test_elimination_agrees_with_cholesky(self, seed, side):
        rng = np.random.default_rng(seed)
        H = lattice(side, side, 0.01)
        forest = random_forest(H, seed)
        g = rng.standard_normal(len(forest))
        dense = H[forest][:, forest].toarray()
        np.testing.assert_allclose(
            solve_forest(H, forest, g), -np.linalg.solve(dense, g), rtol=1e-8, atol=1e-10
        )
        part, _ = sp.csgraph.connected_components(H[forest][:, forest])
        edges = (np.count_nonzero(dense) - len(forest)) // 2
        assert edges == len(forest) - part  # a forest
        left = np.setdiff1d(np.arange(side * side), forest)
        for v in left:  # no node could still be taken
            assert len(greedy_forest(H, np.append(forest, v))) == len(forest)

    def test_blocks_of_a_lattice_cover_it(self):
        H = lattice(9, 7)
        for blocks in (red_black(H), tree_partition(H), tree_partition(H, seed=3)):
            np.testing.assert_array_equal(np.sort(np.concatenate(blocks)), np.arange(63))
        assert len(red_black(H)) == 2
        assert len(tree_partition(H)) <= 3
        assert len(tree_partition(H)[0]) > 0.6 * 63

    def test_independent_sets_have_diagonal_blocks(self):
        H = lattice(5, 6)
        for block in red_black(H):
            inner = H[block][:, block].toarray()
            assert np.count_nonzero(inner - np.diag(np.diag(inner))) == 0

    @pytest.mark.parametrize("kind", ["forests", "tree partition", "red-black"])
    def test_solves_lattices(self, kind, rng):
        H = lattice(20, 20, 0.1)
        problem = Penalized(Quadratic(H, rng.standard_normal(400)))
        partition, update = {
            "forests": (ForestBlocks(), MessagePassing()),
            "tree partition": (FixedBlocks(tree_partition(H)), MessagePassing()),
            "red-black": (FixedBlocks(red_black(H)), SparseStep()),
        }[kind]
        result = solve(problem, BlockCoordinateDescent(partition, GSL(), update), stop=TIGHT)
        assert result.converged
        np.testing.assert_allclose(H @ result.x, problem.loss.c, atol=1e-8)

    def test_a_whole_tree_needs_one_step(self, rng):
        path = sp.diags_array([np.full(99, -1.0), np.full(100, 2.1), np.full(99, -1.0)], offsets=[-1, 0, 1])
        problem = Penalized(Quadratic(path, rng.standard_normal(100)))
        method = BlockCoordinateDescent(ForestBlocks(), GSL(), MessagePassing())
        assert solve(problem, method, stop=TIGHT).steps == 1

    def test_a_cycle_is_refused(self):
        with pytest.raises(InvalidProblem, match="has a cycle"):
            solve_forest(lattice(2, 2), np.arange(4), np.ones(4))

    def test_an_indefinite_block_is_refused(self):
        H = sp.csr_array(np.array([[1.0, 2.0], [2.0, 1.0]]))
        with pytest.raises(InvalidProblem, match="not positive definite"):
            solve_forest(H, [0, 1], [1.0, 1.0])


class TestHeap:
    @pytest.mark.parametrize("counts", [True, False])
    def test_iterates_are_those_of_the_exhaustive_choice(self, counts, rng):
        H = lattice(7, 8, 0.3) + sp.diags_array(rng.random(56))
        problem = Penalized(Quadratic(H, rng.standard_normal(56)))
        rule = GSL() if counts else GS()
        slow, fast = (
            BlockCoordinateDescent(VariableBlocks(1), rule, GradientStep()),
            HeapGreedy(counts, inner=7),
        )
        a, b = slow.init(problem, 0), fast.init(problem, 0)
        for _ in range(40):
            for _ in range(7):
                a = slow.step(problem, a)
            b = fast.step(problem, b)
            np.testing.assert_allclose(a.x, b.x, atol=1e-12)


class TestActiveSets:
    @pytest.fixture
    def lasso(self, rng):
        A = rng.standard_normal((60, 40))
        x = np.zeros(40)
        x[:5] = 3.0
        problem = Penalized(LeastSquares(A, A @ x + 0.1 * rng.standard_normal(60)), l1=10.0)
        return problem, solve(problem, stop=Stop(below={"violation": 1e-12}, steps=20_000)).x

    def test_nondegeneracy_is_the_least_slack(self, lasso):
        problem, x = lasso
        g = problem.loss.gradient(x, problem.loss.keep(x))
        assert nondegeneracy(problem, x) == pytest.approx(
            min(10.0 - abs(g[i]) for i in range(40) if x[i] == 0)
        )

    def test_within_the_radius_every_proximal_step_identifies(self, lasso):
        problem, x = lasso
        radius = identification_radius(problem, x)
        assert radius > 0
        rng = np.random.default_rng(1)
        step = 1.0 / np.linalg.eigvalsh(problem.loss.bound(np.arange(40)))[-1]
        for _ in range(50):
            d = rng.standard_normal(40)
            near = x + radius * d / np.linalg.norm(d)
            g = problem.loss.gradient(near, problem.loss.keep(near))
            new = problem.prox(near - step * g, np.full(40, step))
            assert (new[x == 0] == 0).all()

    @pytest.mark.parametrize("update", [TwoMetric(), NewtonStep()])
    def test_ends_finitely_once_the_support_is_a_block(self, lasso, update):
        problem, x = lasso
        method = BlockCoordinateDescent(VariableBlocks(10), SELECTIONS["progress"](), update)
        result = solve(problem, method, stop=Stop(below={"violation": 1e-10}, steps=200))
        assert result.converged
        assert result.steps <= 20
        assert result.history.metrics[-1]["active"] == (x == 0).sum()
        assert result.history.metrics[-1]["identified"] < result.steps

    def test_logistic_ends_superlinearly(self, rng):
        A = rng.standard_normal((100, 30))
        y = np.sign(A[:, 0] - A[:, 1] + 0.5 * rng.standard_normal(100))
        problem = Penalized(Logistic(A, y), l1=4.0)
        method = BlockCoordinateDescent(VariableBlocks(15), SELECTIONS["progress"](), NewtonStep())
        result = solve(problem, method, stop=Stop(below={"violation": 1e-12}, steps=60))
        last = [m["violation"] for m in result.history.metrics][-4:]
        assert result.converged
        assert last[-2] < 0.05 * last[-3]
        assert last[-1] < 0.05 * last[-2]


class TestLabels:
    def test_unknown_nodes_take_harmonic_values(self, rng):
        X = rng.standard_normal((30, 2))
        W = np.exp(-np.square(X[:, None] - X[None]).sum(-1))
        np.fill_diagonal(W, 0.0)
        known = np.arange(30) < 5
        y = np.where(known, rng.standard_normal(30), np.nan)
        loss = label_propagation(W, y, known)
        full = y.copy()
        full[~known] = solve(Penalized(loss), stop=Stop(below={"violation": 1e-11}, steps=20_000)).x
        means = (W @ full) / W.sum(1)
        np.testing.assert_allclose(full[~known], means[~known], atol=1e-9)

    def test_nodes_beyond_reach_are_named(self):
        W = np.zeros((4, 4))
        W[0, 1] = W[1, 0] = W[2, 3] = W[3, 2] = 1.0
        with pytest.raises(InvalidProblem, match="node 2"):
            label_propagation(W, [1.0, 0, 0, 0], [True, False, False, False])


class TestBadInput:
    def test_zero_columns_are_named(self, rng):
        A = rng.standard_normal((5, 3))
        A[:, 1] = 0.0
        with pytest.raises(InvalidProblem, match=r"zero columns \(first: 1\)"):
            LeastSquares(A, np.ones(5))
        assert LeastSquares(A, np.ones(5), ridge=1.0).lipschitz[1] == 1.0

    def test_labels_must_be_plus_or_minus_one(self, rng):
        with pytest.raises(InvalidProblem, match="-1 and 1"):
            Logistic(rng.standard_normal((4, 2)), [0, 1, 0, 1])

    def test_classes_must_be_integers(self, rng):
        with pytest.raises(InvalidProblem, match="integers from 0"):
            Multinomial(rng.standard_normal((4, 2)), [0.5, 1, 0, 1])

    def test_separable_labels_without_a_penalty_are_refused(self):
        A = np.array([[1.0], [2.0], [-1.0]])
        with pytest.raises(InvalidProblem, match="separable"):
            solve(Penalized(Logistic(A, [1, 1, -1])))
        assert solve(Penalized(Logistic(A, [1, 1, -1]), l1=0.1), stop=TIGHT).converged

    def test_nan_is_refused(self, rng):
        A = rng.standard_normal((4, 2))
        A[0, 0] = np.nan
        with pytest.raises(ValueError, match="NaN"):
            LeastSquares(A, np.ones(4))

    def test_blocks_must_cover_the_coordinates(self):
        problem = Penalized(losses()["squares"])
        with pytest.raises(InvalidProblem, match="each to be in one block"):
            solve(problem, BlockCoordinateDescent(FixedBlocks((np.arange(3), np.arange(2, 8)))))

    def test_forests_and_messages_need_a_sparse_quadratic(self):
        problem = Penalized(losses()["squares"])
        for method in (BlockCoordinateDescent(ForestBlocks()), HeapGreedy()):
            with pytest.raises(InvalidProblem, match="Quadratic"):
                solve(problem, method)
        bounded = Penalized(losses()["quadratic"], low=0.0)
        with pytest.raises(InvalidProblem, match="with one"):
            solve(bounded, BlockCoordinateDescent(ForestBlocks(), GSL(), MessagePassing()))

    def test_an_asymmetric_quadratic_is_refused(self):
        with pytest.raises(InvalidProblem, match="not symmetric"):
            Quadratic(np.array([[1.0, 2.0], [0.0, 1.0]]), np.ones(2))
