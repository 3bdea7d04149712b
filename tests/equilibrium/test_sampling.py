"""Sampling of components against enumeration and closed forms; steps that are too long; who is recommended."""

from __future__ import annotations

import dataclasses
import itertools
import math

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from scipy.optimize import linprog

from thalweg import Status, Stop, solve
from thalweg.core import InvalidParameter, InvalidProblem, recommended
from thalweg.equilibrium import (
    PDHG,
    SVRG,
    Bilinear,
    Extragradient,
    Functions,
    InexactHalpern,
    MonotoneInclusion,
    SamplingReport,
    VRExtragradient,
    VRHalpern,
    adversarial_classification,
    inexact,
    linear_gan,
    linear_program,
    matrix_game,
    nemirovski,
    policeman_and_burglar,
    random_game,
)
from thalweg.equilibrium import _kernels as kernels
from thalweg.equilibrium._tensors import doubly_centred
from thalweg.equilibrium.method import anchor_chance, period
from thalweg.studies.monotone_sums import least_squares

DOUBLE = torch.float64
SHAPES = st.tuples(st.integers(1, 6), st.integers(1, 6))


def normal(*shape, seed=0):
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed), dtype=DOUBLE)


def spectrum(n, a, seed=0):
    """``x'Ay`` with the singular values ``i^-a`` and a known solution."""
    left, right = (torch.linalg.qr(normal(n, n, seed=2 * seed + k)).Q for k in (0, 1))
    A = (left * torch.arange(1, n + 1, dtype=DOUBLE) ** -a) @ right.T
    solution = normal(2 * n, seed=seed + 50)
    problem = MonotoneInclusion(Bilinear(A, -Bilinear(A).moved(solution)), torch.zeros(2 * n, dtype=DOUBLE))
    return problem, solution


def passes(problem, method, goal=0.03, seed=0):
    stop = Stop(
        below={"residual": goal * problem.natural_residual(problem.x0)},
        calls=3000 * problem.count,
        steps=None,
    )
    found = solve(problem, method, stop=stop, seed=seed, progress=False)
    assert found.status is Status.CONVERGED
    return found.calls / problem.count


def draws(d, lines, sign=1.0):
    """All outcomes of one draw, with their probabilities: a uniform number from the middle of each line's share."""
    norms = np.linalg.norm(lines, axis=1)
    sizes = norms * np.abs(d)
    ends = sizes.cumsum() / sizes.sum()
    for i in np.flatnonzero(sizes):
        out = np.zeros(lines.shape[1])
        kernels.add_drawn(lines, norms, d, np.array([ends[i] - 0.5 * sizes[i] / sizes.sum()]), sign, out)
        yield sizes[i] / sizes.sum(), out


class TestDraws:
    @given(SHAPES, st.integers(0, 1000))
    def test_a_drawn_product_is_unbiased_and_its_second_moment_is_known(self, shape, seed):
        """Over all outcomes: mean ``d @ lines``, and ``E|S|^2 = (sum |A_i| |d_i|)^2``, at most ``|A|_F^2 |d|^2``."""
        lines, d = normal(*shape, seed=seed).numpy(), normal(shape[0], seed=seed + 1).numpy()
        lines[seed % shape[0]] *= seed % 2  # a row of zeros, every other time
        if not np.abs(lines).max():
            return
        outcomes = list(draws(d, lines, -1.0))
        mean = sum(p * out for p, out in outcomes)
        np.testing.assert_allclose(mean, -d @ lines, atol=1e-12)
        square = sum(p * (out @ out) for p, out in outcomes)
        assert square == pytest.approx((np.linalg.norm(lines, axis=1) @ np.abs(d)) ** 2)
        assert square <= (lines**2).sum() * (d @ d) * (1 + 1e-12)

    def test_coordinates_that_have_not_moved_are_never_drawn(self):
        A = normal(4, 4)
        d = torch.tensor([0.0, 2.0, 0.0, 0.0, 0.0, 0.0, 0.0, -1.0], dtype=DOUBLE)
        found = Bilinear(A).drawn(d, 3, torch.Generator().manual_seed(0))
        torch.testing.assert_close(found, Bilinear(A).moved(d))  # one row and one column: no choice

    @pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
    def test_nothing_moved_gives_nothing(self, dtype):
        game = Bilinear(torch.ones(3, 2, dtype=dtype))
        found = game.drawn(torch.zeros(5, dtype=dtype), 4, torch.Generator())
        assert found.dtype == dtype
        assert not found.any()

    def test_a_difference_that_is_not_finite_stays_so(self):
        game = Bilinear(torch.ones(3, 2, dtype=DOUBLE))
        assert not torch.isfinite(
            game.drawn(torch.full((5,), math.nan, dtype=DOUBLE), 2, torch.Generator())
        ).any()

    @given(SHAPES, st.integers(0, 1000), st.floats(0.0, 2.0))
    def test_one_product_gives_a_difference(self, shape, seed, regularisation):
        d = sum(shape)
        game = Bilinear(normal(*shape, seed=seed), normal(d, seed=seed + 1), regularisation)
        u, w = normal(d, seed=seed + 2), normal(d, seed=seed + 3)
        rows = torch.randint(game.count, (4,), generator=torch.Generator().manual_seed(seed))
        weights = normal(4, seed=seed + 4)
        two = game.weighted(u, rows, weights) - game.weighted(w, rows, weights)
        torch.testing.assert_close(game.difference(u - w, rows, weights), two)
        torch.testing.assert_close(game.moved(u - w), game.full(u) - game.full(w))
        even = torch.full((game.count,), 1.0 / game.count, dtype=DOUBLE)
        torch.testing.assert_close(game.weighted(u, torch.arange(game.count), even), game.full(u))

    def test_evaluations_are_counted_by_products(self):
        random, u = torch.Generator().manual_seed(0), normal(12)
        game = MonotoneInclusion(Bilinear(normal(6, 6)), torch.zeros(12, dtype=DOUBLE))
        weighed = dataclasses.replace(game, importance=torch.ones(6))
        other = MonotoneInclusion(
            Functions(lambda u, rows: u.expand(len(rows), -1), 6), torch.zeros(12, dtype=DOUBLE)
        )
        for problem, b, expected in (
            (game, 2, 2),
            (weighed, 2, 2),
            (other, 2, 4),
            (game, 6, 6),
            (other, 9, 12),
        ):
            change, cost = problem.change(u, torch.zeros_like(u), b, random)
            assert cost == expected
            if b >= 6:
                full = problem.components.full
                torch.testing.assert_close(change, full(u) - full(torch.zeros_like(u)))

    @pytest.mark.parametrize(
        "problem",
        [
            linear_gan(normal(7, 2), normal(7, 1, seed=1), regularisation=0.2),
            adversarial_classification(normal(7, 2), torch.tensor([1, -1, 1, 1, -1, -1, 1.0])),
        ],
        ids=["gan", "classifier"],
    )
    def test_affine_examples_have_their_differences_from_one_evaluation(self, problem):
        u, w = normal(len(problem.x0), seed=2), normal(len(problem.x0), seed=3)
        rows, weights = problem.sampled(5, torch.Generator().manual_seed(0))
        components = problem.components
        two = components.weighted(u, rows, weights) - components.weighted(w, rows, weights)
        change, cost = problem.change(u, w, 5, torch.Generator().manual_seed(0))
        assert cost == 5
        torch.testing.assert_close(change, two)

    def test_an_anchor_lives_as_long_as_a_coin_says(self):
        """The inverse of the distribution function of a geometric law: the mean is 1/p."""
        random = torch.Generator().manual_seed(0)
        lives = [period(0.2, random) for _ in range(20_000)]
        assert min(lives) == 1
        # the mean's standard deviation is sqrt(1 - p)/p/sqrt(20 000) = 0.032
        assert np.mean(lives) == pytest.approx(5.0, abs=0.13)
        assert np.mean(np.array(lives) > 5) == pytest.approx(0.8**5, abs=0.015)
        assert period(1.0, random) == 1
        assert [anchor_chance(*pair) for pair in ((1, 10), (6, 10), (10, 10))] == [0.2, 1.0, 1.0]


class TestReports:
    def test_the_stable_rank_of_a_game_is_that_of_its_singular_values(self):
        for a in (0.0, 0.5, 2.0):
            problem, _ = spectrum(60, a)
            s = torch.arange(1, 61, dtype=DOUBLE) ** -a
            assert problem.sampling.stable_rank == pytest.approx(float(s.square().sum()), rel=1e-3)
            assert problem.sampling.whole == pytest.approx(1.1, rel=1e-3)

    def test_batches_have_the_lipschitz_constant_of_their_enumeration(self):
        """``E|F_S d|^2`` over all pairs of components, for the worst of many d."""
        X = normal(6, 3)
        exact = []
        for seed in range(200):
            d = normal(3, seed=seed)
            moves = X * (X @ d)[:, None]
            pairs = [
                0.25 * (moves[i] + moves[j]).square().sum() for i, j in itertools.product(range(6), repeat=2)
            ]
            exact.append(float(sum(pairs) / 36 / d.square().sum()))
        whole = float(torch.linalg.matrix_norm(X.T @ X / 6, 2))
        average = math.sqrt(float(torch.linalg.eigvalsh((X * X.square().sum(1, keepdim=True)).T @ X / 6)[-1]))
        report = SamplingReport(6, whole, average, (average / whole) ** 2)
        assert 0.9 * report.of_batch(2) <= math.sqrt(max(exact)) <= report.of_batch(2)
        assert report.of_batch(6) == whole

    def test_a_known_constant_is_believed(self):
        problem = MonotoneInclusion(
            Functions(lambda u, rows: u.expand(len(rows), -1), 8), torch.ones(2, dtype=DOUBLE), lipschitz=3.0
        )
        assert problem.sampling.average == 3.0
        assert problem.sampling.stable_rank == pytest.approx(9.0)
        assert problem.sampling.batch == 3  # the root of 8

    @given(st.integers(1, 10**6), st.floats(1.0, 1e6))
    def test_batches_lie_between_one_and_the_root(self, n, rank):
        report = SamplingReport(n, 1.0, math.sqrt(rank), rank)
        assert 1 <= report.batch <= math.ceil(math.sqrt(n))
        assert ("does not pay" in str(report)) == (report.predicted_gain < 1.0)

    def test_where_nothing_moves_the_report_is_a_number(self):
        report = matrix_game(np.zeros((3, 4))).sampling
        assert report.stable_rank == 1.0
        assert report.of_batch(1) > 0.0

    def test_methods_are_recommended_by_the_gain(self):
        many = least_squares(1.0, 1.0, 10_000, 0)
        assert many.sampling.predicted_gain > 1.0
        assert isinstance(recommended(many), InexactHalpern)
        low, _ = spectrum(300, 1.0)
        assert low.sampling.predicted_gain > 1.0
        assert isinstance(recommended(low), PDHG)  # by the clock
        assert isinstance(recommended(spectrum(300, 0.0)[0]), PDHG)
        assert isinstance(recommended(matrix_game(random_game(5, 5))), PDHG)
        assert isinstance(recommended(matrix_game(random_game(5, 5), 0.1)), Extragradient)
        assert isinstance(recommended(linear_program([1.0], [[1.0]], [1.0])), PDHG)


class TestCentring:
    @given(SHAPES, st.integers(0, 1000), st.sampled_from([1e-3, 1.0, 1e4]))
    def test_a_centred_game_is_the_same_game(self, shape, seed, tilt):
        """Natural residual, gap and value at any pair of strategies, against the payoffs as they are."""
        m, n = shape
        A = normal(m, n, seed=seed) + tilt * normal(m, 1, seed=seed + 1) + tilt * normal(1, n, seed=seed + 2)
        game = matrix_game(A)
        u = game.resolvent(normal(m + n, seed=seed + 3), 1.0)
        x, y = u[:m], u[m:]
        gap = float((x @ A).max() - (A @ y).min())
        size = float(A.abs().max())
        assert game.metrics(u)["gap"] == pytest.approx(gap, abs=1e-13 * size)
        assert game.metrics(u)["value"] == pytest.approx(float(x @ A @ y), abs=1e-13 * size)
        B, a, b = doubly_centred(A)
        torch.testing.assert_close(B + a[:, None] + b, A)
        assert float(B.sum(0).abs().max()) <= 1e-12 * size * m
        assert float(B.sum(1).abs().max()) <= 1e-12 * size * n
        raw = MonotoneInclusion(Bilinear(A), game.x0, game.resolvent)
        centred = MonotoneInclusion(Bilinear(B, torch.cat([a, -b])), game.x0, game.resolvent)
        assert centred.natural_residual(u) == pytest.approx(
            raw.natural_residual(u), abs=1e-11 * max(size, 1.0)
        )

    def test_the_policemans_game_has_a_far_smaller_norm(self):
        A = policeman_and_burglar(100)
        centred, _, _ = doubly_centred(A)
        assert float(torch.linalg.matrix_norm(centred, 2)) < 0.1 * float(torch.linalg.matrix_norm(A, 2))

    def test_a_game_without_interaction_has_none_left(self):
        """Nemirovski's with alpha = 1, ``(i + j - 1)/(2n - 1)``: the row player takes i = 1, the other one j = n."""
        game = matrix_game(nemirovski(30))
        assert not game.components.A.any()
        found = solve(game, Extragradient(), progress=False)
        assert found.steps <= 200  # sharp: finitely many
        assert found.x[0] == 1.0
        assert found.x[-1] == 1.0
        assert found.metrics["value"] == pytest.approx(30 / 59)


class TestLongSteps:
    def rare(self, n=400):
        """``F_i(u) = h_i (u - 1)``, nearly all of F in one component: estimates of the average L miss it."""
        h = torch.full((n,), 1e-3, dtype=DOUBLE)
        h[0] += n
        return MonotoneInclusion(
            Functions(lambda u, rows: h[rows][:, None] * (u - 1.0), n), torch.zeros(3, dtype=DOUBLE)
        )

    @pytest.mark.parametrize("seed", range(3))
    def test_the_safeguard_saves_a_run_that_would_diverge(self, seed):
        problem = self.rare()
        begun = VRHalpern().init(problem, seed)
        stop = Stop(below={"residual": 1e-4}, calls=400 * problem.count, steps=None)
        steps = []
        saved = solve(
            problem,
            VRHalpern(restart=0.5),
            stop=stop,
            seed=seed,
            callbacks=[lambda run: steps.append(run.state.step_size)],
        )
        unguarded = solve(problem, VRHalpern(begun.step_size, restart=0.5), stop=stop, seed=seed)
        assert saved.status is Status.CONVERGED
        torch.testing.assert_close(saved.x, torch.ones(3, dtype=DOUBLE), atol=1e-3, rtol=0)
        assert unguarded.status is Status.DIVERGED
        assert begun.least_step <= min(steps) < begun.step_size
        assert steps == sorted(steps, reverse=True)

    def test_the_safeguard_goes_back_to_the_best_point_and_not_below_the_papers_step(self):
        problem, method = self.rare(64), VRHalpern()
        state = method.init(problem, 0)
        assert state.least_step == pytest.approx(1.0 / (4.0 * problem.sampling.average))
        best = torch.full((3,), 0.999, dtype=DOUBLE)
        worse = dataclasses.replace(
            state, best=best, best_value=problem.components.full(best), best_residual=1e-9
        )
        moved = method.step(problem, worse)
        torch.testing.assert_close(moved.x, best)
        assert moved.k == 0
        assert moved.iterations >= 1  # chances of a full evaluation do not start over
        assert moved.step_size == 0.5 * state.step_size
        for _ in range(12):
            moved = method.step(problem, moved)
        assert moved.step_size == state.least_step
        kept = VRHalpern(0.1)
        assert (
            kept.step(problem, dataclasses.replace(kept.init(problem, 0), best_residual=1e-9)).step_size
            == 0.1
        )

    def test_an_inner_loop_that_gives_up_halves_eta(self, monkeypatch):
        game = matrix_game(random_game(6, 6))
        method = InexactHalpern(eta=1e6, inexactness=1e-12)
        monkeypatch.setattr(inexact._Loop, "MOST", 2)
        state = method.step(game, method.init(game, 0))
        assert state.eta == 0.5e6
        assert state.k == 0
        torch.testing.assert_close(state.anchor, state.x)
        found = solve(game, InexactHalpern(eta=1e4), stop=Stop(below={"residual": 1e-3}, steps=400))
        assert found.status is Status.CONVERGED


class TestMethods:
    def test_with_one_component_it_is_extragradient_exactly(self):
        M = torch.tensor([[0.2, 1.0], [-1.0, 0.1]], dtype=DOUBLE)
        problem = MonotoneInclusion(
            Functions(lambda u, rows: (M @ u - 1.0)[None], 1),
            torch.zeros(2, dtype=DOUBLE),
            lambda v, step: v.clamp(-1.0, 1.0),
        )
        one = solve(problem, VRExtragradient(step_size=0.3), stop=Stop(steps=12)).x
        torch.testing.assert_close(one, solve(problem, Extragradient(0.3), stop=Stop(steps=12)).x)

    def test_restarts_to_the_average_take_far_fewer_evaluations(self):
        problem, solution = spectrum(60, 0.5)
        plain, restarted = (passes(problem, VRExtragradient(restart=r)) for r in (None, 0.5))
        assert restarted < 0.4 * plain
        goal = Stop(below={"residual": 1e-6}, calls=10_000 * 60, steps=None)
        found = solve(problem, VRExtragradient(restart=0.5), stop=goal, progress=False)
        torch.testing.assert_close(found.x, solution, atol=1e-4, rtol=0)

    def test_batches_of_the_stable_rank_cost_no_more_than_the_roots(self):
        problem, _ = spectrum(400, 1.0)
        assert problem.sampling.batch == 2
        ours = passes(problem, InexactHalpern(restart=0.5), 0.1)
        assert ours < 0.7 * passes(problem, InexactHalpern(restart=0.5, batch=20), 0.1)

    def test_a_longer_resolvent_costs_less_than_the_papers(self):
        problem, _ = spectrum(100, 0.5)
        begun = InexactHalpern().init(problem, 0)
        assert begun.eta == pytest.approx(7.0 * 100 * begun.step_size / begun.batch)
        papers = InexactHalpern(restart=0.5, eta=100 * begun.step_size / begun.batch)
        assert passes(problem, InexactHalpern(restart=0.5)) < 0.8 * passes(problem, papers)

    @pytest.mark.parametrize(
        "method",
        [
            VRExtragradient(restart=0.5),
            InexactHalpern(restart=0.5),
            InexactHalpern("forb", restart=0.5),
            PDHG(restart=None),
        ],
        ids=lambda method: method.name,
    )
    def test_values_are_those_of_highs(self, method):
        A = random_game(8, 11, seed=3)
        exact = linprog(
            np.r_[np.zeros(8), 1.0],
            A_ub=np.c_[A.numpy().T, -np.ones(11)],
            b_ub=np.zeros(11),
            A_eq=np.r_[np.ones(8), 0.0][None],
            b_eq=[1.0],
            bounds=[(0, None)] * 8 + [(None, None)],
        ).fun
        found = solve(matrix_game(A), method, stop=Stop(below={"residual": 1e-4}, calls=200_000, steps=None))
        assert found.status is Status.CONVERGED
        assert found.metrics["value"] == pytest.approx(exact, abs=2e-3)

    def test_every_step_reports_the_residual_of_its_answer(self):
        """Whole periods: nothing is guessed between two evaluations of all of F."""
        problem, _ = spectrum(30, 0.5)
        for method in (VRExtragradient(restart=0.5), InexactHalpern(), SVRG(step_size=0.01, epoch=5)):
            told = []
            solve(
                problem,
                method,
                stop=Stop(steps=7),
                callbacks=[
                    lambda run, told=told: told.append(
                        (run.state.metrics["residual"], problem.natural_residual(run.state.x))
                    )
                ],
            )
            for said, true in told:
                assert said == pytest.approx(true, rel=1e-12)


class TestBadInput:
    @pytest.mark.parametrize(
        ("make", "error", "message"),
        [
            (lambda: Bilinear(torch.eye(2), torch.ones(3)), InvalidProblem, r"linear of shape \(4,\)"),
            (lambda: Bilinear(torch.eye(2), regularisation=-1.0), InvalidProblem, "regularisation >= 0"),
            (lambda: VRExtragradient(restart=1.5), InvalidParameter, "0 < restart < 1"),
            (lambda: PDHG(restart=0.0), InvalidParameter, "0 < restart < 1"),
            (
                lambda: solve(matrix_game(torch.eye(2), 0.5), PDHG()),
                InvalidProblem,
                "Bilinear, without regularisation",
            ),
        ],
    )
    def test_what_does_not_fit_is_refused(self, make, error, message):
        with pytest.raises(error, match=message):
            make()
