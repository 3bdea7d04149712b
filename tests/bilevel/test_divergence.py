"""Runs that diverge are blamed on the level that does it; large data are no divergence; options at the door."""

from __future__ import annotations

import math

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from thalweg import Status, Stop, solve
from thalweg.bilevel import (
    AID,
    BOME,
    BOREP,
    ITD,
    MASOBA,
    MRBO,
    SABA,
    Anderson,
    Bilevel,
    CGInverse,
    Decay,
    DirectInverse,
    EpochSGD,
    FixedPointInverse,
    MirrorDescent,
    MomentumPenalty,
    NeumannInverse,
    Penalty,
    ProximalGradient,
    StocBiO,
    bisection,
)
from thalweg.bilevel.divergence import settles
from thalweg.bilevel.selftuning import HyperParameter, SelfTuner
from thalweg.core import Checkpoint, InvalidParameter

DOUBLE = torch.float64
ZERO = torch.zeros(5, dtype=DOUBLE)
SERIES = NeumannInverse(5, 0.5)
METHODS = {
    "StocBiO": lambda alpha, gamma: StocBiO(alpha, gamma, 5, SERIES),
    "AID": lambda alpha, gamma: AID(alpha, gamma),
    "ITD": lambda alpha, gamma: ITD(alpha, gamma),
    "SABA": lambda alpha, gamma: SABA(alpha, gamma),
    "MASOBA": lambda alpha, gamma: MASOBA(alpha, gamma),
    "MRBO": lambda alpha, gamma: MRBO(alpha, gamma, inverse=SERIES),
}


def distance(x, y):
    return 0.5 * (y - x).square().sum()


def quartic(scale=1.0):
    """``f = |y|_4^4 / 4 + |x - 1|^2 / 2`` over ``y = x``: solved by the root of ``x^3 + x = 1``."""
    return Bilevel(
        lambda x, y: (y**4).sum() / 4 + 0.5 * (x - 1.0).square().sum(), distance, ZERO + 10.0 * scale, ZERO
    )


class TestBlame:
    @pytest.mark.parametrize("make", METHODS.values(), ids=METHODS)
    def test_an_upper_step_that_is_too_long_is_named(self, make):
        found = solve(quartic(), make(0.1, 0.5), stop=Stop(steps=300))
        assert found.status is Status.DIVERGED
        assert "the upper level's variable grew" in found.message
        assert "Take a smaller step_size" in found.message
        assert "lower level's variable" not in found.message

    def test_with_a_shorter_one_it_is_the_root(self):
        found = solve(quartic(), AID(0.02, 0.5, 5), stop=Stop(steps=250))
        torch.testing.assert_close(found.x.x, ZERO + 0.6823278038280193, atol=1e-3, rtol=0)

    @pytest.mark.parametrize("make", METHODS.values(), ids=METHODS)
    def test_an_inner_step_that_is_too_long_is_named_though_x_is_drawn_along(self, make):
        problem = Bilevel(lambda x, y: 0.5 * (y - 1.0).square().sum(), distance, ZERO, ZERO + 1.0)
        found = solve(problem, make(0.1, 2.5), stop=Stop(steps=300))
        assert found.status is Status.DIVERGED
        assert "the lower level's variable grew" in found.message
        assert "smaller inner_step_size" in found.message

    @pytest.mark.parametrize(
        "lower", [lambda x, y: -distance(x, y), lambda x, y: -1e9 * y.sum() + 0.0 * x.sum()]
    )
    def test_a_lower_level_that_is_unbounded_below_is_named(self, lower):
        problem = Bilevel(lambda x, y: 0.5 * x.square().sum(), lower, ZERO + 1.0, ZERO)
        found = solve(problem, Penalty(0.01, 0.5), stop=Stop(steps=200))
        assert found.status is Status.DIVERGED
        assert "unbounded below" in found.message
        assert "lower level's variable grew" in found.message

    def test_a_concave_upper_level_is_named(self):
        problem = Bilevel(lambda x, y: -y.square().sum(), distance, ZERO + 1.0, ZERO)
        for make in METHODS.values():
            found = solve(problem, make(0.1, 0.5), stop=Stop(steps=400))
            assert "upper level unbounded below" in found.message

    def test_a_penalty_that_undoes_the_lower_level_is_named(self):
        problem = Bilevel(
            lambda x, y: -2.0 * y.square().sum() + x.square().sum(), distance, ZERO + 1.0, ZERO + 1.0
        )
        found = solve(problem, Penalty(1e-9, 0.5, penalty=1.0), stop=Stop(steps=200))
        assert found.status is Status.DIVERGED
        assert "lower level settles alone" in found.message
        assert "smaller penalty" in found.message

    def test_an_x_that_moves_to_where_the_lower_step_is_too_long_is_told(self):
        def lower(x, y):
            return 0.5 * (1e-6 + x.square().sum()) * (y - 1.0).square().sum()

        problem = Bilevel(lambda x, y: -x.square().sum(), lower, ZERO + 1e-3, ZERO)
        found = solve(problem, AID(0.1, 0.5, 1, DirectInverse()), stop=Stop(steps=400))
        assert found.status is Status.DIVERGED
        assert "settles where x began and not where x has come to" in found.message

    def test_a_lower_level_settles_or_does_not(self):
        problem = Bilevel(lambda x, y: -y.square().sum(), distance, ZERO, ZERO)
        y = ZERO + 3.0
        assert settles(problem, ZERO, y, 0.5)
        assert settles(problem, y, y, 0.5)  # stands still
        assert not settles(problem, ZERO, y, 2.5)
        assert settles(problem, ZERO, y, 0.5, penalty=0.1)
        assert not settles(problem, ZERO, y, 0.5, penalty=1.0)


class TestLargeData:
    @pytest.mark.parametrize(
        "make", [*METHODS.values(), lambda a, g: Penalty(a, g, penalty=1e-3), lambda a, g: BOME(a, g)]
    )
    @settings(max_examples=4, deadline=None)
    @given(power=st.sampled_from([-120, -30, 12, 30, 120]))
    def test_a_far_solution_is_no_runaway(self, make, power):
        """Quadratic levels: multiplying all data by a power of two multiplies every iterate by it, bit for bit."""
        scale = 2.0**power

        def at(scale):
            target = scale * torch.tensor([1.0, -2.0, 3.0, 0.5, -0.25], dtype=DOUBLE)
            problem = Bilevel(
                lambda x, y: 0.5 * (y - target).square().sum(), distance, ZERO.clone(), ZERO.clone()
            )
            return solve(problem, make(0.25, 0.5), stop=Stop(steps=25))

        near, far = at(1.0), at(scale)
        assert far.status is Status.EXHAUSTED, far.message
        torch.testing.assert_close(far.x.x, scale * near.x.x, rtol=1e-7, atol=0)

    def test_looking_twice_changes_nothing_after_a_resume(self, tmp_path):
        target = 1e12 * (ZERO + 1.0)
        problem = Bilevel(lambda x, y: 0.5 * (y - target).square().sum(), distance, ZERO, ZERO)
        whole = solve(problem, AID(0.25, 0.5), stop=Stop(steps=12))
        solve(problem, AID(0.25, 0.5), stop=Stop(steps=5), callbacks=[Checkpoint(tmp_path / "run")])
        again = solve(problem, AID(0.25, 0.5), stop=Stop(steps=12), resume=tmp_path / "run")
        assert torch.equal(whole.x.x, again.x.x)


NEEDED = {Decay: {"first": 1.0}, Anderson: {"step_size": 0.1}}
BAD_NUMBERS = (math.nan, -1.0, 0.0, "0.1", True, None, math.inf)
BAD_COUNTS = (0, -1, 2.5, math.nan, "3", True, None)
NUMBERS = [
    (AID, "step_size"),
    (AID, "inner_step_size"),
    (StocBiO, "step_size"),
    (ITD, "inner_step_size"),
    (BOME, "control"),
    (BOREP, "step_size"),
    (BOREP, "inner_step_size"),
    (EpochSGD, "step_size"),
    (MASOBA, "step_size"),
    (SABA, "inner_step_size"),
    (MRBO, "step_size"),
    (Penalty, "penalty"),
    (MomentumPenalty, "momentum"),
    (NeumannInverse, "step_size"),
    (FixedPointInverse, "step_size"),
    (CGInverse, "tol"),
    (Anderson, "step_size"),
    (SelfTuner, "hyper_rate"),
    (Decay, "delay"),
]
COUNTS = [
    (AID, "inner_steps"),
    (ITD, "inner_steps"),
    (BOME, "inner_steps"),
    (BOREP, "period"),
    (BOREP, "inner_steps"),
    (EpochSGD, "epochs"),
    (EpochSGD, "steps"),
    (Penalty, "inner_steps"),
    (Penalty, "batches"),
    (NeumannInverse, "terms"),
    (FixedPointInverse, "steps"),
    (CGInverse, "max_steps"),
    (Anderson, "depth"),
    (SelfTuner, "train_steps"),
    (SelfTuner, "validation_steps"),
]


class TestOptions:
    @pytest.mark.parametrize(("method", "option"), NUMBERS)
    def test_numbers_are_positive_and_finite(self, method, option):
        for bad in BAD_NUMBERS:
            with pytest.raises(InvalidParameter, match=f"{method.__name__} needs {option} > 0"):
                method(**NEEDED.get(method, {}) | {option: bad})
        method(**NEEDED.get(method, {}) | {option: np.float32(0.5)})

    @pytest.mark.parametrize(("method", "option"), COUNTS)
    def test_counts_are_whole(self, method, option):
        for bad in BAD_COUNTS:
            with pytest.raises(
                InvalidParameter, match=f"{method.__name__} needs {option} >= 1, a whole number"
            ):
                method(**NEEDED.get(method, {}) | {option: bad})
        method(**NEEDED.get(method, {}) | {option: np.int64(2)})

    @pytest.mark.parametrize("method", [BOREP, MASOBA, MRBO])
    def test_momentum_is_a_share(self, method):
        for bad in (math.nan, 1.0, -0.1, "0.9", True, None):
            with pytest.raises(InvalidParameter, match=f"{method.__name__} needs 0 <= momentum < 1"):
                method(momentum=bad)

    @pytest.mark.parametrize(
        ("method", "option"), [(AID, "clip"), (ITD, "clip"), (BOREP, "radius"), (Penalty, "rho")]
    )
    def test_where_infinity_means_none_it_is_taken(self, method, option):
        method(**{option: math.inf})
        for bad in (math.nan, 0.0, "1", True, None):
            with pytest.raises(InvalidParameter, match=f"{method.__name__} needs {option} > 0"):
                method(**{option: bad})

    def test_the_others_are_told_too(self):
        for method in (MirrorDescent, ProximalGradient):
            for bad in (math.nan, 0.0, "1", True):
                with pytest.raises(InvalidParameter, match=f"{method.__name__} needs step_size > 0"):
                    method(bad)
        for bad in (math.nan, "1", True, -1.0):
            with pytest.raises(InvalidParameter, match="DirectInverse needs ridge >= 0"):
                DirectInverse(bad)
        for ends in ((math.nan, 1.0), ("0", 1.0), (True, 2.0), (-math.inf, 1.0)):
            with pytest.raises(InvalidParameter, match="bisection needs numbers low < high"):
                bisection(lambda x: x, *ends)
        for option in ({"value0": math.nan}, {"low": "0"}, {"high": math.inf}, {"spread": True}):
            with pytest.raises(InvalidParameter, match=r"'rate' needs .*, a finite number"):
                HyperParameter("rate", **{"value0": 0.5} | option)


@pytest.mark.parametrize("unit", [1.0, 2.0**-60, 2.0**-110])
def test_levels_in_small_units_are_not_solved_at_the_start(unit):
    """``min_x |y* - 1|^2/2`` with ``y* = x``: the solution is 1 in any unit of f and g."""
    problem = Bilevel(
        lambda x, y: unit * 0.5 * (y - 1.0).square().sum(),
        lambda x, y: unit * 0.5 * (y - x).square().sum(),
        torch.full((2,), 3.0, dtype=torch.float64),
        torch.zeros(2, dtype=torch.float64),
    )
    found = solve(problem, AID(0.5 / unit, 0.5 / unit), progress=False)
    assert found.converged
    torch.testing.assert_close(found.x.x, torch.ones(2, dtype=torch.float64), rtol=0, atol=1e-3)
