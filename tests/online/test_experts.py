"""Sleeping experts against mpmath, their bounds, and one another."""

from __future__ import annotations

import mpmath
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from thalweg.core import CheckpointMismatch, InvalidParameter
from thalweg.core.tree import load_tree, save_tree
from thalweg.online import AdaNormalHedge, Specialists
from thalweg.online._group_kernels import log_weight


def exact_log_weight(regret, magnitude):
    """``log((Phi(R+1, C+1) - Phi(R-1, C+1)))`` with sixty digits."""
    with mpmath.workdps(60):

        def phi(r):
            return mpmath.exp(max(mpmath.mpf(r), 0) ** 2 / (3 * (mpmath.mpf(magnitude) + 1)))

        return mpmath.log(phi(mpmath.mpf(regret) + 1) - phi(mpmath.mpf(regret) - 1))


class TestAdaNormalHedge:
    @given(st.floats(-0.999, 3000), st.floats(0, 3000))
    def test_weights_in_logarithms_are_those_of_sixty_digits(self, regret, magnitude):
        assert log_weight(regret, magnitude) == pytest.approx(
            float(exact_log_weight(regret, magnitude)), rel=1e-9, abs=1e-9
        )

    def test_large_regrets_do_not_overflow(self):
        assert log_weight(2500.0, 2500.0) == pytest.approx(833.36 + np.log(1 - np.exp(-4 / 3)), abs=0.5)
        hedge = AdaNormalHedge(3)
        hedge.regrets[:], hedge.magnitudes[:] = [2500.0, 2400.0, -5.0], 2500.0
        p = hedge.weights()
        assert p.sum() == pytest.approx(1.0)
        assert p[0] > 0.999
        assert p[2] == 0.0

    @given(st.integers(0, 10_000), st.integers(1, 6), st.booleans())
    def test_no_regret_ever_exceeds_its_bound(self, seed, experts, adversarial):
        """Random sequences, and an adversary who lets the heaviest awake expert lose."""
        rng = np.random.default_rng(seed)
        prior = rng.random(experts) + 0.05
        hedge = AdaNormalHedge(experts, prior)
        for _ in range(120):
            active = rng.random(experts) < 0.7
            p = hedge.weights(active)
            assert p.sum() == pytest.approx(1.0)
            losses = rng.random(experts)
            if adversarial:
                losses = (p >= p.max() - 1e-12).astype(float)
            hedge.learn(p @ losses - losses, active)
            assert (hedge.regrets <= hedge.bound() + 1e-9).all()

    def test_the_bound_grows_like_the_root_of_the_rounds(self):
        hedge = AdaNormalHedge(10)
        hedge.magnitudes[:] = 10_000.0
        rounds = 10_000
        assert hedge.bound().max() <= np.sqrt(
            3 * rounds * (np.log(10) + np.log(2.5 + 1.5 * np.log1p(rounds)))
        )

    def test_all_weights_zero_is_uniform_and_nobody_awake_is_everybody(self):
        hedge = AdaNormalHedge(4)
        hedge.regrets[:] = -3.0
        np.testing.assert_allclose(hedge.weights(), 0.25)
        np.testing.assert_allclose(hedge.weights([False] * 4), 0.25)

    def test_sleepers_learn_nothing(self):
        hedge = AdaNormalHedge(2)
        hedge.learn([0.5, np.nan], [True, False])
        np.testing.assert_array_equal(hedge.regrets, [0.5, 0.0])

    def test_a_saved_state_goes_on_with_the_same_weights(self, tmp_path, rng):
        hedge = AdaNormalHedge(3)
        hedge.learn(rng.uniform(-1, 1, 3))
        save_tree(tmp_path / "hedge", hedge.state_dict())
        again = AdaNormalHedge(3).load_state_dict(load_tree(tmp_path / "hedge"))
        np.testing.assert_array_equal(again.weights(), hedge.weights())
        with pytest.raises(CheckpointMismatch, match="shape"):
            AdaNormalHedge(4).load_state_dict(hedge.state_dict())
        with pytest.raises(CheckpointMismatch, match="another prior"):
            AdaNormalHedge(3, [1.0, 2.0, 3.0]).load_state_dict(hedge.state_dict())
        with pytest.raises(CheckpointMismatch, match="expected Specialists"):
            Specialists(3).load_state_dict(hedge.state_dict())

    def test_bad_input_is_refused(self):
        hedge = AdaNormalHedge(2)
        with pytest.raises(InvalidParameter, match="experts >= 1"):
            AdaNormalHedge(0)
        with pytest.raises(InvalidParameter, match=r"prior\[1\] is 0"):
            AdaNormalHedge(2, [1.0, 0.0])
        with pytest.raises(InvalidParameter, match=r"regrets\[0\] is 1.5; expected numbers in \[-1, 1\]"):
            hedge.learn([1.5, 0.0])
        with pytest.raises(InvalidParameter, match=r"regrets\[1\] is nan"):
            hedge.learn([0.0, np.nan])
        with pytest.raises(InvalidParameter, match="of truth values"):
            hedge.weights([1, 0])


class TestSpecialists:
    @given(st.integers(0, 10_000), st.integers(1, 6))
    def test_the_regret_to_each_is_at_most_half_its_prior_logarithm(self, seed, experts):
        rng = np.random.default_rng(seed)
        prior = rng.random(experts) + 0.05
        mix, regrets = Specialists(experts, prior), np.zeros(experts)
        for _ in range(100):
            active, z, y = rng.random(experts) < 0.7, rng.random(experts), float(rng.random() < 0.5)
            played = mix.predict(z, active)
            mix.learn(z, y, active)
            regrets[active] += (played - y) ** 2 - (z[active] - y) ** 2
        assert (regrets <= -np.log(prior / prior.sum()) / 2 + 1e-9).all()

    def test_bad_input_is_refused(self):
        mix = Specialists(2)
        with pytest.raises(InvalidParameter, match=r"proposals\[0\] is 2"):
            mix.predict([2.0, 0.0])
        with pytest.raises(InvalidParameter, match=r"label in \[0, 1\]"):
            mix.learn([0.0, 0.0], 2.0)
