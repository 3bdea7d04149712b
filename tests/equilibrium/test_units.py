"""Games and programs in any unit, with any constant, from any container: the same answer, or one line."""

from __future__ import annotations

import math
import warnings
from concurrent.futures import ThreadPoolExecutor

import numpy as np
import pandas as pd
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.optimize import linprog

from thalweg import Status, Stop, solve
from thalweg.core import InvalidParameter, InvalidProblem, NotFinite, Unbounded, recommended
from thalweg.equilibrium import (
    METHODS,
    PDHG,
    SVRG,
    AnchoredExtragradient,
    Bilinear,
    Extragradient,
    ForwardReflectedBackward,
    InexactHalpern,
    MarkovGame,
    ShapleyIteration,
    VRExtragradient,
    VRHalpern,
    linear_gan,
    linear_program,
    matrix_game,
    random_game,
    random_markov_game,
    robust_regression,
    stage_games,
)

DOUBLE = torch.float64
POWERS = st.integers(-150, 150)
INCLUSIONS = {name: made for name, made in METHODS.items() if name != "shapley"}


def solved(problem, method=None, **stop):
    return solve(problem, method, stop=Stop(**({"below": {"residual": 1e-6}} | stop)), progress=False)


class TestUnitsOfGames:
    def test_a_game_in_small_units_has_its_equilibrium(self):
        """2 x 2 by hand: the value is (ad - bc)/(a + d - b - c), of (2/3, 1/3) on both sides."""
        found = solve(matrix_game([[1e-9, -1e-9], [-1e-9, 3e-9]]), progress=False)
        assert found.status is Status.CONVERGED
        assert found.metrics["value"] == pytest.approx(1e-9 / 3, rel=1e-5)
        np.testing.assert_allclose(found.x, [2 / 3, 1 / 3, 2 / 3, 1 / 3], atol=1e-5)

    @given(POWERS)
    @settings(max_examples=15, deadline=None)
    def test_the_strategies_are_the_same_for_every_unit_of_payoffs(self, power):
        A = random_game(4, 3).numpy()
        one, other = solved(matrix_game(A), PDHG()), solved(matrix_game(A * 10.0**power), PDHG())
        assert other.status is Status.CONVERGED
        np.testing.assert_allclose(other.x, one.x, atol=1e-4)
        assert other.metrics["value"] == pytest.approx(one.metrics["value"] * 10.0**power, rel=1e-4, abs=0)

    @given(POWERS)
    @settings(max_examples=15, deadline=None)
    def test_a_power_of_two_changes_no_bit(self, power):
        A = random_game(4, 3)
        one, other = (solved(matrix_game(B), Extragradient(), steps=30) for B in (A, A * 2.0**power))
        assert torch.equal(one.x, other.x)

    @pytest.mark.parametrize("unit", [1e-300, 1e300])
    def test_the_ends_of_the_range_are_no_exception(self, unit):
        found = solved(matrix_game(unit * np.array([[1.0, -1.0], [-1.0, 3.0]])))
        np.testing.assert_allclose(found.x, [2 / 3, 1 / 3, 2 / 3, 1 / 3], atol=1e-5)

    @pytest.mark.parametrize("unit", [1e-9, 1e9])
    def test_regularisation_is_in_the_payoffs_unit(self, unit):
        A = np.array([[2.0, -1.0], [-1.0, 1.0]])
        one = solved(matrix_game(A, 0.5), below={"residual": 1e-9})
        other = solved(matrix_game(unit * A, 0.5 * unit), below={"residual": 1e-9})
        np.testing.assert_allclose(other.x, one.x, atol=1e-7)

    @pytest.mark.parametrize("name", INCLUSIONS)
    @pytest.mark.parametrize("A", [np.zeros((3, 4)), np.full((2, 2), 7.0)], ids=["zero", "constant"])
    def test_where_nothing_is_at_stake_every_pair_is_an_equilibrium(self, name, A):
        found = solved(matrix_game(A), INCLUSIONS[name]())
        assert found.status is Status.CONVERGED
        assert found.steps == 0
        assert found.metrics["value"] == pytest.approx(A[0, 0])

    @pytest.mark.parametrize("method", [PDHG(), Extragradient(), ForwardReflectedBackward()])
    @pytest.mark.parametrize("constant", [1e6, -1e9])
    def test_a_constant_added_to_all_payoffs_costs_no_step(self, method, constant):
        A = torch.tensor([[0.0, -1, 1], [1, 0, -1], [-1, 1, 0]], dtype=DOUBLE) * torch.tensor([1.0, 2, 3])
        one, other = solved(matrix_game(A), method), solved(matrix_game(A + constant), method)
        assert other.status is Status.CONVERGED
        assert (
            abs(other.steps - one.steps) <= 2 + one.steps // 20
        )  # the constant's rounding is all there is between
        assert other.metrics["value"] == pytest.approx(constant, rel=1e-12)

    @pytest.mark.parametrize("unit", [1e-9, 1.0, 1e12])
    def test_a_markov_game_is_solved_in_its_own_unit(self, unit):
        game = random_markov_game(2, 2, 2, discount=0.5)
        one, other = (
            solve(g, progress=False) for g in (game, MarkovGame(unit * game.payments, game.transitions, 0.5))
        )
        assert other.status is Status.CONVERGED
        assert other.steps == one.steps
        assert other.metrics["value"] == pytest.approx(unit * one.metrics["value"], rel=1e-6)

    def test_a_constant_in_a_markov_game_is_worth_its_discounted_sum(self):
        game = random_markov_game(2, 2, 2, discount=0.5)
        one = solve(game, progress=False)
        moved = solve(MarkovGame(game.payments + 1e6, game.transitions, 0.5), progress=False)
        assert moved.status is Status.CONVERGED
        assert moved.metrics["value"] - one.metrics["value"] == pytest.approx(2e6, rel=1e-12)
        np.testing.assert_allclose(game.metrics(moved.x)["exploitability"], 0.0, atol=1e-5)


def test_eight_threads_share_a_game():
    game = matrix_game(random_game(4, 3))
    methods = [PDHG(), Extragradient(), VRExtragradient(), InexactHalpern()]
    with ThreadPoolExecutor(8) as pool:
        answers = list(pool.map(lambda k: solved(game, methods[k % 4], steps=20).x, range(16)))
    assert all(torch.equal(x, answers[k % 4]) for k, x in enumerate(answers))


class TestContainers:
    @pytest.mark.parametrize(
        "A",
        [
            np.array([[2.0, -1.0], [-1.0, 1.0]]),
            [[2.0, -1.0], [-1.0, 1.0]],
            [[2, -1], [-1, 1]],
            torch.tensor([[2, -1], [-1, 1]]),
            np.array([[2, -1], [-1, 1]], dtype=np.int8),
            np.asfortranarray([[2.0, -1.0], [-1.0, 1.0]])[::1],
            pd.DataFrame([[2.0, -1.0], [-1.0, 1.0]]),
        ],
        ids=["array", "lists", "whole", "tensor", "int8", "fortran", "table"],
    )
    def test_payoffs_are_taken_from_what_holds_numbers(self, A):
        found = solved(matrix_game(A))
        assert found.x.dtype == DOUBLE
        np.testing.assert_allclose(found.x, [0.4, 0.6, 0.4, 0.6], atol=1e-5)

    def test_answers_are_judged_from_what_holds_numbers(self):
        game = matrix_game(np.array([[2.0, -1.0], [-1.0, 1.0]]))
        for answer in (
            [0.4, 0.6, 0.4, 0.6],
            np.array([0.4, 0.6, 0.4, 0.6]),
            torch.tensor([0.4, 0.6, 0.4, 0.6]),
        ):
            assert game.metrics(answer)["gap"] == pytest.approx(0.0, abs=1e-6)
        with pytest.raises(InvalidProblem, match=r"x has shape \(2,\); expected \(4,\)"):
            game.metrics([0.4, 0.6])

    def test_a_floating_tensor_keeps_its_type(self):
        assert matrix_game(torch.eye(2)).x0.dtype == torch.float32
        assert matrix_game(torch.eye(2, requires_grad=True)).components.A.requires_grad is False

    @pytest.mark.parametrize(
        ("A", "message"),
        [
            ([["a", "b"]], "payoff matrix holds <U1; expected numbers"),
            (np.eye(2) * 1j, "payoff matrix is complex"),
            ([1.0, 2.0], r"payoff matrix has shape \(2,\); expected \(rows, columns\)"),
            (np.zeros((0, 2)), "none empty"),
            ([[1.0], [1.0, 2.0]], "payoff matrix is no array of numbers"),
        ],
    )
    def test_what_is_no_game_is_named(self, A, message):
        with pytest.raises(InvalidProblem, match=message):
            matrix_game(A)

    @pytest.mark.parametrize(
        "make", [matrix_game, Bilinear, lambda A: linear_program([1.0, 1.0], A, [1.0, 1.0])]
    )
    def test_what_is_not_finite_is_found(self, make):
        with pytest.raises(NotFinite, match=r"holds 1 .*first at index \(1, 0\)"):
            make([[1.0, 2.0], [math.inf, 1.0]])

    def test_other_problems_take_arrays_and_say_what_does_not_fit(self):
        X, y = np.eye(3), [1, 2, 3]
        assert robust_regression(X, y).x0.dtype == DOUBLE
        assert linear_gan(X, X).x0.dtype == DOUBLE
        assert stage_games(np.ones((1, 2, 2)), torch.full((4,), 0.5, dtype=DOUBLE)).judge is not None
        with pytest.raises(InvalidProblem, match="X has 3 rows and y 2 entries"):
            robust_regression(X, y[:2])
        with pytest.raises(InvalidProblem, match="payments has shape"):
            MarkovGame(np.ones(3), np.ones(3), 0.5)


def random_program(seed, m=5, n=8):
    """A program with a solution: x and y are feasible by construction."""
    rng = np.random.default_rng(seed)
    A = rng.random((m, n)) - 0.2
    return A.T @ rng.random(m) + 0.3 * rng.random(n), A, A @ rng.random(n) - 0.2 * rng.random(m)


INFEASIBLE = ([1.0, 1.0], [[1.0, 1.0], [-1.0, -1.0]], [2.0, -1.0])  # sum >= 2 and sum <= 1
UNBOUNDED = ([-1.0, 0.0], [[1.0, 1.0]], [1.0])  # min -x1


class TestLinearPrograms:
    @pytest.mark.parametrize("seed", range(3))
    def test_pdhg_has_highs_value(self, seed):
        c, A, b = random_program(seed)
        program = linear_program(c, A, b)
        assert isinstance(recommended(program), PDHG)
        found = solve(program, progress=False)
        assert found.status is Status.CONVERGED
        assert found.metrics["value"] == pytest.approx(linprog(c, A_ub=-A, b_ub=-b).fun, rel=1e-5)

    @pytest.mark.parametrize("method", [Extragradient(), PDHG()])
    @pytest.mark.parametrize(("program", "message"), [(INFEASIBLE, "infeasible"), (UNBOUNDED, "unbounded")])
    def test_a_program_without_a_solution_is_named(self, method, program, message):
        found = solved(linear_program(*program, radius=100.0), method, steps=20_000)
        assert found.status is Status.DIVERGED
        assert message in found.message

    @pytest.mark.parametrize(
        "method", [VRHalpern(), InexactHalpern(), AnchoredExtragradient(), VRExtragradient(), SVRG()]
    )
    @pytest.mark.parametrize("program", [INFEASIBLE, UNBOUNDED])
    def test_no_method_converges_without_a_solution(self, method, program):
        found = solved(linear_program(*program, radius=3.0), method, steps=300)
        assert found.status is not Status.CONVERGED

    @pytest.mark.parametrize("method", [Extragradient(step_size=0.3), PDHG()])
    def test_a_solution_beyond_the_ball_asks_for_a_larger_one(self, method):
        program = [1.0, 1.0], [[1.0, 1.0]], [50.0]
        held = solved(linear_program(*program, radius=10.0), method)
        assert held.status is Status.DIVERGED
        assert "larger radius" in held.message
        assert solved(linear_program(*program), method).metrics["value"] == pytest.approx(50.0, rel=1e-5)

    @pytest.mark.parametrize("unit", [1e-200, 1e200, 1e300])
    def test_costs_whose_squares_are_no_numbers_are_costs(self, unit):
        c = unit * np.array([3.0, 2.0, 4.0])
        found = solved(linear_program(c, [[1.0, 1.0, 0.0], [0.0, 1.0, 2.0]], [2.0, 3.0]))
        assert found.status is Status.CONVERGED
        assert found.metrics["value"] / unit == pytest.approx(6.0, rel=1e-6)

    @given(POWERS, POWERS, POWERS)
    @settings(max_examples=15, deadline=None)
    def test_units_of_costs_and_constraints_change_nothing(self, of_c, of_A, of_b):
        of_A, of_b = of_A // 2, of_b // 2  # their ratio is that of the unknowns, too
        c, A, b = random_program(1, 2, 3)
        with warnings.catch_warnings():
            warnings.simplefilter("error")
            found = solve(linear_program(10.0**of_c * c, 10.0**of_A * A, 10.0**of_b * b), progress=False)
        assert found.status is Status.CONVERGED
        exact = linprog(c, A_ub=-A, b_ub=-b).x
        np.testing.assert_allclose(found.x[:3].numpy() * 10.0 ** (of_A - of_b), exact, atol=1e-4)

    def test_small_costs_are_not_taken_for_none(self):
        c, A, b = random_program(0)
        start = linear_program(1e-9 * c, A, b)
        feasible = torch.cat([torch.full((8,), 10.0, dtype=DOUBLE), torch.zeros(5, dtype=DOUBLE)])
        assert start.metrics(feasible)["violation"] == 0.0
        assert start.metrics(feasible)["residual"] > 0.1

    @pytest.mark.parametrize("radius", [0.0, -1.0, math.nan, math.inf, "wide"])
    def test_a_radius_that_is_none_is_refused(self, radius):
        with pytest.raises(InvalidProblem, match="radius > 0"):
            linear_program(*UNBOUNDED, radius=radius)


class TestOptions:
    @pytest.mark.parametrize("value", [0, -1.0, math.nan, math.inf, "fast", True])
    @pytest.mark.parametrize("name", INCLUSIONS)
    def test_a_step_size_that_is_none_is_refused_when_the_method_is_made(self, name, value):
        with pytest.raises(InvalidParameter, match="step_size > 0"):
            INCLUSIONS[name](step_size=value)

    @pytest.mark.parametrize("value", [0, 1.5, "all", math.nan])
    @pytest.mark.parametrize(
        ("method", "option"),
        [
            (VRHalpern, "batch"),
            (InexactHalpern, "batch"),
            (VRExtragradient, "batch"),
            (SVRG, "batch"),
            (SVRG, "epoch"),
            (PDHG, "every"),
            (ShapleyIteration, "passes"),
        ],
    )
    def test_counts_are_whole(self, method, option, value):
        with pytest.raises(InvalidParameter, match=f"{option} >= 1"):
            method(**{option: value})

    def test_none_is_no_value_where_it_is_no_default(self):
        with pytest.raises(InvalidParameter, match="batch >= 1"):
            SVRG(batch=None)
        with pytest.raises(InvalidParameter, match="needs a method as stage"):
            ShapleyIteration(stage="extragradient")

    @pytest.mark.parametrize("name", INCLUSIONS)
    def test_a_step_too_long_advises_an_option_that_the_method_has(self, name):
        X = torch.randn(30, 3, generator=torch.Generator().manual_seed(0), dtype=DOUBLE)
        problem = matrix_game(X, 0.0)
        if name != "pdhg":  # a game's set is bounded: take one that is not
            problem = robust_regression(X, X.sum(1), tail=1.0)
        method = (
            INCLUSIONS[name](step_size=1e200)
            if name != "inexact-halpern"
            else InexactHalpern(step_size=1e200, eta=1.0)
        )
        found = solve(problem, method, stop=Stop(steps=200), progress=False)
        if found.status is Status.DIVERGED and "not finite" in found.message:
            assert "smaller step_size" in found.message
            assert "lipschitz" not in found.message

    def test_a_program_without_bound_is_an_error_of_its_own(self):
        program = linear_program(*UNBOUNDED, radius=2.0)
        border = torch.tensor([2.0, 0.0, 0.0], dtype=DOUBLE)
        method = Extragradient()
        with pytest.raises(Unbounded, match="unbounded"):
            method.checked(program, border, method.init(program, 0))
