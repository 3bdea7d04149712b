"""Drawing components: unbiased by enumeration, stable ranks of known spectra, centred games, safeguards."""

from __future__ import annotations

import math

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.optimize import linprog

from thalweg import Stop, solve
from thalweg.core import InvalidProblem, recommended
from thalweg.equilibrium import (
    PDHG,
    SVRG,
    Affine,
    Bilinear,
    Constant,
    Extragradient,
    Functions,
    InexactHalpern,
    MonotoneInclusion,
    Sampling,
    ScaledIdentity,
    SumOfComponents,
    VRExtragradient,
    VRHalpern,
    linear_gan,
    matrix_game,
    policeman_and_burglar,
)
from thalweg.equilibrium._kernels import add_drawn
from thalweg.equilibrium._tensors import centred
from thalweg.equilibrium.inexact import _Loop
from thalweg.equilibrium.operators import affine

DOUBLE = torch.float64


def normal(*shape, seed=0):
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed), dtype=DOUBLE)


def value_of(A):
    """HiGHS: ``min v, A'x <= v, x in the simplex``."""
    m, n = A.shape
    return linprog(
        np.r_[np.zeros(m), 1.0],
        A_ub=np.c_[A.numpy().T, -np.ones(n)],
        b_ub=np.zeros(n),
        A_eq=np.r_[np.ones(m), 0.0][None],
        b_eq=[1.0],
        bounds=[(0, None)] * m + [(None, None)],
    ).fun


class TestDraws:
    @settings(max_examples=50, deadline=None)
    @given(st.integers(1, 6), st.integers(1, 5), st.integers(0, 1000), st.booleans())
    def test_the_mean_over_all_draws_is_the_product(self, k, width, seed, holes):
        """Every vector by its chance: the expectation, and the second moment ``(sum |A_i| |d_i|)^2``."""
        rng = np.random.default_rng(seed)
        vectors, d = rng.standard_normal((k, width)), rng.standard_normal(k)
        if holes:
            vectors[rng.random(k) < 0.3] = 0.0
            d[rng.random(k) < 0.3] = 0.0
        lengths = np.linalg.norm(vectors, axis=1)
        load = lengths * np.abs(d)
        total, mean, square = load.sum(), np.zeros(width), 0.0
        for i in np.flatnonzero(load):
            uniform, out = np.array([(load[:i].sum() + 0.5 * load[i]) / total]), np.zeros(width)
            add_drawn(vectors, lengths, d, uniform, -1.0, out)
            mean += load[i] / total * out
            square += load[i] / total * out @ out
        np.testing.assert_allclose(mean, -d @ vectors, atol=1e-12)
        assert square == pytest.approx(total**2)

    @pytest.mark.parametrize("u", [0.0, 1.0 - 2.0**-53])
    def test_what_adds_nothing_is_never_drawn(self, u):
        vectors = np.array([[0.0, 0.0], [1.0, 2.0], [3.0, 4.0], [0.0, 0.0]])
        d, lengths = np.array([1.0, 1.0, 0.0, 1.0]), np.linalg.norm(vectors, axis=1)
        out = np.zeros(2)
        add_drawn(vectors, lengths, d, np.array([u]), 1.0, out)
        np.testing.assert_allclose(out, [1.0, 2.0])
        add_drawn(vectors, lengths, 0.0 * d, np.array([u]), 1.0, out)
        np.testing.assert_allclose(out, [1.0, 2.0])

    def test_nan_is_not_hidden(self):
        game = Bilinear(normal(3, 3))
        d = torch.tensor([0.0, math.nan, 0.0, 1.0, 0.0, 0.0], dtype=DOUBLE)
        assert bool(game.change(d, 2, torch.Generator()).isnan().any())

    @pytest.mark.parametrize("shape", [(6, 6), (3, 9), (9, 3)])
    @pytest.mark.parametrize("strength", [0.0, 0.7])
    def test_many_draws_come_near_the_difference(self, shape, strength):
        """Five standard errors, of which ``spread |d| / sqrt(draws)`` is an upper bound."""
        game = Bilinear(normal(*shape))
        n = game.count
        components = SumOfComponents(
            SumOfComponents(game, Constant(normal(sum(shape), seed=1), n)), ScaledIdentity(strength, n)
        )
        u, w = normal(sum(shape), seed=2), normal(sum(shape), seed=3)
        found = components.change(u - w, 20_000, torch.Generator().manual_seed(0))
        exact = components.full(u) - components.full(w)
        assert float((found - exact).norm()) <= 5.0 * components.spread * float((u - w).norm()) / math.sqrt(
            20_000
        )

    def test_a_gans_examples_come_near_the_difference(self):
        z, x = normal(50, 3), normal(50, 2, seed=1)
        z[7] = 0.0
        problem = linear_gan(z, x, regularisation=0.3)
        components = affine(problem.components)
        u, w = normal(12, seed=2), normal(12, seed=3)
        found = components.change(u - w, 20_000, torch.Generator().manual_seed(0))
        exact = components.full(u) - components.full(w)
        assert float((found - exact).norm()) <= 5.0 * components.spread * float((u - w).norm()) / math.sqrt(
            20_000
        )

    def test_a_sum_with_other_components_is_not_affine(self):
        both = SumOfComponents(ScaledIdentity(1.0, 2), Functions(lambda u, rows: u.expand(len(rows), -1), 2))
        assert affine(both) is None
        assert isinstance(affine(both.first), Affine)
        with pytest.raises(InvalidProblem, match="affine only where both"):
            both.change(torch.zeros(2), 1, torch.Generator())

    def test_evaluations_are_counted_as_they_are_made(self):
        asked = []

        def f(u, rows):
            asked.append(len(rows))
            return u.expand(len(rows), -1)

        problem = MonotoneInclusion(Functions(f, 100), torch.ones(2, dtype=DOUBLE), lipschitz=1.0)
        for method in (
            VRExtragradient(3, 0.1),
            InexactHalpern(batch=3, step_size=0.1),
            SVRG(3, 0.1, epoch=5),
            VRHalpern(0.1),
        ):
            asked.clear()
            state = method.init(problem, 0)
            for _ in range(4):
                state = method.step(problem, state)
            assert state.calls == sum(asked), method.name


class TestSampling:
    @pytest.mark.parametrize("power", [0.0, 0.5, 1.0])
    def test_the_stable_rank_is_that_of_the_spectrum(self, power):
        U, V = (torch.linalg.qr(normal(40, 40, seed=s)).Q for s in (0, 1))
        values = torch.arange(1.0, 41.0, dtype=DOUBLE) ** -power
        game = SumOfComponents(Bilinear(U * values @ V.T), Constant(normal(80), 40))
        told = MonotoneInclusion(game, torch.zeros(80, dtype=DOUBLE)).sampling()
        exact = float(values.square().sum())
        assert told.stable_rank == pytest.approx(exact, rel=0.05)
        assert told.predicted_gain == pytest.approx(0.25 * math.sqrt(40 / (exact + 1)), rel=0.05)
        assert told.batch == min(round(told.stable_rank), 7)
        assert told.lipschitz(1) == pytest.approx(told.single)
        assert told.lipschitz(40) == told.whole

    def test_two_evaluations_a_difference_halve_the_square_of_the_gain(self):
        one, two = (Sampling(1000, e, 1.0, 2.0).predicted_gain for e in (1, 2))
        assert one / two == pytest.approx(math.sqrt(2.0))

    def test_recommendations_follow_the_gain(self):
        assert isinstance(recommended(matrix_game(normal(600, 600))), PDHG)

        def sum_of(directions):
            """``x_i x_i'u``: alike, or all different."""
            f = Functions(lambda u, rows: directions[rows] * (directions[rows] @ u)[:, None], len(directions))
            return MonotoneInclusion(f, torch.ones(directions.shape[1], dtype=DOUBLE))

        alike, different = torch.ones(600, 3, dtype=DOUBLE), 10.0 * torch.eye(600, dtype=DOUBLE)
        assert isinstance(recommended(sum_of(alike)), InexactHalpern)
        assert isinstance(recommended(sum_of(different)), Extragradient)

    def test_a_ball_about_both_players_is_no_game_for_pdhg(self):
        def ball(v, step):
            return v / max(float(v.norm()), 1.0)

        assert isinstance(
            recommended(MonotoneInclusion(Bilinear(normal(5, 5)), torch.zeros(10, dtype=DOUBLE), ball)),
            Extragradient,
        )


class TestCentredGames:
    @settings(max_examples=30, deadline=None)
    @given(st.integers(1, 8), st.integers(1, 8), st.integers(0, 1000))
    def test_the_parts_add_up_and_the_core_has_no_means(self, m, n, seed):
        A = normal(m, n, seed=seed)
        B, a, b = centred(A)
        torch.testing.assert_close(B + a[:, None] + b, A)
        assert float(B.mean(0).abs().max()) < 1e-14
        assert float(B.mean(1).abs().max()) < 1e-14

    def test_the_residual_is_that_of_the_payoffs_themselves(self):
        A = policeman_and_burglar(30)
        game = matrix_game(A)
        A = A / 2.0 ** math.ceil(math.log2(float(A.max())))
        x, y = game.resolvent(normal(60), 1.0).split(30)
        u = torch.cat([x, y])
        plain = u - game.resolvent(u - torch.cat([A @ y, -(x @ A)]), 1.0)
        assert game.natural_residual(u) == pytest.approx(float(plain.norm()), rel=1e-10)

    @pytest.mark.parametrize(
        "method",
        [PDHG(), VRExtragradient(restart=0.5), InexactHalpern(restart=0.5)],
        ids=lambda m: type(m).__name__,
    )
    def test_the_burglars_value_is_highs(self, method):
        A = policeman_and_burglar(25)
        found = solve(matrix_game(A), method, stop=Stop(below={"residual": 1e-3}, calls=50_000, steps=None))
        assert found.converged
        assert found.metrics["gap"] < 2e-2
        assert found.metrics["value"] == pytest.approx(value_of(A), abs=1e-2)

    @pytest.mark.parametrize(
        "method",
        [PDHG(), Extragradient(), VRExtragradient(), VRHalpern(), InexactHalpern()],
        ids=lambda m: type(m).__name__,
    )
    def test_players_who_do_not_meet_choose_at_once(self, method):
        """``A_ij = a_i + b_j``: the smallest a against the largest b."""
        a, b = normal(9), normal(7, seed=1)
        found = solve(matrix_game(a[:, None] + b), method, stop=Stop(below={"residual": 1e-8}, steps=200))
        assert found.converged
        assert found.metrics["value"] == pytest.approx(float(a.min() + b.max()))


class TestSafeguards:
    def test_a_step_too_long_for_what_lies_ahead_is_halved(self):
        """Slope 1 where the constants are estimated, 101 from 3 on, about the solution: steps of 1 diverge there."""

        def f(u, rows):
            return (u - 4.9 + 100.0 * (u - 3.0).clamp_min(0.0)).expand(len(rows), -1)

        problem = MonotoneInclusion(Functions(f, 9), torch.zeros(1, dtype=DOUBLE))
        first = VRHalpern().init(problem, 0).step_size
        kept = []
        stop = Stop(below={"residual": 1e-3}, steps=2000)
        watch = [lambda run: kept.append(run.state.step_size)]
        found = solve(problem, VRHalpern(restart=0.5), stop=stop, callbacks=watch)
        assert found.converged
        assert float(found.x) == pytest.approx(304.9 / 101.0, abs=1e-3)
        assert kept[-1] <= first / 8
        assert not solve(problem, VRHalpern(step_size=first, restart=0.5), stop=stop).converged

    def test_a_resolvent_that_inner_loops_do_not_reach_is_shortened(self, monkeypatch):
        monkeypatch.setattr(_Loop, "MOST", 1)
        game = matrix_game(normal(20, 20))
        for method, shrinks in (
            (InexactHalpern(inexactness=1e-6), True),
            (InexactHalpern(inexactness=1e-6, eta=9.0), False),
        ):
            state = first = method.init(game, 0)
            for _ in range(3):
                state = method.step(game, state)
            assert (state.eta == first.eta / 8) == shrinks

    def test_restarts_save_evaluations_on_a_game(self):
        U, V = (torch.linalg.qr(normal(60, 60, seed=s)).Q for s in (0, 1))
        A = U * torch.arange(1.0, 61.0, dtype=DOUBLE) ** -0.5 @ V.T
        game = MonotoneInclusion(
            SumOfComponents(Bilinear(A), Constant(normal(120), 60)), torch.zeros(120, dtype=DOUBLE)
        )
        stop = Stop(below={"residual": 0.05 * game.natural_residual(game.x0)}, calls=60 * 3000, steps=None)
        plain, again = (solve(game, VRExtragradient(restart=r), stop=stop) for r in (None, 0.5))
        assert again.converged
        assert again.calls < 0.7 * plain.calls
