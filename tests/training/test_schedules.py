"""Schedules against closed forms and torch's own."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch.optim.lr_scheduler import (
    ChainedScheduler,
    CosineAnnealingLR,
    LinearLR,
    MultiStepLR,
    OneCycleLR,
    SequentialLR,
)

from thalweg.core import CheckpointMismatch, InvalidParameter, UnknownName
from thalweg.training import PROFILES, REX, ProfileSchedule, Rex
from thalweg.training.profiles import (
    DelayedLinear,
    Exponential,
    InverseSqrt,
    OneCycle,
    Polynomial,
    Step,
    WarmupPolynomial,
)


def sgd(*rates, **options):
    groups = [{"params": [torch.nn.Parameter(torch.zeros(1))], "lr": rate} for rate in rates or (1.0,)]
    return torch.optim.SGD(groups, **options)


def trajectory(optimizer, schedule, steps):
    out = []
    for _ in range(steps):
        out.append(optimizer.param_groups[0]["lr"])
        optimizer.step()
        schedule.step()
    return np.array(out)


def test_rex_is_its_closed_form():
    rates = REX(sgd(0.6), 100).rates([0, 50, 100])[:, 0]
    np.testing.assert_allclose(rates, [0.6, 0.4, 0.0], atol=1e-15)


def test_rex_with_strength_zero_is_linear_and_above_it_otherwise():
    z = np.linspace(0, 1, 50)
    np.testing.assert_allclose(Rex(0.0)(z), 1 - z)
    assert (Rex(0.5)(z[1:-1]) > 1 - z[1:-1]).all()


@pytest.mark.parametrize(
    ("name", "peer"),
    [
        ("linear", lambda o: LinearLR(o, 1.0, 0.0, total_iters=40)),
        ("cosine", lambda o: CosineAnnealingLR(o, T_max=40)),
        ("step-50-75", lambda o: MultiStepLR(o, [20, 30])),
    ],
)
def test_the_profile_equals_torchs_own_schedule(name, peer):
    a, b = sgd(0.3), sgd(0.3)
    ours = trajectory(a, ProfileSchedule(a, 40, name), 40)
    np.testing.assert_allclose(ours, trajectory(b, peer(b), 40), atol=1e-12)


def test_onecycle_equals_torchs_own_with_its_momentum():
    a, b = sgd(0.3, momentum=0.9), sgd(0.3, momentum=0.9)
    # torch reaches the end at step total - 1, and its rise ends at 0.3 total - 1.
    theirs = OneCycleLR(b, max_lr=0.3, total_steps=101, pct_start=31 / 101)
    ours = ProfileSchedule(a, 100, OneCycle(rise=0.3), momentum=(0.85, 0.95))
    rates, momenta = [], []
    for _ in range(100):
        rates.append((a.param_groups[0]["lr"], b.param_groups[0]["lr"]))
        momenta.append((a.param_groups[0]["momentum"], b.param_groups[0]["momentum"]))
        for o, s in ((a, ours), (b, theirs)):
            o.step()
            s.step()
    np.testing.assert_allclose(*np.transpose(rates), atol=1e-9)
    np.testing.assert_allclose(*np.transpose(momenta), atol=5e-3)  # torch's low end differs by 1/25


@given(
    name=st.sampled_from(sorted(PROFILES)),
    total=st.integers(1, 200),
    warmup=st.integers(0, 50),
    floor=st.floats(0, 0.9),
    sampling=st.sampled_from(["step", 1, 7, 0.1, 0.5, (0.5, 0.75), (0.33, 0.66)]),
)
def test_the_rate_stays_between_floor_and_base(name, total, warmup, floor, sampling):
    if warmup >= total:
        return
    schedule = ProfileSchedule(sgd(2.0), total, name, warmup_steps=warmup, floor=floor, sampling=sampling)
    rates = schedule.rates(np.arange(total + 20))[:, 0]
    assert (rates >= 0).all()
    assert (rates <= 2.0 * (1 + 1e-12)).all()
    assert (rates[warmup:] >= 2.0 * floor - 1e-12).all()


@pytest.mark.parametrize("name", PROFILES)
def test_the_closed_form_is_what_training_uses(name):
    optimizer = sgd(0.7)
    schedule = ProfileSchedule(optimizer, 30, name, warmup_steps=5, floor=0.01)
    expected = schedule.rates(np.arange(40))[:, 0]
    np.testing.assert_allclose(trajectory(optimizer, schedule, 40), expected)
    assert expected[35] == expected[30]  # held past the end


def test_sampling_reads_the_profile_only_so_often():
    def rates(sampling):
        return ProfileSchedule(sgd(1.0), 100, "linear", sampling=sampling).rates(np.arange(100))[:, 0]

    np.testing.assert_allclose(np.unique(rates((0.5, 0.75))), [0.25, 0.5, 1.0])
    np.testing.assert_allclose(np.unique(rates(10)), np.arange(1, 11) / 10)
    np.testing.assert_allclose(rates(0.1), rates(10))
    np.testing.assert_allclose(rates("step"), 1 - np.arange(100) / 100)


def test_groups_keep_their_base_rates():
    schedule = REX(sgd(1.0, 0.1), 10)
    np.testing.assert_allclose(schedule.rates(5)[0], [2 / 3, 0.2 / 3])


def test_warmup_rises_in_front_of_the_profile():
    rates = ProfileSchedule(sgd(1.0), 14, "linear", warmup_steps=4).rates(np.arange(15))[:, 0]
    np.testing.assert_allclose(rates[:5], [0.2, 0.4, 0.6, 0.8, 1.0])
    np.testing.assert_allclose(rates[9], 0.5)
    assert rates[14] == 0


@given(at=st.integers(0, 59), new=st.integers(61, 300))
def test_a_changed_budget_makes_no_jump_and_ends_at_the_end(at, new):
    optimizer = sgd(1.0)
    schedule = REX(optimizer, 60)
    trajectory(optimizer, schedule, at)
    before = schedule.rates(at)
    schedule.set_total_steps(new)
    np.testing.assert_allclose(schedule.rates(at), before, atol=1e-12)
    assert schedule.rates(new)[0, 0] == pytest.approx(0.0, abs=1e-12)
    assert (np.diff(schedule.rates(np.arange(at, new + 1))[:, 0]) <= 1e-12).all()


def test_a_resumed_schedule_goes_on_as_if_never_stopped():
    a = sgd(1.0)
    whole = REX(a, 20, warmup_steps=3)
    trajectory(a, whole, 9)
    saved = whole.state_dict(), a.state_dict()
    b = sgd(1.0)
    resumed = REX(b, 20, warmup_steps=3)
    resumed.load_state_dict(saved[0])
    b.load_state_dict(saved[1])
    np.testing.assert_array_equal(trajectory(a, whole, 11), trajectory(b, resumed, 11))


def test_it_chains_with_torchs_own():
    optimizer = sgd(1.0)
    parts = [LinearLR(optimizer, 0.5, 1.0, total_iters=5), REX(optimizer, 10)]
    rates = trajectory(optimizer, SequentialLR(optimizer, parts, milestones=[5]), 15)
    np.testing.assert_allclose(rates[5:], Rex()(np.arange(10) / 10))


LINEAR_LR = (lambda o: LinearLR(o, 0.25, total_iters=4), 0.25 + 0.75 * np.minimum(np.arange(8) / 4, 1))
REX_8 = (lambda o: REX(o, 8), Rex()(np.arange(8) / 8))
WARM = (
    lambda o: ProfileSchedule(o, 8, "linear", warmup_steps=1),
    np.append(0.5, 1 - np.arange(7) / 7),
)
FROM_ZERO = (
    lambda o: ProfileSchedule(o, 8, WarmupPolynomial(0.5, 1.0)),
    np.minimum(np.arange(8) / 4, 2 - np.arange(8) / 4),
)


@pytest.mark.parametrize(
    "parts", [(LINEAR_LR, REX_8), (REX_8, LINEAR_LR), (WARM, REX_8), (FROM_ZERO, REX_8), (WARM, WARM, REX_8)]
)
def test_a_chain_gives_the_product_of_its_parts(parts):
    optimizer = sgd(2.0)
    chain = ChainedScheduler([make(optimizer) for make, _ in parts])
    expected = 2.0 * np.prod([factors for _, factors in parts], axis=0)
    np.testing.assert_allclose(trajectory(optimizer, chain, 8), expected, rtol=1e-12, atol=1e-15)


def test_a_resumed_chain_goes_on_as_if_never_stopped():
    def made():
        optimizer = sgd(2.0)
        return optimizer, ChainedScheduler([make(optimizer) for make, _ in (WARM, LINEAR_LR, REX_8)])

    a, whole = made()
    trajectory(a, whole, 3)
    saved = whole.state_dict(), a.state_dict()
    b, resumed = made()
    resumed.load_state_dict(saved[0])
    b.load_state_dict(saved[1])
    np.testing.assert_array_equal(trajectory(a, whole, 5), trajectory(b, resumed, 5))


def test_the_schedules_state_alone_is_enough_where_the_optimizers_was_not_kept():
    a = sgd(1.0)
    whole = REX(a, 20)
    trajectory(a, whole, 9)
    b = sgd(1.0)
    resumed = REX(b, 20)
    resumed.load_state_dict(whole.state_dict())
    np.testing.assert_array_equal(trajectory(a, whole, 11)[1:], trajectory(b, resumed, 11)[1:])


def test_a_rate_changed_by_hand_stays_changed_by_as_much():
    optimizer = sgd(1.0)
    schedule = ProfileSchedule(optimizer, 10, "linear")
    trajectory(optimizer, schedule, 4)
    optimizer.param_groups[0]["lr"] *= 0.1
    np.testing.assert_allclose(trajectory(optimizer, schedule, 6), 0.1 * np.arange(6, 0, -1) / 10)
    np.testing.assert_allclose(schedule.rates([10])[0], 0.0)


def test_a_second_schedule_begins_at_the_rate_of_that_moment_or_anew_after_zero():
    optimizer = sgd(1.0)
    trajectory(optimizer, ProfileSchedule(optimizer, 10, "linear", floor=0.1), 10)
    second = ProfileSchedule(optimizer, 10, "linear")
    np.testing.assert_allclose(second.rates([0, 5])[:, 0], [0.1, 0.05])
    trajectory(optimizer, second, 10)
    assert optimizer.param_groups[0]["lr"] == 0.0
    np.testing.assert_allclose(trajectory(optimizer, REX(optimizer, 10), 10), Rex()(np.arange(10) / 10))


def test_a_group_added_later_joins_where_the_schedule_is():
    optimizer = sgd(1.0)
    schedule = ProfileSchedule(optimizer, 10, "linear")
    trajectory(optimizer, schedule, 4)
    optimizer.add_param_group({"params": [torch.nn.Parameter(torch.zeros(1))], "lr": 0.2})
    trajectory(optimizer, schedule, 1)
    assert [group["lr"] for group in optimizer.param_groups] == pytest.approx([0.5, 0.1])
    np.testing.assert_allclose(schedule.rates([6])[0], [0.4, 0.08])


@pytest.mark.parametrize("sampling", ["step", 10, 0.25, (0.3, 0.6)])
@pytest.mark.parametrize("warmup", [0, 3])
def test_rates_of_past_steps_are_those_that_training_had(sampling, warmup):
    optimizer = sgd(1.0)
    schedule = ProfileSchedule(optimizer, 40, "linear", sampling=sampling, warmup_steps=warmup)
    had = [trajectory(optimizer, schedule, 2)]
    for budget, steps in ((60, 13), (50, 14), (45, 20)):
        schedule.set_total_steps(budget)
        assert schedule.rates([schedule.last_epoch])[0, 0] == optimizer.param_groups[0]["lr"]  # no jump
        had.append(trajectory(optimizer, schedule, steps))
    np.testing.assert_array_equal(schedule.rates(np.arange(49))[:, 0], np.concatenate(had))


def test_rates_of_past_steps_outlive_a_checkpoint():
    optimizer = sgd(1.0)
    schedule = ProfileSchedule(optimizer, 10, "linear")
    trajectory(optimizer, schedule, 5)
    schedule.set_total_steps(20)
    resumed = ProfileSchedule(sgd(1.0), 10, "linear")
    resumed.load_state_dict(schedule.state_dict())
    np.testing.assert_allclose(resumed.rates(range(6))[:, 0], [1, 0.9, 0.8, 0.7, 0.6, 0.5])


def test_momentum_runs_against_the_rate():
    optimizer = torch.optim.AdamW([torch.nn.Parameter(torch.zeros(1))], lr=1.0)
    schedule = REX(optimizer, 10, momentum=(0.8, 0.95))
    assert optimizer.param_groups[0]["betas"][0] == pytest.approx(0.8)
    for _ in range(10):
        optimizer.step()
        schedule.step()
    assert optimizer.param_groups[0]["betas"] == (pytest.approx(0.95), 0.999)


class TestBadInput:
    @pytest.mark.parametrize(
        ("arguments", "options", "message"),
        [
            ((0,), {}, "total_steps > 0"),
            ((-5,), {}, "total_steps > 0"),
            ((10,), {"warmup_steps": 10}, "warmup_steps < total_steps"),
            ((10,), {"floor": 1.0}, "floor in"),
            ((10,), {"sampling": "epoch"}, "sampling is"),
            ((2.5,), {}, "whole number total_steps"),
            (("10",), {}, "whole number total_steps"),
            ((True,), {}, "whole number total_steps"),
            ((10,), {"warmup_steps": 2.5}, "whole number 0 <= warmup_steps"),
            ((10,), {"floor": "low"}, "floor in"),
            ((10,), {"profile": lambda z: 1 - z}, "a name or a Profile; got a function"),
            ((10,), {"sampling": 0}, "sampling is"),
            ((10,), {"sampling": (0.7, 0.5)}, "sampling is"),
            ((10,), {"momentum": (0.9, 0.1)}, "low <= high"),
        ],
    )
    def test_options_outside_their_range_are_refused(self, arguments, options, message):
        with pytest.raises(InvalidParameter, match=message):
            ProfileSchedule(sgd(), *arguments, **options)

    def test_an_unknown_profile_is_refused_with_the_nearest(self):
        with pytest.raises(UnknownName, match="Did you mean 'cosine'"):
            ProfileSchedule(sgd(), 10, "cosin")

    def test_a_budget_already_used_up_is_refused(self):
        optimizer = sgd()
        schedule = REX(optimizer, 10)
        trajectory(optimizer, schedule, 6)
        with pytest.raises(InvalidParameter, match="6 steps already done"):
            schedule.set_total_steps(6)

    @pytest.mark.parametrize("floor", [0.0, 0.1])
    @pytest.mark.parametrize("past_end", [0, 3])
    def test_a_budget_is_not_extended_after_its_end(self, floor, past_end):
        optimizer = sgd()
        schedule = ProfileSchedule(optimizer, 10, floor=floor)
        trajectory(optimizer, schedule, 10 + past_end)
        with pytest.raises(InvalidParameter, match=r"budget of 10 steps is used up.*new schedule"):
            schedule.set_total_steps(20)

    def test_states_of_other_schedules_and_other_groups_are_refused(self):
        with pytest.raises(CheckpointMismatch, match="another scheduler"):
            REX(sgd(), 10).load_state_dict(LinearLR(sgd()).state_dict())
        with pytest.raises(CheckpointMismatch, match="saved for 2 parameter groups; this optimizer has 1"):
            REX(sgd(), 10).load_state_dict(REX(sgd(1.0, 2.0), 10).state_dict())

    def test_the_state_of_another_profile_is_refused(self):
        with pytest.raises(CheckpointMismatch, match="Rex"):
            ProfileSchedule(sgd(), 10, "linear").load_state_dict(REX(sgd(), 10).state_dict())

    def test_momentum_for_an_optimizer_without_it_is_refused(self):
        optimizer = torch.optim.Adagrad([torch.nn.Parameter(torch.zeros(1))])
        with pytest.raises(InvalidParameter, match="Adagrad has none"):
            REX(optimizer, 10, momentum=(0.8, 0.9))

    @pytest.mark.parametrize(
        "make",
        [
            lambda: Rex(1.0),
            lambda: Exponential(0.0),
            lambda: Step((0.5, 0.2)),
            lambda: Step(factor=1.0),
            lambda: Polynomial(0.0),
            lambda: OneCycle(rise=1.0),
            lambda: DelayedLinear(1.0),
            lambda: InverseSqrt(0.0),
        ],
    )
    def test_profiles_refuse_parameters_outside_their_range(self, make):
        with pytest.raises(InvalidParameter, match="needs"):
            make()
