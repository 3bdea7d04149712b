"""Combiners against another solver, brute force, closed forms and invariances."""

from __future__ import annotations

import itertools

import numpy as np
import pytest
import scipy.optimize
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from thalweg.adaptation import EPO, MGDA, CAGrad, FixedWeights, NashMTL, PCGrad, PreferenceLP, UPGrad
from thalweg.adaptation.combiners import balancing, descending, non_uniformity, programme
from thalweg.core import InvalidParameter, InvalidProblem, NotFinite

ALL = [
    MGDA(),
    PCGrad(),
    UPGrad(),
    CAGrad(),
    NashMTL(),
    PreferenceLP(),
    PreferenceLP(1.0),
    EPO((1.0, 2.0, 0.5)),
]


def instance(seed, m=3, size=6):
    rng = np.random.default_rng(seed)
    G, g = rng.standard_normal((m, size)), rng.standard_normal(size)
    return G, g, G @ G.T, G @ g


def highs(objective, rows, bounds):
    m = len(objective)
    A = None if not len(rows) else -np.asarray(rows)
    b = None if not len(rows) else -np.asarray(bounds)
    return scipy.optimize.linprog(-objective, A, b, np.ones((1, m)), [1.0], method="highs")


class TestProgramme:
    def test_it_is_what_highs_finds_on_random_instances(self):
        infeasible = 0
        for seed in range(400):
            _, _, C, c = instance(seed)
            rows, bounds = np.vstack([C, c]), np.append(np.zeros(3), min(c.max(), 0.0))
            ours, other = programme(C.sum(0), rows, bounds), highs(C.sum(0), rows, bounds)
            assert (ours is None) == (other.status == 2)
            if ours is None:
                infeasible += 1
                continue
            assert C.sum(0) @ ours == pytest.approx(-other.fun, rel=1e-7, abs=1e-7)
        assert 20 <= infeasible <= 120  # the guide's row cannot always be kept

    @pytest.mark.parametrize("m", [1, 2, 4, 5, 6, 8])
    def test_it_is_exact_for_other_numbers_of_objectives(self, m):
        for seed in range(20):
            _, _, C, c = instance(seed, m, m + 2)
            found, other = programme(c, C, np.zeros(m)), highs(c, C, np.zeros(m))
            assert c @ found == pytest.approx(-other.fun, rel=1e-7, abs=1e-7)

    @pytest.mark.parametrize("kind", ["parallel", "opposite", "equal", "zero", "rank one", "tiny"])
    def test_it_is_what_highs_finds_where_gradients_are_degenerate(self, kind):
        for seed in range(30):
            G, g, *_ = instance(seed)
            if kind == "parallel":
                G[1] = 2.0 * G[0]
            elif kind == "opposite":
                G[1] = -G[0]
            elif kind == "equal":
                G[1] = G[2] = G[0]
            elif kind == "zero":
                G[1] = 0.0
            elif kind == "rank one":
                G = np.outer([1.0, -2.0, 0.5], G[0])
            else:
                G[1] *= 1e-4
            C, c = G @ G.T, G @ g
            found = programme(c, C, np.zeros(3))
            other = highs(c, C, np.zeros(3))
            assert other.status == 0
            assert found is not None
            scale = np.abs(c).max() + 1e-12
            assert c @ found / scale == pytest.approx(-other.fun / scale, abs=1e-6)
            assert (C @ found >= -1e-8 * np.abs(C).max()).all()

    def test_it_is_the_best_of_a_fine_grid(self):
        steps = np.linspace(0, 1, 81)
        grid = np.array([(a, b, 1 - a - b) for a, b in itertools.product(steps, steps) if a + b <= 1 + 1e-12])
        for seed in range(20):
            _, _, C, c = instance(seed)
            inside = grid[(grid @ C >= 0).all(1)]
            best = (inside @ c).max()
            found = c @ programme(c, C, np.zeros(3))
            assert best - 1e-9 <= found <= best + 0.1 * np.abs(c).max()

    def test_of_several_optima_the_mean_is_taken(self):
        np.testing.assert_allclose(programme(np.zeros(3), np.eye(3), np.zeros(3)), 1 / 3)

    def test_nothing_feasible_is_none(self):
        assert programme(np.ones(2), -np.ones((1, 2)), np.zeros(1)) is None
        assert programme(np.ones(2), np.zeros((1, 2)), np.ones(1)) is None


class TestPreferenceLP:
    @given(seed=st.integers(0, 10_000))
    @settings(max_examples=60, deadline=None)
    def test_no_objective_rises_while_it_descends(self, seed):
        _, _, C, c = instance(seed)
        found = PreferenceLP().combine(C, c, reached=1.0)
        assert (C @ found.weights >= -1e-8 * np.abs(C).max()).all()
        if found.mode == "descent":
            assert c @ found.weights >= min(c.max(), 0.0) - 1e-8 * np.abs(c).max()

    @given(seed=st.integers(0, 10_000))
    @settings(max_examples=60, deadline=None)
    def test_balance_keeps_its_rows_and_is_best_among_vertices(self, seed):
        _, _, C, c = instance(seed)
        a = balancing(C, c)
        scale = 1e-8 * np.abs(C).max()
        if (c > 0).any():
            assert (C @ a)[np.argmax(c)] >= -scale
            assert ((C @ a)[c <= 0] >= c[c <= 0] - scale).all()
            assert c @ a >= c @ MGDA().weights(C) - scale  # a feasible point
        else:
            assert (C @ a >= -scale).all()

    @pytest.mark.parametrize("reached", [0.0, 1.0])
    def test_weights_do_not_change_with_the_scale_of_all_gradients_nor_with_the_axes(self, reached):
        for seed in range(30):
            G, g, C, c = instance(seed)
            a = PreferenceLP().weights(C, c, reached=reached)
            for factor in (1e-8, 1e6):
                scaled = PreferenceLP().weights(factor**2 * C, factor**2 * c, reached=reached)
                np.testing.assert_allclose(scaled, a, atol=1e-8)
            Q = np.linalg.qr(np.random.default_rng(seed).standard_normal((6, 6)))[0]
            turned = PreferenceLP().weights((G @ Q) @ (G @ Q).T, (G @ Q) @ (g @ Q), reached=reached)
            np.testing.assert_allclose(turned, a, atol=1e-6)

    def test_the_mode_turns_where_the_guide_has_reached_its_share(self):
        _, _, C, c = instance(0)
        modes = [PreferenceLP(0.1).combine(C, c, reached=r).mode for r in (0.0, 0.89, 0.91, 1.0)]
        assert modes[:2] == ["balance"] * 2
        assert all(mode.startswith("descent") for mode in modes[2:])

    def test_the_guides_row_is_dropped_where_it_cannot_be_kept(self):
        a, mode = descending(np.eye(2), np.array([-1.0, -2.0]))
        assert mode == "descent"  # only the first vertex fulfils -1
        np.testing.assert_allclose(a, [1.0, 0.0])
        tight = np.array([[1.0, -0.9], [-0.9, 1.0]])
        a, mode = descending(tight, np.array([-1.0, -2.0]))  # C a >= 0 keeps a near (1/2, 1/2)
        assert mode == "descent, guide dropped"
        assert (tight @ a >= -1e-12).all()

    def test_a_target_like_the_source_does_no_harm(self):
        g = np.random.default_rng(0).standard_normal(5)
        C, c = np.full((3, 3), g @ g), np.full(3, g @ g)
        for reached in (0.0, 1.0):
            np.testing.assert_allclose(PreferenceLP().weights(C, c, reached=reached), 1 / 3, atol=1e-9)


class TestOthers:
    @given(seed=st.integers(0, 10_000))
    @settings(max_examples=60, deadline=None)
    def test_the_least_norm_of_two_is_in_closed_form(self, seed):
        G, _, C, _ = instance(seed, 2, 4)
        first = np.clip(G[1] @ (G[1] - G[0]) / ((G[0] - G[1]) @ (G[0] - G[1])), 0, 1)
        np.testing.assert_allclose(MGDA().weights(C), [first, 1 - first], atol=1e-7)

    def test_the_least_norm_fulfils_its_optimality_conditions(self):
        for seed in range(50):
            _, _, C, _ = instance(seed, 5, 7)
            a = MGDA().weights(C)
            slack = C @ a - a @ C @ a
            assert slack.min() >= -1e-8
            assert abs(a @ slack) <= 1e-8

    @pytest.mark.parametrize("m", [2, 3, 6])
    def test_torchjds_mgda_comes_to_the_same_point_from_above(self, m):
        theirs = pytest.importorskip("torchjd.aggregation").MGDAWeighting(epsilon=1e-12, max_iters=2000)
        for seed in range(5):
            G = np.random.default_rng(seed).standard_normal((m, 2 * m))
            C = G @ G.T
            ours = MGDA().weights(C)
            found = theirs(torch.from_numpy(C)).numpy()
            least, near = ours @ C @ ours, found @ C @ found
            assert least <= near * (1 + 1e-12)
            assert near == pytest.approx(least, rel=2e-2)  # Frank-Wolfe: its gap falls as one over its steps

    def test_torchjds_cagrad_has_the_same_weights(self):
        pytest.importorskip("cvxpy")
        theirs = pytest.importorskip("torchjd.aggregation").CAGradWeighting(c=0.5)
        for seed in range(5):
            G = np.random.default_rng(seed).standard_normal((3, 6))
            found = theirs(torch.from_numpy(G @ G.T)).numpy()
            np.testing.assert_allclose(CAGrad(0.5).weights(G @ G.T), found, rtol=2e-3)

    def test_pcgrad_is_its_algorithm_on_vectors(self):
        G, _, C, _ = instance(3)
        total = np.zeros(6)
        for i in range(3):
            others = [j for j in range(3) if j != i]
            for order in itertools.permutations(others):
                g = G[i].copy()
                for j in order:
                    g -= min(g @ G[j], 0.0) / (G[j] @ G[j]) * G[j]
                total += g / 2
        np.testing.assert_allclose(G.T @ PCGrad().weights(C), total, atol=1e-12)

    def test_upgrad_projects_each_gradient_on_the_dual_cone(self):
        for seed in range(20):
            G, _, C, _ = instance(seed)
            direction = G.T @ UPGrad().weights(C)
            assert (G @ direction >= -1e-8).all()
            projected = []
            for g in G:
                found = scipy.optimize.minimize(
                    lambda u, g=g: ((u - g) ** 2).sum(),
                    np.zeros(6),
                    jac=lambda u, g=g: 2 * (u - g),
                    constraints={"type": "ineq", "fun": lambda u, G=G: G @ u, "jac": lambda u, G=G: G},
                    method="SLSQP",
                    options={"ftol": 1e-14},
                )
                projected.append(found.x)
            np.testing.assert_allclose(direction, np.mean(projected, 0), atol=1e-5)

    def test_cagrad_has_the_best_worst_fall_in_its_ball(self):
        rng = np.random.default_rng(0)
        for seed in range(10):
            G, _, C, _ = instance(seed)
            mean = G.mean(0)
            direction = G.T @ CAGrad(0.5).weights(C)
            radius = 0.5 * np.linalg.norm(mean)
            assert np.linalg.norm(direction - mean) <= radius * (1 + 1e-6)
            tried = rng.standard_normal((4000, 6))
            tried = mean + radius * tried / np.linalg.norm(tried, axis=1, keepdims=True)
            assert (G @ direction).min() >= (tried @ G.T).min(1).max() - 1e-6

    def test_nash_solves_its_equation_and_does_not_see_scales(self):
        for seed in range(20):
            _, _, C, _ = instance(seed)
            a = NashMTL().weights(C)
            np.testing.assert_allclose(C @ a, 1 / a, rtol=1e-8)
            s = np.array([1e-3, 1.0, 50.0])
            np.testing.assert_allclose(NashMTL().weights(C * np.outer(s, s)) * s, a, rtol=1e-6)

    def test_nash_on_the_front_is_the_least_norm(self):
        C = np.array([[1.0, -1.0], [-1.0, 1.0]])
        np.testing.assert_allclose(NashMTL().weights(C), [0.5, 0.5])

    def test_epo_comes_to_the_ray_of_two_parabolas(self):
        ray, x = np.array([1.0, 4.0]), np.array([0.3, 0.8])
        ends = np.array([[0.0, 0.0], [1.0, 0.0]])
        combiner = EPO(tuple(ray), tol=1e-4)
        for _ in range(3000):
            G = 2 * (x - ends)
            losses = ((x - ends) ** 2).sum(1)
            x = x - 0.01 * 2 * G.T @ combiner.weights(G @ G.T, losses=losses)
        weighted = ray * ((x - ends) ** 2).sum(1)
        assert weighted[0] == pytest.approx(weighted[1], rel=0.1)
        assert abs(x[1]) < 0.02  # on the front, the segment between the ends

    def test_non_uniformity_is_zero_on_the_ray_alone(self):
        assert non_uniformity(np.array([1.0, 2.0]), np.array([2.0, 1.0]))[1] == 0.0
        assert non_uniformity(np.array([1.0, 1.0]), np.array([2.0, 1.0]))[1] > 0.01


class TestBadInput:
    @pytest.mark.parametrize(
        "combiner", ALL, ids=lambda k: k.name if hasattr(k, "name") else type(k).__name__
    )
    @pytest.mark.parametrize("bad", [0.0, np.nan, np.inf])
    def test_an_objective_without_a_gradient_is_dropped_and_named(self, combiner, bad):
        _, _, C, c = instance(1)
        C[1, :], C[:, 1], c[1] = bad, bad, bad
        found = combiner.combine(C, c, np.ones(3))
        assert found.dropped == (1,)
        assert found.weights[1] == 0
        assert np.isfinite(found.weights).all()
        assert found.weights.sum() > 0

    def test_no_gradient_at_all(self):
        assert MGDA().combine(np.zeros((2, 2))).dropped == (0, 1)
        with pytest.raises(NotFinite, match="No objective has a finite gradient"):
            MGDA().weights(np.full((2, 2), np.nan))

    @pytest.mark.parametrize(
        ("call", "message"),
        [
            (lambda: MGDA().weights(np.ones((2, 3))), r"expected \(m, m\)"),
            (lambda: MGDA().weights(np.array([[1.0, 2.0], [0.0, 1.0]])), "not symmetric"),
            (lambda: MGDA().weights(np.eye(2) * 1j), "complex"),
            (lambda: PreferenceLP().weights(np.eye(2)), "needs c = G g"),
            (lambda: PreferenceLP().weights(np.eye(2), [1.0]), "c has shape"),
            (lambda: EPO((1.0, 1.0)).weights(np.eye(2)), "losses > 0"),
            (lambda: EPO((1.0, 1.0)).weights(np.eye(2), losses=[1.0, -1.0]), "losses > 0"),
            (lambda: EPO((1.0,)).weights(np.eye(2), losses=[1.0, 1.0]), "ray of 1"),
            (lambda: FixedWeights((1.0,)).weights(np.eye(2)), "has 1 weights"),
        ],
    )
    def test_what_does_not_fit_is_refused(self, call, message):
        with pytest.raises(InvalidProblem, match=message):
            call()

    @pytest.mark.parametrize(
        "make",
        [
            lambda: PreferenceLP(1.5),
            lambda: EPO((1.0, 0.0)),
            lambda: EPO(()),
            lambda: FixedWeights((-1.0, 1.0)),
            lambda: FixedWeights((np.nan,)),
            lambda: CAGrad(1.0),
        ],
    )
    def test_parameters_out_of_range_are_refused(self, make):
        with pytest.raises(InvalidParameter):
            make()
