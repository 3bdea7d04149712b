"""Episodes judged: against brute force over all policies, invariants of occupancies, and bad input."""

from __future__ import annotations

import itertools
import warnings

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from thalweg import solve
from thalweg.core import InvalidParameter, InvalidProblem, NotFinite, recommended
from thalweg.online.mdp import (
    AdversarialMDP,
    Dynamics,
    MagnitudeReduced,
    NotLinear,
    block_losses,
    fixed_losses,
    grid,
    lock,
    lock_losses,
    measured_dynamics,
    random_linear_mdp,
    sinusoidal_losses,
    switching_losses,
    tabular,
)
from thalweg.online.mdp import _kernels as kernels

seeds = st.integers(0, 10_000)


def small(seed, episodes=3, layers=3, states=3, actions=2):
    rng = np.random.default_rng(seed)
    world = tabular(
        rng.dirichlet(np.ones(states), (layers, states, actions)), start=rng.dirichlet(np.ones(states))
    )
    return AdversarialMDP(dynamics=world, losses=rng.random((episodes, layers, states, actions)))


def value(problem, policy, losses):
    """What a policy loses in one episode, by recursion over states."""
    d = problem.dynamics

    def from_here(h, s):
        if h == d.layers:
            return 0.0
        return sum(
            policy[h, s, a]
            * (
                losses[h, s, a]
                + sum(d.transitions[h, s, a, t] * from_here(h + 1, t) for t in range(d.states))
            )
            for a in range(d.actions)
        )

    return sum(d.start[s] * from_here(0, s) for s in range(d.states))


class TestJudgement:
    @given(seed=seeds)
    def test_hindsight_is_the_best_of_all_policies(self, seed):
        problem = small(seed, layers=2, states=2)
        total = problem.losses.sum(0)
        values = [
            value(problem, np.eye(2)[np.array(choice).reshape(2, 2)], total)
            for choice in itertools.product(range(2), repeat=4)
        ]
        choice, best = problem.best()
        assert best == pytest.approx(min(values), rel=1e-12)
        assert value(problem, np.eye(2)[choice], total) == pytest.approx(best, rel=1e-12)

    @given(seed=seeds)
    def test_regret_is_what_was_lost_less_that(self, seed):
        problem = small(seed)
        x = np.random.default_rng(seed).dirichlet(np.ones(2), (3, 3, 3))
        x[2] = np.nan
        lost = [value(problem, x[k], problem.losses[k]) for k in range(2)]
        found = problem.metrics(x)
        best = problem.best(slice(0, 2))[1]
        assert found["regret"] == pytest.approx(sum(lost) - best, rel=1e-9)
        assert found["loss"] == pytest.approx(np.mean(lost), rel=1e-12)
        assert found["left"] == 1.0
        at, curve = problem.curve(x)
        np.testing.assert_array_equal(at, [1, 2])
        assert curve[-1] == pytest.approx(found["regret"], rel=1e-9)

    @given(seed=seeds)
    def test_the_chances_of_each_layer_sum_to_one(self, seed):
        d, rng = small(seed).dynamics, np.random.default_rng(seed)
        chances = np.empty((3, 3))
        kernels.occupy(d.transitions, d.start, rng.dirichlet(np.ones(2), (3, 3)), chances)
        np.testing.assert_allclose(chances.sum(1), 1.0, rtol=1e-12)

    def test_nothing_played_has_no_regret(self):
        problem = small(0)
        assert problem.metrics(np.full((3, 3, 3, 2), np.nan)) == {"loss": 0.0, "regret": 0.0, "left": 3.0}
        at, curve = problem.curve(np.full((3, 3, 3, 2), np.nan))
        assert len(at) == len(curve) == 0

    def test_answers_that_are_no_policies_are_refused(self):
        problem = small(0)
        with pytest.raises(InvalidProblem, match=r"x has shape \(3, 2\); expected policies \(3, 3, 3, 2\)"):
            problem.metrics(np.ones((3, 2)))
        with pytest.raises(InvalidProblem, match=r"chances of x at \(0, 0, 0\) sum to 2"):
            problem.metrics(np.ones((3, 3, 3, 2)))

    def test_magnitude_reduced_estimates_are_recommended(self):
        assert recommended(small(0)) == MagnitudeReduced()


class TestDoor:
    stay = np.eye(2)[:, None, :].repeat(2, axis=1)
    phi = np.eye(4).reshape(2, 2, 4)

    def test_long_features_are_refused_with_the_mend(self):
        with pytest.raises(
            InvalidProblem, match=r"features at \(0, 0, 0\) .* have length 2; .* Divide all of them by 2"
        ):
            Dynamics(2.0 * self.phi, self.stay, layers=1)

    def test_features_too_short_for_gamma_are_refused(self):
        for scale in (1e-6, 0.0):
            with pytest.raises(InvalidProblem, match="expected about 1, in whose units gamma counts"):
                Dynamics(scale * self.phi, self.stay, layers=1)

    def test_chances_that_are_none_are_refused(self):
        wrong = self.stay.copy()
        wrong[1, 0] = [0.7, 0.7]
        with pytest.raises(InvalidProblem, match=r"the transitions at \(0, 1, 0\) sum to 1.4"):
            Dynamics(self.phi, wrong, layers=1)
        wrong[1, 0] = [-0.5, 1.5]
        with pytest.raises(InvalidProblem, match=r"the least is -0\.5; expected none below zero"):
            Dynamics(self.phi, wrong, layers=1)

    @pytest.mark.parametrize("what", ["features", "transitions", "losses"])
    def test_what_is_not_finite_or_complex_is_refused(self, what):
        for bad, words in ((np.nan, "1 NaN"), (np.inf, "non-finite"), (1j, "complex")):
            given_ = {"features": self.phi, "transitions": self.stay, "losses": np.zeros((3, 1, 2, 2))}
            array = given_[what].astype(type(bad) if bad == 1j else float)
            array.flat[0] = bad
            with pytest.raises(InvalidProblem, match=f"{what}.*{words}"):
                AdversarialMDP(**{**given_, what: array})

    def test_shapes_that_do_not_fit_are_refused(self):
        for features, transitions, words in (
            (np.eye(2), self.stay, r"features has shape \(2, 2\); expected \(S, A, d\)"),
            (self.phi, np.eye(2), r"transitions has shape \(2, 2\); expected \(S, A, S\)"),
            (self.phi[:1], self.stay, r"transitions has shape \(2, 2, 2\); expected \(..., 1, 2, 1\)"),
        ):
            with pytest.raises(InvalidProblem, match=words):
                Dynamics(features, transitions, layers=1)
        with pytest.raises(InvalidProblem, match="number of layers is said to be nothing"):
            Dynamics(self.phi, self.stay)
        with pytest.raises(InvalidProblem, match=r"needs whole layers >= 1; got 2\.5"):
            Dynamics(self.phi, self.stay, layers=2.5)
        with pytest.raises(InvalidProblem, match=r"said to be \[2, 3\]"):
            Dynamics(np.stack([self.phi] * 2), np.stack([self.stay] * 3))
        with pytest.raises(
            InvalidProblem, match=r"losses has shape \(2, 2\); expected \(episodes, H, S, A\)"
        ):
            AdversarialMDP(self.phi, self.stay, np.zeros((2, 2)))
        with pytest.raises(InvalidProblem, match=r"losses has shape \(5, 1, 2, 3\); .*\(episodes, 1, 2, 2\)"):
            AdversarialMDP(self.phi, self.stay, np.zeros((5, 1, 2, 3)))
        with pytest.raises(InvalidProblem, match="needs features and transitions, or dynamics="):
            AdversarialMDP(losses=np.zeros((5, 1, 2, 2)))
        with pytest.raises(InvalidProblem, match="not both"):
            AdversarialMDP(
                self.phi, losses=np.zeros((5, 1, 2, 2)), dynamics=Dynamics(self.phi, self.stay, layers=1)
            )

    def test_losses_outside_the_range_are_told_with_their_place(self):
        for wrong in (-0.1, 1.5):
            losses = np.zeros((3, 1, 2, 2))
            losses[1, 0, 1, 0] = wrong
            with pytest.raises(
                InvalidProblem, match=rf"loss at \(1, 0, 1, 0\) .* is {wrong}, outside \[0, 1\]"
            ):
                AdversarialMDP(self.phi, self.stay, losses)

    def test_where_an_episode_starts_is_checked(self):
        with pytest.raises(InvalidProblem, match=r"start is 2; expected a state in 0 .. 1"):
            Dynamics(self.phi, self.stay, layers=1, start=2)
        with pytest.raises(InvalidProblem, match=r"start has shape \(3,\)"):
            Dynamics(self.phi, self.stay, layers=1, start=[0.5, 0.5, 0.0])
        with pytest.raises(InvalidProblem, match=r"chances of start .*sum to 2"):
            Dynamics(self.phi, self.stay, layers=1, start=[1.0, 1.0])

    def test_values_that_are_not_linear_are_told(self, rng):
        world = random_linear_mdp(6, 3, 3, 3)
        with pytest.warns(NotLinear, match=r"of the values of random policies is not linear"):
            problem = AdversarialMDP(dynamics=world, losses=rng.random((5, 3, 6, 3)))
        assert problem.misfit > 0.01
        with warnings.catch_warnings():
            warnings.simplefilter("error")
            assert AdversarialMDP(dynamics=world, losses=fixed_losses(world, 5)).misfit < 1e-12

    def test_features_that_do_not_span_have_their_rank_told(self):
        world = random_linear_mdp(6, 3, 3, 2)
        wide = np.concatenate([world.features[0], np.zeros((6, 3, 2))], axis=-1)
        assert Dynamics(wide, world.transitions).rank == 3 < Dynamics(wide, world.transitions).dimension
        assert world.rank == 3
        assert tabular(np.full((2, 3, 2), 0.5), layers=1).rank == 6


class TestWorlds:
    @given(seed=seeds)
    def test_a_random_linear_mdp_is_one(self, seed):
        world = random_linear_mdp(seed=seed % 50)
        flat, moves = world.features[0].reshape(-1, 4), world.transitions[0].reshape(-1, 12)
        mixed = np.linalg.lstsq(flat, moves, rcond=None)[0]
        np.testing.assert_allclose(flat @ mixed, moves, atol=1e-12)
        np.testing.assert_allclose(mixed.sum(1), 1.0, atol=1e-9)

    def test_the_lock_opens_to_its_combination_alone(self):
        problem = AdversarialMDP(dynamics=lock(4, 3, seed=5), losses=lock_losses(1, 4, 3, seed=5))
        choices = np.array(list(itertools.product(range(3), repeat=4)))
        lost = [problem.metrics(np.eye(3)[np.stack([c, c], 1)][None])["loss"] for c in choices]
        assert np.argmin(lost) == np.flatnonzero((choices == problem.best()[0][:, 0]).all(1))[0]
        assert sorted(lost)[0] == pytest.approx(0.15)
        assert sorted(lost)[1] >= 1.0

    def test_on_the_grid_walls_stop_and_slips_go_anywhere(self):
        world = grid(3, 2, slip=0.4)
        np.testing.assert_allclose(world.transitions[0, 4, 0, [1, 5, 7, 3]], [0.7, 0.1, 0.1, 0.1])
        np.testing.assert_allclose(world.transitions[0, 0, 0, [0, 1, 3]], [0.8, 0.1, 0.1])

    def test_losses_are_linear_and_change_when_they_should(self):
        world = random_linear_mdp()
        flat = world.features[0].reshape(-1, 4)
        for losses in (
            fixed_losses(world, 40), switching_losses(world, 40, (0.25, 0.5)), sinusoidal_losses(world, 40),
            block_losses(world, 40, 4),
        ):  # fmt: skip
            rows = losses.reshape(-1, flat.shape[0]).T
            np.testing.assert_allclose(flat @ np.linalg.lstsq(flat, rows, rcond=None)[0], rows, atol=1e-12)
            assert 0 <= losses.min() <= losses.max() <= 1
        changes = np.flatnonzero(
            np.abs(np.diff(switching_losses(world, 40, (0.25, 0.5)), axis=0)).sum((1, 2, 3))
        )
        np.testing.assert_array_equal(changes, [9, 19])
        swing = sinusoidal_losses(world, 40, periods=4.0)
        np.testing.assert_allclose(swing[:10], swing[10:20], atol=1e-12)
        blocks = np.flatnonzero(np.abs(np.diff(block_losses(world, 40, 4), axis=0)).sum((1, 2, 3)))
        np.testing.assert_array_equal(blocks, [9, 19, 29])

    def test_adversaries_refuse_what_they_cannot_do(self):
        world = random_linear_mdp()
        for make, words in (
            (lambda: switching_losses(world, 9, (0.5, 0.4)), "rising shares"),
            (lambda: switching_losses(world, 9, (0.0,)), "rising shares"),
            (lambda: sinusoidal_losses(world, 9, 0.0), "periods > 0"),
            (lambda: block_losses(world, 9, 0), "blocks >= 1"),
            (lambda: fixed_losses(world, 0), "episodes >= 1"),
            (lambda: random_linear_mdp(states=0), "states is a whole number"),
            (lambda: lock_losses(3, lure=2.0), r"lure in \[0, 1\]"),
            (lambda: grid(slip=-1.0), "0 <= slip <= 1"),
        ):
            with pytest.raises(InvalidParameter, match=words):
                make()
        signed = Dynamics(-world.features, world.transitions)
        with pytest.raises(InvalidProblem, match="not negative and sum to at most one"):
            fixed_losses(signed, 3)


class TestLayers:
    def test_layers_that_are_alike_are_kept_once_and_played_the_same(self):
        world = random_linear_mdp(5, 3, 3, 4, seed=2)
        spelled = Dynamics(world.features, world.transitions)
        assert (len(world.packed_features), len(spelled.packed_features)) == (1, 4)
        losses = sinusoidal_losses(world, 60, seed=2)
        once, each = (AdversarialMDP(dynamics=d, losses=losses) for d in (world, spelled))
        for method in (MagnitudeReduced(), MagnitudeReduced(doubling=True)):
            first, second = solve(once, method), solve(each, method)
            np.testing.assert_array_equal(first.x, second.x)
            assert first.metrics == second.metrics

    def test_layers_of_their_own_are_told_apart(self, rng):
        """The last layer alone has losses; reaching its good state is up to the first, whose moves differ."""
        moves = np.zeros((2, 2, 2, 2))
        moves[0, :, 0, 0] = moves[0, :, 1, 1] = 1.0
        moves[1, :, :, 0] = 1.0
        losses = np.zeros((1, 2, 2, 2))
        losses[0, 1, 0] = 1.0
        choice, total = AdversarialMDP(dynamics=tabular(moves), losses=losses).best()
        assert (choice[0, 0], total) == (1, 0.0)
        assert AdversarialMDP(dynamics=tabular(moves[::-1]), losses=losses).best()[1] == 1.0


class TestSimulator:
    world = random_linear_mdp(4, 2, 2, 2)

    def simulate(self, h, s, a, draws, rng):
        return rng.choice(4, draws, p=self.world.transitions[h, s, a])

    def test_counts_go_to_the_transitions(self):
        found = measured_dynamics(self.world.features, self.simulate, 2, draws=4000)
        np.testing.assert_allclose(found.transitions, self.world.transitions, atol=5 * 0.5 / np.sqrt(4000))

    def test_one_that_stays_the_same_is_never_refused(self):
        for seed in range(40):
            measured_dynamics(self.world.features, self.simulate, 2, draws=60, seed=seed)

    def test_one_that_changes_is_refused(self):
        calls = itertools.count()

        def drifting(h, s, a, draws, rng):
            return rng.choice(4, draws, p=[0.4, 0.2, 0.2, 0.2] if next(calls) < 16 else [0.2, 0.2, 0.2, 0.4])

        with pytest.raises(InvalidProblem, match="next states change as it is used: chi-square"):
            measured_dynamics(self.world.features, drifting, 2)

    @pytest.mark.parametrize(
        ("answer", "words"),
        [
            (lambda draws: np.zeros(3, dtype=int), r"shape \(3,\) of int64 at layer 0, state 0, action 0"),
            (lambda draws: np.zeros(draws), "float64"),
            (lambda draws: np.full(draws, 7), r"the next state 7 .*; expected states in 0 .. 3"),
        ],
    )
    def test_next_states_that_are_none_are_refused(self, answer, words):
        with pytest.raises(InvalidProblem, match=words):
            measured_dynamics(self.world.features, lambda h, s, a, draws, rng: answer(draws), 2)

    def test_nan_is_named(self):
        with pytest.raises(NotFinite, match="features"):
            measured_dynamics(self.world.features * np.nan, self.simulate, 2, draws=2)
