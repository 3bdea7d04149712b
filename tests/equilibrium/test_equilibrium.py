"""Monotone inclusions: games with known equilibria, linear systems, linear programs; estimators; bad input."""

from __future__ import annotations

import dataclasses
import math

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.optimize import linprog

from thalweg import Status, Stop, solve
from thalweg.core import Checkpoint, InvalidParameter, InvalidProblem, NotFinite, recommended
from thalweg.equilibrium import (
    METHODS,
    PDHG,
    SVRG,
    AnchoredExtragradient,
    Bilinear,
    Extragradient,
    ForwardReflectedBackward,
    Functions,
    Halpern,
    InexactHalpern,
    MarkovGame,
    MonotoneInclusion,
    NotMonotone,
    ScaledIdentity,
    ShapleyIteration,
    SumOfComponents,
    VRExtragradient,
    VRHalpern,
    adversarial_classification,
    estimate_lipschitz,
    linear_gan,
    linear_program,
    matrix_game,
    nemirovski,
    policeman_and_burglar,
    random_game,
    random_markov_game,
    robust_regression,
    stage_games,
)
from thalweg.equilibrium.games import _capped, _weights_and_moves
from thalweg.numerics.projections import box_section

DOUBLE = torch.float64
GENERATOR = torch.Generator().manual_seed(0)


@pytest.fixture(autouse=True)
def own_numbers():
    """Every test draws the same numbers, whichever run before it."""
    GENERATOR.manual_seed(1)


def normal(*shape):
    return torch.randn(*shape, generator=GENERATOR, dtype=DOUBLE)


X, Y = normal(64, 5), normal(64)
SOLUTION = torch.linalg.lstsq(X, Y[:, None]).solution[:, 0]
L_AVERAGE = float(X.square().sum(1).square().mean().sqrt())


def least_squares(**options):
    """``F_i(u) = x_i (x_i'u - y_i)``: cocoercive."""
    components = Functions(lambda u, rows: X[rows] * (X[rows] @ u - Y[rows])[:, None], 64)
    return MonotoneInclusion(components, torch.zeros(5, dtype=DOUBLE), **options)


def equilibrium_value(A):
    """HiGHS: ``min v, A'x <= v, x in the simplex``."""
    m, n = A.shape
    found = linprog(
        np.r_[np.zeros(m), 1.0],
        A_ub=np.c_[A.numpy().T, -np.ones(n)],
        b_ub=np.zeros(n),
        A_eq=np.r_[np.ones(m), 0.0][None],
        b_eq=[1.0],
        bounds=[(0, None)] * m + [(None, None)],
    )
    return found.fun


ROCK = torch.tensor([[0.0, 1.0, -1.0], [-1.0, 0.0, 1.0], [1.0, -1.0, 0.0]], dtype=DOUBLE)
GENERAL = {
    "extragradient": Extragradient(),
    "forb": ForwardReflectedBackward(),
    "anchored": AnchoredExtragradient(),
    "pdhg": PDHG(),
    "vr extragradient": VRExtragradient(),
    "inexact halpern": InexactHalpern(),
    "inexact halpern, forb": InexactHalpern("forb"),
    "inexact halpern, whole": InexactHalpern(batch=10**9),
    "inexact halpern, restarted": InexactHalpern(restart=0.5),
}


class TestGames:
    @pytest.mark.parametrize("name", GENERAL)
    def test_every_method_finds_the_equilibrium_of_a_game_with_bias(self, name):
        """A 2 x 2 game with the equilibrium (2/5, 3/5), (2/5, 3/5) and the value 1/5."""
        A = torch.tensor([[2.0, -1.0], [-1.0, 1.0]], dtype=DOUBLE)
        found = solve(
            matrix_game(A), GENERAL[name], stop=Stop(below={"residual": 1e-3}, calls=400_000, steps=None)
        )
        assert found.status is Status.CONVERGED
        torch.testing.assert_close(
            found.x, torch.tensor([0.4, 0.6, 0.4, 0.6], dtype=DOUBLE), atol=5e-3, rtol=0
        )
        assert found.metrics["value"] == pytest.approx(0.2, abs=2e-3)

    @pytest.mark.parametrize(
        "A",
        [random_game(12, 20), random_game(20, 12), policeman_and_burglar(15), nemirovski(10)],
        ids=["wide", "tall", "policeman", "nemirovski"],
    )
    def test_values_are_those_of_highs(self, A):
        found = solve(matrix_game(A), PDHG(), stop=Stop(below={"residual": 1e-6}, steps=40_000))
        assert found.metrics["value"] == pytest.approx(equilibrium_value(A), abs=1e-3)
        mine = solve(
            matrix_game(A),
            InexactHalpern(restart=0.5),
            stop=Stop(below={"residual": 1e-3}, calls=5_000 * max(A.shape), steps=None),
        )
        assert mine.metrics["value"] == pytest.approx(equilibrium_value(A), abs=3e-2)

    def test_regularised_games_have_the_closed_form_in_the_interior(self):
        """Rock, paper, scissors with a pull to the middle stays in the middle; a biased one is a linear system."""
        game = matrix_game(ROCK, regularisation=1.0)
        found = solve(game, Extragradient(), stop=Stop(below={"residual": 1e-10}))
        torch.testing.assert_close(found.x, torch.full((6,), 1 / 3, dtype=DOUBLE))

    def test_the_gap_bounds_the_value(self):
        A = random_game(7, 9)
        game = matrix_game(A)
        u = game.resolvent(normal(16), 1.0)
        told = game.metrics(u)
        assert told["gap"] >= 0
        assert abs(told["value"] - equilibrium_value(A)) <= told["gap"] + 1e-9

    def test_a_linear_program_has_highs_solution(self):
        c = torch.tensor([3.0, 2.0, 4.0], dtype=DOUBLE)
        A = torch.tensor([[1.0, 1.0, 0.0], [0.0, 1.0, 2.0]], dtype=DOUBLE)
        b = torch.tensor([2.0, 3.0], dtype=DOUBLE)
        exact = linprog(c, A_ub=-A, b_ub=-b).fun
        found = solve(
            linear_program(c, A, b, radius=50.0),
            Extragradient(),
            stop=Stop(below={"residual": 1e-8}, steps=50_000),
        )
        assert found.metrics["value"] == pytest.approx(exact, abs=1e-5)
        assert found.metrics["violation"] < 1e-6

    @pytest.mark.parametrize(
        ("loss", "step_size", "steps"), [("squares", None, 4000), ("logistic", 0.3, 8000)]
    )
    def test_robust_regression_minimises_the_mean_of_the_worst(self, loss, step_size, steps):
        """Against a conic solver on the conditional value at risk itself: the mean of the 16 worst of 64."""
        cp = pytest.importorskip("cvxpy")
        y = Y if loss == "squares" else torch.where(Y + X[:, 0] > 0, 1.0, -1.0).to(DOUBLE)
        problem = robust_regression(X, y, tail=0.25, ridge=0.1, loss=loss)
        found = solve(problem, Extragradient(step_size), stop=Stop(below={"residual": 1e-6}, steps=steps))
        v = cp.Variable(5)
        predicted = X.numpy() @ v
        losses = (
            0.5 * cp.square(predicted - y.numpy())
            if loss == "squares"
            else cp.logistic(-cp.multiply(y.numpy(), predicted))
        )
        best = cp.Problem(cp.Minimize(cp.sum_largest(losses, 16) / 16 + 0.05 * cp.sum_squares(v)))
        best.solve(solver="CLARABEL")
        reached = found.metrics["worst loss"] + 0.05 * float(found.x[:5].square().sum())
        assert best.value - 1e-6 <= reached <= best.value + 5e-3
        torch.testing.assert_close(found.x[5:].sum(), torch.tensor(64.0, dtype=DOUBLE))
        assert float(found.x[5:].max()) <= 4.0 + 1e-9


@settings(max_examples=50, deadline=None)
@given(st.integers(1, 12), st.floats(0.05, 1.0), st.integers(0, 1000))
def test_capped_distributions_are_the_nearest(n, share, seed):
    """Against the general projection on a box section."""
    v = 3.0 * torch.randn(n, generator=torch.Generator().manual_seed(seed), dtype=DOUBLE)
    most = 1.0 / share
    expected = box_section(v, 0.0, most, torch.ones(n, dtype=DOUBLE), float(n))
    torch.testing.assert_close(_capped(v, float(n), most), expected, atol=1e-9, rtol=0)


class TestHalpern:
    @pytest.mark.parametrize("method", [Halpern(), VRHalpern(restart=0.5), VRHalpern(batch=64, restart=0.5)])
    def test_least_squares_is_solved(self, method):
        found = solve(
            least_squares(), method, stop=Stop(below={"residual": 1e-3}, calls=3_000_000, steps=None)
        )
        torch.testing.assert_close(found.x, SOLUTION, atol=1e-2, rtol=0)

    def test_an_affine_monotone_system_is_solved(self):
        B = normal(6, 6)
        M, q = B @ B.T / 6 + 0.5 * (B - B.T), normal(6)
        problem = MonotoneInclusion(
            Functions(lambda u, rows: (M @ u + q).expand(len(rows), -1), 3), torch.zeros(6, dtype=DOUBLE)
        )
        exact = torch.linalg.solve(M, -q)
        least = float(torch.linalg.svdvals(M)[-1])
        for method in (AnchoredExtragradient(), InexactHalpern(restart=0.5), Extragradient()):
            found = solve(problem, method, stop=Stop(below={"residual": 3e-3}, steps=20_000))
            assert found.status is Status.CONVERGED
            # without G the residual is |M (x - x*)|
            assert float((found.x - exact).norm()) <= 1.0001 * found.metrics["residual"] / least

    def test_with_one_component_it_is_deterministic_halpern_exactly(self):
        one = MonotoneInclusion(
            Functions(lambda u, rows: (u - torch.arange(3.0).double())[None], 1),
            torch.zeros(3, dtype=DOUBLE),
            lambda v, step: v.clamp(0.0, 1.5),
        )
        a = solve(one, VRHalpern(0.2), stop=Stop(steps=25)).x
        b = solve(one, Halpern(0.2), stop=Stop(steps=25)).x
        assert torch.equal(a, b)

    def test_the_last_iterate_keeps_to_its_bound(self):
        """Unconstrained, with eta = 1/(4L) and l_k = 2/(k + 4): ``|F(u_k)| <= 4 |u_0 - u*| / (eta (k + 4))``."""
        L = float(torch.linalg.eigvalsh(X.T @ X / 64)[-1])
        problem, eta = least_squares(), 1.0 / (4.0 * L)
        far = float(torch.linalg.vector_norm(SOLUTION))
        residuals = []
        solve(
            problem,
            Halpern(eta),
            stop=Stop(steps=300),
            callbacks=[lambda run: residuals.append(run.state.metrics["residual"])],
        )
        for k, residual in enumerate(residuals, start=1):
            assert residual <= 4.0 * far / (eta * (k + 4.0)) + 1e-12

    @settings(max_examples=15, deadline=None)
    @given(st.integers(1, 20), st.integers(0, 100))
    def test_sampled_sums_are_unbiased(self, size, seed):
        importance = torch.rand(64, generator=torch.Generator().manual_seed(seed)) + 0.1
        problem = least_squares(importance=importance)
        u = torch.randn(5, generator=torch.Generator().manual_seed(seed), dtype=DOUBLE)
        # the expectation over one draw, exactly
        chances = (importance / importance.sum()).double()
        rows = torch.arange(64)
        total = problem.components.weighted(u, rows, chances * 1.0 / (64 * chances))
        torch.testing.assert_close(total, problem.components.full(u))
        drawn, weights = problem.sampled(size, torch.Generator().manual_seed(seed))
        torch.testing.assert_close(weights, 1.0 / (size * 64 * chances[drawn]))

    def test_the_estimators_error_is_within_pages_bound(self):
        """``E|Ft - F|^2`` after one difference: the variance of a batch of changes, at most ``L^2 |move|^2 / b``."""
        problem = least_squares()
        u, v = normal(5), normal(5)
        exact = problem.components.full(u) - problem.components.full(v)
        errors = []
        for seed in range(2000):
            rows, weights = problem.sampled(8, torch.Generator().manual_seed(seed))
            change = problem.components.weighted(u, rows, weights) - problem.components.weighted(
                v, rows, weights
            )
            errors.append(float((change - exact).square().sum()))
        assert np.mean(errors) <= 1.1 * L_AVERAGE**2 * float((u - v).square().sum()) / 8

    @pytest.mark.parametrize("shape", [(4, 4), (3, 7), (7, 3), (1, 5)])
    def test_rows_and_columns_of_a_game_add_up(self, shape):
        A = normal(*shape)
        game = Bilinear(A)
        u = normal(sum(shape))
        n = game.count
        some = game.weighted(u, torch.arange(n), torch.full((n,), 1.0 / n, dtype=DOUBLE))
        torch.testing.assert_close(some, game.full(u))
        both = SumOfComponents(game, ScaledIdentity(0.3, n))
        torch.testing.assert_close(
            both.weighted(u, torch.arange(n), torch.full((n,), 1.0 / n, dtype=DOUBLE)), both.full(u)
        )

    def test_the_estimated_lipschitz_constant_is_near(self):
        assert estimate_lipschitz(least_squares()) == pytest.approx(
            1.1 * float(torch.linalg.eigvalsh(X.T @ X / 64)[-1]), rel=0.02
        )
        assert L_AVERAGE / 3 < estimate_lipschitz(least_squares(), 1) < 3 * L_AVERAGE

    def test_restarts_are_linear_on_a_strongly_monotone_problem(self):
        calls = {}
        for restart in (None, 0.5):
            stop = Stop(below={"residual": 1e-3}, calls=400_000, steps=None)
            calls[restart] = solve(least_squares(), VRHalpern(restart=restart), stop=stop).calls
        assert calls[0.5] < 0.2 * calls[None]

    @pytest.mark.parametrize(
        "method",
        [
            Extragradient(),
            ForwardReflectedBackward(),
            Halpern(),
            AnchoredExtragradient(),
            VRHalpern(0.05),
            VRHalpern(0.05, restart=0.9),
            InexactHalpern(),
            InexactHalpern("forb", restart=0.9),
            VRExtragradient(),
            VRExtragradient(restart=0.9),
            PDHG(every=4),
            SVRG(step_size=0.05, epoch=4),
        ],
        ids=lambda method: method.name,
    )
    def test_resuming_gives_the_same_bits(self, tmp_path, method):
        game = matrix_game(random_game(9, 9))
        whole = solve(game, method, stop=Stop(steps=20))
        solve(game, method, stop=Stop(steps=9), callbacks=[Checkpoint(tmp_path / "m")])
        resumed = solve(game, method, stop=Stop(steps=20), resume=tmp_path / "m")
        assert torch.equal(whole.x, resumed.x)
        np.testing.assert_array_equal(whole.history["residual"], resumed.history["residual"])
        assert whole.calls == resumed.calls


class TestWithoutMethodOrStop:
    """``solve(problem)`` alone ends CONVERGED, at the known answer."""

    def test_a_matrix_game(self):
        A = random_game(6, 5)
        found = solve(matrix_game(A))
        assert found.status is Status.CONVERGED
        assert found.metrics["residual"] <= 1e-6
        assert found.metrics["value"] == pytest.approx(equilibrium_value(A), abs=1e-5)

    def test_a_linear_program(self):
        c = torch.tensor([3.0, 2.0, 4.0], dtype=DOUBLE)
        A = torch.tensor([[1.0, 1.0, 0.0], [0.0, 1.0, 2.0]], dtype=DOUBLE)
        found = solve(linear_program(c, A, torch.tensor([2.0, 3.0], dtype=DOUBLE), radius=50.0))
        assert found.status is Status.CONVERGED
        assert found.metrics["value"] == pytest.approx(6.0, abs=1e-5)  # x = (0, 2, 1/2)

    def test_a_cocoercive_sum(self):
        found = solve(least_squares())
        assert found.status is Status.CONVERGED
        torch.testing.assert_close(found.x, SOLUTION, atol=1e-5, rtol=0)

    def test_a_sum_of_many_components(self):
        z = torch.randn(2000, 3, generator=torch.Generator().manual_seed(3), dtype=DOUBLE)
        x = z @ torch.tensor([[1.0, 2.0, 3.0], [0.0, -1.0, 1.0]], dtype=DOUBLE).T + z[:, :2] ** 2
        problem = linear_gan(z, x)
        assert isinstance(recommended(problem), InexactHalpern)
        found = solve(problem)
        assert found.status is Status.CONVERGED
        exact = torch.linalg.lstsq(z, x).solution.T
        torch.testing.assert_close(found.x[:6].view(2, 3), exact, atol=1e-5, rtol=0)

    def test_a_markov_game(self):
        found = solve(random_markov_game(3, 2, 2))
        assert found.status is Status.CONVERGED
        assert found.metrics["exploitability"] <= 1e-6


def test_every_name_makes_a_method_that_takes_its_steps():
    """The table's names, each on a problem of its kind."""
    game, markov = matrix_game(ROCK, 0.5), random_markov_game(2, 2, 2)
    for name, kind in METHODS.items():
        if kind is PDHG:
            problem = matrix_game(random_game(3, 3))
        else:
            problem = markov if kind is ShapleyIteration else game
        found = solve(problem, kind(), stop=Stop(steps=3))
        assert found.steps <= 3, name
        assert found.metrics[problem.objective] < math.inf, name


def test_a_stage_method_that_diverges_ends_shapleys_iteration():
    class Exploding(Extragradient):
        def step(self, problem, state):
            return dataclasses.replace(state, x=self.checked(problem, state.x * math.nan, state))

    found = solve(random_markov_game(2, 2, 2), ShapleyIteration(stage=Exploding()), stop=Stop(steps=3))
    assert found.status is Status.DIVERGED
    assert "diverged on the stage games" in found.message
    assert found.metrics["exploitability"] < math.inf


class TestMarkovGames:
    def test_values_are_those_of_linear_programs_iterated(self):
        """Shapley's operator with HiGHS in every state, to its fixed point."""
        game = random_markov_game(4, 3, 2, discount=0.8, seed=1)
        values = torch.zeros(4, dtype=DOUBLE)
        for _ in range(60):
            values = torch.tensor([equilibrium_value(A) for A in game.stage(values)], dtype=DOUBLE)
        found = solve(game, stop=Stop(below={"exploitability": 1e-5}, steps=200))
        assert found.status is Status.CONVERGED
        assert found.metrics["value"] == pytest.approx(float(values.mean()), abs=1e-5)
        for player in ("rows", "columns"):
            torch.testing.assert_close(game.best_response(found.x, player), values, atol=2e-5, rtol=0)

    def test_without_a_future_it_is_a_matrix_game_in_every_state(self):
        game = random_markov_game(3, 4, 3, discount=0.0)
        found = solve(game, stop=Stop(below={"exploitability": 1e-7}, steps=100))
        exact = np.mean([equilibrium_value(A) for A in game.payments])
        assert found.metrics["value"] == pytest.approx(exact, abs=1e-6)

    def test_best_responses_are_those_of_value_iteration(self):
        game = random_markov_game(5, 3, 4, discount=0.7, seed=2)
        x = torch.cat([torch.full((5, 3), 1 / 3, dtype=DOUBLE), torch.full((5, 4), 0.25, dtype=DOUBLE)], 1)
        for player, sign in (("columns", 1.0), ("rows", -1.0)):
            values = torch.zeros(5, dtype=DOUBLE)
            for _ in range(200):
                worth = game.stage(values)
                average = worth.mean(1) if player == "columns" else worth.mean(2)
                values = sign * (sign * average).amax(1)
            torch.testing.assert_close(game.best_response(x, player), values, atol=1e-9, rtol=0)

    def test_one_state_is_a_matrix_game_for_ever(self):
        A = random_game(4, 5)
        game = MarkovGame(A[None], torch.ones(1, 4, 5, 1, dtype=DOUBLE), 0.9)
        u = matrix_game(A).resolvent(normal(9), 1.0)
        gap = matrix_game(A).metrics(u)["gap"]
        assert game.metrics(u[None])["exploitability"] == pytest.approx(10.0 * gap)

    def test_stage_games_are_the_games_apart(self):
        games = torch.stack([random_game(3, 4, seed) for seed in range(5)])
        stages = stage_games(games, torch.full((5, 7), 0.3, dtype=DOUBLE))
        u = stages.resolvent(normal(35), 1.0)
        parts = [matrix_game(A) for A in games]
        pieces = u.view(5, 7)
        expected = torch.cat([Bilinear(A).full(x) for A, x in zip(games, pieces, strict=True)])
        torch.testing.assert_close(stages.components.full(u), expected)
        ones = torch.full((5,), 0.2, dtype=DOUBLE)
        torch.testing.assert_close(stages.components.weighted(u, torch.arange(5), ones), expected)
        gaps = [p.judge(x)["gap"] for p, x in zip(parts, pieces, strict=True)]
        assert stages.judge(u)["gap"] == pytest.approx(max(gaps))

    def test_resuming_gives_the_same_bits(self, tmp_path):
        game = random_markov_game(3, 2, 3)
        whole = solve(game, stop=Stop(steps=4))
        solve(game, stop=Stop(steps=2), callbacks=[Checkpoint(tmp_path / "m", every=1)])
        assert torch.equal(whole.x, solve(game, stop=Stop(steps=4), resume=tmp_path / "m").x)

    def test_bad_games_are_refused(self):
        pay, move = torch.zeros(2, 2, 2), torch.full((2, 2, 2, 2), 0.5)
        with pytest.raises(InvalidProblem, match=r"transitions has shape \(2, 2, 2\); expected"):
            MarkovGame(pay, move[0], 0.5)
        with pytest.raises(InvalidProblem, match=r"state 1 is off by 0.2"):
            MarkovGame(pay, torch.stack([move[0], 1.2 * move[1]]), 0.5)
        with pytest.raises(InvalidProblem, match="discount < 1"):
            MarkovGame(pay, move, 1.0)
        with pytest.raises(NotFinite, match="payments holds 8 NaN"):
            MarkovGame(pay * math.nan, move, 0.5)
        with pytest.raises(InvalidProblem, match="payments has shape"):
            MarkovGame(pay[0], move, 0.5)


class TestAdversaries:
    def test_the_classifier_minimises_the_robust_hinge_loss(self):
        """Against a conic solver on the closed form of the inner maximum."""
        cp = pytest.importorskip("cvxpy")
        rows = X[:24]
        y = torch.where(rows[:, 0] + 0.5 * Y[:24] > 0, 1.0, -1.0).to(DOUBLE)
        for radius in (0.0, 0.3):
            problem = adversarial_classification(rows, y, radius=radius, ridge=0.1)
            found = solve(problem, Extragradient(), stop=Stop(below={"residual": 2.5e-5}, steps=30_000))
            w = cp.Variable(5)
            margins = cp.multiply(y.numpy(), rows.numpy() @ w) - radius * cp.norm2(w)
            best = cp.Problem(cp.Minimize(cp.sum(cp.pos(1 - margins)) / 24 + 0.05 * cp.sum_squares(w)))
            best.solve(solver="CLARABEL")
            assert found.metrics["robust loss"] == pytest.approx(best.value, abs=1e-4)
            np.testing.assert_allclose(found.x[:5].numpy(), w.value, atol=5e-3)

    def test_certified_examples_withstand_the_worst_move(self):
        y = torch.where(X[:, 0] > 0, 1.0, -1.0).to(DOUBLE)
        problem = adversarial_classification(X, y, radius=0.2)
        w = normal(5)
        worst = X - 0.2 * y[:, None] * w / w.norm()
        share = float((y * (worst @ w) > 0).double().mean())
        assert problem.judge(torch.cat([w, torch.zeros(69, dtype=DOUBLE)]))["certified"] == share

    @settings(max_examples=40, deadline=None)
    @given(st.integers(0, 10_000), st.integers(1, 9), st.floats(0.0, 3.0))
    def test_projections_satisfy_the_variational_inequality(self, seed, n, radius):
        random = torch.Generator().manual_seed(seed)
        p0, q0 = (
            2.0 * torch.randn(n, generator=random).double(),
            2.0 * torch.randn(3, generator=random).double(),
        )
        p, q = _weights_and_moves(p0, q0, radius)
        assert bool(((p >= 0) & (p <= 1)).all())
        assert float(q.norm()) <= radius * float(p.mean()) + 1e-9
        for _ in range(20):
            r = torch.rand(n, generator=random).double()
            s = torch.randn(3, generator=random).double()
            s *= radius * float(r.mean()) / s.norm() * float(torch.rand((), generator=random))
            assert float((p0 - p) @ (r - p) + (q0 - q) @ (s - q)) <= 1e-8

    def test_examples_add_up_and_labels_are_checked(self):
        y = torch.where(Y > 0, 1.0, -1.0).to(DOUBLE)
        components = adversarial_classification(X, y).components
        u = normal(74)
        p, q, w = (
            u[5:69].clone().requires_grad_(),
            u[69:].clone().requires_grad_(),
            u[:5].clone().requires_grad_(),
        )
        value = (p * (1 - y * (X @ w))).mean() + q @ w + 0.005 * w.square().sum()
        of_w, of_p, of_q = torch.autograd.grad(value, (w, p, q))
        torch.testing.assert_close(components.full(u), torch.cat([of_w, -of_p, -of_q]))
        with pytest.raises(InvalidProblem, match="labels -1 and 1"):
            adversarial_classification(X, Y)
        with pytest.raises(InvalidProblem, match="radius >= 0"):
            adversarial_classification(X, y, radius=-1.0)


class TestGenerativeToy:
    def data(self, n=200):
        random = torch.Generator().manual_seed(3)
        z = torch.randn(n, 3, generator=random, dtype=DOUBLE)
        W = torch.randn(2, 3, generator=random, dtype=DOUBLE)
        return z, z @ W.T + 0.5 * torch.randn(n, 2, generator=random, dtype=DOUBLE)

    @pytest.mark.parametrize("regularisation", [0.0, 0.3])
    def test_the_generator_is_least_squares(self, regularisation):
        z, x = self.data()
        problem = linear_gan(z, x, regularisation=regularisation)
        found = solve(problem, Extragradient(), stop=Stop(below={"residual": 1e-9}, steps=5000))
        W = torch.linalg.lstsq(z, x).solution.T
        torch.testing.assert_close(found.x[:6].view(2, 3), W, atol=1e-7, rtol=0)
        torch.testing.assert_close(found.x[6:], torch.zeros(6, dtype=DOUBLE), atol=1e-7, rtol=0)
        assert found.metrics["moments"] < 1e-8

    def test_examples_add_up_and_have_the_games_gradient(self):
        z, x = self.data(20)
        problem = linear_gan(z, x, regularisation=0.4)
        u = normal(12).requires_grad_()
        W, C = u[:6].view(2, 3), u[6:].view(3, 2)
        value = torch.einsum("ik,kp,ip->i", z, C, x - z @ W.T).mean() - 0.2 * C.square().sum()
        g = torch.autograd.grad(value, u)[0]
        expected = torch.cat([g[:6], -g[6:]])
        u = u.detach()
        torch.testing.assert_close(problem.components.full(u), expected)
        even = torch.full((20,), 0.05, dtype=DOUBLE)
        torch.testing.assert_close(problem.components.weighted(u, torch.arange(20), even), expected)
        # a sample's weights need not sum to one
        rows, weights = torch.tensor([3, 7]), torch.tensor([0.2, 1.1], dtype=DOUBLE)
        single = [
            problem.components.weighted(u, torch.tensor([i]), torch.ones(1, dtype=DOUBLE)) for i in (3, 7)
        ]
        both = problem.components.weighted(u, rows, weights)
        torch.testing.assert_close(both, 0.2 * single[0] + 1.1 * single[1])

    def test_the_critic_stays_in_its_ball(self):
        z, x = self.data()
        problem = linear_gan(z, x, radius=0.1)
        callbacks = [lambda run: assert_below(float(run.state.x[6:].norm()), 0.1 + 1e-12)]
        solve(problem, Extragradient(), stop=Stop(steps=50), callbacks=callbacks)

    def test_variance_reduction_needs_fewer_evaluations(self):
        z, x = self.data(2000)
        problem = linear_gan(z, x)
        stop = Stop(below={"residual": 1e-3}, steps=100_000)
        ours = solve(problem, VRExtragradient(restart=0.5), stop=stop).calls
        assert ours < 0.5 * solve(problem, Extragradient(), stop=stop).calls

    def test_misshapen_examples_are_refused(self):
        with pytest.raises(InvalidProblem, match=r"got \(3, 2\), \(4, 2\)"):
            linear_gan(torch.zeros(3, 2), torch.zeros(4, 2))
        with pytest.raises(InvalidProblem, match="radius > 0"):
            linear_gan(torch.ones(3, 2), torch.zeros(3, 2), radius=0.0)


def assert_below(value, limit):
    assert value <= limit


class TestSVRG:
    def test_least_squares_is_solved_linearly(self):
        """Each epoch shrinks the residual by a constant share."""
        residuals = []
        stop = Stop(below={"residual": 1e-9}, steps=60_000)
        found = solve(
            least_squares(),
            SVRG(),
            stop=stop,
            callbacks=[lambda run: residuals.append(run.state.metrics.get("residual"))],
        )
        assert found.status is Status.CONVERGED
        torch.testing.assert_close(found.x, SOLUTION, atol=1e-7, rtol=0)
        told = [r for r in residuals if r is not None]
        assert np.polyfit(np.arange(len(told)), np.log(told), 1)[0] < -0.2

    def test_a_regularised_game_is_solved(self):
        game = matrix_game(ROCK, regularisation=1.0)
        found = solve(game, SVRG(step_size=0.05), stop=Stop(below={"residual": 1e-5}, steps=20_000))
        torch.testing.assert_close(found.x, torch.full((6,), 1 / 3, dtype=DOUBLE), atol=1e-4, rtol=0)

    def test_with_all_in_a_batch_it_is_the_forward_backward_method(self):
        targets = torch.arange(3.0).double()
        one = MonotoneInclusion(
            Functions(lambda u, rows: (u - targets)[None], 1),
            torch.zeros(3, dtype=DOUBLE),
            lambda v, step: v.clamp(0.0, 1.5),
        )
        found = solve(one, SVRG(step_size=0.3, epoch=1), stop=Stop(steps=4)).x
        u = torch.zeros(3, dtype=DOUBLE)
        for _ in range(4):
            u = (u - 0.3 * (u - targets)).clamp(0.0, 1.5)
        torch.testing.assert_close(found, u)


class TestBadInput:
    def test_an_operator_that_is_not_monotone_is_told(self):
        with pytest.warns(NotMonotone, match="not monotone"):
            MonotoneInclusion(Functions(lambda u, rows: -u.expand(len(rows), -1), 2), torch.zeros(3))

    def test_a_resolvent_that_is_none_is_refused(self):
        components = Functions(lambda u, rows: u.expand(len(rows), -1), 2)
        with pytest.raises(InvalidProblem, match="not firmly non-expansive"):
            MonotoneInclusion(components, torch.zeros(3), lambda v, step: 2.0 * v)
        with pytest.raises(InvalidProblem, match=r"resolvent gives a tensor of shape \(2,\)"):
            MonotoneInclusion(components, torch.zeros(3), lambda v, step: v[:2])

    def test_empty_and_misshapen_input_is_refused(self):
        with pytest.raises(InvalidProblem, match="count >= 1"):
            Functions(lambda u, rows: u, 0)
        with pytest.raises(InvalidProblem, match=r"gives a tensor of shape \(2, 2\)"):
            MonotoneInclusion(Functions(lambda u, rows: u[:2].expand(len(rows), -1), 2), torch.zeros(3))
        with pytest.raises(InvalidProblem, match=r"x0 has shape \(2, 2\)"):
            MonotoneInclusion(Functions(lambda u, rows: u, 1), torch.zeros(2, 2))
        with pytest.raises(InvalidProblem, match="2 positive weights"):
            MonotoneInclusion(
                Functions(lambda u, rows: u.expand(len(rows), -1), 2),
                torch.zeros(3),
                importance=torch.zeros(2),
            )
        with pytest.raises(InvalidProblem, match="payoff matrix"):
            matrix_game(torch.zeros(0, 3))
        with pytest.raises(NotFinite, match=r"payoff matrix holds 1 NaN \(first at index \(0, 0\)\)"):
            matrix_game(torch.tensor([[math.nan]]))
        with pytest.raises(NotFinite, match="not finite at the start"):
            MonotoneInclusion(
                Functions(lambda u, rows: (u * math.nan).expand(len(rows), -1), 2), torch.ones(3)
            )
        with pytest.raises(InvalidProblem, match=r"c of shape \(2,\)"):
            linear_program(torch.zeros(3), torch.zeros(1, 2), torch.zeros(1))
        with pytest.raises(InvalidProblem, match="equally many"):
            SumOfComponents(ScaledIdentity(1.0, 2), ScaledIdentity(1.0, 3))
        with pytest.raises(InvalidProblem, match="bilinear games"):
            solve(least_squares(), PDHG())

    @pytest.mark.parametrize("labels", [[0, 1, 1], [False, True, True], [1, 2, 2]])
    def test_codes_other_than_minus_one_and_one_are_no_labels(self, labels):
        # the logistic loss of a label 0 is log 2 for every w: those examples would count for nothing
        rows = np.eye(3)
        with pytest.raises(InvalidProblem, match="logistic loss needs labels -1 and 1"):
            robust_regression(rows, labels, loss="logistic")
        with pytest.raises(InvalidProblem, match="needs labels -1 and 1"):
            adversarial_classification(rows, labels)
        robust_regression(rows, labels)  # targets of squares may be any numbers

    @pytest.mark.parametrize(
        "given",
        [
            *(lambda u, rows: None, lambda u, rows: np.zeros((len(rows), 3))),
            lambda u, rows: u.double().expand(len(rows), -1),
            lambda u, rows: u,  # the mean's, not the rows'
            lambda u, rows: u.expand(len(rows), -1).T,
        ],
    )
    def test_an_operator_that_gives_something_else_is_told_in_a_line(self, given):
        with pytest.raises(InvalidProblem, match=r"f gives .*; expected a tensor of shape \(2, 3\)"):
            MonotoneInclusion(Functions(given, 2), torch.ones(3))

    @pytest.mark.parametrize(
        "given", [lambda v, step: None, lambda v, step: v.numpy(), lambda v, step: v.double()]
    )
    def test_a_resolvent_that_gives_something_else_is_told_in_a_line(self, given):
        with pytest.raises(InvalidProblem, match="The resolvent gives"):
            MonotoneInclusion(Functions(lambda u, rows: u.expand(len(rows), -1), 2), torch.ones(3), given)

    def test_a_resolvent_may_write_on_what_it_is_given(self):
        def expanding(v, step):
            return v.mul_(-1.0)

        operator = Functions(lambda u, rows: u.expand(len(rows), -1), 2)
        with pytest.raises(InvalidProblem, match="not firmly non-expansive"):
            MonotoneInclusion(operator, torch.ones(3), expanding)

    def test_arguments_in_another_order_and_sizes_that_do_not_fit_are_told(self):
        with pytest.raises(InvalidProblem, match="needs components first"):
            MonotoneInclusion(torch.ones(3), Functions(lambda u, rows: u, 2))
        with pytest.raises(InvalidProblem, match=r"x0 has shape \(3,\); expected \(4,\)"):
            MonotoneInclusion(Bilinear(torch.ones(2, 2)), torch.zeros(3))
        with pytest.raises(InvalidProblem, match="count >= 1"):
            Functions(lambda u, rows: u, 2.0)
        with pytest.raises(InvalidParameter, match="strength"):
            ScaledIdentity(math.nan, 2)
        with pytest.raises(InvalidProblem, match="n >= 2"):
            nemirovski(2.5)

    @pytest.mark.parametrize("kind", [torch.float16, torch.bfloat16])
    def test_payoffs_in_half_precision_are_those_in_single(self, kind):
        payoffs = torch.tensor([[2.0, -1.0], [-1.0, 1.0]])
        found = solve(matrix_game(payoffs.to(kind)), stop=Stop(below={"residual": 1e-6}))
        torch.testing.assert_close(found.x, torch.tensor([0.4, 0.6, 0.4, 0.6]), atol=1e-5, rtol=0.0)

    def test_too_small_a_lipschitz_constant_is_caught(self):
        found = solve(least_squares(lipschitz=1e-3), VRHalpern(), stop=Stop(steps=3000))
        assert found.status is Status.DIVERGED
        assert np.isfinite(found.x.numpy()).all()

    def test_a_step_that_is_too_long_for_numbers_is_named(self):
        method = VRHalpern(step_size=1e200)
        found = solve(least_squares(), method, stop=Stop(steps=3000))
        assert found.status is Status.DIVERGED

    @pytest.mark.parametrize(
        ("make", "message"),
        [
            (lambda: VRHalpern(step_size=0.0), "step_size > 0"),
            (lambda: VRHalpern(restart=1.0), "0 < restart < 1"),
            (lambda: InexactHalpern("newton"), "knows 'extragradient' and 'forb'"),
            (lambda: InexactHalpern(inexactness=0.0), "inexactness > 0"),
            (lambda: VRExtragradient(batch=0), "batch >= 1"),
            (lambda: PDHG(every=0), "every >= 1"),
            (lambda: SVRG(batch=0), "batch >= 1"),
            (lambda: SVRG(epoch=0), "epoch >= 1"),
            (lambda: ShapleyIteration(inexactness=0.0), "inexactness > 0"),
            (lambda: least_squares(lipschitz=-1.0), "lipschitz > 0"),
            (lambda: Extragradient(-1.0), "step_size > 0"),
        ],
    )
    def test_parameters_out_of_range_are_refused(self, make, message):
        with pytest.raises(InvalidParameter, match=message):
            make()
